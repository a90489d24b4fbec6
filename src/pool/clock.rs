//! Instants as [`Moment`]s: numbers that fit an atomic, in the counters of a backend and in limits.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use crate::model::Moment;

/// The moment of `at`: nanoseconds since the first time that anybody asked, for at least 146 years, and never 0,
/// which says never.
pub fn moment(at: Instant) -> Moment {
    let since = at.saturating_duration_since(*ORIGIN).as_nanos();
    // Far from where adding to it would overflow.
    u64::try_from(since).unwrap_or(u64::MAX / 4) + 1
}

/// The instant of a moment; `None` for never.
pub fn instant(moment: Moment) -> Option<Instant> {
    ORIGIN.checked_add(Duration::from_nanos(moment.checked_sub(1)?))
}

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

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
        assert!(moment(long_ago) <= moment(now));
    }
}
