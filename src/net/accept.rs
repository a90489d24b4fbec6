//! One worker's end of a listener: the next client, that there is none, or that there is nothing to take one with.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::SocketFlags;
use socket2::SockRef;

use super::socket::Kind;
use super::{Arrival, sys};
use crate::model::{Address, ClientAddr};
use crate::reactor::Source;

/// One worker's end of a listener, before its reactor knows of it.
#[derive(Debug)]
pub struct Unregistered {
    pub(super) socket: Arc<OwnedFd>,
    /// Whether the hop limit was ever used: what is accepted may have inherited it.
    pub(super) limited: Arc<AtomicBool>,
    pub(super) family: Family,
}

/// One worker's end of a listener.
#[derive(Debug)]
pub struct Listener {
    io: Source<Arc<OwnedFd>>,
    limited: Arc<AtomicBool>,
    family: Family,
}

/// What came of an accept.
#[derive(Debug)]
pub enum Accepted {
    /// A client.
    Client(Arrival, ClientAddr),
    /// The queue is empty.
    Empty,
    /// That client is gone; go on.
    Gone,
    /// The process or the machine is out of something: back off.
    Exhausted(io::Error),
}

impl Listener {
    /// Registers a socket with this thread's reactor.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn register(unregistered: Unregistered) -> io::Result<Self> {
        let Unregistered {
            socket,
            limited,
            family,
        } = unregistered;
        Ok(Self {
            io: Source::readable(socket).map_err(|(_, error)| error)?,
            limited,
            family,
        })
    }

    /// Leaves the reactor, so that clients wake others who accept from the same socket.
    pub fn unregister(self) -> Unregistered {
        Unregistered {
            socket: Arc::clone(self.io.get_ref()),
            limited: self.limited,
            family: self.family,
        }
    }

    /// Waits until there may be a client.
    pub async fn ready(&self) {
        poll_fn(|cx| self.io.poll_readable(cx)).await;
    }

    /// Takes the next client. With `check`, one that is gone already is told apart: after a pause
    /// there may be many, and a backend would be dialled for nobody.
    pub fn accept(&self, check: bool) -> Accepted {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        match rustix::net::acceptfrom_with(self.io.get_ref(), flags) {
            Ok((fd, from)) => {
                if self.family == Family::Unix {
                    return at_path(fd, check);
                }
                if check && sys::is_gone(fd.as_fd()) {
                    // There is nobody left to reset.
                    return Accepted::Gone;
                }
                if self.limited.load(Ordering::Relaxed)
                    && let Err(error) =
                        sys::require_hops(fd.as_fd(), self.family == Family::Ipv6, 0)
                {
                    tracing::warn!(%error, "cannot lift the hop limit from a client");
                }
                let arrival = Arrival::new(fd, Kind::Tcp);
                match from.and_then(|from| SocketAddr::try_from(from).ok()) {
                    Some(from) => Accepted::Client(arrival, ClientAddr::new(from)),
                    None => Accepted::Gone,
                }
            }
            Err(Errno::AGAIN) => {
                self.io.drained();
                Accepted::Empty
            }
            // Errors of the new connection, which Linux reports here (accept(2)), and EINTR.
            Err(
                Errno::CONNABORTED
                | Errno::INTR
                | Errno::NETDOWN
                | Errno::PROTO
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
                | Errno::PERM,
            ) => Accepted::Gone,
            // EMFILE, ENFILE, ENOBUFS and ENOMEM; and what nobody knows yet, which is met by resting, too.
            Err(error) => Accepted::Exhausted(error.into()),
        }
    }
}

/// A client that came by a path: it has no address. Sockets of paths inherit nothing from their listener.
fn at_path(fd: OwnedFd, check: bool) -> Accepted {
    if check && sys::has_left(fd.as_fd()) {
        return Accepted::Gone;
    }
    match SockRef::from(&fd).set_out_of_band_inline(true) {
        Ok(()) => Accepted::Client(Arrival::new(fd, Kind::Unix), ClientAddr::UNNAMED),
        Err(_) => Accepted::Gone,
    }
}

/// What clients of a listener come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    Ipv4,
    Ipv6,
    Unix,
}

impl Family {
    pub(super) fn of(address: Address) -> Self {
        match address {
            Address::Inet(SocketAddr::V4(_)) => Self::Ipv4,
            Address::Inet(SocketAddr::V6(_)) => Self::Ipv6,
            Address::Unix(_) => Self::Unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_left_a_path_without_a_word_is_told_apart() {
        use std::io::Write;
        use std::net::Shutdown;
        use std::os::unix::net::UnixStream;

        let (silent, theirs) = UnixStream::pair().unwrap();
        assert!(!sys::has_left(theirs.as_fd()));
        silent.shutdown(Shutdown::Write).unwrap();
        assert!(!sys::has_left(theirs.as_fd()), "it waits for an answer");
        drop(silent);
        assert!(sys::has_left(theirs.as_fd()));
        let (mut brief, theirs) = UnixStream::pair().unwrap();
        brief.write_all(b"said").unwrap();
        drop(brief);
        assert!(
            !sys::has_left(theirs.as_fd()),
            "what it said is for a backend"
        );
    }
}
