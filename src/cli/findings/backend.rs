//! What is to be said of a backend.

use super::{Finding, since};
use crate::api::{Admin, Backend, Service, State};
use crate::cli::condition::{Condition, Gravity, is_by_operator, since_when};
use crate::cli::figures::{ago, grouped, of, time};

/// Why a backend is in its condition, as short as it can be told beside that.
pub(in crate::cli) fn reason(backend: &Backend) -> Option<String> {
    let percent = backend.admin.as_ref().map_or(100, |it| it.weight_percent);
    match &backend.why {
        Some(why) if is_by_operator(backend, Condition::of(backend)) => {
            Some(format!("{why}{}", author(backend)))
        }
        Some(why) => Some(why.clone()),
        None if percent != 100 => Some(weighed(percent)),
        None => None,
    }
}

/// `given 40% of its weight by an operator`
fn weighed(percent: u16) -> String {
    format!("given {percent}% of its weight by an operator")
}

/// That something is amiss with it, if anything is.
pub(super) fn finding(service: &Service, backend: &Backend, now: &str) -> Option<Finding> {
    let condition = Condition::of(backend);
    let gravity = condition.gravity();
    let not_run = backend.check.as_ref().and_then(|it| it.not_run.as_deref());
    if gravity == Gravity::Well && backend.admin.is_none() && not_run.is_none() {
        return None;
    }
    let mut lines = Vec::new();
    let said = |why: &str| {
        let author = author(backend);
        let past = since(since_when(backend), now, " ", " ago");
        format!("{why}{author}{past}")
    };
    match (&backend.admin, &backend.why) {
        (Some(_), Some(why)) if is_by_operator(backend, condition) => {
            let deadline = deadline(backend, now).map(|it| format!("; {it}"));
            lines.push(said(why) + &deadline.unwrap_or_default());
            if let Some(why) = not_run {
                lines.push(format!("its check cannot run: {why}"));
            }
            // Whoever ends the drain finds it down.
            if backend.state == State::Down {
                lines.push(down(backend, now));
            }
        }
        (_, why) => {
            let mut line = condition.word().to_owned();
            if condition != Condition::Unresolved {
                line += &since(since_when(backend), now, " for ", "");
            }
            if let Some(why) = why.as_deref().filter(|_| condition != Condition::Full) {
                line += &format!(": {why}");
            }
            if let (Condition::Full, Some(most)) = (condition, backend.max_connections) {
                line += &format!(
                    ": it has the {} that it may have",
                    of(most.into(), "session")
                );
            }
            lines.push(line);
        }
    }
    if let Some(admin) = backend.admin.as_ref()
        && admin.weight_percent != 100
        && condition != Condition::NoWeight
    {
        let mut line = weighed(admin.weight_percent);
        // What was said last is what is dated.
        if admin.duty == "serve" {
            line += &author(backend);
            line += &since(admin.since.as_deref(), now, " ", " ago");
        }
        lines.push(line);
    }
    let traffic = &backend.traffic;
    let mut cost = Vec::new();
    if traffic.sessions > 0 && !backend.serving {
        cost.push(format!("{} still there", of(traffic.sessions, "session")));
    }
    if gravity == Gravity::Wrong && traffic.sessions_hurt_total > 0 {
        cost.push(format!(
            "{} lost so far",
            grouped(traffic.sessions_hurt_total)
        ));
    }
    if gravity == Gravity::Wrong && traffic.sessions_moved_total > 0 {
        cost.push(format!(
            "{} moved elsewhere",
            grouped(traffic.sessions_moved_total)
        ));
    }
    if !cost.is_empty() {
        lines.push(cost.join(", "));
    }
    // One that stands by, or serves with less weight than it might, is no trouble.
    let is_missed =
        gravity == Gravity::Wrong || !(backend.serving || condition == Condition::Standby);
    Some(Finding {
        // Nobody would be told that it is down.
        gravity: match not_run {
            Some(_) => Gravity::Wrong,
            None => gravity.min(Gravity::Noted),
        },
        subject: format!("{}/{}", service.name, backend.name),
        lines,
        missed_by: is_missed.then(|| service.name.clone()),
    })
}

/// ` (uid 0)`
fn author(backend: &Backend) -> String {
    let by = backend.admin.as_ref().and_then(|admin| admin.by.as_ref());
    by.map_or_else(String::new, |by| format!(" ({by})"))
}

/// ` 10s ago by uid 0`
pub(in crate::cli) fn said_by(admin: &Admin, now: &str) -> String {
    let mut text = since(admin.since.as_deref(), now, " ", " ago");
    if let Some(by) = &admin.by {
        text += &format!(" by {by}");
    }
    text
}

/// `what is left is closed in 4m`, if anything is.
pub(in crate::cli) fn deadline(backend: &Backend, now: &str) -> Option<String> {
    let deadline = backend.admin.as_ref()?.deadline.as_deref();
    let left = ago(now, deadline.filter(|_| backend.traffic.sessions > 0)?)?;
    Some(match left.is_zero() {
        true => "its deadline is over".to_owned(),
        false => format!("what is left is closed in {}", time(left)),
    })
}

/// `down for 5m: refused`, by its checks alone.
fn down(backend: &Backend, now: &str) -> String {
    let mut line = "down".to_owned();
    line += &since(backend.since.as_deref(), now, " for ", "");
    let check = backend.check.as_ref();
    if let Some(failure) = check.and_then(|it| it.last_failure.as_deref()) {
        line += &format!(": {failure}");
    }
    line
}
