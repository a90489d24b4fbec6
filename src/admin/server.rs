//! Takes connections and bounds what they may cost: how many there are, how long they may be silent,
//! how much they may send, and how many requests are answered in a second. Whoever goes beyond waits,
//! or is closed; sessions never notice.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::bind::{Bound, BoundSocket};
use super::guard::{Entrance, admit};
use super::hub::Hub;
use super::reply::{JSON, Refusal};
use super::routes::{Call, Handler, find};
use super::{Journal, Request, reply};
use crate::config::{AdminAddress, AdminConfig, SocketAccess};
use crate::model::tells_of_a_shortage;
use crate::unix::OwnPath;

/// The admin API as control holds it. What is open closes when it is dropped.
#[derive(Debug)]
pub struct Server {
    hub: Arc<Hub>,
    /// Over TCP, where anybody may come, and at paths: whoever floods the one keeps nobody out of the other.
    over_tcp: Arc<Connections>,
    at_paths: Arc<Connections>,
    open: HashMap<AdminAddress, Listening>,
    access: SocketAccess,
}

#[derive(Debug)]
struct Listening {
    task: AbortHandle,
    /// Of a Unix socket.
    path: Option<Arc<OwnPath>>,
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Listens nowhere yet; asks by `control`, and tells what is in the `journal`.
    pub fn new(control: mpsc::Sender<Request>, journal: Arc<Journal>) -> Self {
        Self {
            hub: Hub::new(control, journal),
            over_tcp: Arc::default(),
            at_paths: Arc::default(),
            open: HashMap::new(),
            access: SocketAccess::default(),
        }
    }

    /// Where it listens, as written; not where somebody has taken its socket away.
    pub fn open(&self) -> HashSet<AdminAddress> {
        let is_there = |it: &Listening| it.path.as_ref().is_none_or(|path| path.is_there());
        let open = self.open.iter().filter(|(_, it)| is_there(it));
        open.map(|(address, _)| address.clone()).collect()
    }

    /// Puts a configuration in force; `bound` are the addresses that are new by it. Connections that there
    /// are go on.
    pub fn apply(&mut self, config: &AdminConfig, bound: Vec<Bound>) {
        self.hub.set_token_file(config.token_file.clone());
        self.open.retain(|address, _| {
            let stays = config.listen.contains(address);
            if !stays {
                tracing::info!(listener = %address, "admin endpoint closes");
            }
            stays
        });
        if self.access != config.access {
            self.access = config.access.clone();
            let paths = self.open.values().filter_map(|it| it.path.as_ref());
            paths.for_each(|path| grant(Arc::clone(path), config.access.clone()));
        }
        for Bound { address, socket } in bound {
            match self.start(socket, &address) {
                Ok(listening) => {
                    self.open.insert(address, listening);
                }
                Err(error) => {
                    tracing::error!(listener = %address, %error, "admin endpoint does not listen");
                }
            }
        }
    }

    fn start(&self, socket: BoundSocket, address: &AdminAddress) -> io::Result<Listening> {
        let hub = Arc::clone(&self.hub);
        Ok(match socket {
            BoundSocket::Tcp(listener, local) => {
                let connections = Arc::clone(&self.over_tcp);
                let listener = TcpListener::from_std(listener)?;
                let entrance = Entrance::of(local);
                tracing::info!(listener = %local, "admin endpoint listens");
                let task = tokio::spawn(async move {
                    loop {
                        let accepted = listener.accept().await;
                        let accepted =
                            accepted.map(|(stream, peer)| (stream, peer.to_string().into()));
                        take(accepted, entrance, &hub, (&connections, None)).await;
                    }
                });
                Listening {
                    task: task.abort_handle(),
                    path: None,
                }
            }
            BoundSocket::Unix(listener, path) => {
                let (over_tcp, at_paths) = (Arc::clone(&self.over_tcp), Arc::clone(&self.at_paths));
                let listener = UnixListener::from_std(listener)?;
                path.show()?;
                tracing::info!(listener = %address, "admin endpoint listens");
                let task = tokio::spawn(async move {
                    loop {
                        let accepted = listener.accept().await;
                        let accepted = accepted.map(|(stream, _)| {
                            let by = peer_of(&stream);
                            (stream, by)
                        });
                        let connections = (&at_paths, Some(&*over_tcp));
                        take(accepted, Entrance::Socket, &hub, connections).await;
                    }
                });
                Listening {
                    task: task.abort_handle(),
                    path: Some(Arc::new(path)),
                }
            }
        })
    }
}

/// Who is at the other end of a Unix socket.
fn peer_of(stream: &tokio::net::UnixStream) -> Arc<str> {
    match stream.peer_cred() {
        Ok(peer) => format!("uid {}", peer.uid()).into(),
        Err(_) => "somebody".into(),
    }
}

/// Sees a connection served, if there is one, among its `connections`; where the process is short of something,
/// `others` make room first.
async fn take<S>(
    accepted: io::Result<(S, Arc<str>)>,
    entrance: Entrance,
    hub: &Arc<Hub>,
    (connections, others): (&Arc<Connections>, Option<&Connections>),
) where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match accepted {
        Ok((stream, by)) => {
            // A flood of connections is taken in slowly, and waits in the kernel.
            sleep_until(connections.pace(Paced::Connections)).await;
            if let Some(slot) = Connections::enter(connections) {
                tokio::spawn(converse((stream, by), entrance, Arc::clone(hub), slot));
            }
        }
        Err(error) => {
            tracing::debug!(%error, "admin endpoint rests");
            if tells_of_a_shortage(&error) {
                // Somebody who asks nothing has what this one lacks.
                let _ = others
                    .and_then(Connections::evict)
                    .or_else(|| connections.evict());
                hub.starves(error);
            }
            sleep(BACK_OFF).await;
        }
    }
}

/// Serves one connection until it ends, has been silent for too long, or another one needs its place.
async fn converse<S>((stream, by): (S, Arc<str>), entrance: Entrance, hub: Arc<Hub>, slot: Slot)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let slot = Arc::new(slot);
    let service = service_fn(|request| {
        let (hub, slot, by) = (Arc::clone(&hub), Arc::clone(&slot), Arc::clone(&by));
        async move {
            let busy = Arc::new(Busy::begin(&slot));
            sleep_until(slot.all.pace(Paced::Requests)).await;
            let answer = timeout(REQUEST, answer(request, entrance, (by, busy), hub)).await;
            let answer = answer.unwrap_or_else(|_| {
                Err(Refusal::new(
                    StatusCode::REQUEST_TIMEOUT,
                    "this has taken too long",
                ))
            });
            Ok::<_, Infallible>(answer.unwrap_or_else(Refusal::into_response))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS)
        .max_headers(MOST_HEADERS)
        .max_buf_size(MOST_OF_A_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "admin connection ends");
                }
                return;
            }
            () = slot.place.evicted.notified() => return,
            () = sleep_until(slot.place.looked_at_next()) => if slot.place.is_overdue() {
                return;
            },
        }
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    entrance: Entrance,
    (by, busy): (Arc<str>, Arc<Busy>),
    hub: Arc<Hub>,
) -> reply::Answer {
    let (head, body) = request.into_parts();
    let (route, parameters) = find(&head.method, head.uri.path())?;
    admit(&hub, (entrance, &by), route.needs, &head.headers).await?;
    let body = match route.method == Method::POST {
        true => whole(body, &head.headers, route.most).await?,
        false => Bytes::new(),
    };
    let call = Call {
        hub: Arc::clone(&hub),
        by,
        busy,
        parameters,
        query: head.uri.query().unwrap_or_default().to_owned(),
        headers: head.headers,
        body,
    };
    match route.handler {
        Handler::View(handler) => handler(hub.view().await?, call).await,
        Handler::Call(handler) => handler(call).await,
    }
}

/// All of a body, which is JSON if it is anything.
async fn whole(body: Incoming, headers: &http::HeaderMap, most: usize) -> Result<Bytes, Refusal> {
    let body = Limited::new(body, most).collect().await;
    let body = body.map_err(|error| {
        match error
            .downcast_ref::<http_body_util::LengthLimitError>()
            .is_some()
        {
            true => Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {} KiB", most >> 10),
            ),
            false => Refusal::new(StatusCode::BAD_REQUEST, "the body cannot be read"),
        }
    })?;
    let body = body.to_bytes();
    let media_type = headers.get(CONTENT_TYPE).map(|it| it.as_bytes());
    let is_json = media_type.is_some_and(|it| {
        let essence = it.split(|&byte| byte == b';').next().unwrap_or_default();
        essence.trim_ascii().eq_ignore_ascii_case(JSON.as_bytes())
    });
    // The forms of other sites' pages are never JSON.
    if is_json || (media_type.is_none() && body.is_empty()) {
        return Ok(body);
    }
    Err(
        Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body is to be JSON")
            .help("send \"Content-Type: application/json\""),
    )
}

/// Every connection of a kind that is open, and how fast more may be done.
#[derive(Debug, Default)]
struct Connections(Mutex<Everybody>);

#[derive(Debug, Default)]
struct Everybody {
    next: u64,
    places: BTreeMap<u64, Arc<Place>>,
    paces: [Option<Instant>; 2],
}

/// Gives a socket another owner and mode, beside the caller: the system may have to be asked for names.
fn grant(path: Arc<OwnPath>, access: SocketAccess) {
    tokio::task::spawn_blocking(move || {
        if let Err(why) = path.grant(&access) {
            tracing::warn!(listener = %path, %why, "admin socket stays as it is");
        }
    });
}

/// What has a pace of its own.
#[derive(Clone, Copy, Debug)]
enum Paced {
    Connections,
    Requests,
}

impl Everybody {
    /// Ends the connection that has been idle for longest; `None` when all of them are being answered.
    fn evict(&mut self) -> Option<()> {
        let idle = |(number, place): (&u64, &Arc<Place>)| Some((place.idle_since()?, *number));
        let (_, oldest) = self.places.iter().filter_map(idle).min()?;
        self.places.remove(&oldest)?.evicted.notify_one();
        Some(())
    }
}

impl Connections {
    /// Takes one more in, in place of the one that has been idle for longest if there are too many;
    /// `None` when all of them are being answered.
    fn enter(connections: &Arc<Self>) -> Option<Slot> {
        let mut all = connections.lock();
        if all.places.len() >= MOST_OF_A_KIND {
            all.evict()?;
        }
        all.next += 1;
        let number = all.next;
        let place = Arc::new(Place::new());
        all.places.insert(number, Arc::clone(&place));
        drop(all);
        Some(Slot {
            all: Arc::clone(connections),
            number,
            place,
        })
    }

    /// Ends the one that has been idle for longest; `None` when all of them are being answered.
    fn evict(&self) -> Option<()> {
        self.lock().evict()
    }

    /// When one more may go on.
    fn pace(&self, what: Paced) -> Instant {
        let now = Instant::now();
        let next = &mut self.lock().paces[what as usize];
        // Whoever comes after a rest may hurry.
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let at = next.unwrap_or(earliest).max(earliest);
        *next = Some(at + STEP);
        at.max(now)
    }

    fn lock(&self) -> MutexGuard<'_, Everybody> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place among all of them, until dropped.
#[derive(Debug)]
struct Slot {
    all: Arc<Connections>,
    number: u64,
    place: Arc<Place>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.all.lock().places.remove(&self.number);
    }
}

#[derive(Debug)]
struct Place {
    /// Since when nothing is being answered; `None` while something is.
    idle: Mutex<Option<Instant>>,
    evicted: Notify,
}

impl Place {
    fn new() -> Self {
        Self {
            idle: Mutex::new(Some(Instant::now())),
            evicted: Notify::new(),
        }
    }

    fn idle_since(&self) -> Option<Instant> {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_idle(&self, since: Option<Instant>) {
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn looked_at_next(&self) -> Instant {
        self.idle_since().unwrap_or_else(Instant::now) + IDLE
    }

    fn is_overdue(&self) -> bool {
        self.idle_since()
            .is_some_and(|since| since.elapsed() >= IDLE)
    }
}

/// A request is being answered, or what happens is told as it happens.
#[derive(Debug)]
pub(super) struct Busy(Arc<Slot>);

impl Busy {
    fn begin(slot: &Arc<Slot>) -> Self {
        slot.place.set_idle(None);
        Self(Arc::clone(slot))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.place.set_idle(Some(Instant::now()));
    }
}

/// Connections at a time, over all listeners …
pub(crate) const MOST_CONNECTIONS: usize = 2 * MOST_OF_A_KIND;
/// … over TCP, and at paths.
const MOST_OF_A_KIND: usize = 32;
/// For the head of a request, …
const HEADERS: Duration = Duration::from_secs(10);
/// … for all of it, its answer included, …
const REQUEST: Duration = Duration::from_secs(15);
/// … and between two of them, or until an answer has been read.
const IDLE: Duration = Duration::from_secs(30);
/// Bytes of a head, …
const MOST_OF_A_HEAD: usize = 16 * 1024;
/// … and its headers.
const MOST_HEADERS: usize = 64;
/// Between two requests, or two connections, over all of a kind that come: 250 a second, so that
/// sessions do not notice …
const STEP: Duration = Duration::from_millis(4);
/// … after the first 25.
const BURST: Duration = Duration::from_millis(100);
/// How long accepting rests when the process is out of something.
const BACK_OFF: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
