//! Writes documents: one after the other, beside control, and only when no worker wants the processor more.
//!
//! Control itself is no less urgent than a worker, because checks and failovers are to be punctual; so what takes
//! long and can wait is done here. A thread may always make itself less urgent (setpriority(2)), and never more
//! so again, which is why this is one of its own rather than one that others borrow.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::nice;
use tokio::sync::{mpsc, oneshot};

/// The thread, begun when something is to be written and there is none; it ends when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Scribe(Mutex<Option<mpsc::Sender<Job>>>);

type Job = Box<dyn FnOnce() + Send>;

impl Scribe {
    /// What `work` comes to; `None` if it panics, or there can be no thread.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, written) = oneshot::channel();
        let job = move || {
            // Whoever has asked may be gone.
            let _ = reply.send(work());
        };
        self.jobs().send(Box::new(job)).await.ok()?;
        written.await.ok()
    }

    /// Drops what is large, which takes a while too.
    pub(super) fn clear_away(&self, large: impl Send + 'static) {
        // With no place among the jobs, the one who asks does it.
        let _ = self.jobs().try_send(Box::new(move || drop(large)));
    }

    /// A thread that could not begin, for lack of memory say, is tried again.
    fn jobs(&self) -> mpsc::Sender<Job> {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*jobs {
            Some(there) if !there.is_closed() => there.clone(),
            Some(_) | None => jobs.insert(begin()).clone(),
        }
    }
}

fn begin() -> mpsc::Sender<Job> {
    let (jobs, mut queue) = mpsc::channel::<Job>(MOST_JOBS);
    let thread = thread::Builder::new().name("admin-scribe".into());
    let begun = thread.spawn(move || {
        if let Err(error) = nice(NICENESS) {
            tracing::debug!(%error, "documents are written at the priority of sessions");
        }
        while let Some(job) = queue.blocking_recv() {
            // The hook has told of it, and the next one is none the worse for it.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    });
    if let Err(error) = begun {
        tracing::error!(%error, "no thread that writes documents");
    }
    jobs
}

/// A worker gets nine times as much of a processor that both want.
const NICENESS: i32 = 10;
/// Documents that wait to be written; whoever wants another waits to be heard.
const MOST_JOBS: usize = 16;

#[cfg(test)]
mod tests {
    use rustix::process::getpriority_process;

    use super::*;

    /// The greatest niceness that there is.
    const NICEST: i32 = 19;

    #[tokio::test]
    async fn what_is_written_is_less_urgent_than_everything_else() {
        let scribe = Scribe::default();
        let own = getpriority_process(None).unwrap();
        let its = scribe.write(|| getpriority_process(None).unwrap()).await;
        assert_eq!(its, Some((own + NICENESS).min(NICEST)));
    }

    #[tokio::test]
    async fn a_panic_spoils_one_document_only() {
        let scribe = Scribe::default();
        assert_eq!(scribe.write(|| panic!("on purpose")).await, None::<()>);
        assert_eq!(scribe.write(|| "well").await, Some("well"));
    }
}
