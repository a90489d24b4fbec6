//! Connecting to a backend, for as long as the session's deadline allows.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, sockopt};

use super::{Event, Socket, Ticket};
use crate::model::{Cause, Who};

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    /// This backend did not take it; another may.
    Failed(Cause),
    /// The session was told to end, or its client did not stay.
    Ended(Who, Cause),
}

/// Connects to `address`, at the latest by `deadline`, for as long as `client` stays, and sends
/// `introduction`, if there is one, before anything else.
///
/// # Errors
/// [`Connecting::Failed`] with [`Cause::TimedOut`] past the deadline, or with what the network
/// said; [`Connecting::Ended`] when the session is to end, or `client` has failed.
pub async fn connect(
    address: SocketAddr,
    ticket: &Ticket,
    deadline: Instant,
    mut client: Option<&mut Socket>,
    introduction: &[u8],
) -> Result<Socket, Connecting> {
    let mut socket = start(address).map_err(|error| Connecting::Failed(Cause::from_io(&error)))?;
    ticket.schedule(deadline);
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = socket.poll_connected(cx) {
            return Poll::Ready(outcome.map_err(Connecting::Failed));
        }
        match ticket.poll(cx) {
            Poll::Ready(Event::Due) => Poll::Ready(Err(Connecting::Failed(Cause::TimedOut))),
            Poll::Ready(Event::End(cause)) => {
                Poll::Ready(Err(Connecting::Ended(Who::Ballast, cause)))
            }
            // Looks at what the runtime knows already: no system call unless there is an error.
            Poll::Pending => match &mut client {
                Some(client) => client
                    .poll_error(cx)
                    .map(|cause| Err(Connecting::Ended(Who::Client, cause))),
                None => Poll::Pending,
            },
        }
    })
    .await?;
    if may_connect_to_itself(address) && is_connected_to_itself(&socket, address) {
        return Err(Connecting::Failed(Cause::Refused));
    }
    if !introduction.is_empty() {
        // No byte of the client's has gone anywhere, so another backend may have the session instead.
        socket.introduce(introduction).map_err(Connecting::Failed)?;
    }
    Ok(socket)
}

fn start(address: SocketAddr) -> io::Result<Socket> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // Without it the kernel leaves urgent bytes out of the stream. Accepted sockets inherit it.
    sockopt::set_socket_oobinline(&fd, true)?;
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Socket::connecting(fd),
        Err(error) => Err(error.into()),
    }
}

/// A connect to a local port of the ephemeral range that nobody listens on may be given that very
/// port as its source, and TCP's simultaneous open then connects the socket to itself: the client
/// would be served its own bytes. Elsewhere the question costs nothing.
pub fn may_connect_to_itself(address: SocketAddr) -> bool {
    static EPHEMERAL: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    EPHEMERAL
        .get_or_init(ephemeral_ports)
        .contains(&address.port())
}

fn ephemeral_ports() -> RangeInclusive<u16> {
    let ports = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let mut ports = ports
        .iter()
        .flat_map(|text| text.split_whitespace())
        .filter_map(|port| port.parse().ok());
    match (ports.next(), ports.next()) {
        (Some(first), Some(last)) => first..=last,
        _ => 1..=u16::MAX,
    }
}

fn is_connected_to_itself(socket: &Socket, peer: SocketAddr) -> bool {
    rustix::net::getsockname(socket.as_fd())
        .ok()
        .and_then(|own| SocketAddr::try_from(own).ok())
        == Some(peer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Registry;
    use std::time::Duration;

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_port_that_nobody_listens_on_refuses() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let outcome = run(async {
            let ticket = Registry::new().enter();
            connect(
                address,
                &ticket,
                Instant::now() + Duration::from_secs(10),
                None,
                b"",
            )
            .await
        });
        assert_eq!(outcome.err(), Some(Connecting::Failed(Cause::Refused)));
    }

    #[test]
    fn a_socket_connected_to_itself_counts_as_refused() {
        // Simultaneous open on demand: bind a port, then connect to it.
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        let own = socket.local_addr().unwrap().as_socket().unwrap();
        socket.connect(&own.into()).unwrap();
        socket.set_nonblocking(true).unwrap();
        run(async {
            let socket = Socket::connecting(socket.into()).unwrap();
            assert!(may_connect_to_itself(own));
            assert!(is_connected_to_itself(&socket, own));
        });
    }
}
