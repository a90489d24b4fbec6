//! What nobody should do to an admin port, over and over, until standard input ends: heads that come byte by
//! byte, garbage, bodies that never end, every document, and scrapes in a loop, all at the same time.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Job, Message, Report, Tally};
use crate::poller::{self, Event, EventFlags, Poller};

/// Between two bytes of those who are slow, and the longest that a wait lasts.
const DRIP: Duration = Duration::from_millis(100);

/// A place whose connection has ended stays empty so long: the connections are many, and not a flood of SYNs.
const REST: Duration = Duration::from_millis(20);

/// What a body has that never ends, at most.
const HUGE: usize = 16 << 20;

/// What one connection does.
#[derive(Clone, Copy)]
enum Manner {
    /// One byte of a head at a time.
    Slow,
    /// No HTTP at all.
    Garbage,
    /// A body far beyond every bound.
    Huge,
    /// A document, read to its end.
    Reads(&'static str),
}

/// Of every ten connections.
const MANNERS: [Manner; 10] = [
    Manner::Slow,
    Manner::Slow,
    Manner::Slow,
    Manner::Garbage,
    Manner::Huge,
    Manner::Reads("/v1/view"),
    Manner::Reads("/v1/sessions"),
    Manner::Reads("/v1/events"),
    Manner::Reads("/metrics"),
    Manner::Reads("/metrics"),
];

impl Manner {
    fn of(place: usize) -> Manner {
        MANNERS[place % MANNERS.len()]
    }

    /// All that is said at the start.
    fn opening(self) -> Vec<u8> {
        match self {
            Manner::Slow => b"G".to_vec(),
            Manner::Garbage => (0..=255).cycle().take(1024).collect(),
            Manner::Huge => {
                let head = "POST /v1/reload HTTP/1.1\r\nHost: localhost\r\n";
                format!("{head}Content-Length: {HUGE}\r\n\r\n").into_bytes()
            }
            Manner::Reads(path) => {
                let rest = "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
                format!("GET {path} {rest}").into_bytes()
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    /// Still to be said.
    left: Vec<u8>,
    /// Bytes of the body that never ends, …
    body: usize,
    /// … and of the answer.
    heard: u64,
}

pub(super) fn run(job: &Job) -> Result<Report> {
    super::say(&Message::Measuring)?;
    let begin = Instant::now();
    let finish = super::until_told();
    let poller = Poller::new()?;
    let mut places: Vec<Option<Connection>> = (0..job.sessions).map(|_| None).collect();
    let mut resting: Vec<(Instant, usize)> = (0..job.sessions).map(|it| (begin, it)).collect();
    let mut events: Vec<Event> = Vec::new();
    let mut drip = begin;
    let mut tally = Tally::new(std::sync::Arc::default())?;
    let mut scratch = vec![0; 64 << 10];
    while begin.elapsed() < job.length && !finish.is_finished() {
        let now = Instant::now();
        let (due, later) = resting.into_iter().partition(|(end, _)| *end <= now);
        resting = later;
        let due: Vec<(Instant, usize)> = due;
        for (_, place) in due {
            let target = job.targets[place % job.targets.len()];
            match open(&poller, target, place) {
                Ok(connection) => places[place] = Some(connection),
                Err(_) => resting.push((now + REST, place)),
            }
        }
        if now >= drip {
            drip = now + DRIP;
            for (place, connection) in places.iter_mut().enumerate() {
                if let (Manner::Slow, Some(connection)) = (Manner::of(place), connection) {
                    connection.left.push(b'E');
                    // Its end shows as an event.
                    let _ = connection.stream.write(b"E");
                }
            }
        }
        poller.wait(&mut events, Some(REST))?;
        for event in events.drain(..) {
            let place = usize::try_from(event.data.u64())?;
            let Some(connection) = &mut places[place] else {
                continue;
            };
            if !connection.turn(Manner::of(place), &mut scratch) {
                if connection.heard > 0 {
                    tally.done(connection.heard, Some(Duration::ZERO));
                }
                places[place] = None;
                resting.push((Instant::now() + REST, place));
            }
        }
    }
    Ok(tally.report(begin.elapsed().as_secs_f64(), None))
}

fn open(poller: &Poller, target: SocketAddr, place: usize) -> Result<Connection> {
    let stream = poller::connect(target)?;
    let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
    poller.add(&stream, place as u64, wanted)?;
    Ok(Connection {
        stream,
        left: Manner::of(place).opening(),
        body: 0,
        heard: 0,
    })
}

impl Connection {
    /// Says and hears what it can; whether it goes on.
    fn turn(&mut self, manner: Manner, scratch: &mut [u8]) -> bool {
        while !self.left.is_empty() {
            match self.stream.write(&self.left) {
                Ok(count) => drop(self.left.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        while matches!(manner, Manner::Huge) && self.left.is_empty() && self.body < HUGE {
            match self.stream.write(scratch) {
                Ok(count) => self.body += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        loop {
            match self.stream.read(scratch) {
                Ok(0) => return false,
                Ok(count) => self.heard += count as u64,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}
