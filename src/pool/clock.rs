//! Moments as numbers, so that an atomic can hold one.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// Nanoseconds since a moment that is long enough ago for nothing to be owed at first.
pub(super) fn nanos(now: Instant) -> u64 {
    let since = now.saturating_duration_since(*ORIGIN).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX / 4) + 1
}

/// The moment of so many of them; none of them is never.
pub(super) fn instant(nanos: u64) -> Option<Instant> {
    ORIGIN.checked_add(Duration::from_nanos(nanos.checked_sub(1)?))
}

/// Where they begin.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_found_again() {
        nanos(Instant::now());
        let now = Instant::now();
        assert_eq!(instant(nanos(now)), Some(now));
        assert_eq!(instant(0), None);
    }
}
