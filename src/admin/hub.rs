//! What all connections share: the way to control, the last view, who may change what.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};

use http::StatusCode;
use hyper::body::Bytes;
use serde::Serialize;
use tokio::sync::{Mutex, OnceCell, mpsc, oneshot};
use tokio::time::timeout;

use super::metrics::Scrapes;
use super::reply::{Answer, JSON, Refusal, reply};
use super::scribe::Scribe;
use super::{Journal, Request};
use crate::api::View;

/// All of it.
#[derive(Debug)]
pub(super) struct Hub {
    control: mpsc::Sender<Request>,
    /// Held while control is asked: a flood of questions is one.
    shown: Mutex<Option<(Instant, Shown)>>,
    /// A flood of large documents takes one processor at most, and what is left of it.
    pub(super) scribe: Scribe,
    token_file: Lock<Option<Arc<PathBuf>>>,
    /// When a wrong token was told of last, and how many have come since.
    wrong_tokens: Lock<(Option<Instant>, u64)>,
    /// Held by what takes control some time: a flood of it is answered one after the other.
    pub(super) slowly: Arc<Mutex<()>>,
    pub(super) scrapes: Scrapes,
    pub(super) journal: Arc<Journal>,
    /// How many are told of events as they happen.
    pub(super) listeners: Arc<AtomicUsize>,
}

/// A view, and its text once anybody has wanted it.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    pub(super) view: Arc<View>,
    /// How long control needed for it.
    pub(super) took: Duration,
    json: Arc<OnceCell<Bytes>>,
}

impl Shown {}

impl Hub {
    pub(super) fn new(control: mpsc::Sender<Request>, journal: Arc<Journal>) -> Arc<Self> {
        Arc::new(Self {
            control,
            shown: Mutex::new(None),
            token_file: Lock::default(),
            wrong_tokens: Lock::default(),
            scribe: Scribe::default(),
            slowly: Arc::default(),
            scrapes: Scrapes::default(),
            journal,
            listeners: Arc::default(),
        })
    }

    /// How everything stands, at most [`fresh_for`] ago.
    pub(super) async fn view(&self) -> Result<Shown, Refusal> {
        let mut shown = self.shown.lock().await;
        if let Some((at, shown)) = &*shown
            && at.elapsed() < fresh_for(shown.took)
        {
            return Ok(shown.clone());
        }
        let (view, took) = self.ask(Request::View).await?;
        let new = Shown {
            view,
            took,
            json: Arc::default(),
        };
        if let Some(old) = shown.replace((Instant::now(), new.clone())) {
            self.scribe.clear_away(old);
        }
        Ok(new)
    }

    /// Has the next view be a new one: whoever has made a change is to see it.
    pub(super) async fn forget_view(&self) {
        *self.shown.lock().await = None;
    }

    /// The document of all of a view.
    pub(super) async fn json(&self, shown: &Shown) -> Result<Bytes, Refusal> {
        let write = || {
            let view = Arc::clone(&shown.view);
            self.text(move || serde_json::to_vec(&*view))
        };
        shown.json.get_or_try_init(write).await.cloned()
    }

    /// An answer of the document that `make` has written.
    pub(super) async fn written(
        &self,
        make: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
    ) -> Answer {
        let text = self.text(make).await?;
        Ok(reply(StatusCode::OK, JSON, text))
    }

    /// The answer that is this document.
    pub(super) async fn document(&self, of: impl Serialize + Send + 'static) -> Answer {
        self.written(move || serde_json::to_vec(&of)).await
    }

    async fn text(
        &self,
        make: impl FnOnce() -> serde_json::Result<Vec<u8>> + Send + 'static,
    ) -> Result<Bytes, Refusal> {
        match self.scribe.write(make).await {
            Some(Ok(text)) => Ok(text.into()),
            Some(Err(_)) | None => Err(unwritten()),
        }
    }

    /// Tells control that there was nothing to take a connection with.
    pub(super) fn starves(&self, error: io::Error) {
        // Where control has too much to do to be told, the next try tells it.
        let _ = self.control.try_send(Request::Starved(error));
    }

    /// Asks control, and waits for what it says.
    pub(super) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refusal> {
        self.ask_within(PATIENCE, request).await
    }

    /// The same of what may take as long as `patience`.
    pub(super) async fn ask_within<T>(
        &self,
        patience: Duration,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.control.send(request(reply)).await.ok()?;
            answer.await.ok()
        };
        let answered = timeout(patience, asked).await;
        answered.ok().flatten().ok_or_else(|| {
            Refusal::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the daemon does not answer",
            )
        })
    }

    /// Where the token is, from now on.
    pub(super) fn set_token_file(&self, file: Option<PathBuf>) {
        let mut held = self
            .token_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *held = file.map(Arc::new);
    }

    /// Somebody has come with a wrong token, which is told at most every [`TELLING`].
    pub(super) fn tell_wrong_token(&self, by: &str) {
        let held = self.wrong_tokens.lock();
        let mut held = held.unwrap_or_else(PoisonError::into_inner);
        let (told, unlogged) = &mut *held;
        if told.is_some_and(|at| at.elapsed() < TELLING) {
            *unlogged += 1;
            return;
        }
        let unlogged = Some(std::mem::take(unlogged)).filter(|&it| it > 0);
        *told = Some(Instant::now());
        tracing::warn!(by, unlogged, "wrong token at the admin endpoint");
    }

    pub(super) fn token_file(&self) -> Option<Arc<PathBuf>> {
        let held = self
            .token_file
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        held.clone()
    }
}

/// No document can be written: a defect, or a machine without room for another thread.
pub(super) fn unwritten() -> Refusal {
    tracing::error!("document not written");
    let status = StatusCode::INTERNAL_SERVER_ERROR;
    Refusal::new(status, "the document could not be written")
}

/// How old something may be that took so long to make: as many as ask within this time are given the same.
/// However often it is asked for, it is made for one part in [`REST`] of the time.
pub(super) fn fresh_for(took: Duration) -> Duration {
    took.saturating_mul(REST).clamp(FRESH, STALE)
}

/// What is made in no time is never older than this, …
pub(super) const FRESH: Duration = Duration::from_millis(100);
/// … what takes some is made for one part in so many of the time, …
const REST: u32 = 10;
/// … and nothing is older than this, or nobody could follow what happens.
const STALE: Duration = Duration::from_secs(2);
/// Between two lines about wrong tokens.
const TELLING: Duration = Duration::from_secs(10);
/// How long control may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn however_often_it_is_asked_for_making_it_takes_a_tenth_of_the_time(
            micros in 0_u64..200_000
        ) {
            let took = Duration::from_micros(micros);
            let each = took + fresh_for(took);
            prop_assert!(took.as_secs_f64() <= each.as_secs_f64() / 10.0);
            prop_assert!((FRESH..=STALE).contains(&fresh_for(took)));
        }
    }

    #[test]
    fn a_large_site_is_looked_at_less_often_and_never_after_seconds() {
        let after = |took| fresh_for(Duration::from_millis(took)).as_millis();
        assert_eq!([0, 1, 37, 5000].map(after), [100, 100, 370, 2000]);
    }
}
