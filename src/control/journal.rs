//! Events as operators read them: a kind, a level, and one line.

use std::sync::Arc;
use std::time::SystemTime;

use super::Event;
use super::inspect::time;
use crate::api;
use crate::config::written;
use crate::health::{Failover, State, TierChange};
use crate::model::{BackendId, counted};
use crate::telemetry::millis;

/// What is written of an event, unless it is no news.
pub(super) fn entry(event: &Event) -> Option<api::Event> {
    let of_backend = |kind, level, backend: &BackendId, text| api::Event {
        backend: Some(backend.name().to_string()),
        ..note(kind, level, Some(backend.service()), text)
    };
    Some(match event {
        Event::Listening { service, address } => {
            let text = format!("{service} listens on {address}");
            note("listening", "info", Some(service), text)
        }
        Event::Ready(_) => note("ready", "info", None, "the daemon is ready".to_owned()),
        // That of a reload is written before what comes of it.
        Event::Missed { .. } | Event::Recap(_) | Event::Reloaded(_) => return None,
        Event::Transition {
            backend,
            from,
            to,
            cause,
            eligible,
            configured,
            ..
        } => {
            let of = format!("{eligible}/{configured} may serve");
            match (to, cause) {
                (State::Down, cause) => {
                    let why = cause
                        .as_ref()
                        .map_or_else(String::new, |it| format!(": {it}"));
                    let text = format!("{backend} is down{why}; {of}");
                    of_backend("backend-down", "warn", backend, text)
                }
                (State::Up | State::Unknown, _) => {
                    let back = if *from == State::Down { "back " } else { "" };
                    let text = format!("{backend} is {back}up; {of}");
                    of_backend("backend-up", "info", backend, text)
                }
            }
        }
        Event::StillDown {
            backend,
            cause,
            eligible,
            configured,
        } => {
            let text =
                format!("{backend} is still down: {cause}; {eligible}/{configured} may serve");
            of_backend("backend-down", "warn", backend, text)
        }
        Event::Ejection {
            backend,
            out,
            eligible,
            configured,
            ..
        } => {
            let of = format!("{eligible}/{configured} may serve");
            match out {
                Some(out) => {
                    let out = written(*out);
                    let text = format!("{backend} is kept out for {out}: its sessions fail; {of}");
                    of_backend("ejected", "warn", backend, text)
                }
                None => {
                    let text = format!("{backend} is kept out no more; {of}");
                    of_backend("returned", "info", backend, text)
                }
            }
        }
        Event::Failover(failover) => {
            let Failover {
                backend,
                sessions_hurt,
                sessions_moved,
                ..
            } = &**failover;
            let took = failover.total().as_secs_f64() * 1e3;
            let lost = counted(*sessions_hurt, "session");
            let text = match failover.eligible {
                0 => format!("{backend} is gone, nobody took over: {lost} lost"),
                _ => format!(
                    "{backend} failed over in {took:.1} ms: {lost} lost, {sessions_moved} moved"
                ),
            };
            of_backend("failover", "info", backend, text)
        }
        Event::Tier {
            service, change, ..
        } => {
            let (level, text) = match change {
                TierChange::TakesOver {
                    priority,
                    up,
                    needed,
                } => (
                    "warn",
                    format!("standby {priority} takes over: {up} up before it, {needed} needed"),
                ),
                TierChange::Stays { priority, .. } => (
                    "info",
                    format!("standby {priority} stays: those before it are back"),
                ),
                TierChange::StandsDown { priority, up, .. } => (
                    "info",
                    format!("standby {priority} stands down: {up} up before it"),
                ),
            };
            note("tier", level, Some(service), format!("{service}: {text}"))
        }
        Event::Suspect { backend, turn, .. } => match turn.suspect {
            true => {
                let (now, usual) = (millis(turn.latency), millis(turn.usual));
                let text = format!("{backend} answers in {now} ms, usually in {usual} ms");
                of_backend("suspect", "warn", backend, text)
            }
            false => {
                let text = format!("{backend} answers as usual again");
                of_backend("settled", "info", backend, text)
            }
        },
        Event::Membership { standing, .. } => {
            let (service, eligible, configured) =
                (&standing.service, standing.eligible, standing.configured);
            let text = format!("backends of {service} changed: {eligible}/{configured} may serve");
            note("membership", "info", Some(service), text)
        }
        Event::Rejected { service, problems } => {
            let what = match service {
                Some(service) => format!("the list of backends of {service}"),
                None => "the configuration".to_owned(),
            };
            let text = format!("{what} was rejected: {}", problems.join("; "));
            note("rejected", "error", service.as_ref(), text)
        }
        Event::Accepted { service } => {
            let text = format!("the list of backends of {service} is good again");
            note("accepted", "info", Some(service), text)
        }
    })
}

/// A reload takes effect, with these `changes`.
pub(super) fn reloaded(changes: &str) -> api::Event {
    let mut text = "the configuration was reloaded".to_owned();
    if !changes.is_empty() {
        text += &format!(": {changes}");
    }
    note("reloaded", "info", None, text)
}

/// Accepting pauses because there are as many sessions as there may be, in all or at a service, or it
/// goes on.
pub(super) fn pause(service: Option<&Arc<str>>, full: bool, most: usize) -> api::Event {
    let of = service.map_or_else(String::new, |it| format!("{it}: "));
    match full {
        true => {
            let text = format!("{of}accepting pauses: all {most} sessions of max_connections");
            note("full", "warn", service, text)
        }
        false => note("room", "info", service, format!("{of}accepting goes on")),
    }
}

/// Clients have to wait for want of something, or need not any more.
pub(super) fn shortage(of: Option<api::ShortOf>) -> api::Event {
    match of {
        Some(of) => {
            let text = format!("short of {}: new clients wait", of.words());
            note("short", "warn", None, text)
        }
        None => note(
            "enough",
            "info",
            None,
            "new clients wait no more".to_owned(),
        ),
    }
}

/// An entry that is no more than a line.
pub(super) fn note(
    kind: &str,
    level: &str,
    service: Option<&Arc<str>>,
    text: String,
) -> api::Event {
    api::Event {
        // Whoever takes it in numbers it.
        id: 0,
        at: time(SystemTime::now()),
        kind: kind.to_owned(),
        level: level.to_owned(),
        service: service.map(ToString::to_string),
        backend: None,
        text,
    }
}
