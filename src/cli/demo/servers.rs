//! The servers that the demo balances over: each answers HTTP with its own name and echoes
//! everything else, and each can die and return. They know nothing of the balancer.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

/// One server, alive from its start.
pub(super) struct Server {
    name: &'static str,
    address: SocketAddr,
    served: Arc<AtomicU64>,
    /// Bound and never listening: keeps the port ours while the server is dead, so that connects
    /// are refused and nobody else takes it.
    _reservation: TcpSocket,
    alive: Option<JoinHandle<()>>,
}

impl Server {
    /// Starts a server on a free port of the loopback interface.
    pub(super) fn start(name: &'static str) -> io::Result<Self> {
        let reservation = bound(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let mut server = Self {
            name,
            address: reservation.local_addr()?,
            served: Arc::default(),
            _reservation: reservation,
            alive: None,
        };
        server.revive()?;
        Ok(server)
    }

    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn is_alive(&self) -> bool {
        self.alive.is_some()
    }

    /// Connections that have said something since the start; a heartbeat says nothing.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Closes the port and every connection at once, as a crash does.
    pub(super) async fn die(&mut self) {
        if let Some(alive) = self.alive.take() {
            alive.abort();
            // The error is the abort itself.
            let _ = alive.await;
        }
    }

    /// Listens again, if dead.
    pub(super) fn revive(&mut self) -> io::Result<()> {
        if self.alive.is_none() {
            let listener = bound(self.address)?.listen(BACKLOG)?;
            let served = Arc::clone(&self.served);
            self.alive = Some(tokio::spawn(serve(self.name, listener, served)));
        }
        Ok(())
    }
}

/// A socket bound to `address` beside others that do not listen.
fn bound(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Accepts until aborted; the connections end with it.
async fn serve(name: &'static str, listener: TcpListener, served: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < MOST_CONNECTIONS => match accepted {
                Ok((stream, _)) => {
                    let served = Arc::clone(&served);
                    connections.spawn(async move {
                        // A peer that vanishes is nothing to a server of a demo.
                        let _ = answer(name, stream, &served).await;
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_BACK_OFF).await,
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection: HTTP if its first bytes look like it, an echo otherwise.
async fn answer(name: &str, mut stream: TcpStream, served: &AtomicU64) -> io::Result<()> {
    let mut buffer = vec![0; LONGEST_HEAD];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read > 0 && filled == 0 {
            served.fetch_add(1, Ordering::Relaxed);
        }
        filled += read;
        let head = &buffer[..filled];
        let http = looks_like_http(head);
        if http && head.windows(4).any(|end| end == b"\r\n\r\n") {
            stream.write_all(&response(name, head)).await?;
            stream.shutdown().await?;
            // Closing before the rest of a request is read would reset the connection and could
            // take the answer with it.
            let _ = timeout(LINGER, drain(&mut stream, &mut buffer)).await;
            return Ok(());
        }
        if read == 0 || !http || filled == buffer.len() {
            stream.write_all(head).await?;
            return echo(&mut stream, &mut buffer).await;
        }
    }
}

/// Whether `head` begins, or may yet begin, with the method of an HTTP request.
fn looks_like_http(head: &[u8]) -> bool {
    METHODS.iter().any(|method| {
        let common = method.len().min(head.len());
        head[..common] == method.as_bytes()[..common]
    })
}

fn response(name: &str, head: &[u8]) -> Vec<u8> {
    let body = format!("{name}\n");
    let length = body.len();
    let shown = if head.starts_with(b"HEAD ") {
        ""
    } else {
        &body
    };
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{shown}"
    )
    .into_bytes()
}

async fn drain(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    while stream.read(buffer).await? > 0 {}
    Ok(())
}

async fn echo(stream: &mut TcpStream, buffer: &mut [u8]) -> io::Result<()> {
    loop {
        let read = stream.read(buffer).await?;
        if read == 0 {
            return stream.shutdown().await;
        }
        stream.write_all(&buffer[..read]).await?;
    }
}

const METHODS: [&str; 9] = [
    "GET ", "HEAD ", "POST ", "PUT ", "DELETE ", "PATCH ", "OPTIONS ", "TRACE ", "CONNECT ",
];

/// A request head that is longer is echoed like anything else.
const LONGEST_HEAD: usize = 16 * 1024;

/// How long a server reads on after its answer.
const LINGER: Duration = Duration::from_secs(1);

const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);
const MOST_CONNECTIONS: usize = 4096;
const BACKLOG: u32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    async fn connected(server: &Server) -> TcpStream {
        TcpStream::connect(server.address()).await.unwrap()
    }

    async fn rest_of(stream: &mut TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    async fn asked(server: &Server, request: &str) -> String {
        let mut stream = connected(server).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        rest_of(&mut stream).await
    }

    #[tokio::test]
    async fn http_is_answered_with_the_name() {
        let server = Server::start("red").unwrap();
        let answer = asked(&server, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"));
        assert!(head.contains("\r\nContent-Length: 4"));
        assert_eq!(body, "red\n");
    }

    #[tokio::test]
    async fn a_head_request_gets_no_body_and_a_post_loses_no_answer() {
        let server = Server::start("red").unwrap();
        assert!(
            asked(&server, "HEAD / HTTP/1.0\r\n\r\n")
                .await
                .ends_with("\r\n\r\n")
        );
        let body = "x".repeat(100_000);
        let post = format!("POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n{body}");
        assert!(asked(&server, &post).await.ends_with("\r\n\r\nred\n"));
    }

    #[tokio::test]
    async fn anything_else_is_echoed_both_halves_included() {
        let server = Server::start("red").unwrap();
        let mut stream = connected(&server).await;
        stream.write_all(b"G'day\n").await.unwrap();
        let mut line = [0; 6];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"G'day\n");
        stream.write_all(b"bye").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest_of(&mut stream).await, "bye");
    }

    #[tokio::test]
    async fn a_request_in_single_bytes_is_still_http_and_half_a_method_is_echoed() {
        let server = Server::start("red").unwrap();
        let mut stream = connected(&server).await;
        stream.set_nodelay(true).unwrap();
        for byte in b"GET / HTTP/1.1\r\n\r\n" {
            stream.write_all(&[*byte]).await.unwrap();
        }
        assert!(rest_of(&mut stream).await.ends_with("red\n"));
        let mut stream = connected(&server).await;
        stream.write_all(b"GE").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(rest_of(&mut stream).await, "GE");
    }

    #[tokio::test]
    async fn a_dead_server_refuses_and_breaks_and_returns_to_its_port() {
        let mut server = Server::start("red").unwrap();
        let mut open = connected(&server).await;
        open.write_all(b"hello").await.unwrap();
        open.read_exact(&mut [0; 5]).await.unwrap();
        for _ in 0..3 {
            server.die().await;
            assert!(!server.is_alive());
            let refused = TcpStream::connect(server.address()).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            server.revive().unwrap();
            assert!(
                asked(&server, "GET / HTTP/1.0\r\n\r\n")
                    .await
                    .ends_with("red\n")
            );
        }
        assert!(matches!(open.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        assert_eq!(server.served(), 4);
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_is_not_counted() {
        let server = Server::start("red").unwrap();
        drop(connected(&server).await);
        asked(&server, "GET / HTTP/1.0\r\n\r\n").await;
        assert_eq!(server.served(), 1);
    }
}
