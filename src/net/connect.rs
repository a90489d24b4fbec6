//! Connecting to a backend, for as long as the session's deadline allows.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::OnceLock;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, ipproto, sockopt,
};

use super::{Event, Shortage, Socket, Ticket, options};
use crate::config::Outgoing;
use crate::model::{Address, Cause, ClientAddr, Page, Sources, UnixPath, Who, tells_of_a_shortage};

/// How long a path that has too many waiting is left alone.
pub const FULL: Duration = Duration::from_millis(20);
/// Of what a client has said already, so much goes with a SYN: it is to fit one segment.
const FIRST_FLIGHT: usize = 1024;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connecting {
    /// This backend did not take it; another may.
    Failed(Cause),
    /// The session was told to end, or its client did not stay.
    Ended(Who, Cause),
}

/// How a session gets to a backend.
#[derive(Clone, Copy, Debug)]
pub struct Dialer<'a> {
    /// What is not left to the kernel.
    pub outgoing: Option<&'a Outgoing>,
    /// For whom it is.
    pub client: ClientAddr,
    /// Where it is counted that a source has no port left.
    pub page: &'a Page,
    /// Whom to tell when there is nothing to connect with.
    pub shortage: &'a Shortage,
}

impl Dialer<'_> {
    /// A new descriptor, if there is one for sessions.
    fn placed(&self, fd: OwnedFd) -> io::Result<OwnedFd> {
        let placed = self.shortage.place(fd, None);
        placed.map_err(|(_, error)| error)
    }

    /// Tells those who have to know of it.
    fn has_failed(&self, error: &io::Error) {
        if tells_of_a_shortage(error) {
            self.shortage.meet(error);
        }
    }
}

/// Connects to `address`, at the latest by `deadline`, for as long as `client` stays, and sends
/// `introduction`, if there is one, before anything else. What is in `reserve` is spent on it. Tells how many of
/// the client's bytes went with the SYN, and are taken from it then.
///
/// # Errors
/// [`Connecting::Failed`] with [`Cause::TimedOut`] past the deadline, or with what the network
/// said; [`Connecting::Ended`] when the session is to end, or `client` has failed.
pub async fn connect(
    address: Address,
    dialer: &Dialer<'_>,
    ticket: &Ticket,
    deadline: Instant,
    mut client: Option<&mut Socket>,
    introduction: &[u8],
    reserve: Option<OwnedFd>,
) -> Result<(Socket, u64), Connecting> {
    let address = match address {
        Address::Inet(address) => address,
        Address::Unix(path) => {
            // Makes room for a socket of that family.
            drop(reserve);
            // Rare, so not part of what every connect weighs.
            let connecting = Box::pin(at_path(path, dialer, ticket, deadline, client));
            let mut socket = connecting.await?;
            if !introduction.is_empty() {
                socket.introduce(introduction).map_err(Connecting::Failed)?;
            }
            return Ok((socket, 0));
        }
    };
    let flight = match dialer.outgoing {
        Some(outgoing) if outgoing.fast_open => first_flight(introduction, client.as_deref()),
        Some(_) | None => Vec::new(),
    };
    let (mut socket, flown) = start(address, dialer, &flight, reserve).map_err(|error| {
        dialer.has_failed(&error);
        Connecting::Failed(Cause::from_io(&error))
    })?;
    let early = flown.saturating_sub(introduction.len());
    ticket.schedule(deadline);
    poll_fn(|cx| {
        if let Poll::Ready(outcome) = socket.poll_connected(cx) {
            return Poll::Ready(outcome.map_err(|cause| failed(cause, early)));
        }
        let due = ready!(poll_interrupted(cx, ticket, &mut client));
        Poll::Ready(due.and_then(|()| Err(failed(Cause::TimedOut, early))))
    })
    .await?;
    if may_connect_to_itself(address) && is_connected_to_itself(&socket, address) {
        return Err(Connecting::Failed(Cause::Refused));
    }
    let rest = introduction.get(flown..).unwrap_or_default();
    if !rest.is_empty() {
        // No byte of the client's has gone anywhere, so another backend may have the session instead.
        socket.introduce(rest).map_err(Connecting::Failed)?;
    }
    if let Some(client) = client.filter(|_| early > 0) {
        // They were looked at, and are the backend's now.
        let taken = client.take(&mut flight.clone()[..early]);
        taken.map_err(|cause| Connecting::Ended(Who::Client, cause))?;
    }
    Ok((socket, early as u64))
}

/// Connects to a path. It succeeds or fails at once, but for one that has too many waiting to be accepted: that
/// is tried again, as the kernel does with a SYN.
async fn at_path(
    path: UnixPath,
    dialer: &Dialer<'_>,
    ticket: &Ticket,
    deadline: Instant,
    mut client: Option<&mut Socket>,
) -> Result<Socket, Connecting> {
    loop {
        let connected = to_path(path).and_then(|fd| dialer.placed(fd));
        let error = match connected.and_then(Socket::at_path) {
            Ok(socket) => return Ok(socket),
            Err(error) => error,
        };
        let now = Instant::now();
        let cause = match error.kind() == io::ErrorKind::WouldBlock {
            true => Cause::TimedOut,
            false => Cause::from_io(&error),
        };
        if cause != Cause::TimedOut || now >= deadline {
            dialer.has_failed(&error);
            return Err(Connecting::Failed(cause));
        }
        ticket.schedule(deadline.min(now + FULL));
        poll_fn(|cx| poll_interrupted(cx, ticket, &mut client)).await?;
    }
}

/// What ends a wait for a backend: the time that the ticket is scheduled for, or the end of the session.
fn poll_interrupted(
    cx: &mut Context<'_>,
    ticket: &Ticket,
    client: &mut Option<&mut Socket>,
) -> Poll<Result<(), Connecting>> {
    match ticket.poll(cx) {
        Poll::Ready(Event::Due) => Poll::Ready(Ok(())),
        Poll::Ready(Event::End(cause)) => Poll::Ready(Err(Connecting::Ended(Who::Ballast, cause))),
        // Looks at what the reactor knows already: no system call unless there is an error.
        Poll::Pending => match client {
            Some(client) => client
                .poll_error(cx)
                .map(|cause| Err(Connecting::Ended(Who::Client, cause))),
            None => Poll::Pending,
        },
    }
}

/// A connection to a path, at once or not at all.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] where too many wait to be accepted: in [`FULL`] there may be room. Else why
/// there is no connection.
pub fn to_path(path: UnixPath) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_oobinline(&fd, true)?;
    match rustix::net::connect(&fd, &SocketAddrUnix::new(path.as_path())?) {
        Ok(()) => Ok(fd),
        // Nobody is there, as behind a closed port.
        Err(Errno::NOENT) => Err(Errno::CONNREFUSED.into()),
        Err(error) => Err(error.into()),
    }
}

/// A connect that failed when so many bytes of the client's went with its SYN. Where that may have been
/// answered, the server may have acted on them, and nobody else is to.
fn failed(cause: Cause, early: usize) -> Connecting {
    let unseen = [Cause::Refused, Cause::Unreachable, Cause::Exhausted];
    match early > 0 && !unseen.contains(&cause) {
        true => Connecting::Ended(Who::Backend, cause),
        false => Connecting::Failed(cause),
    }
}

/// What is there to be sent: the introduction, and what the client has said already.
fn first_flight(introduction: &[u8], client: Option<&Socket>) -> Vec<u8> {
    let mut flight = introduction.to_vec();
    if let Some(client) = client {
        let known = flight.len();
        flight.resize(known.max(FIRST_FLIGHT), 0);
        let said = client.glance(&mut flight[known..]);
        flight.truncate(known + said);
    }
    flight
}

/// A socket that connects, from the first source that has a port left; with how much of `flight` went
/// with its SYN.
fn start(
    address: SocketAddr,
    dialer: &Dialer<'_>,
    flight: &[u8],
    mut reserve: Option<OwnedFd>,
) -> io::Result<(Socket, usize)> {
    let mut from = |source| {
        let started = start_from(source, address, dialer, flight, reserve.take());
        if let Err(error) = &started
            && error.kind() == io::ErrorKind::AddrNotAvailable
        {
            dialer.page.had_no_port();
            tracing::debug!(?source, %address, "no port left");
        }
        started
    };
    let egress = dialer.outgoing.and_then(|it| it.egress.as_ref());
    let Some(egress) = egress else {
        return from(None);
    };
    if egress.sources == Sources::Client {
        let client = match dialer.client.is_unnamed() {
            true => return from(None),
            false => dialer.client.ip(),
        };
        // A client of the other family cannot be where the backend's answers go.
        let client = (client.is_ipv4() == address.is_ipv4()).then_some(client);
        return from(client);
    }
    let pool = egress.sources.of_family(address.is_ipv4());
    let many = pool.clone().count();
    if many == 0 {
        return from(None);
    }
    // Each is as good as another to begin with.
    let turns = pool.clone().chain(pool).skip(fastrand::usize(..many));
    let mut last = Err(Errno::ADDRNOTAVAIL.into());
    for source in turns.take(many) {
        last = from(Some(source));
        match &last {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
            Ok(_) | Err(_) => break,
        }
    }
    last
}

fn start_from(
    source: Option<IpAddr>,
    address: SocketAddr,
    dialer: &Dialer<'_>,
    flight: &[u8],
    reserve: Option<OwnedFd>,
) -> io::Result<(Socket, usize)> {
    let outgoing = dialer.outgoing;
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let fd = match reserve {
        // Let go of, it might be another's before it is this one's.
        Some(reserve) if address.is_ipv4() => reserve,
        reserve => {
            drop(reserve);
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            let kind = SocketType::STREAM;
            dialer.placed(rustix::net::socket_with(
                family,
                kind,
                flags,
                Some(ipproto::TCP),
            )?)?
        }
    };
    // Without it the kernel leaves urgent bytes out of the stream. Accepted sockets inherit it.
    sockopt::set_socket_oobinline(&fd, true)?;
    if let Some(outgoing) = outgoing {
        options::of_connection(fd.as_fd(), outgoing)?;
    }
    if let Some(source) = source {
        if outgoing.is_some_and(is_transparent) {
            options::make_transparent(fd.as_fd(), source)?;
        }
        options::bind_to(fd.as_fd(), source)?;
    }
    if !flight.is_empty() {
        return match rustix::net::sendto(&fd, flight, FAST_OPEN, &address) {
            Ok(flown) => {
                let mut socket = Socket::connecting(fd)?;
                socket.has_begun();
                Ok((socket, flown))
            }
            // Without a cookie of the server's, it is a plain SYN that asks for one.
            Err(Errno::INPROGRESS | Errno::INTR) => Ok((Socket::connecting(fd)?, 0)),
            Err(error) => Err(error.into()),
        };
    }
    match rustix::net::connect(&fd, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => Ok((Socket::connecting(fd)?, 0)),
        Err(error) => Err(error.into()),
    }
}

fn is_transparent(outgoing: &Outgoing) -> bool {
    let egress = outgoing.egress.as_ref();
    egress.is_some_and(|it| it.sources == Sources::Client)
}

/// Connects and sends in one (RFC 7413, tcp(7)).
const FAST_OPEN: SendFlags =
    SendFlags::from_bits_retain(libc::MSG_FASTOPEN as u32).union(SendFlags::NOSIGNAL);

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
    use std::sync::atomic::AtomicU64;

    use super::*;
    use crate::net::Registry;

    fn run<T: 'static>(main: impl Future<Output = T> + 'static) -> T {
        crate::reactor::run(main, &AtomicU64::new(0)).unwrap()
    }

    #[test]
    fn a_port_that_nobody_listens_on_refuses() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let outcome = run(async move {
            let ticket = Registry::new().enter();
            connect(
                address.into(),
                &Dialer {
                    outgoing: None,
                    client: ClientAddr::new(address),
                    page: &Page::default(),
                    shortage: Shortage::of(0),
                },
                &ticket,
                Instant::now() + Duration::from_secs(10),
                None,
                b"",
                None,
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
        run(async move {
            let socket = Socket::connecting(socket.into()).unwrap();
            assert!(may_connect_to_itself(own));
            assert!(is_connected_to_itself(&socket, own));
        });
    }
}
