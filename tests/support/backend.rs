//! Servers to put behind Ballast, scripted by the test: one thread accepts, one more per connection.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::address::fresh_ip;
use super::patience::{DEADLINE, eventually};
use super::peer::{bounded, connect};

/// Small, because a test has thousands of them.
const STACK: usize = 128 * 1024;

type Handler = Arc<dyn Fn(TcpStream) + Send + Sync>;

/// A server at an address of its own.
pub struct Backend {
    address: SocketAddr,
    handler: Handler,
    accepted: Arc<AtomicU64>,
    receive_buffer: Option<usize>,
    listener: Option<TcpListener>,
}

impl Backend {
    /// Runs `handler` on a thread for each connection, the daemon's probes included.
    pub fn serve(handler: impl Fn(TcpStream) + Send + Sync + 'static) -> Self {
        Self::serve_at(SocketAddr::new(fresh_ip().into(), 0), handler)
    }

    /// Like [`Backend::serve`], at an address that the test chose.
    pub fn serve_at(
        address: SocketAddr,
        handler: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        Self::serve_with(address, None, handler)
    }

    fn serve_with(
        address: SocketAddr,
        receive_buffer: Option<usize>,
        handler: impl Fn(TcpStream) + Send + Sync + 'static,
    ) -> Self {
        let mut backend = Self {
            address,
            handler: Arc::new(handler),
            accepted: Arc::default(),
            receive_buffer,
            listener: None,
        };
        backend.answer();
        backend
    }

    /// Greets with its name and a newline, then sends back what it gets.
    pub fn named(name: &str) -> Self {
        Self::serve(greet_and_echo(name))
    }

    /// Like [`Backend::named`], at an address that the test chose.
    pub fn named_at(address: SocketAddr, name: &str) -> Self {
        Self::serve_at(address, greet_and_echo(name))
    }

    /// Where it listens, or listened.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far, probes included.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Waits until it has been probed: its first verdict is in.
    pub fn wait_for_probe(&self) {
        eventually("a probe reaches the backend", || {
            (self.accepted() > 0).then_some(())
        });
    }

    /// Stops listening: from now on it refuses. Connections go on.
    pub fn refuse(&mut self) {
        if let Some(listener) = self.listener.take() {
            // Shutting a listening socket down ends its accept, which closing alone would not.
            SockRef::from(&listener)
                .shutdown(Shutdown::Both)
                .expect("it listens");
        }
    }

    /// Listens again where it did.
    pub fn answer(&mut self) {
        if self.listener.is_some() {
            return;
        }
        // The thread that accepted may hold the old socket for a moment longer.
        let listener = eventually("the backend's address is free", || {
            listen(self.address, 4096, self.receive_buffer).ok()
        });
        self.address = listener.local_addr().expect("a bound socket");
        let accepting = listener.try_clone().expect("descriptors");
        self.listener = Some(listener);
        let handler = Arc::clone(&self.handler);
        let accepted = Arc::clone(&self.accepted);
        spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                accepted.fetch_add(1, Ordering::Relaxed);
                bounded(&stream);
                let handler = Arc::clone(&handler);
                spawn(move || handler(stream));
            }
        });
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.refuse();
    }
}

fn spawn(body: impl FnOnce() + Send + 'static) {
    thread::Builder::new()
        .stack_size(STACK)
        .spawn(body)
        .expect("a thread");
}

/// Errors end the connection: a probe leaves before it was greeted, a test may reset.
fn greet_and_echo(name: &str) -> impl Fn(TcpStream) + Send + Sync + 'static {
    let greeting = format!("{name}\n");
    move |mut stream: TcpStream| {
        if stream.write_all(greeting.as_bytes()).is_ok() {
            // An error is the peer's ending; there is nobody to tell.
            drop(echo(&mut stream));
        }
    }
}

fn echo(stream: &mut TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    stream.set_read_timeout(None)?;
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

/// A listening socket with a backlog, its address reusable at once. Its connections inherit the size
/// of the receive buffer, which only then shrinks their first window.
fn listen(
    address: SocketAddr,
    backlog: i32,
    receive_buffer: Option<usize>,
) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(backlog)?;
    Ok(socket.into())
}

/// A backend whose connections the test itself holds: it hands out both ends of a session.
pub struct Meeting {
    backend: Backend,
    arrivals: Arc<Arrivals>,
}

#[derive(Default)]
struct Arrivals {
    streams: Mutex<HashMap<u64, TcpStream>>,
    more: Condvar,
}

impl Meeting {
    /// A server that waits for sessions opened with [`Meeting::session`].
    pub fn new() -> Self {
        Self::start(None)
    }

    /// Like [`Meeting::new`], with small receive buffers.
    pub fn with_receive_buffer(bytes: usize) -> Self {
        Self::start(Some(bytes))
    }

    fn start(receive_buffer: Option<usize>) -> Self {
        let address = SocketAddr::new(fresh_ip().into(), 0);
        let arrivals = Arc::new(Arrivals::default());
        let inside = Arc::clone(&arrivals);
        let backend = Backend::serve_with(address, receive_buffer, move |mut stream| {
            // A probe says nothing, and leaves.
            let mut token = [0; 8];
            if stream.read_exact(&mut token).is_ok() {
                let token = u64::from_be_bytes(token);
                inside
                    .streams
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .insert(token, stream);
                inside.more.notify_all();
            }
        });
        Self { backend, arrivals }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.backend.address()
    }

    /// Stops listening; sessions go on.
    pub fn refuse(&mut self) {
        self.backend.refuse();
    }

    /// Listens again.
    pub fn answer(&mut self) {
        self.backend.answer();
    }

    /// Opens a session through the listener at `through`: the client's end and the backend's. A
    /// token of eight bytes, which both ends have behind them, tells which belongs to which.
    pub fn session(&self, through: SocketAddr) -> (TcpStream, TcpStream) {
        let stream = connect(through).expect("the daemon listens");
        self.introduce(stream)
    }

    /// Like [`Meeting::session`], over a client connection that the test made.
    pub fn introduce(&self, mut client: TcpStream) -> (TcpStream, TcpStream) {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let token = NEXT.fetch_add(1, Ordering::Relaxed);
        client
            .write_all(&token.to_be_bytes())
            .expect("the daemon accepts");
        let streams = self
            .arrivals
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (mut streams, _) = self
            .arrivals
            .more
            .wait_timeout_while(streams, DEADLINE, |streams| !streams.contains_key(&token))
            .unwrap_or_else(PoisonError::into_inner);
        let backend = streams.remove(&token).expect("the session arrives in time");
        (client, backend)
    }
}

/// A backend that answers at first, then swallows every SYN: its accept queue is full, so the
/// kernel drops them without a word, as a vanished host would.
pub struct BlackHole {
    listener: TcpListener,
    queued: Vec<Socket>,
}

impl BlackHole {
    /// A listening socket that answers until [`BlackHole::swallow`].
    pub fn new() -> Self {
        let address = SocketAddr::new(IpAddr::V4(fresh_ip()), 0);
        Self {
            listener: listen(address, 0, None).expect("an address of its own"),
            queued: Vec::new(),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.listener.local_addr().expect("a bound socket")
    }

    /// Takes one connection: the probe that makes its first verdict a good one.
    pub fn accept_probe(&self) {
        self.listener.set_nonblocking(true).expect("a socket");
        eventually("a probe reaches the black hole", || {
            self.listener.accept().ok()
        });
    }

    /// Fills the queue.
    pub fn swallow(&mut self) {
        let address = SockAddr::from(self.address());
        loop {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("descriptors");
            socket
                .bind(&SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0).into())
                .expect("a source port");
            // On loopback a SYN is answered at once or never.
            match socket.connect_timeout(&address, Duration::from_millis(300)) {
                Ok(()) => self.queued.push(socket),
                Err(_) => return,
            }
        }
    }
}
