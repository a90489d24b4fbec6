//! Whether a server answers its probes slower than it used to: an early warning, never a verdict.
//!
//! A slow moving average of the probes' latencies, with their deviation, is what is usual; a fast one
//! is what is now. How far apart the two are is told by φ, the suspicion of an accrual failure
//! detector (Hayashibara, Défago, Yared, Katayama: "The φ accrual failure detector", SRDS 2004): a
//! latency with φ = 8 is one that a server which has not changed shows once in 10⁸ probes. There it
//! is the silence between heartbeats that is judged, here the answer to each.

use std::f64::consts::{LN_2, LN_10, SQRT_2};
use std::time::Duration;

/// The latencies of one target's probes, in a few numbers.
#[derive(Clone, Debug, Default)]
pub struct Trend {
    seen: u32,
    /// Seconds.
    fast: f64,
    /// Seconds.
    usual: f64,
    /// From one probe to the next, in seconds squared: other than the one around `usual`, it does not
    /// grow with the very trend that is looked for (von Neumann's mean square successive difference).
    variance: f64,
    /// The last latency, in seconds.
    last: f64,
    /// The share of outliers among the latest probes.
    outliers: f64,
    suspect: bool,
}

/// What a trend comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Turn {
    /// Whether it answers slower than it used to, or as usual again.
    pub suspect: bool,
    /// The average of the latest probes.
    pub latency: Duration,
    /// What was usual before.
    pub usual: Duration,
    /// How unlikely the former is, given the latter.
    pub phi: f64,
}

impl Trend {
    /// Takes the latency of a good probe in, and tells whether the trend turns by it.
    pub fn observe(&mut self, latency: Duration) -> Option<Turn> {
        let latency = latency.as_secs_f64();
        self.seen = self.seen.saturating_add(1);
        // An average of as many as there are, until there are enough.
        let weight = |probes: f64| 1.0 / probes.min(f64::from(self.seen));
        let (soon, late) = (weight(FAST), weight(SLOW));
        let is_outlier = self.seen > WARM_UP && self.phi(latency) >= SUSPICIOUS;
        self.fast += soon * (latency - self.fast);
        self.outliers += soon * (f64::from(u8::from(is_outlier)) - self.outliers);
        // An outlier hardly changes what is usual. But a change that stays is usual in the end.
        let late = if is_outlier { late / RELUCTANCE } else { late };
        let most = MOST_DEVIATIONS * self.deviation();
        let step = (latency - self.last).clamp(-most * SQRT_2, most * SQRT_2);
        if self.seen > 1 {
            self.variance += late * (step * step / 2.0 - self.variance);
        }
        self.last = latency;
        let off = latency - self.usual;
        self.usual += late * if is_outlier { off.min(most) } else { off };

        let phi = self.phi(self.fast);
        let suspect = match self.suspect {
            false => self.outliers >= MOSTLY && phi >= SUSPICIOUS,
            true => phi >= CALM,
        };
        (suspect != std::mem::replace(&mut self.suspect, suspect)).then(|| self.turn())
    }

    /// How the latest probes compare with what is usual.
    pub fn turn(&self) -> Turn {
        Turn {
            suspect: self.suspect,
            latency: Duration::from_secs_f64(self.fast),
            usual: Duration::from_secs_f64(self.usual),
            phi: self.phi(self.fast),
        }
    }

    /// φ of a latency in seconds.
    fn phi(&self, latency: f64) -> f64 {
        phi((latency - self.usual) / self.deviation())
    }

    /// Never so small that what nobody feels would be suspicious.
    fn deviation(&self) -> f64 {
        let least = LEAST_DEVIATION.max(self.usual * LEAST_RELATIVE_DEVIATION);
        self.variance.sqrt().max(least)
    }
}

/// −log₁₀ of the probability that a normally distributed value lies more than `deviations` above the
/// mean. By the logarithm of the approximation of erfc in Press et al., *Numerical Recipes*, §6.2
/// (relative error below 1.2·10⁻⁷), so that it does not end where the probability underflows.
fn phi(deviations: f64) -> f64 {
    const POLYNOMIAL: [f64; 10] = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let x = deviations.abs() / SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * x);
    let polynomial = POLYNOMIAL
        .into_iter()
        .fold(0.0, |sum, factor| sum * t + factor);
    let tail = t.ln() - x * x + polynomial - LN_2;
    let tail = if deviations < 0.0 {
        (-tail.exp()).ln_1p()
    } else {
        tail
    };
    -tail / LN_10
}

/// Probes that the fast average looks back on: a quarter of a minute, by default.
const FAST: f64 = 8.0;
/// Probes that the slow one does: four minutes.
const SLOW: f64 = 128.0;
/// Probes before anything is suspicious.
const WARM_UP: u32 = 16;
/// From this φ on. A threshold of 8 is Cassandra's and Akka's.
const SUSPICIOUS: f64 = 8.0;
/// What was suspicious is over below this φ: a latency that one probe in ten has.
const CALM: f64 = 1.0;
/// The share of outliers that is no accident: six in a row, or one of two for longer.
const MOSTLY: f64 = 0.5;
/// By how many deviations an outlier counts, at most, towards what is usual …
const MOST_DEVIATIONS: f64 = 3.0;
/// … and by how much less than another probe.
const RELUCTANCE: f64 = 8.0;
/// Of what is usual: nothing is suspicious that is not 2.4 times as slow, …
const LEAST_RELATIVE_DEVIATION: f64 = 0.25;
/// Seconds: … and slower by 11 ms. Both machines' schedulers are about as exact.
const LEAST_DEVIATION: f64 = 0.002;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn millis(millis: f64) -> Duration {
        Duration::from_secs_f64(millis / 1000.0)
    }

    /// The turns of a fresh trend over these latencies, each with its probe's number.
    fn turns(latencies: impl IntoIterator<Item = f64>) -> Vec<(usize, Turn)> {
        let mut trend = Trend::default();
        latencies
            .into_iter()
            .enumerate()
            .filter_map(|(index, latency)| Some((index, trend.observe(millis(latency))?)))
            .collect()
    }

    #[test]
    fn phi_is_the_logarithm_of_the_normal_tail() {
        for (deviations, probability) in [
            (0.0, 0.5_f64),
            (1.281_552, 0.1),
            (2.326_348, 0.01),
            (-1.281_552, 0.9),
            (5.612_001, 1e-8),
            (9.262_34, 1e-20),
        ] {
            let expected = -probability.log10();
            assert!((phi(deviations) - expected).abs() < 1e-4, "{deviations}");
        }
        assert!(phi(1e6).is_finite() && phi(-1e6) >= 0.0);
    }

    #[test]
    fn a_server_that_slows_down_is_suspect_within_eight_probes_and_calm_again_when_it_recovers() {
        let latencies = [0.5]
            .repeat(50)
            .into_iter()
            .chain([40.0].repeat(30))
            .chain([0.5].repeat(60));
        let turns = turns(latencies);
        let [(began, first), (ended, last)] = turns[..] else {
            panic!("{turns:?}");
        };
        assert!(first.suspect && (50..58).contains(&began), "{turns:?}");
        assert!(
            first.phi >= SUSPICIOUS && first.latency > millis(10.0),
            "{turns:?}"
        );
        assert!(first.usual < millis(3.0), "{turns:?}");
        assert!(!last.suspect && (80..120).contains(&ended), "{turns:?}");
    }

    #[test]
    fn a_creeping_slowness_is_seen_too() {
        // Within ten minutes of probes, from one millisecond to a hundred.
        let turns = turns((0..300).map(|n| {
            if n < 50 {
                1.0
            } else {
                1.0 + 0.4 * f64::from(n - 50)
            }
        }));
        assert!(
            turns
                .first()
                .is_some_and(|(at, turn)| turn.suspect && *at < 150),
            "{turns:?}"
        );
    }

    #[test]
    fn a_server_of_which_every_other_answer_is_slow_is_suspect() {
        let turns = turns((0..200).map(|n| if n >= 50 && n % 2 == 0 { 50.0 } else { 1.0 }));
        assert!(
            turns.first().is_some_and(|(_, turn)| turn.suspect),
            "{turns:?}"
        );
    }

    #[test]
    fn a_slowness_that_stays_is_usual_in_the_end_but_not_soon() {
        let turns = turns([1.0].repeat(200).into_iter().chain([50.0].repeat(5000)));
        let [(_, first), (ended, last)] = turns[..] else {
            panic!("{turns:?}");
        };
        assert!(first.suspect && !last.suspect);
        assert!((400..3000).contains(&ended), "{turns:?}");
    }

    proptest! {
        #[test]
        fn phi_never_falls_with_the_latency(a in -50.0_f64..50.0, b in -50.0_f64..50.0) {
            let (low, high) = (a.min(b), a.max(b));
            prop_assert!(phi(low) <= phi(high) + 1e-6);
        }

        #[test]
        fn noise_is_never_suspicious(
            usual in 0.02_f64..2000.0,
            noise in prop::collection::vec(0.5_f64..1.5, 1..600),
        ) {
            prop_assert_eq!(turns(noise.into_iter().map(|factor| usual * factor)), []);
        }

        #[test]
        fn lone_spikes_are_never_suspicious(
            usual in 0.02_f64..100.0,
            spikes in prop::collection::vec(1.0_f64..10_000.0, 20..300),
        ) {
            // One probe of ten is as slow as it likes.
            let latencies = spikes.into_iter().enumerate().map(|(index, spike)| {
                if index % 10 == 0 { usual * spike } else { usual }
            });
            prop_assert_eq!(turns(latencies), []);
        }

        #[test]
        fn a_server_that_gets_faster_is_never_suspicious(
            latencies in prop::collection::vec(0.02_f64..1000.0, 1..300),
        ) {
            let mut falling = latencies;
            falling.sort_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(turns(falling), []);
        }

        #[test]
        fn a_lasting_jump_is_always_seen_and_so_is_its_end(
            usual in 0.02_f64..500.0,
            factor in 4.0_f64..50.0,
            noise in prop::collection::vec(0.9_f64..1.1, 200),
        ) {
            prop_assume!(usual * (factor - 1.0) > 25.0);
            let slow = 40..100;
            let latencies = noise.into_iter().enumerate().map(|(index, noise)| {
                usual * noise * if slow.contains(&index) { factor } else { 1.0 }
            });
            let turns = turns(latencies);
            prop_assert_eq!(turns.len(), 2, "{:?}", turns);
            prop_assert!(turns[0].1.suspect && turns[0].0 < 52, "{:?}", turns);
            prop_assert!(!turns[1].1.suspect && turns[1].0 >= 100, "{:?}", turns);
        }
    }
}
