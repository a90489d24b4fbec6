//! `max_connections` and `accept_rate`, exact over all workers, without a lock while there is room.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{GateSum, Limiter, Turn};
use crate::admission::{Rate, Rule};
use crate::config::Limited;

/// In a packed rate.
const DRY: u64 = 1 << 31;

/// How many sessions may exist at a time, and how many do.
#[derive(Debug)]
#[repr(align(64))]
pub struct Permits {
    in_use: AtomicUsize,
    limit: AtomicUsize,
    waiting: AtomicUsize,
    freed: Notify,
    /// How fast they may be taken: a count, whether that only counts, and the seconds that it is for; 0 is
    /// as fast as can be.
    rate: AtomicU64,
    limiter: Limiter,
    /// What the limit would be, but for `dry_run`.
    dry_limit: AtomicUsize,
    /// Clients that would have waited: for room, and for their turn.
    would_be: [AtomicU64; 2],
    /// Whoever takes one of these takes one of those, too.
    outer: Option<&'static Permits>,
}

impl Permits {
    /// Room for `limit` sessions. Lives as long as the process, so that a permit need not count
    /// references.
    pub fn new(limit: usize) -> &'static Self {
        Self::make(limit, None)
    }

    /// Room for `limit` of the sessions that `outer` has room for.
    pub fn within(outer: &'static Self, limit: usize) -> &'static Self {
        Self::make(limit, Some(outer))
    }

    fn make(limit: usize, outer: Option<&'static Self>) -> &'static Self {
        Box::leak(Box::new(Self {
            in_use: AtomicUsize::new(0),
            limit: AtomicUsize::new(limit),
            waiting: AtomicUsize::new(0),
            freed: Notify::new(),
            rate: AtomicU64::new(0),
            limiter: Limiter::default(),
            dry_limit: AtomicUsize::new(usize::MAX),
            would_be: Default::default(),
            outer,
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
        self.has_own_room() && self.outer.is_none_or(Self::has_room)
    }

    fn has_own_room(&self) -> bool {
        self.in_use() < self.limit()
    }

    /// Changes the limit. Sessions above a lower limit live on; none is added until it is met.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// Counts the sessions above this limit, and lets them be.
    pub fn set_dry_limit(&self, limit: Option<usize>) {
        let limit = limit.unwrap_or(usize::MAX);
        self.dry_limit.store(limit, Ordering::Relaxed);
    }

    /// Changes how fast clients may be taken.
    pub fn set_rate(&self, rate: Option<Limited<Rate>>) {
        let packed = rate.map_or(0, |Limited { most, dry }| {
            let dry = if dry { DRY } else { 0 };
            u64::from(most.count()) << 32 | dry | most.per().as_secs()
        });
        self.rate.store(packed, Ordering::Relaxed);
    }

    fn rate(&self) -> Option<Limited<Rate>> {
        let packed = self.rate.load(Ordering::Relaxed);
        let count = NonZeroU32::new((packed >> 32) as u32)?;
        let per = Duration::from_secs(packed & (DRY - 1));
        Some(Limited {
            most: Rate::new(count, per),
            dry: packed & DRY != 0,
        })
    }

    /// Takes the next turn to take a client, if it is not too soon.
    ///
    /// # Errors
    /// By how much it is.
    pub fn take_turn(&self) -> Result<Turn, Duration> {
        match self.rate() {
            None => Ok(Turn::Free),
            limit => self.limiter.take_turn(limit, Instant::now()),
        }
    }

    /// A client was accepted.
    pub fn accepted(&self, turn: Turn) {
        let [for_room, for_its_turn] = &self.would_be;
        if self.in_use() > self.dry_limit.load(Ordering::Relaxed) {
            for_room.fetch_add(1, Ordering::Relaxed);
        }
        if matches!(turn, Turn::TooEarly) {
            for_its_turn.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What a dry run has counted.
    pub fn sum(&self) -> GateSum {
        let mut sum = GateSum::default();
        let rules = [Rule::MaxConnections, Rule::AcceptRate];
        for (rule, count) in rules.into_iter().zip(&self.would_be) {
            sum.dry[rule as usize] = count.load(Ordering::Relaxed);
        }
        sum
    }

    /// Nobody was there.
    pub fn give_back(&self, turn: Turn) {
        if let Turn::Paid(rate) = turn {
            self.limiter.refund(rate);
        }
    }

    /// One permit, if there is room.
    pub fn try_acquire(&'static self) -> Option<Permit> {
        let outer = match self.outer {
            Some(outer) => Some(outer.try_acquire()?),
            None => None,
        };
        // The permit below gives back both.
        std::mem::forget(outer);
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
            // Whoever gives one of those back wakes nobody here.
            if let Some(outer) = self.outer.filter(|_| self.has_own_room()) {
                drop(Box::pin(outer.acquire()).await);
                continue;
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
            if self.has_own_room() {
                continue;
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

impl Permit {
    /// A permit of `inner` too, if it is one of those that `inner` is within; whoever has it is there already,
    /// whatever the limit is.
    pub fn within(self, inner: &'static Permits) -> Self {
        if !inner.outer.is_some_and(|it| std::ptr::eq(it, self.permits)) {
            return self;
        }
        inner.in_use.fetch_add(1, Ordering::SeqCst);
        // The permit below gives back both.
        std::mem::forget(self);
        Self { permits: inner }
    }
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
        if let Some(permits) = self.permits.outer {
            drop(Permit { permits });
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
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        /// Of those within, or of all.
        Take(bool),
        GiveBack(usize),
        Limit(bool, usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            5 => any::<bool>().prop_map(Step::Take),
            4 => any::<usize>().prop_map(Step::GiveBack),
            1 => (any::<bool>(), 0_usize..6).prop_map(|(inner, limit)| Step::Limit(inner, limit)),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn permits_within_permits_keep_to_the_model(steps in steps()) {
            let all = Permits::new(4);
            let some = Permits::within(all, 2);
            // Limits and counts, of all and of those within.
            let (mut limits, mut counts) = ([4, 2], [0, 0]);
            let mut held = Vec::new();
            for step in steps {
                match step {
                    Step::Take(inner) => {
                        let room = counts[0] < limits[0] && (!inner || counts[1] < limits[1]);
                        let permits = if inner { some } else { all };
                        prop_assert_eq!(permits.has_room(), room);
                        let permit = permits.try_acquire();
                        prop_assert_eq!(permit.is_some(), room);
                        if let Some(permit) = permit {
                            held.push((inner, permit));
                            counts[0] += 1;
                            counts[1] += usize::from(inner);
                        }
                    }
                    Step::GiveBack(n) if !held.is_empty() => {
                        let (inner, permit) = held.swap_remove(n % held.len());
                        drop(permit);
                        counts[0] -= 1;
                        counts[1] -= usize::from(inner);
                    }
                    Step::GiveBack(_) => {}
                    Step::Limit(inner, limit) => {
                        limits[usize::from(inner)] = limit;
                        if inner { some } else { all }.set_limit(limit);
                    }
                }
                prop_assert_eq!([all.in_use(), some.in_use()], counts);
            }
            held.clear();
            prop_assert_eq!([all.in_use(), some.in_use()], [0, 0]);
        }
    }

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

    /// A thread for each of these takes a permit of it and gives it back, again and again.
    fn take_turns(permits: &[&'static Permits]) {
        let turns = |permits: &'static Permits| async move {
            for _ in 0..2_000 {
                let permit = permits.acquire().await;
                tokio::task::yield_now().await;
                drop(permit);
            }
        };
        let start = |&permits: &&'static Permits| {
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(turns(permits));
            })
        };
        let threads: Vec<_> = permits.iter().map(start).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    }

    #[test]
    fn many_threads_never_pass_the_limit_and_none_is_left_waiting() {
        let permits = Permits::new(3);
        take_turns(&[permits; 8]);
        assert_eq!(permits.in_use(), 0);
        assert_eq!(permits.waiting.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_permit_within_others_is_one_of_both() {
        let all = Permits::new(2);
        let some = Permits::within(all, 1);
        let first = some.try_acquire().unwrap();
        assert!(some.try_acquire().is_none() && !some.has_room() && all.has_room());
        assert_eq!((some.in_use(), all.in_use()), (1, 1));
        let _other = all.try_acquire().unwrap();
        drop(first);
        let _third = all.try_acquire().unwrap();
        assert!(some.try_acquire().is_none() && !some.has_room());
        assert_eq!((some.in_use(), all.in_use()), (0, 2));
    }

    #[test]
    fn whoever_is_there_already_counts_within_whatever_the_limit() {
        let all = Permits::new(3);
        let some = Permits::within(all, 1);
        let held: Vec<_> = (0..2).filter_map(|_| all.try_acquire()).collect();
        let held: Vec<_> = held
            .into_iter()
            .map(|it| it.within(some).within(some))
            .collect();
        assert_eq!((some.in_use(), all.in_use()), (2, 2));
        assert!(some.try_acquire().is_none());
        let stranger = Permits::new(1).try_acquire().unwrap().within(some);
        drop((held, stranger));
        assert_eq!((some.in_use(), all.in_use()), (0, 0));
    }

    #[test]
    fn whoever_waits_within_is_woken_by_room_in_either() {
        let all = Permits::new(2);
        let some = Permits::within(all, 1);
        take_turns(&[some, all, some, all, some, all]);
        assert_eq!((some.in_use(), all.in_use()), (0, 0));
    }

    #[test]
    fn a_raised_limit_lets_the_waiting_in() {
        let permits = Permits::new(0);
        assert!(permits.try_acquire().is_none());
        permits.set_limit(1);
        assert!(permits.try_acquire().is_some());
    }
}
