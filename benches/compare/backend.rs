//! The servers behind every contender: an echo and a bulk sink or source, level-triggered epoll, one
//! thread unless asked for more. Runs in processes of its own, so that none of its time is anybody else's.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use slab::Slab;

use crate::poller::{self, EventFlags, Poller};
use crate::wire::{self, Mode, Totals};

/// Set in the tokens of listeners.
const LISTENER: u64 = 1 << 63;

/// Connections taken from one listener per wake-up.
const ACCEPTS: usize = 64;

/// Above so many listeners they share one port on an address each: ports of their own would eat the range
/// that outgoing connections draw from.
const MANY: usize = 64;

/// Where servers listen: below the range that outgoing connections draw from. A proxy has to take more care
/// with a backend on a port that it could draw itself, since it might connect to itself.
const PORTS: Range<u16> = 2_000..12_000;

/// Listens on `count` addresses, says which on standard output as one line of JSON, and serves forever.
pub(crate) fn serve(count: usize, threads: usize) -> Result<()> {
    let listeners = listen(count)?;
    let addresses = listeners
        .iter()
        .map(TcpListener::local_addr)
        .collect::<io::Result<Vec<_>>>()?;
    let threads = threads.clamp(1, count.max(1));
    let mut shares: Vec<Vec<TcpListener>> = (0..threads).map(|_| Vec::new()).collect();
    for (index, listener) in listeners.into_iter().enumerate() {
        shares[index % threads].push(listener);
    }
    let workers: Vec<_> = shares
        .into_iter()
        .map(|share| thread::spawn(move || Server::new(share)?.run()))
        .collect();
    println!("{}", serde_json::to_string(&addresses)?);
    for worker in workers {
        match worker.join() {
            Ok(outcome) => outcome.context("backend")?,
            Err(_) => bail!("a backend thread panicked"),
        }
    }
    Ok(())
}

fn listen(count: usize) -> io::Result<Vec<TcpListener>> {
    if count <= MANY {
        return (0..count).map(|_| listen_on(Ipv4Addr::LOCALHOST)).collect();
    }
    let first = listen_on(address_of(0))?;
    let port = first.local_addr()?.port();
    let mut listeners = vec![first];
    for index in 1..count {
        listeners.push(poller::listen(SocketAddr::from((address_of(index), port)))?);
    }
    Ok(listeners)
}

/// Listens on the first free one of [`PORTS`], looked for from a place that depends on the process.
fn listen_on(ip: Ipv4Addr) -> io::Result<TcpListener> {
    let first = std::process::id() as usize * 97;
    for step in 0..PORTS.len() {
        let offset = u16::try_from((first + step) % PORTS.len()).unwrap_or(0);
        match poller::listen(SocketAddr::from((ip, PORTS.start + offset))) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            outcome => return outcome,
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// All of 127.0.0.0/8 is local on Linux.
fn address_of(index: usize) -> Ipv4Addr {
    const HOSTS: usize = 250;
    let host = u8::try_from(index % HOSTS + 1).unwrap_or(u8::MAX);
    let net = u8::try_from(index / HOSTS).unwrap_or(u8::MAX);
    Ipv4Addr::new(127, 1, net, host)
}

struct Server {
    poller: Poller,
    listeners: Vec<TcpListener>,
    connections: Slab<Connection>,
    scratch: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    mode: Option<Mode>,
    /// Read but not yet returned, or the trailer.
    pending: Vec<u8>,
    totals: Totals,
    /// The client has sent its FIN.
    ended: bool,
    interest: EventFlags,
}

/// Whether a connection goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Close,
}

impl Server {
    fn new(listeners: Vec<TcpListener>) -> io::Result<Server> {
        let poller = Poller::new()?;
        for (index, listener) in listeners.iter().enumerate() {
            poller.add(listener, LISTENER | index as u64, EventFlags::IN)?;
        }
        Ok(Server {
            poller,
            listeners,
            connections: Slab::new(),
            scratch: vec![0; wire::CHUNK],
        })
    }

    fn run(mut self) -> io::Result<()> {
        let mut events = Vec::new();
        loop {
            self.poller.wait(&mut events, None)?;
            for event in events.drain(..) {
                let (token, flags) = (event.data.u64(), event.flags);
                if token & LISTENER != 0 {
                    self.accept((token & !LISTENER) as usize)?;
                } else {
                    self.turn(token as usize, flags)?;
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        for _ in 0..ACCEPTS {
            let stream = match poller::accept(&self.listeners[listener]) {
                Ok(stream) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // A client that gave up, or no descriptor left: neither may end the backend or spin it.
                Err(_) => {
                    thread::sleep(Duration::from_millis(1));
                    break;
                }
            };
            let interest = EventFlags::IN;
            let entry = self.connections.vacant_entry();
            self.poller.add(&stream, entry.key() as u64, interest)?;
            entry.insert(Connection {
                stream,
                mode: None,
                pending: Vec::new(),
                totals: Totals {
                    sent: 0,
                    received: 0,
                },
                ended: false,
                interest,
            });
        }
        Ok(())
    }

    fn turn(&mut self, key: usize, flags: EventFlags) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(key) else {
            return Ok(());
        };
        if connection.turn(flags, &mut self.scratch) == Next::Close {
            self.connections.remove(key);
            return Ok(());
        }
        let wanted = connection.wanted();
        if wanted != connection.interest {
            connection.interest = wanted;
            self.poller.modify(&connection.stream, key as u64, wanted)?;
        }
        Ok(())
    }
}

impl Connection {
    fn turn(&mut self, flags: EventFlags, scratch: &mut [u8]) -> Next {
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        if !self.ended && self.pending.is_empty() && (broken || flags.contains(EventFlags::IN)) {
            match self.stream.read(scratch) {
                Ok(0) => return self.end(),
                Ok(count) => {
                    if self.receive(&scratch[..count]) == Next::Close {
                        return Next::Close;
                    }
                }
                Err(error) if is_transient(&error) => {}
                Err(_) => return Next::Close,
            }
        }
        if broken || flags.contains(EventFlags::OUT) {
            self.send()
        } else {
            Next::Wait
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Next {
        self.totals.received += bytes.len() as u64;
        if self.mode.is_none() {
            self.mode = Mode::of(bytes[0]);
        }
        match self.mode {
            None => Next::Close,
            Some(Mode::Bulk { .. }) => Next::Wait,
            Some(Mode::Echo) => match self.stream.write(bytes) {
                Ok(count) => {
                    self.pending.extend_from_slice(&bytes[count..]);
                    Next::Wait
                }
                Err(error) if is_transient(&error) => {
                    self.pending.extend_from_slice(bytes);
                    Next::Wait
                }
                Err(_) => Next::Close,
            },
        }
    }

    fn end(&mut self) -> Next {
        self.ended = true;
        match self.mode {
            None | Some(Mode::Echo) => Next::Close,
            Some(Mode::Bulk { .. }) => {
                self.pending.extend_from_slice(&self.totals.to_bytes());
                self.send()
            }
        }
    }

    fn send(&mut self) -> Next {
        if !self.pending.is_empty() {
            return match self.stream.write(&self.pending) {
                Ok(count) => {
                    self.pending.drain(..count);
                    if self.pending.is_empty() && self.ended {
                        Next::Close
                    } else {
                        Next::Wait
                    }
                }
                Err(error) if is_transient(&error) => Next::Wait,
                Err(_) => Next::Close,
            };
        }
        if self.mode == Some(Mode::Bulk { source: true }) && !self.ended {
            match self.stream.write(wire::bulk_at(self.totals.sent)) {
                Ok(count) => self.totals.sent += count as u64,
                Err(error) if is_transient(&error) => {}
                Err(_) => return Next::Close,
            }
        }
        Next::Wait
    }

    fn wanted(&self) -> EventFlags {
        let sourcing = self.mode == Some(Mode::Bulk { source: true });
        match (self.ended, self.pending.is_empty()) {
            (true, _) | (false, false) => EventFlags::OUT,
            (false, true) if sourcing => EventFlags::IN | EventFlags::OUT,
            (false, true) => EventFlags::IN,
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
