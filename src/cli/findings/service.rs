//! What is to be said of a service, but for what its backends say by themselves.

use std::time::Duration;

use super::{Finding, MOST_LINES, TURNED_AWAY, is_recent, rejected, since};
use crate::api::{Refusals, Service, Standing};
use crate::cli::condition::Gravity;
use crate::cli::figures::{grouped, of, time};

/// Of the service itself, and of its file of backends.
pub(super) fn findings(service: &Service, now: &str) -> impl Iterator<Item = Finding> {
    own(service, now).chain(backends_file(service, now))
}

/// A file of backends that is not what serves.
fn backends_file(service: &Service, now: &str) -> Option<Finding> {
    let file = service.backends_file.as_ref()?;
    let rejection = file.rejected.as_ref()?;
    let runs = match file.backends {
        0 => "none of its backends serves".to_owned(),
        some => format!(
            "its last good list stays, of {}",
            of(some.into(), "backend")
        ),
    };
    let lines = match (file.missing, file.backends) {
        (false, _) => rejected(&file.path, rejection, &runs, now),
        (true, 0) => vec![format!("{} is not there: {runs}", file.path)],
        (true, _) => {
            let past = since(Some(&rejection.at), now, " ", " ago");
            vec![format!("{} has vanished{past}: {runs}", file.path)]
        }
    };
    Some(Finding {
        gravity: Gravity::Wrong,
        subject: service.name.clone(),
        lines,
        missed_by: None,
    })
}

/// Only what its backends do not say by themselves: that nobody serves, and who was turned away. What its
/// own rules do is what an operator wants, and stands apart from what is wrong.
fn own(service: &Service, now: &str) -> impl Iterator<Item = Finding> {
    let (mut wrong, mut noted) = (Vec::new(), Vec::new());
    let why = |otherwise: String| service.why.clone().unwrap_or(otherwise);
    match service.standing {
        Standing::Down => wrong.push(why("nobody serves".into())),
        Standing::Degraded => {
            let (eligible, configured) = (service.eligible, service.configured);
            wrong.push(why(format!("{eligible} of {configured} backends serve")));
        }
        Standing::Ok => {}
    }
    if let Some(most) = service.full_at {
        wrong.push(format!(
            "all {} sessions of max_connections in [service.limits] are in use: new clients wait",
            grouped(most)
        ));
    }
    if let Some(tier) = &service.stands_in {
        let past = since(Some(&tier.since), now, " ", " ago");
        let priority = tier.priority;
        noted.push(format!(
            "the tier of priority {priority} took over{past}, and serves for those before it"
        ));
    }
    if service.awaits_fail_back {
        noted.push(format!(
            "a later tier stands in although those before it are back, until 'ballast service fail-back {}'",
            service.name
        ));
    }
    if service.queue.waiting > 0 {
        let is_full = service.queue.waiting >= service.queue.size;
        let wait = if service.queue.waiting == 1 {
            "waits"
        } else {
            "wait"
        };
        let size = grouped(service.queue.size);
        let lines = if is_full { &mut wrong } else { &mut noted };
        lines.push(format!(
            "{} {wait} for a place{}",
            of(service.queue.waiting, "client"),
            match is_full {
                true => format!("; the queue ({size}) is full"),
                false => format!(", of at most {size}"),
            }
        ));
    }
    let unserved = &service.unserved;
    if unserved.total > 0 && is_recent(unserved.last.as_deref(), now) {
        wrong.push(turned_away(service, now));
    }
    let rules = service.refusals.iter();
    let rules = rules.filter(|it| is_recent(it.last.as_deref(), now));
    noted.extend(rules.filter_map(|rule| not_let_in(rule, now)));
    [(Gravity::Wrong, wrong), (Gravity::Noted, noted)]
        .into_iter()
        .filter(|(_, lines)| !lines.is_empty())
        .map(|(gravity, lines)| Finding {
            gravity,
            subject: service.name.clone(),
            lines,
            missed_by: None,
        })
}

/// `3 of 4 backends serve, 1 stands by`, of several services together
pub(in crate::cli) fn share<'a>(services: impl Iterator<Item = &'a Service>) -> String {
    let (mut serving, mut standing_by, mut configured) = (0, 0, 0);
    for service in services {
        let its = service.serving();
        serving += u64::from(its);
        standing_by += u64::from(service.eligible - its);
        configured += u64::from(service.configured);
    }
    let serve = format!(
        "{} of {} backends serve",
        grouped(serving),
        grouped(configured)
    );
    match standing_by {
        0 => serve,
        1 => format!("{serve}, 1 stands by"),
        some => format!("{serve}, {} stand by", grouped(some)),
    }
}

/// `12 clients were not let in by max_per_source so far, the last 3s ago`
pub(in crate::cli) fn not_let_in(rule: &Refusals, now: &str) -> Option<String> {
    let total = rule.refused_total;
    let were = if total == 1 { "was" } else { "were" };
    let last = since(rule.last.as_deref(), now, ", the last ", " ago");
    let (clients, rule) = (of(total, "client"), &rule.rule);
    (total > 0).then(|| format!("{clients} {were} not let in by {rule} so far{last}"))
}

/// `slowed down so far: 10 sessions by to_client, 3m 20s together`
pub(in crate::cli) fn slowed_down(service: &Service) -> Option<String> {
    let caps = service.throttling.iter().filter(|it| it.slowed_total > 0);
    let by: Vec<String> = caps
        .map(|it| {
            let together = Duration::try_from_secs_f64(it.slowed_seconds_total);
            let sessions = of(it.slowed_total, "session");
            let together = time(together.unwrap_or_default());
            format!("{sessions} by {}, {together} together", it.cap)
        })
        .collect();
    (!by.is_empty()).then(|| format!("slowed down so far: {}", by.join("; ")))
}

/// `12 clients were turned away so far, the last 3s ago: 10 no eligible backend, 2 queue full (5m ago)`
pub(in crate::cli) fn turned_away(service: &Service, now: &str) -> String {
    let unserved = &service.unserved;
    let were = if unserved.total == 1 { "was" } else { "were" };
    // What happens now comes before what happened often.
    let mut causes: Vec<_> = unserved.causes.iter().collect();
    causes.sort_by(|one, other| other.last.cmp(&one.last));
    let causes: Vec<String> = causes
        .into_iter()
        .take(MOST_LINES)
        .map(|it| match unserved.causes.len() {
            1 => it.cause.clone(),
            // The last of all clients is told of already.
            _ if it.last == unserved.last => format!("{} {}", grouped(it.total), it.cause),
            _ => {
                let last = since(it.last.as_deref(), now, " (", " ago)");
                format!("{} {}{last}", grouped(it.total), it.cause)
            }
        })
        .collect();
    let because = match causes.is_empty() {
        true => String::new(),
        false => format!(": {}", causes.join(", ")),
    };
    format!(
        "{} {were} {TURNED_AWAY} so far{}{because}",
        of(unserved.total, "client"),
        since(unserved.last.as_deref(), now, ", the last ", " ago")
    )
}
