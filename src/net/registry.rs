//! What a worker holds of its sessions: the means to wake them when their time comes, to tell about
//! them, and to end them.
//!
//! One timer [`wheel`] serves idle, half-closed and connect deadlines alike. Knows no backend: whom a
//! session is connected to is a number that others mark it with.

mod entry;
mod wheel;

use std::cell::RefCell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use self::entry::Entry;
pub use self::entry::Event;
use self::wheel::{FAR, Wheel};
use crate::model::Cause;
use crate::pool::Throttle;
use crate::reactor::sleep;
use crate::telemetry::Facts;

/// How many sessions are looked at for a mark before bytes have their turn again: well under a
/// millisecond.
const MOST_LOOKED_AT: usize = 16_384;

/// The sessions of one worker. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Registry(Rc<RefCell<Sessions>>);

#[derive(Debug)]
struct Sessions {
    wheel: Wheel,
    /// Every session was told to end; those that come now are told at once.
    ended: Option<Cause>,
    /// Where the search for marks goes on.
    searched: usize,
}

impl Registry {
    /// Holds no session yet.
    pub fn new() -> Self {
        Self(Rc::new(RefCell::new(Sessions {
            wheel: Wheel::new(),
            ended: None,
            searched: 0,
        })))
    }

    /// Takes a session in until its ticket is dropped.
    pub fn enter(&self) -> Ticket {
        let mut sessions = self.0.borrow_mut();
        let event = sessions.ended.map(Event::End);
        let key = sessions.wheel.entries.insert(Entry::new(event));
        Ticket {
            registry: self.clone(),
            key: key as u32,
        }
    }

    /// How many sessions there are.
    pub fn len(&self) -> usize {
        self.0.borrow().wheel.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tells every session to end, those that are still to come included.
    pub fn end_all(&self, cause: Cause) {
        let mut sessions = self.0.borrow_mut();
        sessions.ended = Some(cause);
        for (_, entry) in &mut sessions.wheel.entries {
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
        let sessions = &mut *self.0.borrow_mut();
        let entries = &mut sessions.wheel.entries;
        let places = entries.capacity();
        for _ in 0..places.min(MOST_LOOKED_AT) {
            let at = sessions.searched;
            if let Some(entry) = entries.get_mut(at)
                && entry.has_one_of(marks)
                && before.is_none_or(|before| entry.began_before(before))
            {
                if !allowed() {
                    return;
                }
                entry.notify(Event::End(cause));
            }
            sessions.searched = if at + 1 < places { at + 1 } else { 0 };
        }
    }

    /// Tells what is known of sessions, from place `from` on, to `look`, which is given their places and
    /// marks too. Where there are many it tells of a part of them, and gives back where the rest begins.
    pub fn look(&self, from: usize, mut look: impl FnMut(u32, u32, &Facts)) -> Option<usize> {
        let entries = &self.0.borrow().wheel.entries;
        let places = entries.capacity();
        let to = places.min(from + MOST_LOOKED_AT / 4);
        for at in from..to {
            if let Some(entry) = entries.get(at)
                && let Some(facts) = &entry.facts
            {
                look(at as u32, entry.mark, facts);
            }
        }
        (to < places).then_some(to)
    }

    /// The mark of the session at that place which began then, and what is known of it, while it runs.
    pub fn find(&self, place: u32, started: Instant) -> Option<(u32, Rc<Facts>)> {
        let entries = &self.0.borrow().wheel.entries;
        let entry = entries.get(place as usize)?;
        let facts = entry.facts.as_ref().filter(|it| it.started() == started)?;
        Some((entry.mark, Rc::clone(facts)))
    }

    /// Tells the session at that place to end if it is the one that began then; whether it is.
    pub fn end_one(&self, place: u32, is_it: impl FnOnce(&Facts) -> bool, cause: Cause) -> bool {
        let entries = &mut self.0.borrow_mut().wheel.entries;
        let Some(entry) = entries.get_mut(place as usize) else {
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
        let mut nap = pin!(sleep(FAR));
        poll_fn(|cx| {
            loop {
                let wake = self.0.borrow_mut().wheel.turn(Instant::now(), cx.waker());
                if let Some(at) = wake {
                    nap.reset(at);
                }
                if nap.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.0.borrow_mut().wheel.awake();
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
        let wheel = &mut self.registry.0.borrow_mut().wheel;
        let entry = wheel.entry(self.key);
        match entry.event {
            Some(Event::Due) => {
                entry.event = None;
                Poll::Ready(Event::Due)
            }
            // An end stays one, so that no phase of the session can lose it.
            Some(Event::End(cause)) => Poll::Ready(Event::End(cause)),
            None => {
                entry.wake_by(cx.waker());
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
        self.registry.0.borrow_mut().wheel.schedule(self.key, at);
    }

    /// Ends the session at `at`, or up to a tick later, whatever it schedules.
    pub fn expire(&self, at: Instant) {
        self.registry.0.borrow_mut().wheel.expire(self.key, at);
    }

    /// Lets others know what can be told about the session.
    pub fn introduce(&self, facts: Rc<Facts>) {
        self.registry.0.borrow_mut().wheel.entry(self.key).facts = Some(facts);
    }

    /// What limits the bandwidth of the session's service by now, if anything does.
    pub fn throttle(&self) -> Option<Arc<Throttle>> {
        let facts = self
            .registry
            .0
            .borrow_mut()
            .wheel
            .entry(self.key)
            .facts
            .clone()?;
        facts.route().service().snapshot().throttle.clone()
    }

    /// Marks the session with the number of its backend, by which others may end it.
    pub fn mark(&self, mark: u32) {
        self.registry.0.borrow_mut().wheel.entry(self.key).mark = mark;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.registry.0.borrow_mut().wheel.remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;
    use std::time::Duration;

    use super::wheel::TICK;
    use super::*;

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    fn advance(registry: &Registry, after: Duration) {
        let wheel = &mut registry.0.borrow_mut().wheel;
        let at = wheel.origin + after;
        wheel.advance(at);
    }

    fn schedule(ticket: &Ticket, after: Duration) {
        let origin = ticket.registry.0.borrow().wheel.origin;
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
        let origin = registry.0.borrow().wheel.origin;
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
        let places = registry.0.borrow().wheel.entries.capacity();
        let parts = places.div_ceil(MOST_LOOKED_AT) + 1;
        for _ in 0..parts {
            found();
        }
        assert!(tickets[1].poll(&mut cx()).is_ready());
    }

    #[test]
    fn the_wheel_tells_when_to_wake_next() {
        let registry = Registry::new();
        assert_eq!(registry.0.borrow().wheel.next_occupied(), u64::MAX);
        let ticket = registry.enter();
        schedule(&ticket, Duration::from_millis(100));
        assert_eq!(registry.0.borrow().wheel.next_occupied(), 6);
        advance(&registry, Duration::from_millis(120));
        assert_eq!(registry.0.borrow().wheel.next_occupied(), u64::MAX);
    }
}
