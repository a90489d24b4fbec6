//! `[[alert]]`: who is told of what, where to, and how often at most; read key by
//! key.

mod webhook;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

pub use self::webhook::Webhook;
use super::decode::Table;
use super::problem::{Problem, Problems, shown};
use super::program::program;
use super::source::{Source, Span};
use super::unknown::{nearest, unknown_word};
use super::value::{self, LONGEST, SOME_TIME};
use crate::health::Program;

/// One `[[alert]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertConfig {
    /// Unique among the alerts.
    pub name: Arc<str>,
    /// What it tells of, at least one.
    pub on: Vec<Occasion>,
    /// The services it is about; empty is all.
    pub services: Vec<Arc<str>>,
    /// A service with a smaller share of its backends up is degraded; in percent.
    pub degraded_below: u8,
    /// When a backend counts as flapping.
    pub flapping: Flapping,
    /// Where to.
    pub target: AlertTarget,
    /// How often.
    pub pace: Pace,
    /// How hard it is tried.
    pub effort: Effort,
}

impl AlertConfig {
    /// Whether it tells of this.
    pub fn tells_of(&self, occasion: Occasion) -> bool {
        self.on.contains(&occasion)
    }

    /// Whether it is about this service.
    pub fn is_about(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|name| **name == *service)
    }
}

/// What an alert may tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Occasion {
    /// A service has no backend that may serve.
    AllDown,
    /// Fewer backends of a service are up than `degraded_below` says.
    Degraded,
    /// A backend went down.
    BackendDown,
    /// Backends of a later priority stand in for those before them.
    Standby,
    /// A backend went up and down too often.
    Flapping,
    /// A reload was rejected.
    ReloadFailed,
    /// A failover is over; with its timeline.
    Failover,
    /// A backend answers its probes slower than it used to.
    Suspect,
    /// A backend that was down is back.
    BackendUp,
}

impl Occasion {
    /// Every one, the gravest first.
    pub const ALL: [Self; 9] = [
        Self::AllDown,
        Self::Degraded,
        Self::BackendDown,
        Self::Standby,
        Self::Flapping,
        Self::ReloadFailed,
        Self::Failover,
        Self::Suspect,
        Self::BackendUp,
    ];

    /// As it is written in a file and in a message.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllDown => "all-down",
            Self::Degraded => "degraded",
            Self::BackendDown => "backend-down",
            Self::Standby => "standby",
            Self::Flapping => "flapping",
            Self::ReloadFailed => "reload-failed",
            Self::Failover => "failover",
            Self::Suspect => "suspect",
            Self::BackendUp => "backend-up",
        }
    }
}

/// When a backend counts as flapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flapping {
    /// So many transitions …
    pub transitions: u32,
    /// … within this time.
    pub window: Duration,
}

/// Where an alert goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AlertTarget {
    /// An HTTP POST.
    Webhook(Box<Webhook>),
    /// A program that is run.
    Exec(Program),
}

impl fmt::Display for AlertTarget {
    /// The program, or the host without the path, which may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Webhook(webhook) => webhook.authority.fmt(f),
            Self::Exec(program) => f.write_str(&program.path),
        }
    }
}

/// How often an alert is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long the first event waits for others, to be told together.
    pub group_wait: Duration,
    /// Between two alerts.
    pub min_interval: Duration,
    /// Alerts within any minute.
    pub max_per_minute: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            group_wait: Duration::from_secs(3),
            min_interval: Duration::ZERO,
            max_per_minute: 10,
        }
    }
}

/// How hard it is tried to deliver an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// For one attempt.
    pub timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// Before the first retry; doubled before each further one.
    pub backoff: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(5),
            retries: 3,
            backoff: Duration::from_secs(1),
        }
    }
}

/// Every `[[alert]]`; `services` are the names there are, if all of them could be read.
pub(super) fn read(
    tables: &[Table<'_>],
    services: Option<&HashSet<&str>>,
    source: &Source<'_>,
    problems: &mut Problems,
) -> Option<Vec<AlertConfig>> {
    let mut first: HashMap<Arc<str>, Span> = HashMap::new();
    let mut alerts = Vec::new();
    for table in tables {
        let alert = alert(table, services, problems);
        if let (Some(name), Some(span)) =
            (name(table, &mut Problems::default()), table.span_of("name"))
        {
            if let Some(other) = first.get(&name) {
                let line = source.line_of(other.start) + 1;
                problems.add(
                    Problem::error(format!("two alerts are named `{}`", shown(&name)))
                        .at(span)
                        .label("a name is unique among the alerts")
                        .note(format!("first used on line {line}")),
                );
            } else {
                first.insert(name, span);
            }
        }
        alerts.push(alert);
    }
    if let Some(table) = tables.get(MOST_ALERTS) {
        let problem = Problem::error(format!("there are {} alerts", tables.len()));
        let label = format!("allowed: at most {MOST_ALERTS}");
        problems.add(problem.under(table.span()).label(label));
    }
    alerts.into_iter().collect()
}

fn alert(
    table: &Table<'_>,
    services: Option<&HashSet<&str>>,
    problems: &mut Problems,
) -> Option<AlertConfig> {
    let name = name(table, problems);
    if table.lacks("name") {
        problems.add(
            table
                .missing("this alert has no name")
                .help("write name = \"ops\""),
        );
    }
    let on = on(table, problems);
    let services = about(table, services, problems);
    let degraded_below = table.parsed("degraded_below", problems, |text| {
        value::percent("degraded_below", text, &(1..=100))
    });
    let flapping = Flapping {
        transitions: table
            .integer("flapping", &(2..=1000), problems)
            .unwrap_or(DEFAULT_FLAPPING),
        window: table
            .duration("flapping_window", &SOME_TIME, problems)
            .unwrap_or(DEFAULT_FLAPPING_WINDOW),
    };
    for (key, occasion) in [
        ("degraded_below", Occasion::Degraded),
        ("flapping", Occasion::Flapping),
        ("flapping_window", Occasion::Flapping),
    ] {
        if let (Some(on), Some(span)) = (&on, table.span_of(key))
            && !on.contains(&occasion)
        {
            problems.add(
                Problem::warning(format!("`{key}` has no effect here"))
                    .at(span)
                    .label(format!("`on` does not have \"{}\"", occasion.name())),
            );
        }
    }
    let pace = pace(table, problems);
    let effort = effort(table, problems);
    let target = target(table, problems);
    Some(AlertConfig {
        name: name?,
        on: on?,
        services: services?,
        degraded_below: degraded_below.unwrap_or(DEFAULT_DEGRADED_BELOW),
        flapping,
        target: target?,
        pace,
        effort,
    })
}

fn name(table: &Table<'_>, problems: &mut Problems) -> Option<Arc<str>> {
    table.parsed("name", problems, value::name).map(Arc::from)
}

fn on(table: &Table<'_>, problems: &mut Problems) -> Option<Vec<Occasion>> {
    let words = Occasion::ALL.map(Occasion::name);
    if table.lacks("on") {
        let list: Vec<String> = words.map(|word| format!("\"{word}\"")).into();
        problems.add(
            table
                .missing("this alert has no `on`, so it would tell nothing")
                .label(format!("allowed: {}", list.join(", ")))
                .help("write on = [\"backend-down\", \"backend-up\"]"),
        );
    }
    let mut on = Vec::new();
    let written = table.texts("on", problems)?;
    let is_empty = written.is_empty();
    for (word, span) in written {
        match Occasion::ALL.into_iter().find(|it| it.name() == word) {
            Some(occasion) if on.contains(&occasion) => {}
            Some(occasion) => on.push(occasion),
            None => problems.add(unknown_word("event", word, words.into_iter()).at(span)),
        }
    }
    if is_empty && let Some(span) = table.span_of("on") {
        problems.add(
            Problem::error("`on` names nothing")
                .at(span)
                .label("at least one is needed"),
        );
    }
    Some(on)
}

/// The services that an alert is about. Nothing written is all of them.
fn about(
    table: &Table<'_>,
    known: Option<&HashSet<&str>>,
    problems: &mut Problems,
) -> Option<Vec<Arc<str>>> {
    if table.get("services").is_none() {
        return Some(Vec::new());
    }
    let mut services = Vec::new();
    for (name, span) in table.texts("services", problems)? {
        if let Some(known) = known.filter(|known| !known.contains(name)) {
            let problem = Problem::error(format!("no service is named `{}`", shown(name)))
                .at(span)
                .label("allowed: names of services in this file");
            problems.add(match nearest(name, known.iter().copied()) {
                Some(near) => problem.help(format!("did you mean \"{near}\"?")),
                None => problem,
            });
        }
        services.push(Arc::from(name));
    }
    if services.is_empty()
        && let Some(span) = table.span_of("services")
    {
        problems.add(
            Problem::error("`services` names nothing")
                .at(span)
                .label("at least one is needed")
                .help("leave it out, and the alert is about every service"),
        );
    }
    Some(services)
}

fn pace(table: &Table<'_>, problems: &mut Problems) -> Pace {
    let preset = Pace::default();
    Pace {
        group_wait: table
            .duration("group_wait", &(Duration::ZERO..=LONGEST_WAIT), problems)
            .unwrap_or(preset.group_wait),
        min_interval: table
            .duration("min_interval", &(Duration::ZERO..=LONGEST), problems)
            .unwrap_or(preset.min_interval),
        max_per_minute: table
            .integer("max_per_minute", &(1..=MOST_PER_MINUTE), problems)
            .unwrap_or(preset.max_per_minute),
    }
}

fn effort(table: &Table<'_>, problems: &mut Problems) -> Effort {
    let preset = Effort::default();
    Effort {
        timeout: table
            .duration("timeout", &SOME_PATIENCE, problems)
            .unwrap_or(preset.timeout),
        retries: table
            .integer("retries", &(0..=10), problems)
            .unwrap_or(preset.retries),
        backoff: table
            .duration("backoff", &SOME_PATIENCE, problems)
            .unwrap_or(preset.backoff),
    }
}

fn target(table: &Table<'_>, problems: &mut Problems) -> Option<AlertTarget> {
    let webhook = webhook::read(table, problems);
    let exec = program(table, "exec", problems);
    match (table.span_of("webhook"), table.span_of("exec")) {
        (None, None) => {
            if table.lacks("webhook") && table.lacks("exec") {
                problems.add(
                    table
                        .missing("this alert has no target")
                        .help("write webhook = \"https://…\", or exec = \"/path/of/a/program\""),
                );
            }
            None
        }
        (Some(_), Some(span)) => {
            problems.add(
                Problem::error("an alert has one target, and this one has two")
                    .at(span)
                    .label("there is a `webhook` too")
                    .help("write an [[alert]] for each"),
            );
            None
        }
        (None, Some(_)) => {
            for key in ["headers", "token_file"] {
                if let Some(span) = table.span_of(key) {
                    problems.add(
                        Problem::warning(format!("`{key}` has no effect on a program"))
                            .at(span)
                            .label("only a `webhook` sends it"),
                    );
                }
            }
            exec.map(AlertTarget::Exec)
        }
        (Some(_), None) => webhook.map(|it| AlertTarget::Webhook(Box::new(it))),
    }
}

const DEFAULT_DEGRADED_BELOW: u8 = 50;
const DEFAULT_FLAPPING: u32 = 6;
const DEFAULT_FLAPPING_WINDOW: Duration = Duration::from_secs(5 * 60);
/// Each costs a look at every event.
const MOST_ALERTS: usize = 64;
const MOST_PER_MINUTE: u32 = 600;
/// Somebody waits for the alert.
const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);
/// Of an attempt, and of a pause between two.
const SOME_PATIENCE: RangeInclusive<Duration> = value::SHORTEST..=Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, compile};

    const BASE: &str = "[[service]]\nname = \"web\"\nlisten = \"[::]:80\"\n\
                        [[service.backend]]\naddress = \"b:1\"\n";

    fn file(alert: &str) -> String {
        format!("{BASE}[[alert]]\nname = \"ops\"\non = [\"backend-down\"]\n{alert}\n")
    }

    fn good(alert: &str) -> Config {
        let loaded = compile(&file(alert), "f").unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        loaded.config
    }

    fn webhook(alert: &str) -> Webhook {
        match good(alert).alerts.remove(0).target {
            AlertTarget::Webhook(webhook) => *webhook,
            AlertTarget::Exec(exec) => panic!("{exec:?}"),
        }
    }

    #[track_caller]
    fn says(text: &str, fault: &str) {
        let said = match compile(text, "f") {
            Ok(loaded) => loaded.warnings.lines().join("\n"),
            Err(rejected) => rejected.lines().join("\n"),
        };
        assert!(said.contains(fault), "{fault}\nnot in:\n{said}");
    }

    #[test]
    fn an_alert_has_a_default_for_everything_but_its_name_its_occasions_and_its_target() {
        let config = good("webhook = \"https://hooks.example.org/a?b=c\"");
        let alert = &config.alerts[0];
        assert_eq!(alert.on, [Occasion::BackendDown]);
        assert!(alert.is_about("web") && alert.is_about("any"));
        assert_eq!(alert.degraded_below, 50);
        assert_eq!(
            (alert.pace, alert.effort),
            (Pace::default(), Effort::default())
        );
        for (without, fault) in [
            ("", "this alert has no name"),
            ("name = \"a\"", "this alert has no `on`"),
            ("name = \"a\"\non = \"suspect\"", "this alert has no target"),
            ("name = \"a\"\non = []", "`on` names nothing"),
        ] {
            says(&format!("{BASE}[[alert]]\n{without}\n"), fault);
        }
    }

    #[test]
    fn a_url_says_how_to_reach_it() {
        let read = webhook("webhook = \"https://hooks.example.org/a?b=c\"");
        assert_eq!(
            (read.tls, read.host(), read.port(), &*read.path),
            (true, "hooks.example.org", 443, "/a?b=c")
        );
        let read = webhook("webhook = \"http://[::1]:9093\"");
        assert_eq!(
            (read.tls, read.host(), read.port(), &*read.path),
            (false, "::1", 9093, "/")
        );
    }

    #[test]
    fn a_url_that_cannot_be_reached_is_refused_without_showing_its_secret() {
        for (url, why) in [
            ("hooks.example.org/SECRET", "has no scheme"),
            ("ftp://a/SECRET", "neither http nor https"),
            ("https:///SECRET", "not a URL"),
            ("http://u:SECRET@a/", "has a user or a password"),
            ("http://a b/SECRET", "not a URL"),
            ("http://a:99999/SECRET", ""),
            ("http://a:0/SECRET", "impossible port"),
            ("", "not a URL"),
        ] {
            let text = file(&format!("webhook = \"{url}\""));
            let rejected = compile(&text, "f").expect_err(url);
            let lines = rejected.lines().join("\n");
            assert!(lines.contains(why), "{url}: {lines}");
            assert!(!lines.contains("SECRET"), "{lines}");
        }
    }

    #[test]
    fn headers_and_a_token_are_read_and_never_shown() {
        let read = webhook(
            "webhook = \"http://127.0.0.1/\"\nheaders = { X-Key = \"hush\" }\ntoken_file = \"/etc/t\"",
        );
        assert_eq!(read.headers[0].0, "x-key");
        assert_eq!(read.headers[0].1, "hush");
        assert!(!format!("{read:?}").contains("hush"));
        let hook = "webhook = \"http://127.0.0.1/\"\n";
        for (line, fault) in [
            ("headers = { Host = \"a\" }", "not yours to set"),
            ("headers = { \"a b\" = \"a\" }", "not the name of a header"),
            ("headers = { a = 1 }", "`a` is the integer 1"),
            ("headers = { a = \"\\n\" }", "cannot be sent"),
            ("headers = [\"a\"]", "`headers` is an array, not a table"),
            ("token_file = \"t\"", "no absolute path"),
            (
                "headers = { Authorization = \"a\" }\ntoken_file = \"/t\"",
                "one too many",
            ),
        ] {
            says(&file(&format!("{hook}{line}")), fault);
        }
        says(
            &file("webhook = \"http://10.0.0.1/\"\ntoken_file = \"/t\""),
            "clear text",
        );
    }

    #[test]
    fn a_program_is_an_absolute_path_with_arguments() {
        let read = |text| match good(text).alerts.remove(0).target {
            AlertTarget::Exec(exec) => (exec.path, exec.args.len()),
            AlertTarget::Webhook(webhook) => panic!("{webhook:?}"),
        };
        assert_eq!(read("exec = \"/bin/a\""), ("/bin/a".to_owned(), 0));
        assert_eq!(
            read("exec = [\"/bin/a\", \"b\", \"c\"]"),
            ("/bin/a".to_owned(), 2)
        );
        says(&file("exec = \"a\""), "no absolute path");
        says(&file("exec = []"), "names no program");
        says(&file("exec = [\"/a\", \"\\u0000\"]"), "contains a NUL");
        says(
            &file("exec = \"/a\"\nwebhook = \"http://a/\""),
            "one target",
        );
        says(
            &file("exec = \"/a\"\ntoken_file = \"/t\""),
            "no effect on a program",
        );
    }

    #[test]
    fn what_an_alert_is_about_must_exist() {
        let hook = "webhook = \"http://a/\"\n";
        says(
            &file(&format!("{hook}services = [\"wev\"]")),
            "did you mean \"web\"?",
        );
        says(&file(&format!("{hook}services = []")), "names nothing");
        let alerts = good(&format!("{hook}services = \"web\"")).alerts;
        assert!(alerts[0].is_about("web") && !alerts[0].is_about("db"));
        says(
            &file(hook).replace("backend-down", "backend-dwn"),
            "did you mean \"backend-down\"?",
        );
    }

    #[test]
    fn thresholds_without_their_occasion_are_warned_of() {
        let hook = "webhook = \"http://a/\"\n";
        for line in [
            "degraded_below = \"30%\"",
            "flapping = 3",
            "flapping_window = \"1m\"",
        ] {
            says(&file(&format!("{hook}{line}")), "has no effect here");
        }
        says(
            &file(&format!("{hook}degraded_below = \"0%\"")),
            "allowed: \"1%\" to \"100%\"",
        );
        says(
            &file(&format!("{hook}degraded_below = \"half\"")),
            "allowed: \"1%\" to \"100%\"",
        );
        says(
            &file(&format!("{hook}degraded_below = 30")),
            "`degraded_below` is the integer 30",
        );
    }

    #[test]
    fn two_alerts_of_one_name_are_a_problem() {
        let one = "[[alert]]\nname = \"a\"\non = \"suspect\"\nexec = \"/a\"\n";
        says(&format!("{BASE}{one}{one}"), "two alerts are named `a`");
        let many: String = (0..65)
            .map(|n| one.replace("\"a\"", &format!("\"a{n}\"")))
            .collect();
        says(&format!("{BASE}{many}"), "there are 65 alerts");
    }
}
