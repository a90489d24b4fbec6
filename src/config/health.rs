//! `[service.health]`: when a backend is probed, and what counts. How it is probed is next door, in
//! [`check`](super::check).

use std::ops::RangeInclusive;
use std::time::Duration;

use super::SendHeader;
use super::check::check;
use super::decode::Table;
use super::problem::{Problem, Problems};
use super::value::{LONGEST, SOME_TIME, written};
use crate::health::{Check, Policy};

/// The section as a whole; `sent` is the PROXY header that sessions send to the backends that are checked.
pub(super) fn health(
    table: &Table<'_>,
    sent: Option<SendHeader>,
    problems: &mut Problems,
) -> (Check, Policy) {
    (check(table, sent, problems), policy(table, problems))
}

fn policy(table: &Table<'_>, problems: &mut Problems) -> Policy {
    let preset = default_policy();
    let mut read = |key, preset| {
        table
            .duration(key, &(SHORTEST_INTERVAL..=LONGEST), problems)
            .unwrap_or(preset)
    };
    let interval = read("interval", preset.interval);
    let policy = Policy {
        interval,
        fast_interval: read("fast_interval", interval.min(preset.fast_interval)),
        down_interval: read("down_interval", interval),
        timeout: table
            .duration("timeout", &SOME_TIME, problems)
            .unwrap_or(preset.timeout),
        rise: table
            .integer("rise", &VERDICTS, problems)
            .unwrap_or(preset.rise),
        fall: table
            .integer("fall", &VERDICTS, problems)
            .unwrap_or(preset.fall),
    };
    let place = table
        .span_of("timeout")
        .or_else(|| table.span_of("interval"));
    if policy.timeout > policy.interval
        && let Some(span) = place
    {
        problems.add(
            Problem::warning(format!(
                "the probe `timeout` ({}) is longer than the `interval` ({})",
                written(policy.timeout),
                written(policy.interval)
            ))
            .at(span)
            .label("a slow probe delays the next one")
            .help("let timeout be at most interval"),
        );
    }
    if policy.fast_interval > policy.interval
        && let Some(span) = table.span_of("fast_interval")
    {
        problems.add(
            Problem::warning(format!(
                "`fast_interval` ({}) is longer than the `interval` ({})",
                written(policy.fast_interval),
                written(policy.interval)
            ))
            .at(span)
            .label("a failure would be confirmed later, not sooner"),
        );
    }
    policy
}

/// `[service.health]` when nothing is written.
pub(super) fn default_policy() -> Policy {
    Policy {
        interval: Duration::from_secs(2),
        fast_interval: Duration::from_millis(500),
        down_interval: Duration::from_secs(2),
        timeout: Duration::from_secs(1),
        rise: 2,
        fall: 3,
    }
}

const SHORTEST_INTERVAL: Duration = Duration::from_millis(10);
const VERDICTS: RangeInclusive<u32> = 1..=1000;
