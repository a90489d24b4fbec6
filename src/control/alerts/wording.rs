//! What a message says in words: one sentence of a notice that is alone of its kind, one phrase of many.

use std::collections::HashMap;
use std::fmt::Write;

use super::notice::{Details, Notice, Status};
use crate::config::{Occasion, written};
use crate::model::counted;

/// Names that a sentence tells.
const MOST_NAMES: usize = 5;

/// All of it: the `latest` notices, the gravest kind first, of services of whose backends so many are
/// eligible by now and so many configured.
pub(super) fn text(
    host: &str,
    latest: &[&Notice],
    shares: &HashMap<&str, (usize, usize)>,
    omitted: u64,
) -> String {
    let mut text = format!("{host}: ");
    let kind = |it: &Notice| (it.event, it.status, it.is_gone());
    let kinds = latest.chunk_by(|a, b| kind(a) == kind(b));
    for (index, kind) in kinds.enumerate() {
        if index > 0 {
            text += "; ";
        }
        match kind {
            [] => {}
            [only] => {
                let share = only.service.as_deref().and_then(|it| shares.get(it));
                text += &only.sentence(share.copied().unwrap_or_default());
            }
            [first, ..] => {
                let names: Vec<String> = kind.iter().take(MOST_NAMES).map(|it| it.whom()).collect();
                let _ = write!(text, "{}: {}", first.plural(kind.len()), names.join(", "));
                if kind.len() > MOST_NAMES {
                    let _ = write!(text, " and {} more", kind.len() - MOST_NAMES);
                }
            }
        }
    }
    if omitted > 0 {
        let _ = write!(text, "; {omitted} earlier events are not listed");
    }
    text
}

impl Notice {
    /// `web/app-1`, `web`, or what concerns no service
    fn whom(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("{service}/{backend}"),
            (Some(service), None) => service.to_string(),
            (None, _) => "the configuration".to_owned(),
        }
    }

    /// The sentence when it is alone of its kind. Of the `configured` backends of the service, so many
    /// are `eligible` by now.
    fn sentence(&self, (eligible, configured): (usize, usize)) -> String {
        let whom = self.whom();
        let share = format!("{eligible} of {configured} eligible");
        match (&self.details, self.status) {
            (Details::Down { why, .. }, _) => {
                format!("{whom} is down: {why} ({share})")
            }
            (Details::Up { .. }, _) => format!("{whom} is up again ({share})"),
            (Details::Degraded { .. }, Status::Firing) => {
                format!("{whom} is degraded ({share})")
            }
            (Details::Degraded { .. }, Status::Resolved) => {
                format!("{whom} is no longer degraded ({share})")
            }
            (Details::AllDown { .. }, Status::Firing) => format!("{whom} has no backend left"),
            (Details::AllDown { .. }, Status::Resolved) => format!("{whom} serves again"),
            (Details::Standby { priority, .. }, _) => match priority {
                Some(priority) => {
                    format!("{whom} is served by its standbys of priority {priority} ({share})")
                }
                None => format!("{whom} needs no standbys any more ({share})"),
            },
            (Details::Gone { why }, _) => format!("{whom} is {why}"),
            (
                Details::Flapping {
                    transitions,
                    within,
                },
                _,
            ) => {
                let within = written(*within);
                format!("{whom} flaps ({transitions} transitions within {within})")
            }
            (Details::Reload { problems }, Status::Firing) => {
                let what = match &self.service {
                    Some(service) => format!("the backends file of {service}"),
                    None => "a reload".to_owned(),
                };
                match problems.as_slice() {
                    [] => format!("{what} was rejected"),
                    [only] => format!("{what} was rejected: {only}"),
                    [first, more @ ..] => {
                        format!("{what} was rejected: {first} (and {} more)", more.len())
                    }
                }
            }
            (
                Details::Failover {
                    total,
                    sessions_hurt,
                    sessions_moved,
                    eligible: left,
                    ..
                },
                _,
            ) => {
                let total = total.as_secs_f64() * 1e3;
                let lost = counted(*sessions_hurt, "session");
                match left {
                    0 => format!("{whom} is gone, nobody took over ({lost} lost)"),
                    _ => format!(
                        "failover from {whom} took {total:.1} ms ({lost} lost, {sessions_moved} moved)"
                    ),
                }
            }
            (Details::Suspect { latency, usual, .. }, Status::Firing) => {
                let [latency, usual] = [latency, usual].map(|it| it.as_secs_f64() * 1e3);
                format!(
                    "{whom} answers slower than it used to ({latency:.1} ms, usually {usual:.1} ms)"
                )
            }
            (Details::Suspect { .. }, Status::Resolved) => format!("{whom} answers as usual again"),
            (Details::Reload { .. }, Status::Resolved) => match &self.service {
                Some(service) => format!("the backends file of {service} is no longer rejected"),
                None => "a reload took effect again".to_owned(),
            },
        }
    }

    /// What `count` of its kind have in common, to be followed by their names.
    fn plural(&self, count: usize) -> String {
        match (self.event, self.status) {
            _ if self.is_gone() => format!("{count} are no longer configured"),
            (Occasion::AllDown, Status::Firing) => format!("{count} services have no backend left"),
            (Occasion::AllDown, Status::Resolved) => format!("{count} services serve again"),
            (Occasion::Degraded, Status::Firing) => format!("{count} services are degraded"),
            (Occasion::Degraded, Status::Resolved) => {
                format!("{count} services are no longer degraded")
            }
            (Occasion::BackendDown, _) => format!("{count} backends are down"),
            (Occasion::BackendUp, _) => format!("{count} backends are up again"),
            (Occasion::Standby, Status::Firing) => {
                format!("{count} services are served by standbys")
            }
            (Occasion::Standby, Status::Resolved) => {
                format!("{count} services need no standbys any more")
            }
            (Occasion::Flapping, _) => format!("{count} backends flap"),
            (Occasion::Suspect, Status::Firing) => format!("{count} backends answer slowly"),
            (Occasion::Suspect, Status::Resolved) => {
                format!("{count} backends answer as usual again")
            }
            (Occasion::Failover, _) => format!("{count} failovers are over"),
            (Occasion::ReloadFailed, Status::Firing) => format!("{count} files were rejected"),
            (Occasion::ReloadFailed, Status::Resolved) => {
                format!("{count} files are no longer rejected")
            }
        }
    }
}
