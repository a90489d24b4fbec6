//! What has happened lately, for whoever asks and for whoever wants to be told. Control alone writes it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::api::Event;

/// The last `MOST_EVENTS` of them.
#[derive(Debug)]
pub struct Journal(Mutex<Book>);

#[derive(Debug)]
struct Book {
    events: VecDeque<Arc<Event>>,
    last: u64,
    told: broadcast::Sender<Arc<Event>>,
}

impl Default for Journal {
    fn default() -> Self {
        Self(Mutex::new(Book {
            events: VecDeque::new(),
            last: 0,
            told: broadcast::channel(MOST_UNHEARD).0,
        }))
    }
}

impl Journal {
    /// Takes an event in, and numbers it.
    pub fn write(&self, mut event: Event) {
        let mut book = self.book();
        book.last += 1;
        event.id = book.last;
        let event = Arc::new(event);
        if book.events.len() == MOST_EVENTS {
            book.events.pop_front();
        }
        book.events.push_back(Arc::clone(&event));
        // Nobody listening is no problem.
        let _ = book.told.send(event);
    }

    /// Those after number `since`, oldest first.
    pub(super) fn since(&self, since: u64) -> Vec<Arc<Event>> {
        self.book().since(since)
    }

    /// The same, and all that come from now on: none is missed in between.
    pub(super) fn follow(&self, since: u64) -> (Vec<Arc<Event>>, broadcast::Receiver<Arc<Event>>) {
        let book = self.book();
        (book.since(since), book.told.subscribe())
    }

    /// The number of the last one.
    pub(super) fn last(&self) -> u64 {
        self.book().last
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn since(&self, since: u64) -> Vec<Arc<Event>> {
        let from = self.events.partition_point(|event| event.id <= since);
        self.events.range(from..).cloned().collect()
    }
}

/// Events that are remembered.
const MOST_EVENTS: usize = 1000;
/// Events that a listener may lag behind.
const MOST_UNHEARD: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        Event {
            text: text.to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn the_latest_are_kept_and_numbered_without_a_gap() {
        let journal = Journal::default();
        for number in 1..=MOST_EVENTS + 5 {
            journal.write(event(&number.to_string()));
        }
        let all = journal.since(0);
        assert_eq!(all.len(), MOST_EVENTS);
        assert_eq!((all[0].id, all[0].text.as_str()), (6, "6"));
        assert_eq!(journal.since(1003).len(), 2);
        assert!(journal.since(journal.last()).is_empty());
        assert!(journal.since(u64::MAX).is_empty());
    }

    #[test]
    fn a_listener_misses_nothing_between_what_was_and_what_comes() {
        let journal = Journal::default();
        journal.write(event("before"));
        let (past, mut coming) = journal.follow(0);
        journal.write(event("after"));
        assert_eq!(past[0].text, "before");
        assert_eq!(coming.try_recv().unwrap().text, "after");
    }
}
