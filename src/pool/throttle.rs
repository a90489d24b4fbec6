//! How fast the bytes of a service may flow: its caps, and what all its sessions share of them.
//!
//! The cap of all sessions is one moment in one atomic, up to which their bandwidth is used, so it is exact over
//! all workers. What is booked of it and not used stays in its worker's share, and what the caps have done is
//! counted there. Next: the [`brake`](super::brake), by which a session goes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Brake;
use crate::admission::{Bandwidth, Cap, Toward};
use crate::config::{Caps, Limited};

pub(super) const CAPS: usize = Cap::ALL.len();

/// The caps of a service, and what is counted of those whom they slow down. Outlives every reload.
#[derive(Debug)]
pub struct Throttle {
    /// In force now, [`packed`].
    caps: [AtomicU64; CAPS],
    used: [Used; 2],
    shares: Box<[Share]>,
}

/// Up to when the bandwidth of all sessions is used, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Used(AtomicU64);

impl Used {
    /// What it is then.
    fn change(&self, mut change: impl FnMut(u64) -> u64) -> u64 {
        let mut is = self.0.load(Ordering::Relaxed);
        loop {
            let next = change(is);
            let swap = self
                .0
                .compare_exchange_weak(is, next, Ordering::Relaxed, Ordering::Relaxed);
            match swap {
                Ok(_) => return next,
                Err(other) => is = other,
            }
        }
    }
}

/// What one worker writes alone.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(super) struct Share {
    /// Bytes that are booked, and nobody's.
    pub(super) spare: [AtomicU64; 2],
    pub(super) delayed: [Count; CAPS],
    pub(super) would_be: [Count; CAPS],
}

#[derive(Debug, Default)]
pub(super) struct Count {
    pub(super) sessions: AtomicU64,
    pub(super) nanos: AtomicU64,
}

/// What a cap has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Sessions that it has slowed down.
    pub sessions: u64,
    /// How long they have waited, together.
    pub time: Duration,
}

/// What each cap has done, at its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThrottleSum {
    /// In force.
    pub delayed: [Delays; CAPS],
    /// What it would have done, but for `dry_run`.
    pub would_be: [Delays; CAPS],
}

impl Throttle {
    /// No caps yet, for sessions on so many workers.
    pub fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            caps: Default::default(),
            used: Default::default(),
            shares: (0..workers.max(1)).map(|_| Share::default()).collect(),
        })
    }

    /// Puts `caps` in force, for sessions that run too. Only control calls this.
    pub fn set(&self, caps: &Caps) {
        for (at, cap) in caps.iter().enumerate() {
            let is = packed(*cap);
            let was = self.caps[at].swap(is, Ordering::Relaxed);
            // What is booked by another cap says nothing about this one.
            if let Some(used) = self.used.get(at).filter(|_| was != is) {
                used.0.store(0, Ordering::Relaxed);
            }
        }
    }

    /// What its caps have done so far.
    pub fn sum(&self) -> ThrottleSum {
        let add = |sum: &mut [Delays; CAPS], counts: &[Count; CAPS]| {
            for (sum, count) in sum.iter_mut().zip(counts) {
                sum.sessions += count.sessions.load(Ordering::Relaxed);
                sum.time += Duration::from_nanos(count.nanos.load(Ordering::Relaxed));
            }
        };
        let mut sum = ThrottleSum::default();
        for share in &self.shares {
            add(&mut sum.delayed, &share.delayed);
            add(&mut sum.would_be, &share.would_be);
        }
        sum
    }

    /// What slows down a session on `worker`.
    pub fn brake(self: &Arc<Self>, worker: usize) -> Brake {
        Brake::new(Arc::clone(self), worker)
    }

    /// The share of `worker`.
    pub(super) fn share(&self, worker: usize) -> &Share {
        &self.shares[worker % self.shares.len()]
    }

    /// The cap as it is now.
    pub(super) fn in_force(&self, cap: Cap) -> Option<Limited<Bandwidth>> {
        unpacked(self.caps[cap as usize].load(Ordering::Relaxed))
    }

    /// Up to when it is used.
    pub(super) fn used(&self, toward: Toward) -> u64 {
        self.used[toward as usize].0.load(Ordering::Relaxed)
    }

    /// Has `bytes` booked; when they may flow.
    pub(super) fn book(&self, toward: Toward, most: Bandwidth, now: u64, bytes: u64) -> u64 {
        self.used[toward as usize].change(|used| most.book(used, now, bytes))
    }

    /// The same of bytes that have flowed already: how much too early that was.
    pub(super) fn book_late(&self, toward: Toward, most: Bandwidth, now: u64, bytes: u64) -> u64 {
        let mut early = 0;
        self.used[toward as usize].change(|used| {
            let ready = most.book(used, now, bytes);
            early = ready.saturating_sub(now);
            // As if it had been waited for.
            ready.min(now)
        });
        early
    }

    /// Takes back what was booked and not used.
    pub(super) fn refund(&self, toward: Toward, most: Bandwidth, bytes: u64) {
        let nanos = most.time_of(bytes).saturating_sub(1);
        self.used[toward as usize].change(|used| used.saturating_sub(nanos));
    }
}

/// A cap in one word: twice its bytes, and one if it only counts; 0 is none.
fn packed(cap: Option<Limited<Bandwidth>>) -> u64 {
    cap.map_or(0, |it| it.most.bytes() << 1 | u64::from(it.dry))
}

fn unpacked(word: u64) -> Option<Limited<Bandwidth>> {
    Some(Limited {
        most: Bandwidth::new((word >> 1).try_into().ok()?),
        dry: word & 1 == 1,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cap_is_one_word_and_none_is_nothing() {
        assert_eq!((packed(None), unpacked(0)), (0, None));
        for bytes in [1, 1000, u64::MAX >> 1] {
            for dry in [false, true] {
                let most = Bandwidth::new(bytes.try_into().unwrap());
                let cap = Some(Limited { most, dry });
                assert_eq!(unpacked(packed(cap)), cap);
            }
        }
    }
}
