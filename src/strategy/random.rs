//! The lighter of two backends drawn by weight (the power of two choices, Mitzenmacher 2001): nearly
//! as even as looking at all, at the cost of looking at two, and no herd when many balancers decide.

use std::sync::Arc;

use super::contender::Contender;
use super::draw::{Shares, draw, usable};
use super::{Basis, Candidate, Entry, Flow, Parameters, Skip, Strategy};
use crate::model::Backend;

/// How many draws a pick spends on finding two different usable backends.
const DRAWS: u64 = 8;

pub(super) const ENTRY: Entry = Entry {
    name: "random",
    summary: "lighter of two drawn by weight; for many backends or many balancers in front of them",
    weighted: true,
    goes_by: Basis::Load,
    build,
};

fn build(candidates: &[Candidate], _: &Parameters) -> Box<dyn Strategy> {
    let weights = candidates.iter().map(Candidate::effective_weight);
    Box::new(Random {
        shares: Shares::new(weights),
    })
}

#[derive(Debug)]
struct Random {
    shares: Shares,
}

impl Strategy for Random {
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
        let mut drawn = (0..DRAWS)
            .map(|attempt| self.shares.at(draw(flow.entropy, attempt)))
            .filter(|&index| usable(index, backends, skip));
        let Some(one) = drawn.next() else {
            return self
                .shares
                .redraw(draw(flow.entropy, DRAWS), backends, skip);
        };
        let Some(other) = drawn.find(|&index| index != one) else {
            return Some(one);
        };
        // The first drawn wins a tie, so an idle service is served exactly by weight.
        let one = Contender::new(one, &backends[one]);
        let other = Contender::new(other, &backends[other]);
        let lighter = if other.is_lighter_than(&one) {
            other
        } else {
            one
        };
        Some(lighter.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{Pool, assert_shares, at_sequence};

    #[test]
    fn an_idle_service_is_served_by_weight() {
        let pool = Pool::new(&ENTRY, &[1, 2, 3, 10]);
        let counts = pool.count((0..100_000).map(at_sequence));
        assert_shares(&counts, &[1.0, 2.0, 3.0, 10.0], 0.04);
    }

    #[test]
    fn the_busiest_of_all_is_never_picked() {
        let pool = Pool::new(&ENTRY, &[1; 8]);
        pool.backends.enter(3, 1);
        let counts = pool.count((0..50_000).map(at_sequence));
        // Only if eight draws in a row meet nobody else.
        assert!(counts[3] <= 1, "{counts:?}");
    }

    #[test]
    fn sessions_that_stay_are_spread_by_weight() {
        let pool = Pool::new(&ENTRY, &[1, 2, 3, 4]);
        let mut counts = [0; 4];
        for flow in (0..10_000).map(at_sequence) {
            let picked = pool.pick(&flow).unwrap();
            pool.backends.enter(picked, 1);
            counts[picked] += 1;
        }
        assert_shares(&counts, &[1.0, 2.0, 3.0, 4.0], 0.02);
    }
}
