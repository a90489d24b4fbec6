//! What a reload would do, for whoever asks: prepared beside the loop as a reload is, looked at on it,
//! and completed beside it. Nothing that runs is touched.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::JoinHandle;

use super::Supervisor;
use super::operating::STOPPING;
use crate::api;
use crate::control::planning::{Draft, Past};
use crate::control::prepare::{Prepared, prepare_proposal};
use crate::worker::Reach;

/// Who gets the plan.
pub(super) type Reply = oneshot::Sender<Result<api::Plan, api::Refused>>;

/// The plan that is being made. There is one at a time: it asks backends and lays out tables.
#[derive(Debug)]
pub(super) struct Planning {
    preparing: Option<Preparing>,
    slot: Arc<Semaphore>,
}

#[derive(Debug)]
struct Preparing {
    task: JoinHandle<Result<Box<Prepared>, Vec<String>>>,
    asked: Asked,
}

/// What is to become of it.
#[derive(Debug)]
pub(super) struct Asked {
    reply: Reply,
    /// It is about the file of the daemon, and what that says may be run.
    is_own: bool,
    _slot: OwnedSemaphorePermit,
}

/// A configuration that is ready to be looked at, or what is wrong with it.
pub(super) type Found = (Result<Box<Prepared>, Vec<String>>, Asked);

impl Default for Planning {
    fn default() -> Self {
        Self {
            preparing: None,
            slot: Arc::new(Semaphore::new(1)),
        }
    }
}

impl Planning {
    /// The next configuration that is ready. Cancel safe: nothing is taken out before it is.
    pub(super) async fn next(&mut self) -> Found {
        let Some(preparing) = &mut self.preparing else {
            return std::future::pending().await;
        };
        let prepared = (&mut preparing.task).await;
        let prepared = prepared.unwrap_or_else(|_| Err(vec!["internal error".into()]));
        match self.preparing.take() {
            Some(Preparing { asked, .. }) => (prepared, asked),
            // It was just there, and nobody else has seen it since.
            None => std::future::pending().await,
        }
    }
}

impl Supervisor {
    /// Whoever waits for a plan is told that none comes: the daemon stops.
    pub(super) fn end_plan(&mut self) {
        if let Some(Preparing { asked, .. }) = self.planning.preparing.take() {
            let _ = asked.reply.send(Err(api::Refused::new(STOPPING)));
        }
    }

    /// Begins the plan of `proposal`. Whoever has asked may be gone.
    pub(super) fn begin_plan(&mut self, proposal: api::Proposal, reply: Reply) {
        let refused = |error: &str, help: &str| Err(api::Refused::new(error).with_help(help));
        if self.stopping {
            // There will be no reload.
            let _ = reply.send(Err(api::Refused::new(STOPPING)));
            return;
        }
        let Some(path) = &self.options.path else {
            let help = "there is nothing to compare with";
            let _ = reply.send(refused("this daemon has no configuration file", help));
            return;
        };
        let Ok(slot) = Arc::clone(&self.planning.slot).try_acquire_owned() else {
            let help = "ask again when it is done, which takes seconds at most";
            let _ = reply.send(refused("another plan is being made", help));
            return;
        };
        let asked = Asked {
            reply,
            is_own: proposal.text.is_none(),
            _slot: slot,
        };
        let known = self.known();
        let task = tokio::spawn(prepare_proposal(Arc::clone(path), proposal, known));
        self.planning.preparing = Some(Preparing { task, asked });
    }

    /// Looks at what is ready, and has the plan completed beside the loop.
    pub(super) fn continue_plan(&mut self, (prepared, asked): Found) {
        let path = self
            .options
            .path
            .as_ref()
            .map(|it| it.display().to_string());
        let draft = match prepared {
            Ok(prepared) => {
                let workers = self.workers.count();
                let past = Past {
                    after_rejection: self.reloads.rejection.is_some(),
                    needs_restart: self.reloads.needs_restart.clone(),
                };
                let texts = (Arc::clone(&self.text), Arc::clone(&prepared.loaded.text));
                self.running
                    .draft(&prepared, workers, asked.is_own, past, texts)
            }
            Err(problems) => {
                let _ = asked.reply.send(Ok(api::Plan {
                    outcome: api::Prospect::Rejected,
                    path,
                    problems,
                    ..api::Plan::default()
                }));
                return;
            }
        };
        let workers = self.workers.reach();
        tokio::spawn(complete(draft, self.prober.clone(), workers, path, asked));
    }
}

async fn complete(
    draft: Draft,
    prober: crate::control::probe::Prober,
    workers: Reach,
    path: Option<String>,
    mut asked: Asked,
) {
    tokio::select! {
        biased;
        // Backends are not asked for somebody who has gone.
        () = asked.reply.closed() => {}
        plan = draft.complete(prober, workers, path) => {
            let _ = asked.reply.send(Ok(plan));
        }
    }
}
