//! What is known about each (address, check). Health belongs here and not to a backend: a backend
//! that gets a new address is judged afresh, and two services with the same check share one probe.

use std::mem::discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::memory::Prior;
use super::probe::{Aim, Probed, Prober, TargetId};
use crate::check::Unsent;
use crate::health::{Agent, Health, HealthView, State, Transition, Trend, Turn, Verdict, Why};
use crate::model::{DownFlag, Map};

/// Every interval is drawn anew within ±10 %, so that probes of many backends stay spread out.
const JITTER: f64 = 0.1;
/// First probes are spread over this for each target, up to one interval: few backends are judged
/// at once, many do not come in a burst.
const SPREAD: Duration = Duration::from_millis(2);
/// A probe that is sent so late says that control has had too much to do.
const BUSY: Duration = Duration::from_millis(5);

/// A certificate that expires is told of again after this long.
const REMINDER: Duration = Duration::from_secs(24 * 60 * 60);

/// One of them.
#[derive(Debug)]
pub(super) struct Target {
    health: Health,
    trend: Trend,
    agent: Option<Agent>,
    down: Arc<DownFlag>,
    probe: Option<Probe>,
    /// When a probe last succeeded.
    last_alive: Option<Instant>,
    /// When the first of those that failed since was sent, and when it had failed.
    first_miss: Option<(Instant, Instant)>,
    /// Why its last probe could not be sent, if that was so.
    unsent: Option<Unsent>,
    /// When it was last told that its certificate expires.
    warned: Option<Instant>,
    /// What the last probe that failed has met.
    last_failure: Option<Why>,
    /// How long the last one took that was answered.
    latency: Option<Duration>,
    /// Verdicts, …
    probes: u64,
    /// … and those of them that were bad.
    failures: u64,
}

/// The probe that is under way, or waits to be due.
#[derive(Debug)]
struct Probe {
    number: u64,
    task: AbortHandle,
}

impl Target {
    /// What its probes say so far.
    pub(super) fn state(&self) -> State {
        self.health.state()
    }

    /// What the roster is told of it.
    pub(super) fn view(&self) -> HealthView {
        HealthView {
            agent: self.agent.unwrap_or_default(),
            ..HealthView::of(self.health.state())
        }
    }

    /// The flag that picks look at.
    pub(super) fn down(&self) -> &Arc<DownFlag> {
        &self.down
    }

    /// How it answers its probes.
    pub(super) fn turn(&self) -> Turn {
        self.trend.turn()
    }

    /// What its agent asked for last, where one is asked.
    pub(super) fn agent(&self) -> Option<Agent> {
        self.agent
    }

    /// When a probe last succeeded.
    pub(super) fn last_alive(&self) -> Option<Instant> {
        self.last_alive
    }

    /// When the first probe that has failed since was sent, and when it had failed.
    pub(super) fn first_miss(&self) -> Option<(Instant, Instant)> {
        self.first_miss
    }

    /// Since when it has been in its state.
    pub(super) fn since(&self) -> Instant {
        self.health.since()
    }

    /// Since when probes have said otherwise, if the last one does.
    pub(super) fn turned(&self) -> Option<Instant> {
        self.health.turned()
    }

    /// What the last probe that failed has met.
    pub(super) fn last_failure(&self) -> Option<&Why> {
        self.last_failure.as_ref()
    }

    /// Why its check cannot run, where that is for somebody to repair.
    pub(super) fn not_run(&self) -> Option<&Unsent> {
        self.unsent.as_ref().filter(|unsent| match unsent {
            Unsent::Program(_) | Unsent::Defect => true,
            // Of this machine, which says so itself.
            Unsent::Exhausted(_) => false,
        })
    }

    /// How long the last probe took that was answered.
    pub(super) fn latency(&self) -> Option<Duration> {
        self.latency
    }

    /// Probes with a verdict, and those that failed.
    pub(super) fn probes(&self) -> (u64, u64) {
        (self.probes, self.failures)
    }

    /// Verdicts in a row that it takes to change its state.
    pub(super) fn needed(&self, id: &TargetId) -> u32 {
        self.health.needed(&id.policy)
    }

    /// Failures in a row that have not taken it down.
    pub(super) fn against(&self) -> u32 {
        self.health.against()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.task.abort();
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Targets(Map<TargetId, Target>);

impl Targets {
    /// The target of that name, once it was added.
    pub(super) fn get(&self, id: &TargetId) -> Option<&Target> {
        self.0.get(id)
    }

    /// The one with that aim, which is found without looking into it from then on; a new one if there is none.
    pub(super) fn recognized(&self, aim: Aim) -> TargetId {
        match self.0.get_key_value(&aim) {
            Some((known, _)) => known.clone(),
            None => TargetId::of(aim),
        }
    }

    /// Adds a target unless it is known.
    pub(super) fn add(&mut self, id: &TargetId) {
        if !self.0.contains_key(id) {
            let target = Target {
                health: Health::new(Instant::now()),
                trend: Trend::default(),
                agent: None,
                down: Arc::default(),
                probe: None,
                last_alive: None,
                first_miss: None,
                unsent: None,
                warned: None,
                last_failure: None,
                latency: None,
                probes: 0,
                failures: 0,
            };
            self.0.insert(id.clone(), target);
        }
    }

    /// Lets a target of which nothing is known start from what was known before this daemon.
    pub(super) fn presume(&mut self, id: &TargetId, prior: &Prior) {
        let target = self.0.get_mut(id);
        let fresh = target.filter(|it| it.probe.is_none() && it.state() == State::Unknown);
        if let Some(target) = fresh {
            target.health = Health::presumed(prior.state, prior.since);
            target.down.set(prior.state == State::Down);
        }
    }

    /// Lets a target that was down before this daemon be one of which nothing is known, and tells whether it was
    /// such a one: it counts as up until its first verdict.
    pub(super) fn doubt(&mut self, id: &TargetId) -> bool {
        let Some(target) = self.0.get_mut(id) else {
            return false;
        };
        let is_doubted = target.health.doubt(Instant::now());
        if is_doubted {
            target.down.set(false);
        }
        is_doubted
    }

    /// Lets a target that is not probed yet know what was found out about the same address: a
    /// changed check does not unlearn it. What only checks of one kind find out is passed on between
    /// those.
    pub(super) fn inherit(&mut self, id: &TargetId, from: &TargetId) {
        if id == from || id.address != from.address {
            return;
        }
        let [Some(target), Some(former)] = self.0.get_disjoint_mut([id, from]) else {
            return;
        };
        if target.probe.is_some() {
            return;
        }
        target.down.set(former.health.state() == State::Down);
        target.health = former.health.clone();
        target.last_alive = former.last_alive;
        target.first_miss = former.first_miss;
        target.last_failure = former.last_failure.clone();
        (target.probes, target.failures) = (former.probes, former.failures);
        if discriminant(&id.check.kind) == discriminant(&from.check.kind) {
            target.agent = former.agent;
            target.warned = former.warned;
        }
    }

    /// Forgets a target, and stops probing it.
    pub(super) fn remove(&mut self, id: &TargetId) {
        self.0.remove(id);
    }

    /// Forgets, and stops probing, what is not `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&TargetId) -> bool) {
        self.0.retain(|id, _| wanted(id));
    }

    /// Starts the probes of targets that were added.
    pub(super) fn start(&mut self, prober: &Prober) {
        let spread = SPREAD * u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let now = tokio::time::Instant::now();
        for (id, target) in &mut self.0 {
            target.probe.get_or_insert_with(|| {
                let first = id.policy.interval.min(spread).mul_f64(fastrand::f64());
                Probe {
                    number: 0,
                    task: prober.start(id.clone(), 0, now + first),
                }
            });
        }
    }

    /// Takes a target down that a confirming probe found dead, whatever its check says of `fall`. `None` for one
    /// that was down before this daemon, and is so still.
    pub(super) fn condemn(&mut self, id: &TargetId, why: Why) -> Option<Transition> {
        let target = self.0.get_mut(id)?;
        let transition = target.health.condemn(why, Instant::now());
        target.down.set(target.health.state() == State::Down);
        transition
    }

    /// A probe could not be sent, and why: whether that is news.
    pub(super) fn mute(&mut self, id: &TargetId, why: &Unsent) -> bool {
        let target = self.0.get_mut(id);
        target.is_some_and(|target| target.unsent.replace(why.clone()).is_none())
    }

    /// Whether it is time to say that the certificate expires `soon`.
    pub(super) fn expires(&mut self, id: &TargetId, soon: bool) -> bool {
        let Some(target) = self.0.get_mut(id) else {
            return false;
        };
        let now = Instant::now();
        let told = target.warned.filter(|at| now - *at < REMINDER);
        target.warned = soon.then(|| told.unwrap_or(now));
        soon && told.is_none()
    }

    /// Takes in what a probe came to, and has the next one sent when it is due. At a transition the
    /// down flag is set before anything else happens.
    pub(super) fn observe(&mut self, probed: &Probed, prober: &Prober) -> Option<Observed> {
        let id = &probed.target;
        let target = self.0.get_mut(id)?;
        let probe = target.probe.as_mut()?;
        if probe.number != probed.number {
            // Overtaken: of a target that was forgotten since and is new again.
            return None;
        }
        let mut observed = Observed::default();
        if let Ok(finding) = &probed.finding {
            target.unsent = None;
            target.probes += 1;
            let now = Instant::now();
            match &finding.verdict {
                Verdict::Alive => {
                    target.last_alive = Some(now);
                    target.first_miss = None;
                    target.latency = Some(finding.took);
                }
                Verdict::Dead(why) => {
                    target.failures += 1;
                    target.last_failure = Some(why.clone());
                    target
                        .first_miss
                        .get_or_insert((probed.started.into_std(), now));
                }
            }
            let presumed = target.health.is_presumed();
            observed.transition = target.health.observe(&finding.verdict, &id.policy, now);
            observed.is_still_down =
                presumed && observed.transition.is_none() && target.health.state() == State::Down;
            if observed.transition.is_some() || observed.is_still_down {
                target.down.set(target.health.state() == State::Down);
            }
            // One that was sent late tells of this machine's load rather than of the server's.
            if finding.verdict == Verdict::Alive && probed.late < BUSY {
                observed.turn = target.trend.observe(finding.took);
            }
            if finding.agent.is_some() {
                // One that cannot be asked has not changed its mind.
                observed.other_agent = target.agent != finding.agent;
                target.agent = finding.agent;
            }
        }
        let due = probed.started + jittered(target.health.pace(&id.policy), fastrand::f64());
        probe.number += 1;
        let due = due.max(tokio::time::Instant::now());
        probe.task = prober.start(id.clone(), probe.number, due);
        Some(observed)
    }
}

/// `interval` and at most [`JITTER`] of it more or less, as `chance` in 0 to 1 has it.
fn jittered(interval: Duration, chance: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * chance - 1.0))
}

/// What a probe has changed.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The state.
    pub(super) transition: Option<Transition>,
    /// Nothing: the first verdict has found it down, as it was before this daemon.
    pub(super) is_still_down: bool,
    /// What the agent asks for.
    pub(super) other_agent: bool,
    /// Whether it answers slower than it used to.
    pub(super) turn: Option<Turn>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Check, Duty, Exchange, Kind, Percent, Policy};

    #[test]
    fn an_interval_is_a_tenth_longer_or_shorter_at_most() {
        let interval = Duration::from_secs(2);
        let drawn = [0.0, 0.5, 1.0].map(|chance| jittered(interval, chance).as_millis());
        assert_eq!(drawn, [1800, 2000, 2200]);
    }

    fn target(kind: Kind, interval: Duration) -> TargetId {
        let address = "192.0.2.1:80".parse().unwrap();
        let policy = Policy {
            interval,
            fast_interval: interval,
            down_interval: interval,
            timeout: interval,
            rise: 2,
            fall: 2,
        };
        let check = Check {
            kind,
            ..Check::default()
        };
        TargetId::of(Aim {
            address,
            probed_at: address,
            check: Arc::new(check),
            policy,
        })
    }

    #[test]
    fn another_interval_forgets_nothing_and_another_kind_what_only_the_former_knew() {
        let agent = || Kind::Agent(Exchange::default());
        let former = target(agent(), Duration::from_secs(1));
        let slower = target(agent(), Duration::from_secs(2));
        let other = target(Kind::default(), Duration::from_secs(1));
        let mut targets = Targets::default();
        for id in [&former, &slower, &other] {
            targets.add(id);
        }
        let now = Instant::now();
        let drains = Agent {
            duty: Duty::Drain,
            weight: Percent::new(25),
        };
        let known = targets.0.get_mut(&former).unwrap();
        known.health = Health::presumed(State::Down, now);
        known.agent = Some(drains);
        known.warned = Some(now);
        known.last_alive = Some(now);
        known.first_miss = Some((now, now));

        for (heir, asks) in [(&slower, Some(drains)), (&other, None)] {
            targets.inherit(heir, &former);
            let heir = targets.get(heir).unwrap();
            assert_eq!(heir.state(), State::Down);
            assert!(heir.down().is_set());
            assert_eq!(heir.last_alive(), Some(now));
            assert_eq!(heir.first_miss(), Some((now, now)));
            assert_eq!(heir.agent(), asks);
            assert_eq!(heir.warned, asks.map(|_| now));
        }
    }
}
