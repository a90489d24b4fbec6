//! How durations are told.

use std::time::Duration;

/// Milliseconds, to microseconds: how every line and every alert tells what was measured.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}
