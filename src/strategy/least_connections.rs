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
use super::{Candidate, Entry, Flow, Parameters, Skip, Strategy};
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
    build,
};

fn build(candidates: &[Candidate], _: &Parameters) -> Box<dyn Strategy> {
    let weights = candidates.iter().map(|candidate| candidate.weight);
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
