//! Log lines: from `tracing` events to stderr, without ever making a worker wait.
//!
//! An event is formatted on the thread that raised it, put into a bounded queue, and written by a
//! thread of its own (`lines`). A terminal or a pipe that stalls costs lines, never bytes of a
//! session; what it cost is counted and told. How a line looks is [`format`]'s business. This
//! module must not know what the lines are about.

mod format;
mod panic;

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::lines::LineQueue;
use crate::config::{LogFormat, LogLevel};
use format::{Milliseconds, Prioritised, Text};

pub use panic::install_panic_hook;

/// Directs every event of the process to stderr, as `format` says, from `level` upwards.
///
/// Only the first call of a process takes effect; whoever calls again gets a handle that changes
/// nothing. Keep the handle until the end: its drop writes out what is still queued.
pub fn init(format: LogFormat, level: LogLevel) -> Logging {
    let queue = LineQueue::start(io::stderr());
    let (filter, handle) = reload::Layer::new(filter(level));
    let subscriber = Registry::default().with(filter).with(lines(
        format,
        Destination::of_stderr(),
        queue.clone(),
    ));
    // The first subscriber of a process stays; only tests ever come here twice.
    let _ = tracing::subscriber::set_global_default(subscriber);
    Logging::new(queue, handle)
}

/// `text`, which is to be written straight to stderr, as whoever stands at its other end wants it:
/// the journal gets the priority of `level` in front of every line, which may be several, and no
/// empty ones. For what is said before the log is up, or without one.
pub fn addressed(text: &str, level: Level) -> String {
    match Destination::of_stderr() {
        Destination::Journal => prioritised(text, level),
        Destination::Terminal | Destination::Plain => text.to_owned(),
    }
}

/// Whether stderr is a person's who likes colours.
pub fn is_colourful() -> bool {
    Destination::of_stderr() == Destination::Terminal
}

fn prioritised(text: &str, level: Level) -> String {
    let lines = text.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| format!("{}{line}\n", format::priority(level)))
        .collect()
}

/// The handle of the process's log; clones share one log, and the last one to go flushes it.
#[derive(Clone, Debug)]
pub struct Logging(Arc<Log>);

#[derive(Debug)]
struct Log {
    queue: LineQueue,
    level: reload::Handle<Targets, Registry>,
    reported: AtomicU64,
}

impl Logging {
    fn new(queue: LineQueue, level: reload::Handle<Targets, Registry>) -> Self {
        Self(Arc::new(Log {
            queue,
            level,
            reported: AtomicU64::new(0),
        }))
    }

    /// Changes the least important level that is written, at once and for every thread.
    pub fn set_level(&self, level: LogLevel) {
        if let Err(error) = self.0.level.reload(filter(level)) {
            warn!(%error, "log level not changed");
        }
    }

    /// Lines lost since the start: the queue was full, or stderr refused them.
    pub fn dropped(&self) -> u64 {
        self.0.queue.lost()
    }

    /// Logs how many lines were lost since the last call, if any were. Called each second by the
    /// control thread.
    pub fn report_dropped(&self) {
        let total = self.dropped();
        let count = total - self.0.reported.swap(total, Ordering::Relaxed).min(total);
        if count > 0 {
            warn!(count, total, "log lines dropped");
        }
    }

    /// Waits until everything logged so far is written, but no longer than a second: for the
    /// moment before an abort.
    pub fn flush(&self) {
        self.0.queue.flush(FLUSH_TIMEOUT);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.flush(FLUSH_TIMEOUT);
    }
}

/// The longest that an exit waits for a stalled terminal.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// What stands at the other end of stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// A person, who likes colours.
    Terminal,
    /// The systemd journal, which stamps lines itself and reads a priority from their start.
    Journal,
    /// A file or a pipe.
    Plain,
}

impl Destination {
    fn of_stderr() -> Self {
        let stderr = io::stderr();
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if stderr.is_terminal() {
            return if no_color {
                Self::Plain
            } else {
                Self::Terminal
            };
        }
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let copy = stderr.as_fd().try_clone_to_owned().map(File::from);
        if copy.is_ok_and(|copy| is_journal(&stream, &copy)) {
            Self::Journal
        } else {
            Self::Plain
        }
    }
}

/// Whether `file` is the stream that `JOURNAL_STREAM` names as `device:inode`; systemd.exec(5) asks
/// for this comparison, because the variable outlives a redirection.
fn is_journal(stream: &str, file: &File) -> bool {
    let Ok(metadata) = file.metadata() else {
        return false;
    };
    stream == format!("{}:{}", metadata.dev(), metadata.ino())
}

/// The layer that turns events into lines.
fn lines<S>(
    format: LogFormat,
    destination: Destination,
    queue: LineQueue,
) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let journal = destination == Destination::Journal;
    // Without `log_internal_errors(false)` a failure to format would be printed to stderr directly,
    // where it could block or panic.
    let layer = tracing_subscriber::fmt::layer()
        .log_internal_errors(false)
        .with_writer(queue);
    match format {
        LogFormat::Text => layer
            .event_format(Prioritised::new(journal, Text::new(destination)))
            .boxed(),
        LogFormat::Json => {
            let json = tracing_subscriber::fmt::format()
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .with_target(false)
                .with_timer(Milliseconds);
            layer
                .fmt_fields(JsonFields::new())
                .event_format(Prioritised::new(journal, json))
                .boxed()
        }
    }
}

/// What Ballast itself says. A library's words are not ours to explain: only its errors are let through.
fn filter(level: LogLevel) -> Targets {
    let level = match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(LevelFilter::ERROR)
        .with_target(env!("CARGO_PKG_NAME"), level)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use tracing::{debug, info};

    /// A sink that keeps what it is given.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What `events` writes under a log of that format.
    fn written(format: LogFormat, destination: Destination, events: impl FnOnce()) -> String {
        let kept = Kept::default();
        let queue = LineQueue::start(kept.clone());
        let subscriber = Registry::default().with(lines(format, destination, queue.clone()));
        tracing::subscriber::with_default(subscriber, events);
        queue.flush(FLUSH_TIMEOUT);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    /// A text line behind its timestamp, whose shape is checked.
    fn behind_timestamp(line: &str) -> &str {
        let (stamp, rest) = line.split_at("2026-01-02T03:04:05.678Z".len());
        let time = humantime::parse_rfc3339(stamp).unwrap();
        assert_eq!(humantime::format_rfc3339_millis(time).to_string(), stamp);
        rest
    }

    #[test]
    fn a_text_line_is_time_level_message_and_fields() {
        let line = written(LogFormat::Text, Destination::Plain, || {
            warn!(service = "web", cause = %"timed out", eligible = 2, "backend down");
        });
        assert_eq!(
            behind_timestamp(&line),
            "  WARN backend down service=web cause=\"timed out\" eligible=2\n"
        );
    }

    #[test]
    fn control_characters_of_a_value_never_reach_the_terminal() {
        let evil = "\x1b[2J\r\nFORGED\u{9b}31m\u{202e}\x7f";
        let line = written(LogFormat::Text, Destination::Plain, || {
            info!(shown = %evil, debugged = ?evil, plain = evil, "{evil}");
        });
        assert_eq!(line.lines().count(), 1);
        assert!(
            line.trim_end()
                .chars()
                .all(|c| !c.is_control() && c != '\u{202e}'),
            "{line:?}"
        );
        assert!(line.contains("FORGED"), "{line:?}");
    }

    #[test]
    fn only_a_terminal_gets_colours() {
        let event = || info!(service = "web", "ready");
        assert!(written(LogFormat::Text, Destination::Terminal, event).contains("\x1b["));
        assert!(!written(LogFormat::Text, Destination::Plain, event).contains('\x1b'));
        assert!(!written(LogFormat::Text, Destination::Journal, event).contains('\x1b'));
    }

    #[test]
    fn the_journal_gets_a_priority_and_no_second_timestamp() {
        let lines = written(LogFormat::Text, Destination::Journal, || {
            warn!("watch out");
            info!("fine");
            debug!("details");
        });
        assert_eq!(lines, "<4>watch out\n<6>fine\n<7>details\n");
        let line = written(LogFormat::Json, Destination::Journal, || warn!("watch out"));
        assert!(line.starts_with("<4>{"), "{line}");
    }

    #[test]
    fn what_is_said_without_a_log_has_a_priority_on_every_line() {
        let text = "error: no such file\n --> f\n\nf: 1 error\n";
        assert_eq!(
            prioritised(text, Level::ERROR),
            "<3>error: no such file\n<3> --> f\n<3>f: 1 error\n"
        );
        assert_eq!(prioritised("", Level::WARN), "");
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let line = written(LogFormat::Json, Destination::Plain, || {
            info!(service = "a\nb", eligible = 2, "backend \"up\"");
        });
        assert_eq!(line.lines().count(), 1);
        let (stamp, rest) = line
            .strip_prefix("{\"timestamp\":\"")
            .unwrap()
            .split_once('"')
            .unwrap();
        assert_eq!(behind_timestamp(stamp), "");
        assert_eq!(
            rest,
            ",\"level\":\"INFO\",\"message\":\"backend \\\"up\\\"\",\"service\":\"a\\nb\",\"eligible\":2}\n"
        );
    }

    #[test]
    fn the_level_changes_while_running_and_lost_lines_are_told_once() {
        let kept = Kept::default();
        let queue = LineQueue::start(kept.clone());
        let (layer, level) = reload::Layer::new(filter(LogLevel::Warn));
        let subscriber = Registry::default().with(layer).with(lines(
            LogFormat::Text,
            Destination::Journal,
            queue.clone(),
        ));
        let logging = Logging::new(queue.clone(), level);
        tracing::subscriber::with_default(subscriber, || {
            info!("one");
            logging.set_level(LogLevel::Info);
            info!("two");
            logging.set_level(LogLevel::Error);
            warn!("three");
            logging.set_level(LogLevel::Info);
            logging.report_dropped();
            queue.lose(3);
            logging.report_dropped();
            logging.report_dropped();
        });
        logging.flush();
        assert_eq!(
            String::from_utf8(kept.0.lock().unwrap().clone()).unwrap(),
            "<6>two\n<4>log lines dropped count=3 total=3\n"
        );
    }

    #[test]
    fn only_the_stream_that_the_variable_names_is_the_journal() {
        let file = File::open("/dev/null").unwrap();
        let metadata = file.metadata().unwrap();
        let named = format!("{}:{}", metadata.dev(), metadata.ino());
        assert!(is_journal(&named, &file));
        assert!(!is_journal("1:1", &file));
        assert!(!is_journal("", &file));
    }
}
