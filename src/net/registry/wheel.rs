//! The timer wheel: knows when a session's time comes, and nothing else about it.
//!
//! A session that has a deadline is linked into the slot of its tick; nothing is re-armed per read,
//! because a session that is woken looks at its last activity and schedules the rest. Hashed wheel:
//! Varghese and Lauck, SOSP 1987.

use std::task::Waker;
use std::time::{Duration, Instant};

use slab::Slab;

use super::entry::{Entry, Event, renew};
use crate::model::Cause;

/// How late a deadline may be seen, plus the reactor's millisecond.
const TICK_MILLIS: u64 = 20;
pub(super) const TICK: Duration = Duration::from_millis(TICK_MILLIS);
/// Deadlines beyond this many ticks (about 20 s) are looked at on the way.
const SLOTS: usize = 1024;
/// The end of a list; no worker has as many sessions.
const NONE: u32 = u32::MAX;
/// How long the driver sleeps while nobody has a deadline.
pub(super) const FAR: Duration = Duration::from_secs(86_400);

#[derive(Debug)]
pub(super) struct Wheel {
    pub(super) entries: Slab<Entry>,
    /// First entry of each slot's list.
    heads: Vec<u32>,
    /// Bit per slot: its list may hold something.
    occupied: [u64; SLOTS / 64],
    pub(super) origin: Instant,
    /// Every tick up to this one has been processed.
    processed: u64,
    /// Who turns the wheel, and the tick it sleeps towards.
    driver: Option<Waker>,
    sleeps_until: u64,
}

/// A session's place in the list of its slot.
#[derive(Debug)]
pub(super) struct Link {
    slot: u32,
    previous: u32,
    next: u32,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            slot: NONE,
            previous: NONE,
            next: NONE,
        }
    }
}

impl Wheel {
    /// Holds no session yet.
    pub(super) fn new() -> Self {
        Self {
            entries: Slab::new(),
            heads: vec![NONE; SLOTS],
            occupied: [0; SLOTS / 64],
            origin: Instant::now(),
            processed: 0,
            driver: None,
            sleeps_until: u64::MAX,
        }
    }

    pub(super) fn entry(&mut self, key: u32) -> &mut Entry {
        &mut self.entries[key as usize]
    }

    /// Forgets a session.
    pub(super) fn remove(&mut self, key: u32) {
        self.unlink(key);
        self.entries.remove(key as usize);
    }

    /// Tells the session of [`Event::Due`] at `at` or up to a tick later, instead of what was scheduled before.
    pub(super) fn schedule(&mut self, key: u32, at: Instant) {
        self.unlink(key);
        // Rounded up: a deadline is seen late by less than a tick, never early.
        let deadline = self.tick_at(at) + 1;
        let entry = self.entry(key);
        entry.deadline = deadline.min(entry.expires);
        if entry.event == Some(Event::Due) {
            entry.event = None;
        }
        self.link(key);
    }

    /// Tells the session to end at `at`, or up to a tick later, whatever it schedules.
    pub(super) fn expire(&mut self, key: u32, at: Instant) {
        let expires = self.tick_at(at) + 1;
        let entry = self.entry(key);
        entry.expires = expires;
        // What was scheduled, if anything was, may come later than this.
        let scheduled = if entry.link.slot == NONE {
            expires
        } else {
            entry.deadline
        };
        entry.deadline = scheduled.min(expires);
        self.unlink(key);
        self.link(key);
    }

    /// Tells every session whose time has come by `now`, and until when `driver` may sleep then, if that is
    /// news; it is woken where an earlier deadline comes meanwhile.
    pub(super) fn turn(&mut self, now: Instant, driver: &Waker) -> Option<Instant> {
        self.advance(now);
        renew(&mut self.driver, driver);
        let next = self.next_occupied();
        if next == std::mem::replace(&mut self.sleeps_until, next) {
            return None;
        }
        Some(match next {
            u64::MAX => now + FAR,
            tick => self.origin + Duration::from_millis(TICK_MILLIS * tick),
        })
    }

    /// The driver's sleep is over: the next turn says anew for how long, whatever comes out.
    pub(super) fn awake(&mut self) {
        self.sleeps_until = 0;
    }

    fn tick_at(&self, at: Instant) -> u64 {
        let ticks = at.saturating_duration_since(self.origin).as_nanos() / TICK.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn link(&mut self, key: u32) {
        let horizon = self.processed + SLOTS as u64 - 1;
        let after = self.processed + 1;
        let tick = self.entry(key).deadline.clamp(after, horizon);
        let slot = slot_of(tick);
        let head = std::mem::replace(&mut self.heads[slot], key);
        let link = &mut self.entry(key).link;
        link.slot = slot as u32;
        link.previous = NONE;
        link.next = head;
        if head != NONE {
            self.entry(head).link.previous = key;
        }
        self.occupied[slot / 64] |= 1 << (slot % 64);
        if tick < self.sleeps_until
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    fn unlink(&mut self, key: u32) {
        let link = &mut self.entry(key).link;
        let slot = std::mem::replace(&mut link.slot, NONE);
        if slot == NONE {
            return;
        }
        let (previous, next) = (link.previous, link.next);
        if next != NONE {
            self.entry(next).link.previous = previous;
        }
        if previous == NONE {
            self.heads[slot as usize] = next;
        } else {
            self.entry(previous).link.next = next;
        }
    }

    /// Processes every tick up to `now`.
    pub(super) fn advance(&mut self, now: Instant) {
        let now = self.tick_at(now);
        // After a pause longer than the wheel, one turn visits every slot there is.
        let first = (self.processed + 1).max((now + 1).saturating_sub(SLOTS as u64));
        for tick in first..=now {
            self.processed = tick;
            let slot = slot_of(tick);
            if self.occupied[slot / 64] & (1 << (slot % 64)) == 0 {
                continue;
            }
            self.occupied[slot / 64] &= !(1 << (slot % 64));
            let mut key = std::mem::replace(&mut self.heads[slot], NONE);
            while key != NONE {
                let entry = self.entry(key);
                let next = entry.link.next;
                entry.link.slot = NONE;
                if entry.expires <= now {
                    entry.notify(Event::End(Cause::Lifetime));
                } else if entry.deadline <= now {
                    entry.notify(Event::Due);
                } else {
                    self.link(key);
                }
                key = next;
            }
        }
        self.processed = self.processed.max(now);
    }

    /// The next tick whose slot is occupied, or `u64::MAX`.
    pub(super) fn next_occupied(&self) -> u64 {
        if self.occupied.iter().all(|&word| word == 0) {
            return u64::MAX;
        }
        (self.processed + 1..=self.processed + SLOTS as u64)
            .find(|&tick| {
                let slot = slot_of(tick);
                self.occupied[slot / 64] & (1 << (slot % 64)) != 0
            })
            .unwrap_or(u64::MAX)
    }
}

fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}
