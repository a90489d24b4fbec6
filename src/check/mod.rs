//! What is said to a server to see whether it serves, and what its answer means. Knows nothing of
//! intervals, thresholds and services: one probe is one call of [`ask`], and deciding what follows
//! from it is [`health`](crate::health)'s business.
//!
//! Protocols are `dialogue`s, one file each, which know no socket. This file lets one of them speak over a
//! `stream`, which is then left so that the server has nothing to complain of. Next: `plain`, which most
//! probes are, and `dialogue` for a protocol of one's own.

mod agent;
mod certificate;
mod dialogue;
mod exchange;
mod exec;
mod http;
mod mysql;
mod plain;
mod postgres;
mod redis;
mod scram;
mod stream;
mod tls;

use std::borrow::Cow;
use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{timeout, timeout_at};

use self::dialogue::{Answer, Dialogue, Received, converse};
pub use self::plain::Doorman;
use self::plain::{Left, knock};
use self::stream::{Stream, connect, leave};
use crate::health::{Check, Finding, Kind, Verdict, Why};
use crate::model::{Address, Cause};
use crate::proxy_protocol::Header;
use crate::runner::Runner;

/// A server that does not close after our FIN is left to itself after this long …
const LEAVING: Duration = Duration::from_millis(250);
/// … or after it has sent this many bytes more.
const MOST_LEFT: usize = 64 * 1024;
/// A program has its time from the runner; this is what the runner may take for itself.
const GRACE: Duration = Duration::from_millis(500);

/// What a probe came to.
#[derive(Debug)]
pub struct Asked {
    /// What it found, if it could be sent.
    pub finding: Result<Finding, Unsent>,
    /// Still to be done, but not to be waited for.
    pub parting: Parting,
}

/// A probe could not be sent, which is this host's trouble and says nothing about the server.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unsent {
    /// No descriptor, port or memory is left.
    #[error("{0}")]
    Exhausted(Cause),
    /// The program of an exec check could not be run, and why.
    #[error("{0}")]
    Program(String),
    /// A defect of Ballast, which the log has told of.
    #[error("internal error")]
    Defect,
}

impl From<Unsent> for Asked {
    fn from(unsent: Unsent) -> Self {
        Self {
            finding: Err(unsent),
            parting: Parting::default(),
        }
    }
}

/// Asks the server at `address` once, as `check` says, for at most `limit`. Programs are started by
/// `runner`.
pub async fn ask(
    address: Address,
    check: &Check,
    limit: Duration,
    runner: Option<&Runner>,
) -> Asked {
    let started = Instant::now();
    let heard = match &check.kind {
        Kind::Exec(program) => {
            // Boxed like every rare thing: thousands of probes wait, most of them for plain connects.
            let run = Box::pin(exec::run(program, address, limit, runner));
            match timeout(limit + GRACE, run).await {
                Ok(verdict) => verdict.map(Heard::from),
                Err(_) => Err(Unsent::Program(format!("{}: no turn", program.path))),
            }
        }
        Kind::Tcp(_)
        | Kind::Http(_)
        | Kind::Redis(_)
        | Kind::Postgres(_)
        | Kind::Mysql(_)
        | Kind::Tls(_)
        | Kind::Agent(_) => over_tcp(address, check, limit).await,
    };
    match heard {
        Ok(heard) => Asked {
            finding: Ok(Finding {
                verdict: heard.verdict,
                took: started.elapsed(),
                agent: heard.agent,
                expires: heard.expires,
            }),
            parting: heard.parting,
        },
        Err(unsent) => unsent.into(),
    }
}

/// A verdict with what belongs to it.
struct Heard {
    verdict: Verdict,
    agent: Option<crate::health::Agent>,
    expires: Option<i64>,
    parting: Parting,
}

impl From<Verdict> for Heard {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            agent: None,
            expires: None,
            parting: Parting::default(),
        }
    }
}

async fn over_tcp(address: Address, check: &Check, limit: Duration) -> Result<Heard, Unsent> {
    let deadline = tokio::time::Instant::now() + limit;
    let out_of_time = || Ok(Verdict::Dead(Cause::TimedOut.into()).into());
    if let (Kind::Tcp(exchange), None) = (&check.kind, check.proxy)
        && exchange.is_empty()
    {
        return match timeout_at(deadline, knock(address, check)).await {
            Ok(Ok(left)) => Ok(Heard {
                parting: Parting(Rest::Left(left)),
                ..Verdict::Alive.into()
            }),
            Ok(Err(error)) => not_connected(&error, check).map(Heard::from),
            Err(_) => out_of_time(),
        };
    }
    match timeout_at(deadline, connect(address, check)).await {
        Ok(Ok(stream)) => Ok(Box::pin(speak(stream, address, check, deadline)).await),
        Ok(Err(error)) => not_connected(&error, check).map(Heard::from),
        Err(_) => out_of_time(),
    }
}

fn not_connected(error: &io::Error, check: &Check) -> Result<Verdict, Unsent> {
    let cause = Cause::from_io(error);
    if cause == Cause::Exhausted {
        return Err(Unsent::Exhausted(cause));
    }
    // Only an established connection is reset rather than refused: the server has answered,
    // and whether its reset comes before or after we look must not decide.
    let enough = matches!(&check.kind, Kind::Tcp(exchange) if exchange.is_empty());
    match cause == Cause::Reset && enough {
        true => Ok(Verdict::Alive),
        false => Ok(Verdict::Dead(cause.into())),
    }
}

/// Says what the check has to say over a connection, and hears the answer, until `deadline`.
async fn speak(
    stream: Stream,
    address: Address,
    check: &Check,
    deadline: tokio::time::Instant,
) -> Heard {
    let mut dialogue = dialogue(check, address);
    let mut received = Received::default();
    let speaking = exchange_words(
        stream,
        address,
        check,
        dialogue.as_deref_mut(),
        &mut received,
    );
    if let Ok(heard) = timeout_at(deadline, speaking).await {
        return heard;
    }
    let lacks = dialogue.and_then(|it| it.lacks(&received));
    let lacks = lacks.map(|what| format!(": {what}")).unwrap_or_default();
    Verdict::Dead(Why::answer(&format!("connected, but timed out{lacks}"))).into()
}

async fn exchange_words(
    mut stream: Stream,
    address: Address,
    check: &Check,
    dialogue: Option<&mut (dyn Dialogue + '_)>,
    received: &mut Received,
) -> Heard {
    let header = check.proxy.map(|version| Header::LOCAL.encode(version));
    if let Err(error) = stream.write_all(&header.unwrap_or_default()).await {
        return Verdict::Dead(Cause::from_io(&error).into()).into();
    }
    if let Kind::Tls(tls) = &check.kind {
        // An address is no name to ask for, so the one of a path says as little.
        let host = address
            .inet()
            .map_or(Ipv4Addr::LOCALHOST.into(), |it| it.ip());
        let shaken = tls::shake(tls, host, stream).await;
        let parting = shaken
            .rest
            .map(|(stream, farewell)| Parting::over(stream, farewell.into()));
        return Heard {
            expires: shaken.expires,
            parting: parting.unwrap_or_default(),
            ..shaken.verdict.into()
        };
    }
    let Some(dialogue) = dialogue else {
        return Verdict::Alive.into();
    };
    let Answer {
        verdict,
        agent,
        farewell,
    } = converse(dialogue, received, &mut stream).await;
    Heard {
        verdict,
        agent,
        expires: None,
        parting: Parting::over(stream, farewell.into()),
    }
}

fn dialogue<'a>(check: &'a Check, address: Address) -> Option<Box<dyn Dialogue + 'a>> {
    Some(match &check.kind {
        Kind::Tcp(exchange) => Box::new(exchange::Speaking::new(exchange)),
        Kind::Http(http) => Box::new(http::Requesting::new(http, address)),
        Kind::Redis(redis) => Box::new(redis::Pinging::new(redis)),
        Kind::Postgres(postgres) => Box::new(postgres::StartingUp::new(postgres)),
        Kind::Mysql(mysql) => Box::new(mysql::LoggingIn::new(mysql)),
        Kind::Agent(exchange) => Box::new(agent::Asking::new(&exchange.send)),
        // Neither is a matter of bytes for bytes.
        Kind::Tls(_) | Kind::Exec(_) => return None,
    })
}

/// A connection whose verdict is in, and that is yet to be closed.
#[derive(Debug, Default)]
pub struct Parting(Rest);

#[derive(Debug, Default)]
enum Rest {
    #[default]
    Nothing,
    /// All is said, and the server's FIN is to come.
    Left(Left),
    /// This is still to be said.
    Farewell(Stream, Cow<'static, [u8]>),
}

impl Parting {
    fn over(stream: Stream, farewell: Cow<'static, [u8]>) -> Self {
        Self(Rest::Farewell(stream, farewell))
    }

    /// Takes leave as the protocol wants it, or has the doorman do it, closes with a FIN, and reads what the
    /// server still has to say: closing over unread bytes would reset it, and fill its log. The permit is the
    /// one for the connection's descriptor.
    pub async fn say_goodbye(self, doorman: &Doorman, permit: OwnedSemaphorePermit) {
        match self.0 {
            Rest::Nothing => {}
            Rest::Left(left) => doorman.see_off(left, permit).await,
            // Whatever goes wrong now, the verdict is in and nobody needs the connection.
            Rest::Farewell(stream, farewell) => {
                let _ = timeout(LEAVING, leave(stream, &farewell)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
