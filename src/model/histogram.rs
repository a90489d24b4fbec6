//! How long things took, in few numbers: counted by one thread, read by others.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::tally::{add, micros};

/// How many took at most so long, for each of `N` bounds, and how long all took together.
///
/// One thread alone counts: an addition is a load and a store, without a locked instruction.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: &'static [Duration; N],
    counts: [AtomicU64; N],
    beyond: AtomicU64,
    /// 584,000 years of sessions fit in.
    micros: AtomicU64,
}

impl<const N: usize> Histogram<N> {
    /// Nothing counted yet; `bounds` ascend.
    pub fn new(bounds: &'static [Duration; N]) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; N],
            beyond: AtomicU64::new(0),
            micros: AtomicU64::new(0),
        }
    }

    /// Something took so long.
    pub fn observe(&self, took: Duration) {
        // Most things are fast, and the bounds are few.
        let bucket = self.bounds.iter().position(|bound| took <= *bound);
        add(bucket.map_or(&self.beyond, |at| &self.counts[at]), 1);
        add(&self.micros, micros(took));
    }

    /// Adds what was counted to `sum`, which has the same bounds.
    pub fn add_to(&self, sum: &mut HistogramSum) {
        for (sum, count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += count.load(Ordering::Relaxed);
        }
        sum.beyond += self.beyond.load(Ordering::Relaxed);
        sum.total += Duration::from_micros(self.micros.load(Ordering::Relaxed));
    }
}

/// Histograms of several threads, summed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSum {
    /// Upper bounds, ascending.
    pub bounds: &'static [Duration],
    /// How many took at most as long as the bound at this place, and longer than the one before.
    pub counts: Vec<u64>,
    /// How many took longer than any bound.
    pub beyond: u64,
    /// How long all took together.
    pub total: Duration,
}

impl HistogramSum {
    /// Nothing yet.
    pub fn over(bounds: &'static [Duration]) -> Self {
        Self {
            bounds,
            counts: vec![0; bounds.len()],
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: [Duration; 2] = [Duration::from_millis(1), Duration::from_secs(1)];

    #[test]
    fn a_bound_is_in_its_bucket_and_threads_add_up() {
        let (one, two) = (Histogram::new(&BOUNDS), Histogram::new(&BOUNDS));
        one.observe(Duration::from_millis(1));
        one.observe(Duration::from_micros(1_001));
        two.observe(Duration::from_secs(1));
        two.observe(Duration::from_millis(1_001));
        let mut sum = HistogramSum::over(&BOUNDS);
        one.add_to(&mut sum);
        two.add_to(&mut sum);
        assert_eq!((sum.counts.as_slice(), sum.beyond), (&[1, 2][..], 1));
        assert_eq!(sum.total, Duration::from_micros(1_000 + 1_001 + 2_001_000));
    }

    #[test]
    fn what_takes_less_than_a_microsecond_counts_right_on_average() {
        let histogram = Histogram::new(&BOUNDS);
        histogram.observe(Duration::from_nanos(400));
        histogram.observe(Duration::from_nanos(600));
        let mut sum = HistogramSum::over(&BOUNDS);
        histogram.add_to(&mut sum);
        assert_eq!(sum.total, Duration::from_micros(1));
    }
}
