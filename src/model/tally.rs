//! What a backend has served: counted by each worker for itself, summed by whoever asks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Ending, Who};

/// One worker's counters for one backend, on cache lines of their own: what every session writes on
/// the first, what only those write that fail on the second.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Tally {
    sessions: AtomicU64,
    last_success: AtomicU64,
    connect_micros: AtomicU64,
    to_backend: AtomicU64,
    to_client: AtomicU64,
    session_micros: AtomicU64,
    finished: AtomicU64,
    /// By who ended the session: [`Who::place`].
    broken: [AtomicU64; Who::ALL.len()],
    connect_failures: AtomicU64,
    moved: AtomicU64,
    hurt: AtomicU64,
    last_harm: AtomicU64,
}

/// When something was, in nanoseconds since an epoch that whoever writes and reads it agree on;
/// 0 is never.
pub type Moment = u64;

impl Tally {
    /// A session connected to the backend, which took so long.
    pub fn connected(&self, at: Moment, took: Duration) {
        add(&self.sessions, 1);
        add(&self.connect_micros, micros(took));
        self.last_success.store(at, Ordering::Relaxed);
    }

    /// A session that had connected is over, after so long.
    pub fn ended(&self, ending: Ending, lasted: Duration) {
        add(&self.session_micros, micros(lasted));
        if ending.is_clean() {
            add(&self.finished, 1);
        } else {
            add(&self.broken[ending.who.place()], 1);
        }
    }

    /// A session that the backend had failed found another one.
    pub fn moved_away(&self, at: Moment) {
        add(&self.moved, 1);
        self.last_harm.store(at, Ordering::Relaxed);
    }

    /// A session that the backend had failed found no other, or was broken while it ran.
    pub fn hurt(&self, at: Moment) {
        add(&self.hurt, 1);
        self.last_harm.store(at, Ordering::Relaxed);
    }

    /// A connect to the backend failed.
    pub fn connect_failed(&self) {
        add(&self.connect_failures, 1);
    }

    /// Bytes that sessions have moved.
    pub fn moved(&self, to_backend: u64, to_client: u64) {
        add(&self.to_backend, to_backend);
        add(&self.to_client, to_client);
    }

    /// Adds all of it to `sum`.
    pub(super) fn add_to(&self, sum: &mut TallySum) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        sum.sessions += read(&self.sessions);
        sum.connect_failures += read(&self.connect_failures);
        sum.to_backend += read(&self.to_backend);
        sum.to_client += read(&self.to_client);
        sum.moved += read(&self.moved);
        sum.hurt += read(&self.hurt);
        sum.connecting += Duration::from_micros(read(&self.connect_micros));
        sum.lasting += Duration::from_micros(read(&self.session_micros));
        sum.finished += read(&self.finished);
        for (sum, count) in sum.broken.iter_mut().zip(&self.broken) {
            *sum += read(count);
        }
        sum.last_success = sum.last_success.max(read(&self.last_success));
        sum.last_harm = sum.last_harm.max(read(&self.last_harm));
    }
}

/// A single writer needs no read-modify-write: a load and a store cost no locked instruction.
pub(super) fn add(counter: &AtomicU64, by: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).wrapping_add(by),
        Ordering::Relaxed,
    );
}

/// The nearest number of microseconds: always rounded down, short ones would add up to too little.
pub(super) fn micros(duration: Duration) -> u64 {
    let rounded = duration + Duration::from_nanos(500);
    u64::try_from(rounded.as_micros()).unwrap_or(u64::MAX)
}

/// What a backend has served since its identity appeared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TallySum {
    /// Sessions connected.
    pub sessions: u64,
    /// Connects that failed.
    pub connect_failures: u64,
    /// Bytes from clients.
    pub to_backend: u64,
    /// Bytes to clients.
    pub to_client: u64,
    /// Sessions that it failed and that another backend took.
    pub moved: u64,
    /// Sessions that it failed and that were lost.
    pub hurt: u64,
    /// What connecting took, of all that connected together.
    pub connecting: Duration,
    /// How long the sessions lasted that are over, together.
    pub lasting: Duration,
    /// Sessions that ended with every byte delivered.
    pub finished: u64,
    /// Sessions that had connected and were broken, by who ended them: [`Who::place`].
    pub broken: [u64; Who::ALL.len()],
    /// When a session last connected.
    pub last_success: Moment,
    /// When a session was last moved or hurt.
    pub last_harm: Moment,
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::model::{Cause, Load, Phase};

    #[test]
    fn a_session_without_a_failure_writes_one_cache_line_of_a_tally() {
        assert!(offset_of!(Tally, finished) < 64);
        assert_eq!(size_of::<Tally>(), 128);
    }

    #[test]
    fn the_sum_of_the_workers_knows_the_latest_moment() {
        let load = Load::new(2);
        let millisecond = Duration::from_millis(1);
        load.tally(0).connected(7, millisecond);
        load.tally(1).connected(5, millisecond);
        let (relay, reset) = (Phase::Relay, Cause::Reset);
        let by = |who| Ending::new(who, relay, reset);
        load.tally(0).ended(by(Who::Backend), millisecond);
        let clean = Ending::new(Who::Client, relay, Cause::Finished);
        load.tally(1).ended(clean, millisecond);
        load.tally(0).moved_away(8);
        load.tally(1).hurt(9);
        let sum = load.sum();
        assert_eq!((sum.sessions, sum.moved, sum.hurt), (2, 1, 1));
        assert_eq!((sum.last_success, sum.last_harm), (7, 9));
        assert_eq!((sum.finished, sum.broken), (1, [0, 1, 0]));
        assert_eq!(sum.connecting, 2 * millisecond);
        assert_eq!(sum.lasting, 2 * millisecond);
    }
}
