//! `ballast events`: what has happened, and with `--follow` what happens; `ballast failovers`: what each
//! has cost, and whom.

use std::fmt;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime};

use clap::Args;

use super::client::{Client, Failure, Reach, segment};
use super::figures::{grouped, moment, tenths};
use super::json;
use super::printing::{complain, ended, printed, put, say};
use super::status::{VIEW, known};
use super::table::{Cell, Column, Table};
use crate::api::{Event, Events, Failover, Failovers, View};
use crate::config::written;

/// Which events.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only those after this one (its number), or not older than this (such as 15m)
    #[arg(long, value_name = "ID|TIME", value_parser = since)]
    since: Option<Since>,
    /// Go on, with what happens from now on
    #[arg(short, long)]
    follow: bool,
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// Print one JSON object per line, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Which failovers.
#[derive(Args, Debug)]
pub(super) struct FailoverOptions {
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// Print the daemon's answer, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    /// Behind the event of this number.
    Event(u64),
    /// So long ago.
    Ago(Duration),
}

impl fmt::Display for Since {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event(id) => write!(f, "number {id}"),
            Self::Ago(past) => write!(f, "{} ago", written(*past)),
        }
    }
}

/// The whole of `ballast events`.
pub(super) fn run(options: &Options) -> ExitCode {
    let client = Client::find(&options.reach).map(|it| it.for_programs(options.json));
    match client.and_then(|client| listen(&client, options)) {
        Ok(shown) => ended(shown, ExitCode::SUCCESS),
        Err(failure) => complain(&failure),
    }
}

/// The whole of `ballast failovers`.
pub(super) fn failovers(options: &FailoverOptions) -> ExitCode {
    let told = Client::find(&options.reach).and_then(|client| {
        let path = query("/v1/failovers", &[("service", options.service.as_deref())]);
        let text = client.get_text(&path)?;
        let all = client.understood::<Failovers>(text.as_bytes())?;
        if all.failovers.is_empty() {
            is_known(&client, options.service.as_deref())?;
        }
        Ok(match options.json {
            true => json::as_sent(&text),
            false => table(&all.failovers, all.under_way.len() as u64),
        })
    });
    match told {
        Ok(text) => printed(text, ExitCode::SUCCESS),
        Err(failure) => complain(&failure),
    }
}

/// Tells what became of what was printed.
fn listen(client: &Client, options: &Options) -> Result<io::Result<()>, Failure> {
    let ask = |since: u64| {
        let since = (since > 0).then(|| since.to_string());
        let path = query(
            "/v1/events",
            &[
                ("since", since.as_deref()),
                ("service", options.service.as_deref()),
            ],
        );
        client.get::<Events>(&path).map(|it| it.events)
    };
    let mut thread = Thread::default();
    let (first, oldest) = match options.since {
        None => (0, None),
        Some(Since::Event(id)) => (id, None),
        Some(Since::Ago(past)) => (0, SystemTime::now().checked_sub(past)),
    };
    let mut all = ask(first)?;
    if all.is_empty() {
        is_known(client, options.service.as_deref())?;
    }
    all.retain(|event| oldest.is_none_or(|oldest| is_since(event, oldest)));
    if let (true, Some(since)) = (all.is_empty(), options.since) {
        // With stderr closed there is nobody left to tell.
        let _ = writeln!(io::stderr(), "no events since {since}");
    }
    let mut is_gone = false;
    loop {
        let news = thread.news(all);
        let lines = news.iter().map(|event| match options.json {
            true => json::line(event),
            false => line(event),
        });
        let shown = put(lines.collect::<String>());
        if !options.follow || shown.is_err() {
            return Ok(shown);
        }
        thread::sleep(LOOK_AGAIN);
        all = match ask(thread.from()).and_then(|all| match thread.is_broken(&all) {
            // Another daemon than before, which counts from 1.
            true => ask(0),
            false => Ok(all),
        }) {
            Ok(all) => {
                is_gone = false;
                all
            }
            Err(failure) => {
                if !std::mem::replace(&mut is_gone, true) {
                    say(&format_args!("{failure}\n  waiting for it …"));
                }
                Vec::new()
            }
        };
    }
}

/// That there is such a service, where nothing is told of it: one that has left the file has its past.
fn is_known(client: &Client, service: Option<&str>) -> Result<(), Failure> {
    match service {
        Some(_) => known(&client.get::<View>(VIEW)?, service),
        None => Ok(()),
    }
}

/// How far the events have been read.
#[derive(Debug, Default)]
struct Thread {
    last: Option<Event>,
}

impl Thread {
    /// What to ask for next: from the last one that is known, so that it is seen whether it is still
    /// the same.
    fn from(&self) -> u64 {
        self.last
            .as_ref()
            .map_or(0, |last| last.id.saturating_sub(1))
    }

    /// Whether these are of another daemon.
    fn is_broken(&self, all: &[Event]) -> bool {
        let Some(last) = &self.last else {
            return false;
        };
        match all.first() {
            // Ours was the last there is, and must still be.
            None => true,
            Some(first) => first.id <= last.id && first.at != last.at,
        }
    }

    /// Those that have not been told yet.
    fn news(&mut self, mut all: Vec<Event>) -> Vec<Event> {
        if let Some(last) = &self.last {
            let known = all
                .iter()
                .position(|it| it.id == last.id && it.at == last.at);
            if let Some(known) = known {
                all.drain(..=known);
            }
        }
        if let Some(latest) = all.last() {
            self.last = Some(latest.clone());
        }
        all
    }
}

/// `2026-11-21 12:00:03  warn  web/app-1: is down`
fn line(event: &Event) -> String {
    let time = moment(&event.at);
    format!(
        "{:>5}  {time}  {:<5}  {}\n",
        event.id, event.level, event.text
    )
}

fn table(failovers: &[Failover], under_way: u64) -> String {
    let measured = match under_way {
        0 => String::new(),
        1 => "1 failover is being measured; it is told when it is over.\n".to_owned(),
        some => format!("{some} failovers are being measured; each is told when it is over.\n"),
    };
    match (failovers, under_way) {
        ([], 0) => return "There was no failover since the daemon started.\n".into(),
        ([], _) => return measured,
        _ => {}
    }
    let mut table = failover_table();
    for failover in failovers {
        table.row(failover_row(failover));
    }
    table.text(usize::MAX, false)
        + "\nSince BEGAN, T1: it was known to be down. T2: no new session went there. T3: no session could be\n\
           on its way there any more. MOVED: sessions that another backend took. LOST: that were broken.\n"
        + &measured
}

/// The one layout of failovers: what the log calls detected_ms, moved_ms, total_ms.
pub(super) fn failover_table() -> Table {
    use Column::{Numbers, Words};
    let mut table = Table::new(&[
        Words, Words, Numbers, Numbers, Numbers, Numbers, Numbers, Words,
    ]);
    table.row(["BACKEND", "BEGAN", "T1", "T2", "T3", "MOVED", "LOST", "WHY"].map(Cell::from));
    table
}

pub(super) fn failover_row(failover: &Failover) -> [Cell; 8] {
    [
        format!("{}/{}", failover.service, failover.backend).into(),
        moment(&failover.began).into(),
        tenths(failover.detected_seconds).into(),
        tenths(failover.moved_seconds).into(),
        tenths(failover.recovered_seconds).into(),
        grouped(failover.sessions_moved).into(),
        grouped(failover.sessions_hurt).into(),
        failover.why.clone().into(),
    ]
}

/// A path with those parameters that are there.
pub(super) fn query(path: &str, parameters: &[(&str, Option<&str>)]) -> String {
    let mut out = path.to_owned();
    let given = parameters
        .iter()
        .filter_map(|(key, value)| Some((key, (*value)?)));
    for (index, (key, value)) in given.enumerate() {
        out += if index == 0 { "?" } else { "&" };
        out += &format!("{key}={}", segment(value));
    }
    out
}

fn is_since(event: &Event, oldest: SystemTime) -> bool {
    humantime::parse_rfc3339(&event.at).is_ok_and(|at| at >= oldest)
}

fn since(text: &str) -> Result<Since, &'static str> {
    if let Ok(id) = text.parse() {
        return Ok(Since::Event(id));
    }
    let past = humantime::parse_duration(text).map(Since::Ago);
    past.map_err(|_| "expected the number of an event, such as 120, or a time, such as 15m or 2h")
}

/// More help.
pub(super) const DETAILS: &str = "\
Exit codes:
  0  told     2  a wrong command line     3  the daemon cannot be asked

Examples:
  ballast events --since 1h
  ballast events --follow --service web
  ballast events --json | jq -r 'select(.level == \"warn\").text'";

/// Between two looks at what has happened.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, at: &str) -> Event {
        Event {
            id,
            at: at.into(),
            ..Event::default()
        }
    }

    #[test]
    fn nothing_is_told_twice_and_a_new_daemon_is_noticed() {
        let mut thread = Thread::default();
        let told = |thread: &mut Thread, all: &[Event]| -> Vec<u64> {
            thread.news(all.to_vec()).iter().map(|it| it.id).collect()
        };
        let (first, second) = (event(1, "a"), event(2, "b"));
        assert_eq!(told(&mut thread, &[first.clone(), second.clone()]), [1, 2]);
        assert_eq!(thread.from(), 1);
        assert!(!thread.is_broken(std::slice::from_ref(&second)));
        assert_eq!(told(&mut thread, &[second, event(3, "c")]), [3]);
        // Those between were dropped.
        assert!(!thread.is_broken(&[event(9, "d")]));
        assert_eq!(told(&mut thread, &[event(9, "d")]), [9]);
        assert!(thread.is_broken(&[]) && thread.is_broken(&[event(9, "e")]));
        assert_eq!(told(&mut thread, &[event(1, "f")]), [1]);
    }

    #[test]
    fn a_failover_that_is_being_measured_is_told() {
        assert!(table(&[], 0).starts_with("There was no failover"));
        assert!(table(&[], 1).starts_with("1 failover is being measured"));
        let both = table(&[Failover::default()], 2);
        assert!(
            both.starts_with("BACKEND") && both.contains("\n2 failovers are being measured"),
            "{both}"
        );
    }

    #[test]
    fn since_is_a_number_or_a_time() {
        assert_eq!(since("120"), Ok(Since::Event(120)));
        assert_eq!(since("15m"), Ok(Since::Ago(Duration::from_secs(900))));
        assert!(since("yesterday").is_err());
    }

    #[test]
    fn a_query_has_what_was_given() {
        assert_eq!(
            query(
                "/v1/x",
                &[("a", None), ("b", Some("web")), ("c", Some("1 2"))]
            ),
            "/v1/x?b=web&c=1%202"
        );
        assert_eq!(query("/v1/x", &[("a", None)]), "/v1/x");
    }
}
