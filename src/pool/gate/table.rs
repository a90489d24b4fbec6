//! The sources of all clients of a service, counted over all workers.
//!
//! Sessions of one source come to every worker, so a count of them that is exact has to be shared. It is
//! in a table of shards, each under a lock of its own that is held for one look at one set of places: a
//! hundred nanoseconds, for services with such a limit and for no others. To give each worker a share of
//! the limit instead would refuse sources that the kernel's hash brings to one of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::admission::{Entered, Foreseen, Source, SourceRules, Sources};
use crate::pool::clock::moment;

/// Locks that a table of sources is spread over.
const SHARDS: usize = 64;

/// The sources of all clients of a service, in a memory that never grows.
#[derive(Debug)]
pub(super) struct SourceTable {
    shards: Box<[Shard]>,
    /// As many as were asked for.
    pub(super) places: usize,
    /// So that nobody can tell which sources share a place.
    seed: u64,
}

/// On a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
struct Shard(Mutex<Sources>);

impl SourceTable {
    pub(super) fn new(places: usize) -> Arc<Self> {
        let each = places.div_ceil(SHARDS);
        let shards = (0..SHARDS).map(|_| Shard(Mutex::new(Sources::new(each))));
        Arc::new(Self {
            shards: shards.collect(),
            places,
            seed: fastrand::u64(..),
        })
    }

    pub(super) fn enter(
        self: &Arc<Self>,
        source: Source,
        rules: &SourceRules,
        now: Instant,
    ) -> (Entered, Option<Counted>) {
        let hash = self.hash(source);
        let entered = self.with(hash, |sources| {
            sources.enter(source, hash, rules, moment(now))
        });
        let counted = entered.counted.then(|| Counted {
            table: Arc::clone(self),
            source,
            hash,
        });
        (entered, counted)
    }

    pub(super) fn foresee(&self, source: Source, rules: &SourceRules, now: Instant) -> Foreseen {
        let hash = self.hash(source);
        self.with(hash, |sources| {
            sources.foresee(source, hash, rules, moment(now))
        })
    }

    /// Whether nobody is counted.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let mut shards = self.shards.iter();
        shards.all(|shard| shard.0.lock().unwrap().live() == (0, 0))
    }

    fn hash(&self, source: Source) -> u64 {
        xxh3_64_with_seed(&source.bytes(), self.seed)
    }

    fn with<T>(&self, hash: u64, act: impl FnOnce(&mut Sources) -> T) -> T {
        let shard = &self.shards[hash as usize % SHARDS];
        act(&mut shard.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A session that counts towards its source, until dropped.
#[derive(Debug)]
pub struct Counted {
    table: Arc<SourceTable>,
    source: Source,
    hash: u64,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let table = Arc::clone(&self.table);
        table.with(self.hash, |sources| sources.leave(self.source, self.hash));
    }
}
