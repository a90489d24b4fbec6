//! How a line looks: text for people. JSON is `tracing-subscriber`'s own; here is only what both
//! share, the timestamp and the journal's priority.
//!
//! Whatever comes from outside (names in the configuration, addresses, messages of the operating
//! system) is escaped, so that it can neither drive the terminal nor forge a second line.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::Destination;

/// `2026-01-02T03:04:05.678Z  WARN backend down service=web cause="timed out"`
///
/// Spans are not shown: an event of Ballast carries all of its fields itself.
#[derive(Debug)]
pub(super) struct Text {
    colour: bool,
    stamped: bool,
}

impl Text {
    pub(super) fn new(destination: Destination) -> Self {
        Self {
            colour: destination == Destination::Terminal,
            stamped: destination != Destination::Journal,
        }
    }
}

impl<S, N> FormatEvent<S, N> for Text
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = event.metadata().level();
        let (dim, tint, plain) = if self.colour {
            ("\x1b[2m", tint(level), "\x1b[0m")
        } else {
            ("", "", "")
        };
        if self.stamped {
            write!(writer, "{dim}{}{plain} ", now())?;
            write!(writer, "{tint}{level:>5}{plain} ")?;
        }
        // The message comes first, wherever the call site has put it.
        let mut message = Message(String::new());
        event.record(&mut message);
        writer.write_str(&message.0)?;
        let mut fields = Fields {
            writer,
            dim,
            plain,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        fields.writer.write_char('\n')
    }
}

/// Puts the syslog priority in front of a line, as sd-daemon(3) describes it, so that
/// `journalctl -p warning` works.
#[derive(Debug)]
pub(super) struct Prioritised<F> {
    on: bool,
    inner: F,
}

impl<F> Prioritised<F> {
    pub(super) fn new(on: bool, inner: F) -> Self {
        Self { on, inner }
    }
}

impl<S, N, F> FormatEvent<S, N> for Prioritised<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if self.on {
            writer.write_str(priority(*event.metadata().level()))?;
        }
        self.inner.format_event(context, writer, event)
    }
}

/// The syslog priority of a level.
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// UTC in RFC 3339 with milliseconds, for the JSON lines.
#[derive(Debug)]
pub(super) struct Milliseconds;

impl FormatTime for Milliseconds {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        write!(writer, "{}", now())
    }
}

fn now() -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(SystemTime::now())
}

fn tint(level: &Level) -> &'static str {
    match *level {
        Level::ERROR => "\x1b[1;31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// The field that `tracing` keeps the text of an event in.
const MESSAGE: &str = "message";

/// Collects the message.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            // Writing to a string fails only if `value` does; what it wrote by then is shown.
            let _ = write!(Escaping(&mut self.0), "{value:?}");
        }
    }
}

/// Writes ` name=value` for every other field.
struct Fields<'a> {
    writer: Writer<'a>,
    dim: &'static str,
    plain: &'static str,
    result: fmt::Result,
}

impl Fields<'_> {
    fn write(&mut self, name: &str, value: &str) -> fmt::Result {
        let Self { dim, plain, .. } = *self;
        write!(self.writer, " {dim}{name}={plain}")?;
        // Quoted where a reader, or a program that splits at spaces, would lose the end of the value.
        let quoted = value.is_empty() || value.contains([' ', '"', '=']);
        if quoted {
            self.writer.write_char('"')?;
        }
        let mut escaping = Escaping(&mut self.writer);
        for character in value.chars() {
            if quoted && character == '"' {
                escaping.0.write_str("\\\"")?;
            } else {
                escaping.write_char(character)?;
            }
        }
        if quoted {
            self.writer.write_char('"')?;
        }
        Ok(())
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != MESSAGE && self.result.is_ok() {
            self.result = self.write(field.name(), &format!("{value:?}"));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE && self.result.is_ok() {
            self.result = self.write(field.name(), value);
        }
    }
}

/// Writes control characters, and those that reorder the text around them, as Rust escapes.
struct Escaping<'a, W>(&'a mut W);

impl<W: fmt::Write> fmt::Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.chars().try_for_each(|c| self.write_char(c))
    }

    fn write_char(&mut self, character: char) -> fmt::Result {
        let reorders = matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if character.is_control() || reorders {
            write!(self.0, "{}", character.escape_default())
        } else {
            self.0.write_char(character)
        }
    }
}
