//! Notices as they are drafted: what an alert says of each thing that it tells of. Whether it tells of it is for [`watch`](super::watch).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notice::{Details, Notice, Status};
use crate::config::{AlertConfig, Occasion};
use crate::control::Standing;
use crate::health::{Failover, Turn};
use crate::model::{Address, BackendId};

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Since 1970.
    pub(super) wall: Duration,
}

/// What was last told of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Trouble {
    pub(super) degraded: bool,
    pub(super) all_down: bool,
}

/// What there is to tell of a service that stood as it `was` and stands as it `is`.
pub(super) fn compared(
    config: &AlertConfig,
    standing: &Standing,
    was: Trouble,
    is: Trouble,
    now: Moment,
    notices: &mut Vec<Notice>,
) {
    let (eligible, configured) = (standing.eligible, standing.configured);
    let below_percent = config.degraded_below;
    let all = [
        (
            Occasion::Degraded,
            was.degraded,
            is.degraded,
            Details::Degraded {
                eligible,
                configured,
                below_percent,
            },
        ),
        (
            Occasion::AllDown,
            was.all_down,
            is.all_down,
            Details::AllDown { configured },
        ),
    ];
    for (event, was, is, details) in all {
        if was != is {
            notices.push(Notice {
                event,
                status: if is { Status::Firing } else { Status::Resolved },
                time: now.wall,
                service: Some(Arc::clone(&standing.service)),
                backend: None,
                address: None,
                details,
            });
        }
    }
}

/// What was told of whom there is no more.
pub(super) fn gone(
    event: Occasion,
    service: &Arc<str>,
    backend: Option<&Arc<str>>,
    now: Moment,
) -> Notice {
    Notice {
        event,
        status: Status::Resolved,
        time: now.wall,
        service: Some(Arc::clone(service)),
        backend: backend.cloned(),
        address: None,
        details: Details::Gone { why: GONE },
    }
}

pub(super) fn over(failover: &Failover, now: Moment) -> Notice {
    let since = now.at.saturating_duration_since(failover.began);
    Notice {
        event: Occasion::Failover,
        status: Status::Firing,
        time: now.wall,
        service: Some(Arc::clone(failover.backend.service())),
        backend: Some(Arc::clone(failover.backend.name())),
        address: Some(failover.address),
        details: Details::Failover {
            why: failover.why.to_string(),
            began: now.wall.saturating_sub(since),
            detected: failover.after(failover.detected),
            moved: failover.after(failover.moved),
            total: failover.total(),
            sessions_hurt: failover.sessions_hurt,
            sessions_moved: failover.sessions_moved,
            eligible: failover.eligible,
            configured: failover.configured,
        },
    }
}

pub(super) fn suspect(backend: &BackendId, address: Address, turn: &Turn, now: Moment) -> Notice {
    Notice {
        event: Occasion::Suspect,
        status: if turn.suspect {
            Status::Firing
        } else {
            Status::Resolved
        },
        time: now.wall,
        service: Some(Arc::clone(backend.service())),
        backend: Some(Arc::clone(backend.name())),
        address: Some(address),
        details: Details::Suspect {
            latency: turn.latency,
            usual: turn.usual,
            phi: turn.phi.round(),
        },
    }
}

pub(super) fn reload(
    service: Option<Arc<str>>,
    status: Status,
    problems: &[String],
    now: Moment,
) -> Notice {
    let short = |problem: &String| problem.chars().take(MOST_OF_A_PROBLEM).collect();
    Notice {
        event: Occasion::ReloadFailed,
        status,
        time: now.wall,
        service,
        backend: None,
        address: None,
        details: Details::Reload {
            problems: problems.iter().take(MOST_PROBLEMS).map(short).collect(),
        },
    }
}

/// Why a backend that has left is not down any more.
pub(super) const GONE: &str = "no longer configured";
/// Problems of a file that an alert tells; the log has all of them.
const MOST_PROBLEMS: usize = 10;
/// Characters of each.
const MOST_OF_A_PROBLEM: usize = 400;
