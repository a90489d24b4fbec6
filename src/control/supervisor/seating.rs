//! Who serves: has the roster of a service decide when something that it looks at has changed or when
//! it asked to be asked again, says what came of it, and has the table built beside the loop.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::api;
use crate::config::written;
use crate::control::Event;
use crate::control::journal;
use crate::control::services::{Built, Served, Serving};
use crate::health::{Decision, FailBack, StandDown, TierChange};

/// When rosters want to be asked again; at most one moment for each service.
#[derive(Debug, Default)]
pub(super) struct Wakes(BTreeSet<(Instant, Arc<str>)>);

impl Wakes {
    /// The first of them.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.first().map(|(at, _)| *at)
    }

    fn take_due(&mut self, now: Instant) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        while self.0.first().is_some_and(|(at, _)| *at <= now) {
            due.extend(self.0.pop_first().map(|(_, service)| service));
        }
        due
    }

    fn replace(&mut self, service: &Arc<str>, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(at) = old {
            self.0.remove(&(at, Arc::clone(service)));
        }
        if let Some(at) = new {
            self.0.insert((at, Arc::clone(service)));
        }
    }
}

/// Under a storm of transitions rosters decide once in this time at least. Down flags do not wait
/// for it.
const STORM: Duration = Duration::from_millis(50);

/// Rosters that took so long, because there are thousands of backends, rest …
const LONG: Duration = Duration::from_millis(1);
/// … for so many times as long, or control would do nothing else while verdicts come in.
const REST: u32 = 3;

/// Services whose backends have changed their state since their rosters have decided. A roster
/// looks at every backend, so it is asked once for all verdicts that wait, not for each.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    services: BTreeSet<Arc<str>>,
    since: Option<Instant>,
    /// Rosters rest until then.
    rest: Option<Instant>,
}

impl Unsettled {
    /// When rosters have rested for which something has changed meanwhile.
    pub(super) fn rested(&self) -> Option<Instant> {
        self.since.and(self.rest)
    }

    /// Whether they are to decide.
    fn is_due(&self, now: Instant, quiet: bool) -> bool {
        let rests = self.rest.is_some_and(|end| now < end);
        let waits = |since: Instant| quiet || now.duration_since(since) >= STORM;
        !rests && self.since.is_some_and(waits)
    }

    /// They have decided from `began` until `ended`.
    fn decided(&mut self, began: Instant, ended: Instant) {
        let took = ended.duration_since(began);
        self.rest = (took >= LONG).then(|| ended + took * REST);
    }

    pub(super) fn note(&mut self, service: &Arc<str>, now: Instant) {
        self.since.get_or_insert(now);
        self.services.insert(Arc::clone(service));
    }
}

impl Supervisor {
    /// Has rosters decide for which something has changed, now that it is `quiet` or they have
    /// waited long enough.
    pub(super) fn settle(&mut self, quiet: bool) {
        let began = Instant::now();
        if self.unsettled.is_due(began, quiet) {
            self.unsettled.since = None;
            for service in std::mem::take(&mut self.unsettled.services) {
                self.reconsider(&service);
            }
            self.unsettled.decided(began, Instant::now());
        }
    }

    /// Asks the rosters whose time has come.
    pub(super) fn wake(&mut self) {
        for service in self.wakes.take_due(Instant::now()) {
            if let Some(serving) = self.running.services.0.get_mut(&service) {
                serving.wake = None;
            }
            self.reconsider(&service);
        }
    }

    /// Starts anew with the services of a configuration, which may be others.
    ///
    /// Gives back those whose tables are built once more.
    pub(super) fn reconsider_all(&mut self) -> Vec<Arc<str>> {
        self.wakes = Wakes::default();
        let services: Vec<_> = self.running.services.0.keys().cloned().collect();
        for service in &services {
            self.reconsider(service);
        }
        let is_built = |name: &Arc<str>| {
            let serving = self.running.services.0.get(name);
            serving.is_some_and(|serving| serving.building)
        };
        services.into_iter().filter(is_built).collect()
    }

    /// Has the roster of `service` decide, because something that it looks at may have changed; a
    /// table is built if it decides otherwise than before.
    pub(super) fn reconsider(&mut self, service: &Arc<str>) {
        let Some(serving) = self.running.services.0.get_mut(service) else {
            return;
        };
        serving.revision += 1;
        if serving.building {
            return;
        }
        let Some(decision) = self.decide(service) else {
            return;
        };
        let Some(serving) = self.running.services.0.get(service) else {
            return;
        };
        if serving.is_laid_out_as(&decision) {
            // The table in force knows already.
            self.failovers.swapped(service, serving.revision);
        } else {
            self.lay_out(service, decision);
        }
    }

    /// Has a snapshot built for `service` as it is now, unless one is being built: then it is
    /// compared when that one is done.
    pub(super) fn rebuild(&mut self, service: &Arc<str>) {
        let serving = self.running.services.0.get(service);
        if serving.is_none_or(|serving| serving.building) {
            return;
        }
        if let Some(decision) = self.decide(service) {
            self.lay_out(service, decision);
        }
    }

    /// What the roster decides now; said where it is news.
    fn decide(&mut self, service: &Arc<str>) -> Option<Decision> {
        let serving = self.running.services.0.get(service)?;
        if !serving.members.has_eligible(&self.running.targets) {
            self.let_in_the_last(service);
        }
        let serving = self.running.services.0.get_mut(service)?;
        let decision = serving.decide(&self.running.targets, Instant::now());
        self.wakes.replace(service, serving.wake, decision.again);
        serving.wake = decision.again;
        serving.eligible = decision.eligible;
        let targets = &self.running.targets;
        let course = serving.members.course(decision.eligible, targets);
        let now = Instant::now();
        self.running.memory.note_service(service, course, now);
        let configured = serving.members.configured();
        let eligible = format!("{}/{configured}", decision.eligible);
        for change in &decision.changes {
            say(service, change, &eligible);
        }
        let served = Served::by(&decision);
        let before = std::mem::replace(&mut serving.served, served);
        if served != before {
            say_served(service, served, before);
            if let Some(news) = news_of(service, served, before) {
                self.journal.write(news);
            }
        }
        let stands_in = serving.roster.stands_in();
        for change in &decision.changes {
            self.tell(|| Event::Tier {
                service: Arc::clone(service),
                change: *change,
                stands_in,
                eligible: decision.eligible,
                configured,
            });
        }
        Some(decision)
    }

    fn lay_out(&mut self, service: &Arc<str>, decision: Decision) {
        let Some(serving) = self.running.services.0.get_mut(service) else {
            return;
        };
        serving.building = true;
        let blueprint = serving.members.blueprint(
            &decision,
            &self.running.targets,
            self.running.epoch,
            serving.revision,
        );
        serving.laid_out = Some(decision);
        let builds = self.builds.clone();
        let service = Arc::clone(service);
        tokio::task::spawn_blocking(move || {
            let built = std::panic::catch_unwind(AssertUnwindSafe(|| blueprint.build()));
            // Control is gone only when everything ends.
            let _ = builds.send(built.map_err(|_| service));
        });
    }

    /// Puts a table into service.
    pub(super) fn built(&mut self, built: Result<Built, Arc<str>>) {
        let built = match built {
            Ok(built) => built,
            Err(service) => {
                // The panic is logged, and the down flags hold; the next change tries again.
                if let Some(serving) = self.running.services.0.get_mut(&service) {
                    serving.building = false;
                    serving.laid_out = None;
                }
                return;
            }
        };
        if built.epoch != self.running.epoch {
            // Of a configuration that is not in force any more.
            return;
        }
        let Some(serving) = self.running.services.0.get_mut(&built.service) else {
            return;
        };
        serving.building = false;
        let is_current = serving.revision == built.revision;
        serving.service.swap(built.snapshot);
        self.failovers.swapped(&built.service, built.revision);
        if !is_current {
            self.rebuild(&built.service);
        }
    }
}

impl Serving {
    fn is_laid_out_as(&self, decision: &Decision) -> bool {
        self.laid_out
            .as_ref()
            .is_some_and(|laid_out| laid_out.lays_out_as(decision))
    }
}

/// A tier that takes over or stands down, in the log.
fn say(service: &str, change: &TierChange, eligible: &str) {
    match *change {
        TierChange::TakesOver {
            priority,
            up,
            needed,
        } => {
            let why = format!("{up} up before it, {needed} needed");
            tracing::warn!(service, priority, why, eligible, "standby takes over");
        }
        TierChange::Stays { priority, until } => {
            let until = match until {
                FailBack::After(time) => format!("they have been up for {}", written(time)),
                FailBack::Manual => "an operator reloads".to_owned(),
                // It does not stay then.
                FailBack::Immediate => String::new(),
            };
            tracing::info!(
                service,
                priority,
                until,
                eligible,
                "standby stays: those before it are back"
            );
        }
        TierChange::StandsDown { priority, up, why } => {
            let why = match why {
                StandDown::Immediate => format!("{up} up before it"),
                StandDown::After(time) => format!("{up} up before it for {}", written(time)),
                StandDown::Failed => format!("too few of it are up, and {up} before it"),
                StandDown::Asked => format!("an operator asked, and {up} are up before it"),
            };
            tracing::info!(service, priority, why, eligible, "standby stands down");
        }
    }
}

/// Nobody may serve, or somebody again, in the log.
fn say_served(service: &str, served: Served, before: Served) {
    match served {
        Served::ByNobody => {
            tracing::error!(service, "no backend may serve: clients are reset");
        }
        Served::Regardless => {
            tracing::error!(service, "no backend is up: all are used");
        }
        Served::ByTheEligible if before == Served::Regardless => {
            tracing::info!(service, "a backend is up: only those that are up are used");
        }
        Served::ByTheEligible => tracing::info!(service, "clients are served again"),
    }
}

/// The same, for those who read the journal.
fn news_of(service: &Arc<str>, served: Served, before: Served) -> Option<api::Event> {
    let (kind, level, text) = match (served, before) {
        (Served::ByNobody, _) => (
            "unserved",
            "error",
            "no backend may serve: clients are reset",
        ),
        (Served::Regardless, _) => ("unserved", "error", "no backend is up: all are used"),
        (Served::ByTheEligible, Served::Regardless) => {
            ("served", "info", "only those that are up are used again")
        }
        (Served::ByTheEligible, Served::ByNobody) => ("served", "info", "clients are served again"),
        (Served::ByTheEligible, Served::ByTheEligible) => return None,
    };
    let text = format!("{service}: {text}");
    Some(journal::note(kind, level, Some(service), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rosters_that_took_long_rest_before_they_decide_again() {
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        let mut unsettled = Unsettled::default();
        assert!(!unsettled.is_due(start, true));
        unsettled.note(&"web".into(), start);
        assert!(unsettled.is_due(start, true) && !unsettled.is_due(start, false));
        assert!(unsettled.is_due(start + STORM, false));
        unsettled.decided(start, start + LONG / 2);
        assert_eq!(unsettled.rested(), None);
        unsettled.decided(start, after(2));
        assert_eq!(unsettled.rested(), Some(after(8)));
        assert!(!unsettled.is_due(after(7), true));
        assert!(unsettled.is_due(after(8), true));
    }
}
