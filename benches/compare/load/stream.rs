//! Bulk, as fast as it goes. After the window every client half-closes, and the backend's own count of
//! bytes, which comes last, must agree with the client's.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Direction, Job, PATIENCE, Reason, Tally, Window};
use crate::poller::{EventFlags, Poller};
use crate::wire::{self, Mode, TRAILER, Totals};

/// The longest that one wait lasts.
const SWEEP: Duration = Duration::from_millis(100);

pub(super) fn run(
    job: &Job,
    direction: Direction,
    count: usize,
    thread: usize,
    open: &Barrier,
    tally: Tally,
) -> Result<Tally> {
    let opened = Client::open(job, direction, count, thread, tally);
    // The barrier comes before the error, or the other threads would wait forever.
    open.wait();
    opened?.run(Window::after(job.warm_up, job.length))
}

struct Client {
    poller: Poller,
    sessions: Vec<Session>,
    scratch: Vec<u8>,
    tally: Tally,
}

struct Session {
    stream: TcpStream,
    started: Instant,
    sends: bool,
    written: u64,
    read: u64,
    /// The last bytes read after the half-close.
    tail: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Moving,
    /// The client's FIN is out, what is left is being read.
    Closing,
    Over,
}

impl Client {
    fn open(
        job: &Job,
        direction: Direction,
        count: usize,
        thread: usize,
        tally: Tally,
    ) -> Result<Client> {
        let poller = Poller::new()?;
        let mut sessions = Vec::with_capacity(count);
        let targets = job
            .targets
            .iter()
            .cycle()
            .skip(thread % job.targets.len().max(1));
        for (index, target) in targets.take(count).enumerate() {
            let (sends, receives) = match direction {
                Direction::Up => (true, false),
                Direction::Down => (false, true),
                Direction::Both => (true, true),
                Direction::Split => (index % 2 == 0, index % 2 == 1),
            };
            let mode = Mode::Bulk { source: receives };
            let mut stream = TcpStream::connect_timeout(target, PATIENCE)?;
            stream.write_all(&[mode.byte()])?;
            stream.set_nonblocking(true)?;
            let interest = if sends {
                EventFlags::IN | EventFlags::OUT
            } else {
                EventFlags::IN
            };
            poller.add(&stream, index as u64, interest)?;
            sessions.push(Session {
                stream,
                started: Instant::now(),
                sends,
                written: 1,
                read: 0,
                tail: Vec::new(),
                state: State::Moving,
            });
        }
        Ok(Client {
            poller,
            sessions,
            scratch: vec![0; wire::CHUNK],
            tally,
        })
    }

    fn run(mut self, window: Window) -> Result<Tally> {
        let mut events = Vec::new();
        loop {
            let now = Instant::now();
            if now >= window.end {
                break;
            }
            self.poller
                .wait(&mut events, Some(SWEEP.min(window.end - now)))?;
            for event in events.drain(..) {
                self.step(event.data.u64() as usize, event.flags, window)?;
            }
        }
        self.drain(window)
    }

    fn drain(mut self, window: Window) -> Result<Tally> {
        let mut events = Vec::new();
        for (index, session) in self.sessions.iter_mut().enumerate() {
            if session.state == State::Moving {
                session.state = State::Closing;
                self.poller
                    .modify(&session.stream, index as u64, EventFlags::IN)?;
                if let Err(error) = session.stream.shutdown(Shutdown::Write) {
                    session.fail(Reason::of(&error), &mut self.tally);
                }
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while self
            .sessions
            .iter()
            .any(|session| session.state == State::Closing)
        {
            if Instant::now() >= deadline {
                for session in self
                    .sessions
                    .iter_mut()
                    .filter(|session| session.state == State::Closing)
                {
                    session.fail(Reason::TimedOut, &mut self.tally);
                }
                break;
            }
            self.poller.wait(&mut events, Some(SWEEP))?;
            for event in events.drain(..) {
                self.step(event.data.u64() as usize, event.flags, window)?;
            }
        }
        Ok(self.tally)
    }

    fn step(&mut self, index: usize, flags: EventFlags, window: Window) -> Result<()> {
        let session = &mut self.sessions[index];
        let before = session.read + session.written;
        if flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP)
            && session.state != State::Over
        {
            session.read(&mut self.scratch, &mut self.tally);
        }
        if flags.contains(EventFlags::OUT) && session.sends && session.state == State::Moving {
            session.write(&mut self.tally);
        }
        let moved = session.read + session.written - before;
        self.tally.progress.add(0, moved);
        if window.contains(Instant::now()) {
            self.tally.bytes += moved;
        }
        if session.state == State::Over {
            // A finished socket stays readable, and level-triggered events would never cease.
            self.poller
                .modify(&session.stream, index as u64, EventFlags::ONESHOT)?;
        }
        Ok(())
    }
}

impl Session {
    fn write(&mut self, tally: &mut Tally) {
        match self.stream.write(wire::bulk_at(self.written)) {
            Ok(count) => self.written += count as u64,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.fail(Reason::of(&error), tally),
        }
    }

    fn read(&mut self, scratch: &mut [u8], tally: &mut Tally) {
        match self.stream.read(scratch) {
            Ok(0) => self.end(tally),
            Ok(count) => {
                let bytes = &scratch[..count];
                if self.state == State::Closing {
                    self.tail
                        .extend_from_slice(&bytes[count.saturating_sub(TRAILER)..]);
                    self.tail.drain(..self.tail.len().saturating_sub(TRAILER));
                } else if !wire::is_bulk_at(self.read, bytes) {
                    return self.fail(Reason::Corrupt, tally);
                }
                self.read += count as u64;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => self.fail(Reason::of(&error), tally),
        }
    }

    /// The backend's FIN: right only after ours, and after counts that agree.
    fn end(&mut self, tally: &mut Tally) {
        if self.state == State::Moving || self.tail.len() < TRAILER {
            return self.fail(Reason::Truncated, tally);
        }
        let ours = Totals {
            sent: self.read - TRAILER as u64,
            received: self.written,
        };
        if self.tail != ours.to_bytes() {
            return self.fail(Reason::Corrupt, tally);
        }
        self.state = State::Over;
        tally.units += 1;
    }

    fn fail(&mut self, reason: Reason, tally: &mut Tally) {
        tally.failed(reason, self.started);
        self.state = State::Over;
    }
}
