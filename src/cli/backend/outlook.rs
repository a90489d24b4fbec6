//! What a change would do, before it is done: to whom, and who is left to serve.

use std::time::Duration;

use crate::api::{Backend, Change, Service};
use crate::cli::condition::Condition;
use crate::cli::figures::{of, time};

/// A few sentences, each on a line of its own. No `backend` is all of the service.
pub(in crate::cli) fn outlook(service: &Service, backend: Option<&str>, change: &Change) -> String {
    let concerned: Vec<&Backend> = service
        .backends
        .iter()
        .filter(|it| backend.is_none_or(|name| it.name == name))
        .collect();
    let sessions: u64 = concerned.iter().map(|it| it.traffic.sessions).sum();
    let they = match backend {
        Some(name) => format!("{}/{name}", service.name),
        None => format!(
            "each of the {} of {}",
            of(concerned.len() as u64, "backend"),
            service.name
        ),
    };
    let running = |what: [&str; 2]| match sessions {
        0 => "No session is running there.".to_owned(),
        1 => format!("1 session is running there; it {}.", what[0]),
        _ => format!(
            "{} are running there; they {}.",
            of(sessions, "session"),
            what[1]
        ),
    };
    let mut lines = Vec::new();
    if let [one] = concerned.as_slice() {
        lines.push(format!(
            "{they} is {} now, with weight {}.",
            Condition::of(one).word(),
            one.weight
        ));
    }
    match change {
        Change::Drain { deadline_seconds } => {
            lines.push(format!("{they} gets no new sessions."));
            let has_deadline =
                |it: &&Backend| it.admin.as_ref().is_some_and(|it| it.deadline.is_some());
            if deadline_seconds.is_none() && concerned.iter().any(has_deadline) {
                lines.push("The deadline of its drain is removed.".to_owned());
            }
            lines.push(match deadline_seconds {
                None => running(TO_ITS_END),
                Some(seconds) => {
                    let deadline = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
                    let within = format!("reset unless over within {}", time(deadline));
                    running([&format!("is {within}"), &format!("are {within}")])
                }
            });
            lines.extend(left(service, backend));
        }
        Change::Disable => {
            lines.push(format!(
                "{they} gets no new sessions, and nobody is alarmed about it."
            ));
            lines.push(running(TO_ITS_END));
            lines.extend(left(service, backend));
        }
        Change::Enable => {
            lines.push(format!("{they} gets new sessions whenever it is up."));
        }
        Change::Weight { percent: 0 } if !concerned.iter().all(is_set_aside) => {
            lines.push(format!(
                "{they} gets no new sessions: nothing of its weight counts."
            ));
            lines.push(running(TO_ITS_END));
            lines.extend(left(service, backend));
        }
        Change::Weight { percent } if concerned.iter().all(is_set_aside) => {
            lines.push(format!(
                "{they} stays out of service; {percent}% of its weight counts once it serves again."
            ));
            lines.push(running(["stays", "stay"]));
        }
        Change::Weight { percent } => {
            lines.push(format!(
                "{they} gets new sessions by {percent}% of its weight in the file."
            ));
            lines.push(running(["stays", "stay"]));
        }
        Change::Reset => {
            lines.push(format!("{they} is what the file says again."));
            lines.push(running(["stays", "stay"]));
        }
        Change::CloseSessions => {
            lines.push(running([
                "is reset, on both sides",
                "are reset, on both sides",
            ]));
            if concerned.iter().any(|it| it.serving) {
                lines.push(
                    "It goes on to get new sessions; drain it first if it is not to.".to_owned(),
                );
            }
        }
    }
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Whether an operator or the file keeps it from serving, whatever its weight is.
fn is_set_aside(backend: &&Backend) -> bool {
    let is_told = |duty: &str| duty != "serve";
    backend.admin.as_ref().is_some_and(|it| is_told(&it.duty)) || !backend.enabled
}

/// Who serves when these do not, if they do now.
fn left(service: &Service, backend: Option<&str>) -> Option<String> {
    let is_concerned = |it: &&Backend| backend.is_none_or(|name| it.name == name);
    let serving = service.backends.iter().filter(|it| it.serving);
    let (leaving, left): (Vec<_>, Vec<_>) = serving.partition(is_concerned);
    if leaving.is_empty() {
        return None;
    }
    let may_step_in = |it: &&Backend| Condition::of(it) == Condition::Standby && !is_concerned(it);
    let standby = service.backends.iter().filter(may_step_in).count();
    Some(match (left.len(), standby) {
        (0, 0) => format!(
            "{ALOUD}: new clients of {} would be turned away.",
            service.name
        ),
        (0, standby) => format!(
            "Of {}, {} would take over.",
            service.name,
            of(standby as u64, "standby backend")
        ),
        (1, _) => format!("1 backend of {} goes on to serve.", service.name),
        (left, _) => format!("{left} backends of {} go on to serve.", service.name),
    })
}

/// What of an outlook is to be said even to whom nothing is asked.
pub(super) fn warning(outlook: &str) -> Option<&str> {
    outlook.lines().find(|line| line.starts_with(ALOUD))
}

/// What an operator must not overlook.
const ALOUD: &str = "NOBODY WOULD BE LEFT";
/// What a session does that nobody ends.
const TO_ITS_END: [&str; 2] = ["runs to its end", "run to their end"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{State, Traffic};

    fn service(serving: &[(&str, u64)]) -> Service {
        let backend = |&(name, sessions): &(&str, u64)| Backend {
            name: name.into(),
            address: Some("10.0.0.1:80".into()),
            state: State::Up,
            enabled: true,
            serving: true,
            weight: 3,
            traffic: Traffic {
                sessions,
                ..Traffic::default()
            },
            ..Backend::default()
        };
        Service {
            name: "web".into(),
            backends: serving.iter().map(backend).collect(),
            ..Service::default()
        }
    }

    #[test]
    fn a_drain_says_whom_it_concerns_and_who_is_left() {
        let change = Change::Drain {
            deadline_seconds: Some(300.0),
        };
        assert_eq!(
            outlook(
                &service(&[("a", 40), ("b", 1), ("c", 0)]),
                Some("a"),
                &change
            ),
            "web/a is up now, with weight 3.\n\
             web/a gets no new sessions.\n\
             40 sessions are running there; they are reset unless over within 5m.\n\
             2 backends of web go on to serve.\n"
        );
    }

    #[test]
    fn that_nobody_would_be_left_is_said_aloud() {
        let text = outlook(&service(&[("a", 0)]), Some("a"), &Change::Disable);
        assert!(text.contains("NOBODY WOULD BE LEFT"), "{text}");
        let all = outlook(&service(&[("a", 0), ("b", 0)]), None, &Change::Disable);
        assert!(all.contains("NOBODY WOULD BE LEFT"), "{all}");
        let mut service = service(&[("a", 0), ("b", 0)]);
        service.backends[1].serving = false;
        let text = outlook(&service, Some("a"), &Change::Disable);
        assert!(text.contains("1 standby backend would take over"), "{text}");
    }

    #[test]
    fn a_weight_does_not_bring_a_drained_backend_back() {
        let mut service = service(&[("a", 0)]);
        service.backends[0].admin = Some(crate::api::Admin {
            duty: "drain".into(),
            ..Default::default()
        });
        for percent in [0, 40] {
            let text = outlook(&service, Some("a"), &Change::Weight { percent });
            assert!(text.contains("web/a stays out of service; "), "{text}");
        }
    }

    #[test]
    fn closing_sessions_of_a_backend_that_serves_says_that_others_come() {
        let text = outlook(&service(&[("a", 2)]), Some("a"), &Change::CloseSessions);
        assert!(
            text.contains("2 sessions are running there; they are reset, on both sides."),
            "{text}"
        );
        assert!(text.contains("drain it first"), "{text}");
    }
}
