//! Listening: binding so that an occupied port is an error although workers have several sockets at it, and closing
//! for good without losing a handshake. What a worker does with its socket is in
//! [`accept`](super::accept).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};
use thiserror::Error;

use super::accept::{Family, Unregistered};
use super::{options, sys};
use crate::config::{Incoming, ListenConfig, SocketAccess, SocketConfig};
use crate::model::Address;
use crate::unix::{self, OwnPath};

/// So many workers accept from one socket; where there are more, the kernel spreads clients over several. From one queue
/// whoever is free takes who has waited longest, while with a queue each clients wait behind the slower worker; but
/// those who share one have to take turns at its lock.
const SHARERS: usize = 4;

/// A bound address, with a socket for every few workers. Once it listens, handshakes that complete before a
/// worker takes its socket wait in the queue.
#[derive(Debug)]
pub struct BoundListener {
    address: Address,
    dual_stack: bool,
    mptcp: bool,
    /// Where it is found, if that is a path.
    path: Option<OwnPath>,
    access: SocketAccess,
    sockets: Vec<Arc<OwnedFd>>,
    /// Whether the hop limit was ever used: what is accepted may have inherited it.
    limited: Arc<AtomicBool>,
    /// What is accepted is like this.
    incoming: Incoming,
}

/// The addresses that a listener keeps others from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    address: Address,
    dual_stack: bool,
}

impl Claim {
    fn overlaps(&self, other: &Self) -> bool {
        let (Some(one), Some(two)) = (self.address.inet(), other.address.inet()) else {
            return false;
        };
        let families = one.is_ipv4() == two.is_ipv4() || self.dual_stack || other.dual_stack;
        let addresses =
            one.ip() == two.ip() || one.ip().is_unspecified() || two.ip().is_unspecified();
        one.port() == two.port() && one.port() != 0 && families && addresses
    }
}

/// A listener that was closed, for as long as workers empty its queue.
#[derive(Debug)]
pub struct Remains {
    claim: Claim,
    sockets: Vec<Weak<OwnedFd>>,
}

impl Remains {
    /// What it keeps others from, if it still does.
    pub fn claim(&self) -> Option<Claim> {
        let is_open = self.sockets.iter().any(|it| it.strong_count() > 0);
        is_open.then_some(self.claim)
    }
}

/// An address that cannot be listened on.
#[derive(Debug, Error)]
#[error("{}cannot listen on {address}: {}", Whose(.service), Reason(.source))]
pub struct BindError {
    service: Option<Arc<str>>,
    address: Box<Address>,
    source: io::Error,
}

impl BindError {
    fn new(address: Address, source: io::Error) -> Self {
        Self {
            service: None,
            address: Box::new(address),
            source,
        }
    }

    /// The same with whose listener it would be.
    pub fn of(self, service: &Arc<str>) -> Self {
        Self {
            service: Some(Arc::clone(service)),
            ..self
        }
    }

    /// What kind of thing is in the way.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }

    /// What is in the way, in words.
    pub fn reason(&self) -> String {
        Reason(&self.source).to_string()
    }
}

/// `service web `
struct Whose<'a>(&'a Option<Arc<str>>);

impl fmt::Display for Whose<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(service) => write!(f, "service {service} "),
            None => Ok(()),
        }
    }
}

struct Reason<'a>(&'a io::Error);

impl fmt::Display for Reason<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "ErrorKind is non-exhaustive"
        )]
        match self.0.kind() {
            io::ErrorKind::AddrInUse => {
                f.write_str("another process, or another listener, has it: 'ss -ltnp' tells who")
            }
            io::ErrorKind::PermissionDenied => {
                f.write_str("permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)")
            }
            io::ErrorKind::AddrNotAvailable => f.write_str("no interface of this host has it"),
            _ => self.0.fmt(f),
        }
    }
}

impl BoundListener {
    /// Binds `listen` for so many `workers`, not listening yet or, at a path, not to be found yet, for
    /// clients that are served as `config` says. `ours` are the addresses that this
    /// process listens on already; one of them may overlap, and is about to be retired then.
    ///
    /// # Errors
    /// When the kernel refuses, an address that somebody else has included; nothing stays bound.
    pub fn bind(
        listen: &ListenConfig,
        config: &SocketConfig,
        workers: usize,
        ours: &[Claim],
    ) -> Result<Self, BindError> {
        let error = |source| BindError::new(listen.address, source);
        let incoming = &config.incoming;
        let wanted_at = match listen.address {
            Address::Inet(address) => address,
            Address::Unix(path) => {
                let bound = unix::bind(path.as_path(), &config.access);
                let (socket, own) = bound.map_err(|why| error(io::Error::other(why)))?;
                return Ok(Self {
                    address: listen.address,
                    dual_stack: false,
                    mptcp: false,
                    path: Some(own),
                    access: config.access.clone(),
                    // One path has one socket, which all workers accept from.
                    sockets: vec![Arc::new(socket)],
                    limited: Arc::default(),
                    incoming: incoming.clone(),
                });
            }
        };
        // With SO_REUSEPORT a second bind by the same user succeeds silently and steals
        // connections, so the first socket goes without, and the port's being free is proven.
        let wanted = Claim {
            address: listen.address,
            dual_stack: listen.dual_stack,
        };
        let overlaps = ours.iter().any(|own| own.overlaps(&wanted));
        let first = open(listen, incoming, wanted_at, overlaps).map_err(error)?;
        first.set_reuse_port(true).map_err(error)?;
        let address = first
            .local_addr()
            .map_err(error)?
            .as_socket()
            .unwrap_or(wanted_at);
        let mut sockets = vec![first];
        for _ in 1..Self::sockets_for(workers) {
            sockets.push(open(listen, incoming, address, true).map_err(error)?);
        }
        Ok(Self {
            address: address.into(),
            path: None,
            access: SocketAccess::default(),
            dual_stack: listen.dual_stack,
            mptcp: listen.mptcp,
            sockets: sockets
                .into_iter()
                .map(|socket| Arc::new(socket.into()))
                .collect(),
            limited: Arc::default(),
            incoming: incoming.clone(),
        })
    }

    /// How many sockets there are at one address for so many workers.
    pub fn sockets_for(workers: usize) -> usize {
        workers.div_ceil(SHARERS)
    }

    /// The address as bound: the port is never 0.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Whether an IPv6 wildcard takes IPv4 clients too.
    pub fn dual_stack(&self) -> bool {
        self.dual_stack
    }

    /// Whether clients may come over several paths at once.
    pub fn mptcp(&self) -> bool {
        self.mptcp
    }

    /// The interface that clients come by.
    pub fn interface(&self) -> Option<Box<str>> {
        self.incoming.interface.clone()
    }

    /// What nobody else can listen on while this is open.
    pub fn claim(&self) -> Claim {
        Claim {
            address: self.address,
            dual_stack: self.dual_stack,
        }
    }

    /// What there is of it when only workers have it.
    pub fn remains(&self) -> Remains {
        Remains {
            claim: self.claim(),
            sockets: self.sockets.iter().map(Arc::downgrade).collect(),
        }
    }

    /// What a worker needs to listen.
    pub fn of_worker(&self, worker: usize) -> Unregistered {
        Unregistered {
            socket: Arc::clone(&self.sockets[worker % self.sockets.len()]),
            limited: Arc::clone(&self.limited),
            family: Family::of(self.address),
        }
    }

    /// Listens, or changes the backlog of a listener: a further listen() does just that.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn listen(&self, backlog: u32) -> Result<(), BindError> {
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        self.sockets
            .iter()
            .try_for_each(|socket| SockRef::from(socket.as_ref()).listen(backlog))
            .map_err(|source| BindError::new(self.address, source))
    }

    /// How many handshakes the kernel has dropped since it was bound, because too many clients waited to be
    /// accepted; they are tried again by whoever means it.
    pub fn dropped(&self) -> u64 {
        // One path has one socket, whose clients wait themselves.
        let sockets = self.sockets.iter().filter(|_| self.path.is_none());
        sockets.map(|it| u64::from(sys::dropped(it.as_fd()))).sum()
    }

    /// Has clients find it, where that takes more than to listen.
    ///
    /// # Errors
    /// What the kernel says, or that somebody else is at its path.
    pub fn open(&self) -> io::Result<()> {
        self.path.as_ref().map_or(Ok(()), OwnPath::show)
    }

    /// Whether no client finds it any more, because somebody has taken its socket away from its path.
    pub fn is_lost(&self) -> bool {
        self.path.as_ref().is_some_and(|path| !path.is_there())
    }

    /// Has clients that come from now on be served as `config` says. What fails is tried again next time.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tune(&mut self, config: &SocketConfig) -> Result<(), BindError> {
        if let Some(path) = &self.path {
            if config.access != self.access {
                path.grant(&config.access)
                    .map_err(|why| BindError::new(self.address, io::Error::other(why)))?;
                self.access = config.access.clone();
            }
            return Ok(());
        }
        let incoming = &config.incoming;
        if *incoming == self.incoming {
            return Ok(());
        }
        self.each(|socket| options::of_listener(socket, incoming, Some(&self.incoming)))
            .map_err(|source| BindError::new(self.address, source))?;
        self.incoming = incoming.clone();
        Ok(())
    }

    /// Lets no new handshake begin, while those under way complete and can be accepted.
    ///
    /// Newer kernels let only CAP_NET_ADMIN attach a filter to a TCP socket. Without it the hop
    /// limit serves: a SYN comes with fewer hops to go than 255 and is dropped. Accepted sockets
    /// inherit that, so [`Listener::accept`](super::Listener::accept) lifts it from them; what their peers sent
    /// before is sent again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn refuse_handshakes(&self) -> io::Result<()> {
        if let Some(path) = &self.path {
            return path.hide().map_err(io::Error::other);
        }
        let ipv6 = Family::of(self.address) == Family::Ipv6;
        self.each(|socket| {
            let filtered = SockRef::from(&socket).attach_filter(DROP_PURE_SYN);
            filtered.or_else(|_| {
                self.limited.store(true, Ordering::Relaxed);
                sys::require_hops(socket, ipv6, MOST_HOPS)
            })
        })
    }

    /// Takes [`refuse_handshakes`](Self::refuse_handshakes) back.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn accept_handshakes(&self) -> io::Result<()> {
        if let Some(path) = &self.path {
            return path.show();
        }
        let ipv6 = Family::of(self.address) == Family::Ipv6;
        self.each(|socket| match SockRef::from(&socket).detach_filter() {
            Err(_) if self.limited.load(Ordering::Relaxed) => sys::require_hops(socket, ipv6, 0),
            outcome => outcome,
        })
    }

    fn each(&self, act: impl Fn(BorrowedFd<'_>) -> io::Result<()>) -> io::Result<()> {
        self.sockets
            .iter()
            .try_for_each(|socket| act(socket.as_fd()))
    }
}

/// More than any segment has to go when it arrives, but for one that a neighbour sent with as much.
const MOST_HOPS: u8 = 255;

/// Classic BPF over the TCP header: a segment with SYN and without ACK is dropped, others pass.
const DROP_PURE_SYN: &[SockFilter] = &[
    // A = flags byte; BPF_LD | BPF_B | BPF_ABS
    SockFilter::new(0x30, 0, 0, 13),
    // A &= SYN | ACK; BPF_ALU | BPF_AND | BPF_K
    SockFilter::new(0x54, 0, 0, 0x12),
    // A == SYN ? next : one further; BPF_JMP | BPF_JEQ | BPF_K
    SockFilter::new(0x15, 0, 1, 0x02),
    // drop; BPF_RET | BPF_K
    SockFilter::new(0x06, 0, 0, 0),
    // pass whole
    SockFilter::new(0x06, 0, 0, u32::MAX),
];

fn open(
    listen: &ListenConfig,
    incoming: &Incoming,
    address: SocketAddr,
    reuse_port: bool,
) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(if listen.mptcp {
            Protocol::MPTCP
        } else {
            Protocol::TCP
        }),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(!listen.dual_stack)?;
    }
    // Sessions of an earlier process may be in TIME_WAIT; this does not let two listeners share.
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    // Inherited by every accepted socket, which saves their system calls.
    socket.set_tcp_nodelay(true)?;
    if !listen.mptcp {
        // Multipath TCP knows no urgent bytes.
        socket.set_out_of_band_inline(true)?;
    }
    options::of_listener(socket.as_fd(), incoming, None).map_err(io::Error::other)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    fn on(address: &str) -> ListenConfig {
        ListenConfig {
            address: address.parse().unwrap(),
            dual_stack: false,
            mptcp: false,
        }
    }

    fn inet(bound: &BoundListener) -> SocketAddr {
        bound.address().inet().unwrap()
    }

    fn listening(listen: &ListenConfig, workers: usize) -> BoundListener {
        let bound = BoundListener::bind(listen, &SocketConfig::default(), workers, &[]).unwrap();
        bound.listen(16).unwrap();
        bound
    }

    #[test]
    fn workers_share_an_ephemeral_port_and_nobody_else_gets_it() {
        let bound = listening(&on("127.0.0.1:0"), SHARERS + 1);
        assert_eq!(bound.sockets.len(), 2);
        let again = on(&bound.address().to_string());
        let error = BoundListener::bind(&again, &SocketConfig::default(), 1, &[]).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
    }

    #[test]
    fn what_finds_no_room_in_the_queue_is_counted() {
        let bound =
            BoundListener::bind(&on("127.0.0.1:0"), &SocketConfig::default(), 1, &[]).unwrap();
        bound.listen(1).unwrap();
        let connect = || {
            let client = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), None).unwrap();
            // It waits for an answer that does not come.
            client.connect(&inet(&bound).into()).ok();
            client
        };
        let _in_time = [connect(), connect()];
        assert_eq!(bound.dropped(), 0);
        let _late = [connect(), connect(), connect()];
        assert_eq!(bound.dropped(), 3);
    }

    #[test]
    fn an_own_overlapping_address_is_no_obstacle() {
        let bound = listening(&on("127.0.0.1:0"), 2);
        let wildcard = on(&format!("0.0.0.0:{}", inet(&bound).port()));
        assert!(BoundListener::bind(&wildcard, &SocketConfig::default(), 2, &[]).is_err());
        let both =
            BoundListener::bind(&wildcard, &SocketConfig::default(), 2, &[bound.claim()]).unwrap();
        both.listen(16).unwrap();
    }

    #[test]
    fn the_hop_limit_refuses_like_the_filter_and_can_be_lifted() {
        let bound = listening(&on("127.0.0.1:0"), 1);
        let patience = std::time::Duration::from_millis(200);
        let _early = TcpStream::connect(inet(&bound)).unwrap();
        let hops = |hops| {
            bound
                .each(|socket| sys::require_hops(socket, false, hops))
                .unwrap()
        };
        hops(MOST_HOPS);
        let late = TcpStream::connect_timeout(&inet(&bound), patience);
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        rustix::net::accept(&bound.sockets[0]).unwrap();
        hops(0);
        TcpStream::connect(inet(&bound)).unwrap();
    }

    #[test]
    fn a_refused_handshake_does_not_cost_a_completed_one() {
        let bound = listening(&on("127.0.0.1:0"), 1);
        let _client = TcpStream::connect(inet(&bound)).unwrap();
        bound.refuse_handshakes().unwrap();
        let late = TcpStream::connect_timeout(&inet(&bound), std::time::Duration::from_millis(200));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
        rustix::net::accept(&bound.sockets[0]).unwrap();
    }
}
