//! Weighted draws that a pick can repeat: positions from hashes, owners from positions, and what to
//! do when the first choice cannot serve. Knows weights and usability, not what a strategy wants.
//!
//! The hash is the output function of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) over a counter
//! that steps by the golden ratio.

use std::sync::Arc;

use super::Skip;
use crate::model::Backend;

/// How often a pick draws again before it looks at every backend. With half of all weight gone, one
/// pick in 65,536 comes that far.
const REDRAWS: u64 = 16;

/// Draw number `attempt` of the series that `seed` starts: uniform, and the same whenever asked.
pub(super) fn draw(seed: u64, attempt: u64) -> u64 {
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = seed.wrapping_add(GOLDEN.wrapping_mul(attempt.wrapping_add(1)));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Maps a uniform hash to `0..bound` by the high half of the product, which needs no division.
pub(super) fn scale(hash: u64, bound: u64) -> u64 {
    ((u128::from(hash) * u128::from(bound)) >> 64) as u64
}

/// Whether a pick may return `index`.
pub(super) fn usable(index: usize, backends: &[Arc<Backend>], skip: &Skip) -> bool {
    backends
        .get(index)
        .is_some_and(|backend| !backend.is_down() && !backend.is_full())
        && !skip.contains(index)
}

/// One winner of a stream of contenders, each with a chance in proportion to its weight: reservoir
/// sampling, one look at each and no memory. A flag that flips between two looks cannot confuse it.
#[derive(Debug)]
pub(super) struct Reservoir {
    seed: u64,
    seen: u64,
    winner: Option<usize>,
}

impl Reservoir {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            seen: 0,
            winner: None,
        }
    }

    /// Lets `index` compete with `weight` against all that were offered before.
    pub(super) fn offer(&mut self, index: usize, weight: u64) {
        self.seen += weight;
        if scale(draw(self.seed, index as u64), self.seen) < weight {
            self.winner = Some(index);
        }
    }

    pub(super) fn winner(self) -> Option<usize> {
        self.winner
    }
}

/// The backends' weights laid end to end: backend `i` owns as many of the positions `0..total` as
/// it weighs. Weights are reduced by their greatest common divisor.
#[derive(Debug)]
pub(super) struct Shares {
    /// The first position behind each backend's own.
    ends: Box<[u64]>,
}

impl Shares {
    /// Backends with these weights in any unit, each taken as at least 1.
    pub(super) fn new(weights: impl Iterator<Item = u64> + Clone) -> Self {
        let weights = weights.map(|weight| weight.max(1));
        let divisor = weights.clone().fold(0, gcd).max(1);
        let mut end = 0;
        let ends = weights
            .map(|weight| {
                end += weight / divisor;
                end
            })
            .collect();
        Self { ends }
    }

    /// `count` backends that weigh the same.
    pub(super) fn equal(count: usize) -> Self {
        Self::new(std::iter::repeat_n(1, count))
    }

    /// How many positions there are; 0 without backends.
    pub(super) fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Who owns `position`.
    pub(super) fn owner(&self, position: u64) -> usize {
        self.ends.partition_point(|&end| end <= position)
    }

    /// A backend drawn by weight, by a uniform hash.
    pub(super) fn at(&self, hash: u64) -> usize {
        self.owner(scale(hash, self.total()))
    }

    /// How many positions backend `index` owns.
    fn owned_by(&self, index: usize) -> u64 {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.ends[index] - start
    }

    /// A usable backend drawn by weight, when the first choice cannot serve.
    pub(super) fn redraw(
        &self,
        seed: u64,
        backends: &[Arc<Backend>],
        skip: &Skip,
    ) -> Option<usize> {
        redraw(
            seed,
            backends.len(),
            |index| usable(index, backends, skip),
            |hash| self.at(hash),
            |index| self.owned_by(index),
        )
    }
}

/// One of `count` backends that fits, in place of a first choice that does not; the same for the same
/// `seed`.
///
/// `at` draws a backend by a uniform hash; doing so until one comes up that `fits` gives each of those
/// its proportion of the lost share and its neighbours nothing extra. The look at every
/// backend behind the last draw goes by `weight`, in the same proportions, so that the bound on
/// draws does not show.
#[cold]
pub(super) fn redraw(
    seed: u64,
    count: usize,
    fits: impl Fn(usize) -> bool,
    at: impl Fn(u64) -> usize,
    weight: impl Fn(usize) -> u64,
) -> Option<usize> {
    (0..REDRAWS)
        .map(|attempt| at(draw(seed, attempt)))
        .find(|&index| fits(index))
        .or_else(|| {
            let mut reservoir = Reservoir::new(draw(seed, REDRAWS));
            for index in (0..count).filter(|&index| fits(index)) {
                reservoir.offer(index, weight(index));
            }
            reservoir.winner()
        })
}

/// The greatest common divisor, by Euclid; `gcd(0, n)` is `n`.
pub(super) fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{Backends, assert_shares};

    #[test]
    fn each_backend_owns_as_many_positions_as_it_weighs() {
        let shares = Shares::new([4, 2, 6].into_iter());
        let owners: Vec<usize> = (0..shares.total()).map(|at| shares.owner(at)).collect();
        assert_eq!(owners, [0, 0, 1, 2, 2, 2]);
    }

    #[test]
    fn the_extremes_of_a_hash_stay_inside() {
        let shares = Shares::new([1, 65_535].into_iter());
        assert_eq!(shares.at(0), 0);
        assert_eq!(shares.at(u64::MAX), 1);
    }

    #[test]
    fn a_reservoir_honours_weights() {
        let mut counts = [0; 3];
        for seed in 0..60_000 {
            let mut reservoir = Reservoir::new(draw(seed, 0));
            for (index, weight) in [1, 2, 3].into_iter().enumerate() {
                reservoir.offer(index, weight);
            }
            counts[reservoir.winner().unwrap()] += 1;
        }
        assert_shares(&counts, &[1.0, 2.0, 3.0], 0.03);
    }

    #[test]
    fn a_redraw_finds_the_only_usable_one_among_thousands() {
        let backends = Backends::new(&[1; 10_000]);
        for index in (0..10_000).filter(|&index| index != 7_654) {
            backends.set_down(index, true);
        }
        let shares = Shares::equal(10_000);
        for seed in 0..20 {
            let picked = shares.redraw(seed, &backends.all, &Skip::none());
            assert_eq!(picked, Some(7_654));
        }
    }

    #[test]
    fn the_look_at_every_backend_is_as_fair_as_the_draws() {
        // A giant that is down makes nearly every draw miss, so the scan behind them decides.
        let backends = Backends::new(&[65_535, 1, 2, 1]);
        backends.set_down(0, true);
        let shares = Shares::new([65_535, 1, 2, 1].into_iter());
        let mut counts = [0; 4];
        for seed in 0..40_000 {
            counts[shares.redraw(seed, &backends.all, &Skip::none()).unwrap()] += 1;
        }
        assert_shares(&counts, &[0.0, 1.0, 2.0, 1.0], 0.05);
    }
}
