//! Smooth weighted round-robin: turns in proportion to weight, evenly interleaved. How the turns
//! are laid out is told in [`turns`](super::turns).

use std::sync::Arc;

use super::draw::{Shares, usable};
use super::turns::Turns;
use super::{Basis, Candidate, Entry, Flow, Parameters, Skip, Strategy};
use crate::model::Backend;

pub(super) const ENTRY: Entry = Entry {
    name: "weighted",
    summary: "turns in proportion to weight, evenly interleaved; for servers of unequal size",
    weighted: true,
    goes_by: Basis::Turn,
    build,
};

fn build(candidates: &[Candidate], _: &Parameters) -> Box<dyn Strategy> {
    let weights = candidates.iter().map(Candidate::effective_weight);
    Box::new(Weighted::new(Shares::new(weights)))
}

/// Turns in proportion to the shares.
#[derive(Debug)]
pub(super) struct Weighted {
    turns: Turns,
}

impl Weighted {
    pub(super) fn new(shares: Shares) -> Self {
        Self {
            turns: Turns::new(shares),
        }
    }
}

impl Strategy for Weighted {
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
        let turn = self.turns.at(flow.sequence)?;
        if usable(turn, backends, skip) {
            return Some(turn);
        }
        self.turns.shares().redraw(flow.sequence, backends, skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{Pool, at_sequence};

    #[test]
    fn five_one_one_is_exact_in_every_window_and_interleaved() {
        let pool = Pool::new(&ENTRY, &[5, 1, 1]);
        for from in 0..50 {
            assert_eq!(pool.count((from..from + 7).map(at_sequence)), [5, 1, 1]);
        }
        let order: Vec<_> = (0..7).map(|at| pool.pick(&at_sequence(at))).collect();
        assert_ne!(order[..5], [Some(0); 5]);
    }

    #[test]
    fn a_window_is_exact_with_the_extremes_of_weight() {
        let pool = Pool::new(&ENTRY, &[65_535, 1]);
        let from = u64::MAX - 100_000;
        assert_eq!(
            pool.count((from..from + 65_536).map(at_sequence)),
            [65_535, 1]
        );
    }
}
