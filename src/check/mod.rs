//! What is said to a server to see whether it serves, and what its answer means. Knows nothing of
//! intervals, thresholds and services: one probe is one call of [`ask`], and deciding what follows
//! from it is [`health`](crate::health)'s business.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::health::{Check, Finding, Kind, Verdict};
use crate::model::Cause;

/// A server that does not close after our FIN is left to itself after this long …
const LEAVING: Duration = Duration::from_millis(250);
/// … or after it has sent this many bytes more.
const MOST_LEFT: usize = 64 * 1024;

/// What a probe came to.
#[derive(Debug)]
pub struct Asked {
    /// What it found; `None` when it could not be sent at all, which is this host's trouble and says
    /// nothing about the server.
    pub finding: Option<Finding>,
    /// Still to be done, but not to be waited for.
    pub parting: Parting,
}

/// Asks the server at `address` once, as `check` says, for at most `limit`.
pub async fn ask(address: SocketAddr, check: &Check, limit: Duration) -> Asked {
    let started = Instant::now();
    let (answer, stream) = match timeout(limit, answer(address, check)).await {
        Ok((answer, stream)) => (answer, stream),
        Err(_) => (Answer::Verdict(Verdict::Dead(Cause::TimedOut.into())), None),
    };
    let finding = match answer {
        Answer::NotAsked => None,
        Answer::Verdict(verdict) => Some(Finding {
            verdict,
            took: started.elapsed(),
            agent: None,
            expires: None,
        }),
    };
    Asked {
        finding,
        parting: Parting(stream),
    }
}

enum Answer {
    Verdict(Verdict),
    NotAsked,
}

async fn answer(address: SocketAddr, check: &Check) -> (Answer, Option<TcpStream>) {
    let connected = TcpStream::connect(address).await;
    let Kind::Tcp = check.kind;
    let verdict = match connected {
        // Nobody listened, and TCP connected the probe to itself: see net::connect.
        Ok(stream) if stream.local_addr().ok() == Some(address) => {
            Verdict::Dead(Cause::Refused.into())
        }
        Ok(stream) => return (Answer::Verdict(Verdict::Alive), Some(stream)),
        Err(error) => {
            let cause = Cause::from_io(&error);
            if cause == Cause::Exhausted {
                tracing::debug!(%address, %error, "probe not sent");
                return (Answer::NotAsked, None);
            }
            // Only an established connection is reset rather than refused: the server has answered,
            // and whether its reset comes before or after we look must not decide.
            match cause == Cause::Reset {
                true => Verdict::Alive,
                false => Verdict::Dead(cause.into()),
            }
        }
    };
    (Answer::Verdict(verdict), None)
}

/// A connection whose verdict is in, and that is yet to be closed.
#[derive(Debug)]
pub struct Parting(Option<TcpStream>);

impl Parting {
    /// Closes with a FIN, and reads what the server still has to say: closing over unread bytes
    /// would reset it, and fill its log.
    pub async fn say_goodbye(self) {
        let Some(mut stream) = self.0 else {
            return;
        };
        let leave = async {
            stream.shutdown().await?;
            let mut sink = [0; 1024];
            let mut left = MOST_LEFT;
            while left > 0 {
                match stream.read(&mut sink).await? {
                    0 => break,
                    read => left = left.saturating_sub(read),
                }
            }
            std::io::Result::Ok(())
        };
        // Whatever goes wrong now, the verdict is in and nobody needs the connection.
        let _ = timeout(LEAVING, leave).await;
    }
}
