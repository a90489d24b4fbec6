//! One session in the registry: what it is told, and what can be told about it.

use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use super::wheel::Link;
use crate::model::Cause;
use crate::telemetry::Facts;

/// What a session is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The deadline that it scheduled has come.
    Due,
    /// It is to end at once.
    End(Cause),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) waker: Option<Waker>,
    pub(super) event: Option<Event>,
    /// The tick at which it is to be woken …
    pub(super) deadline: u64,
    /// … and the one at which it ends, whatever it is scheduled for.
    pub(super) expires: u64,
    /// What can be told about it.
    pub(super) facts: Option<Rc<Facts>>,
    /// Whom it is connected to, 0 for nobody.
    pub(super) mark: u32,
    pub(super) link: Link,
}

impl Entry {
    /// A session that nothing is known of yet, to be told of `event`.
    pub(super) fn new(event: Option<Event>) -> Self {
        Self {
            waker: None,
            event,
            deadline: 0,
            expires: u64::MAX,
            facts: None,
            mark: 0,
            link: Link::default(),
        }
    }

    /// Tells it of `event`, unless it was told to end before.
    pub(super) fn notify(&mut self, event: Event) {
        if !self.is_ending() {
            self.event = Some(event);
        }
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Has `waker` woken at the next event.
    pub(super) fn wake_by(&mut self, waker: &Waker) {
        renew(&mut self.waker, waker);
    }

    /// Whether it has one of `marks`, and was not told to end yet.
    pub(super) fn has_one_of(&self, marks: &[u32]) -> bool {
        self.mark != 0 && !self.is_ending() && marks.binary_search(&self.mark).is_ok()
    }

    /// One that nothing is known of has just begun.
    pub(super) fn began_before(&self, moment: Instant) -> bool {
        self.facts.as_ref().is_some_and(|it| it.started() < moment)
    }

    fn is_ending(&self) -> bool {
        matches!(self.event, Some(Event::End(_)))
    }
}

/// Has `known` wake whom `waker` wakes; clones it only where that is somebody else.
pub(super) fn renew(known: &mut Option<Waker>, waker: &Waker) {
    match known {
        Some(known) => known.clone_from(waker),
        None => *known = Some(waker.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        assert!(size_of::<Entry>() <= 64, "{}", size_of::<Entry>());
    }
}
