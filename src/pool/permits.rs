//! `max_connections`, exact over all workers, without a lock while there is room.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// How many sessions may exist at a time, and how many do.
#[derive(Debug)]
#[repr(align(64))]
pub struct Permits {
    in_use: AtomicUsize,
    limit: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
}

impl Permits {
    /// Room for `limit` sessions. Lives as long as the process, so that a permit need not count
    /// references.
    pub fn new(limit: usize) -> &'static Self {
        Box::leak(Box::new(Self {
            in_use: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
        }))
    }

    /// Sessions that exist now.
    pub fn in_use(&self) -> usize {
        self.in_use.load(Ordering::Relaxed)
    }

    /// Sessions that may exist.
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Whether a try would succeed right now.
    pub fn has_room(&self) -> bool {
        self.in_use() < self.limit()
    }

    /// Changes the limit. Sessions above a lower limit live on; none is added until it is met.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// One permit, if there is room.
    pub fn try_acquire(&'static self) -> Option<Permit> {
        // Add first and take back on overshoot: one locked instruction while there is room, and
        // never more permits than the limit.
        let before = self.in_use.fetch_add(1, Ordering::SeqCst);
        let permit = Permit { permits: self };
        // Dropping the permit takes the count back and wakes whoever it may have kept out.
        (before < self.limit.load(Ordering::SeqCst)).then_some(permit)
    }

    /// One permit, as soon as there is room. Cancel safe.
    pub async fn acquire(&'static self) -> Permit {
        loop {
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            let freed = self.freed.notified();
            tokio::pin!(freed);
            // Listening starts before the count says so, and the second try comes after both:
            // whoever frees a permit in between is either seen by the try or sees the waiter.
            freed.as_mut().enable();
            let _waiting = Waiting::count(&self.waiting);
            if let Some(permit) = self.try_acquire() {
                return permit;
            }
            freed.await;
        }
    }
}

/// One of the sessions that may exist; given back on drop.
#[derive(Debug)]
pub struct Permit {
    permits: &'static Permits,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let before = self.permits.in_use.fetch_sub(1, Ordering::SeqCst);
        // A permit that never fitted may have made another try fail for a moment, so only a count
        // that really leaves room wakes somebody.
        if self.permits.waiting.load(Ordering::SeqCst) > 0
            && before <= self.permits.limit.load(Ordering::SeqCst)
        {
            self.permits.freed.notify_one();
        }
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_exact_and_a_drop_makes_room() {
        let permits = Permits::new(2);
        let first = permits.try_acquire().unwrap();
        let _second = permits.try_acquire().unwrap();
        assert!(permits.try_acquire().is_none());
        assert_eq!(permits.in_use(), 2);
        drop(first);
        assert!(permits.try_acquire().is_some());
    }

    #[test]
    fn a_waiter_gets_the_permit_that_another_thread_gives_back() {
        let permits = Permits::new(1);
        let held = permits.try_acquire().unwrap();
        let waiter = std::thread::spawn({
            move || {
                tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap()
                    .block_on(async { drop(permits.acquire().await) });
            }
        });
        while permits.waiting.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        drop(held);
        waiter.join().unwrap();
        assert_eq!(permits.in_use(), 0);
    }

    #[test]
    fn many_threads_never_pass_the_limit_and_none_is_left_waiting() {
        let permits = Permits::new(3);
        let threads: Vec<_> = (0..8)
            .map(|_| {
                std::thread::spawn(move || {
                    tokio::runtime::Builder::new_current_thread()
                        .build()
                        .unwrap()
                        .block_on(async {
                            for _ in 0..2_000 {
                                let permit = permits.acquire().await;
                                tokio::task::yield_now().await;
                                drop(permit);
                            }
                        });
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(permits.in_use(), 0);
        assert_eq!(permits.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_raised_limit_lets_the_waiting_in() {
        let permits = Permits::new(0);
        assert!(permits.try_acquire().is_none());
        permits.set_limit(1);
        assert!(permits.try_acquire().is_some());
    }
}
