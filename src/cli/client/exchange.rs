//! One HTTP/1.1 request and its answer, over a connection of its own: bounded in time and in size.

use std::io;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Failure;
use super::door::{Address, TOKEN, told};

/// What the daemon answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Bytes,
}

/// A request that [`run`] sends.
pub(super) fn request(
    method: &Method,
    host: &str,
    path: &str,
    body: Option<&Bytes>,
    token: Option<HeaderValue>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("ballast/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .header(CONNECTION, "close");
    if body.is_some() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        request = request.header(TOKEN, token);
    }
    request.body(Full::new(body.cloned().unwrap_or_default()))
}

/// Connects, asks, and reads the whole answer.
pub(super) async fn run(
    address: &Address,
    request: Request<Full<Bytes>>,
) -> Result<Reply, Failure> {
    let connected = match address {
        Address::Tcp(host) => {
            let connected = timeout(CONNECT, TcpStream::connect(host.as_str())).await;
            let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            stream.map(Stream::Tcp)
        }
        Address::Unix(path) => {
            let connected = timeout(CONNECT, UnixStream::connect(path)).await;
            let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
            stream.map(Stream::Unix)
        }
    };
    let answered = match connected.map_err(|error| unreachable(address, &error))? {
        Stream::Tcp(stream) => timeout(EXCHANGE, exchange(stream, request)).await,
        Stream::Unix(stream) => timeout(EXCHANGE, exchange(stream, request)).await,
    };
    answered
        .map_err(|_| late(address, EXCHANGE))?
        .map_err(|why| Failure::Broken {
            address: address.to_string(),
            why,
            help: "is another program listening there?",
        })
}

/// Nobody has answered in that time.
pub(super) fn late(address: &Address, limit: Duration) -> Failure {
    Failure::Broken {
        address: address.to_string(),
        why: format!("no answer within {} s", limit.as_secs()),
        help: "is it overloaded, or is something else listening there?",
    }
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

fn unreachable(address: &Address, error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    let is = |kind: Kind| error.kind() == kind;
    let help = match address {
        _ if is(Kind::PermissionDenied) => {
            "only those may whom 'mode', 'owner' and 'group' of the socket in [admin] let: run this as one of them"
        }
        _ if is(Kind::NotFound) || is(Kind::ConnectionRefused) => {
            "is it running? try 'systemctl status ballast'. When 'listen' of [admin] has changed in its file, it \
             answers\n  where it did before until 'systemctl reload ballast': --admin says where that is"
        }
        Address::Tcp(_) | Address::Unix(_) => "is the address right, and the machine up?",
    };
    Failure::Unreachable {
        address: address.to_string(),
        why: match error.kind() == Kind::TimedOut {
            true => "timed out".into(),
            false => told(error),
        },
        help: help.into(),
        is_absent: is(Kind::NotFound) || is(Kind::ConnectionRefused),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<Reply, String> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let reply = sender.send_request(request).await;
        let (head, body) = reply.map_err(|error| error.to_string())?.into_parts();
        let body = Limited::new(body, MOST_OF_AN_ANSWER).collect().await;
        Ok(Reply {
            status: head.status,
            body: body.map_err(|error| error.to_string())?.to_bytes(),
        })
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        // The connection is over when the reply may have been read already.
        _ = connection => exchange.await,
    }
}

/// How long a connect may take; the daemon is on this machine, or near.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(20);
/// Bytes of an answer: a view of ten thousand backends is a tenth of it.
const MOST_OF_AN_ANSWER: usize = 128 << 20;
