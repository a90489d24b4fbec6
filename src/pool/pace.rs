//! How fast clients are taken: a [`Rate`] that workers share, without a lock.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Turn;
use crate::admission::Rate;
use crate::config::Limited;

/// Up to when a rate is paid for.
#[derive(Debug, Default)]
pub struct Pace(AtomicU64);

impl Pace {
    /// Takes the next turn by `limit`, if there is one.
    ///
    /// # Errors
    /// When it is too soon: by how much.
    pub(super) fn take_turn(
        &self,
        limit: Option<Limited<Rate>>,
        now: Instant,
    ) -> Result<Turn, Duration> {
        let Some(Limited { most, dry }) = limit else {
            return Ok(Turn::Free);
        };
        match self.spend(most, now) {
            Ok(()) => Ok(Turn::Paid(most)),
            Err(_) if dry => Ok(Turn::TooEarly),
            Err(early) => Err(early),
        }
    }

    /// Once more, at `now`.
    ///
    /// # Errors
    /// When it is too soon: by how much.
    pub fn spend(&self, rate: Rate, now: Instant) -> Result<(), Duration> {
        let now = nanos(now);
        let spend = |paid| rate.spend(paid, now).ok();
        match self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend)
        {
            Ok(_) => Ok(()),
            Err(paid) => Err(Duration::from_nanos(
                rate.spend(paid, now).err().unwrap_or(0),
            )),
        }
    }

    /// Takes the last one back: it was spent for nobody.
    pub fn refund(&self, rate: Rate) {
        self.0.fetch_sub(rate.each(), Ordering::Relaxed);
    }
}

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
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn a_moment_is_found_again() {
        nanos(Instant::now());
        let now = Instant::now();
        assert_eq!(instant(nanos(now)), Some(now));
        assert_eq!(instant(0), None);
    }

    #[test]
    fn threads_that_race_never_pass_the_rate() {
        let pace = Pace::default();
        let rate = Rate::new(NonZeroU32::new(100).unwrap(), Duration::from_secs(3600));
        let now = Instant::now();
        let passed = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let ok = pace.spend(rate, now).is_ok();
                        passed.fetch_add(ok.into(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 100);
        assert_eq!(pace.spend(rate, now), Err(Duration::from_secs(36)));
        pace.refund(rate);
        assert_eq!(pace.spend(rate, now), Ok(()));
    }
}
