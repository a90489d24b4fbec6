//! What a worker holds of its sessions: a coarse timer wheel that wakes them when their time comes,
//! and the means to end them.
//!
//! One wheel serves idle, half-closed and connect deadlines alike. A session that has a deadline is
//! linked into the slot of its tick; nothing is re-armed per read, because a session that is woken
//! looks at its last activity and schedules the rest. Hashed wheel: Varghese and Lauck, SOSP 1987.

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use crate::model::Cause;
use crate::pool::Throttle;
use crate::telemetry::Facts;

/// How late a deadline may be seen, plus the runtime's millisecond.
const TICK_MILLIS: u64 = 20;
const TICK: Duration = Duration::from_millis(TICK_MILLIS);
/// Deadlines beyond this many ticks (about 20 s) are looked at on the way.
const SLOTS: usize = 1024;
/// How many sessions are looked at for a mark before bytes have their turn again: well under a
/// millisecond.
const MOST_LOOKED_AT: usize = 16_384;
/// The end of a list; no worker has as many sessions.
const NONE: u32 = u32::MAX;

/// The sessions of one worker. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Registry(Rc<RefCell<Wheel>>);

/// What a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline that it scheduled has come.
    Due,
    /// It is to end at once.
    End(Cause),
}

#[derive(Debug)]
struct Wheel {
    entries: Slab<Entry>,
    /// First entry of each slot's list.
    heads: Vec<u32>,
    /// Bit per slot: its list may hold something.
    occupied: [u64; SLOTS / 64],
    origin: Instant,
    /// Every tick up to this one has been processed.
    processed: u64,
    /// The driver, and the tick it sleeps towards.
    driver: Option<Waker>,
    sleeps_until: u64,
    /// Every session was told to end; those that come now are told at once.
    ended: Option<Cause>,
    /// Where the search for marks goes on.
    searched: usize,
}

#[derive(Debug)]
struct Entry {
    waker: Option<Waker>,
    event: Option<Event>,
    deadline: u64,
    /// The tick at which it ends, whatever it is scheduled for.
    expires: u64,
    /// What can be told about it.
    facts: Option<Rc<Facts>>,
    /// Whom it is connected to, 0 for nobody.
    mark: u32,
    slot: u32,
    previous: u32,
    next: u32,
}

impl Registry {
    /// Holds no session yet.
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(Wheel {
            entries: Slab::new(),
            heads: vec![NONE; SLOTS],
            occupied: [0; SLOTS / 64],
            origin: Instant::now(),
            processed: 0,
            driver: None,
            sleeps_until: u64::MAX,
            ended: None,
            searched: 0,
        })))
    }

    /// Takes a session in until its ticket is dropped.
    pub fn enter(&self) -> Ticket {
        let mut wheel = self.0.borrow_mut();
        let event = wheel.ended.map(Event::End);
        let key = wheel.entries.insert(Entry {
            waker: None,
            event,
            deadline: 0,
            expires: u64::MAX,
            facts: None,
            mark: 0,
            slot: NONE,
            previous: NONE,
            next: NONE,
        });
        Ticket {
            registry: self.clone(),
            key: key as u32,
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.0.borrow().entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every session to end, those that are still to come included.
    pub fn end_all(&self, cause: Cause) {
        let mut wheel = self.0.borrow_mut();
        wheel.ended = Some(cause);
        for (_, entry) in &mut wheel.entries {
            entry.notify(Event::End(cause));
        }
    }

    /// Tells sessions that are marked with one of `marks`, which are sorted, and began `before` that, to
    /// end, while `allowed` says so; it is asked once for each. Where there are many sessions it looks at a part of them, and
    /// the next call goes on behind those.
    pub fn end_marked(
        &self,
        marks: &[u32],
        before: Option<Instant>,
        cause: Cause,
        mut allowed: impl FnMut() -> bool,
    ) {
        let wheel = &mut *self.0.borrow_mut();
        let places = wheel.entries.capacity();
        for _ in 0..places.min(MOST_LOOKED_AT) {
            let at = wheel.searched;
            if let Some(entry) = wheel.entries.get_mut(at)
                && entry.has_one_of(marks)
                && before.is_none_or(|before| entry.began_before(before))
            {
                if !allowed() {
                    return;
                }
                entry.notify(Event::End(cause));
            }
            wheel.searched = if at + 1 < places { at + 1 } else { 0 };
        }
    }

    /// Tells what is known of sessions, from place `from` on, to `look`, which is given their places and
    /// marks too. Where there are many it tells of a part of them, and gives back where the rest begins.
    pub fn look(&self, from: usize, mut look: impl FnMut(u32, u32, &Facts)) -> Option<usize> {
        let wheel = self.0.borrow();
        let places = wheel.entries.capacity();
        let to = places.min(from + MOST_LOOKED_AT / 4);
        for at in from..to {
            if let Some(entry) = wheel.entries.get(at)
                && let Some(facts) = &entry.facts
            {
                look(at as u32, entry.mark, facts);
            }
        }
        (to < places).then_some(to)
    }

    /// The mark of the session at that place which began then, and what is known of it, while it runs.
    pub fn find(&self, place: u32, started: Instant) -> Option<(u32, Rc<Facts>)> {
        let wheel = self.0.borrow();
        let entry = wheel.entries.get(place as usize)?;
        let facts = entry.facts.as_ref().filter(|it| it.started() == started)?;
        Some((entry.mark, Rc::clone(facts)))
    }

    /// Tells the session at that place to end if it is the one that began then; whether it is.
    pub fn end_one(&self, place: u32, is_it: impl FnOnce(&Facts) -> bool, cause: Cause) -> bool {
        let wheel = &mut *self.0.borrow_mut();
        let Some(entry) = wheel.entries.get_mut(place as usize) else {
            return false;
        };
        let found = entry.facts.as_deref().is_some_and(is_it);
        if found {
            entry.notify(Event::End(cause));
        }
        found
    }

    /// Turns the wheel, for ever. Sleeps until the next occupied slot, and for good while there is
    /// none, so that a worker at rest does not wake.
    pub async fn drive(&self) {
        let far = Duration::from_secs(86_400);
        let mut sleep = pin!(tokio::time::sleep(far));
        poll_fn(|cx| {
            loop {
                let mut wheel = self.0.borrow_mut();
                wheel.advance(Instant::now());
                let next = wheel.next_occupied();
                if next != wheel.sleeps_until {
                    wheel.sleeps_until = next;
                    let at = if next == u64::MAX {
                        Instant::now() + far
                    } else {
                        wheel.origin + Duration::from_millis(TICK_MILLIS * next)
                    };
                    sleep.as_mut().reset(at.into());
                }
                if !wheel
                    .driver
                    .as_ref()
                    .is_some_and(|known| known.will_wake(cx.waker()))
                {
                    wheel.driver = Some(cx.waker().clone());
                }
                drop(wheel);
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                // The sleep is over: look again, and set it anew whatever comes out.
                self.0.borrow_mut().sleeps_until = 0;
            }
        })
        .await
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// A session's place in the registry.
#[derive(Debug)]
pub struct Ticket {
    registry: Registry,
    key: u32,
}

impl Ticket {
    /// The next event, once there is one.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<Event> {
        let mut wheel = self.registry.0.borrow_mut();
        let entry = &mut wheel.entry(self.key);
        match entry.event {
            Some(Event::Due) => {
                entry.event = None;
                Poll::Ready(Event::Due)
            }
            // An end stays one, so that no phase of the session can lose it.
            Some(Event::End(cause)) => Poll::Ready(Event::End(cause)),
            None => {
                if !entry
                    .waker
                    .as_ref()
                    .is_some_and(|known| known.will_wake(cx.waker()))
                {
                    entry.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    /// Why the session is to end, once it is; deadlines are passed over.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Cause> {
        loop {
            if let Event::End(cause) = std::task::ready!(self.poll(cx)) {
                return Poll::Ready(cause);
            }
        }
    }

    /// Asks for [`Event::Due`] at `at` or up to a tick later, instead of what was scheduled before.
    pub fn schedule(&self, at: Instant) {
        self.registry.0.borrow_mut().schedule(self.key, at);
    }

    /// Ends the session at `at`, or up to a tick later, whatever it schedules.
    pub fn expire(&self, at: Instant) {
        self.registry.0.borrow_mut().expire(self.key, at);
    }

    /// Lets others know what can be told about the session.
    pub fn introduce(&self, facts: Rc<Facts>) {
        self.registry.0.borrow_mut().entry(self.key).facts = Some(facts);
    }

    /// What limits the bandwidth of the session's service by now, if anything does.
    pub fn throttle(&self) -> Option<Arc<Throttle>> {
        let facts = self.registry.0.borrow_mut().entry(self.key).facts.clone()?;
        facts.route().service().snapshot().throttle.clone()
    }

    /// Marks the session with the number of its backend, by which others may end it.
    pub fn mark(&self, mark: u32) {
        self.registry.0.borrow_mut().entry(self.key).mark = mark;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut wheel = self.registry.0.borrow_mut();
        wheel.unlink(self.key);
        wheel.entries.remove(self.key as usize);
    }
}

impl Entry {
    /// Whether it has one of `marks`, and was not told to end yet.
    fn has_one_of(&self, marks: &[u32]) -> bool {
        let is_ending = matches!(self.event, Some(Event::End(_)));
        self.mark != 0 && !is_ending && marks.binary_search(&self.mark).is_ok()
    }

    /// One that nothing is known of has just begun.
    fn began_before(&self, moment: Instant) -> bool {
        self.facts.as_ref().is_some_and(|it| it.started() < moment)
    }

    fn notify(&mut self, event: Event) {
        if !matches!(self.event, Some(Event::End(_))) {
            self.event = Some(event);
        }
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }
}

impl Wheel {
    fn tick_at(&self, at: Instant) -> u64 {
        let ticks = at.saturating_duration_since(self.origin).as_nanos() / TICK.as_nanos();
        u64::try_from(ticks).unwrap_or(u64::MAX)
    }

    fn schedule(&mut self, key: u32, at: Instant) {
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

    fn expire(&mut self, key: u32, at: Instant) {
        let expires = self.tick_at(at) + 1;
        let entry = self.entry(key);
        entry.expires = expires;
        // What was scheduled, if anything was, may come later than this.
        let scheduled = if entry.slot == NONE {
            expires
        } else {
            entry.deadline
        };
        entry.deadline = scheduled.min(expires);
        self.unlink(key);
        self.link(key);
    }

    fn entry(&mut self, key: u32) -> &mut Entry {
        &mut self.entries[key as usize]
    }

    fn link(&mut self, key: u32) {
        let horizon = self.processed + SLOTS as u64 - 1;
        let after = self.processed + 1;
        let tick = self.entry(key).deadline.clamp(after, horizon);
        let slot = slot_of(tick);
        let head = std::mem::replace(&mut self.heads[slot], key);
        let entry = self.entry(key);
        entry.slot = slot as u32;
        entry.previous = NONE;
        entry.next = head;
        if head != NONE {
            self.entry(head).previous = key;
        }
        self.occupied[slot / 64] |= 1 << (slot % 64);
        if tick < self.sleeps_until
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    fn unlink(&mut self, key: u32) {
        let entry = self.entry(key);
        let slot = std::mem::replace(&mut entry.slot, NONE);
        if slot == NONE {
            return;
        }
        let (previous, next) = (entry.previous, entry.next);
        if next != NONE {
            self.entry(next).previous = previous;
        }
        if previous == NONE {
            self.heads[slot as usize] = next;
        } else {
            self.entry(previous).next = next;
        }
    }

    /// Processes every tick up to `now`.
    fn advance(&mut self, now: Instant) {
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
                let next = entry.next;
                entry.slot = NONE;
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
    fn next_occupied(&self) -> u64 {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn advance(registry: &Registry, after: Duration) {
        let mut wheel = registry.0.borrow_mut();
        let at = wheel.origin + after;
        wheel.advance(at);
    }

    fn schedule(ticket: &Ticket, after: Duration) {
        let origin = ticket.registry.0.borrow().origin;
        ticket.schedule(origin + after);
    }

    #[test]
    fn a_deadline_is_seen_within_a_tick_and_never_early() {
        for milliseconds in [
            0, 1, 19, 20, 21, 500, 20_000, 20_480, 20_500, 90_000, 3_600_000,
        ] {
            let registry = Registry::new();
            let ticket = registry.enter();
            let deadline = Duration::from_millis(milliseconds);
            schedule(&ticket, deadline);
            let mut at = Duration::ZERO;
            while at < deadline {
                advance(&registry, at);
                assert_eq!(
                    ticket.poll(&mut cx()),
                    Poll::Pending,
                    "{milliseconds} ms, early"
                );
                at += Duration::from_millis(1 + milliseconds / 50);
            }
            advance(&registry, deadline + TICK);
            assert_eq!(
                ticket.poll(&mut cx()),
                Poll::Ready(Event::Due),
                "{milliseconds} ms"
            );
            assert_eq!(ticket.poll(&mut cx()), Poll::Pending);
        }
    }

    #[test]
    fn a_pause_longer_than_the_wheel_loses_no_deadline() {
        let registry = Registry::new();
        let tickets: Vec<_> = (0..2_000).map(|_| registry.enter()).collect();
        for (index, ticket) in tickets.iter().enumerate() {
            schedule(ticket, Duration::from_millis(index as u64 * 37));
        }
        advance(&registry, Duration::from_secs(300));
        assert!(
            tickets
                .iter()
                .all(|ticket| ticket.poll(&mut cx()).is_ready())
        );
    }

    #[test]
    fn the_last_schedule_wins_and_a_dropped_ticket_leaves_nothing() {
        let registry = Registry::new();
        let (early, late, gone) = (registry.enter(), registry.enter(), registry.enter());
        for ticket in [&early, &late, &gone] {
            schedule(ticket, Duration::from_millis(100));
        }
        schedule(&late, Duration::from_millis(900));
        drop(gone);
        advance(&registry, Duration::from_millis(200));
        assert_eq!(early.poll(&mut cx()), Poll::Ready(Event::Due));
        assert_eq!(late.poll(&mut cx()), Poll::Pending);
        assert_eq!(registry.len(), 2);
        advance(&registry, Duration::from_millis(950));
        assert_eq!(late.poll(&mut cx()), Poll::Ready(Event::Due));
    }

    #[test]
    fn an_end_outlives_every_later_event() {
        let registry = Registry::new();
        let ticket = registry.enter();
        registry.end_all(Cause::Stopped);
        schedule(&ticket, Duration::ZERO);
        advance(&registry, Duration::from_secs(1));
        for _ in 0..2 {
            assert_eq!(
                ticket.poll(&mut cx()),
                Poll::Ready(Event::End(Cause::Stopped))
            );
        }
        assert!(
            registry.enter().poll(&mut cx()).is_ready(),
            "a late one too"
        );
    }

    #[test]
    fn an_expiry_ends_the_session_whatever_it_schedules_before_and_after() {
        let registry = Registry::new();
        let (unscheduled, early, late) = (registry.enter(), registry.enter(), registry.enter());
        schedule(&early, Duration::from_millis(100));
        let origin = registry.0.borrow().origin;
        for ticket in [&unscheduled, &early, &late] {
            ticket.expire(origin + Duration::from_millis(500));
        }
        schedule(&late, Duration::from_secs(3600));
        advance(&registry, Duration::from_millis(200));
        assert_eq!(early.poll(&mut cx()), Poll::Ready(Event::Due));
        schedule(&early, Duration::from_secs(3600));
        advance(&registry, Duration::from_millis(499));
        let all = [unscheduled, early, late];
        assert!(all.iter().all(|ticket| ticket.poll(&mut cx()).is_pending()));
        advance(&registry, Duration::from_millis(540));
        let end = Poll::Ready(Event::End(Cause::Lifetime));
        assert!(all.iter().all(|ticket| ticket.poll(&mut cx()) == end));
    }

    #[test]
    fn only_the_marked_end_and_each_takes_one_of_what_is_allowed() {
        let registry = Registry::new();
        let tickets: Vec<_> = (0..10).map(|_| registry.enter()).collect();
        for (ticket, mark) in tickets.iter().zip([1, 2].into_iter().cycle()) {
            ticket.mark(mark);
        }
        let ended = || tickets.iter().map(|it| it.poll(&mut cx()).is_ready());
        for expected in [2, 4, 5] {
            let mut left = 2;
            registry.end_marked(&[2, 7], None, Cause::BackendDown, || {
                let allowed = left > 0;
                left -= usize::from(allowed);
                allowed
            });
            assert_eq!(ended().filter(|&ended| ended).count(), expected);
        }
        assert!(ended().step_by(2).all(|ended| !ended), "of another backend");
    }

    #[test]
    fn the_marked_are_searched_for_in_parts_and_all_are_found() {
        let registry = Registry::new();
        let tickets: Vec<_> = (0..3 * MOST_LOOKED_AT).map(|_| registry.enter()).collect();
        let marked = [0, MOST_LOOKED_AT, tickets.len() - 1].map(|at| &tickets[at]);
        marked.iter().for_each(|ticket| ticket.mark(7));
        let found = || {
            registry.end_marked(&[7], None, Cause::BackendDown, || true);
            let ended = marked.iter().filter(|it| it.poll(&mut cx()).is_ready());
            ended.count()
        };
        assert_eq!([found(), found(), found()], [1, 2, 3]);
        // One that comes where it has been is found in the next round.
        tickets[1].mark(7);
        let places = registry.0.borrow().entries.capacity();
        let parts = places.div_ceil(MOST_LOOKED_AT) + 1;
        for _ in 0..parts {
            found();
        }
        assert!(tickets[1].poll(&mut cx()).is_ready());
    }

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
    }

    #[test]
    fn the_wheel_tells_when_to_wake_next() {
        let registry = Registry::new();
        assert_eq!(registry.0.borrow().next_occupied(), u64::MAX);
        let ticket = registry.enter();
        schedule(&ticket, Duration::from_millis(100));
        assert_eq!(registry.0.borrow().next_occupied(), 6);
        advance(&registry, Duration::from_millis(120));
        assert_eq!(registry.0.borrow().next_occupied(), u64::MAX);
    }
}
