//! Heartbeats: one task for each (address, check) that connects once an interval and says what it
//! found. Deciding what that means is not its business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::health::{Policy, Verdict};
use crate::model::Cause;

/// Every interval is drawn anew within ±10 %, so that probes of many backends stay spread out.
const JITTER: f64 = 0.1;
/// First probes are spread over this for each target, up to one interval: few backends are judged
/// at once, many do not come in a burst.
const SPREAD: Duration = Duration::from_millis(2);

/// An address, and how it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TargetId {
    pub(super) address: SocketAddr,
    pub(super) policy: Policy,
}

/// What probes share.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    /// Bounds the descriptors that probes hold at a time.
    pub(super) in_flight: Arc<Semaphore>,
    /// Where verdicts go.
    pub(super) verdicts: mpsc::Sender<(TargetId, Verdict)>,
}

impl Prober {
    /// Probes `target`, one of `targets`, until aborted.
    pub(super) fn start(&self, target: TargetId, targets: usize) -> AbortHandle {
        let prober = self.clone();
        let spread = SPREAD * u32::try_from(targets).unwrap_or(u32::MAX);
        let first = target.policy.interval.min(spread).mul_f64(fastrand::f64());
        tokio::spawn(async move { prober.run(target, first).await }).abort_handle()
    }

    async fn run(self, target: TargetId, first: Duration) {
        let mut due = Instant::now() + first;
        loop {
            sleep_until(due).await;
            let jitter = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
            due = (due + target.policy.interval.mul_f64(jitter)).max(Instant::now());
            let verdict = {
                // Closed only when control ends.
                let Ok(_permit) = self.in_flight.acquire().await else {
                    return;
                };
                probe(target.address, target.policy.timeout).await
            };
            if let Some(verdict) = verdict
                && self.verdicts.send((target.clone(), verdict)).await.is_err()
            {
                return;
            }
        }
    }
}

/// One heartbeat: a connect, closed with a FIN. `None` when it could not be sent at all, which is
/// this host's trouble and says nothing about the backend.
async fn probe(address: SocketAddr, limit: Duration) -> Option<Verdict> {
    match timeout(limit, TcpStream::connect(address)).await {
        Err(_) => Some(Verdict::Dead(Cause::TimedOut)),
        // Nobody listened, and TCP connected the probe to itself: see net::connect.
        Ok(Ok(stream)) if stream.local_addr().ok() == Some(address) => {
            Some(Verdict::Dead(Cause::Refused))
        }
        Ok(Ok(_)) => Some(Verdict::Alive),
        Ok(Err(error)) => {
            let cause = Cause::from_io(&error);
            if cause == Cause::Exhausted {
                tracing::debug!(%address, %error, "probe not sent");
                return None;
            }
            // Only an established connection is reset rather than refused: the server has answered,
            // and whether its reset comes before or after we look must not decide.
            if cause == Cause::Reset {
                return Some(Verdict::Alive);
            }
            Some(Verdict::Dead(cause))
        }
    }
}
