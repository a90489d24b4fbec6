//! What has moved through one session so far.

use std::cell::Cell;
use std::time::Instant;

/// How many bytes have moved each way, and when something last did. The relay writes it in place of
/// counts of its own, and whoever lists sessions reads it, on the same thread.
#[derive(Debug)]
pub struct Meter {
    to_backend: Cell<u64>,
    to_client: Cell<u64>,
    active: Cell<Instant>,
}

impl Meter {
    /// Of a session that begins `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            to_backend: Cell::new(0),
            to_client: Cell::new(0),
            active: Cell::new(now),
        }
    }

    /// Bytes written to the backend, and to the client.
    pub fn moved(&self) -> (u64, u64) {
        (self.to_backend.get(), self.to_client.get())
    }

    /// When a byte or a FIN last came through; until then, when the session or its relay began.
    pub fn active(&self) -> Instant {
        self.active.get()
    }

    /// So much has moved in all.
    pub fn set_moved(&self, (to_backend, to_client): (u64, u64)) {
        self.to_backend.set(to_backend);
        self.to_client.set(to_client);
    }

    /// Something came through `now`.
    pub fn touch(&self, now: Instant) {
        self.active.set(now);
    }
}
