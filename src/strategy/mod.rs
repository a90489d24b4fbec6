//! Choosing a backend. Pure: a pick depends on its arguments and nothing else, so every strategy can
//! be tested and simulated without a network.
//!
//! Adding a strategy is one file here and one line in [`REGISTRY`]; the configuration, the
//! reference and the help text read the registry. Start with `weighted.rs`, the shortest that shows
//! the whole pattern: a first choice that costs little, and when it cannot serve, a draw by weight
//! from `draw.rs`, so that a lost backend's share never falls to its neighbour.

mod contender;
#[cfg(test)]
mod contract;
mod draw;
mod homes;
mod least_connections;
mod maglev;
mod random;
mod round_robin;
mod source_hash;
#[cfg(test)]
pub(crate) mod testing;
mod turns;
mod weighted;

use std::fmt;
use std::sync::Arc;

use crate::model::{Backend, BackendId, ClientAddr, Portion};

/// Picks a backend for a flow.
pub trait Strategy: fmt::Debug + Send + Sync {
    /// Index of the chosen backend in `backends`, never one that is down, full or in `skip` (tried
    /// already), or `None` when none is left.
    ///
    /// `backends` are the candidates that the strategy was built over, in the same order.
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize>;
}

/// Everything a pick may depend on besides the backends.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// Who connects.
    pub source: ClientAddr,
    /// The service's cursor: drawn once for a session, kept for its retries.
    pub sequence: u64,
    /// Uniformly random, drawn once for a session.
    pub entropy: u64,
}

/// A backend that may serve, as the roster decided: the raw material of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Who it is.
    pub id: BackendId,
    /// Configured weight, at least 1.
    pub weight: u32,
    /// How much of it counts now; heeded by strategies that ignore weights, too.
    pub portion: Portion,
}

impl Candidate {
    /// What counts of the weight, in thousandths.
    pub fn effective_weight(&self) -> u64 {
        self.portion.of_weight(self.weight.max(1))
    }
}

/// What a service may say about its strategy beyond its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// All backends of the service, eligible or not: the size that a table is laid out for.
    pub configured: usize,
    /// Leading bits of an IPv6 source that `source-hash` looks at, 1 to 128.
    pub ipv6_prefix: u8,
    /// How much `source-hash` gives a backend at most, in thousandths of its even share of all
    /// sessions and more than 1,000; `None` is without a bound.
    pub max_load: Option<u32>,
}

/// Indices that a session has tried already.
#[derive(Clone, Debug, Default)]
pub struct Skip {
    tried: [u32; Skip::MOST],
    len: usize,
}

impl Skip {
    /// The most backends that one session tries.
    pub const MOST: usize = 16;

    /// Nothing tried yet.
    pub fn none() -> Self {
        Self::default()
    }

    /// Marks `index` as tried; beyond [`Skip::MOST`] the mark is dropped, which the bound on
    /// retries rules out.
    pub fn insert(&mut self, index: usize) {
        if let (Ok(index), Some(slot)) = (u32::try_from(index), self.tried.get_mut(self.len)) {
            *slot = index;
            self.len += 1;
        }
    }

    /// Whether `index` was tried.
    pub fn contains(&self, index: usize) -> bool {
        self.tried[..self.len]
            .iter()
            .any(|&tried| tried as usize == index)
    }

    /// The indices that were tried.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        self.tried[..self.len].iter().map(|&tried| tried as usize)
    }

    /// The indices from `first` on, counted from there.
    pub fn beyond(&self, first: usize) -> Self {
        let mut beyond = Self::none();
        for index in self.iter().filter_map(|index| index.checked_sub(first)) {
            beyond.insert(index);
        }
        beyond
    }

    /// Whether nothing was tried.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// In whatever order they were tried.
impl PartialEq for Skip {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().all(|index| other.contains(index))
    }
}

impl Eq for Skip {}

/// What decides between backends that may all serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Whose turn it is: the order in which clients come.
    Turn,
    /// The sessions that backends have just now, and chance.
    Load,
    /// Who the client is: the same one comes to the same backend.
    Source,
}

/// One registered strategy.
pub struct Entry {
    /// The name that `strategy = "…"` takes.
    pub name: &'static str,
    /// When to choose it, in one line.
    pub summary: &'static str,
    /// Whether a backend's weight changes its share.
    pub weighted: bool,
    /// What a first choice comes from.
    pub goes_by: Basis,
    build: fn(&[Candidate], &Parameters) -> Box<dyn Strategy>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Entry {}

impl Entry {
    /// A strategy over `candidates`, whose order is the order of the backends it will be shown.
    pub fn build(&self, candidates: &[Candidate], parameters: &Parameters) -> Box<dyn Strategy> {
        (self.build)(candidates, parameters)
    }
}

/// Every strategy there is, in the order of the help text.
pub static REGISTRY: &[Entry] = &[
    round_robin::ENTRY,
    weighted::ENTRY,
    least_connections::ENTRY,
    source_hash::ENTRY,
    random::ENTRY,
];

/// The strategy of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    REGISTRY.iter().find(|entry| entry.name == name)
}
