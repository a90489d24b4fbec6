//! Everything that one alert says at a time: the JSON that webhooks are sent and programs read, with the
//! [`wording`](super::wording) for people in it. Must not know how a message travels.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::notice::{Notice, Severity, Status, rfc3339};
use super::wording::text;
use crate::config::Occasion;

/// Raised when a field changes its meaning or goes.
const VERSION: u32 = 1;

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
            status: Status::firing(firing),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::alerts::notice::Details;

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
    fn nobody_is_said_to_have_taken_over_where_nobody_was_left() {
        let failover = |eligible| {
            let details = Details::Failover {
                why: "refused".to_owned(),
                began: Duration::ZERO,
                detected: Duration::from_millis(2),
                moved: Duration::from_millis(3),
                total: Duration::from_millis(4),
                sessions_hurt: 1,
                sessions_moved: 0,
                eligible,
                configured: 2,
            };
            let (event, status) = (Occasion::Failover, Status::Firing);
            message(vec![notice(event, status, Some("a"), details)]).text
        };
        assert_eq!(
            failover(1),
            "lb1: failover from web/a took 4.0 ms (1 session lost, 0 moved)"
        );
        assert_eq!(
            failover(0),
            "lb1: web/a is gone, nobody took over (1 session lost)"
        );
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
