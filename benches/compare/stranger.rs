//! Somebody else's admin port: takes connections as fast and holds as many as Ballast's does, answers with as
//! much, and does nothing besides. What a load suffers while this one is hammered is what the hammer costs the
//! machine, whoever is hammered.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::poller::{self, Event, EventFlags, Poller};

/// From one connection to the next, and held at a time: as Ballast's admin port has it.
const STEP: Duration = Duration::from_millis(4);
const HELD: usize = 64;

/// The most that anybody says before being answered.
const HEAD: usize = 1024;

/// Listens, says where on standard output as one line of JSON, and answers forever with `size` bytes.
pub(crate) fn serve(size: usize) -> Result<()> {
    let listener = poller::listen((Ipv4Addr::LOCALHOST, 0).into())?;
    println!("{}", serde_json::to_string(&listener.local_addr()?)?);
    let answer = vec![b'.'; size];
    let poller = Poller::new()?;
    let mut events: Vec<Event> = Vec::new();
    let mut held: BTreeMap<u64, Caller> = BTreeMap::new();
    let mut next = Instant::now();
    for number in 0.. {
        while let Some(left) = next.checked_duration_since(Instant::now()) {
            poller.wait(&mut events, Some(left))?;
            for event in events.drain(..) {
                let caller = held.get_mut(&event.data.u64());
                if caller.is_some_and(|it| !it.turn(&answer)) {
                    held.remove(&event.data.u64());
                }
            }
        }
        next = Instant::now() + STEP;
        // Nobody may be there, or be gone again: neither ends this.
        let Ok(stream) = poller::accept(&listener) else {
            continue;
        };
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        poller.add(&stream, number, wanted)?;
        let (heard, told) = (Vec::new(), 0);
        held.insert(
            number,
            Caller {
                stream,
                heard,
                told,
            },
        );
        if held.len() > HELD {
            held.pop_first();
        }
    }
    Ok(())
}

struct Caller {
    stream: TcpStream,
    heard: Vec<u8>,
    /// Bytes of the answer.
    told: usize,
}

impl Caller {
    /// Hears and says what it can; whether it goes on.
    fn turn(&mut self, answer: &[u8]) -> bool {
        let mut scratch = [0; HEAD];
        while !self.is_understood() {
            match self.stream.read(&mut scratch) {
                Ok(0) => return false,
                Ok(count) => self.heard.extend_from_slice(&scratch[..count]),
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        while self.told < answer.len() {
            match self.stream.write(&answer[self.told..]) {
                Ok(count) => self.told += count,
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
        false
    }

    /// The head is whole, or is none.
    fn is_understood(&self) -> bool {
        self.heard.len() >= HEAD || self.heard.windows(4).any(|it| it == b"\r\n\r\n")
    }
}
