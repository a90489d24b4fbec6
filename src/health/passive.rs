//! What real sessions say against a backend, and what may be done about it.
//!
//! A heartbeat comes every other second; sessions come by the thousand. [`Suspicion`] gathers their
//! failures until there are enough for a confirming probe, or for an [`ejection`](super::ejection).

use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

use crate::model::Cause;

/// `[service.passive]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passive {
    /// Whether failures have consequences; else they are only counted.
    pub enabled: bool,
    /// So many failures …
    pub failures: u32,
    /// … within this time are evidence.
    pub window: Duration,
    /// Whether only a failed probe takes a backend out.
    pub confirm: bool,
    /// How long a backend is out for without a probe, the first time.
    pub eject_time: Duration,
    /// The most backends of the service that evidence may keep out at a time, in percent.
    pub max_ejected: u8,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            enabled: true,
            failures: 3,
            window: Duration::from_secs(10),
            confirm: true,
            eject_time: Duration::from_secs(10),
            max_ejected: 50,
        }
    }
}

/// How a backend failed a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Symptom {
    /// It refused the connect.
    Refused,
    /// It did not answer the connect in time.
    TimedOut,
    /// The network could not reach it.
    Unreachable,
    /// It reset the session before its first byte.
    Reset,
}

impl Symptom {
    const ALL: [Self; 4] = [
        Self::Refused,
        Self::TimedOut,
        Self::Unreachable,
        Self::Reset,
    ];

    /// What a failed connect says about the backend; `None` where the fault is this host's.
    pub fn of_connect(cause: Cause) -> Option<Self> {
        match cause {
            Cause::Refused => Some(Self::Refused),
            Cause::TimedOut => Some(Self::TimedOut),
            Cause::Unreachable => Some(Self::Unreachable),
            Cause::Reset => Some(Self::Reset),
            Cause::Finished
            | Cause::Exhausted
            | Cause::NoBackend
            | Cause::QueueFull
            | Cause::QueueTimeout
            | Cause::Lifetime
            | Cause::BackendDown
            | Cause::Idle
            | Cause::HalfClosed
            | Cause::Unacknowledged
            | Cause::Stopped
            | Cause::Panicked
            | Cause::Closed
            | Cause::Untrusted
            | Cause::Denied
            | Cause::TooMany
            | Cause::TooOften
            | Cause::BadHeader
            | Cause::Os(_) => None,
        }
    }

    /// The cause that a transition for this reason has.
    pub fn cause(self) -> Cause {
        match self {
            Self::Refused => Cause::Refused,
            Self::TimedOut => Cause::TimedOut,
            Self::Unreachable => Cause::Unreachable,
            Self::Reset => Cause::Reset,
        }
    }
}

/// One session that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How.
    pub symptom: Symptom,
    /// Since when the backend had been tried.
    pub since: Instant,
    /// When it had failed.
    pub at: Instant,
}

/// The failures that were enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Each of them, the oldest first.
    pub failures: Vec<Failure>,
    /// Why the last of them failed.
    pub last: Symptom,
    counts: [usize; Symptom::ALL.len()],
    within: Duration,
}

/// `3 failed within 12ms: 2 refused, 1 timed out`
impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total: usize = self.counts.iter().sum();
        let within = Duration::from_micros(u64::try_from(self.within.as_micros()).unwrap_or(0));
        let within = humantime::format_duration(within);
        write!(f, "{total} failed within {within}: ")?;
        let told = Symptom::ALL.iter().zip(self.counts);
        let told = told.filter(|&(_, count)| count > 0);
        for (index, (symptom, count)) in told.enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{count} {}", symptom.cause())?;
        }
        Ok(())
    }
}

/// The failures of one backend's sessions, and how far they have led.
#[derive(Clone, Debug, Default)]
pub struct Suspicion {
    /// The latest, never more than are needed.
    failures: VecDeque<Failure>,
    /// The first since the backend last did well, whatever was made of it since.
    first: Option<Failure>,
    /// There was enough, and nobody has decided yet.
    pending: bool,
    rest: Duration,
    rests_until: Option<Instant>,
}

impl Suspicion {
    /// Notes that a backend which did well at `well` last has come to this failure.
    pub fn note(&mut self, failure: Failure, well: Option<Instant>) {
        self.relent(well);
        self.first.get_or_insert(failure);
    }

    /// Forgets how its failures began, if the backend has done well since.
    pub fn relent(&mut self, well: Option<Instant>) {
        self.first = self.first.filter(|it| well.is_none_or(|well| well < it.at));
    }

    /// Whether anything speaks against the backend.
    pub fn is_open(&self) -> bool {
        self.first.is_some() || !self.failures.is_empty()
    }

    /// Takes a failure in. Tells the evidence once there is enough of it, and then not again until
    /// it was [dropped](Self::dropped) or [heard](Self::heard).
    pub fn observe(&mut self, failure: Failure, policy: &Passive) -> Option<Evidence> {
        let now = failure.at;
        self.forget(policy, now);
        self.failures.push_back(failure);
        while self.failures.len() > policy.failures as usize {
            self.failures.pop_front();
        }
        let enough = self.failures.len() >= policy.failures as usize;
        let rests = self.rests_until.is_some_and(|until| now < until);
        if self.pending || rests || !enough {
            return None;
        }
        let first = self.failures.front()?.at;
        let mut counts = [0; Symptom::ALL.len()];
        for failure in &self.failures {
            counts[failure.symptom as usize] += 1;
        }
        self.pending = true;
        Some(Evidence {
            failures: self.failures.iter().copied().collect(),
            last: failure.symptom,
            counts,
            within: now.saturating_duration_since(first),
        })
    }

    /// The evidence had no consequence. The same failures are not looked at again, and further ones
    /// only after a rest, which doubles each time up to the window: a backend that answers probes
    /// and fails sessions is not probed without end.
    pub fn dropped(&mut self, policy: &Passive, now: Instant) {
        self.failures.clear();
        self.pending = false;
        self.rest = (self.rest * 2).clamp(FIRST_REST, policy.window.max(FIRST_REST));
        self.rests_until = Some(now + self.rest);
    }

    /// The evidence had its consequence: what comes from here on is judged afresh.
    pub fn heard(&mut self) {
        *self = Self::default();
    }

    /// Nothing speaks against the backend, nor has for as long as the window.
    pub fn is_clear(&mut self, policy: &Passive, now: Instant) -> bool {
        self.forget(policy, now);
        self.failures.is_empty() && !self.pending
    }

    /// The first failure since the backend did well, and those that still count, the oldest first.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.first.iter().chain(&self.failures)
    }

    fn forget(&mut self, policy: &Passive, now: Instant) {
        let recent = |at: Instant| now.saturating_duration_since(at) <= policy.window;
        while self.failures.front().is_some_and(|it| !recent(it.at)) {
            self.failures.pop_front();
        }
        if self.rests_until.is_some_and(|until| !recent(until)) {
            self.rest = Duration::ZERO;
            self.rests_until = None;
        }
    }
}

/// After evidence without a consequence, the first time.
const FIRST_REST: Duration = Duration::from_millis(50);
#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Passive {
        Passive::default()
    }

    fn failure(symptom: Symptom, at: Instant) -> Failure {
        Failure {
            symptom,
            since: at,
            at,
        }
    }

    fn after(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    #[test]
    fn the_evidence_tells_what_it_consists_of() {
        let start = Instant::now();
        let mut suspicion = Suspicion::default();
        let mut seen = None;
        for (millis, symptom) in [
            (0, Symptom::Refused),
            (5, Symptom::TimedOut),
            (12, Symptom::Refused),
        ] {
            assert_eq!(seen, None);
            seen = suspicion.observe(failure(symptom, after(start, millis)), &policy());
        }
        let evidence = seen.unwrap();
        assert_eq!(
            evidence.to_string(),
            "3 failed within 12ms: 2 refused, 1 timed out"
        );
        assert_eq!(
            (evidence.failures[0].at, evidence.last),
            (start, Symptom::Refused)
        );
    }

    #[test]
    fn failures_outside_the_window_do_not_add_up() {
        let start = Instant::now();
        let mut suspicion = Suspicion::default();
        for index in 0..100 {
            let at = after(start, index * 5_001);
            assert_eq!(
                suspicion.observe(failure(Symptom::Refused, at), &policy()),
                None
            );
        }
    }

    #[test]
    fn evidence_is_told_once_until_it_is_decided() {
        let now = Instant::now();
        let mut suspicion = Suspicion::default();
        let mut told = 0;
        for _ in 0..100 {
            told += usize::from(
                suspicion
                    .observe(failure(Symptom::Reset, now), &policy())
                    .is_some(),
            );
        }
        assert_eq!(told, 1);
        suspicion.heard();
        assert!(suspicion.is_clear(&policy(), now));
        for _ in 0..2 {
            assert_eq!(
                suspicion.observe(failure(Symptom::Reset, now), &policy()),
                None
            );
        }
        assert!(
            suspicion
                .observe(failure(Symptom::Reset, now), &policy())
                .is_some()
        );
    }

    /// When evidence is told, of a backend that fails a session each millisecond for `millis` and
    /// whose probes are all good.
    fn told_at(millis: u64) -> Vec<u64> {
        let start = Instant::now();
        let mut suspicion = Suspicion::default();
        let mut told = Vec::new();
        for milli in 0..millis {
            let now = after(start, milli);
            if suspicion
                .observe(failure(Symptom::Reset, now), &policy())
                .is_some()
            {
                suspicion.dropped(&policy(), now);
                told.push(milli);
            }
        }
        told
    }

    #[test]
    fn a_backend_that_answers_probes_and_fails_sessions_is_probed_ever_less_often() {
        let told = told_at(60_000);
        let gaps: Vec<u64> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted(), "{gaps:?}");
        assert!(gaps[0] <= 60, "{gaps:?}");
        assert!(*gaps.last().unwrap() >= 10_000, "{gaps:?}");
    }

    #[test]
    fn how_it_began_is_known_whatever_came_of_it_until_the_backend_does_well() {
        let start = Instant::now();
        let mut suspicion = Suspicion::default();
        let first = failure(Symptom::Refused, start);
        for milli in 0..100 {
            let failure = failure(Symptom::Refused, after(start, milli));
            suspicion.note(failure, None);
            if suspicion.observe(failure, &policy()).is_some() {
                suspicion.dropped(&policy(), after(start, milli));
            }
        }
        assert_eq!(suspicion.failures().next(), Some(&first));
        suspicion.relent(Some(after(start, 50)));
        let later = failure(Symptom::Refused, after(start, 200));
        suspicion.note(later, Some(after(start, 150)));
        assert_eq!(suspicion.failures().next(), Some(&later));
        suspicion.heard();
        assert!(!suspicion.is_open());
    }

    #[test]
    fn a_quiet_window_ends_the_rest() {
        let start = Instant::now();
        let mut suspicion = Suspicion::default();
        for _ in 0..8 {
            suspicion.dropped(&policy(), start);
        }
        let rested = after(start, 40_000);
        assert!(suspicion.is_clear(&policy(), rested));
        suspicion.dropped(&policy(), rested);
        for _ in 0..2 {
            suspicion.observe(failure(Symptom::Reset, after(rested, 50)), &policy());
        }
        let third = suspicion.observe(failure(Symptom::Reset, after(rested, 50)), &policy());
        assert!(third.is_some());
    }

    #[test]
    fn what_is_wrong_with_this_host_says_nothing_about_a_backend() {
        for cause in [Cause::Exhausted, Cause::Os(1), Cause::Stopped] {
            assert_eq!(Symptom::of_connect(cause), None);
        }
        for symptom in Symptom::ALL {
            assert_eq!(Symptom::of_connect(symptom.cause()), Some(symptom));
        }
    }

    proptest! {
        #[test]
        fn evidence_is_as_many_failures_as_needed_within_the_window(
            gaps in prop::collection::vec(0_u64..400, 1..80),
            failures in 1_u32..8,
        ) {
            let policy = Passive { failures, window: Duration::from_secs(1), ..policy() };
            let start = Instant::now();
            let mut suspicion = Suspicion::default();
            let mut at = 0;
            let mut all = Vec::new();
            for gap in gaps {
                at += gap;
                all.push(at);
                let recent = all.iter().filter(|&&it| at - it <= 1_000).count();
                let told = suspicion.observe(failure(Symptom::Refused, after(start, at)), &policy);
                prop_assert_eq!(told.is_some(), recent >= failures as usize);
                prop_assert!(suspicion.failures.len() <= failures as usize);
                if told.is_some() {
                    suspicion.heard();
                    all.clear();
                }
            }
        }
    }
}
