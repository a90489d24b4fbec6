//! The backend that has failed a session first, while that still looks for one: what has become of the
//! session is counted there once that is known, and there only. A client that meets three dead backends
//! is one client that was lost, not three; it was on its way to the first, and the others were tried to
//! save it.

use std::sync::Arc;
use std::time::Instant;

use crate::model::Load;
use crate::pool::moment;

/// Who is to blame. Nobody for nearly every session.
#[derive(Debug, Default)]
pub(super) struct Blame(Option<Arc<Load>>);

impl Blame {
    /// That backend has failed the session.
    pub(super) fn put_on(&mut self, load: &Arc<Load>) {
        self.0.get_or_insert_with(|| Arc::clone(load));
    }

    /// Another backend has taken the session.
    pub(super) fn moved(&mut self, worker: usize) {
        if let Some(load) = self.0.take() {
            load.tally(worker).moved_away(moment(Instant::now()));
        }
    }

    /// The session is lost.
    pub(super) fn hurt(&mut self, worker: usize) {
        if let Some(load) = self.0.take() {
            load.tally(worker).hurt(moment(Instant::now()));
        }
    }
}
