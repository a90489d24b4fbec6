//! What one session has of its service's bandwidth, each way: what it may move now, and for what it waits.
//!
//! Its own cap is a bucket that nobody else sees. Of the cap of all sessions it books a slice at a time, and moves
//! many reads by that. Slices are served in the order in which they were booked, whichever worker asked: that is
//! what makes it fair. What a session has not used when it finds nothing more to move stays in its worker's share,
//! for the next there: small messages take from that, and touch nothing that workers share. Knows no socket; what
//! is booked is kept by the [`throttle`](super::throttle).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Throttle;
use super::clock::moment;
use super::throttle::{CAPS, Share};
use crate::admission::{Bandwidth, Cap, Toward};
use crate::config::Limited;

/// A session that waits looks after this whether its caps have changed meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What slows a session down. Kept in a box by those that have a cap; nobody else has one.
#[derive(Debug)]
pub struct Brake {
    throttle: Arc<Throttle>,
    worker: usize,
    sides: [Side; 2],
}

#[derive(Debug, Default)]
struct Side {
    /// Up to when the session's own bandwidth is used.
    own: u64,
    /// Bytes of all sessions' bandwidth that are this one's, …
    held: u64,
    /// … from this moment on, …
    ready: u64,
    /// … and by which cap they were booked.
    booked: Option<Bandwidth>,
    /// When it was last asked.
    now: u64,
    /// It waits because of that cap, since then.
    waits: Option<(Cap, u64)>,
    /// When it is worth asking again.
    until: Option<Instant>,
    /// How long it has waited so far.
    waited: u64,
    /// By which caps it was slowed down, or would have been.
    slowed: u16,
}

impl Brake {
    /// For a session on `worker` that has moved nothing yet.
    pub(super) fn new(throttle: Arc<Throttle>, worker: usize) -> Self {
        Self {
            throttle,
            worker,
            sides: Default::default(),
        }
    }

    /// One way of the session.
    pub fn lane(&mut self, toward: Toward) -> Lane<'_> {
        Lane {
            throttle: &self.throttle,
            share: self.throttle.share(self.worker),
            toward,
            side: &mut self.sides[toward as usize],
        }
    }

    /// Whether bytes wait that way.
    pub fn holds(&self, toward: Toward) -> bool {
        self.sides[toward as usize].until.is_some()
    }

    /// When it is worth asking again, if bytes wait.
    pub fn until(&self) -> Option<Instant> {
        self.sides.iter().filter_map(|side| side.until).min()
    }

    /// How long bytes have waited, both ways together.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.sides.iter().map(|side| side.waited).sum())
    }
}

impl Drop for Brake {
    fn drop(&mut self) {
        let now = Instant::now();
        for toward in [Toward::Backend, Toward::Client] {
            self.lane(toward).stop(now);
        }
    }
}

/// One way of a session that may have caps.
#[derive(Debug)]
pub struct Lane<'a> {
    throttle: &'a Throttle,
    share: &'a Share,
    toward: Toward,
    side: &'a mut Side,
}

impl Lane<'_> {
    /// How many bytes may be read at `now`; `None` if they have to wait.
    pub fn allow(&mut self, now: Instant) -> Option<usize> {
        self.side.now = moment(now);
        let allowed = self.own().and_then(|own| Ok(own.min(self.common()?)));
        match allowed {
            Ok(bytes) => {
                self.goes_on(self.side.now);
                Some(usize::try_from(bytes).unwrap_or(usize::MAX))
            }
            Err((cap, ready)) => {
                self.waits(cap);
                let wait = Duration::from_nanos(ready - self.side.now);
                self.side.until = Some(now + wait.min(LOOK_AGAIN));
                None
            }
        }
    }

    /// So many were read.
    pub fn spend(&mut self, bytes: usize) {
        self.pay(bytes as u64);
    }

    fn pay(&mut self, bytes: u64) {
        let now = self.side.now;
        let cap = Cap::of_each(self.toward);
        if let Some(Limited { most, dry }) = self.throttle.in_force(cap) {
            self.side.own = most.book(self.side.own, now, bytes);
            if dry {
                self.would_wait(cap, self.side.own.saturating_sub(now));
                self.side.own = self.side.own.min(now);
            }
        }
        let cap = Cap::of_all(self.toward);
        if let Some(Limited { most, dry }) = self.throttle.in_force(cap) {
            if dry && self.side.held < bytes {
                let more = bytes.max(most.slice());
                let early = self.throttle.book_late(self.toward, most, now, more);
                self.would_wait(cap, early);
                self.side.booked = Some(most);
                self.side.held += more;
                self.side.ready = now;
            } else if self.side.held < bytes {
                // Nobody has asked for the rest, and others wait the longer for it.
                let more = bytes - self.side.held;
                self.throttle.book(self.toward, most, now, more);
            }
            self.side.held = self.side.held.saturating_sub(bytes);
        }
    }

    /// So many have gone by `now` without being asked for: what follows pays for them.
    pub fn has_gone(&mut self, now: Instant, bytes: u64) {
        self.side.now = moment(now);
        self.pay(bytes);
    }

    /// Nothing more is moved for now: what is held and may be used is for others, unless it is waited for.
    pub fn rest(&mut self) {
        let booked_ahead = self.side.ready > self.side.now;
        if self.side.held == 0 || self.side.until.is_some() && booked_ahead {
            return;
        }
        let held = std::mem::take(&mut self.side.held);
        let cap = self.throttle.in_force(Cap::of_all(self.toward));
        let Some(Limited { most, .. }) = cap.filter(|it| self.side.booked == Some(it.most)) else {
            return;
        };
        if booked_ahead {
            // Its time has not come, and so it is nobody's.
            return self.throttle.refund(self.toward, most, held);
        }
        let spare = &self.share.spare[self.toward as usize];
        let all = spare.load(Ordering::Relaxed) + held;
        let kept = all.min(most.slice());
        spare.store(kept, Ordering::Relaxed);
        if all > kept {
            self.throttle.refund(self.toward, most, all - kept);
        }
    }

    /// Nothing will be moved any more, so nothing is waited for either.
    pub fn stop(&mut self, now: Instant) {
        self.goes_on(moment(now));
        self.rest();
    }

    /// What the session's own cap allows, or when it allows a slice.
    fn own(&self) -> Result<u64, (Cap, u64)> {
        let cap = Cap::of_each(self.toward);
        match self.throttle.in_force(cap) {
            Some(Limited { most, dry: false }) => {
                let room = most.room(self.side.own, self.side.now);
                // Less is not worth a system call.
                if room >= most.slice() {
                    return Ok(room);
                }
                Err((cap, most.book(self.side.own, self.side.now, most.slice())))
            }
            Some(Limited { dry: true, .. }) | None => Ok(u64::MAX),
        }
    }

    /// What the cap of all sessions allows this one, or when it does.
    fn common(&mut self) -> Result<u64, (Cap, u64)> {
        let cap = Cap::of_all(self.toward);
        let Some(Limited { most, dry: false }) = self.throttle.in_force(cap) else {
            return Ok(u64::MAX);
        };
        if self.side.held == 0 || self.side.booked != Some(most) {
            self.take_slice(most);
        }
        // All that is booked, its own slice included, is paid for by then: those before it may have left.
        self.side.ready = self.side.ready.min(self.throttle.used(self.toward));
        match self.side.ready > self.side.now {
            true => Err((cap, self.side.ready)),
            false => Ok(self.side.held),
        }
    }

    fn take_slice(&mut self, most: Bandwidth) {
        let (slice, side) = (most.slice(), &mut *self.side);
        let spare = &self.share.spare[self.toward as usize];
        let mine = spare.load(Ordering::Relaxed).min(slice);
        spare.store(0, Ordering::Relaxed);
        side.booked = Some(most);
        side.ready = side.now;
        side.held = mine;
        if mine < slice / 2 {
            side.held = slice;
            side.ready = self
                .throttle
                .book(self.toward, most, side.now, slice - mine);
        }
    }

    fn waits(&mut self, cap: Cap) {
        if self.side.waits.is_some_and(|(known, _)| known == cap) {
            return;
        }
        self.goes_on(self.side.now);
        self.side.waits = Some((cap, self.side.now));
        if self.is_first(cap as u16) {
            let count = &self.share.delayed[cap as usize];
            count.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Does not wait any more at `now`.
    fn goes_on(&mut self, now: u64) {
        self.side.until = None;
        if let Some((cap, since)) = self.side.waits.take() {
            let waited = now.saturating_sub(since);
            self.side.waited += waited;
            let count = &self.share.delayed[cap as usize];
            count.nanos.fetch_add(waited, Ordering::Relaxed);
        }
    }

    fn would_wait(&mut self, cap: Cap, early: u64) {
        if early == 0 {
            return;
        }
        let count = &self.share.would_be[cap as usize];
        count.nanos.fetch_add(early, Ordering::Relaxed);
        if self.is_first(CAPS as u16 + cap as u16) {
            count.sessions.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_first(&mut self, bit: u16) -> bool {
        let known = self.side.slowed & 1 << bit != 0;
        self.side.slowed |= 1 << bit;
        !known
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::config::Caps;
    use crate::pool::ThrottleSum;

    const SECOND: Duration = Duration::from_secs(1);

    fn cap(bytes: u64, dry: bool) -> Option<Limited<Bandwidth>> {
        let most = Bandwidth::new(bytes.try_into().unwrap());
        Some(Limited { most, dry })
    }

    fn throttle(caps: Caps) -> Arc<Throttle> {
        let throttle = Throttle::new(2);
        throttle.set(&caps);
        throttle
    }

    /// Long after whatever the process began with.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(1000)
    }

    /// Moves to the client all that may flow at `now`.
    fn drink(brake: &mut Brake, now: Instant) -> u64 {
        let mut moved = 0;
        let mut lane = brake.lane(Toward::Client);
        while let Some(bytes) = lane.allow(now) {
            assert!(bytes > 0 && bytes < 1 << 40, "{bytes}");
            lane.spend(bytes);
            moved += bytes as u64;
        }
        lane.rest();
        moved
    }

    #[test]
    fn a_session_has_its_burst_and_then_its_bandwidth_and_the_other_way_is_free() {
        let throttle = throttle([None, None, None, cap(1_000_000, false)]);
        let (mut one, mut two) = (throttle.brake(0), throttle.brake(0));
        let now = later();
        for brake in [&mut one, &mut two] {
            assert_eq!(drink(brake, now), 100_000);
            assert_eq!(drink(brake, now), 0);
            let until = brake.until().unwrap();
            assert!(until > now && until <= now + SECOND / 100, "a slice");
            assert!(brake.holds(Toward::Client) && !brake.holds(Toward::Backend));
            let free = brake.lane(Toward::Backend).allow(now);
            assert_eq!(free, Some(usize::MAX));
            assert_eq!(drink(brake, now + SECOND / 20), 50_000);
            assert_eq!(brake.waited(), SECOND / 20);
        }
        drop((one, two));
        let delays = throttle.sum().delayed[Cap::ToClientPerSession as usize];
        assert_eq!((delays.sessions, delays.time), (2, SECOND / 10));
        assert_eq!(throttle.sum().would_be, ThrottleSum::default().would_be);
    }

    #[test]
    fn sessions_of_all_workers_have_one_bandwidth_between_them() {
        let throttle = throttle([None, cap(1_000_000, false), None, None]);
        let mut brakes = [throttle.brake(0), throttle.brake(1), throttle.brake(1)];
        let now = later();
        let mut moved: u64 = brakes.iter_mut().map(|it| drink(it, now)).sum();
        assert_eq!(moved, 100_000, "the burst");
        for step in 1..=100 {
            let at = now + SECOND / 50 * step;
            moved += brakes.iter_mut().map(|it| drink(it, at)).sum::<u64>();
        }
        assert!((2_080_000..=2_100_000).contains(&moved), "{moved}");
        assert!(brakes.iter().all(|it| it.waited() > SECOND));
    }

    #[test]
    fn what_is_not_used_is_there_for_the_next_and_small_messages_book_nothing() {
        let throttle = throttle([None, cap(1_000_000, false), None, None]);
        let mut brakes = [throttle.brake(0), throttle.brake(0)];
        let now = later();
        let used = |throttle: &Throttle| throttle.used(Toward::Client);
        let mut say = |at: usize| {
            let mut lane = brakes[at % 2].lane(Toward::Client);
            assert!(lane.allow(now).unwrap() >= 100);
            lane.spend(100);
            lane.rest();
        };
        say(0);
        let booked = used(&throttle);
        (1..20).for_each(&mut say);
        assert_eq!(used(&throttle), booked, "of one slice of 5,000");
        (20..50).for_each(&mut say);
        let [mut one, _two] = brakes;
        // But for what is less than a slice, and waited for, nothing is lost.
        let mut rest = drink(&mut one, now);
        assert!((90_001..=95_000).contains(&rest), "{rest}");
        rest += drink(&mut one, now + SECOND / 20);
        assert!((140_001..=145_000).contains(&rest), "{rest}");
    }

    #[test]
    fn what_a_session_that_ends_has_booked_ahead_is_given_back() {
        let throttle = throttle([None, cap(1_000_000, false), None, None]);
        let now = later();
        let mut first = throttle.brake(0);
        assert_eq!(drink(&mut first, now), 100_000);
        let used = || throttle.used(Toward::Client);
        let before = used();
        let mut waiting: Vec<_> = (0..100).map(|_| throttle.brake(1)).collect();
        assert!(waiting.iter_mut().all(|it| drink(it, now) == 0));
        assert!(used() >= before + 500_000_000);
        drop(waiting);
        assert!(used().abs_diff(before) < 1000);
    }

    #[test]
    fn who_stops_waits_no_more_and_leaves_what_was_booked() {
        let throttle = throttle([None, cap(1_000_000, false), None, None]);
        let now = later();
        let (mut first, mut second) = (throttle.brake(0), throttle.brake(0));
        assert_eq!(drink(&mut first, now), 100_000);
        let used = || throttle.used(Toward::Client);
        let before = used();
        assert_eq!(drink(&mut second, now), 0);
        assert!(second.holds(Toward::Client) && used() > before);
        second.lane(Toward::Client).stop(now + SECOND);
        assert!(!second.holds(Toward::Client) && second.until().is_none());
        assert_eq!(second.waited(), SECOND);
        assert_eq!(used(), before + 1, "but for what is rounded up");
    }

    #[test]
    fn who_waits_moves_up_as_soon_as_those_before_it_have_left() {
        let throttle = throttle([None, cap(1_000_000, false), None, None]);
        let now = later();
        let mut first = throttle.brake(0);
        assert_eq!(drink(&mut first, now), 100_000);
        let mut line: Vec<_> = (0..100).map(|_| throttle.brake(0)).collect();
        let mut last = [throttle.brake(0), throttle.brake(1)];
        for brake in line.iter_mut().chain(&mut last) {
            assert_eq!(drink(brake, now), 0);
        }
        line.truncate(1);
        // Now it is as short as it was long, and goes on evenly.
        let mut moved = [0; 3];
        for step in 1..=6 {
            let at = now + SECOND / 100 * step;
            for (moved, brake) in moved.iter_mut().zip(line.iter_mut().chain(&mut last)) {
                *moved += drink(brake, at);
            }
        }
        let all: u64 = moved.iter().sum();
        assert!((50_000..=60_000).contains(&all), "{moved:?}");
        assert!(moved.iter().all(|it| *it >= 10_000), "{moved:?}");
    }

    #[test]
    fn bytes_that_went_before_anybody_asked_are_paid_for_by_what_follows() {
        for at in [Cap::ToClient, Cap::ToClientPerSession] {
            for dry in [false, true] {
                let mut caps = [None; CAPS];
                caps[at as usize] = cap(1_000_000, dry);
                let throttle = throttle(caps);
                let now = later();
                let mut brake = throttle.brake(0);
                brake.lane(Toward::Client).has_gone(now, 150_000);
                let sum = throttle.sum();
                if dry {
                    let would_be = sum.would_be[at as usize];
                    assert_eq!((would_be.sessions, would_be.time), (1, SECOND / 20), "{at}");
                } else {
                    assert_eq!(drink(&mut brake, now + SECOND / 25), 0, "{at}");
                    assert_eq!(drink(&mut brake, now + SECOND / 10), 50_000, "{at}");
                }
            }
        }
    }

    #[test]
    fn new_caps_hold_at_once_and_what_waits_by_old_ones_waits_no_more() {
        let throttle = throttle([None, cap(1000, false), None, None]);
        let now = later();
        let (mut one, mut two) = (throttle.brake(0), throttle.brake(0));
        assert_eq!(drink(&mut one, now), 4096);
        assert_eq!(drink(&mut two, now), 0);
        assert!(two.until().unwrap() <= now + LOOK_AGAIN);
        throttle.set(&[None, cap(1_000_000, false), None, None]);
        assert_eq!(drink(&mut two, now), 100_000);
        throttle.set(&[None; CAPS]);
        assert_eq!(one.lane(Toward::Client).allow(now), Some(usize::MAX));
        assert_eq!(one.until(), None);
    }

    #[test]
    fn a_dry_run_delays_nobody_and_counts_by_how_much_it_would_have() {
        for at in [Cap::ToClient, Cap::ToClientPerSession] {
            let mut caps = [None; CAPS];
            caps[at as usize] = cap(1_000_000, true);
            let throttle = throttle(caps);
            let mut brake = throttle.brake(0);
            let now = later();
            for _ in 0..21 {
                let mut lane = brake.lane(Toward::Client);
                assert_eq!(lane.allow(now), Some(usize::MAX));
                lane.spend(100_000);
                lane.rest();
            }
            let sum = throttle.sum();
            assert_eq!(sum.delayed, ThrottleSum::default().delayed);
            let would_be = sum.would_be[at as usize];
            assert_eq!((would_be.sessions, would_be.time), (1, 2 * SECOND), "{at}");
        }
    }

    #[test]
    fn workers_that_race_book_no_more_than_there_is() {
        let throttle = throttle([None, cap(1_000_000, false), None, None]);
        let now = later();
        let moved = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for worker in 0..2 {
                let (throttle, moved) = (&throttle, &moved);
                scope.spawn(move || {
                    for step in 0..1000 {
                        let mut brake = throttle.brake(worker);
                        let bytes = drink(&mut brake, now + Duration::from_micros(step * 100));
                        moved.fetch_add(bytes, Ordering::Relaxed);
                    }
                });
            }
        });
        let moved = moved.into_inner();
        assert!(moved <= 200_000 + 2 * 5_000, "{moved}");
    }
}
