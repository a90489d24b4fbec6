//! How fast clients are taken: a [`Rate`] that workers keep together, without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Turn;
use super::clock::moment;
use crate::admission::Rate;
use crate::config::Limited;

/// Keeps to a rate, by up to when it is paid for; on the `clock`.
#[derive(Debug, Default)]
pub struct Limiter(AtomicU64);

impl Limiter {
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
        // Whoever is too early waits.
        match self.pay(now, |paid, now| most.spend_evenly(paid, now)) {
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
        self.pay(now, |paid, now| rate.spend(paid, now))
    }

    fn pay(
        &self,
        now: Instant,
        spend: impl Fn(u64, u64) -> Result<u64, u64>,
    ) -> Result<(), Duration> {
        let now = moment(now);
        let paid = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| {
                spend(paid, now).ok()
            });
        match paid {
            Ok(_) => Ok(()),
            Err(paid) => Err(Duration::from_nanos(spend(paid, now).err().unwrap_or(0))),
        }
    }

    /// Takes the last one back: it was spent for nobody.
    pub fn refund(&self, rate: Rate) {
        self.0.fetch_sub(rate.each(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn threads_that_race_never_pass_the_rate() {
        let limiter = Limiter::default();
        let rate = Rate::new(NonZeroU32::new(100).unwrap(), Duration::from_secs(3600));
        let now = Instant::now();
        let passed = std::sync::atomic::AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        let ok = limiter.spend(rate, now).is_ok();
                        passed.fetch_add(ok.into(), Ordering::Relaxed);
                    }
                });
            }
        });
        assert_eq!(passed.into_inner(), 100);
        assert_eq!(limiter.spend(rate, now), Err(Duration::from_secs(36)));
        limiter.refund(rate);
        assert_eq!(limiter.spend(rate, now), Ok(()));
    }
}
