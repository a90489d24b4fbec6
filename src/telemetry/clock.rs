//! Instants as [`Moment`]s: numbers that fit the counters of a backend.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::model::Moment;

/// The moment of `at`.
pub fn moment(at: Instant) -> Moment {
    let since = at.saturating_duration_since(epoch());
    // 584 years; never 0, which says never.
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX).max(1)
}

/// The instant of a moment; `None` for never.
pub fn instant(moment: Moment) -> Option<Instant> {
    (moment > 0).then(|| epoch() + Duration::from_nanos(moment))
}

/// The first time that anybody asked.
fn epoch() -> Instant {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    *EPOCH.get_or_init(Instant::now)
}

/// Milliseconds, to microseconds: how every line and every alert tells what was measured.
pub fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_the_instant_that_it_was_made_of() {
        assert_eq!(instant(0), None);
        moment(Instant::now());
        let now = Instant::now();
        assert_eq!(instant(moment(now)), Some(now));
        let long_ago = now.checked_sub(Duration::from_secs(1)).unwrap();
        assert_eq!(moment(long_ago), 1);
    }
}
