//! A receiver of webhooks: a small HTTP server that keeps what it was sent and answers as told.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;

use super::backend::Backend;
use super::patience::eventually;

/// One POST.
#[derive(Clone, Debug)]
pub struct Received {
    /// The first line.
    pub line: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// What was sent.
    pub body: String,
}

impl Received {
    /// A header that must be there.
    pub fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(known, _)| known == name);
        &found.unwrap_or_else(|| panic!("no {name} in {self:?}")).1
    }

    /// The message.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Its events as `event service/backend`, in order.
    pub fn events(&self) -> Vec<String> {
        let json = self.json();
        let events = json["events"].as_array().expect("a list of events");
        let text = |event: &Value, key: &str| event[key].as_str().unwrap_or_default().to_owned();
        events
            .iter()
            .map(|it| {
                let (event, service, backend) =
                    (text(it, "event"), text(it, "service"), text(it, "backend"));
                format!("{event} {service}/{backend}")
            })
            .collect()
    }
}

/// How a POST is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// With this status.
    Status(u16),
    /// Never.
    Never,
    /// By closing the connection.
    Close,
}

/// The server.
pub struct Receiver {
    server: Backend,
    state: Arc<Mutex<State>>,
}

struct State {
    received: Vec<Received>,
    /// How the next ones are answered, before `then`.
    next: VecDeque<Reply>,
    then: Reply,
}

impl Receiver {
    /// Answers everything with 200.
    pub fn new() -> Self {
        Self::answering(&[], Reply::Status(200))
    }

    /// Answers in this way, one reply each, and `then` for ever.
    pub fn answering(first: &[Reply], then: Reply) -> Self {
        let state = Arc::new(Mutex::new(State {
            received: Vec::new(),
            next: first.iter().copied().collect(),
            then,
        }));
        let inside = Arc::clone(&state);
        let server = Backend::serve(move |stream| {
            // A client that leaves is the client's business.
            drop(answer(stream, &inside));
        });
        Self { server, state }
    }

    /// Where to POST to.
    pub fn url(&self) -> String {
        format!("http://{}/hook?key=1", self.server.address())
    }

    /// From now on answers in this way.
    pub fn answer(&self, reply: Reply) {
        lock(&self.state).then = reply;
    }

    /// What came so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.state).received.clone()
    }

    /// Waits until something has come that `wanted` accepts.
    pub fn wait(&self, what: &str, wanted: impl Fn(&Received) -> bool) -> Received {
        eventually(what, || self.received().into_iter().find(&wanted))
    }

    /// Waits for an event as [`Received::events`] writes it.
    pub fn wait_for(&self, event: &str) -> Received {
        self.wait(event, |it| it.events().iter().any(|known| known == event))
    }

    /// Every event so far.
    pub fn events(&self) -> Vec<String> {
        self.received().iter().flat_map(Received::events).collect()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(mut stream: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = length.map_or(0, |(_, value)| value.parse().expect("a length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let reply = {
        let mut state = lock(state);
        state.received.push(Received {
            line: line.trim_end().to_owned(),
            headers,
            body: String::from_utf8(body).expect("JSON is UTF-8"),
        });
        let next = state.next.pop_front();
        next.unwrap_or(state.then)
    };
    match reply {
        Reply::Status(status) => {
            write!(
                stream,
                "HTTP/1.1 {status} x\r\nContent-Length: 4\r\n\r\nwhy?"
            )
        }
        // Until the client has enough.
        Reply::Never => reader.read_to_end(&mut Vec::new()).map(drop),
        Reply::Close => Ok(()),
    }
}
