//! How often something may happen: a bucket of tokens, kept as the one moment up to which it is paid for.
//!
//! The generic cell rate algorithm (ITU-T I.371, annex A), in its virtual scheduling form: a state of 64
//! bits, and no work while nothing happens. Times are nanoseconds since any fixed moment.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// What those who can wait may come in at once after a pause: what this time brings, …
const EVENLY: Duration = Duration::from_millis(20);
/// … or so many, if that is more.
const AT_ONCE: u64 = 100;

/// So often within any such time, and all at once if it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    per: Duration,
}

impl Rate {
    /// `count` times in `per`, which is at most a year.
    pub fn new(count: NonZeroU32, per: Duration) -> Self {
        Self { count, per }
    }

    /// `count` times a second, at least once.
    pub fn a_second(count: u32) -> Self {
        let count = NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN);
        Self::new(count, Duration::from_secs(1))
    }

    /// How often …
    pub fn count(self) -> u32 {
        self.count.get()
    }

    /// … in which time.
    pub fn per(self) -> Duration {
        self.per
    }

    /// Once more at `now`, by a bucket that is paid for up to `paid`, 0 at first: up to when it is then.
    ///
    /// # Errors
    /// When it is too soon: how many nanoseconds too soon.
    pub fn spend(self, paid: u64, now: u64) -> Result<u64, u64> {
        self.spend_ahead(paid, now, nanos(self.per))
    }

    /// The same for those who wait when it is too soon, and so lose nothing by it that fewer may come at
    /// once: a second's worth of a high rate in a rush is what a rate is to save others from.
    ///
    /// # Errors
    /// When it is too soon: how many nanoseconds too soon.
    pub fn spend_evenly(self, paid: u64, now: u64) -> Result<u64, u64> {
        let rush = nanos(EVENLY).max(self.each().saturating_mul(AT_ONCE));
        self.spend_ahead(paid, now, rush.min(nanos(self.per)))
    }

    /// Up to `whole`, which is at least one's cost, is paid for ahead.
    fn spend_ahead(self, paid: u64, now: u64, whole: u64) -> Result<u64, u64> {
        let each = self.each();
        // Further ahead than it can get by this rate, it was paid for by another one.
        let paid = match paid.saturating_sub(now) > 2 * whole {
            true => now,
            false => paid.max(now),
        };
        // What is paid ahead, this once included, is never more than that.
        match (paid - now + each).checked_sub(whole) {
            Some(early @ 1..) => Err(early),
            Some(0) | None => Ok(paid + each),
        }
    }

    /// What one costs: `spend` the other way round.
    pub fn each(self) -> u64 {
        nanos(self.per) / u64::from(self.count.get())
    }
}

/// `500/s`, as in the file.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, per } = self;
        match per.as_secs() {
            1 => write!(f, "{count}/s"),
            60 => write!(f, "{count}/m"),
            3600 => write!(f, "{count}/h"),
            _ => write!(f, "{count} in {per:?}"),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate::new(
            NonZeroU32::new(count).unwrap(),
            Duration::from_secs(seconds),
        )
    }

    /// Those of `times` that it lets happen.
    fn passed(rate: Rate, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        passed_by(|paid, now| rate.spend(paid, now), times)
    }

    fn passed_by(
        spend: impl Fn(u64, u64) -> Result<u64, u64>,
        times: impl IntoIterator<Item = u64>,
    ) -> Vec<u64> {
        let mut paid = 0;
        let pass = |&now: &u64| match spend(paid, now) {
            Ok(then) => {
                paid = then;
                true
            }
            Err(_) => false,
        };
        times.into_iter().filter(pass).collect()
    }

    #[test]
    fn a_burst_of_all_passes_at_once_and_then_one_at_a_time() {
        let start = 77 * SECOND;
        assert_eq!(passed(rate(10, 1), [start; 50]).len(), 10);
        let later = [start; 50].into_iter().chain([start + SECOND / 10; 50]);
        assert_eq!(passed(rate(10, 1), later).len(), 11);
    }

    #[test]
    fn of_those_who_wait_few_come_at_once_and_all_at_their_rate() {
        let at_once = |rate: Rate| {
            let spend = |paid, now| rate.spend_evenly(paid, now);
            passed_by(spend, [77 * SECOND; 10_000]).len()
        };
        assert_eq!(at_once(rate(20_000, 1)), 400);
        assert_eq!(at_once(rate(5000, 1)), 100);
        assert_eq!(at_once(rate(500, 1)), 100);
        assert_eq!(at_once(rate(10, 1)), 10);
        assert_eq!(at_once(rate(10, 3600)), 10);
        assert_eq!(at_once(rate(1, 3600)), 1);
        // Tried again every millisecond, nothing of the rate is lost.
        let spend = |paid, now| rate(5000, 1).spend_evenly(paid, now);
        let tries = (0..1000).flat_map(|at| [77 * SECOND + at * SECOND / 1000; 20]);
        let passed = passed_by(spend, tries).len();
        assert!((5090..=5100).contains(&passed), "{passed}");
    }

    #[test]
    fn it_is_told_as_it_is_written() {
        assert_eq!(rate(5, 1).to_string(), "5/s");
        assert_eq!(rate(10, 60).to_string(), "10/m");
        assert_eq!(rate(1, 3600).to_string(), "1/h");
    }

    #[test]
    fn who_is_too_soon_is_told_by_how_much() {
        let slow = rate(2, 60);
        let paid = slow.spend(slow.spend(0, SECOND).unwrap(), SECOND).unwrap();
        let early = slow.spend(paid, SECOND).unwrap_err();
        assert_eq!(early, 30 * SECOND);
        assert!(slow.spend(paid, SECOND + early - 1).is_err());
        assert!(slow.spend(paid, SECOND + early).is_ok());
    }

    #[test]
    fn what_another_rate_has_left_is_forgiven() {
        let paid = rate(1, 3600).spend(0, SECOND).unwrap();
        assert!(rate(1, 3600).spend(paid, SECOND).is_err());
        assert!(rate(1, 1).spend(paid, SECOND).is_ok());
    }

    proptest! {
        #[test]
        fn in_no_window_there_are_more_than_twice_and_over_long_no_more_than_allowed(
            count in 1_u32..50,
            gaps in prop::collection::vec(0_u64..SECOND / 10, 1..400),
        ) {
            let rate = rate(count, 1);
            let mut now = SECOND;
            let times = gaps.iter().map(|gap| { now += gap; now }).collect::<Vec<_>>();
            let passed = passed(rate, times.iter().copied());
            let span = times[times.len() - 1] - times[0];
            let allowed = u64::from(count) + span / rate.each() + 1;
            prop_assert!(passed.len() as u64 <= allowed);
            for (at, first) in passed.iter().enumerate() {
                let within = passed[at..].iter().take_while(|time| *time - first < SECOND).count();
                prop_assert!(within <= 2 * count as usize + 1, "{within}");
            }
        }
    }
}
