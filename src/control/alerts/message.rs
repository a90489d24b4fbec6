//! What an alert says: the JSON that webhooks are sent and programs read, and the same in a sentence.
//!
//! The names of the fields are a promise to whoever wrote a receiver; they are documented in the
//! README, and a change that breaks one raises [`VERSION`]. Must not know how a message travels.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::config::{Occasion, written};
use crate::model::{Address, counted};
use crate::telemetry;

/// Raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

/// One thing that happened, as it stands in a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Notice {
    #[serde(serialize_with = "name")]
    pub(super) event: Occasion,
    pub(super) status: Status,
    /// Since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub(super) time: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backend: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<Address>,
    #[serde(flatten)]
    pub(super) details: Details,
}

/// Whether something is wrong, or is right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Firing,
    Resolved,
}

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    /// As in a message.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Status {
    /// As in a message.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What an occasion has to say besides whom it concerns.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Details {
    Down {
        why: String,
        #[serde(
            rename = "after_ms",
            serialize_with = "some_millis",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Duration>,
        eligible: usize,
        configured: usize,
    },
    Up {
        #[serde(
            rename = "after_ms",
            serialize_with = "some_millis",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Duration>,
        eligible: usize,
        configured: usize,
    },
    Degraded {
        eligible: usize,
        configured: usize,
        below_percent: u8,
    },
    AllDown {
        configured: usize,
    },
    Standby {
        /// The last tier that stands in, while one does.
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<u32>,
        eligible: usize,
        configured: usize,
    },
    /// What was wrong is so no more: whom it concerned is not there any longer.
    Gone {
        why: &'static str,
    },
    Flapping {
        transitions: u32,
        #[serde(rename = "within_ms", serialize_with = "millis")]
        within: Duration,
    },
    Reload {
        problems: Vec<String>,
    },
    Failover {
        why: String,
        /// Since 1970.
        #[serde(serialize_with = "rfc3339")]
        began: Duration,
        #[serde(rename = "detected_ms", serialize_with = "exact_millis")]
        detected: Duration,
        #[serde(rename = "moved_ms", serialize_with = "exact_millis")]
        moved: Duration,
        #[serde(rename = "total_ms", serialize_with = "exact_millis")]
        total: Duration,
        sessions_hurt: u64,
        sessions_moved: u64,
        eligible: usize,
        configured: usize,
    },
    Suspect {
        #[serde(rename = "latency_ms", serialize_with = "exact_millis")]
        latency: Duration,
        #[serde(rename = "usual_ms", serialize_with = "exact_millis")]
        usual: Duration,
        phi: f64,
    },
}

impl Notice {
    fn severity(&self) -> Severity {
        match (self.event, self.status) {
            (_, Status::Resolved) | (Occasion::Suspect | Occasion::BackendUp, _) => Severity::Info,
            (Occasion::AllDown, _) => Severity::Critical,
            (
                Occasion::Degraded
                | Occasion::BackendDown
                | Occasion::Standby
                | Occasion::Flapping
                | Occasion::ReloadFailed
                | Occasion::Failover,
                _,
            ) => Severity::Warning,
        }
    }

    /// What a later notice about the same says instead.
    fn subject(&self) -> (Occasion, Option<&str>, Option<&str>) {
        let event = if self.event == Occasion::BackendUp {
            Occasion::BackendDown
        } else {
            self.event
        };
        (event, self.service.as_deref(), self.backend.as_deref())
    }

    /// `web/app-1`, `web`, or what concerns no service
    fn whom(&self) -> String {
        match (&self.service, &self.backend) {
            (Some(service), Some(backend)) => format!("{service}/{backend}"),
            (Some(service), None) => service.to_string(),
            (None, _) => "the configuration".to_owned(),
        }
    }

    fn is_gone(&self) -> bool {
        matches!(self.details, Details::Gone { .. })
    }

    /// How many backends of how many were eligible.
    fn share(&self) -> Option<(usize, usize)> {
        match self.details {
            Details::Down {
                eligible,
                configured,
                ..
            }
            | Details::Up {
                eligible,
                configured,
                ..
            }
            | Details::Degraded {
                eligible,
                configured,
                ..
            }
            | Details::Standby {
                eligible,
                configured,
                ..
            }
            | Details::Failover {
                eligible,
                configured,
                ..
            } => Some((eligible, configured)),
            Details::AllDown { .. }
            | Details::Gone { .. }
            | Details::Flapping { .. }
            | Details::Reload { .. }
            | Details::Suspect { .. } => None,
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
                    ..
                },
                _,
            ) => {
                let total = total.as_secs_f64() * 1e3;
                format!(
                    "failover from {whom} took {total:.1} ms ({} lost, {sessions_moved} moved)",
                    counted(*sessions_hurt, "session")
                )
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

/// Everything that one alert says at a time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Message {
    version: u32,
    pub(super) alert: Arc<str>,
    pub(super) host: Arc<str>,
    #[serde(serialize_with = "rfc3339")]
    time: Duration,
    pub(super) status: Status,
    pub(super) severity: Severity,
    pub(super) text: String,
    held_back: u64,
    omitted: u64,
    pub(super) events: Vec<Notice>,
}

impl Message {
    pub(super) fn new(
        alert: Arc<str>,
        host: Arc<str>,
        time: Duration,
        (held_back, omitted): (u64, u64),
        events: Vec<Notice>,
    ) -> Self {
        let latest = latest(&events);
        let firing = latest
            .iter()
            .any(|it| it.status == Status::Firing && it.event != Occasion::BackendUp);
        let severity = latest.iter().map(|it| it.severity()).max();
        Self {
            version: VERSION,
            text: text(&host, &latest, &shares(&events), omitted),
            alert,
            host,
            time,
            status: if firing {
                Status::Firing
            } else {
                Status::Resolved
            },
            severity: severity.unwrap_or(Severity::Info),
            held_back,
            omitted,
            events,
        }
    }

    /// What has happened, each once, the gravest first.
    pub(super) fn occasions(&self) -> Vec<&'static str> {
        let all: BTreeSet<Occasion> = self.events.iter().map(|it| it.event).collect();
        all.into_iter().map(Occasion::name).collect()
    }

    /// The services that it is about, each once.
    pub(super) fn services(&self) -> Vec<&str> {
        let services = self.events.iter().filter_map(|it| it.service.as_deref());
        services.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// The JSON, in one line.
    pub(super) fn json(&self) -> String {
        // Every field is a string, a number or a list of such, which cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// Of each subject the last notice, the gravest kind first and in the order of time within a kind.
fn latest(events: &[Notice]) -> Vec<&Notice> {
    let mut last = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        last.insert(event.subject(), index);
    }
    let mut indices: Vec<usize> = last.into_values().collect();
    indices.sort_unstable_by_key(|&index| (events[index].event, events[index].is_gone(), index));
    indices.into_iter().map(|index| &events[index]).collect()
}

/// How each service stands after all of `events`.
fn shares(events: &[Notice]) -> HashMap<&str, (usize, usize)> {
    events
        .iter()
        .filter_map(|event| Some((event.service.as_deref()?, event.share()?)))
        .collect()
}

fn text(
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

/// Names that a sentence tells.
const MOST_NAMES: usize = 5;

fn name<S: Serializer>(occasion: &Occasion, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(occasion.name())
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// With microseconds.
fn exact_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(telemetry::millis(*duration))
}

fn some_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => millis(duration, serializer),
        None => serializer.serialize_none(),
    }
}

fn rfc3339<S: Serializer>(since_1970: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(UNIX_EPOCH + *since_1970))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(event: Occasion, status: Status, backend: Option<&str>, details: Details) -> Notice {
        Notice {
            event,
            status,
            time: Duration::from_millis(1_700_000_000_123),
            service: Some("web".into()),
            backend: backend.map(Arc::from),
            address: None,
            details,
        }
    }

    fn down(backend: &str) -> Notice {
        let details = Details::Down {
            why: "refused".to_owned(),
            after: Some(Duration::from_secs(90)),
            eligible: 3,
            configured: 4,
        };
        Notice {
            address: Some("10.0.0.1:80".parse().unwrap()),
            ..notice(
                Occasion::BackendDown,
                Status::Firing,
                Some(backend),
                details,
            )
        }
    }

    fn up(backend: &str) -> Notice {
        let details = Details::Up {
            after: Some(Duration::from_secs(1)),
            eligible: 4,
            configured: 4,
        };
        notice(
            Occasion::BackendUp,
            Status::Resolved,
            Some(backend),
            details,
        )
    }

    fn all_down() -> Notice {
        notice(
            Occasion::AllDown,
            Status::Firing,
            None,
            Details::AllDown { configured: 4 },
        )
    }

    fn message(events: Vec<Notice>) -> Message {
        let time = Duration::from_millis(1_700_000_001_000);
        Message::new("ops".into(), "lb1".into(), time, (0, 0), events)
    }

    #[test]
    fn the_fields_have_the_names_that_receivers_rely_on() {
        let json: serde_json::Value =
            serde_json::from_str(&message(vec![down("a")]).json()).unwrap();
        let expected = serde_json::json!({
            "version": 1,
            "alert": "ops",
            "host": "lb1",
            "time": "2023-11-14T22:13:21.000Z",
            "status": "firing",
            "severity": "warning",
            "text": "lb1: web/a is down: refused (3 of 4 eligible)",
            "held_back": 0,
            "omitted": 0,
            "events": [{
                "event": "backend-down",
                "status": "firing",
                "time": "2023-11-14T22:13:20.123Z",
                "service": "web",
                "backend": "a",
                "address": "10.0.0.1:80",
                "why": "refused",
                "after_ms": 90_000,
                "eligible": 3,
                "configured": 4,
            }],
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn many_of_a_kind_are_one_phrase_and_the_gravest_kind_comes_first() {
        let mut events: Vec<_> = ["a", "b", "c", "d", "e", "f", "g"].map(down).into();
        events.push(all_down());
        let message = message(events);
        assert_eq!(
            message.text,
            "lb1: web has no backend left; 7 backends are down: web/a, web/b, web/c, web/d, web/e and 2 more"
        );
        assert_eq!(
            (message.severity, message.status),
            (Severity::Critical, Status::Firing)
        );
    }

    #[test]
    fn the_sentence_tells_how_things_are_now_and_the_list_how_they_went() {
        let message = message(vec![down("a"), up("a")]);
        assert_eq!(message.text, "lb1: web/a is up again (4 of 4 eligible)");
        assert_eq!(
            (message.severity, message.status),
            (Severity::Info, Status::Resolved)
        );
        assert_eq!(message.events.len(), 2);
    }

    #[test]
    fn what_there_was_no_room_for_is_counted() {
        let message = Message::new(
            "a".into(),
            "h".into(),
            Duration::ZERO,
            (3, 2),
            vec![down("a")],
        );
        assert!(
            message.text.ends_with("; 2 earlier events are not listed"),
            "{}",
            message.text
        );
        assert_eq!((message.held_back, message.omitted), (3, 2));
    }
}
