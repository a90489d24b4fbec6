//! The state machine of one (address, check).

use std::time::{Duration, Instant};

use super::{Verdict, Why};

/// When a backend is probed and when its state changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Between the starts of two probes, ±10 % at each, of a backend that is up.
    pub interval: Duration,
    /// The same while it is between two states: the last verdict speaks against the state it is in.
    pub fast_interval: Duration,
    /// The same while it is down.
    pub down_interval: Duration,
    /// A probe without an answer by then has failed.
    pub timeout: Duration,
    /// Successes in a row that bring a down backend up.
    pub rise: u32,
    /// Failures in a row that take an up backend down.
    pub fall: u32,
}

/// Whether a backend answers, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No verdict yet; counts as eligible.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

impl State {
    /// As the log has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A change of state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state it left.
    pub from: State,
    /// The state it entered.
    pub to: State,
    /// How long it had been in `from`.
    pub after: Duration,
    /// Why, for a transition to [`State::Down`].
    pub cause: Option<Why>,
    /// `from` is what somebody knew before: when it left that, nobody can say.
    pub presumed: bool,
}

/// What is known about one (address, check).
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    since: Instant,
    against: u32,
    /// When the first of those against it came.
    turned: Option<Instant>,
    /// The state is what somebody knew before: the next verdict decides.
    presumed: bool,
    /// Somebody knew before that it was down, and since when; it is tried all the same until the next verdict.
    doubted: Option<Instant>,
}

impl Health {
    /// Nothing known since `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Unknown,
            since: now,
            against: 0,
            turned: None,
            presumed: false,
            doubted: None,
        }
    }

    /// What somebody knew before, and since when: it holds until the first verdict, which decides at once.
    pub fn presumed(state: State, since: Instant) -> Self {
        Self {
            state,
            presumed: true,
            ..Self::new(since)
        }
    }

    /// Whether no verdict has said yet what somebody knew before.
    pub fn is_presumed(&self) -> bool {
        self.presumed || self.doubted.is_some()
    }

    /// Lets one that somebody knew to be down be one of which nothing is known until its first verdict, and tells
    /// whether it was such a one. What was known is not forgotten: a bad verdict finds it down as before.
    pub fn doubt(&mut self, now: Instant) -> bool {
        let known = self.presumed && self.state == State::Down;
        if known {
            *self = Self {
                doubted: Some(self.since),
                ..Self::new(now)
            };
        }
        known
    }

    /// It is as it was known to be again, for a verdict to decide.
    fn undoubt(&mut self) {
        if let Some(since) = self.doubted {
            *self = Self::presumed(State::Down, since);
        }
    }

    /// The state of the last transition.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Verdicts in a row that speak against the state.
    pub fn against(&self) -> u32 {
        self.against
    }

    /// Since when verdicts have spoken against the state, if the last one does.
    pub fn turned(&self) -> Option<Instant> {
        self.turned
    }

    /// How many verdicts in a row it takes to leave the state.
    pub fn needed(&self, policy: &Policy) -> u32 {
        match self.state {
            _ if self.presumed => 1,
            State::Unknown => 1,
            State::Down => policy.rise,
            State::Up => policy.fall,
        }
    }

    /// How long after the start of the last probe the next one is due.
    pub fn pace(&self, policy: &Policy) -> Duration {
        match self.state {
            _ if self.against > 0 => policy.fast_interval,
            State::Unknown | State::Up => policy.interval,
            State::Down => policy.down_interval,
        }
    }

    /// Takes it down at once, whatever `fall` says: sessions have failed, and a probe has confirmed
    /// it. `None` when it is down already, or was before and has been tried since.
    pub fn condemn(&mut self, why: Why, now: Instant) -> Option<Transition> {
        self.undoubt();
        (self.state != State::Down).then(|| self.enter(State::Down, Some(why), now))
    }

    /// Takes a verdict in, and tells the transition that it completes. The first verdict decides at
    /// once; afterwards `rise` successes or `fall` failures in a row do.
    pub fn observe(
        &mut self,
        verdict: &Verdict,
        policy: &Policy,
        now: Instant,
    ) -> Option<Transition> {
        let (to, cause) = match verdict {
            Verdict::Alive => (State::Up, None),
            Verdict::Dead(why) => (State::Down, Some(why)),
        };
        self.undoubt();
        let needed = self.needed(policy);
        let presumed = std::mem::take(&mut self.presumed);
        if self.state == to {
            self.against = 0;
            self.turned = None;
            return None;
        }
        self.against = self.against.saturating_add(1);
        self.turned.get_or_insert(now);
        if self.against < needed {
            return None;
        }
        Some(Transition {
            presumed,
            ..self.enter(to, cause.cloned(), now)
        })
    }

    fn enter(&mut self, to: State, cause: Option<Why>, now: Instant) -> Transition {
        let transition = Transition {
            from: self.state,
            to,
            after: now.saturating_duration_since(self.since),
            cause,
            presumed: false,
        };
        *self = Self {
            state: to,
            ..Self::new(now)
        };
        transition
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Cause;

    const DEAD: &Verdict = &Verdict::Dead(Why::Network(Cause::Refused));

    fn policy(rise: u32, fall: u32) -> Policy {
        Policy {
            interval: Duration::from_secs(2),
            fast_interval: Duration::from_millis(500),
            down_interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            rise,
            fall,
        }
    }

    fn verdict(alive: bool) -> &'static Verdict {
        if alive { &Verdict::Alive } else { DEAD }
    }

    /// A backend whose first verdict was `alive`.
    fn settled(alive: bool, policy: &Policy) -> Health {
        let start = Instant::now();
        let mut health = Health::new(start);
        health.observe(verdict(alive), policy, start);
        health
    }

    #[test]
    fn nothing_is_known_before_the_first_verdict() {
        assert_eq!(Health::new(Instant::now()).state(), State::Unknown);
    }

    #[test]
    fn what_speaks_against_a_state_is_dated_from_the_first_verdict_that_did() {
        let policy = policy(3, 3);
        let mut health = settled(true, &policy);
        let at = |seconds| health.since() + Duration::from_secs(seconds);
        let [first, second, third, fourth] = [100, 101, 102, 103].map(at);
        assert_eq!(health.turned(), None);
        health.observe(DEAD, &policy, first);
        health.observe(DEAD, &policy, second);
        assert_eq!(health.turned(), Some(first));
        health.observe(&Verdict::Alive, &policy, third);
        assert_eq!(health.turned(), None);
        health.observe(DEAD, &policy, fourth);
        assert_eq!(health.turned(), Some(fourth));
    }

    #[test]
    fn the_first_verdict_decides_at_once() {
        let start = Instant::now();
        let now = start + Duration::from_millis(300);
        for (alive, to, cause) in [
            (true, State::Up, None),
            (false, State::Down, Some(Why::Network(Cause::Refused))),
        ] {
            let mut health = Health::new(start);
            let transition = health.observe(verdict(alive), &policy(5, 5), now);
            let expected = Transition {
                from: State::Unknown,
                to,
                after: Duration::from_millis(300),
                cause,
                presumed: false,
            };
            assert_eq!(transition, Some(expected));
            assert_eq!((health.state(), health.since()), (to, now));
        }
    }

    #[test]
    fn one_that_is_doubted_is_unknown_until_its_first_verdict_and_then_still_down_or_back() {
        let now = Instant::now();
        let (before, later) = (now - Duration::from_secs(60), now + Duration::from_secs(1));
        let doubted = || {
            let mut health = Health::presumed(State::Down, before);
            assert!(health.doubt(now));
            assert_eq!((health.state(), health.since()), (State::Unknown, now));
            assert!(health.is_presumed());
            health
        };
        let policy = policy(3, 3);
        let mut dead = doubted();
        assert_eq!(dead.observe(DEAD, &policy, later), None);
        assert_eq!((dead.state(), dead.since()), (State::Down, before));
        assert!(!dead.is_presumed());
        let mut condemned = doubted();
        let why = Why::Network(Cause::Refused);
        assert_eq!(condemned.condemn(why, later), None);
        assert_eq!(
            (condemned.state(), condemned.since()),
            (State::Down, before)
        );
        let mut back = doubted();
        let transition = back.observe(&Verdict::Alive, &policy, later).unwrap();
        assert_eq!((transition.from, transition.to), (State::Down, State::Up));
        assert_eq!(transition.after, Duration::from_secs(61));
        assert!(transition.presumed);
        // Nobody else is doubted.
        assert!(!Health::presumed(State::Up, before).doubt(now));
        assert!(!settled(false, &policy).doubt(now));
    }

    #[test]
    fn exactly_fall_failures_in_a_row_take_it_down() {
        let policy = policy(2, 3);
        let mut health = settled(true, &policy);
        let now = health.since() + Duration::from_secs(6);
        assert_eq!(health.observe(DEAD, &policy, now), None);
        assert_eq!(health.observe(DEAD, &policy, now), None);
        assert_eq!(health.against(), 2);
        let last = Verdict::Dead(Cause::TimedOut.into());
        let transition = health.observe(&last, &policy, now).unwrap();
        assert_eq!((transition.from, transition.to), (State::Up, State::Down));
        assert_eq!(transition.after, Duration::from_secs(6));
        assert_eq!(
            transition.cause,
            Some(Cause::TimedOut.into()),
            "the last one tells why"
        );
        assert_eq!(health.against(), 0);
    }

    #[test]
    fn exactly_rise_successes_in_a_row_bring_it_up() {
        let policy = policy(3, 1);
        let mut health = settled(false, &policy);
        let now = health.since();
        assert_eq!(health.observe(&Verdict::Alive, &policy, now), None);
        assert_eq!(health.observe(&Verdict::Alive, &policy, now), None);
        let transition = health.observe(&Verdict::Alive, &policy, now).unwrap();
        assert_eq!((transition.from, transition.to), (State::Down, State::Up));
        assert_eq!(transition.cause, None);
    }

    #[test]
    fn one_good_verdict_wipes_the_failures_before_it() {
        let policy = policy(2, 3);
        let mut health = settled(true, &policy);
        let now = health.since();
        for alive in [false, false, true, false, false] {
            assert_eq!(health.observe(verdict(alive), &policy, now), None);
        }
        assert_eq!((health.state(), health.against()), (State::Up, 2));
    }

    #[test]
    fn probes_come_fast_while_it_is_between_two_states_and_as_set_while_it_is_down() {
        let policy = policy(2, 2);
        let mut health = settled(true, &policy);
        let now = health.since();
        assert_eq!(health.pace(&policy), policy.interval);
        for (alive, pace) in [
            (false, policy.fast_interval),
            (true, policy.interval),
            (false, policy.fast_interval),
            (false, policy.down_interval),
            (true, policy.fast_interval),
            (false, policy.down_interval),
            (true, policy.fast_interval),
            (true, policy.interval),
        ] {
            health.observe(verdict(alive), &policy, now);
            assert_eq!(health.pace(&policy), pace);
        }
    }

    #[test]
    fn what_was_known_before_holds_until_the_first_verdict_decides() {
        let policy = policy(5, 5);
        let now = Instant::now();
        for state in [State::Up, State::Down] {
            let mut health = Health::presumed(state, now);
            assert_eq!(health.state(), state);
            let transition = health.observe(verdict(state != State::Up), &policy, now);
            assert_eq!(transition.map(|it| it.from), Some(state));
            let mut health = Health::presumed(state, now);
            let later = now + Duration::from_secs(1);
            let same = verdict(state == State::Up);
            assert!(health.is_presumed());
            assert_eq!(health.observe(same, &policy, later), None);
            assert!(!health.is_presumed());
            assert_eq!(health.since(), now, "it goes on");
            let other = verdict(state != State::Up);
            assert_eq!(health.observe(other, &policy, now), None, "now it is known");
        }
    }

    #[test]
    fn what_is_condemned_is_down_at_once_and_comes_back_as_ever() {
        let policy = policy(2, 1000);
        let mut health = settled(true, &policy);
        let now = health.since() + Duration::from_secs(3);
        let transition = health.condemn(Cause::TimedOut.into(), now).unwrap();
        assert_eq!((transition.from, transition.to), (State::Up, State::Down));
        assert_eq!(transition.after, Duration::from_secs(3));
        assert_eq!(transition.cause, Some(Cause::TimedOut.into()));
        assert_eq!(health.condemn(Cause::Refused.into(), now), None);
        assert_eq!(health.observe(&Verdict::Alive, &policy, now), None);
        assert!(health.observe(&Verdict::Alive, &policy, now).is_some());
    }

    #[test]
    fn a_threshold_lowered_by_a_reload_counts_what_was_seen() {
        let mut health = settled(true, &policy(2, 5));
        let now = health.since();
        for _ in 0..4 {
            health.observe(DEAD, &policy(2, 5), now);
        }
        assert!(health.observe(DEAD, &policy(2, 2), now).is_some());
    }

    #[test]
    fn a_clock_that_seems_to_go_back_is_no_time_at_all() {
        let policy = policy(1, 1);
        let mut health = settled(true, &policy);
        let earlier = health.since().checked_sub(Duration::from_secs(1)).unwrap();
        let transition = health.observe(DEAD, &policy, earlier).unwrap();
        assert_eq!(transition.after, Duration::ZERO);
    }

    /// The rule in one sentence: a backend is in the state of the last run of equal verdicts that
    /// was long enough, or the first verdict.
    fn model(verdicts: &[bool], rise: u32, fall: u32) -> bool {
        let mut up = verdicts[0];
        for run in verdicts.chunk_by(|a, b| a == b) {
            let needed = if run[0] { rise } else { fall };
            if run.len() >= needed as usize {
                up = run[0];
            }
        }
        up
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Verdict(bool),
        /// Sessions have failed, and a probe has confirmed it.
        Condemned,
        /// `rise` and `fall` are others from now on.
        Reload(u32, u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            12 => any::<bool>().prop_map(Step::Verdict),
            1 => Just(Step::Condemned),
            1 => (1_u32..5, 1_u32..5).prop_map(|(rise, fall)| Step::Reload(rise, fall)),
        ]
    }

    proptest! {
        #[test]
        fn the_state_is_that_of_the_last_run_long_enough(
            verdicts in prop::collection::vec(any::<bool>(), 1..60),
            rise in 1_u32..6,
            fall in 1_u32..6,
        ) {
            let policy = policy(rise, fall);
            let start = Instant::now();
            let mut health = Health::new(start);
            for (index, &alive) in verdicts.iter().enumerate() {
                let now = start + Duration::from_secs(index as u64);
                let before = health.clone();
                let transition = health.observe(verdict(alive), &policy, now);
                let up = model(&verdicts[..=index], rise, fall);
                prop_assert_eq!(health.state(), if up { State::Up } else { State::Down });
                prop_assert_eq!(transition.is_some(), before.state() != health.state());
                if let Some(transition) = transition {
                    prop_assert_eq!(transition.from, before.state());
                    prop_assert_eq!(transition.to, health.state());
                    prop_assert_eq!(transition.after, now - before.since());
                    prop_assert_eq!(transition.cause.is_some(), !alive);
                    prop_assert_eq!(health.since(), now);
                } else {
                    prop_assert_eq!(health.since(), before.since());
                }
            }
        }

        /// Verdicts, failed sessions and reloads in any order: the state is left by a run of verdicts against it
        /// that is long enough by the policy of its last one, and by nothing else but a condemnation.
        #[test]
        fn whatever_happens_in_whatever_order_it_keeps_to_the_model(
            presumed in prop::option::of(any::<bool>()),
            steps in prop::collection::vec(step(), 0..200),
        ) {
            let now = Instant::now();
            let state = |up: Option<bool>| match up {
                None => State::Unknown,
                Some(true) => State::Up,
                Some(false) => State::Down,
            };
            let mut health = match presumed {
                Some(_) => Health::presumed(state(presumed), now),
                None => Health::new(now),
            };
            let (mut up, mut sure) = (presumed, false);
            let (mut rise, mut fall) = (2, 3);
            // Verdicts since the state was entered.
            let mut since = Vec::new();
            for step in steps {
                let before = up;
                let transition = match step {
                    Step::Verdict(alive) => {
                        since.push(alive);
                        let run = since.iter().rev().take_while(|it| Some(**it) != up).count();
                        let needed = match up {
                            Some(true) if sure => fall,
                            Some(false) if sure => rise,
                            _ => 1,
                        };
                        sure = true;
                        if run >= needed as usize {
                            up = Some(alive);
                            since.clear();
                        }
                        health.observe(verdict(alive), &policy(rise, fall), now)
                    }
                    Step::Condemned => {
                        if up != Some(false) {
                            (up, sure) = (Some(false), true);
                            since.clear();
                        }
                        health.condemn(Cause::Refused.into(), now)
                    }
                    Step::Reload(new_rise, new_fall) => {
                        (rise, fall) = (new_rise, new_fall);
                        None
                    }
                };
                prop_assert_eq!(health.state(), state(up));
                prop_assert_eq!(transition.is_some(), before != up);
                let run = since.iter().rev().take_while(|it| Some(**it) != up).count();
                prop_assert_eq!(health.against() as usize, run);
            }
        }

        #[test]
        fn alternating_verdicts_never_flip_it(
            first in any::<bool>(),
            rise in 2_u32..9,
            fall in 2_u32..9,
        ) {
            let policy = policy(rise, fall);
            let mut health = settled(first, &policy);
            let mut alive = first;
            for _ in 0..100 {
                alive = !alive;
                prop_assert_eq!(health.observe(verdict(alive), &policy, health.since()), None);
            }
        }
    }
}
