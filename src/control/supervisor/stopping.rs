//! The graceful stop: nobody new, everybody served until the deadline, the rest reset and counted.
//! Operators are answered until the end.

use tokio::sync::mpsc;
use tokio::time::{Duration, Instant, sleep};
use tokio_util::task::TaskTracker;

use super::Supervisor;
use crate::admin::Request;
use crate::config::written;
use crate::control::Order;
use crate::control::journal;
use crate::control::listening::QUIET;
use crate::model::Cause;
use crate::worker::Command;

/// How often the sessions left are counted.
const LOOK: Duration = Duration::from_millis(10);
/// Sessions that were told to end have this long to write their line.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Supervisor {
    /// It is told to stop: whether it is to do so at once, because nobody has to see it coming, or because it
    /// was told before.
    pub(super) fn leave(&mut self) -> bool {
        let lame_duck = self.running.config.admin.lame_duck;
        if self.stopping || lame_duck.is_zero() || self.running.config.admin.listen.is_empty() {
            return true;
        }
        self.stopping = true;
        self.leaves = Some(std::time::Instant::now() + lame_duck);
        self.notify.stopping();
        tracing::info!(lame_duck = %written(lame_duck), "not ready any more: about to stop");
        false
    }

    /// Stops accepting, waits up to `drain_timeout` for sessions to end, resets the rest. A second
    /// order to stop ends the wait. Tells how many sessions were reset.
    pub(super) async fn stop(
        &mut self,
        orders: &mut mpsc::Receiver<Order>,
        requests: &mut mpsc::Receiver<Request>,
    ) -> usize {
        let started = Instant::now();
        let limit = self.running.config.runtime.drain_timeout;
        self.stopping = true;
        self.notify.stopping();
        self.journal.write(journal::note(
            "stopping",
            "warn",
            None,
            "the daemon stops".to_owned(),
        ));
        self.running.listeners.retire_all();
        tracing::info!(
            sessions = self.workers.sessions(),
            drain_timeout = %written(limit),
            "stopping"
        );
        self.leave_state().await;
        let closed = TaskTracker::new();
        let mut closing = false;
        let mut at_once = false;
        while !at_once && started.elapsed() < limit {
            if !closing && started.elapsed() >= QUIET {
                closing = true;
                let listeners = &mut self.running.listeners;
                let left = limit.saturating_sub(started.elapsed());
                listeners.close_retired(&self.workers, left, true, &closed);
                closed.close();
            }
            // A client in the accept queue counts as a session only once it is accepted, so the
            // listeners must be closed before zero means zero.
            if closing && closed.is_empty() && self.workers.sessions() == 0 {
                break;
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                Some(request) = requests.recv() => self.answer(request),
                order = orders.recv() => match order {
                    Some(Order::Stop) => at_once = true,
                    Some(Order::Reload | Order::Report) => tracing::warn!("ignored: stopping"),
                    // Nobody can give a second order any more.
                    None => sleep(LOOK).await,
                },
            }
        }
        let listeners = &mut self.running.listeners;
        listeners.close_retired(&self.workers, Duration::ZERO, true, &closed);
        let left = self.workers.sessions();
        if left > 0 {
            self.workers.tell(|_| Command::EndAll(Cause::Stopped));
            let told = Instant::now();
            while self.workers.sessions() > 0 && told.elapsed() < LAST_WORDS {
                sleep(LOOK).await;
            }
        }
        left
    }
}
