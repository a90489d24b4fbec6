//! Moving bytes both ways between two sockets until both sides are done.
//!
//! Each `direction` is a small state machine that moves bytes by `copy` or by `splice`; this file owns
//! what concerns the two together: half-close, failures, idleness, and how the session ends. A FIN is passed on after the
//! last byte. A failed side ends both directions: what was read from it is still delivered, then
//! the other side is reset.

mod copy;
mod direction;
mod splice;

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use self::direction::{Direction, State};
pub(crate) use self::splice::MOST_PIPES;
use self::splice::Pipes;
use super::{Event, STALLED, Shortage, Socket, Ticket, deliver};
use crate::admission::Toward;
use crate::config::RelayMode;
use crate::model::{Cause, Meter, Tally, Who};
use crate::pool::{Brake, Lane};
use crate::reactor;

/// One read by copying takes at most this much.
const BUFFER: usize = 64 * 1024;
/// While a session runs, its bytes are counted in pieces of this size: too rarely to be felt, and often
/// enough for whoever watches a long one.
const PIECE: u64 = 64 * 1024;
/// Whoever moves this much in a turn lets others go first.
const BULK: u64 = 32 * 1024;
/// How often a session that still has something to be checked is looked at.
const CHECK: Duration = Duration::from_secs(15);
/// A peer that acknowledges nothing for this long, although data waits for it, is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// What the sessions of one worker take turns with. What one reads is written, or put aside, before
/// the next is polled.
#[derive(Debug)]
pub struct Workspace {
    worker: usize,
    /// Hot in the worker's cache.
    buffer: Box<[u8]>,
    pipes: Pipes,
}

impl Workspace {
    /// A workspace for the worker of that number, which has no pipe that a `shortage` leaves to others.
    pub fn new(worker: usize, shortage: &'static Shortage) -> RefCell<Self> {
        RefCell::new(Self {
            worker,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            pipes: Pipes::new(shortage),
        })
    }

    /// Room for what is read and looked at at once.
    pub(super) fn scratch(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Pipes that are held, and how many of them are not in use.
    pub fn pipes(&self) -> (usize, usize) {
        self.pipes.count()
    }

    /// Lets go of what was not needed since the last call; a worker calls it about once a second.
    pub fn trim(&mut self) {
        self.pipes.trim();
    }
}

/// How a session is relayed, and how long silence may last.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    /// While both directions are open.
    pub idle: Duration,
    /// Once one of them has ended.
    pub half_closed: Duration,
    /// How bytes move.
    pub mode: RelayMode,
    /// Whether keepalive is on already, as an operator wants it.
    pub kept_alive: bool,
}

/// What a relay moved and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// Bytes written to the backend.
    pub to_backend: u64,
    /// Bytes written to the client.
    pub to_client: u64,
    /// Whose act ended it.
    pub who: Who,
    /// Why.
    pub cause: Cause,
}

/// Two connected sockets, and what has to be known to move bytes between them.
#[derive(Debug)]
pub struct Relay {
    client: Socket,
    backend: Socket,
    to_backend: Direction,
    to_client: Direction,
    idle: Duration,
    half_closed: Duration,
    /// In a box, and only where there is a limit to bandwidth.
    braked: Option<Box<Braked>>,
    kept_alive: bool,
    /// Patience ended: whoever was waited for is not waited for again.
    gave_up: bool,
    /// Nothing is left to check before the silence gets too long, or something moves again.
    settled: bool,
    /// It has moved bulk in its last turn that has moved anything.
    bulk: bool,
    /// Whose FIN or failure came first.
    first_to_end: Option<Who>,
}

impl Relay {
    /// A relay between `client` and `backend`, of whose bytes `early` ones have gone to the backend; nothing goes
    /// faster than `brake` allows.
    pub fn new(
        client: Socket,
        backend: Socket,
        early: u64,
        terms: Terms,
        brake: Option<Brake>,
    ) -> Self {
        let mut braked = brake.map(Braked::new);
        if early > 0
            && let Some(mut lane) = lane_of(&mut braked, Toward::Backend)
        {
            lane.has_gone(Instant::now(), early);
        }
        Self {
            client,
            backend,
            to_backend: Direction::after(early, terms.mode),
            to_client: Direction::after(0, terms.mode),
            idle: terms.idle,
            half_closed: terms.half_closed,
            braked,
            kept_alive: terms.kept_alive,
            gave_up: false,
            settled: false,
            bulk: false,
            first_to_end: None,
        }
    }

    /// Relays until both directions have ended, one side has failed, a limit has passed or the
    /// session is told to end. When the relay is dropped then, both sockets are closed
    /// with a FIN if all went well, else with a reset.
    ///
    /// Bytes are counted in `meter` while they move, and in `tally` a piece at a time: the rest of the last
    /// one when all is over.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async function keeps its arguments twice, in each idle session"
    )]
    pub fn run<'a>(
        &'a mut self,
        ticket: &'a Ticket,
        workspace: &'a RefCell<Workspace>,
        tally: Option<&'a Tally>,
        meter: &'a Meter,
    ) -> impl Future<Output = Report> + 'a {
        async move {
            meter.touch(Instant::now());
            let first = self.next_check(meter.active(), meter);
            self.schedule(ticket, first);
            let (who, cause) = poll_fn(|cx| self.poll(cx, ticket, workspace, tally, meter)).await;
            let report = Report {
                to_backend: self.to_backend.moved(),
                to_client: self.to_client.moved(),
                who,
                cause,
            };
            if let Some(tally) = tally {
                tally.moved(report.to_backend % PIECE, report.to_client % PIECE);
            }
            {
                let pipes = &mut workspace.borrow_mut().pipes;
                self.to_backend.release(pipes);
                self.to_client.release(pipes);
            }
            if cause == Cause::Finished {
                self.client.finish();
                self.backend.finish();
            } else if who != Who::Ballast && !self.gave_up {
                let patience = self.idle.min(STALLED);
                let survivor = match who {
                    Who::Client => &mut self.backend,
                    Who::Backend | Who::Ballast => &mut self.client,
                };
                // Rare, so not part of what every session weighs.
                Box::pin(deliver(survivor, ticket, patience)).await;
            }
            report
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        ticket: &Ticket,
        workspace: &RefCell<Workspace>,
        tally: Option<&Tally>,
        meter: &Meter,
    ) -> Poll<(Who, Cause)> {
        let mut released = false;
        while let Poll::Ready(event) = ticket.poll(cx) {
            match event {
                Event::End(cause) => return Poll::Ready((Who::Ballast, cause)),
                Event::Due => {
                    let now = Instant::now();
                    released = self.is_released(now, meter);
                    if released {
                        continue;
                    }
                    match self.check(now, meter) {
                        Ok(next) => {
                            self.take_notice(ticket, workspace);
                            self.schedule(ticket, next);
                        }
                        Err(ending) => return Poll::Ready(ending),
                    }
                }
            }
        }
        let before = (self.to_backend.moved(), self.to_client.moved());
        let entered = self.states();
        let had_failed = self.failure().is_some();
        self.step(cx, &mut workspace.borrow_mut());
        if self.first_to_end.is_none() {
            self.first_to_end = match self.states() {
                (State::Open, State::Open) => None,
                // A failure ends both directions, whichever of them shows it first.
                _ if self.failure().is_some() => self.failure().map(|(who, _)| who),
                (State::Open, _) => Some(Who::Backend),
                _ => Some(Who::Client),
            };
        }
        let after = (self.to_backend.moved(), self.to_client.moved());
        let progress = before != after;
        let pieces = [(before.0, after.0), (before.1, after.1)].map(whole_pieces);
        if pieces != [0, 0]
            && let Some(tally) = tally
        {
            tally.moved(pieces[0], pieces[1]);
        }
        let bulk = after.0 + after.1 - before.0 - before.1 >= BULK;
        if progress && bulk != self.bulk {
            self.bulk = bulk;
            reactor::take_long_turns(bulk);
        }
        if progress || entered != self.states() {
            meter.set_moved(after);
            meter.touch(Instant::now());
        }
        if self.to_backend.is_over() && self.to_client.is_over() {
            return Poll::Ready(self.outcome());
        }
        let failed = self.failure().is_some();
        if failed != had_failed {
            self.hold(Instant::now());
        }
        if entered != self.states() || failed != had_failed || (progress && self.settled) {
            // A direction that has ended shortens the patience with the other, and what was sent
            // after everything had been acknowledged has to be checked again.
            let next = self.next_check(meter.active(), meter);
            self.schedule(ticket, next);
        } else if let Some(braked) = &self.braked
            && (released || braked.brake.until().is_some())
        {
            self.schedule(ticket, braked.check);
        }
        Poll::Pending
    }

    /// Drives both directions until neither can move, and watches for what neither would see.
    fn step(&mut self, cx: &mut Context<'_>, workspace: &mut Workspace) {
        loop {
            let before = self.states();
            let mut news = false;
            let Self {
                client,
                backend,
                to_backend,
                to_client,
                braked,
                ..
            } = self;
            let last = to_client.state() == State::Ended;
            let lane = lane_of(braked, Toward::Backend);
            to_backend.step(cx, client, backend, last, workspace, lane);
            let last = to_backend.state() == State::Ended;
            let lane = lane_of(braked, Toward::Client);
            to_client.step(cx, backend, client, last, workspace, lane);
            let waits = |toward| braked.as_ref().is_some_and(|it| it.brake.holds(toward));
            // A side that is not read, because its FIN was, because the other side takes nothing
            // more or because it is slowed down, may still be reset.
            for (side, own, other, toward) in [
                (client, &*to_backend, &*to_client, Toward::Backend),
                (backend, &*to_client, &*to_backend, Toward::Client),
            ] {
                let matters = !own.has_read_fin() || !other.is_over();
                let unread = own.reads_nothing() || waits(toward);
                if unread && matters && side.failed().is_none() {
                    news |= side.poll_error(cx).is_ready();
                }
            }
            // What the one direction learned, a failure above all, may concern the other. States
            // only go forward, so this ends.
            if before == self.states() && !news {
                return;
            }
        }
    }

    fn states(&self) -> (State, State) {
        (self.to_backend.state(), self.to_client.state())
    }

    /// How the session ended, both directions being over.
    fn outcome(&self) -> (Who, Cause) {
        let first = self.first_to_end.unwrap_or(Who::Client);
        self.failure().unwrap_or((first, Cause::Finished))
    }

    /// Has the ticket wake the session for its next check, or earlier if bytes wait.
    fn schedule(&mut self, ticket: &Ticket, check: Instant) {
        let mut at = check;
        if let Some(braked) = &mut self.braked {
            braked.check = check;
            at = braked.brake.until().map_or(check, |until| until.min(check));
        }
        ticket.schedule(at);
    }

    /// Whether the ticket has woken the session for nothing but bytes that waited. Whoever waits is not
    /// silent; a direction that is over does not wait.
    fn is_released(&self, now: Instant, meter: &Meter) -> bool {
        let Some(braked) = &self.braked else {
            return false;
        };
        if braked.brake.until().is_none() {
            return false;
        }
        meter.touch(now);
        now < braked.check
    }

    /// Limits to bandwidth that are new since the session began. They hold back nothing that a failed side has left.
    fn take_notice(&mut self, ticket: &Ticket, workspace: &RefCell<Workspace>) {
        if self.braked.is_none()
            && self.failure().is_none()
            && let Some(throttle) = ticket.throttle()
        {
            let worker = workspace.borrow().worker;
            self.braked = Some(Braked::new(throttle.brake(worker)));
        }
    }

    /// How long bytes have waited because there was a limit to bandwidth, both ways together.
    pub fn slowed(&self) -> Option<Duration> {
        let waited = self.braked.as_ref()?.brake.waited();
        Some(waited).filter(|it| !it.is_zero())
    }

    /// What a deadline means now: the next one, or the end.
    fn check(&mut self, now: Instant, meter: &Meter) -> Result<Instant, (Who, Cause)> {
        if now.saturating_duration_since(meter.active()) >= self.patience() {
            self.gave_up = true;
            return Err(match self.failure() {
                Some(failure) => failure,
                None if self.is_half_closed() => (Who::Ballast, Cause::HalfClosed),
                None => (Who::Ballast, Cause::Idle),
            });
        }
        if let Some(failure) = self.failure()
            && self.held_until().is_some_and(|until| until <= now)
        {
            return Err(failure);
        }
        if self.client.is_unacknowledged(UNACKNOWLEDGED)
            || self.backend.is_unacknowledged(UNACKNOWLEDGED)
        {
            return Err((Who::Ballast, Cause::Unacknowledged));
        }
        if !self.kept_alive {
            self.backend.keep_alive();
            self.kept_alive = true;
        }
        Ok(self.next_check(now, meter))
    }

    /// When to look again: when patience ends, or earlier while something else needs to be checked. Whatever
    /// moves just now does: it may be left unacknowledged, or meet a limit to bandwidth that is new.
    fn next_check(&mut self, now: Instant, meter: &Meter) -> Instant {
        let silence = meter.active() + self.patience();
        let limit = (self.held_until()).map_or(silence, |until| until.min(silence));
        self.settled = now > meter.active()
            && self.kept_alive
            && !self.client.has_unacknowledged()
            && !self.backend.has_unacknowledged();
        if self.settled {
            limit
        } else {
            limit.min(now + CHECK)
        }
    }

    /// A side has failed at `now`. Whoever is slowed down is not silent, and might not be done with what it has left
    /// for hours, so that has an end.
    fn hold(&mut self, now: Instant) {
        let until = now + self.patience();
        if let Some(braked) = &mut self.braked {
            braked.held_until = Some(until);
        }
    }

    /// Until when a failed side's bytes may come, if nothing but a limit to bandwidth holds them back.
    fn held_until(&self) -> Option<Instant> {
        let braked = self.braked.as_ref()?;
        braked.held_until.filter(|_| braked.brake.until().is_some())
    }

    /// How long silence may last. Once a side has failed, what is left is delivery to the other.
    fn patience(&self) -> Duration {
        if self.failure().is_some() {
            self.idle.min(STALLED)
        } else if self.is_half_closed() {
            self.half_closed
        } else {
            self.idle
        }
    }

    /// Which side has failed, and why; of two, the one that ended its direction first.
    fn failure(&self) -> Option<(Who, Cause)> {
        let client = self.client.failed().map(|cause| (Who::Client, cause));
        let backend = self.backend.failed().map(|cause| (Who::Backend, cause));
        match self.first_to_end {
            Some(Who::Backend) => backend.or(client),
            Some(Who::Client | Who::Ballast) | None => client.or(backend),
        }
    }

    fn is_half_closed(&self) -> bool {
        self.to_backend.is_over() != self.to_client.is_over()
    }
}

/// What a session has besides if there is a limit to bandwidth.
#[derive(Debug)]
struct Braked {
    brake: Brake,
    /// When the session is to be checked, whatever else it is woken for.
    check: Instant,
    /// Once a side has failed: until when what it had sent before may still be held back.
    held_until: Option<Instant>,
}

fn lane_of(braked: &mut Option<Box<Braked>>, toward: Toward) -> Option<Lane<'_>> {
    braked.as_mut().map(|it| it.brake.lane(toward))
}

impl Braked {
    fn new(brake: Brake) -> Box<Self> {
        let check = Instant::now();
        Box::new(Self {
            brake,
            check,
            held_until: None,
        })
    }
}

/// How much of what has moved between the two counts is in pieces that are complete by the second one.
fn whole_pieces((before, after): (u64, u64)) -> u64 {
    (after / PIECE - before / PIECE) * PIECE
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_and_the_rest_of_the_last_are_all_that_moved(
            steps in proptest::collection::vec(0_u64..300_000, 0..50)
        ) {
            let mut moved = 0;
            let mut counted = 0;
            for step in steps {
                counted += whole_pieces((moved, moved + step));
                moved += step;
                prop_assert!(moved - counted < PIECE);
            }
            prop_assert_eq!(counted + moved % PIECE, moved);
        }
    }
}
