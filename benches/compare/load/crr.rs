//! Connect, request, reply, close: the short session, over and over. Either the next starts when one ends,
//! or at a fixed rate, where the latency runs from the moment a session was *due*: a stall then shows in
//! every session it delayed, not only in those that happened to be open.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Job, PATIENCE, Reason, Tally, Window};
use crate::poller::{self, Event, EventFlags, Poller};
use crate::wire;

/// How often overdue sessions are looked for, and the longest that a wait lasts.
const SWEEP: Duration = Duration::from_millis(250);

/// A failed session's place stays empty so long, so that a dead target is not dialled in a spin.
const REST: Duration = Duration::from_millis(1);

/// Runs for the job's window, on `sessions` places.
pub(super) fn run(
    job: &Job,
    size: usize,
    sessions: usize,
    rate: Option<f64>,
    thread: usize,
    tally: Tally,
) -> Result<Tally> {
    let window = Window::after(job.warm_up, job.length);
    let until = Until::Moment(window.end);
    Client::new(job, size, sessions, thread, window, tally)?.run(until, rate)
}

/// Runs exactly `count` sessions.
pub(super) fn count(job: &Job, size: usize, count: u64, tally: Tally) -> Result<Tally> {
    let window = Window::after(Duration::ZERO, Duration::from_secs(86_400));
    Client::new(job, size, job.sessions, 0, window, tally)?.run(Until::Count(count), None)
}

#[derive(Clone, Copy)]
enum Until {
    Moment(Instant),
    Count(u64),
}

struct Client<'a> {
    poller: Poller,
    targets: &'a [SocketAddr],
    next_target: usize,
    request: Vec<u8>,
    places: Vec<Place>,
    /// Places without a session.
    free: Vec<usize>,
    /// Places to be freed, in order of time.
    resting: VecDeque<(Instant, usize)>,
    window: Window,
    tally: Tally,
    scratch: Vec<u8>,
}

/// Where one session at a time lives.
struct Place {
    session: Option<Session>,
    /// Sets the events of an earlier session apart.
    generation: u32,
}

struct Session {
    stream: TcpStream,
    /// When it should have started.
    due: Instant,
    written: bool,
    read: usize,
}

/// What a step of a session led to.
enum Step {
    Pending,
    Done,
    Failed(Reason),
}

impl<'a> Client<'a> {
    fn new(
        job: &'a Job,
        size: usize,
        sessions: usize,
        thread: usize,
        window: Window,
        tally: Tally,
    ) -> Result<Client<'a>> {
        Ok(Client {
            poller: Poller::new()?,
            targets: &job.targets,
            next_target: thread,
            request: wire::request(size),
            places: (0..sessions)
                .map(|_| Place {
                    session: None,
                    generation: 0,
                })
                .collect(),
            free: (0..sessions).rev().collect(),
            resting: VecDeque::new(),
            window,
            tally,
            scratch: vec![0; size.max(1)],
        })
    }

    fn run(mut self, until: Until, rate: Option<f64>) -> Result<Tally> {
        let mut events: Vec<Event> = Vec::new();
        let interval = rate.map(|rate| Duration::from_secs_f64(1.0 / rate.max(1.0)));
        let mut next_due = Instant::now();
        let mut next_sweep = Instant::now() + SWEEP;
        let mut started: u64 = 0;
        loop {
            let now = Instant::now();
            while self.resting.front().is_some_and(|(end, _)| *end <= now) {
                self.free
                    .extend(self.resting.pop_front().map(|(_, place)| place));
            }
            let over = match until {
                Until::Moment(end) => now >= end,
                Until::Count(count) => started >= count,
            };
            let mut wait = SWEEP;
            if over {
                if self.free.len() + self.resting.len() == self.places.len() {
                    return Ok(self.tally);
                }
            } else if let Some(interval) = interval {
                while next_due <= now
                    && let Some(place) = self.free.pop()
                {
                    self.start(place, next_due);
                    started += 1;
                    next_due += interval;
                }
                wait = next_due.saturating_duration_since(Instant::now());
                if self.free.is_empty() {
                    // Whoever is due waits for a place, which the next event frees.
                    wait = SWEEP;
                }
            } else {
                let wanted = match until {
                    Until::Moment(_) => usize::MAX,
                    Until::Count(count) => usize::try_from(count - started).unwrap_or(usize::MAX),
                };
                for _ in 0..self.free.len().min(wanted) {
                    let Some(place) = self.free.pop() else { break };
                    self.start(place, Instant::now());
                    started += 1;
                }
            }
            if !self.resting.is_empty() {
                wait = wait.min(REST);
            }
            self.poller.wait(&mut events, Some(wait.min(SWEEP)))?;
            for event in events.drain(..) {
                self.event(event.data.u64());
            }
            if Instant::now() >= next_sweep {
                next_sweep = Instant::now() + SWEEP;
                self.sweep();
            }
        }
    }

    fn start(&mut self, place: usize, due: Instant) {
        let target = self.targets[self.next_target % self.targets.len()];
        self.next_target += 1;
        match self.connect(place, target) {
            Ok((stream, written)) => {
                self.places[place].session = Some(Session {
                    stream,
                    due,
                    written,
                    read: 0,
                });
            }
            Err(error) => {
                self.tally.failed(Reason::of(&error), due);
                self.resting.push_back((Instant::now() + REST, place));
            }
        }
    }

    /// On loopback the handshake is over when `connect` returns, so the request can mostly leave at once,
    /// which saves the client a turn through epoll.
    fn connect(&mut self, place: usize, target: SocketAddr) -> io::Result<(TcpStream, bool)> {
        let mut stream = poller::connect(target)?;
        let written = match stream.write(&self.request) {
            Ok(count) if count == self.request.len() => true,
            Ok(_) => return Err(ErrorKind::WriteZero.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => false,
            Err(error) => return Err(error),
        };
        let interest = if written {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        };
        let generation = self.places[place].generation.wrapping_add(1);
        self.places[place].generation = generation;
        self.poller
            .add(&stream, token(place, generation), interest | EventFlags::ET)?;
        Ok((stream, written))
    }

    fn event(&mut self, token: u64) {
        let (index, generation) = ((token & u64::from(u32::MAX)) as usize, (token >> 32) as u32);
        let place = &mut self.places[index];
        if place.generation != generation {
            return;
        }
        let Some(session) = &mut place.session else {
            return;
        };
        match session.step(&self.request, &mut self.scratch) {
            Step::Pending => {}
            Step::Done => {
                let now = Instant::now();
                let latency = now.saturating_duration_since(session.due);
                let counts = self.window.contains(now);
                let bytes = 2 * self.request.len() as u64;
                self.tally.done(bytes, counts.then_some(latency));
                place.session = None;
                self.free.push(index);
            }
            Step::Failed(reason) => self.fail(index, reason),
        }
    }

    fn fail(&mut self, place: usize, reason: Reason) {
        if let Some(session) = self.places[place].session.take() {
            self.tally.failed(reason, session.due);
            self.resting.push_back((Instant::now() + REST, place));
        }
    }

    fn sweep(&mut self) {
        for place in 0..self.places.len() {
            if self.places[place]
                .session
                .as_ref()
                .is_some_and(|session| session.due.elapsed() > PATIENCE)
            {
                self.fail(place, Reason::TimedOut);
            }
        }
    }
}

impl Session {
    fn step(&mut self, request: &[u8], scratch: &mut [u8]) -> Step {
        if !self.written {
            match self.stream.write(request) {
                Ok(count) if count == request.len() => self.written = true,
                Ok(_) => return Step::Failed(Reason::Other),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Pending,
                Err(error) => return Step::Failed(Reason::of(&error)),
            }
        }
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return Step::Failed(Reason::Truncated),
                Ok(count)
                    if request.get(self.read..self.read + count) != Some(&scratch[..count]) =>
                {
                    return Step::Failed(Reason::Corrupt);
                }
                Ok(count) => {
                    self.read += count;
                    if self.read == request.len() {
                        return Step::Done;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Pending,
                Err(error) => return Step::Failed(Reason::of(&error)),
            }
        }
    }
}

fn token(place: usize, generation: u32) -> u64 {
    u64::from(generation) << 32 | place as u64
}
