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
use super::{Event, Socket, Ticket, deliver};
use crate::config::RelayMode;
use crate::model::{Cause, Who};

/// One read by copying takes at most this much.
const BUFFER: usize = 64 * 1024;
/// How often a session that still has something to be checked is looked at.
const CHECK: Duration = Duration::from_secs(15);
/// A peer that acknowledges nothing for this long, although data waits for it, is gone.
const UNACKNOWLEDGED: Duration = Duration::from_secs(90);

/// What the sessions of one worker take turns with. What one reads is written, or put aside, before
/// the next is polled.
#[derive(Debug)]
pub struct Workspace {
    /// Hot in the worker's cache.
    buffer: Box<[u8]>,
    pipes: Pipes,
}

impl Workspace {
    /// A workspace for one worker.
    pub fn new() -> RefCell<Self> {
        RefCell::new(Self {
            buffer: vec![0; BUFFER].into_boxed_slice(),
            pipes: Pipes::new(),
        })
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
    terms: Terms,
    /// When a byte or a FIN last came through.
    active: Instant,
    kept_alive: bool,
    /// Whose FIN or failure came first.
    first_to_end: Option<Who>,
}

impl Relay {
    /// A relay between `client` and `backend`, nothing moved yet.
    pub fn new(client: Socket, backend: Socket, terms: Terms) -> Self {
        Self {
            client,
            backend,
            to_backend: Direction::new(terms.mode),
            to_client: Direction::new(terms.mode),
            terms,
            active: Instant::now(),
            kept_alive: false,
            first_to_end: None,
        }
    }

    /// Relays until both directions have ended, one side has failed, a limit has passed or the
    /// session is told to end. When the relay is dropped then, both sockets are closed
    /// with a FIN if all went well, else with a reset.
    pub async fn run(&mut self, ticket: &Ticket, workspace: &RefCell<Workspace>) -> Report {
        ticket.schedule(self.next_check(self.active));
        let (who, cause) = poll_fn(|cx| self.poll(cx, ticket, workspace)).await;
        let report = Report {
            to_backend: self.to_backend.moved(),
            to_client: self.to_client.moved(),
            who,
            cause,
        };
        {
            let pipes = &mut workspace.borrow_mut().pipes;
            self.to_backend.release(pipes);
            self.to_client.release(pipes);
        }
        if cause == Cause::Finished {
            self.client.finish();
            self.backend.finish();
        } else if who != Who::Ballast {
            let survivor = match who {
                Who::Client => &mut self.backend,
                Who::Backend | Who::Ballast => &mut self.client,
            };
            // Rare, so not part of what every session weighs.
            Box::pin(deliver(survivor, ticket)).await;
        }
        report
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        ticket: &Ticket,
        workspace: &RefCell<Workspace>,
    ) -> Poll<(Who, Cause)> {
        while let Poll::Ready(event) = ticket.poll(cx) {
            match event {
                Event::End(cause) => return Poll::Ready((Who::Ballast, cause)),
                Event::Due => match self.check(Instant::now()) {
                    Ok(next) => ticket.schedule(next),
                    Err(cause) => return Poll::Ready((Who::Ballast, cause)),
                },
            }
        }
        let moved = self.to_backend.moved() + self.to_client.moved();
        let entered = self.states();
        self.step(cx, &mut workspace.borrow_mut());
        if self.first_to_end.is_none() {
            self.first_to_end = match self.states() {
                (State::Open, State::Open) => None,
                (State::Open, _) => Some(Who::Backend),
                _ => Some(Who::Client),
            };
        }
        let progress = moved != self.to_backend.moved() + self.to_client.moved();
        if progress || entered != self.states() {
            self.active = Instant::now();
        }
        if self.to_backend.is_over() && self.to_client.is_over() {
            return Poll::Ready(self.outcome());
        }
        if entered != self.states() {
            // A direction that has ended shortens the patience with the other.
            ticket.schedule(self.next_check(self.active));
        }
        Poll::Pending
    }

    /// Drives both directions until neither can move, and watches for what neither would see.
    fn step(&mut self, cx: &mut Context<'_>, workspace: &mut Workspace) {
        loop {
            let before = self.states();
            let Self {
                client,
                backend,
                to_backend,
                to_client,
                ..
            } = self;
            let last = to_client.state() == State::Ended;
            to_backend.step(cx, client, backend, last, workspace);
            let last = to_backend.state() == State::Ended;
            to_client.step(cx, backend, client, last, workspace);
            // A side whose FIN was read is read no more, yet it may still be reset.
            if to_backend.has_read_fin() && !to_client.is_over() && client.poll_error(cx).is_ready()
                || to_client.has_read_fin()
                    && !to_backend.is_over()
                    && backend.poll_error(cx).is_ready()
            {
                continue;
            }
            // What the one direction learned, a failure above all, may concern the other. States
            // only go forward, so this ends.
            if before == self.states() {
                return;
            }
        }
    }

    fn states(&self) -> (State, State) {
        (self.to_backend.state(), self.to_client.state())
    }

    /// How the session ended, both directions being over.
    fn outcome(&self) -> (Who, Cause) {
        match (self.client.failed(), self.backend.failed()) {
            (None, None) => (self.first_to_end.unwrap_or(Who::Client), Cause::Finished),
            (Some(cause), None) => (Who::Client, cause),
            (None, Some(cause)) => (Who::Backend, cause),
            // Both failed: whoever ended its direction first is who began.
            (Some(client), Some(backend)) => match self.first_to_end {
                Some(Who::Backend) => (Who::Backend, backend),
                Some(Who::Client | Who::Ballast) | None => (Who::Client, client),
            },
        }
    }

    /// What a deadline means now: the next one, or the end.
    fn check(&mut self, now: Instant) -> Result<Instant, Cause> {
        let silence = now.saturating_duration_since(self.active);
        let half_closed = self.is_half_closed();
        if half_closed && silence >= self.terms.half_closed {
            return Err(Cause::HalfClosed);
        }
        if !half_closed && silence >= self.terms.idle {
            return Err(Cause::Idle);
        }
        if self.client.is_unacknowledged(UNACKNOWLEDGED)
            || self.backend.is_unacknowledged(UNACKNOWLEDGED)
        {
            return Err(Cause::Unacknowledged);
        }
        if !self.kept_alive {
            self.backend.keep_alive();
            self.kept_alive = true;
        }
        Ok(self.next_check(now))
    }

    /// When to look again: at the limit, or earlier while something else needs to be checked.
    fn next_check(&self, now: Instant) -> Instant {
        let limit = if self.is_half_closed() {
            self.terms.half_closed
        } else {
            self.terms.idle
        };
        let limit = self.active + limit;
        let settled = self.kept_alive
            && !self.client.has_unacknowledged()
            && !self.backend.has_unacknowledged();
        if settled {
            limit
        } else {
            limit.min(now + CHECK)
        }
    }

    fn is_half_closed(&self) -> bool {
        self.to_backend.is_over() != self.to_client.is_over()
    }
}
