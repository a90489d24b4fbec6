//! Equal turns, one after the other, by the service's cursor. While not everybody gets its full
//! portion, turns in proportion to the portions, and still without a look at the weights.

use std::sync::Arc;

use super::draw::{Shares, usable};
use super::weighted::Weighted;
use super::{Basis, Candidate, Entry, Flow, Parameters, Skip, Strategy};
use crate::model::Backend;

pub(super) const ENTRY: Entry = Entry {
    name: "round-robin",
    summary: "equal turns; for equal servers and requests of similar cost",
    weighted: false,
    goes_by: Basis::Turn,
    build,
};

fn build(candidates: &[Candidate], _: &Parameters) -> Box<dyn Strategy> {
    if candidates
        .windows(2)
        .all(|pair| pair[0].portion == pair[1].portion)
    {
        return Box::new(RoundRobin {
            count: candidates.len() as u64,
            shares: Shares::equal(candidates.len()),
        });
    }
    let portions = candidates.iter().map(|candidate| candidate.portion);
    let parts = portions.map(|portion| u64::from(portion.thousandths()));
    Box::new(Weighted::new(Shares::new(parts)))
}

#[derive(Debug)]
struct RoundRobin {
    count: u64,
    shares: Shares,
}

impl Strategy for RoundRobin {
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
        let turn = flow.sequence.checked_rem(self.count)? as usize;
        if usable(turn, backends, skip) {
            return Some(turn);
        }
        self.shares.redraw(flow.sequence, backends, skip)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::strategy::testing::{Backends, Pool, at_sequence};

    #[test]
    fn turns_follow_the_order_of_the_file() {
        let pool = Pool::new(&ENTRY, &[1, 1, 1]);
        let order: Vec<_> = (0..7).map(|at| pool.pick(&at_sequence(at))).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0].map(Some));
    }

    #[test]
    fn any_window_of_n_turns_gives_each_one_and_weights_do_not_matter() {
        let pool = Pool::new(&ENTRY, &[9, 1, 5, 2]);
        for from in 1_000..1_020 {
            assert_eq!(pool.count((from..from + 4).map(at_sequence)), [1; 4]);
        }
    }

    #[test]
    fn portions_give_turns_in_proportion_evenly_interleaved() {
        let backends = Backends::with_portions(&[9, 1, 1], &[1000, 1000, 500]);
        let pool = Pool::over(&ENTRY, backends);
        for from in 0..20 {
            assert_eq!(pool.count((from..from + 5).map(at_sequence)), [2, 2, 1]);
        }
    }

    #[test]
    fn the_cursor_may_wrap() {
        let pool = Pool::new(&ENTRY, &[1, 1, 1]);
        assert!(pool.pick(&at_sequence(u64::MAX)).is_some());
        assert_eq!(pool.pick(&at_sequence(0)), Some(0));
    }
}
