//! What time it is for whom. A handful of tasks wait for a time; sessions have the registry's wheel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::Reactor;

/// Who waits for which time.
#[derive(Default)]
pub(super) struct Timers(RefCell<Waiting>);

#[derive(Default)]
struct Waiting {
    /// By time, and by number where that is the same.
    all: BTreeMap<Key, Waker>,
    born: u64,
}

type Key = (Instant, u64);

impl Timers {
    /// The first time that somebody waits for.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self.0.borrow();
        waiting.all.first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes those whose time has come.
    pub(super) fn fire(&self, now: Instant) {
        let due = || {
            let mut waiting = self.0.borrow_mut();
            let first = waiting.all.first_entry().filter(|it| it.key().0 <= now);
            first.map(OccupiedEntry::remove)
        };
        while let Some(waker) = due() {
            waker.wake();
        }
    }
}

/// Is over at its time, or up to a millisecond later.
#[derive(Debug)]
pub struct Sleep {
    at: Instant,
    number: Option<u64>,
    reactor: Rc<Reactor>,
}

/// Sleeps for `time`; a hundred years are enough.
pub fn sleep(time: Duration) -> Sleep {
    sleep_until(Instant::now() + time.min(FAR))
}

/// Longer than any process runs.
const FAR: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Sleeps until `at`.
pub fn sleep_until(at: Instant) -> Sleep {
    Sleep {
        at,
        number: None,
        reactor: Reactor::current(),
    }
}

/// What comes of `future`, unless that takes longer than until `at`.
pub async fn timeout_at<T>(at: Instant, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut sleep = sleep_until(at);
    std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => Pin::new(&mut sleep).poll(cx).map(|()| None),
    })
    .await
}

impl Sleep {
    /// Sleeps until `at` instead.
    pub fn reset(&mut self, at: Instant) {
        self.stop();
        self.at = at;
    }

    fn stop(&mut self) {
        if let Some(number) = self.number.take() {
            let waiting = &self.reactor.timers.0;
            let waker = waiting.borrow_mut().all.remove(&(self.at, number));
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.at {
            self.stop();
            return Poll::Ready(());
        }
        let reactor = Rc::clone(&self.reactor);
        let waiting = &mut *reactor.timers.0.borrow_mut();
        let number = *self.number.get_or_insert_with(|| {
            waiting.born += 1;
            waiting.born
        });
        waiting.all.insert((self.at, number), cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.stop();
    }
}
