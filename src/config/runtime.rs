//! `[runtime]` and `[log]`: what is not about any one service.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use super::admin;
use super::decode::Table;
use super::limits;
use super::problem::{Need, Problem, Problems};
use super::program::absolute;
use super::value::{LONGEST, MOST_CONNECTIONS, SOME_TIME};
use crate::admission::Rate;

/// `[runtime]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Worker threads; `None` is one per core. Needs a restart.
    pub workers: Option<NonZeroU32>,
    /// Sessions at a time over all services; `None` derives it from the descriptor limit.
    pub max_connections: Option<NonZeroU32>,
    /// Clients that are accepted in a time over all services, if there is such a limit.
    pub accept_rate: Option<Rate>,
    /// Which of these two only count.
    pub dry_run: DryRun,
    /// How long a stop waits for running sessions.
    pub drain_timeout: Duration,
    /// The most that all name look-ups of a start or a reload may take together.
    pub resolve_timeout: Duration,
    /// What is done with a reload that would leave a service without a backend up.
    pub reload_guard: ReloadGuard,
    /// Where to keep what is known of backends; `None` leaves it to the environment. Needs a restart.
    pub state_file: Option<PathBuf>,
    /// The oldest state file that is used at a start.
    pub state_max_age: Duration,
    /// Whom a daemon that root has started becomes, by name or number. Needs a restart.
    pub user: Option<String>,
    /// The same for its group; `None` is the group of that user. Needs a restart.
    pub group: Option<String>,
    /// What it may still ask of the kernel once it runs. Needs a restart.
    pub sandbox: Sandbox,
}

/// The limits of `[runtime]` that only count whom they would keep waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DryRun {
    /// Then the descriptor limit alone decides.
    pub max_connections: bool,
    /// As many as come are accepted.
    pub accept_rate: bool,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            workers: None,
            max_connections: None,
            accept_rate: None,
            dry_run: DryRun::default(),
            drain_timeout: Duration::from_secs(30),
            resolve_timeout: Duration::from_secs(5),
            reload_guard: ReloadGuard::Refuse,
            state_file: None,
            state_max_age: Duration::from_secs(24 * 60 * 60),
            user: None,
            group: None,
            sandbox: Sandbox::On,
        }
    }
}

/// `runtime.reload_guard`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadGuard {
    /// It is rejected: it is hardly what was meant, and a rejected reload harms nobody.
    Refuse,
    /// It takes effect, and the log says what is lost.
    Warn,
    /// It takes effect.
    Off,
}

/// `runtime.sandbox`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// What it does not need fails.
    On,
    /// What would fail is only told to the kernel's log.
    Log,
    /// Everything that its user may do.
    Off,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: LogLevel,
    /// How a line looks. Needs a restart.
    pub format: LogFormat,
    /// Which sessions get a line.
    pub sessions: SessionLog,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            sessions: SessionLog::Failed,
        }
    }
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what broke.
    Error,
    /// What deserves an operator's attention.
    Warn,
    /// Transitions, reloads, sessions as `log.sessions` says.
    Info,
    /// Probes that missed, peers that vanished.
    Debug,
    /// Everything.
    Trace,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.sessions`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLog {
    /// Every session.
    All,
    /// Those that did not end with a FIN each way.
    Failed,
    /// None.
    Off,
}

pub(super) fn runtime(table: &Table<'_>, problems: &mut Problems) -> RuntimeConfig {
    let preset = RuntimeConfig::default();
    let dry = limits::dry_rules(table, &["max_connections", "accept_rate"], problems);
    let (user, group) = account(table, problems);
    RuntimeConfig {
        workers: table
            .integer("workers", &(1..=MOST_WORKERS), problems)
            .and_then(NonZeroU32::new),
        max_connections: table
            .integer("max_connections", &(1..=MOST_CONNECTIONS), problems)
            .and_then(NonZeroU32::new),
        accept_rate: table.parsed("accept_rate", problems, |text| {
            limits::rate("accept_rate", text)
        }),
        dry_run: DryRun {
            max_connections: dry.contains(&"max_connections"),
            accept_rate: dry.contains(&"accept_rate"),
        },
        drain_timeout: table
            .duration("drain_timeout", &(Duration::ZERO..=LONGEST), problems)
            .unwrap_or(preset.drain_timeout),
        resolve_timeout: table
            .duration("resolve_timeout", &SOME_TIME, problems)
            .unwrap_or(preset.resolve_timeout),
        reload_guard: table
            .choice("reload_guard", GUARDS, problems)
            .unwrap_or(preset.reload_guard),
        state_file: state_file(table, problems),
        state_max_age: table
            .duration("state_max_age", &SOME_TIME, problems)
            .unwrap_or(preset.state_max_age),
        user,
        group,
        sandbox: table
            .choice("sandbox", SANDBOXES, problems)
            .unwrap_or(preset.sandbox),
    }
}

/// `user` and `group`
fn account(table: &Table<'_>, problems: &mut Problems) -> (Option<String>, Option<String>) {
    let user = table.parsed("user", problems, |text| admin::account("user", text));
    let group = group(table, problems);
    if let (Some(name), Some(span)) = (&user, table.span_of("user")) {
        let (user, group) = (name.clone(), group.clone());
        problems.need(Need::Account { user, group }, span);
    }
    (user, group)
}

fn group(table: &Table<'_>, problems: &mut Problems) -> Option<String> {
    let group = table.parsed("group", problems, |text| admin::account("group", text))?;
    if let (true, Some(span)) = (table.lacks("user"), table.span_of("group")) {
        problems.add(
            Problem::error("`group` without a `user`")
                .at(span)
                .label("the daemon would stay whoever has started it")
                .help("write `user` too, or leave both out"),
        );
    }
    Some(group)
}

fn state_file(table: &Table<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let file = table.parsed("state_file", problems, |text| absolute("state_file", text))?;
    if let (Some(directory), Some(span)) = (file.parent(), table.span_of("state_file")) {
        problems.need(Need::Directory(directory.into()), span.clone());
        problems.need(Need::Later(file.clone()), span);
    }
    Some(file)
}

pub(super) fn log(table: &Table<'_>, problems: &mut Problems) -> LogConfig {
    let preset = LogConfig::default();
    LogConfig {
        level: table
            .choice("level", LEVELS, problems)
            .unwrap_or(preset.level),
        format: table
            .choice("format", FORMATS, problems)
            .unwrap_or(preset.format),
        sessions: table
            .choice("sessions", SESSIONS, problems)
            .unwrap_or(preset.sessions),
    }
}

const MOST_WORKERS: u32 = 1024;
const GUARDS: &[(&str, ReloadGuard)] = &[
    ("refuse", ReloadGuard::Refuse),
    ("warn", ReloadGuard::Warn),
    ("off", ReloadGuard::Off),
];
const SANDBOXES: &[(&str, Sandbox)] = &[
    ("on", Sandbox::On),
    ("log", Sandbox::Log),
    ("off", Sandbox::Off),
];
const LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
const SESSIONS: &[(&str, SessionLog)] = &[
    ("all", SessionLog::All),
    ("failed", SessionLog::Failed),
    ("off", SessionLog::Off),
];
