//! What is to be said of a backend in a word, and of a daemon in a few sentences: which of all that a
//! view tells an operator wants to know first.

use std::time::Duration;

use super::figures::{ago, grouped, of, time};
use crate::api::{Admin, Backend, Service, Standing, State, View};

/// How bad something is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gravity {
    /// Clients are, or are about to be, hurt.
    Wrong,
    /// Somebody wanted it so, or it will be over by itself.
    Noted,
    /// Nothing to see.
    Well,
}

/// A backend in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Down,
    Unresolved,
    Ejected,
    Failing,
    Recovering,
    Slow,
    Draining,
    Disabled,
    Unknown,
    NoWeight,
    Standby,
    Up,
}

impl Condition {
    /// Of that backend.
    pub(super) fn of(backend: &Backend) -> Self {
        let duty = backend.admin.as_ref().map(|admin| &*admin.duty);
        match duty {
            Some("drain") => return Self::Draining,
            Some("maintenance") => return Self::Disabled,
            None if !backend.enabled => return Self::Disabled,
            Some(_) | None => {}
        }
        match backend.state {
            _ if backend.address.is_none() => Self::Unresolved,
            State::Down => Self::Down,
            _ if backend.ejected_until.is_some() => Self::Ejected,
            State::Failing => Self::Failing,
            State::Recovering => Self::Recovering,
            _ if backend.agent.as_deref() == Some("drain") => Self::Draining,
            State::Unknown => Self::Unknown,
            State::Up
                if backend
                    .admin
                    .as_ref()
                    .is_some_and(|it| it.weight_percent == 0) =>
            {
                Self::NoWeight
            }
            State::Up if !backend.serving => Self::Standby,
            State::Up if backend.suspect => Self::Slow,
            State::Up => Self::Up,
        }
    }

    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unresolved => "no address",
            Self::Ejected => "ejected",
            Self::Failing => "failing",
            Self::Recovering => "recovering",
            Self::Slow => "slow",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Unknown => "unchecked",
            Self::NoWeight => "no weight",
            Self::Standby => "standby",
            Self::Up => "up",
        }
    }

    /// How bad that is.
    pub(super) fn gravity(self) -> Gravity {
        match self {
            Self::Down | Self::Unresolved | Self::Ejected | Self::Failing => Gravity::Wrong,
            Self::Recovering | Self::Slow | Self::Draining | Self::Unknown | Self::NoWeight => {
                Gravity::Noted
            }
            Self::Disabled | Self::Standby | Self::Up => Gravity::Well,
        }
    }
}

/// Something that is to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) gravity: Gravity,
    /// What it concerns: a service, a backend, or the daemon.
    pub(super) subject: String,
    /// In words, one line each.
    pub(super) lines: Vec<String>,
}

impl Finding {
    /// What a single line says of it: that clients are turned away, if they are, and why.
    pub(super) fn gist(&self) -> Option<&str> {
        let hurt = self.lines.iter().find(|line| line.contains(TURNED_AWAY));
        hurt.or(self.lines.first()).map(String::as_str)
    }

    /// Whether it matters to who asks for `service`: what concerns the daemon always does.
    pub(super) fn concerns(&self, service: &str) -> bool {
        let rest = self.subject.strip_prefix(service);
        let is_own = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        is_own || [DAEMON, CONFIGURATION].contains(&&*self.subject)
    }
}

/// All that is to be known, the worst first.
pub(super) fn findings(view: &View) -> Vec<Finding> {
    let mut all = daemon(view);
    for service in &view.services {
        all.extend(self::service(service, &view.at));
        let of_backend = |it| backend(service, it, &view.at);
        all.extend(service.backends.iter().filter_map(of_backend));
    }
    all.sort_by_key(|finding| finding.gravity);
    all
}

fn daemon(view: &View) -> Vec<Finding> {
    let process = &view.process;
    let mut all = Vec::new();
    if process.stopping {
        all.push(Finding {
            gravity: Gravity::Wrong,
            subject: DAEMON.into(),
            lines: vec!["it stops: no new clients are served".into()],
        });
    }
    if process.max_connections > 0 && process.sessions >= process.max_connections {
        all.push(Finding {
            gravity: Gravity::Wrong,
            subject: DAEMON.into(),
            lines: vec![format!(
                "all {} sessions of max_connections are in use: new clients wait",
                grouped(process.max_connections)
            )],
        });
    }
    if let Some(rejection) = &process.configuration.rejected {
        let path = process.configuration.path.as_deref().unwrap_or("the file");
        let runs = match process.configuration.last_good {
            true => "the last good configuration runs in its place",
            false => "what runs is not what is in it",
        };
        let mut lines = vec![format!(
            "{path} was rejected{}: {runs}",
            since(Some(&rejection.at), &view.at, " ", " ago")
        )];
        lines.extend(rejection.problems.iter().take(MOST_LINES).cloned());
        let more = rejection.problems.len().saturating_sub(MOST_LINES);
        if more > 0 {
            lines.push(format!("… and {more} more; 'ballast check' shows all"));
        }
        all.push(Finding {
            gravity: Gravity::Wrong,
            subject: CONFIGURATION.into(),
            lines,
        });
    }
    all
}

/// Only what its backends do not say by themselves: that nobody serves, and who was turned away.
fn service(service: &Service, now: &str) -> Option<Finding> {
    let mut lines = Vec::new();
    let mut gravity = Gravity::Noted;
    let why = |otherwise: String| service.why.clone().unwrap_or(otherwise);
    match service.standing {
        Standing::Down => {
            gravity = Gravity::Wrong;
            lines.push(why("nobody serves".into()));
        }
        Standing::Degraded => {
            gravity = Gravity::Wrong;
            let (eligible, configured) = (service.eligible, service.configured);
            lines.push(why(format!("{eligible} of {configured} backends serve")));
        }
        Standing::Ok => {}
    }
    if service.queue.waiting > 0 {
        let is_full = service.queue.waiting >= service.queue.size;
        if is_full {
            gravity = Gravity::Wrong;
        }
        lines.push(format!(
            "{} in line for a place, {} {}",
            of(service.queue.waiting, "client"),
            if is_full { "all of" } else { "at most" },
            grouped(service.queue.size)
        ));
    }
    let unserved = &service.unserved;
    if unserved.total > 0 {
        let last = unserved.last.as_deref().and_then(|last| ago(last, now));
        let recent = last.is_none_or(|last| last < RECENT);
        if recent {
            gravity = Gravity::Wrong;
        }
        if recent || service.standing != Standing::Ok {
            lines.push(turned_away(service, now));
        }
    }
    let last = last_not_let_in(service).and_then(|last| ago(last, now));
    if last.is_some_and(|last| last < RECENT) {
        lines.extend(not_let_in(service, now));
    }
    (!lines.is_empty()).then(|| Finding {
        gravity,
        subject: service.name.clone(),
        lines,
    })
}

/// When the last client was that a rule has refused.
fn last_not_let_in(service: &Service) -> Option<&str> {
    // All are of one length, so their order as text is that in time.
    service
        .refusals
        .iter()
        .filter_map(|it| it.last.as_deref())
        .max()
}

/// `12 clients were not let in so far: 10 by access, 2 by max_per_source; the last 3s ago`
pub(super) fn not_let_in(service: &Service, now: &str) -> Option<String> {
    let rules = service.refusals.iter().filter(|it| it.refused_total > 0);
    let total: u64 = rules.clone().map(|it| it.refused_total).sum();
    let were = if total == 1 { "was" } else { "were" };
    let by: Vec<String> = rules
        .map(|it| match it.refused_total == total {
            true => format!("by {}", it.rule),
            false => format!("{} by {}", grouped(it.refused_total), it.rule),
        })
        .collect();
    (total > 0).then(|| {
        let clients = of(total, "client");
        let last = since(last_not_let_in(service), now, "; the last ", " ago");
        format!(
            "{clients} {were} not let in so far: {}{last}",
            by.join(", ")
        )
    })
}

/// `slowed down so far: 10 sessions by to_client, 3m 20s together`
pub(super) fn slowed_down(service: &Service) -> Option<String> {
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

/// `12 clients were turned away, the last 3s ago: 10 no eligible backend, 2 queue full`
pub(super) fn turned_away(service: &Service, now: &str) -> String {
    let unserved = &service.unserved;
    let were = if unserved.total == 1 { "was" } else { "were" };
    let causes: Vec<String> = unserved
        .causes
        .iter()
        .take(MOST_LINES)
        .map(|it| match unserved.causes.len() {
            1 => it.cause.clone(),
            _ => format!("{} {}", grouped(it.total), it.cause),
        })
        .collect();
    let because = match causes.is_empty() {
        true => String::new(),
        false => format!(": {}", causes.join(", ")),
    };
    format!(
        "{} {were} {TURNED_AWAY}{}{because}",
        of(unserved.total, "client"),
        since(unserved.last.as_deref(), now, ", the last ", " ago")
    )
}

fn backend(service: &Service, backend: &Backend, now: &str) -> Option<Finding> {
    let condition = Condition::of(backend);
    let gravity = condition.gravity();
    if gravity == Gravity::Well && backend.admin.is_none() {
        return None;
    }
    let mut lines = Vec::new();
    let is_by_operator = [Condition::Draining, Condition::Disabled].contains(&condition);
    match (&backend.admin, &backend.why) {
        (Some(admin), Some(why)) if is_by_operator => {
            lines.push(format!("{why}{}", said(admin, now)));
            // Whoever ends the drain finds it down.
            if backend.state == State::Down {
                lines.push(down(backend, now));
            }
        }
        (_, why) => {
            let mut line = condition.word().to_owned();
            if condition != Condition::Unresolved {
                line += &since(backend.since.as_deref(), now, " for ", "");
            }
            if let Some(why) = why {
                line += &format!(": {why}");
            }
            lines.push(line);
        }
    }
    if let Some(admin) = backend.admin.as_ref().filter(|it| it.weight_percent != 100) {
        let percent = admin.weight_percent;
        lines.push(format!("an operator gives it {percent}% of its weight"));
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
    Some(Finding {
        gravity: gravity.min(Gravity::Noted),
        subject: format!("{}/{}", service.name, backend.name),
        lines,
    })
}

/// Since when it is in its condition: what an operator has said of it is told before its health.
pub(super) fn since_when(backend: &Backend) -> Option<&str> {
    let admin = backend.admin.as_ref().filter(|it| it.duty != "serve");
    let said = admin.and_then(|it| it.since.as_deref());
    said.or(backend.since.as_deref())
}

/// What is still to be known of what an operator has said: ` 10s ago by uid 0; what is left is closed in 4m`.
fn said(admin: &Admin, now: &str) -> String {
    let deadline = deadline(admin, now).map_or_else(String::new, |it| format!("; {it}"));
    format!("{}{deadline}", said_by(admin, now))
}

/// ` 10s ago by uid 0`
pub(super) fn said_by(admin: &Admin, now: &str) -> String {
    let mut text = since(admin.since.as_deref(), now, " ", " ago");
    if let Some(by) = &admin.by {
        text += &format!(" by {by}");
    }
    text
}

/// `what is left is closed in 4m`
pub(super) fn deadline(admin: &Admin, now: &str) -> Option<String> {
    let left = ago(now, admin.deadline.as_deref()?)?;
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

/// How long ago that was, between two words; nothing if that is not known.
fn since(then: Option<&str>, now: &str, before: &str, after: &str) -> String {
    match then.and_then(|then| ago(then, now)) {
        Some(past) => format!("{before}{}{after}", time(past)),
        None => String::new(),
    }
}

const TURNED_AWAY: &str = "turned away";
const DAEMON: &str = "daemon";
const CONFIGURATION: &str = "configuration";
/// A client that was turned away longer ago is history.
pub(super) const RECENT: Duration = Duration::from_secs(60);
/// Problems, or causes, that are told of one thing.
const MOST_LINES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Count, Refusals, Rejection, Throttling, Traffic, Unserved};

    const NOW: &str = "2026-11-21T12:00:10.000Z";
    const BEFORE: &str = "2026-11-21T12:00:00.000Z";

    fn up(name: &str) -> Backend {
        Backend {
            name: name.into(),
            address: Some("10.0.0.1:80".into()),
            state: State::Up,
            since: Some(BEFORE.into()),
            serving: true,
            enabled: true,
            ..Backend::default()
        }
    }

    fn view(service: Service) -> View {
        View {
            at: NOW.into(),
            services: vec![service],
            ..View::default()
        }
    }

    fn told(view: &View) -> Vec<(Gravity, String)> {
        let line = |it: Finding| {
            (
                it.gravity,
                format!("{}: {}", it.subject, it.lines.join("; ")),
            )
        };
        findings(view).into_iter().map(line).collect()
    }

    #[test]
    fn a_backend_is_in_the_condition_that_matters_most() {
        let by_operator = |duty: &str| {
            Some(Admin {
                duty: duty.into(),
                weight_percent: 100,
                ..Admin::default()
            })
        };
        let down = Backend {
            state: State::Down,
            ..up("a")
        };
        let cases = [
            (up("a"), Condition::Up),
            (down.clone(), Condition::Down),
            (
                Backend {
                    admin: by_operator("drain"),
                    ..down.clone()
                },
                Condition::Draining,
            ),
            (
                Backend {
                    admin: by_operator("maintenance"),
                    ..down.clone()
                },
                Condition::Disabled,
            ),
            (
                Backend {
                    enabled: false,
                    ..down
                },
                Condition::Disabled,
            ),
            (
                Backend {
                    address: None,
                    ..up("a")
                },
                Condition::Unresolved,
            ),
            (
                Backend {
                    serving: false,
                    ..up("a")
                },
                Condition::Standby,
            ),
            (
                Backend {
                    suspect: true,
                    ..up("a")
                },
                Condition::Slow,
            ),
            (
                Backend {
                    ejected_until: Some(NOW.into()),
                    serving: false,
                    ..up("a")
                },
                Condition::Ejected,
            ),
        ];
        for (backend, condition) in cases {
            assert_eq!(Condition::of(&backend), condition, "{backend:?}");
        }
    }

    #[test]
    fn nothing_is_said_when_all_is_well() {
        let service = Service {
            name: "web".into(),
            backends: vec![up("a")],
            ..Service::default()
        };
        assert_eq!(told(&view(service)), []);
    }

    #[test]
    fn what_is_wrong_comes_before_what_is_meant_and_says_since_when_and_who_is_hurt() {
        let service = Service {
            name: "web".into(),
            standing: Standing::Degraded,
            eligible: 1,
            configured: 3,
            unserved: Unserved {
                total: 3,
                last: Some("2026-11-21T12:00:09.000Z".into()),
                causes: vec![Count {
                    cause: "no eligible backend".into(),
                    total: 3,
                }],
            },
            backends: vec![
                up("a"),
                Backend {
                    admin: Some(Admin {
                        duty: "drain".into(),
                        weight_percent: 100,
                        since: Some("2026-11-21T12:00:08.000Z".into()),
                        by: Some("uid 0".into()),
                        deadline: Some("2026-11-21T12:01:10.000Z".into()),
                    }),
                    why: Some("drained by an operator".into()),
                    serving: false,
                    traffic: Traffic {
                        sessions: 2,
                        ..Traffic::default()
                    },
                    ..up("b")
                },
                Backend {
                    state: State::Down,
                    why: Some("refused".into()),
                    traffic: Traffic {
                        sessions_hurt_total: 1,
                        sessions_moved_total: 4,
                        ..Traffic::default()
                    },
                    ..up("c")
                },
            ],
            ..Service::default()
        };
        let expected = [
            (
                Gravity::Wrong,
                "web: 1 of 3 backends serve; 3 clients were turned away, the last 1s ago: no eligible backend",
            ),
            (
                Gravity::Wrong,
                "web/c: down for 10s: refused; 1 lost so far, 4 moved elsewhere",
            ),
            (
                Gravity::Noted,
                "web/b: drained by an operator 2s ago by uid 0; what is left is closed in 1m; 2 sessions still there",
            ),
        ];
        assert_eq!(
            told(&view(service)),
            expected.map(|(it, text)| (it, text.into()))
        );
    }

    #[test]
    fn a_rejected_file_is_told_with_what_is_wrong_in_it() {
        let mut view = view(Service::default());
        view.process.configuration.path = Some("/etc/b.toml".into());
        view.process.configuration.rejected = Some(Rejection {
            at: BEFORE.into(),
            problems: vec!["b.toml:3:1: unknown key".into()],
        });
        let expected = "configuration: /etc/b.toml was rejected 10s ago: what runs is not what is in it; \
                        b.toml:3:1: unknown key";
        assert_eq!(told(&view), [(Gravity::Wrong, expected.to_owned())]);
    }

    #[test]
    fn clients_that_rules_kept_out_are_told_by_rule() {
        let rule = |rule: &str, refused_total| Refusals {
            rule: rule.into(),
            refused_total,
            last: Some("2026-11-21T12:00:07.000Z".into()),
            would_be_total: 0,
        };
        let mut service = Service {
            name: "web".into(),
            refusals: vec![rule("access", 3), rule("max_per_source", 1)],
            ..Service::default()
        };
        let both = "web: 4 clients were not let in so far: 3 by access, 1 by max_per_source; the last 3s ago";
        assert_eq!(
            told(&view(service.clone())),
            [(Gravity::Noted, both.into())]
        );
        service.refusals.remove(0);
        let one = "web: 1 client was not let in so far: by max_per_source; the last 3s ago";
        assert_eq!(told(&view(service.clone())), [(Gravity::Noted, one.into())]);
        // What was long ago is no news, and is still told of the service.
        service.refusals[0].last = Some("2026-11-21T11:00:00.000Z".into());
        assert_eq!(told(&view(service.clone())), []);
        assert!(not_let_in(&service, NOW).is_some());
    }

    #[test]
    fn sessions_that_caps_slowed_down_are_told_by_cap_and_no_finding() {
        let cap = |cap: &str, slowed_total, slowed_seconds_total| Throttling {
            cap: cap.into(),
            slowed_total,
            slowed_seconds_total,
            ..Throttling::default()
        };
        let mut service = Service {
            throttling: vec![cap("to_client", 10, 200.0), cap("to_backend", 0, 0.0)],
            ..Service::default()
        };
        let expected = "slowed down so far: 10 sessions by to_client, 3m 20s together";
        assert_eq!(slowed_down(&service).as_deref(), Some(expected));
        assert_eq!(told(&view(service.clone())), []);
        service.throttling.remove(0);
        assert_eq!(slowed_down(&service), None);
    }

    #[test]
    fn a_full_queue_is_wrong() {
        let mut service = Service::default();
        service.queue.size = 2;
        service.queue.waiting = 1;
        assert_eq!(told(&view(service.clone()))[0].0, Gravity::Noted);
        service.queue.waiting = 2;
        assert_eq!(told(&view(service))[0].0, Gravity::Wrong);
    }

    #[test]
    fn a_client_that_was_turned_away_long_ago_is_history() {
        let service = Service {
            unserved: Unserved {
                total: 3,
                last: Some("2026-11-21T11:00:00.000Z".into()),
                causes: Vec::new(),
            },
            ..Service::default()
        };
        assert_eq!(told(&view(service)), []);
    }
}
