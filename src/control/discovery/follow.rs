//! Following a name: asking when its answer has expired, for as long as a backend is behind it.

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::{Answers, Asker, Discovered};
use crate::discovery::{News, Question, Resolution};

/// A task that asks; ended by its drop.
#[derive(Debug)]
pub(super) struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Follower {
    /// Asks for `question` after `first`, when the answer has expired, and whenever there is another
    /// asker.
    pub(super) fn start(
        question: Question,
        resolution: Resolution,
        first: Duration,
        asker: watch::Receiver<Asker>,
        found: mpsc::Sender<Discovered>,
    ) -> Self {
        Self(tokio::spawn(follow(question, resolution, first, asker, found)).abort_handle())
    }
}

async fn follow(
    question: Question,
    mut resolution: Resolution,
    mut wait: Duration,
    mut asker: watch::Receiver<Asker>,
    found: mpsc::Sender<Discovered>,
) {
    loop {
        tokio::select! {
            () = sleep(wait) => {}
            // Gone only when everything ends.
            another = asker.changed() => if another.is_err() { return },
        }
        let current = asker.borrow_and_update().clone();
        let reply = current.ask(&question).await;
        let step = resolution.take(reply, Instant::now(), current.config());
        wait = step.ask_again;
        if !step.changed && step.news.is_empty() {
            continue;
        }
        let discovered = Discovered::Answer {
            question: question.clone(),
            endpoints: step.changed.then(|| resolution.endpoints().to_vec()),
            news: step.news,
        };
        if found.send(discovered).await.is_err() {
            return;
        }
    }
}

/// Asks for all of `questions` at once, and takes what is answered within `limit`.
pub(in crate::control) async fn ask_all(
    questions: impl IntoIterator<Item = Question>,
    asker: &Asker,
    limit: Duration,
) -> Answers {
    let deadline = tokio::time::Instant::now() + limit;
    let mut asking = tokio::task::JoinSet::new();
    for question in questions {
        let asker = asker.clone();
        asking.spawn(async move {
            let mut resolution = Resolution::default();
            let reply = asker.ask(&question).await;
            let step = resolution.take(reply, Instant::now(), asker.config());
            for news in step.news {
                // What else there may be shows in that the name does not resolve.
                if let News::LeftOut(left_out) = news {
                    tracing::warn!(name = %question, left_out, "name has too many addresses: some are left out");
                }
            }
            (question, (resolution, step.ask_again))
        });
    }
    let mut answers = Answers::new();
    while let Ok(Some(answer)) = tokio::time::timeout_at(deadline, asking.join_next()).await {
        // One that panicked is told of by the log, and asked again by its follower.
        answers.extend(answer);
    }
    answers
}
