//! What a change would do, before it is done: to whom, and who is left to serve.

use std::collections::BTreeMap;
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
    let closes = matches!(change, Change::CloseSessions);
    let departed = service.left.named.iter().filter(|_| closes);
    let departed = departed.filter(|it| backend.is_none_or(|name| it.name == name));
    let departed: Vec<u64> = departed.map(|it| it.sessions).collect();
    let running_on = concerned.iter().map(|it| it.traffic.sessions);
    let sessions: u64 = running_on.chain(departed.iter().copied()).sum();
    let they = match backend {
        Some(name) => format!("{}/{name}", service.name),
        None => format!(
            "each of the {} of {}",
            of((concerned.len() + departed.len()) as u64, "backend"),
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
            if deadline_seconds.is_none() {
                lines.extend(unbound(&concerned, backend.is_none()));
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
            lines.extend(readiness(service, backend));
        }
        Change::Disable => {
            lines.push(format!(
                "{they} gets no new sessions, and nobody is alarmed about it."
            ));
            lines.push(running(TO_ITS_END));
            lines.extend(left(service, backend));
            lines.extend(readiness(service, backend));
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
            lines.extend(readiness(service, backend));
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

/// Whose drain has no deadline any more, where any has one now; `named` where they are not all the same.
fn unbound(concerned: &[&Backend], named: bool) -> Option<String> {
    let has_deadline = |it: &&&Backend| it.admin.as_ref().is_some_and(|it| it.deadline.is_some());
    let bound = concerned.iter().filter(has_deadline);
    let names: Vec<&str> = bound.map(|it| &*it.name).collect();
    Some(match names.as_slice() {
        [] => return None,
        [_] if !named => "The deadline of its drain is removed.".to_owned(),
        [one] => format!("The deadline of the drain of {one} is removed."),
        some if some.len() <= MOST_NAMED => {
            format!(
                "The deadlines of the drains of {} are removed.",
                some.join(", ")
            )
        }
        some => format!("The deadlines of {} drains are removed.", some.len()),
    })
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
    let up = left.len();
    let takes_over = step_in(service, up, is_concerned);
    Some(match (up, takes_over) {
        (0, 0) => format!(
            "{ALOUD}: new clients of {} would be turned away.",
            service.name
        ),
        (0, some) => format!(
            "Of {}, {} would take over.",
            service.name,
            of(some, "standby backend")
        ),
        (_, some) => {
            let goes = if up == 1 { "goes" } else { "go" };
            let backends = of(up as u64, "backend");
            let joins = match some {
                0 => String::new(),
                1 => ", and 1 standby backend takes over too".to_owned(),
                some => format!(", and {some} standby backends take over too"),
            };
            format!("{backends} of {} {goes} on to serve{joins}.", service.name)
        }
    })
}

/// How many that stand by take over where so many are left `up`: tier by tier, until there are `min_up`.
fn step_in(service: &Service, mut up: usize, is_concerned: impl Fn(&&Backend) -> bool) -> u64 {
    let mut tiers: BTreeMap<u32, usize> = BTreeMap::new();
    for standby in service.backends.iter().filter(stands_by) {
        if !is_concerned(&standby) {
            *tiers.entry(standby.priority).or_default() += 1;
        }
    }
    let needed = usize::try_from(service.min_up.max(1)).unwrap_or(usize::MAX);
    let before = up;
    for tier in tiers.into_values() {
        if up < needed {
            up += tier;
        }
    }
    (up - before) as u64
}

fn stands_by(backend: &&Backend) -> bool {
    Condition::of(backend) == Condition::Standby
}

/// That the daemon turns not ready without these, if it is now.
fn readiness(service: &Service, backend: Option<&str>) -> Option<String> {
    let may_serve = |it: &&Backend| it.serving || stands_by(it);
    let concerned = service.backends.iter().filter(may_serve);
    let leaving = concerned.filter(|it| backend.is_none_or(|name| it.name == name));
    let leaving = u32::try_from(leaving.count()).unwrap_or(u32::MAX);
    let short = Service::shortfall(service.eligible.saturating_sub(leaving), service.min_up)?;
    let is_ready = service.eligible >= service.min_up;
    is_ready.then(|| format!("{UNREADY}: of {}, {short}.", service.name))
}

/// What of an outlook is to be said even to whom nothing is asked.
pub(super) fn warning(outlook: &str) -> Option<&str> {
    let is_loud = |line: &&str| line.starts_with(ALOUD) || line.starts_with(UNREADY);
    outlook.lines().find(is_loud)
}

/// Backends that a sentence names.
const MOST_NAMED: usize = 6;
/// What an operator must not overlook.
const ALOUD: &str = "NOBODY WOULD BE LEFT";
/// Whoever balances over several daemons takes this one out.
const UNREADY: &str = "The balancer turns not ready (/readyz)";
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
    fn a_drain_says_that_the_balancer_turns_not_ready_and_who_takes_over() {
        let drain = Change::Drain {
            deadline_seconds: None,
        };
        let mut service = service(&[("a", 0), ("b", 0), ("c", 0)]);
        (service.eligible, service.min_up) = (3, 2);
        // One that stands by is as good for that.
        (service.backends[2].serving, service.backends[2].priority) = (false, 1);
        let text = outlook(&service, Some("a"), &drain);
        let takes_over =
            "1 backend of web goes on to serve, and 1 standby backend takes over too.\n";
        assert!(text.ends_with(takes_over), "{text}");
        assert_eq!(warning(&text), None);
        service.backends.pop();
        service.eligible = 2;
        let text = outlook(&service, Some("a"), &drain);
        let turns =
            "The balancer turns not ready (/readyz): of web, 1 backend may serve, 2 needed.";
        assert!(
            text.ends_with(&format!("1 backend of web goes on to serve.\n{turns}\n")),
            "{text}"
        );
        assert_eq!(warning(&text), Some(turns));
        // It is no news where it is so already.
        (service.eligible, service.backends[1].serving) = (1, false);
        assert!(!outlook(&service, Some("a"), &drain).contains("not ready"));
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
