//! How many sessions may be closed at a step, so that so many a second are.

use std::time::{Duration, Instant};

/// Between two steps.
pub(super) const STEP: Duration = Duration::from_millis(100);

/// How many sessions may be closed by now: what the rate has earned, and at most a step's worth at once.
#[derive(Debug, Default)]
pub(super) struct TokenBucket {
    credit: f64,
    /// When it was last granted, `None` before the first time.
    last: Option<Instant>,
}

impl TokenBucket {
    /// As many as are due at `rate` a second, of which `unused` were granted before and not used.
    pub(super) fn grant(&mut self, rate: u32, unused: u32, now: Instant) -> u32 {
        let rate = f64::from(rate);
        // A step's worth, and what is left of the one before, which is less than one session.
        let most = rate * STEP.as_secs_f64() + 1.0;
        let passed = self
            .last
            .replace(now)
            .map(|last| now.saturating_duration_since(last));
        let earned = passed.map_or(most, |passed| passed.as_secs_f64() * rate);
        self.credit = (self.credit + f64::from(unused) + earned).min(most);
        let whole = self.credit.floor();
        self.credit -= whole;
        whole as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_kept_over_time_whatever_is_not_used_at_once() {
        let start = Instant::now();
        let mut bucket = TokenBucket::default();
        let steps = (0..=100).map(|step| start + STEP * step);
        let all: u32 = steps.map(|now| bucket.grant(25, 0, now)).sum();
        // 2.5 a step for ten seconds, and those of the first step.
        assert!((252..=253).contains(&all), "{all}");
    }

    #[test]
    fn a_slow_rate_closes_one_at_once_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut bucket = TokenBucket::default();
        let at = |tenths: u32| start + STEP * tenths;
        let granted: Vec<_> = (0..=25)
            .map(|tenths| bucket.grant(1, 0, at(tenths)))
            .collect();
        assert_eq!(granted[0], 1);
        assert_eq!(granted.iter().sum::<u32>(), 3);
        assert!(granted.iter().all(|&granted| granted <= 1));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_step_at_once(
            rate in 1_u32..10_000,
            steps in prop::collection::vec((0_u64..3_000, 0_u32..100), 1..100),
        ) {
            let start = Instant::now();
            let mut bucket = TokenBucket::default();
            let (mut now, mut used, mut last) = (start, 0_u64, 0);
            let most = f64::from(rate) * STEP.as_secs_f64() + 1.0;
            for (milliseconds, unused_percent) in steps {
                now += Duration::from_millis(milliseconds);
                let unused = last * unused_percent / 100;
                used -= u64::from(unused);
                last = bucket.grant(rate, unused, now);
                prop_assert!(f64::from(last) <= most);
                used += u64::from(last);
                let due = (now - start).as_secs_f64() * f64::from(rate) + most;
                prop_assert!(used as f64 <= due + 1e-3, "{used} of {due}");
            }
        }
    }
}
