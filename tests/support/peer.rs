//! The client's and the backend's end of a connection: connecting, telling a FIN from a RST.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, SockRef, Socket, Type};

use super::patience::{DEADLINE, eventually};
use super::pattern::Pattern;

/// A connection to `address` whose reads and writes give up at the deadline.
pub fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    bounded(&stream);
    Ok(stream)
}

/// A connection to `address` from `source`.
pub fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    finish_connect(&socket, address)
}

/// A connection to `address` whose SYN brings as many of `bytes` as it may (TCP Fast Open), and how many of them are sent.
pub fn connect_fast(address: SocketAddr, bytes: &[u8]) -> io::Result<(TcpStream, usize)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    let flags = SendFlags::from_bits_retain(libc::MSG_FASTOPEN.cast_unsigned());
    match rustix::net::sendto(&socket, bytes, flags, &address) {
        Ok(sent) => {
            let stream = TcpStream::from(socket);
            bounded(&stream);
            Ok((stream, sent))
        }
        // The kernel's switch is off.
        Err(Errno::OPNOTSUPP) => connect(address).map(|stream| (stream, 0)),
        Err(error) => Err(error.into()),
    }
}

/// A connection to `address` with a small receive buffer, which shrinks its window from the start.
pub fn with_receive_buffer(bytes: usize, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_recv_buffer_size(bytes)?;
    finish_connect(&socket, address)
}

/// A connection to `address` that is not asked how connecting went: to ask takes a reset that is here
/// already, and the bytes before it would seem to end well.
pub fn connect_unasked(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    finish_unasked(socket, address)
}

/// Like [`connect_unasked`], from `source`.
pub fn connect_unasked_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    finish_unasked(socket, address)
}

fn finish_unasked(socket: Socket, address: SocketAddr) -> io::Result<TcpStream> {
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => socket.set_nonblocking(false)?,
    }
    let stream = TcpStream::from(socket);
    bounded(&stream);
    Ok(stream)
}

fn finish_connect(socket: &Socket, address: SocketAddr) -> io::Result<TcpStream> {
    socket.connect_timeout(&address.into(), DEADLINE)?;
    let stream = TcpStream::from(socket.try_clone()?);
    bounded(&stream);
    Ok(stream)
}

/// Gives a stream the deadline.
pub fn bounded(stream: &TcpStream) {
    stream
        .set_read_timeout(Some(DEADLINE))
        .and_then(|()| stream.set_write_timeout(Some(DEADLINE)))
        .expect("a socket takes timeouts");
}

/// Whether nobody listens at `address`.
pub fn is_refused(address: SocketAddr) -> bool {
    TcpStream::connect_timeout(&address, DEADLINE)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// How a peer ended its direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It closed: the stream is whole.
    Fin,
    /// It reset: the stream is broken, visibly.
    Reset,
}

impl End {
    /// Reads to the end, and tells how many bytes came before it.
    pub fn read(stream: &mut TcpStream) -> (usize, End) {
        let mut buffer = vec![0; 64 * 1024];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return (total, End::Fin),
                Ok(read) => total += read,
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return (total, End::Reset);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => panic!("neither FIN nor RST after {total} bytes: {error}"),
            }
        }
    }
}

/// What a test does to its end of a connection.
pub trait Peer {
    /// How the other side ended, after which nothing may have come.
    fn end(&mut self) -> End;
    /// Ends our direction with a FIN.
    fn half_close(&self);
    /// Resets the connection, once the other side's kernel has all we wrote.
    fn reset(self);
    /// Writes all of `bytes`.
    fn put(&mut self, bytes: &[u8]);
    /// Reads exactly `bytes`.
    fn get(&mut self, bytes: &[u8]);
    /// Whether nothing arrives, neither byte nor end, for `pause`.
    fn is_silent(&mut self, pause: Duration) -> bool;
}

impl Peer for TcpStream {
    fn end(&mut self) -> End {
        let (extra, end) = End::read(self);
        assert_eq!(extra, 0, "bytes that nobody sent");
        end
    }

    fn half_close(&self) {
        self.shutdown(Shutdown::Write).expect("a connected socket");
    }

    fn reset(self) {
        // A zero-linger close throws away what is not acknowledged yet.
        eventually("the other side took all we wrote", || {
            (unsent(&self) == 0).then_some(())
        });
        SockRef::from(&self)
            .set_linger(Some(Duration::ZERO))
            .expect("a socket takes a linger time");
    }

    fn put(&mut self, bytes: &[u8]) {
        self.write_all(bytes).expect("the connection stands");
    }

    fn get(&mut self, bytes: &[u8]) {
        let mut got = vec![0; bytes.len()];
        self.read_exact(&mut got).expect("the connection stands");
        assert_eq!(
            String::from_utf8_lossy(&got),
            String::from_utf8_lossy(bytes)
        );
    }

    fn is_silent(&mut self, pause: Duration) -> bool {
        let pause = Timespec::try_from(pause).expect("a short time");
        let mut fds = [PollFd::new(self, PollFlags::IN | PollFlags::RDHUP)];
        poll(&mut fds, Some(&pause)).expect("poll") == 0
    }
}

/// Waits for an error on the socket without reading: how a reset shows once a FIN was read.
pub fn wait_for_error(stream: &TcpStream) {
    let deadline = Timespec::try_from(DEADLINE).expect("a short time");
    let mut fds = [PollFd::new(stream, PollFlags::empty())];
    poll(&mut fds, Some(&deadline)).expect("poll");
    assert!(
        fds[0].revents().contains(PollFlags::ERR),
        "no reset, but {:?}",
        fds[0].revents()
    );
}

/// Resets the connection at once, whatever the other side's kernel has not taken yet.
pub fn abort(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a socket takes a linger time");
}

/// Bytes that the other side has not acknowledged.
#[expect(unsafe_code, reason = "no safe crate reads SIOCOUTQ")]
pub fn unsent(stream: &TcpStream) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ on a socket) writes one int to the pointer, which outlives the call.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    assert_eq!(result, 0, "SIOCOUTQ: {}", io::Error::last_os_error());
    usize::try_from(bytes).expect("a number of bytes")
}

/// Reads the line with which a named backend greets.
pub fn read_name(stream: &mut TcpStream) -> io::Result<String> {
    let mut name = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte)? {
            0 => return Err(io::Error::other("FIN before the name")),
            _ if byte[0] == b'\n' => break,
            _ => name.push(byte[0]),
        }
    }
    String::from_utf8(name).map_err(io::Error::other)
}

/// One short session: who answered? Ends with a FIN each way, or it is an error.
pub fn ask_name(address: SocketAddr) -> io::Result<String> {
    name_and_part(connect(address)?)
}

/// The rest of a short session that has connected.
pub fn name_and_part(mut stream: TcpStream) -> io::Result<String> {
    let name = read_name(&mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    match stream.read(&mut [0])? {
        0 => Ok(name),
        _ => Err(io::Error::other("bytes that nobody sent")),
    }
}

/// One session against a named backend that sends `length` bytes and gets them back.
pub fn echo_once(address: SocketAddr, seed: u64, length: u64) -> io::Result<String> {
    let mut stream = connect(address)?;
    let name = read_name(&mut stream)?;
    let pattern = Pattern::new(seed, length);
    pattern.send(&mut stream)?;
    stream.shutdown(Shutdown::Write)?;
    match pattern.expect_then_end(&mut stream) {
        End::Fin => Ok(name),
        End::Reset => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// A session with a named backend that stays open until it is dropped.
pub struct Held {
    /// The client's end.
    pub stream: TcpStream,
    /// Who serves it.
    pub name: String,
}

impl Held {
    /// Opens a session and waits until its backend has greeted.
    pub fn open(address: SocketAddr) -> Self {
        let mut stream = connect(address).expect("the daemon listens");
        let name = read_name(&mut stream).expect("a backend greets");
        Self { stream, name }
    }

    /// Sends something there and back.
    pub fn still_works(&mut self) {
        self.stream.put(b"are you there?");
        self.stream.get(b"are you there?");
    }

    /// Ends the session with a FIN each way.
    pub fn part(mut self) {
        self.stream.half_close();
        assert_eq!(self.stream.end(), End::Fin);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}
