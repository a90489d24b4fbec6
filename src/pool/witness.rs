//! What sessions tell control: that a backend has failed one of them. Only failures are told, and
//! telling never waits: what does not fit is counted and dropped, because by then control has
//! heard enough.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc::{Receiver, Sender, channel};

use crate::health::Symptom;
use crate::model::{Address, Backend, BackendId};

/// One failure of one session.
#[derive(Debug)]
pub struct Testimony {
    /// Who failed it.
    pub backend: BackendId,
    /// Where it was.
    pub address: Address,
    /// How.
    pub symptom: Symptom,
    /// When.
    pub at: Instant,
    /// Since when it had been tried.
    pub since: Instant,
}

/// The sessions' end. Clones share one queue.
#[derive(Clone, Debug)]
pub struct Witness {
    queue: Sender<Testimony>,
    dropped: Arc<AtomicU64>,
}

/// A queue of testimonies, and whom sessions tell them to.
pub fn testimonies() -> (Witness, Receiver<Testimony>) {
    let (queue, told) = channel(MOST_UNHEARD);
    let dropped = Arc::default();
    (Witness { queue, dropped }, told)
}

impl Witness {
    /// Tells that `backend` has failed a session, which had tried it `since` then. Never waits.
    pub fn tell(&self, backend: &Backend, symptom: Symptom, since: Instant) {
        let testimony = Testimony {
            backend: backend.id().clone(),
            address: backend.address(),
            symptom,
            at: Instant::now(),
            since,
        };
        if self.queue.try_send(testimony).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Testimonies that found no room.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// Testimonies that wait to be heard.
const MOST_UNHEARD: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DownFlag, Load};

    #[test]
    fn what_nobody_hears_is_bounded_and_counted() {
        let (witness, mut told) = testimonies();
        let backend = Backend::new(
            BackendId::new("web", "a"),
            "192.0.2.1:80".parse::<Address>().unwrap(),
            1,
            Arc::new(Load::new(1)),
            Arc::new(DownFlag::default()),
        );
        for _ in 0..MOST_UNHEARD + 3 {
            witness.tell(&backend, Symptom::Refused, Instant::now());
        }
        assert_eq!(witness.dropped(), 3);
        assert_eq!(told.try_recv().unwrap().backend, *backend.id());
        witness.tell(&backend, Symptom::Refused, Instant::now());
        assert_eq!(witness.dropped(), 3);
    }
}
