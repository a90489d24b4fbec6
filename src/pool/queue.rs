//! Who waits while every backend of a service is full: first come, first served across workers.
//!
//! A session that finds no room joins the line with its place in the order of arrivals (the
//! service's cursor, drawn once a session), so a session whose connect failed comes back where it
//! was. Whoever makes room serves the line, on its own thread: it goes through the line from the
//! oldest on, has the strategy pick over the snapshot in force, counts the session towards the backend
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
//! **No place is lost.** A waiter leaves the line before it gives up its end of the channel; a lease that
//! was sent and not received is dropped with that end, and so passes on.
//!
//! A service without caps never comes here; one with caps and without waiters pays one load of a
//! counter that nobody writes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use tokio::sync::oneshot;

use super::Lease;
use super::service::{Seat, Service, Snapshot};
use crate::model::Freed;
use crate::strategy::{Flow, Skip};

/// The line of one service.
#[derive(Debug, Default)]
pub struct Queue {
    /// How many wait; written under the lock.
    waiting: AtomicUsize,
    state: Mutex<State>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct State {
    /// Whose snapshot the line is served from. Who waits holds on to a service, so this one is
    /// there for as long as it matters.
    service: Weak<Service>,
    line: BTreeMap<Turn, Waiter>,
    /// How many ever joined.
    joined: u64,
}

/// A place in the line: the cursor, and a number that tells sessions of two services apart which had
/// the same name one after the other.
type Turn = (u64, u64);

/// Why the line is gone through.
#[derive(Clone, Copy, Debug)]
enum Scope {
    /// There may be room.
    Room,
    /// Everything may be otherwise.
    Everybody,
}

#[derive(Debug)]
struct Waiter {
    flow: Flow,
    /// Who failed it already, by index in `snapshot`.
    skip: Skip,
    snapshot: Arc<Snapshot>,
    served: oneshot::Sender<Outcome>,
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
        self.lock().service = Arc::downgrade(service);
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
        let waiter = Waiter {
            flow,
            skip,
            snapshot,
            served,
        };
        let (turn, full) = self.with_line(|state, unclaimed| {
            let turn = (flow.sequence, state.joined);
            state.joined += 1;
            state.line.insert(turn, waiter);
            // Counted before looking for room: see above.
            self.count(state);
            self.serve(state, Scope::Room, unclaimed);
            self.dismiss(state, turn, unclaimed);
            let full = state.line.len() > most && state.line.remove(&turn).is_some();
            (turn, full)
        });
        if full {
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

    /// Goes through the whole line: with the snapshot changes who may be served, and whether anybody
    /// is left for that.
    pub(super) fn serve_all(&self) {
        self.with_line(|state, unclaimed| self.serve(state, Scope::Everybody, unclaimed));
    }

    /// Gives the room that there is to those whose turn it is, and turns away whom nobody may serve.
    fn serve(&self, state: &mut State, scope: Scope, unclaimed: &mut Vec<Outcome>) {
        let snapshot = state.snapshot();
        // Those who were looked at and stay: nobody behind them may have what they could use.
        let mut stayed = Vec::new();
        let mut room = true;
        let mut last = None;
        while let Some((turn, failed_before)) = state.after(last) {
            last = Some(turn);
            // Without room for one who may go anywhere, there is none for others like it; one who was
            // failed may have nobody left.
            if !room && !failed_before {
                stayed.push(turn);
                continue;
            }
            loop {
                match state.look(turn, snapshot.as_ref()) {
                    Seat::Nobody => {
                        self.tell(state, turn, None, unclaimed);
                        break;
                    }
                    Seat::Full => {
                        room &= failed_before;
                        stayed.push(turn);
                        break;
                    }
                    Seat::Taken(index, lease) => {
                        // It may have become free since those before were looked at: then it is
                        // theirs, and this one is looked at again.
                        let could = |older: &Turn| state.could_use(older, index);
                        let Some(heir) = stayed.iter().position(could) else {
                            self.tell(state, turn, Some((index, lease)), unclaimed);
                            break;
                        };
                        let heir = stayed.remove(heir);
                        self.tell(state, heir, Some((index, lease)), unclaimed);
                    }
                }
            }
            if !room && matches!(scope, Scope::Room) {
                return;
            }
        }
    }

    /// Turns the waiter away if nobody is left who may serve it. One that comes behind others who find
    /// no room is not looked at otherwise.
    fn dismiss(&self, state: &mut State, turn: Turn, unclaimed: &mut Vec<Outcome>) {
        let snapshot = state.snapshot();
        if let Some(waiter) = state.line.get_mut(&turn) {
            let is_hopeless = snapshot.is_none_or(|snapshot| {
                waiter.move_to(&snapshot);
                !snapshot.is_anyone_left(&waiter.skip)
            });
            if is_hopeless {
                self.tell(state, turn, None, unclaimed);
            }
        }
    }

    /// Takes a waiter out of the line and tells it of its place, or that there will be none.
    fn tell(
        &self,
        state: &mut State,
        turn: Turn,
        place: Option<(usize, Lease)>,
        unclaimed: &mut Vec<Outcome>,
    ) {
        let Some(waiter) = state.line.remove(&turn) else {
            return;
        };
        let (count, outcome) = match place {
            Some((index, lease)) => {
                let placed = Placed {
                    lease,
                    index,
                    snapshot: waiter.snapshot,
                    skip: waiter.skip,
                };
                (&self.counts.placed, Outcome::Placed(placed))
            }
            None => (&self.counts.unserved, Outcome::Nobody),
        };
        count.fetch_add(1, Ordering::Relaxed);
        // It leaves the line before it lets go of the channel, so this does not fail.
        unclaimed.extend(waiter.served.send(outcome).err());
    }

    /// Changes the line, and counts it afterwards.
    fn with_line<T>(&self, change: impl FnOnce(&mut State, &mut Vec<Outcome>) -> T) -> T {
        let mut unclaimed = Vec::new();
        let mut state = self.lock();
        let changed = change(&mut state, &mut unclaimed);
        self.count(&state);
        drop(state);
        // Dropping a place may come here again, so not under the lock.
        drop(unclaimed);
        changed
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

    fn count(&self, state: &State) {
        self.waiting.store(state.line.len(), Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock panics; if it did, the line would still be one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What the line is served from; without it, nobody can be.
    fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.service.upgrade().map(|it| it.snapshot_in_force())
    }

    /// What there is for the waiter whose turn this is, by the snapshot in force.
    fn look(&mut self, turn: Turn, snapshot: Option<&Arc<Snapshot>>) -> Seat {
        match (self.line.get_mut(&turn), snapshot) {
            (Some(waiter), Some(snapshot)) => {
                waiter.move_to(snapshot);
                snapshot.seat(&waiter.flow, &waiter.skip)
            }
            _ => Seat::Nobody,
        }
    }

    /// Whether the waiter, which was looked at, has not been failed by the backend of that index.
    fn could_use(&self, turn: &Turn, index: usize) -> bool {
        let waiter = self.line.get(turn);
        waiter.is_some_and(|waiter| !waiter.skip.contains(index))
    }

    /// Who comes after `last` in the line, and whether a backend has failed it before.
    fn after(&self, last: Option<Turn>) -> Option<(Turn, bool)> {
        let from = last.map_or(Bound::Unbounded, Bound::Excluded);
        let (turn, waiter) = self.line.range((from, Bound::Unbounded)).next()?;
        Some((*turn, !waiter.skip.is_empty()))
    }
}

impl Freed for Queue {
    fn freed(&self) {
        if self.is_waited_in() {
            self.with_line(|state, unclaimed| self.serve(state, Scope::Room, unclaimed));
        }
    }
}

impl Waiter {
    /// Looks at another table; who failed it there is told by identity.
    fn move_to(&mut self, snapshot: &Arc<Snapshot>) {
        if !Arc::ptr_eq(&self.snapshot, snapshot) {
            self.skip = snapshot.skip_of(&self.skip, &self.snapshot);
            self.snapshot = Arc::clone(snapshot);
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
        let waiter = queue.with_line(|state, _| state.line.remove(turn));
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
