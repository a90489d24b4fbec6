//! Failovers while they happen, and the last of those that are over.
//!
//! One begins when a backend of the table in force goes down or is ejected (t1), has its traffic moved
//! when a table without it is swapped in (t2), and is over (t3) when no session can be on its way to
//! that backend any more: only then is it known whom it has cost what.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::health::Failover;
use crate::model::{BackendId, Load, TallySum};
use crate::pool::instant;
use crate::telemetry::millis;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Failovers {
    open: Vec<Open>,
    past: VecDeque<Arc<Failover>>,
    look: Option<Instant>,
}

/// One that is not over. There is at most one for each backend of the file.
#[derive(Debug)]
pub(super) struct Open {
    /// As far as it is known; from `moved` on it is provisional.
    pub(super) failover: Failover,
    /// The table of this revision lacks the backend.
    pub(super) revision: u64,
    /// What the backend has done to sessions.
    pub(super) load: Arc<Load>,
    /// The same before it began.
    pub(super) before: Harm,
    /// The longest that a session may take to connect.
    pub(super) patience: Duration,
    /// When the table was swapped.
    pub(super) moved: Option<Instant>,
    /// Since when the backend has had no session.
    pub(super) idle: Option<Instant>,
}

/// Those of one service that are over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Over {
    /// How many.
    pub(super) total: u64,
    /// How long the last one took.
    pub(super) last: Option<Duration>,
}

/// Sessions that a backend has failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Harm {
    moved: u64,
    hurt: u64,
}

impl Harm {
    /// So far.
    pub(super) fn of(sum: &TallySum) -> Self {
        Self {
            moved: sum.moved,
            hurt: sum.hurt,
        }
    }
}

impl Failovers {
    /// Takes one in.
    pub(super) fn begin(&mut self, open: Open) {
        self.open
            .retain(|it| it.failover.backend != open.failover.backend);
        self.open.push(open);
        self.look = Some(Instant::now());
    }

    /// A table of `service` is in force that knows every change up to `revision`.
    pub(super) fn swapped(&mut self, service: &str, revision: u64) {
        let now = Instant::now();
        for open in &mut self.open {
            let is_of = *open.failover.backend.service().as_ref() == *service;
            if is_of && open.revision <= revision {
                open.moved.get_or_insert(now);
            }
        }
    }

    /// Another configuration is in force: every table is a new one, and those of the `stale` services
    /// are built once more, from revision 0.
    pub(super) fn reloaded(&mut self, stale: &[Arc<str>]) {
        for open in &mut self.open {
            open.revision = 0;
        }
        let services = self.open.iter().map(|it| it.failover.backend.service());
        let services: Vec<_> = services.filter(|it| !stale.contains(it)).cloned().collect();
        for service in services {
            self.swapped(&service, 0);
        }
    }

    /// When to look at those that are not over.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.look
    }

    /// Looks at them, and tells those that are over now.
    pub(super) fn settle(&mut self, now: Instant) -> Vec<Arc<Failover>> {
        let mut over = Vec::new();
        self.open.retain_mut(|open| {
            let is_over = open.is_over(now);
            if is_over {
                over.push(Arc::new(open.finish(now)));
            }
            !is_over
        });
        self.look = (!self.open.is_empty()).then(|| now + LOOK);
        for failover in &over {
            if self.past.len() == MOST_PAST {
                self.past.pop_front();
            }
            self.past.push_back(Arc::clone(failover));
        }
        over
    }

    /// Ends that of `backend` now, if there is one: it has come back.
    pub(super) fn cut_short(&mut self, backend: &BackendId) {
        for open in &mut self.open {
            if open.failover.backend == *backend {
                open.patience = Duration::ZERO;
            }
        }
    }

    /// Whom those concern that are not over.
    pub(super) fn under_way(&self) -> impl Iterator<Item = &BackendId> {
        self.open.iter().map(|it| &it.failover.backend)
    }

    /// The last ones, the oldest first.
    pub(super) fn past(&self) -> impl Iterator<Item = &Arc<Failover>> {
        self.past.iter()
    }
}

impl Open {
    fn is_over(&mut self, now: Instant) -> bool {
        let Some(moved) = self.moved else {
            return false;
        };
        let is_idle = self.load.in_flight() == 0;
        self.idle = is_idle.then(|| self.idle.unwrap_or(now));
        let rested = self.idle.is_some_and(|since| now - since >= QUIET);
        rested || now.saturating_duration_since(moved) >= self.patience
    }

    fn finish(&self, now: Instant) -> Failover {
        let sum = self.load.sum();
        let harm = Harm::of(&sum);
        let moved = self.moved.unwrap_or(now);
        let last_harm = instant(sum.last_harm).filter(|_| harm != self.before);
        Failover {
            moved,
            recovered: last_harm.map_or(moved, |harm| harm.max(moved)),
            sessions_hurt: harm.hurt.saturating_sub(self.before.hurt),
            sessions_moved: harm.moved.saturating_sub(self.before.moved),
            ..self.failover.clone()
        }
    }
}

/// One line for a failover that is over.
pub(super) fn log(failover: &Failover, message: &'static str) {
    let after = |moment| millis(failover.after(moment));
    let last_success = failover
        .last_success
        .map(|it| -millis(failover.began.saturating_duration_since(it)));
    let began = SystemTime::now().checked_sub(failover.began.elapsed());
    let began = humantime::format_rfc3339_micros(began.unwrap_or(SystemTime::UNIX_EPOCH));
    tracing::info!(
        service = %failover.backend.service(),
        backend = %failover.backend.name(),
        address = %failover.address,
        why = %failover.why,
        eligible = %format_args!("{}/{}", failover.eligible, failover.configured),
        %began,
        last_success_ms = last_success,
        first_evidence_ms = after(failover.first_evidence),
        detected_ms = after(failover.detected),
        moved_ms = after(failover.moved),
        total_ms = millis(failover.total()),
        sessions_hurt = failover.sessions_hurt,
        sessions_moved = failover.sessions_moved,
        "{message}"
    );
}

/// How often those that are not over are looked at.
const LOOK: Duration = Duration::from_millis(20);
/// A backend that has had no session for so long has none on the way: they left it for another, and
/// that one has taken them.
const QUIET: Duration = Duration::from_millis(100);
/// Failovers that are remembered.
const MOST_PAST: usize = 128;
