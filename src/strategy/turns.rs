//! Smooth weighted turns as a pure function of the cursor: who comes at turn number `sequence`,
//! without a table of all turns and without state.
//!
//! The weights lie end to end over W positions, and turn `t` goes to the owner of position
//! `t · stride mod W`. A stride coprime to W visits every position once in W turns, so any window of
//! W turns gives each backend exactly its weight. How evenly the turns of one backend are spaced
//! is a matter of the continued fraction of stride / W (the three-distance theorem, Sós 1958): the
//! smaller its partial quotients, the more even. With none above 6, no gap between two turns of a
//! backend of weight w exceeds 3 W / w.

use super::draw::{Shares, gcd};

/// How many strides a build looks at, beginning next to W / golden ratio, whose quotients are all 1.
/// Up to this W the search is exhaustive; beyond it, a few hundred tries are enough for quotients
/// up to 5, because the first half of the continued fraction is golden already.
const STRIDES_TRIED: u64 = 2048;

/// The turns of one set of weights.
#[derive(Debug)]
pub(super) struct Turns {
    shares: Shares,
    stride: u64,
}

impl Turns {
    /// Lays the turns out; O(n).
    pub(super) fn new(shares: Shares) -> Self {
        let stride = stride(shares.total());
        Self { shares, stride }
    }

    /// Who has turn `sequence`; `None` without backends. O(log n).
    pub(super) fn at(&self, sequence: u64) -> Option<usize> {
        let total = self.shares.total();
        if total == 0 {
            return None;
        }
        let turn = sequence % total;
        // Any real configuration stays below 2³², where 64-bit arithmetic is enough and much faster.
        let position = if u32::try_from(total).is_ok() {
            turn * self.stride % total
        } else {
            (u128::from(turn) * u128::from(self.stride) % u128::from(total)) as u64
        };
        Some(self.shares.owner(position))
    }

    /// The weights behind the turns.
    pub(super) fn shares(&self) -> &Shares {
        &self.shares
    }
}

/// The stride coprime to `total` with the smallest worst partial quotient of those looked at, the
/// one nearest to `total` / golden ratio among equals.
fn stride(total: u64) -> u64 {
    const INVERSE_GOLDEN: f64 = 0.618_033_988_749_894_9;
    let centre = ((total as f64 * INVERSE_GOLDEN).round() as u64).max(1);
    let mut best = (u64::MAX, 1);
    for distance in 0..STRIDES_TRIED {
        for candidate in [centre + distance, centre.saturating_sub(distance)] {
            if candidate == 0 || candidate >= total {
                continue;
            }
            if let Some(worst) = worst_quotient(candidate, total, best.0) {
                best = (worst, candidate);
            }
        }
        if best.0 <= 2 {
            break;
        }
    }
    best.1
}

/// The largest partial quotient of the continued fraction of `stride` / `total` if it is less than
/// `bound` and the two are coprime.
fn worst_quotient(stride: u64, total: u64, bound: u64) -> Option<u64> {
    if gcd(total, stride) != 1 {
        return None;
    }
    let (mut a, mut b, mut worst) = (total, stride, 0);
    while b != 0 {
        worst = worst.max(a / b);
        if worst >= bound {
            return None;
        }
        (a, b) = (b, a % b);
    }
    Some(worst)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turns(weights: &[u32]) -> Turns {
        Turns::new(Shares::new(weights.iter().copied().map(u64::from)))
    }

    fn order(weights: &[u32], from: u64, count: u64) -> Vec<usize> {
        let turns = turns(weights);
        (from..from + count)
            .map(|sequence| turns.at(sequence).unwrap())
            .collect()
    }

    /// The largest distance between two turns of `backend`, going round.
    fn largest_gap(order: &[usize], backend: usize) -> usize {
        let at: Vec<usize> = (0..order.len())
            .filter(|&turn| order[turn] == backend)
            .collect();
        let round = order.len() + at[0] - at[at.len() - 1];
        at.windows(2)
            .map(|pair| pair[1] - pair[0])
            .chain([round])
            .max()
            .unwrap()
    }

    #[test]
    fn five_one_one_never_runs_longer_than_three() {
        let order = order(&[5, 1, 1], 0, 70);
        assert!(
            order.windows(4).all(|run| run != [0; 4]),
            "four in a row in {order:?}"
        );
    }

    #[test]
    fn two_equals_alternate_whatever_they_weigh() {
        for weight in [1, 7, 65_535] {
            let order = order(&[weight, weight], 5, 20);
            assert!(order.windows(2).all(|pair| pair[0] != pair[1]));
        }
    }

    #[test]
    fn no_backend_has_no_turn() {
        assert_eq!(turns(&[]).at(3), None);
    }

    #[test]
    fn ten_thousand_heavyweights_need_no_table_and_do_not_overflow() {
        let weights: Vec<u32> = (0..10_000).map(|i| 65_535 - i % 2).collect();
        let turns = turns(&weights);
        assert!(turns.at(u64::MAX).unwrap() < 10_000);
        assert!(turns.at(0).unwrap() < 10_000);
    }

    #[test]
    fn totals_beyond_32_bits_still_give_exact_windows_to_small_samples() {
        let turns = turns(&[u32::MAX, u32::MAX - 1, 1]);
        let mut counts = [0_u32; 3];
        for sequence in 0..10_000 {
            counts[turns.at(sequence).unwrap()] += 1;
        }
        assert!(counts[0].abs_diff(counts[1]) < 20, "{counts:?}");
    }

    #[test]
    fn a_large_total_has_a_stride_with_small_quotients() {
        for total in (655_000_000..655_350_000).step_by(7_919) {
            let stride = stride(total);
            let worst = worst_quotient(stride, total, u64::MAX).unwrap();
            assert!(worst <= 6, "{stride} / {total} has a quotient of {worst}");
        }
    }

    proptest! {
        #[test]
        fn any_window_gives_each_exactly_its_weight(
            weights in prop::collection::vec(1_u32..40, 1..30),
            from in 0..u64::MAX / 2,
        ) {
            let total = weights.iter().sum::<u32>();
            let mut counts = vec![0; weights.len()];
            for backend in order(&weights, from, u64::from(total)) {
                counts[backend] += 1;
            }
            prop_assert_eq!(counts, weights);
        }

        #[test]
        fn turns_of_one_backend_are_evenly_spaced(
            weights in prop::collection::vec(
                prop_oneof![1_u32..5, 1_u32..300, 1_u32..5_000], 2..40),
        ) {
            let reduced = turns(&weights).shares().total();
            let order = order(&weights, 0, reduced);
            let divisor = u64::from(weights.iter().sum::<u32>()) / reduced;
            for (backend, &weight) in weights.iter().enumerate() {
                let even = reduced as f64 * divisor as f64 / f64::from(weight);
                let gap = largest_gap(&order, backend) as f64;
                prop_assert!(gap <= (3.0 * even).ceil(), "{} of {} waits {gap}", weight, reduced);
            }
        }

        #[test]
        fn every_stride_is_coprime(total in 2_u64..2_000_000) {
            prop_assert_eq!(gcd(total, stride(total)), 1);
        }
    }
}
