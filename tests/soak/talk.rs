//! What a client says in one session, and how it compares what comes back. Every stream differs from every
//! other from its first bytes on, so what belongs to another session shows, too.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

use fastrand::Rng;

use crate::site::{Door, PROXIED};
use crate::support::{Pattern, abort, connect_fast, read_name};

/// How a session failed.
pub enum Failure {
    /// Visibly, as a session may whose server or whose way died.
    Broken(String),
    /// By a FIN before the last byte.
    Early(String),
    /// By a byte that is not the one that was sent, or by silence.
    Wrong(String),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    Whole,
    /// A few bytes at a time, with pauses.
    Slow,
}

/// Connects, and reads the server's greeting.
pub fn open(service: &str, door: &Door, rng: &mut Rng) -> Result<TcpStream, Failure> {
    let header = match service {
        PROXIED => header(rng),
        _ => Vec::new(),
    };
    let (mut stream, sent) = match (door, header.len()) {
        // With the SYN, where the kernel lets it.
        (Door::Address(address), 1..) if rng.bool() => connect_fast(*address, &header),
        _ => door.connect().map(|stream| (stream, 0)),
    }
    .map_err(|error| failure("connecting", &error))?;
    let rest = &header[sent..];
    let (one, other) = rest.split_at(rng.usize(..=rest.len()));
    for part in [one, other] {
        let written = stream.write_all(part);
        written.map_err(|error| failure("its header", &error))?;
    }
    match read_name(&mut stream) {
        Ok(name) if !name.is_empty() && name.len() < 16 => Ok(stream),
        Ok(name) => Err(Failure::Wrong(format!("greeted by {name:?}"))),
        Err(error) if error.kind() == io::ErrorKind::Other => {
            Err(Failure::Early("no greeting".to_owned()))
        }
        Err(error) => Err(failure("the greeting", &error)),
    }
}

/// Of a proxy that speaks for somebody, in one version or the other.
fn header(rng: &mut Rng) -> Vec<u8> {
    let (host, port) = (rng.u8(..), rng.u16(1..));
    if rng.bool() {
        return format!("PROXY TCP4 192.0.2.{host} 198.51.100.1 {port} 443\r\n").into_bytes();
    }
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend([192, 0, 2, host, 198, 51, 100, 1]);
    header.extend([port, 443].map(u16::to_be_bytes).concat());
    header
}

/// Sends a few bytes and gets them back.
pub fn exchange(rng: &mut Rng, stream: &mut TcpStream) -> Result<u64, Failure> {
    let length = rng.u64(1..8192);
    let pattern = Pattern::new(rng.u64(..), length);
    let sent = pattern.send(stream);
    sent.map_err(|error| failure("sending", &error))?;
    receive(rng, stream, &pattern, length, Reading::Whole)?;
    Ok(length)
}

/// Ends the session with a FIN each way.
pub fn part(stream: &mut TcpStream) -> Result<u64, Failure> {
    let ended = stream.shutdown(Shutdown::Write);
    ended.map_err(|error| failure("half-closing", &error))?;
    end(stream)
}

/// Nothing may come but a FIN.
fn end(stream: &mut TcpStream) -> Result<u64, Failure> {
    match stream.read(&mut [0]) {
        Ok(0) => Ok(0),
        Ok(_) => Err(Failure::Wrong("a byte that nobody sent".to_owned())),
        Err(error) => Err(failure("the end", &error)),
    }
}

/// Sends `length` bytes and half-closes, while the same bytes and a FIN come back.
pub fn echo(
    rng: &mut Rng,
    stream: &mut TcpStream,
    length: u64,
    reading: Reading,
) -> Result<u64, Failure> {
    let pattern = Pattern::new(rng.u64(..), length);
    let mut writing = stream
        .try_clone()
        .map_err(|error| failure("cloning", &error))?;
    thread::scope(|scope| {
        let sending = pattern.clone();
        let sender = scope.spawn(move || {
            sending.send(&mut writing)?;
            writing.shutdown(Shutdown::Write)
        });
        let received = receive(rng, stream, &pattern, length, reading).and_then(|()| end(stream));
        if received.is_err() {
            // The sender need not wait for anybody any more; it may be over already.
            stream.shutdown(Shutdown::Both).ok();
        }
        let sent = sender
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("panic")));
        match (received, sent) {
            (Ok(_), Ok(())) => Ok(length),
            // The kernel tells of a reset once: when the sender has heard of it, the reader sees an end.
            (Ok(_) | Err(Failure::Early(_)), Err(error)) => Err(failure("sending", &error)),
            (Err(failed), _) => Err(failed),
        }
    })
}

/// Reads the pattern, and compares it.
fn receive(
    rng: &mut Rng,
    stream: &mut TcpStream,
    pattern: &Pattern,
    length: u64,
    reading: Reading,
) -> Result<(), Failure> {
    let mut buffer = vec![0; if length < 8192 { 8192 } else { 128 << 10 }];
    let mut offset = 0;
    while offset < length {
        let left = usize::try_from(length - offset).unwrap_or(usize::MAX);
        let most = match reading {
            Reading::Whole => buffer.len(),
            Reading::Slow => {
                thread::sleep(Duration::from_micros(rng.u64(..2000)));
                rng.usize(1..8192)
            }
        };
        let most = most.min(left);
        match stream.read(&mut buffer[..most]) {
            Ok(0) => {
                let text = format!("FIN after {offset} of {length} bytes");
                return Err(Failure::Early(text));
            }
            Ok(read) => {
                if let Some(wrong) = pattern.first_wrong(offset, &buffer[..read]) {
                    let text = format!("byte {wrong} of {length} is wrong");
                    return Err(Failure::Wrong(text));
                }
                offset += read as u64;
            }
            Err(error) => return Err(failure("receiving", &error)),
        }
    }
    Ok(())
}

/// Leaves in the middle, one way or another.
pub fn quit(rng: &mut Rng, stream: &mut TcpStream) -> Result<u64, Failure> {
    let pattern = Pattern::new(rng.u64(..), rng.u64(1..64 << 10));
    let sent = pattern.send_some(stream, 0, 64 << 10);
    let moved = sent.map_err(|error| failure("sending", &error))?;
    if rng.bool() {
        let clone = stream
            .try_clone()
            .map_err(|error| failure("cloning", &error))?;
        abort(clone);
    }
    // Otherwise what has come back unread makes the kernel reset it, or nothing has.
    Ok(moved)
}

fn failure(what: &str, error: &io::Error) -> Failure {
    let text = format!("{what}: {error}");
    let silent = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
    if silent.contains(&error.kind()) {
        Failure::Wrong(text)
    } else {
        Failure::Broken(text)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Broken(text) | Self::Early(text) | Self::Wrong(text)) = self;
        f.write_str(text)
    }
}
