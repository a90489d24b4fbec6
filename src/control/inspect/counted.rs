//! What sessions have come to, as operators are told.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::time::Duration;

use super::Clock;
use crate::admission::{Cap, Rule};
use crate::api;
use crate::config::Caps;
use crate::model::{Cause, HistogramSum, LedgerSum, Moment, TallySum, Who};
use crate::net::BoundListener;
use crate::pool::instant;
use crate::pool::queue::QueueSum;
use crate::pool::{Delays, GateSum, ThrottleSum};

pub(super) fn listener(bound: &BoundListener, sum: &LedgerSum) -> api::Listener {
    let endings = sum.endings.iter().map(|(ending, total)| api::Ended {
        who: ending.who.name().to_owned(),
        phase: ending.phase.name().to_owned(),
        cause: ending.cause.name().to_owned(),
        total: *total,
    });
    api::Listener {
        address: bound.address().to_string(),
        accepted_total: sum.opened,
        dropped_total: bound.dropped(),
        sessions: sum.open(),
        retries_total: sum.retries,
        ports_exhausted_total: sum.without_port,
        endings: endings.collect(),
        connect: histogram(&sum.connect),
        duration: histogram(&sum.duration),
        queue: histogram(&sum.queue),
    }
}

fn histogram(sum: &HistogramSum) -> api::Histogram {
    api::Histogram {
        bounds_seconds: sum.bounds.iter().map(Duration::as_secs_f64).collect(),
        counts: sum.counts.iter().copied().chain([sum.beyond]).collect(),
        total_seconds: sum.total.as_secs_f64(),
    }
}

/// Clients of these listeners that were given no backend.
pub(super) fn unserved(listeners: &[(&BoundListener, LedgerSum)], clock: &Clock) -> api::Unserved {
    let mut counts: BTreeMap<usize, (Cause, u64, Moment)> = BTreeMap::new();
    let mut add = |cause: Cause, total, at: Moment| {
        let count = counts.entry(cause.place()).or_insert((cause, 0, at));
        count.1 += total;
        count.2 = count.2.max(at);
    };
    for (_, sum) in listeners {
        let endings = sum.endings.iter();
        for (ending, total) in endings.filter(|(ending, _)| ending.is_unserved()) {
            add(ending.cause, *total, 0);
        }
        // It is noted before its ending is counted.
        for (cause, at) in &sum.last_unserved {
            add(*cause, 0, *at);
        }
    }
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_by_key(|(_, total, _)| Reverse(*total));
    let told = |at: Moment| instant(at).map(|at| clock.tell(at));
    let last = counts.iter().map(|(.., last)| *last).max();
    let causes = counts.iter().filter(|(_, total, _)| *total > 0);
    let causes = causes.map(|(cause, total, last)| api::Count {
        // Of the system's causes the numbers are not kept.
        cause: if let Cause::Os(_) = cause {
            "another error".to_owned()
        } else {
            cause.to_string()
        },
        total: *total,
        last: told(*last),
    });
    api::Unserved {
        total: counts.iter().map(|(_, total, _)| total).sum(),
        last: last.and_then(told),
        causes: causes.collect(),
    }
}

/// What the rules have done to clients: those that have met one.
pub(in crate::control) fn refusals(sum: &GateSum, clock: &Clock) -> Vec<api::Refusals> {
    let each = Rule::ALL.into_iter().map(|rule| api::Refusals {
        rule: rule.to_string(),
        refused_total: sum.refused[rule as usize],
        last: sum.last_refused[rule as usize].map(|at| clock.tell(at)),
        would_be_total: sum.dry[rule as usize],
    });
    each.filter(|it| it.refused_total + it.would_be_total > 0)
        .collect()
}

/// Limits on bandwidth: those that there are, and those that have slowed somebody down.
pub(super) fn throttling(caps: &Caps, sum: &ThrottleSum) -> Vec<api::Throttling> {
    let each = Cap::ALL.into_iter().map(|cap| {
        let at = cap as usize;
        (cap, caps[at], sum.delayed[at], sum.would_be[at])
    });
    let nothing = Delays::default();
    each.filter(|(_, cap, delayed, would_be)| {
        cap.is_some() || (*delayed, *would_be) != (nothing, nothing)
    })
    .map(|(name, cap, delayed, would_be)| api::Throttling {
        cap: name.to_string(),
        bytes_per_second: cap.map(|it| it.most.bytes()),
        slowed_total: delayed.sessions,
        slowed_seconds_total: delayed.time.as_secs_f64(),
        would_be_total: would_be.sessions,
        would_be_seconds_total: would_be.time.as_secs_f64(),
    })
    .collect()
}

pub(super) fn queue(sum: &QueueSum, size: u64) -> api::Queue {
    api::Queue {
        waiting: sum.waiting as u64,
        size,
        placed_total: sum.placed,
        full_total: sum.full,
        timed_out_total: sum.timed_out,
        left_total: sum.left,
        unserved_total: sum.unserved,
    }
}

pub(super) fn traffic(sum: &TallySum, sessions: u32) -> api::Traffic {
    let broken_by = |who: Who| sum.broken[who.place()];
    api::Traffic {
        sessions: sessions.into(),
        sessions_total: sum.sessions,
        to_backend_bytes_total: sum.to_backend,
        to_client_bytes_total: sum.to_client,
        connect_failures_total: sum.connect_failures,
        sessions_moved_total: sum.moved,
        sessions_hurt_total: sum.hurt,
        sessions_finished_total: sum.finished,
        broken_by_client_total: broken_by(Who::Client),
        broken_by_backend_total: broken_by(Who::Backend),
        broken_by_ballast_total: broken_by(Who::Ballast),
        connect_seconds_total: sum.connecting.as_secs_f64(),
        session_seconds_total: sum.lasting.as_secs_f64(),
    }
}

/// Adds what one backend has served to what its service has.
pub(super) fn add(sum: &mut api::Traffic, one: &api::Traffic) {
    sum.sessions += one.sessions;
    sum.sessions_total += one.sessions_total;
    sum.to_backend_bytes_total += one.to_backend_bytes_total;
    sum.to_client_bytes_total += one.to_client_bytes_total;
    sum.connect_failures_total += one.connect_failures_total;
    sum.sessions_moved_total += one.sessions_moved_total;
    sum.sessions_hurt_total += one.sessions_hurt_total;
    sum.sessions_finished_total += one.sessions_finished_total;
    sum.broken_by_client_total += one.broken_by_client_total;
    sum.broken_by_backend_total += one.broken_by_backend_total;
    sum.broken_by_ballast_total += one.broken_by_ballast_total;
    sum.connect_seconds_total += one.connect_seconds_total;
    sum.session_seconds_total += one.session_seconds_total;
}
