//! The demo's own clients: a gentle load, so that there is something to see. They know the
//! balancer's address and nothing else of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// A few clients that ask until dropped.
pub(super) struct Clients {
    failed: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Clients {
    /// Starts asking at `balancer`; `tell` hears of every failure.
    pub(super) fn start(
        balancer: SocketAddr,
        tell: impl Fn(io::Error) + Clone + Send + 'static,
    ) -> Self {
        let failed = Arc::<AtomicU64>::default();
        let mut tasks = JoinSet::new();
        for _ in 0..CLIENTS {
            let failed = Arc::clone(&failed);
            let tell = tell.clone();
            tasks.spawn(async move {
                let mut pace = interval(PACE);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                loop {
                    pace.tick().await;
                    if let Err(error) = ask(balancer).await {
                        failed.fetch_add(1, Ordering::Relaxed);
                        tell(error);
                    }
                }
            });
        }
        Self {
            failed,
            _tasks: tasks,
        }
    }

    /// Requests without a whole answer so far.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// One connection, one request, one whole answer.
async fn ask(balancer: SocketAddr) -> io::Result<()> {
    timeout(PATIENCE, async {
        let mut stream = TcpStream::connect(balancer).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: demo\r\n\r\n")
            .await?;
        let mut answer = Vec::new();
        (&mut stream)
            .take(LONGEST_ANSWER)
            .read_to_end(&mut answer)
            .await?;
        if is_whole(&answer) {
            Ok(())
        } else {
            Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("only {} bytes of the answer", answer.len()),
            ))
        }
    })
    .await?
}

/// Whether the body is as long as the head says.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    head.lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .is_some_and(|length| length.parse() == Ok(body.len()))
}

const CLIENTS: usize = 4;

/// Between two requests of one client: fifty sessions a second together.
const PACE: Duration = Duration::from_millis(80);

const PATIENCE: Duration = Duration::from_secs(10);
const LONGEST_ANSWER: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::servers::Server;

    #[tokio::test]
    async fn a_whole_answer_is_success_and_a_refusal_is_not() {
        let mut server = Server::start("red").unwrap();
        ask(server.address()).await.unwrap();
        server.die().await;
        ask(server.address()).await.unwrap_err();
    }

    #[test]
    fn a_cut_answer_is_not_whole() {
        assert!(is_whole(
            b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nred\n"
        ));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nre"));
        assert!(!is_whole(b"HTTP/1.1 200 OK\r\nContent-Len"));
        assert!(!is_whole(b""));
    }
}
