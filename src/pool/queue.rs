//! Who waits while every backend of a service is full: first come, first served across workers.
//!
//! A session that finds no room joins the line with its place in the order of arrivals (the
//! service's cursor, drawn once a session), so a session whose connect failed comes back where it
//! was. Whoever makes room serves the line, on its own thread: for the oldest that may find a place it
//! has the strategy pick over the snapshot in force, counts the session towards the backend
//! and sends the [`Lease`] to it. A waiter is thus woken with its place in hand, and has nothing to
//! race for. Room is made
//!
//! - by a session that leaves a backend with a cap ([`Freed`], called by the drop of its lease),
//! - by control, when a backend comes back, is added, or has its cap raised: all of these end in
//!   [`Service::swap`], which serves the line; it also ends the waiting of those whom
//!   nobody can serve any more.
//!
//! **Newcomers do not overtake.** While anybody waits, a newcomer joins the line like
//! everybody else and serves it, which gives it a place only if nobody older could have used it.
//! Only a newcomer that saw an empty line takes a place on its own.
//!
//! **Nobody is forgotten.** Joining counts the waiter first and looks for room afterwards; leaving
//! makes room first and looks for waiters afterwards. The four accesses are in one order (`SeqCst`),
//! so at least one of the two sees the other. A swapped snapshot is seen because `swap` serves the
//! line behind its store, under the lock under which a joiner loads it. The line's place in the house
//! belongs to the service's name: the loads of its backends point here, so leases that
//! are older than a cap, a reload or a service that left the file and came back find it too.
//!
//! **No place is lost.** Where one has left whom a lease is sent to, or leaves before it is received, the
//! lease is dropped, and so passes on.
//!
//! **The lock is short.** Whose turn it is costs one look for each combination of backends that fail just
//! now, however long the line is (`line.rs`). Places are handed out a few at a time, and who has one is
//! woken after the lock.
//!
//! A service without caps never comes here; one with caps and without waiters pays one load of a
//! counter that nobody writes.

mod line;

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use self::line::{Line, News, Turn, Waiter};
use super::Lease;
use super::service::{Service, Snapshot};
use crate::model::Freed;
use crate::strategy::{Flow, Skip};

/// The line of one service.
#[derive(Debug, Default)]
pub struct Queue {
    /// How many wait; written under the lock.
    waiting: AtomicUsize,
    line: Mutex<Line>,
    counts: Counts,
}

/// How waiting ended.
#[derive(Debug)]
pub enum Outcome {
    /// There is a place.
    Placed(Placed),
    /// Nobody is left who may serve, full or not.
    Nobody,
}

/// A place at a backend, and the table by which it was found.
#[derive(Debug)]
pub struct Placed {
    /// The place.
    pub lease: Lease,
    /// The backend's index in `snapshot`.
    pub index: usize,
    /// What was in force then.
    pub snapshot: Arc<Snapshot>,
    /// Who failed the session already, by index in `snapshot`.
    pub skip: Skip,
}

/// As many wait as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

/// What became of those who waited, since the service's name appeared.
#[derive(Debug, Default)]
struct Counts {
    placed: AtomicU64,
    full: AtomicU64,
    timed_out: AtomicU64,
    left: AtomicU64,
    unserved: AtomicU64,
}

/// The counts as of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueSum {
    /// Clients that wait now.
    pub waiting: usize,
    /// Clients that got a place through the queue, however short their wait.
    pub placed: u64,
    /// Clients that were turned away because the queue was full.
    pub full: u64,
    /// Clients that waited for `queue.timeout`.
    pub timed_out: u64,
    /// Clients that left.
    pub left: u64,
    /// Clients that were turned away because no backend was left that may serve.
    pub unserved: u64,
}

impl Queue {
    /// Serves the line from the snapshots of `service` from now on.
    pub(super) fn lead_to(&self, service: &Arc<Service>) {
        self.lock().lead_to(service);
    }

    /// Whether anybody waits: newcomers then do, too.
    pub fn is_waited_in(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Joins the line, and serves it. The session was given `skip` over `snapshot` so far.
    ///
    /// # Errors
    /// When nobody has room and as many wait already as `snapshot` allows.
    pub fn join(
        self: &Arc<Self>,
        flow: Flow,
        skip: Skip,
        snapshot: Arc<Snapshot>,
    ) -> Result<Waiting, QueueFull> {
        let most = snapshot.queue.size as usize;
        let (served, outcome) = oneshot::channel();
        let waiter = Waiter { flow, served };
        let (turn, is_served, excess) = self.with_line(|line, news| {
            let turn = line.join(waiter, skip, &snapshot);
            // Counted before looking for room: see above.
            self.count(line);
            let is_served = line.serve(news);
            let is_excess = line.len() > most;
            let excess = is_excess.then(|| line.remove(&turn)).flatten();
            (turn, is_served, excess)
        });
        if !is_served {
            self.serve();
        }
        if excess.is_some() {
            self.counts.full.fetch_add(1, Ordering::Relaxed);
            return Err(QueueFull);
        }
        Ok(Waiting {
            queue: Arc::clone(self),
            turn,
            outcome,
            over: false,
            timed_out: false,
        })
    }

    /// Gives the room that there is to those whose turn it is, and turns away whom nobody may serve.
    pub(super) fn serve(&self) {
        while !self.with_line(Line::serve) {}
    }

    /// Changes the line, counts it, and then tells those who have left it.
    fn with_line<T>(&self, change: impl FnOnce(&mut Line, &mut News) -> T) -> T {
        let mut news = News::default();
        let mut line = self.lock();
        let changed = change(&mut line, &mut news);
        self.count(&line);
        drop(line);
        self.tell(news);
        changed
    }

    /// Not under the lock: it wakes other threads, and a place that nobody takes comes here again.
    fn tell(&self, news: News) {
        let add = |count: &AtomicU64, by: usize| count.fetch_add(by as u64, Ordering::Relaxed);
        if !news.placed.is_empty() {
            add(&self.counts.placed, news.placed.len());
        }
        for (waiter, placed) in news.placed {
            drop(waiter.served.send(Outcome::Placed(placed)));
        }
        for group in news.hopeless {
            add(&self.counts.unserved, group.len());
            for waiter in group.into_values() {
                drop(waiter.served.send(Outcome::Nobody));
            }
        }
    }

    /// What became of those who waited.
    pub fn sum(&self) -> QueueSum {
        let counts = &self.counts;
        QueueSum {
            waiting: self.waiting.load(Ordering::Relaxed),
            placed: counts.placed.load(Ordering::Relaxed),
            full: counts.full.load(Ordering::Relaxed),
            timed_out: counts.timed_out.load(Ordering::Relaxed),
            left: counts.left.load(Ordering::Relaxed),
            unserved: counts.unserved.load(Ordering::Relaxed),
        }
    }

    fn count(&self, line: &Line) {
        self.waiting.store(line.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // Nothing under the lock panics; if it did, the line would still be one.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Freed for Queue {
    fn freed(&self) {
        if self.is_waited_in() {
            self.serve();
        }
    }
}

/// One session in the line, until it has its outcome or is dropped.
#[derive(Debug)]
pub struct Waiting {
    queue: Arc<Queue>,
    turn: Turn,
    outcome: oneshot::Receiver<Outcome>,
    over: bool,
    timed_out: bool,
}

impl Waiting {
    /// How it ended, once it has.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.outcome).poll(cx).map(|outcome| {
            self.over = true;
            // The line lets go of nobody without a word.
            outcome.unwrap_or(Outcome::Nobody)
        })
    }

    /// Leaves the line because `queue.timeout` has passed; without it, the session itself ends.
    pub fn time_out(mut self) {
        self.timed_out = true;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let (queue, turn) = (&self.queue, &self.turn);
        let waiter = queue.with_line(|line, _| line.remove(turn));
        if waiter.is_some() {
            let counts = &self.queue.counts;
            let count = match self.timed_out {
                true => &counts.timed_out,
                false => &counts.left,
            };
            count.fetch_add(1, Ordering::Relaxed);
        }
        // A place that was sent meanwhile goes with the channel, and so to the next in line.
    }
}

#[cfg(test)]
mod tests;
