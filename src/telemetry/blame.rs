//! Which backends have failed a session that still looks for one: those that are counted once it is
//! known how that went.

use std::sync::Arc;
use std::time::Instant;

use super::clock::moment;
use crate::model::Load;

/// The backends to blame. Nothing for nearly every session, so it weighs as little as can be.
#[expect(
    clippy::box_collection,
    reason = "a vector of its own would weigh three times as much in each idle session"
)]
#[derive(Debug, Default)]
pub(super) struct Blame(Option<Box<Vec<Arc<Load>>>>);

impl Blame {
    /// That backend has failed the session. There are no more than a session may try.
    pub(super) fn put_on(&mut self, load: &Arc<Load>) {
        self.0.get_or_insert_default().push(Arc::clone(load));
    }

    /// Another backend has taken the session.
    pub(super) fn moved(&mut self, worker: usize) {
        for load in self.0.take().into_iter().flat_map(|all| *all) {
            load.tally(worker).moved_away(moment(Instant::now()));
        }
    }

    /// The session is lost.
    pub(super) fn hurt(&mut self, worker: usize) {
        for load in self.0.take().into_iter().flat_map(|all| *all) {
            load.tally(worker).hurt(moment(Instant::now()));
        }
    }
}
