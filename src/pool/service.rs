//! A service and the immutable table it serves from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, Guard};

use crate::config::{RelayMode, SessionLog, Timeouts};
use crate::model::{Backend, ClientAddr};
use crate::strategy::{Flow, Skip, Strategy};

/// Everything a session needs to know of its service, as of one moment. Immutable: a reload or a
/// health transition swaps in another one.
#[derive(Debug)]
pub struct Snapshot {
    /// Who may serve.
    pub backends: Vec<Arc<Backend>>,
    /// Built over `backends`, in their order.
    pub strategy: Box<dyn Strategy>,
    /// Limits on waiting.
    pub timeouts: Timeouts,
    /// Further backends to try when a connect fails.
    pub retries: u32,
    /// How bytes move.
    pub relay: RelayMode,
    /// Which sessions get a log line.
    pub session_log: SessionLog,
}

impl Snapshot {
    /// A backend for `flow` that is up and not in `skip`, with its index for the next `skip`.
    pub fn pick(&self, flow: &Flow, skip: &Skip) -> Option<(usize, &Arc<Backend>)> {
        let index = self.strategy.pick(flow, &self.backends, skip)?;
        Some((index, self.backends.get(index)?))
    }
}

/// Listeners' common destination: a name, the current snapshot and the cursor. Outlives every
/// reload that keeps its name.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    snapshot: ArcSwap<Snapshot>,
    cursor: Cursor,
}

/// On a cache line of its own: all workers draw from it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cursor(AtomicU64);

impl Service {
    /// A service that serves from `snapshot`.
    pub fn new(name: Arc<str>, snapshot: Snapshot) -> Arc<Self> {
        Arc::new(Self {
            name,
            snapshot: ArcSwap::from_pointee(snapshot),
            cursor: Cursor::default(),
        })
    }

    /// Its name in the file.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The current snapshot. Costs no shared write; hold it for the picks of one session, not for
    /// its life.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Swaps the snapshot. Only control calls this.
    pub fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
    }

    /// What a pick for a new session depends on. Draws from the cursor once; retries reuse it.
    pub fn flow(&self, source: ClientAddr, entropy: u64) -> Flow {
        Flow {
            source,
            sequence: self.cursor.0.fetch_add(1, Ordering::Relaxed),
            entropy,
        }
    }
}
