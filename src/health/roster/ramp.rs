//! The slow start of one backend: from a tenth of its weight to all of it, in a straight line.

use std::time::{Duration, Instant};

use super::rules::Rules;

/// What it starts with, in percent of its weight.
const FIRST: u32 = 10;

/// A table is built for each step of a ramp, so there are no more than these in one.
const STEPS: u32 = 18;

/// However short the ramp, a step takes at least this long.
const SHORTEST_STEP: Duration = Duration::from_millis(100);

/// A ramp under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ramp {
    since: Instant,
}

impl Ramp {
    /// One that begins now, if `rules` ask for it.
    pub(super) fn begin(rules: &Rules, now: Instant) -> Option<Self> {
        (!rules.slow_start.is_zero()).then_some(Self { since: now })
    }

    /// Whether it is not over.
    pub(super) fn lasts(self, rules: &Rules, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < rules.slow_start
    }

    /// How much of the weight counts now.
    pub(super) fn percent(self, rules: &Rules, now: Instant) -> u32 {
        let elapsed = now.saturating_duration_since(self.since).as_nanos();
        let whole = rules.slow_start.as_nanos().max(1);
        let gained = u128::from(100 - FIRST) * elapsed.min(whole) / whole;
        FIRST + gained as u32
    }
}

/// How long until the next step of the ramps of one service.
pub(super) fn step(rules: &Rules) -> Duration {
    (rules.slow_start / STEPS).max(SHORTEST_STEP)
}
