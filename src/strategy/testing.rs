//! What the tests of the strategies share: pools of backends whose health and load a test sets.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::draw::draw;
use super::{Candidate, Entry, Flow, Parameters, Skip, Strategy};
use crate::model::{Backend, BackendId, ClientAddr, DownFlag, Load, Portion};

/// Backends `b0`, `b1`, …
pub(super) struct Backends {
    pub(super) all: Vec<Arc<Backend>>,
    flags: Vec<Arc<DownFlag>>,
}

impl Backends {
    pub(super) fn new(weights: &[u32]) -> Self {
        Self::with_portions(weights, &vec![1000; weights.len()])
    }

    /// Backends of these weights, of which so many thousandths count.
    pub(super) fn with_portions(weights: &[u32], portions: &[u64]) -> Self {
        let flags: Vec<_> = weights
            .iter()
            .map(|_| Arc::new(DownFlag::default()))
            .collect();
        let all = weights
            .iter()
            .zip(portions)
            .zip(&flags)
            .enumerate()
            .map(|(index, ((&weight, &portion), down))| {
                let backend = Backend::new(
                    BackendId::new("web", format!("b{index}")),
                    SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
                    weight,
                    Arc::new(Load::new(1)),
                    Arc::clone(down),
                );
                Arc::new(backend.with_portion(Portion::of(portion, 1000)))
            })
            .collect();
        Self { all, flags }
    }

    pub(super) fn set_down(&self, index: usize, down: bool) {
        self.flags[index].set(down);
    }

    pub(super) fn enter(&self, index: usize, sessions: u32) {
        for _ in 0..sessions {
            self.all[index].load().enter();
        }
    }
}

/// Backends and a strategy over them.
pub(super) struct Pool {
    pub(super) backends: Backends,
    pub(super) strategy: Box<dyn Strategy>,
}

impl Pool {
    pub(super) fn new(entry: &Entry, weights: &[u32]) -> Self {
        Self::over(entry, Backends::new(weights))
    }

    pub(super) fn over(entry: &Entry, backends: Backends) -> Self {
        let strategy = strategy(entry, &backends.all, backends.all.len());
        Self { backends, strategy }
    }

    pub(super) fn pick(&self, flow: &Flow) -> Option<usize> {
        self.pick_but(flow, &Skip::none())
    }

    pub(super) fn pick_but(&self, flow: &Flow, skip: &Skip) -> Option<usize> {
        self.strategy.pick(flow, &self.backends.all, skip)
    }

    /// How often each backend is picked for `flows`, none of which may find none.
    pub(super) fn count(&self, flows: impl IntoIterator<Item = Flow>) -> Vec<u32> {
        self.count_but(flows, &Skip::none())
    }

    pub(super) fn count_but(&self, flows: impl IntoIterator<Item = Flow>, skip: &Skip) -> Vec<u32> {
        let mut counts = vec![0; self.backends.all.len()];
        for flow in flows {
            counts[self.pick_but(&flow, skip).unwrap()] += 1;
        }
        counts
    }
}

/// A strategy over `backends` of a file with `configured`.
pub(super) fn strategy(
    entry: &Entry,
    backends: &[Arc<Backend>],
    configured: usize,
) -> Box<dyn Strategy> {
    entry.build(&candidates(backends), &Parameters::of(configured))
}

/// These backends as they serve.
pub(crate) fn candidates(backends: &[Arc<Backend>]) -> Vec<Candidate> {
    let candidate = |backend: &Arc<Backend>| Candidate {
        id: backend.id().clone(),
        weight: backend.weight(),
        portion: backend.portion(),
    };
    backends.iter().map(candidate).collect()
}

impl Parameters {
    /// Those of a file with so many backends that says nothing else.
    pub(crate) fn of(configured: usize) -> Self {
        Self {
            configured,
            ipv6_prefix: 64,
            max_load: None,
        }
    }
}

/// The flow at a position of the cursor, from a source and with an entropy of its own.
pub(super) fn at_sequence(sequence: u64) -> Flow {
    let address = draw(sequence, 1) as u32;
    Flow {
        source: ClientAddr::new(SocketAddr::from((Ipv4Addr::from_bits(address), 40_000))),
        sequence,
        entropy: draw(sequence, 2),
    }
}

/// Asserts that `counts` are in the proportions of `weights`, each to within `tolerance` of its
/// own expected count.
pub(super) fn assert_shares(counts: &[u32], weights: &[f64], tolerance: f64) {
    let picks: u32 = counts.iter().sum();
    let total: f64 = weights.iter().sum();
    for (index, (&count, weight)) in counts.iter().zip(weights).enumerate() {
        let expected = f64::from(picks) * weight / total;
        assert!(
            (f64::from(count) - expected).abs() <= tolerance * expected,
            "backend {index} was picked {count} times instead of {expected:.0}: {counts:?}",
        );
    }
}
