//! The graceful stop: nobody new, everybody served until the deadline, the rest reset and counted.

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::task::TaskTracker;

use super::reload::{QUIET, Running};
use super::{Order, notify::Notify};
use crate::config::written;
use crate::model::Cause;
use crate::worker::{Command, Workers};

/// How often the sessions left are counted.
const LOOK: Duration = Duration::from_millis(10);
/// Sessions that were told to end have this long to write their line.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Stops accepting, waits up to `drain_timeout` for sessions to end, resets the rest. A second
/// order to stop ends the wait. Tells how many sessions were reset.
pub(super) async fn stop(
    running: &mut Running,
    workers: &Workers,
    orders: &mut mpsc::Receiver<Order>,
    notify: &Notify,
) -> usize {
    let started = Instant::now();
    let limit = running.config.runtime.drain_timeout;
    notify.stopping();
    running.retire_all();
    tracing::info!(
        sessions = workers.sessions(),
        drain_timeout = %written(limit),
        "stopping"
    );
    let closed = TaskTracker::new();
    let mut closing = false;
    let mut at_once = false;
    while !at_once && started.elapsed() < limit {
        if !closing && started.elapsed() >= QUIET {
            closing = true;
            running.close_retired(workers, true, &closed);
            closed.close();
        }
        // A client in the accept queue counts as a session only once it is accepted, so the
        // listeners must be closed before zero means zero.
        if closing && closed.is_empty() && workers.sessions() == 0 {
            break;
        }
        tokio::select! {
            () = sleep(LOOK) => {}
            order = orders.recv() => match order {
                Some(Order::Stop) => at_once = true,
                Some(Order::Reload | Order::Report) => tracing::warn!("ignored: stopping"),
                // Nobody can give a second order any more.
                None => sleep(LOOK).await,
            },
        }
    }
    running.close_retired(workers, true, &closed);
    let left = workers.sessions();
    if left > 0 {
        workers.tell(|_| Command::EndAll(Cause::Stopped));
        let told = Instant::now();
        while workers.sessions() > 0 && told.elapsed() < LAST_WORDS {
            sleep(LOOK).await;
        }
    }
    left
}
