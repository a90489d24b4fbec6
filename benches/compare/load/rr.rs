//! Ping-pong on connections that stay open, all of them busy all the time.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::{Job, PATIENCE, Reason, Tally, Window};
use crate::poller::{EventFlags, Poller};
use crate::wire;

/// The longest that one wait lasts.
const SWEEP: Duration = Duration::from_millis(250);

/// Larger than any reply, so that a short read means an empty socket.
const SCRATCH: usize = 64 * 1024;

pub(super) fn run(
    job: &Job,
    size: usize,
    count: usize,
    thread: usize,
    open: &Barrier,
    tally: Tally,
) -> Result<Tally> {
    let opened = Client::open(job, size, count, thread, tally);
    // The barrier comes before the error, or the other threads would wait forever.
    open.wait();
    opened?.run(Window::after(job.warm_up, job.length))
}

struct Client {
    poller: Poller,
    request: Vec<u8>,
    sessions: Vec<Session>,
    scratch: Vec<u8>,
    tally: Tally,
}

struct Session {
    stream: TcpStream,
    started: Instant,
    written: usize,
    read: usize,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// A request is out.
    Busy,
    /// The window is over and the last reply is in.
    Idle,
    Failed,
}

impl Client {
    fn open(job: &Job, size: usize, count: usize, thread: usize, tally: Tally) -> Result<Client> {
        ensure!(
            size < SCRATCH,
            "messages must be smaller than {SCRATCH} bytes"
        );
        let request = wire::request(size);
        let poller = Poller::new()?;
        let mut sessions = Vec::with_capacity(count);
        for (index, stream) in super::open(&job.targets, count, thread, &request)?
            .into_iter()
            .enumerate()
        {
            stream.set_nonblocking(true)?;
            poller.add(
                &stream,
                index as u64,
                EventFlags::IN | EventFlags::OUT | EventFlags::ET,
            )?;
            sessions.push(Session {
                stream,
                started: Instant::now(),
                written: 0,
                read: 0,
                state: State::Busy,
            });
        }
        Ok(Client {
            poller,
            request,
            sessions,
            scratch: vec![0; SCRATCH],
            tally,
        })
    }

    fn run(mut self, window: Window) -> Result<Tally> {
        let mut events = Vec::new();
        for index in 0..self.sessions.len() {
            self.sessions[index].started = Instant::now();
            self.step(index, window);
        }
        let mut next_sweep = Instant::now() + SWEEP;
        while self
            .sessions
            .iter()
            .any(|session| session.state == State::Busy)
        {
            // Scanning all sessions per wake-up would cost more than serving one, so a batch of turns goes first.
            while Instant::now() < next_sweep {
                self.poller.wait(
                    &mut events,
                    Some(next_sweep.saturating_duration_since(Instant::now())),
                )?;
                for event in events.drain(..) {
                    self.step(event.data.u64() as usize, window);
                }
            }
            next_sweep = Instant::now() + SWEEP;
            self.sweep();
        }
        Ok(self.tally)
    }

    fn step(&mut self, index: usize, window: Window) {
        let session = &mut self.sessions[index];
        if session.state != State::Busy {
            return;
        }
        if session.written < self.request.len() && !session.write(&self.request, &mut self.tally) {
            return;
        }
        match session.stream.read(&mut self.scratch) {
            Ok(0) => session.fail(Reason::Truncated, &mut self.tally),
            Ok(count)
                if self.request.get(session.read..session.read + count)
                    != Some(&self.scratch[..count]) =>
            {
                session.fail(Reason::Corrupt, &mut self.tally);
            }
            Ok(count) => {
                session.read += count;
                if session.read == self.request.len() {
                    let now = Instant::now();
                    let bytes = 2 * self.request.len() as u64;
                    let latency = window.contains(now).then(|| now - session.started);
                    self.tally.done(bytes, latency);
                    if now >= window.end {
                        session.state = State::Idle;
                        return;
                    }
                    session.started = now;
                    session.written = 0;
                    session.read = 0;
                    // The reply to this one raises a new edge: no need to look for it now.
                    session.write(&self.request, &mut self.tally);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => session.fail(Reason::of(&error), &mut self.tally),
        }
    }

    fn sweep(&mut self) {
        for session in &mut self.sessions {
            if session.state == State::Busy && session.started.elapsed() > PATIENCE {
                session.fail(Reason::TimedOut, &mut self.tally);
            }
        }
    }
}

impl Session {
    /// Whether the whole request is out.
    fn write(&mut self, request: &[u8], tally: &mut Tally) -> bool {
        match self.stream.write(&request[self.written..]) {
            Ok(count) => self.written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.fail(Reason::of(&error), tally),
        }
        self.state == State::Busy && self.written == request.len()
    }

    fn fail(&mut self, reason: Reason, tally: &mut Tally) {
        tally.failed(reason, self.started);
        self.state = State::Failed;
    }
}
