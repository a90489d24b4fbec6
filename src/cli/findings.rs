//! What is to be said of a daemon in a few sentences: which of all that a view tells an operator wants to
//! know first. What is to be said of a backend in a word is [`condition`](super::condition)'s business.

mod backend;
mod service;

use std::collections::HashMap;
use std::time::Duration;

pub(super) use self::backend::{deadline, reason, said_by};
pub(super) use self::service::{not_let_in, share, slowed_down, turned_away};
use super::condition::Gravity;
use super::figures::{ago, grouped, time};
use crate::api::{LostAlert, Rejection, Service, ShortOf, Standing, View};

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
        is_own || self.is_of_the_daemon()
    }

    /// Whether it is of no service.
    pub(super) fn is_of_the_daemon(&self) -> bool {
        [DAEMON, CONFIGURATION].contains(&&*self.subject)
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
        all.extend(service::findings(service, &view.at));
        let of_backend = |it| backend::finding(service, it, &view.at);
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
    all.extend(lost.filter_map(|it| lost_alert(it, &view.at)));
    all
}

/// Until a message of the same alert gets through nobody knows whether the next will; after a while that is no
/// news, and after a longer one, in which nothing happened that it tells of, nothing to be told at all.
fn lost_alert(lost: &LostAlert, now: &str) -> Option<Finding> {
    let past = ago(&lost.at, now);
    if past.is_some_and(|it| it >= LOST_LONG_AGO) {
        return None;
    }
    let LostAlert {
        alert,
        to,
        why,
        text,
        ..
    } = lost;
    let told = since(Some(&lost.at), now, " ", " ago");
    Some(Finding {
        gravity: match past.is_some_and(|it| it < LOST_LATELY) {
            true => Gravity::Wrong,
            false => Gravity::Noted,
        },
        subject: DAEMON.into(),
        lines: vec![
            format!("alert {alert} failed{told}, to {to}: {why}"),
            format!("the message was: {text}"),
        ],
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

/// Whether it was within the last minute; what is longer ago is history.
fn is_recent(then: Option<&str>, now: &str) -> bool {
    let past = then.and_then(|then| ago(then, now));
    past.is_some_and(|past| past < RECENT)
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
/// And for so long worth a note.
const LOST_LONG_AGO: Duration = Duration::from_secs(24 * 3600);
/// Problems, or causes, that are told of one thing.
const MOST_LINES: usize = 5;

#[cfg(test)]
mod tests;
