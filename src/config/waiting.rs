//! What a service says of sessions that wait for a backend with room, that outlive their backend, and
//! that have lived long enough.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::decode::Table;
use super::keys;
use super::problem::{Problem, Problems};
use super::value::{LONGEST, SOME_TIME};

/// `[service.queue]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The most clients that wait while every backend is full.
    pub size: u32,
    /// The longest that one of them waits.
    pub timeout: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            size: 1024,
            timeout: Duration::from_secs(10),
        }
    }
}

/// What becomes of the sessions of a backend that went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// They live for as long as they can.
    Keep,
    /// They are reset.
    Close {
        /// So many a second, over all such backends of the service.
        rate: u32,
    },
}

/// `[service.queue]`; `capped` tells whether a backend of the service has a `max_connections`.
pub(super) fn queue(service: &Table<'_>, capped: bool, problems: &mut Problems) -> QueueConfig {
    let table = service.table("queue", &keys::QUEUE, problems);
    let preset = QueueConfig::default();
    if !capped && let Some(span) = table.span() {
        problems.add(
            Problem::warning("`[service.queue]` has no effect here")
                .at(span)
                .label("no backend of this service has a `max_connections`, so none is ever full"),
        );
    }
    QueueConfig {
        size: table
            .integer("size", &(0..=MOST_WAITING), problems)
            .unwrap_or(preset.size),
        timeout: table
            .duration("timeout", &SOME_TIME, problems)
            .unwrap_or(preset.timeout),
    }
}

/// `on_down` and `close_rate`
pub(super) fn on_down(service: &Table<'_>, problems: &mut Problems) -> OnDown {
    let close = service
        .choice("on_down", ON_DOWN, problems)
        .unwrap_or(false);
    let rate = service.integer("close_rate", &CLOSE_RATES, problems);
    if close {
        return OnDown::Close {
            rate: rate.unwrap_or(DEFAULT_CLOSE_RATE),
        };
    }
    // Under a wrong `on_down`, nobody knows what the rate is for.
    let keeps = service.lacks("on_down") || service.get("on_down").is_some_and(is_keep);
    if let Some(span) = service.span_of("close_rate").filter(|_| keeps) {
        problems.add(
            Problem::warning("`close_rate` has no effect here")
                .at(span)
                .label("sessions of a backend that went down are kept")
                .help("write on_down = \"close\" to have them closed"),
        );
    }
    OnDown::Keep
}

fn is_keep(value: &toml::Spanned<toml::de::DeValue<'_>>) -> bool {
    value.get_ref().as_str() == Some("keep")
}

/// `[service.session]`: how long a session may live.
pub(super) fn max_lifetime(service: &Table<'_>, problems: &mut Problems) -> Option<Duration> {
    let table = service.table("session", &keys::SESSION, problems);
    table.duration("max_lifetime", &LIFETIMES, problems)
}

const ON_DOWN: &[(&str, bool)] = &[("keep", false), ("close", true)];

/// The longest queue: beyond it no client waits for anything but its timeout.
const MOST_WAITING: u32 = 65_535;
const CLOSE_RATES: RangeInclusive<u32> = 1..=1_000_000;
const DEFAULT_CLOSE_RATE: u32 = 500;
const LIFETIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{compiled, text};
    use crate::config::{ServiceConfig, compile};

    /// A service with `keys`, sections as `sections` has them, and a backend with `backend`.
    fn read(keys: &str, sections: &str, backend: &str) -> (ServiceConfig, String) {
        compiled(&(text(&format!("{keys}\n{sections}")) + backend))
    }

    #[test]
    fn all_of_it_is_read() {
        let (service, warnings) = read(
            "on_down = \"close\"\nclose_rate = 7",
            "[service.queue]\nsize = 3\ntimeout = \"2s\"\n[service.session]\nmax_lifetime = \"1h\"",
            "max_connections = 9",
        );
        assert_eq!(warnings, "");
        let queue = QueueConfig {
            size: 3,
            timeout: Duration::from_secs(2),
        };
        assert_eq!(service.queue, queue);
        assert_eq!(service.on_down, OnDown::Close { rate: 7 });
        assert_eq!(service.max_lifetime, Some(Duration::from_secs(3600)));
        assert_eq!(service.backends[0].max_connections.unwrap().get(), 9);
    }

    #[test]
    fn a_queue_has_a_length_at_which_it_is_too_long() {
        let service = |size: u32| {
            let queue = format!(
                "[service.queue]
size = {size}"
            );
            text(&queue) + "max_connections = 1"
        };
        assert!(compile(&service(65_535), "f").is_ok());
        let wrong = compile(&service(65_536), "f").unwrap_err().to_string();
        assert!(wrong.contains("0 to 65535"), "{wrong}");
    }

    #[test]
    fn what_has_no_effect_is_said_to_have_none() {
        let (_, warnings) = read("", "[service.queue]\nsize = 3", "");
        assert!(
            warnings.contains("`[service.queue]` has no effect here"),
            "{warnings}"
        );
        for keys in ["close_rate = 7", "on_down = \"keep\"\nclose_rate = 7"] {
            let (service, warnings) = read(keys, "", "");
            assert_eq!(service.on_down, OnDown::Keep);
            assert!(
                warnings.contains("`close_rate` has no effect here"),
                "{warnings}"
            );
        }
        let (_, warnings) = read("", "[service.queue]\nsize = 3", "max_connections = 1");
        assert_eq!(warnings, "");
    }
}
