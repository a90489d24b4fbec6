//! How a command reaches the running daemon: [`Reach`] is what the operator says of it, a [`Client`]
//! knows where it answers, and each request is one bounded HTTP/1.1 exchange over a connection of its
//! own.
//!
//! Every command waits here, blocking: who must do something meanwhile has a thread for it. Next:
//! [`reach`] for where a daemon may answer, [`door`] for how it is asked there, [`exchange`] for the bytes,
//! [`tame`] for what is in them, [`file`] for the file that a daemon has.

mod door;
mod exchange;
mod file;
mod reach;
mod tame;

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use http::{Method, StatusCode};
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use door::Door;
pub(super) use door::{Address, told};
use exchange::Reply;
pub(super) use file::{file, file_of};
pub(super) use reach::Reach;
use reach::{doors, environment, overruled};
pub(super) use tame::{is_wild, lines_for_a_terminal};

use crate::api::{NOWHERE, Refused};
use crate::model::one_line;

/// A daemon that can be asked.
#[derive(Debug)]
pub(super) struct Client {
    /// Where it answers, the best way first; never empty.
    doors: Vec<Door>,
    /// The door behind which somebody has answered.
    open: Cell<Option<usize>>,
    /// How long each door may take for an answer, where that is less than usual.
    patience: Option<Duration>,
    /// Whether what it says is for a program: as it is.
    for_programs: bool,
    runtime: Runtime,
}

/// Why a command has no answer, as sentences that say what to do.
#[derive(Debug, Error)]
pub(super) enum Failure {
    /// Nobody says where the daemon is.
    #[error("{0}")]
    Nowhere(String),
    /// What is asked for, or how, is not known here.
    #[error("{0}")]
    Unknown(String),
    /// It cannot be reached.
    #[error("cannot reach the daemon at {address}: {why}\n  {help}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// What was met.
        why: String,
        /// What to do.
        help: String,
        /// Nobody listens there.
        is_absent: bool,
    },
    /// It is there, and something went wrong on the way.
    #[error("the daemon at {address} does not answer as it should: {why}\n  {help}")]
    Broken {
        /// Where it is.
        address: String,
        /// What was met.
        why: String,
        /// What to do.
        help: &'static str,
    },
    /// It answered that it will not.
    #[error("{said}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// Its words, and its help.
        said: String,
    },
}

impl Failure {
    /// Whether the daemon could be asked, and said no.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// Whether there is no daemon, as far as anybody knows: not that one cannot be asked.
    pub(super) fn is_absence(&self) -> bool {
        match self {
            Self::Nowhere(_) => true,
            Self::Unreachable { is_absent, .. } => *is_absent,
            Self::Unknown(_) | Self::Broken { .. } | Self::Refused { .. } => false,
        }
    }
}

impl Client {
    /// Finds the daemon; nothing is sent yet.
    pub(super) fn find(reach: &Reach) -> Result<Self, Failure> {
        let named = environment();
        let doors = doors(reach, named.as_deref())?;
        if let Some(said) = overruled(reach, named.as_deref()) {
            // With stderr closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "ballast: {said}");
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::Unknown(format!("cannot start: {error}")))?;
        Ok(Self {
            doors,
            open: Cell::new(None),
            patience: None,
            for_programs: false,
            runtime,
        })
    }

    /// Whether what it says is passed on as [`json`](super::json), rather than shown.
    pub(super) fn for_programs(self, for_programs: bool) -> Self {
        Self {
            for_programs,
            ..self
        }
    }

    /// Waits so long for an answer, and no longer.
    pub(super) fn patient_for(self, patience: Duration) -> Self {
        Self {
            patience: Some(patience),
            ..self
        }
    }

    /// Where the daemon answers, for people.
    pub(super) fn address(&self) -> String {
        self.doors
            .first()
            .map(|door| door.address.to_string())
            .unwrap_or_default()
    }

    /// Where it has answered.
    pub(super) fn answered(&self) -> Option<&Address> {
        let door = self.doors.get(self.open.get()?)?;
        Some(&door.address)
    }

    /// Why nothing can be changed from here, where that is known before it is tried.
    pub(super) fn locked(&self) -> Option<&'static str> {
        let doors = match self.open.get() {
            Some(open) => &self.doors[open..=open],
            None => &self.doors,
        };
        let all = doors.iter().all(Door::lacks_a_token);
        all.then_some(door::WITHOUT_TOKEN)
    }

    /// Nobody is asked whether to make a change that will be refused.
    pub(super) fn may_change(&self) -> Result<(), Failure> {
        if let Some(help) = self.locked() {
            return Err(Failure::Refused {
                status: StatusCode::UNAUTHORIZED,
                said: format!("this takes a token\n  {help}"),
            });
        }
        let open = self.open.get().and_then(|open| self.doors.get(open));
        open.map_or(Ok(()), |door| door.token().map(drop))
    }

    /// The document at `path`, which begins with `/v1/`.
    pub(super) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let reply = self.ask(Method::GET, path, None)?;
        self.understood(&reply.body)
    }

    /// The document at `path` as the daemon has written it: for `--json`.
    pub(super) fn get_text(&self, path: &str) -> Result<String, Failure> {
        let reply = self.ask(Method::GET, path, None)?;
        Ok(String::from_utf8_lossy(&reply.body).into_owned())
    }

    /// Asks for a change, by a POST of `body`.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let json = serde_json::to_vec(body)
            .map_err(|error| Failure::Unknown(format!("cannot write the request: {error}")))?;
        let reply = self.ask(Method::POST, path, Some(json.into()))?;
        self.understood(&reply.body)
    }

    /// Tries one door after the other until somebody is behind one.
    fn ask(&self, method: Method, path: &str, body: Option<Bytes>) -> Result<Reply, Failure> {
        let mut closed: Option<Failure> = None;
        for (at, door) in self.doors.iter().enumerate() {
            let asked = door.ask(&method, path, body.as_ref());
            let asked = self.runtime.block_on(self.in_time(door, asked));
            if let Err(failure @ Failure::Unreachable { .. }) = asked {
                // That somebody is there who cannot be asked says more than that nobody is.
                closed = match closed {
                    Some(first) if failure.is_absence() || !first.is_absence() => Some(first),
                    Some(_) | None => Some(failure),
                };
                continue;
            }
            self.open.set(Some(at));
            let reply = asked?;
            return match reply.status.is_success() {
                true => Ok(reply),
                false => Err(refused(&reply, door, path)),
            };
        }
        Err(closed.unwrap_or_else(|| Failure::Unknown("there is no daemon to ask".into())))
    }

    /// What is `asked` at that door, as long as there is patience for it.
    async fn in_time(
        &self,
        door: &Door,
        asked: impl Future<Output = Result<Reply, Failure>>,
    ) -> Result<Reply, Failure> {
        let Some(patience) = self.patience else {
            return asked.await;
        };
        let answered = timeout(patience, asked).await;
        answered.unwrap_or_else(|_| Err(exchange::late(&door.address, patience)))
    }

    /// A document that the daemon has sent.
    pub(super) fn understood<T: DeserializeOwned>(&self, body: &[u8]) -> Result<T, Failure> {
        let document = match self.for_programs {
            true => serde_json::from_slice(body),
            false => tame::document(body),
        };
        document.map_err(|error| Failure::Broken {
            address: self.address(),
            why: error.to_string(),
            help: ANOTHER,
        })
    }
}

/// One segment of a path, whatever is in a name.
pub(super) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// What the daemon says about its refusal, or what is known without it.
fn refused(reply: &Reply, door: &Door, path: &str) -> Failure {
    let status = reply.status;
    let broken = |why| Failure::Broken {
        address: door.address.to_string(),
        why,
        help: ANOTHER,
    };
    let (said, help) = match tame::document::<Refused>(&reply.body) {
        Ok(Refused { error, .. }) if error == NOWHERE => {
            return broken(format!("it knows no {path}"));
        }
        Ok(refused) => {
            let problems = refused.problems.iter();
            let problems: String = problems.map(|it| format!("\n  {it}")).collect();
            (refused.error + &problems, refused.help)
        }
        Err(_) => {
            let body = one_line(&String::from_utf8_lossy(&reply.body), MOST_WORDS);
            return broken(format!("{status}: {body}"));
        }
    };
    // What is known here is about this command; the daemon speaks to any program.
    let said = match door.hint(status).or(help.as_deref()) {
        Some(help) => format!("{said}\n  {help}"),
        None => said,
    };
    Failure::Refused { status, said }
}

/// Who may be at the other end.
const ANOTHER: &str = "is it a ballast of another version, or another program?";
/// Characters of an answer that is not understood.
const MOST_WORDS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_one_segment_of_a_path() {
        assert_eq!(segment("app-1"), "app-1");
        assert_eq!(segment("pool@10.0.0.1:80"), "pool%4010.0.0.1%3A80");
        assert_eq!(segment("ü?"), "%C3%BC%3F");
    }
}
