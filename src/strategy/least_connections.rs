//! The backend with the fewest sessions for its weight.
//!
//! Up to [`SCANNED`] backends every one is looked at. Above that, looking at all would cost more
//! than a worse choice does, so the best of [`SAMPLED`] weighted draws is taken (power of d
//! choices, Mitzenmacher 2001: the longest queue grows with log log n / log d). Either way the
//! backend whose weighted turn it is goes first and ties do not displace it, so an idle service
//! is served in smooth weighted turns.

use std::sync::Arc;

use super::contender::Contender;
use super::draw::{Reservoir, Shares, draw, usable};
use super::turns::Turns;
use super::{Basis, Candidate, Entry, Flow, Parameters, Skip, Strategy};
use crate::model::Backend;

/// The most backends that a pick compares one by one.
const SCANNED: usize = 64;

/// How many usable backends a pick compares when there are more.
const SAMPLED: usize = 8;

/// How many draws it spends on finding them.
const DRAWS: u64 = 24;

pub(super) const ENTRY: Entry = Entry {
    name: "least-connections",
    summary: "fewest sessions per weight; for long or uneven sessions (samples above 64 backends)",
    weighted: true,
    goes_by: Basis::Load,
    build,
};

fn build(candidates: &[Candidate], _: &Parameters) -> Box<dyn Strategy> {
    let weights = candidates.iter().map(Candidate::effective_weight);
    Box::new(LeastConnections {
        turns: Turns::new(Shares::new(weights)),
    })
}

#[derive(Debug)]
struct LeastConnections {
    turns: Turns,
}

impl Strategy for LeastConnections {
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
        let turn = self.turns.at(flow.sequence)?;
        if backends.len() > SCANNED {
            let sampled = self.sample(turn, flow.entropy, backends, skip);
            if sampled.is_some() {
                return sampled;
            }
        }
        scan(turn, flow.entropy, backends, skip)
    }
}

impl LeastConnections {
    /// The lightest of a few drawn by weight, `turn` among them; `None` if no draw met a usable one.
    fn sample(
        &self,
        turn: usize,
        entropy: u64,
        backends: &[Arc<Backend>],
        skip: &Skip,
    ) -> Option<usize> {
        let drawn = (0..DRAWS).map(|attempt| self.turns.shares().at(draw(entropy, attempt)));
        std::iter::once(turn)
            .chain(drawn)
            .filter(|&index| usable(index, backends, skip))
            .take(SAMPLED)
            .map(|index| Contender::new(index, &backends[index]))
            .reduce(|best, next| {
                if next.is_lighter_than(&best) {
                    next
                } else {
                    best
                }
            })
            .map(|best| best.index)
    }
}

/// The lightest of all. `turn` wins its ties; among others that tie a draw by weight decides, so
/// that the neighbour of a busy or dead backend gains no more than anybody else.
fn scan(turn: usize, entropy: u64, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
    let contender = |index: usize| {
        usable(index, backends, skip).then(|| Contender::new(index, &backends[index]))
    };
    let first = contender(turn);
    let mut best = first;
    let mut ties = Reservoir::new(entropy);
    for next in (0..backends.len()).filter_map(contender) {
        match best {
            Some(lightest) if !next.is_lighter_than(&lightest) => {
                if !next.ties_with(&lightest) {
                    continue;
                }
            }
            Some(_) | None => {
                best = Some(next);
                ties = Reservoir::new(entropy);
            }
        }
        ties.offer(next.index, next.weight);
    }
    match (first, best) {
        (Some(first), Some(best)) if first.ties_with(&best) => Some(first.index),
        _ => ties.winner(),
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;
    use crate::strategy::testing::{Backends, Pool, assert_shares, at_sequence};

    #[test]
    fn the_fewest_sessions_win() {
        let pool = Pool::new(&ENTRY, &[1, 1, 1]);
        pool.backends.enter(0, 2);
        pool.backends.enter(2, 1);
        assert!((0..100).all(|at| pool.pick(&at_sequence(at)) == Some(1)));
    }

    #[test]
    fn sessions_count_by_weight() {
        let pool = Pool::new(&ENTRY, &[1, 10]);
        pool.backends.enter(0, 1);
        pool.backends.enter(1, 9);
        assert_eq!(pool.pick(&at_sequence(0)), Some(1));
        pool.backends.enter(1, 2);
        assert_eq!(pool.pick(&at_sequence(0)), Some(0));
    }

    #[test]
    fn sessions_and_failures_count_by_portion_too() {
        let pool = Pool::over(&ENTRY, Backends::with_portions(&[10, 10], &[1000, 100]));
        pool.backends.enter(0, 9);
        pool.backends.enter(1, 1);
        assert_eq!(pool.pick(&at_sequence(0)), Some(0));
        pool.backends.enter(0, 2);
        assert_eq!(pool.pick(&at_sequence(0)), Some(1));
        pool.backends.all[1].load().penalise();
        assert_eq!(
            pool.pick(&at_sequence(0)),
            Some(0),
            "as one session per weight"
        );
    }

    #[test]
    fn an_idle_service_is_served_in_weighted_turns() {
        for pool in [
            Pool::new(&ENTRY, &[5, 1, 1]),
            Pool::new(&ENTRY, &[1; SCANNED + 1]),
        ] {
            let round = pool
                .backends
                .all
                .iter()
                .map(|b| u64::from(b.weight()))
                .sum();
            let weights: Vec<u32> = pool.backends.all.iter().map(|b| b.weight()).collect();
            assert_eq!(pool.count((0..round).map(at_sequence)), weights);
        }
    }

    #[test]
    fn ties_between_some_are_shared_by_weight_whoever_stands_next_to_the_busy() {
        let pool = Pool::new(&ENTRY, &[1, 4, 4, 1, 2, 1]);
        pool.backends.enter(1, 4);
        pool.backends.enter(2, 5);
        let counts = pool.count((0..60_000).map(at_sequence));
        assert_shares(&counts, &[1.0, 0.0, 0.0, 1.0, 2.0, 1.0], 0.04);
    }

    #[test]
    fn a_sample_avoids_the_busy_half_of_many() {
        let pool = Pool::new(&ENTRY, &[1; 1_000]);
        for busy in 0..500 {
            pool.backends.enter(busy, 3);
        }
        let counts = pool.count((0..20_000).map(at_sequence));
        let busy: u32 = counts[..500].iter().sum();
        // All eight of a sample are busy once in 256 picks.
        assert!(busy < 160, "{busy}");
    }

    #[test]
    fn the_only_usable_one_among_thousands_is_found() {
        let pool = Pool::new(&ENTRY, &[1; 10_000]);
        for index in (0..10_000).filter(|&index| index != 4_321) {
            pool.backends.set_down(index, true);
        }
        assert_eq!(pool.pick(&at_sequence(7)), Some(4_321));
    }

    /// What happens to the session that backend `0..n` is given.
    #[derive(Clone, Copy)]
    enum Server {
        /// Takes so many ticks for a session.
        Serves(u64),
        /// Fails it after one tick.
        Fails,
    }

    /// Plays `sessions`, one a tick, against `servers`, as a session does: count, serve or fail,
    /// report. Returns how many each was given. A probe finds everybody alive every 1,000 ticks.
    fn simulate(servers: &[Server], sessions: u64, penalise: bool) -> Vec<u32> {
        let pool = Pool::new(&ENTRY, &vec![1; servers.len()]);
        let load = |index: usize| pool.backends.all[index].load();
        let mut counts = vec![0; servers.len()];
        let mut ends = BinaryHeap::new();
        for now in 0..sessions {
            while let Some(&Reverse((end, index))) = ends.peek() {
                if end > now {
                    break;
                }
                ends.pop();
                load(index).leave();
                match servers[index] {
                    Server::Serves(_) => load(index).relent(),
                    Server::Fails if penalise => load(index).penalise(),
                    Server::Fails => {}
                }
            }
            if now % 1_000 == 0 {
                (0..servers.len()).for_each(|index| load(index).relent());
            }
            let index = pool.pick(&at_sequence(now)).unwrap();
            counts[index] += 1;
            load(index).enter();
            let ticks = match servers[index] {
                Server::Serves(ticks) => ticks,
                Server::Fails => 1,
            };
            ends.push(Reverse((now + ticks, index)));
        }
        counts
    }

    #[test]
    fn servers_get_work_as_fast_as_they_finish_it() {
        use Server::Serves;
        let counts = simulate(&[Serves(100), Serves(200), Serves(400)], 70_000, true);
        assert_shares(&counts, &[4.0, 2.0, 1.0], 0.05);
    }

    #[test]
    fn a_backend_that_fails_fast_does_not_attract_everything() {
        use Server::{Fails, Serves};
        let servers = [Serves(100), Serves(100), Serves(100), Fails];
        let without = simulate(&servers, 50_000, false)[3];
        let with = simulate(&servers, 50_000, true)[3];
        assert!(without > 45_000, "nothing to prevent: {without}");
        // Fifty probe intervals, and a few tries in each.
        assert!(with < 300, "{with}");
    }
}
