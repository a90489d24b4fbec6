//! What is to be said of a daemon in a few sentences: which of all that a view tells an operator wants to
//! know first. What is to be said of a backend in a word is [`condition`](super::condition)'s business.

use std::collections::HashMap;
use std::time::Duration;

use super::condition::{Condition, Gravity, is_by_operator, since_when};
use super::figures::{ago, grouped, of, time};
use crate::api::{
    Admin, Backend, LostAlert, Refusals, Rejection, Service, ShortOf, Standing, State, View,
};

/// Something that is to be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// How bad it is.
    pub(super) gravity: Gravity,
    /// What it concerns: a service, a backend, or the daemon.
    pub(super) subject: String,
    /// In words, one line each.
    pub(super) lines: Vec<String>,
    /// Of a backend that is missing: the service that may suffer from it.
    missed_by: Option<String>,
}

impl Finding {
    /// What a single line says of it: that clients are turned away, if they are, and why.
    pub(super) fn gist(&self) -> Option<&str> {
        let hurt = self.lines.iter().find(|line| line.contains(TURNED_AWAY));
        hurt.or(self.lines.first()).map(String::as_str)
    }

    /// Whether it matters to who asks for `service`: what concerns the daemon always does.
    pub(super) fn concerns(&self, service: &str) -> bool {
        let is_own = self.subject == service || self.is_of_a_backend_of(service);
        is_own || [DAEMON, CONFIGURATION].contains(&&*self.subject)
    }

    fn is_of_a_backend_of(&self, service: &str) -> bool {
        let rest = self.subject.strip_prefix(service);
        rest.is_some_and(|rest| rest.starts_with('/'))
    }
}

/// All that is to be known, the worst first; what concerns a service stands together.
pub(super) fn findings(view: &View) -> Vec<Finding> {
    let mut all = daemon(view);
    let mut services: Vec<&Service> = view.services.iter().collect();
    // Where nobody serves comes before where somebody is missing.
    services.sort_by_key(|it| it.standing != Standing::Down);
    for service in services {
        all.extend(self::service(service, &view.at));
        all.extend(backends_file(service, &view.at));
        let of_backend = |it| backend(service, it, &view.at);
        all.extend(service.backends.iter().filter_map(of_backend));
    }
    all.sort_by_key(|finding| finding.gravity);
    all
}

/// What is wrong, at `most` so many lines and the cause before what comes of it: what a service suffers from is
/// the worst of the backends that it misses, even where somebody wanted that one so.
pub(super) fn headlines(all: &[Finding], most: usize) -> Vec<String> {
    let mut causes: HashMap<&str, usize> = HashMap::new();
    for (at, finding) in all.iter().enumerate() {
        if let Some(service) = &finding.missed_by {
            causes.entry(service).or_insert(at);
        }
    }
    let mut told: Vec<usize> = Vec::new();
    let wrong = all.iter().enumerate();
    for (at, finding) in wrong.filter(|(_, it)| it.gravity == Gravity::Wrong) {
        if told.len() >= most {
            break;
        }
        let cause = match finding.missed_by {
            None => causes.get(&*finding.subject).copied(),
            Some(_) => None,
        };
        for at in cause.into_iter().chain([at]) {
            if !told.contains(&at) {
                told.push(at);
            }
        }
    }
    let line = |it: &Finding| Some(format!("{}: {}", it.subject, it.gist()?));
    let told = told.into_iter().take(most);
    told.filter_map(|at| line(&all[at])).collect()
}

/// Why a backend is in its condition, as short as it can be told beside that.
pub(super) fn reason(backend: &Backend) -> Option<String> {
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

fn daemon(view: &View) -> Vec<Finding> {
    let process = &view.process;
    let mut all = Vec::new();
    if process.stopping {
        all.push(Finding {
            gravity: Gravity::Wrong,
            subject: DAEMON.into(),
            lines: vec!["it stops: no new clients are served".into()],
            missed_by: None,
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
            missed_by: None,
        });
    }
    if let Some(short_of) = process.short_of {
        let cure = match short_of {
            ShortOf::Descriptors => {
                "raise LimitNOFILE, or lower max_connections; 'ballast doctor' has the figures"
            }
            ShortOf::DescriptorsOfTheMachine => "raise fs.file-max, or find who has so many open",
            ShortOf::Memory => "raise net.ipv4.tcp_mem or the memory limit of the unit",
            ShortOf::Something => "the log has what the kernel says: accepting rests for a moment",
        };
        all.push(Finding {
            gravity: Gravity::Wrong,
            subject: DAEMON.into(),
            lines: vec![
                format!("short of {}: new clients wait", short_of.words()),
                cure.into(),
            ],
            missed_by: None,
        });
    }
    if let Some(rejection) = &process.configuration.rejected {
        let path = process.configuration.path.as_deref().unwrap_or("the file");
        let runs = match process.configuration.last_good {
            true => "the last good configuration runs in its place",
            false => "what runs is not what is in it",
        };
        all.push(Finding {
            gravity: Gravity::Wrong,
            subject: CONFIGURATION.into(),
            lines: rejected(path, rejection, runs, &view.at),
            missed_by: None,
        });
    }
    let waiting = &process.configuration.needs_restart;
    if !waiting.is_empty() {
        all.push(Finding {
            gravity: Gravity::Noted,
            subject: CONFIGURATION.into(),
            lines: vec![format!("waits for a restart: {}", waiting.join(", "))],
            missed_by: None,
        });
    }
    let lost = process.alerts.lost.iter();
    all.extend(lost.map(|it| lost_alert(it, &view.at)));
    all
}

/// Until a message of the same alert gets through nobody knows whether the next will; after a while that is no news.
fn lost_alert(lost: &LostAlert, now: &str) -> Finding {
    let past = ago(&lost.at, now);
    let LostAlert {
        alert,
        to,
        why,
        text,
        ..
    } = lost;
    let told = since(Some(&lost.at), now, " ", " ago");
    Finding {
        gravity: match past.is_some_and(|it| it < LOST_LATELY) {
            true => Gravity::Wrong,
            false => Gravity::Noted,
        },
        subject: DAEMON.into(),
        lines: vec![
            format!("alert {alert} failed{told}, to {to}: {why}"),
            format!("it said: {text}"),
        ],
        missed_by: None,
    }
}

/// A file of backends that is not what serves.
fn backends_file(service: &Service, now: &str) -> Option<Finding> {
    let file = service.backends_file.as_ref()?;
    let runs = match file.backends {
        0 => "none of its backends serves".to_owned(),
        some => format!(
            "its last good list stays, of {}",
            of(some.into(), "backend")
        ),
    };
    Some(Finding {
        gravity: Gravity::Wrong,
        subject: service.name.clone(),
        lines: rejected(&file.path, file.rejected.as_ref()?, &runs, now),
        missed_by: None,
    })
}

/// That the file at `path` is not in force, what `runs` in its place, and what is wrong with it.
fn rejected(path: &str, rejection: &Rejection, runs: &str, now: &str) -> Vec<String> {
    let past = since(Some(&rejection.at), now, " ", " ago");
    let mut lines = vec![format!("{path} was rejected{past}: {runs}")];
    lines.extend(rejection.problems.iter().take(MOST_LINES).cloned());
    let more = rejection.problems.len().saturating_sub(MOST_LINES);
    if more > 0 {
        lines.push(format!("… and {more} more; 'ballast check' shows all"));
    }
    lines
}

/// Only what its backends do not say by themselves: that nobody serves, and who was turned away. What its
/// own rules do is what an operator wants, and stands apart from what is wrong.
fn service(service: &Service, now: &str) -> impl Iterator<Item = Finding> {
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

/// Whether it was within the last minute; what is longer ago is history.
fn is_recent(then: Option<&str>, now: &str) -> bool {
    let past = then.and_then(|then| ago(then, now));
    past.is_some_and(|past| past < RECENT)
}

/// `12 clients were not let in by max_per_source so far, the last 3s ago`
pub(super) fn not_let_in(rule: &Refusals, now: &str) -> Option<String> {
    let total = rule.refused_total;
    let were = if total == 1 { "was" } else { "were" };
    let last = since(rule.last.as_deref(), now, ", the last ", " ago");
    let (clients, rule) = (of(total, "client"), &rule.rule);
    (total > 0).then(|| format!("{clients} {were} not let in by {rule} so far{last}"))
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

/// `12 clients were turned away so far, the last 3s ago: 10 no eligible backend, 2 queue full (5m ago)`
pub(super) fn turned_away(service: &Service, now: &str) -> String {
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

fn backend(service: &Service, backend: &Backend, now: &str) -> Option<Finding> {
    let condition = Condition::of(backend);
    let gravity = condition.gravity();
    if gravity == Gravity::Well && backend.admin.is_none() {
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
        gravity: gravity.min(Gravity::Noted),
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
pub(super) fn said_by(admin: &Admin, now: &str) -> String {
    let mut text = since(admin.since.as_deref(), now, " ", " ago");
    if let Some(by) = &admin.by {
        text += &format!(" by {by}");
    }
    text
}

/// `what is left is closed in 4m`, if anything is.
pub(super) fn deadline(backend: &Backend, now: &str) -> Option<String> {
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

/// How long ago that was, between two words; nothing if that is not known.
fn since(then: Option<&str>, now: &str, before: &str, after: &str) -> String {
    match then.and_then(|then| ago(then, now)) {
        Some(past) => format!("{before}{}{after}", time(past)),
        None => String::new(),
    }
}

const TURNED_AWAY: &str = "turned away";
const DAEMON: &str = "daemon";
/// The subject of a file that was rejected.
pub(super) const CONFIGURATION: &str = "configuration";
/// A client that was turned away longer ago is history.
const RECENT: Duration = Duration::from_secs(60);
/// An alert that was lost is wrong for so long.
const LOST_LATELY: Duration = Duration::from_secs(3600);
/// Problems, or causes, that are told of one thing.
const MOST_LINES: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{BackendsFile, Count, Throttling, Traffic, Unserved};
    use crate::cli::testing::{BEFORE, NOW, up};

    #[test]
    fn a_service_that_is_full_is_wrong_and_one_that_awaits_its_fail_back_is_noted() {
        let full = Service {
            name: "web".into(),
            full_at: Some(2000),
            ..Service::default()
        };
        let awaiting = Service {
            name: "db".into(),
            awaits_fail_back: true,
            ..Service::default()
        };
        let view = View {
            at: NOW.into(),
            services: vec![awaiting, full],
            ..View::default()
        };
        let all = findings(&view);
        let told: Vec<_> = all
            .iter()
            .map(|it| (it.gravity, &*it.subject, &*it.lines[0]))
            .collect();
        let full = "all 2,000 sessions of max_connections in [service.limits] are in use: new clients wait";
        let waits = "a later tier stands in although those before it are back, until 'ballast service fail-back db'";
        assert_eq!(
            told,
            [(Gravity::Wrong, "web", full), (Gravity::Noted, "db", waits)]
        );
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
                    last: Some("2026-11-21T12:00:09.000Z".into()),
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
                "web: 1 of 3 backends serve; 3 clients were turned away so far, the last 1s ago: no eligible backend",
            ),
            (
                Gravity::Wrong,
                "web/c: down for 10s: refused; 1 lost so far, 4 moved elsewhere",
            ),
            (
                Gravity::Noted,
                "web/b: drained by an operator (uid 0) 2s ago; what is left is closed in 1m; 2 sessions still there",
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
    fn a_backends_file_that_is_rejected_is_told_with_what_serves_in_its_place() {
        let mut service = Service {
            name: "web".into(),
            backends_file: Some(BackendsFile {
                path: "/etc/web.toml".into(),
                backends: 2,
                rejected: None,
            }),
            ..Service::default()
        };
        assert_eq!(told(&view(service.clone())), []);
        let file = service.backends_file.as_mut().unwrap();
        file.rejected = Some(Rejection {
            at: BEFORE.into(),
            problems: vec!["web.toml:3:1: unknown key".into()],
        });
        let expected = "web: /etc/web.toml was rejected 10s ago: its last good list stays, of 2 backends; \
                        web.toml:3:1: unknown key";
        let all = findings(&view(service.clone()));
        assert!(all[0].concerns("web") && !all[0].concerns("api"));
        assert_eq!(told(&view(service)), [(Gravity::Wrong, expected.into())]);
    }

    #[test]
    fn what_waits_for_a_restart_is_noted() {
        let mut view = view(Service::default());
        let keys = ["runtime.workers", "log.format"].map(str::to_owned);
        view.process.configuration.needs_restart = keys.into();
        let expected = "configuration: waits for a restart: runtime.workers, log.format";
        assert_eq!(told(&view), [(Gravity::Noted, expected.to_owned())]);
    }

    #[test]
    fn an_alert_that_was_lost_is_wrong_for_an_hour_and_noted_until_one_gets_through() {
        let mut view = view(Service::default());
        view.process.alerts.lost = vec![LostAlert {
            alert: "ops".into(),
            at: BEFORE.into(),
            to: "hooks.example.org".into(),
            why: "no answer within 5s".into(),
            text: "lb1: web/a is down: refused (1 of 2 eligible)".into(),
        }];
        let expected = |past: &str| {
            format!(
                "daemon: alert ops failed {past} ago, to hooks.example.org: \
                 no answer within 5s; it said: lb1: web/a is down: refused (1 of 2 eligible)"
            )
        };
        assert_eq!(told(&view), [(Gravity::Wrong, expected("10s"))]);
        view.at = "2026-11-21T13:30:00.000Z".into();
        assert_eq!(told(&view), [(Gravity::Noted, expected("1h 30m"))]);
    }

    #[test]
    fn a_shortage_is_wrong_and_told_with_its_cure() {
        let mut view = view(Service::default());
        view.process.short_of = Some(ShortOf::Descriptors);
        let expected = "daemon: short of descriptors: new clients wait; \
                        raise LimitNOFILE, or lower max_connections; 'ballast doctor' has the figures";
        assert_eq!(told(&view), [(Gravity::Wrong, expected.into())]);
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
        service.refusals[1].last = Some("2026-11-21T11:59:30.000Z".into());
        let both = "web: 3 clients were not let in by access so far, the last 3s ago; \
                    1 client was not let in by max_per_source so far, the last 40s ago";
        assert_eq!(
            told(&view(service.clone())),
            [(Gravity::Noted, both.into())]
        );
        // What was a minute ago or more is no news, whatever else is, and is still told of the service.
        service.refusals[0].last = Some("2026-11-21T11:59:10.000Z".into());
        let one = "web: 1 client was not let in by max_per_source so far, the last 40s ago";
        assert_eq!(told(&view(service.clone())), [(Gravity::Noted, one.into())]);
        assert_eq!(
            not_let_in(&service.refusals[0], NOW).as_deref(),
            Some("3 clients were not let in by access so far, the last 1m ago")
        );
    }

    #[test]
    fn what_rules_do_is_not_told_under_what_is_wrong() {
        let recently = Some("2026-11-21T12:00:07.000Z".to_owned());
        let service = Service {
            name: "web".into(),
            unserved: Unserved {
                total: 2,
                last: recently.clone(),
                causes: Vec::new(),
            },
            refusals: vec![Refusals {
                rule: "access".into(),
                refused_total: 1,
                last: recently,
                would_be_total: 0,
            }],
            ..Service::default()
        };
        let expected = [
            (
                Gravity::Wrong,
                "web: 2 clients were turned away so far, the last 3s ago",
            ),
            (
                Gravity::Noted,
                "web: 1 client was not let in by access so far, the last 3s ago",
            ),
        ];
        assert_eq!(
            told(&view(service)),
            expected.map(|(it, text)| (it, text.into()))
        );
    }

    #[test]
    fn a_headline_begins_with_the_cause_even_where_an_operator_wanted_it_so() {
        let disabled = Backend {
            admin: Some(Admin {
                duty: "maintenance".into(),
                weight_percent: 100,
                by: Some("uid 0".into()),
                ..Admin::default()
            }),
            why: Some("disabled by an operator".into()),
            serving: false,
            ..up("a")
        };
        let service = Service {
            name: "web".into(),
            standing: Standing::Down,
            why: Some("no backend may serve: clients are reset".into()),
            backends: vec![disabled.clone()],
            ..Service::default()
        };
        let mut other = up("b");
        (other.state, other.why) = (State::Down, Some("its checks fail: refused".into()));
        assert_eq!(reason(&other).as_deref(), Some("its checks fail: refused"));
        let api = Service {
            name: "api".into(),
            standing: Standing::Degraded,
            why: Some("1 of 2 backends should serve and does not".into()),
            backends: vec![up("a"), other],
            ..Service::default()
        };
        let view = View {
            services: vec![service, api],
            ..view(Service::default())
        };
        let expected = [
            "web/a: disabled by an operator (uid 0)",
            "web: no backend may serve: clients are reset",
            "api/b: down for 10s: its checks fail: refused",
            "api: 1 of 2 backends should serve and does not",
        ];
        assert_eq!(headlines(&findings(&view), 9), expected);
        assert_eq!(headlines(&findings(&view), 3), expected[..3]);
        let why = reason(&disabled);
        assert_eq!(why.as_deref(), Some("disabled by an operator (uid 0)"));
    }

    #[test]
    fn a_backend_that_serves_is_no_cause() {
        let weighed = Backend {
            admin: Some(Admin {
                duty: "serve".into(),
                weight_percent: 40,
                ..Admin::default()
            }),
            ..up("a")
        };
        let mut service = Service {
            name: "web".into(),
            unserved: Unserved {
                total: 1,
                last: Some("2026-11-21T12:00:09.000Z".into()),
                causes: Vec::new(),
            },
            backends: vec![weighed],
            ..Service::default()
        };
        let turned_away = "web: 1 client was turned away so far, the last 1s ago";
        let told = |service: &Service| headlines(&findings(&view(service.clone())), 5);
        assert_eq!(told(&service), [turned_away]);
        // A tier that stands by is not missed, whatever its weight.
        service.backends[0].serving = false;
        assert_eq!(told(&service), [turned_away]);
        let mut drained = up("b");
        drained.serving = false;
        drained.why = Some("drained by an operator".into());
        drained.admin = Some(Admin {
            duty: "drain".into(),
            weight_percent: 100,
            ..Admin::default()
        });
        service.backends.push(drained);
        let cause = "web/b: drained by an operator";
        assert_eq!(told(&service), [cause, turned_away]);
    }

    #[test]
    fn what_an_operator_has_said_is_told_with_who_and_when() {
        let by_operator = |weight_percent| {
            Some(Admin {
                duty: "serve".into(),
                weight_percent,
                since: Some("2026-11-21T12:00:08.000Z".into()),
                by: Some("uid 0".into()),
                deadline: None,
            })
        };
        let service = Service {
            name: "web".into(),
            backends: vec![
                Backend {
                    admin: by_operator(0),
                    serving: false,
                    why: Some("given no weight by an operator".into()),
                    ..up("a")
                },
                Backend {
                    admin: by_operator(40),
                    ..up("b")
                },
            ],
            ..Service::default()
        };
        assert_eq!(
            since_when(&service.backends[0]),
            Some("2026-11-21T12:00:08.000Z")
        );
        let expected = [
            "web/a: given no weight by an operator (uid 0) 2s ago",
            "web/b: up for 10s; given 40% of its weight by an operator (uid 0) 2s ago",
        ];
        assert_eq!(
            told(&view(service)),
            expected.map(|text| (Gravity::Noted, text.into()))
        );
    }

    #[test]
    fn a_deadline_is_told_while_somebody_is_left_to_meet_it() {
        let mut backend = Backend {
            admin: Some(Admin {
                duty: "drain".into(),
                deadline: Some("2026-11-21T12:01:10.000Z".into()),
                ..Admin::default()
            }),
            ..up("a")
        };
        assert_eq!(deadline(&backend, NOW), None);
        backend.traffic.sessions = 1;
        assert!(deadline(&backend, NOW).is_some());
    }

    #[test]
    fn a_backend_with_all_its_sessions_is_full() {
        let mut backend = Backend {
            max_connections: Some(3),
            ..up("a")
        };
        backend.traffic.sessions = 2;
        assert_eq!(Condition::of(&backend), Condition::Up);
        backend.traffic.sessions = 3;
        let service = Service {
            name: "web".into(),
            backends: vec![backend],
            ..Service::default()
        };
        let expected = "web/a: full: it has the 3 sessions that it may have";
        assert_eq!(told(&view(service)), [(Gravity::Noted, expected.into())]);
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
        let some = ": 1 client waits for a place, of at most 2";
        assert_eq!(
            told(&view(service.clone())),
            [(Gravity::Noted, some.into())]
        );
        service.queue.waiting = 2;
        let all = ": 2 clients wait for a place; the queue (2) is full";
        assert_eq!(told(&view(service)), [(Gravity::Wrong, all.into())]);
    }

    #[test]
    fn each_cause_says_when_it_was_and_the_latest_comes_first() {
        let count = |cause: &str, total, last: &str| Count {
            cause: cause.into(),
            total,
            last: Some(last.into()),
        };
        let service = Service {
            unserved: Unserved {
                total: 1_012,
                last: Some("2026-11-21T12:00:09.000Z".into()),
                causes: vec![
                    count("queue full", 1_000, "2026-11-21T11:55:10.000Z"),
                    count("refused", 12, "2026-11-21T12:00:09.000Z"),
                ],
            },
            ..Service::default()
        };
        assert_eq!(
            turned_away(&service, NOW),
            "1,012 clients were turned away so far, the last 1s ago: 12 refused, 1,000 queue full (5m ago)"
        );
    }

    #[test]
    fn a_client_that_was_turned_away_long_ago_is_history() {
        let mut service = Service {
            unserved: Unserved {
                total: 3,
                last: Some("2026-11-21T11:00:00.000Z".into()),
                causes: Vec::new(),
            },
            ..Service::default()
        };
        assert_eq!(told(&view(service.clone())), []);
        service.standing = Standing::Down;
        let down = ": nobody serves".to_owned();
        assert_eq!(told(&view(service)), [(Gravity::Wrong, down)]);
    }
}
