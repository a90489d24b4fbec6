//! A connected socket, of TCP or of a path, that resets its peer unless it is told that everything went well.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use rustix::pipe::{SpliceFlags, splice};

use super::{Shortage, options, sys};
use crate::config::Keepalive;
use crate::model::Cause;
use crate::reactor::Source;

/// Never SPLICE_F_MORE: see the relay's splice.
const SPLICE: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// A socket whose `Drop` sends RST. Only after [`Socket::finish`] it is a FIN: a FIN after a loss
/// would tell the peer that all is well.
///
/// Any error latches: afterwards the kernel may answer a read with 0, and that would look like an
/// end that never came.
#[derive(Debug)]
pub struct Socket {
    io: Source<OwnedFd>,
    failed: Option<Cause>,
    finished: bool,
    /// An urgent mark was seen: a short read may have stopped at it, with more behind.
    urgent: bool,
    /// Something was sent since the peer last acknowledged everything.
    unacknowledged: bool,
    sends: Sends,
    kind: Kind,
}

/// What a socket is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// TCP, or what stands in for it.
    Tcp,
    /// A path. There is no reset: what breaks off ends for its peer as though all were well, unless it has
    /// left something unread.
    Unix,
}

/// An accepted socket that nobody serves yet: not registered with any reactor, so that it can still
/// change workers. Resets its peer when dropped.
#[derive(Debug)]
pub struct Arrival(Option<OwnedFd>, Kind);

impl Arrival {
    pub(super) fn new(fd: OwnedFd, kind: Kind) -> Self {
        Self(Some(fd), kind)
    }

    /// The same client in a place that a worker may have: its own, that of `seat`, or another one.
    ///
    /// # Errors
    /// When whatever is left is control's; the client is reset then.
    pub fn placed(self, shortage: &Shortage, seat: Option<OwnedFd>) -> io::Result<Self> {
        let kind = self.1;
        match shortage.place(self.into_fd(), seat) {
            Ok(fd) => Ok(Self::new(fd, kind)),
            Err((fd, error)) => {
                drop(Self::new(fd, kind));
                Err(error)
            }
        }
    }

    fn into_fd(mut self) -> OwnedFd {
        self.0.take().expect("taken once")
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        if let Some(fd) = &self.0 {
            sys::reset_on_close(fd.as_fd());
        }
    }
}

/// Socket options that a session that ends early need not pay for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    /// TCP_NODELAY is on already.
    NoDelay,
    /// Nothing was sent yet, so Nagle's algorithm delays nothing yet.
    None,
    /// One segment is out: the next send pays for TCP_NODELAY.
    One,
}

impl Socket {
    /// Takes over an accepted socket, which inherited its options from the listener.
    ///
    /// # Errors
    /// When the kernel cannot watch the socket; it is reset then.
    pub fn accepted(arrival: Arrival) -> io::Result<Self> {
        let kind = arrival.1;
        Self::register(arrival.into_fd(), Sends::NoDelay, kind)
    }

    /// Takes over a socket that is connecting.
    ///
    /// # Errors
    /// When the kernel cannot watch the socket.
    pub(super) fn connecting(fd: OwnedFd) -> io::Result<Self> {
        Self::register(fd, Sends::None, Kind::Tcp)
    }

    /// Takes over a socket that is connected to a path.
    ///
    /// # Errors
    /// When the kernel cannot watch the socket.
    pub(super) fn at_path(fd: OwnedFd) -> io::Result<Self> {
        // Nothing delays what is sent there.
        Self::register(fd, Sends::NoDelay, Kind::Unix)
    }

    fn register(fd: OwnedFd, sends: Sends, kind: Kind) -> io::Result<Self> {
        match Source::both_ways(fd) {
            Ok(io) => Ok(Self {
                io,
                failed: None,
                finished: false,
                urgent: false,
                unacknowledged: false,
                sends,
                kind,
            }),
            Err((fd, error)) => {
                sys::reset_on_close(fd.as_fd());
                Err(error)
            }
        }
    }

    /// Why the socket is unusable, once it is.
    pub fn failed(&self) -> Option<Cause> {
        self.failed
    }

    /// Waits until there may be something to read, or an end; asks nobody but the reactor.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.failed {
            Some(_) => Poll::Ready(()),
            None => self.io.poll_readable(cx),
        }
    }

    /// Reads what is there, 0 at the peer's FIN.
    pub(super) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<Result<usize, Cause>> {
        if let Some(cause) = self.failed {
            // Whatever the peer sent before is here already, and the last of it is the end.
            return Poll::Ready(
                match rustix::net::recv(&self.io, buffer, RecvFlags::empty()) {
                    Ok((read @ 1.., _)) => Ok(read),
                    Ok((0, _)) | Err(_) => Err(cause),
                },
            );
        }
        let error: io::Error = loop {
            ready!(self.io.poll_readable(cx));
            match rustix::net::recv(&self.io, &mut *buffer, RecvFlags::empty()) {
                Ok((read, _)) => {
                    // A read from a path stops at passed descriptors, too.
                    let is_stream = self.kind == Kind::Tcp;
                    if 0 < read && read < buffer.len() && !self.urgent && is_stream {
                        // A short read has emptied the socket, and knowing so saves the read that
                        // would say it; but it may also have stopped at a mark with more behind.
                        self.urgent = self.io.is_urgent();
                        if !self.urgent {
                            self.io.drained();
                        }
                    }
                    return Poll::Ready(Ok(read));
                }
                Err(Errno::AGAIN) => self.io.drained(),
                Err(Errno::INTR) => {}
                Err(error) => break error.into(),
            }
        };
        Poll::Ready(Err(self.fail(Cause::from_io(&error))))
    }

    /// Looks at what has come, once that is more than `known` bytes, and leaves it where it is. No more
    /// than `known` is the end: nothing will follow.
    pub(super) fn poll_peek(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        known: usize,
    ) -> Poll<Result<usize, Cause>> {
        let error: io::Error = loop {
            ready!(self.io.poll_readable(cx));
            // Known before the look, so that nothing can have come between the bytes and the FIN.
            let closed = self.io.is_read_closed();
            match rustix::net::recv(&self.io, &mut *buffer, RecvFlags::PEEK) {
                Ok((read, _)) if read > known || read == 0 || closed => {
                    return Poll::Ready(Ok(read));
                }
                Ok(_) | Err(Errno::AGAIN) => self.io.drained(),
                Err(Errno::INTR) => {}
                Err(error) => break error.into(),
            }
        };
        Poll::Ready(Err(self.fail(Cause::from_io(&error))))
    }

    /// Takes the first bytes of those that were looked at, and leaves the rest.
    pub(super) fn take(&mut self, bytes: &mut [u8]) -> Result<(), Cause> {
        let mut taken = 0;
        while taken < bytes.len() {
            match rustix::net::recv(&self.io, &mut bytes[taken..], RecvFlags::empty()) {
                Ok((read @ 1.., _)) => taken += read,
                Err(Errno::INTR) => {}
                Ok((0, _)) => return Err(self.fail(Cause::Reset)),
                Err(error) => return Err(self.fail(Cause::from_io(&error.into()))),
            }
        }
        Ok(())
    }

    /// Looks at what has come so far, without waiting.
    pub(super) fn glance(&self, buffer: &mut [u8]) -> usize {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match rustix::net::recv(&self.io, buffer, flags) {
            Ok((read, _)) => read,
            // Whatever it is, it will be met again.
            Err(_) => 0,
        }
    }

    /// The SYN has brought bytes along.
    pub(super) fn has_begun(&mut self) {
        self.sends = Sends::One;
        self.unacknowledged = true;
    }

    /// Sends what the peer is to read before anything else. A fresh connection has room for it.
    pub(super) fn introduce(&mut self, bytes: &[u8]) -> Result<(), Cause> {
        let mut cx = Context::from_waker(Waker::noop());
        match self.poll_send(&mut cx, bytes) {
            Poll::Ready(Ok(written)) if written == bytes.len() => Ok(()),
            Poll::Ready(Err(cause)) => Err(cause),
            Poll::Ready(Ok(_)) | Poll::Pending => Err(self.fail(Cause::Exhausted)),
        }
    }

    /// The address that the peer has connected to.
    ///
    /// # Errors
    /// When the connection is gone.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        let address = rustix::net::getsockname(&self.io)?;
        SocketAddr::try_from(address).map_err(io::Error::from)
    }

    /// Moves what is there into an empty pipe. 0 is the peer's FIN, or an urgent mark with a FIN
    /// somewhere behind it: only a read can tell. Pending at an urgent mark wakes nobody: it is for a read as well.
    pub(super) fn poll_splice_into(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &OwnedFd,
        most: usize,
    ) -> Poll<Result<usize, Cause>> {
        if let Some(cause) = self.failed {
            // As in a read; and a failure that only a call has told of never makes the socket ready.
            let moved = splice(&self.io, None, pipe, None, most, SPLICE);
            return Poll::Ready(moved.ok().filter(|&moved| moved > 0).ok_or(cause));
        }
        let error: io::Error = loop {
            ready!(self.io.poll_readable(cx));
            match splice(&self.io, None, pipe, None, most, SPLICE) {
                Ok(moved) => return Poll::Ready(Ok(moved)),
                Err(Errno::AGAIN) => {
                    self.urgent |= self.io.is_urgent();
                    if self.urgent {
                        return Poll::Pending;
                    }
                    self.io.drained();
                }
                Err(Errno::INTR) => {}
                Err(error) => break error.into(),
            }
        };
        Poll::Ready(Err(self.fail(Cause::from_io(&error))))
    }

    /// Whether the peer has sent urgent data, at whose mark a splice would stop.
    pub(super) fn is_urgent(&self) -> bool {
        self.urgent
    }

    /// Writes as much as fits from a pipe that holds `held` bytes.
    pub(super) fn poll_splice_from(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &OwnedFd,
        held: usize,
    ) -> Poll<Result<usize, Cause>> {
        self.poll_write(cx, |sink| splice(pipe, None, sink, None, held, SPLICE))
    }

    /// Writes as much as fits.
    pub(super) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Cause>> {
        self.poll_write(cx, |sink| {
            rustix::net::send(sink, bytes, SendFlags::NOSIGNAL)
        })
    }

    fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&OwnedFd) -> Result<usize, Errno>,
    ) -> Poll<Result<usize, Cause>> {
        if let Some(cause) = self.failed {
            return Poll::Ready(Err(cause));
        }
        self.before_write();
        let error = loop {
            match write(self.io.get_ref()) {
                Ok(written) => {
                    self.unacknowledged = self.kind == Kind::Tcp;
                    return Poll::Ready(Ok(written));
                }
                Err(Errno::AGAIN) => return self.poll_error(cx).map(Err),
                Err(Errno::INTR) => {}
                Err(error) => break error,
            }
        };
        Poll::Ready(Err(self.fail(Cause::from_io(&error.into()))))
    }

    fn before_write(&mut self) {
        match self.sends {
            Sends::NoDelay => {}
            Sends::None => self.sends = Sends::One,
            Sends::One => {
                self.sends = Sends::NoDelay;
                // Without the option the connection is slower, not wrong.
                if let Err(error) = sockopt::set_tcp_nodelay(self.io.get_ref(), true) {
                    tracing::debug!(%error, "cannot set TCP_NODELAY");
                }
            }
        }
    }

    /// Waits for the socket to fail. Never ready for mere writability, but every edge of it wakes
    /// the task. For a socket whose FIN was read: such a socket must not be polled for reads, since
    /// its read-closed state never clears and a loop over it would spin.
    pub fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<Cause> {
        if let Some(cause) = self.failed {
            return Poll::Ready(cause);
        }
        while !self.io.is_write_closed() {
            self.io.full();
            ready!(self.io.poll_writable(cx));
        }
        match self.take_error() {
            Some(cause) => Poll::Ready(self.fail(cause)),
            // Hung up because a FIN went each way: that is no error.
            None => Poll::Pending,
        }
    }

    /// Waits until the connect has an outcome.
    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        ready!(self.io.poll_writable(cx));
        // Writable without an error or hang-up beside it is success; SO_ERROR would say the
        // same for one more system call.
        if !self.io.is_write_closed() {
            return Poll::Ready(Ok(()));
        }
        let cause = self.take_error().unwrap_or(Cause::Reset);
        self.fail(cause);
        // Only an established connection is reset rather than refused. If the backend has said
        // something before that, the client is to hear it.
        if cause == Cause::Reset && sys::has_bytes(self.io.as_fd()) {
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(cause))
    }

    /// Passes a FIN on: nothing more will be sent.
    pub(super) fn shut_down_writes(&mut self) -> Result<(), Cause> {
        match rustix::net::shutdown(self.io.get_ref(), Shutdown::Write) {
            Ok(()) => Ok(()),
            Err(error) => Err(self.fail(Cause::from_io(&error.into()))),
        }
    }

    /// Has the close that follows send a FIN. For a session whose two directions have both ended
    /// well.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Turns keepalive on, for a backend connection that lives long enough to need it.
    pub(super) fn keep_alive(&self) {
        // The connection works without; only a vanished host is noticed later.
        if self.kind == Kind::Tcp
            && let Err(error) = options::keep_alive(self.io.as_fd(), Keepalive::default())
        {
            tracing::debug!(%error, "cannot set keepalive");
        }
    }

    /// Whether the peer has acknowledged nothing for `limit` although data waits for it. A peer
    /// with a closed window answers probes and counts as alive.
    pub(super) fn is_unacknowledged(&mut self, limit: Duration) -> bool {
        if !self.unacknowledged {
            return false;
        }
        let Some(progress) = sys::acknowledgements(self.io.as_fd()) else {
            return false;
        };
        self.unacknowledged = progress.outstanding;
        progress.outstanding && progress.unanswered >= 2 && progress.last_heard >= limit
    }

    /// Whether a check of acknowledgements can tell anything.
    pub(super) fn has_unacknowledged(&self) -> bool {
        self.unacknowledged
    }

    /// Bytes that the peer has not acknowledged yet, the FIN not counted.
    pub(super) fn queued(&self) -> usize {
        sys::queued(self.io.as_fd())
    }

    fn fail(&mut self, cause: Cause) -> Cause {
        *self.failed.get_or_insert(cause)
    }

    fn take_error(&self) -> Option<Cause> {
        match sockopt::socket_error(self.io.get_ref()) {
            Ok(Ok(())) => None,
            Ok(Err(error)) | Err(error) => Some(Cause::from_io(&error.into())),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if !self.finished {
            sys::reset_on_close(self.io.as_fd());
        }
    }
}
