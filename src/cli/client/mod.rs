//! How a command reaches the running daemon: [`Reach`] is what the operator says of it, a [`Client`]
//! knows where it answers, and each request is one bounded HTTP/1.1 exchange over a connection of its
//! own.
//!
//! Every command waits here, blocking: who must do something meanwhile has a thread for it. Next:
//! [`door`] for where a daemon answers, [`exchange`] for the bytes, [`tame`] for what is in them, [`file`] for the file
//! that a daemon has.

mod door;
mod exchange;
mod file;
mod tame;

use std::cell::Cell;
use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use http::{Method, StatusCode};
use hyper::body::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::runtime::Runtime;
use tokio::time::timeout;

pub(super) use door::Address;
use door::Door;
pub(super) use door::told;
use exchange::Reply;
pub(super) use file::{file, file_of};
pub(super) use tame::{is_wild, lines_for_a_terminal};

use super::CONFIGURATION;
use crate::api::{NOWHERE, Refused};
use crate::config::{AdminDoors, admin_doors};
use crate::model::one_line;

/// Where the daemon is, as far as the operator says so.
#[derive(Args, Clone, Debug)]
pub(super) struct Reach {
    /// Where the daemon answers: IP:PORT, or unix:/PATH
    ///
    /// Without it, BALLAST_ADMIN of the environment says so, and without that the [admin] table of
    /// the configuration file.
    #[arg(long, value_name = "ADDR-OR-SOCKET")]
    admin: Option<Address>,
    /// A file with the bearer token; changes over TCP need it
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// The configuration file [default: /etc/ballast/ballast.toml]
    #[arg(short, long, value_name = "PATH")]
    pub(super) config: Option<PathBuf>,
}

impl Reach {
    /// Nothing but a file, if one is named.
    pub(super) fn of(config: Option<&Path>) -> Self {
        Self {
            admin: None,
            token_file: None,
            config: config.map(Path::to_owned),
        }
    }

    /// Whether somebody has said which daemon it is, here or in the `environment`.
    fn names_a_daemon(&self, environment: Option<&OsStr>) -> bool {
        self.admin.is_some() || environment.is_some()
    }

    /// Where it is written where the daemon answers.
    fn written(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIGURATION))
    }
}

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
        let doors = doors(reach, environment().as_deref())?;
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

/// The daemon that the environment names.
fn environment() -> Option<OsString> {
    std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty())
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

/// Where the daemon may answer: what was said, or what the file says, sockets first.
fn doors(reach: &Reach, environment: Option<&OsStr>) -> Result<Vec<Door>, Failure> {
    let said = match (&reach.admin, environment) {
        (Some(address), _) => Some(address.clone()),
        (None, Some(text)) => {
            let text = text.to_string_lossy();
            let parsed = text
                .parse()
                .map_err(|why| Failure::Unknown(format!("{ENVIRONMENT} is \"{text}\": {why}")))?;
            Some(parsed)
        }
        (None, None) => None,
    };
    let written = admin_doors(reach.written());
    let Some(address) = said else {
        let doors = match written {
            Ok(written) => doors_of(&written, reach),
            Err(_) if is_there(reach) => Vec::new(),
            Err(why) => return Err(no_file(reach.written(), &why)),
        };
        return match doors.is_empty() {
            true if is_there(reach) => Ok(vec![Door {
                address: Address::Unix(SOCKET.into()),
                token_file: None,
            }]),
            true => Err(no_table(reach.written())),
            false => Ok(doors),
        };
    };
    // A token is for the daemon whose file names it, and for nobody else.
    let of_the_file = written
        .ok()
        .into_iter()
        .flat_map(|written| doors_of(&written, reach))
        .find(|door| door.address == address)
        .and_then(|door| door.token_file);
    Ok(vec![Door {
        token_file: reach.token_file.clone().or(of_the_file),
        address,
    }])
}

/// Whether there is a socket where nobody has to say that it is.
fn is_there(reach: &Reach) -> bool {
    reach.config.is_none() && Path::new(SOCKET).exists()
}

fn doors_of(written: &AdminDoors, reach: &Reach) -> Vec<Door> {
    let token_file = reach.token_file.as_ref().or(written.token_file.as_ref());
    let sockets = written
        .sockets
        .iter()
        .map(|path| Address::Unix(path.clone()));
    let listeners = written.listeners.iter().map(|text| Address::local(text));
    sockets
        .chain(listeners)
        .map(|address| Door {
            address,
            token_file: token_file.cloned(),
        })
        .collect()
}

fn no_file(path: &Path, why: &str) -> Failure {
    let first = match why {
        "permission denied" => "run this as a user who may read it",
        _ => "name the file that the daemon runs with by -c PATH",
    };
    Failure::Nowhere(format!(
        "nothing says where the daemon answers: {}: {why}\n  \
         {first}, or say where it answers with --admin 127.0.0.1:9900 or \
         --admin unix:/run/ballast/admin.sock",
        path.display()
    ))
}

fn no_table(path: &Path) -> Failure {
    Failure::Nowhere(format!(
        "nothing says where the daemon answers: {} has no [admin] table. Add these two lines to it:\n\n    \
         [admin]\n    listen = \"127.0.0.1:9900\"\n\n  \
         and reload the daemon (systemctl reload ballast), or name the file that it runs with by -c PATH",
        path.display()
    ))
}

/// Who may be at the other end.
const ANOTHER: &str = "is it a ballast of another version, or another program?";
/// Where the daemon answers by the unit and the reference file.
const SOCKET: &str = "/run/ballast/admin.sock";
/// Names the daemon where no option does.
const ENVIRONMENT: &str = "BALLAST_ADMIN";
/// How long a connect may take; the daemon is on this machine, or near.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a whole exchange may take.
const EXCHANGE: Duration = Duration::from_secs(20);
/// Bytes of an answer: a view of ten thousand backends is a tenth of it.
const MOST_OF_AN_ANSWER: usize = 128 << 20;
/// Characters of an answer that is not understood.
const MOST_WORDS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(config: &Path, admin: Option<&str>) -> Reach {
        Reach {
            admin: admin.map(|text| text.parse().unwrap()),
            token_file: None,
            config: Some(config.into()),
        }
    }

    fn found(reach: &Reach, environment: Option<&str>) -> Result<Vec<String>, String> {
        let doors = doors(reach, environment.map(OsStr::new));
        doors
            .map(|all| all.iter().map(|door| door.address.to_string()).collect())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_option_comes_before_the_environment_and_that_before_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[admin]\nlisten = \"127.0.0.1:1\"\n").unwrap();
        let said = reach(file.path(), Some("127.0.0.1:3"));
        let silent = reach(file.path(), None);
        let environment = Some("127.0.0.1:2");
        assert_eq!(found(&said, environment).unwrap(), ["127.0.0.1:3"]);
        assert_eq!(found(&silent, environment).unwrap(), ["127.0.0.1:2"]);
        assert_eq!(found(&silent, None).unwrap(), ["127.0.0.1:1"]);
        let wrong = found(&silent, Some("nowhere")).unwrap_err();
        assert!(
            wrong.starts_with("BALLAST_ADMIN is \"nowhere\": "),
            "{wrong}"
        );
    }

    #[test]
    fn a_daemon_is_named_by_an_option_or_the_environment_and_not_by_a_file() {
        let file = Path::new("/etc/a.toml");
        assert!(!reach(file, None).names_a_daemon(None));
        assert!(reach(file, Some("127.0.0.1:3")).names_a_daemon(None));
        assert!(Reach::of(None).names_a_daemon(Some(OsStr::new("127.0.0.1:2"))));
        assert!(!Reach::of(None).names_a_daemon(None));
    }

    #[test]
    fn a_file_without_the_table_is_told_the_lines_to_add() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = found(&reach(file.path(), None), None).unwrap_err();
        assert!(
            said.contains("    [admin]\n    listen = \"127.0.0.1:9900\"\n"),
            "{said}"
        );
        let missing = found(&reach(Path::new("/no/such.toml"), None), None).unwrap_err();
        assert!(missing.contains("/no/such.toml: no such file"), "{missing}");
    }

    #[test]
    fn a_token_of_the_file_is_for_the_daemon_of_the_file_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[admin]\nlisten = \"0.0.0.0:9900\"\ntoken_file = \"/etc/t\"\n";
        std::fs::write(file.path(), text).unwrap();
        let token = |admin: Option<&str>| {
            let doors = doors(&reach(file.path(), admin), None).unwrap();
            doors[0].token_file.clone()
        };
        assert_eq!(token(None), Some("/etc/t".into()));
        assert_eq!(token(Some("127.0.0.1:9900")), Some("/etc/t".into()));
        assert_eq!(token(Some("192.0.2.1:9900")), None);
    }

    #[test]
    fn any_name_is_one_segment_of_a_path() {
        assert_eq!(segment("app-1"), "app-1");
        assert_eq!(segment("pool@10.0.0.1:80"), "pool%4010.0.0.1%3A80");
        assert_eq!(segment("ü?"), "%C3%BC%3F");
    }
}
