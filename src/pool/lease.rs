//! The in-flight count of a backend as an RAII guard.

use std::sync::Arc;

use crate::model::Backend;

/// One session counted towards a backend, from the pick until the lease is dropped. Taken before
/// the connect, so that a backend that is slow to connect does not attract load. When the backend
/// has a cap, dropping it hands the place to whoever has waited longest.
#[derive(Debug)]
pub struct Lease {
    backend: Arc<Backend>,
}

impl Lease {
    /// Counts one session towards `backend`, unless it is full.
    pub fn try_acquire(backend: &Arc<Backend>) -> Option<Self> {
        backend.load().enter().then(|| Self {
            backend: Arc::clone(backend),
        })
    }

    /// Whom the session is counted towards.
    pub fn backend(&self) -> &Backend {
        &self.backend
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.load().leave();
    }
}
