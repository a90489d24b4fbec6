//! What outlives the daemon: recalled at the start, recorded at transitions, saved at the stop. And
//! what is to be said when the last good configuration runs in place of a broken one.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use tokio::time::timeout;

use super::Supervisor;
use super::reloading::rejection;
use super::starting::StartError;
use crate::config::Config;
use crate::control::Event;
use crate::control::memory::{Memory, STATE_FILE, Taken, again};
use crate::model::BackendId;

impl Supervisor {
    /// Recalls what the state file holds, if there is to be one. The disk is asked beside the loop.
    ///
    /// # Errors
    /// When another daemon has that file.
    pub(super) async fn recall(&mut self, config: &Config) -> Result<(), StartError> {
        let configured = config.runtime.state_file.clone();
        let Some(file) = configured.or_else(|| self.state_by_default()) else {
            return Ok(());
        };
        let max_age = config.runtime.state_max_age;
        let opened = tokio::task::spawn_blocking(move || Memory::open(&file, max_age));
        // A panic is logged; then nothing is remembered.
        let memory = opened.await.unwrap_or_else(|_| Ok(Memory::default()));
        self.running.memory = memory.map_err(|Taken(file)| StartError::State(file))?;
        let (now, wall) = (Instant::now(), SystemTime::now());
        for (backend, until) in self.running.memory.drains() {
            let left = until.duration_since(wall).unwrap_or_default();
            if let Some(deadline) = now.checked_add(left) {
                self.evictions.set_deadline(&backend, Some(deadline));
            }
        }
        Ok(())
    }

    fn state_by_default(&self) -> Option<PathBuf> {
        let directory = self.options.state_directory.as_ref()?;
        Some(directory.join(STATE_FILE))
    }

    /// Has the record of a backend tell that it is up or down from `now` on.
    pub(super) fn record(&mut self, backend: &BackendId, up: bool, now: Instant) {
        let ejected = self.running.load(backend).is_some_and(|it| it.is_ejected());
        self.running.memory.enter(backend, up && !ejected, now);
    }

    /// Saves what there is, and leaves the state file to a daemon that is started while sessions end here.
    pub(super) async fn leave_state(&mut self) {
        let _ = timeout(LAST_SAVE, self.running.save()).await;
        self.running.memory.leave();
    }

    /// Saves what there is, and waits for that a little. What was left to others is theirs if they have it.
    pub(super) async fn save_for_good(&mut self) {
        if let Some(state) = self.running.memory.left() {
            let again = tokio::task::spawn_blocking(move || again(&state));
            match timeout(LAST_SAVE, again).await {
                Ok(Ok(Some(again))) => self.running.memory.resume(again),
                // Another daemon has it, or the disk does not answer.
                Ok(Ok(None) | Err(_)) | Err(_) => return,
            }
        }
        // Without a state file, or with a disk that fails, there is nothing to wait for.
        let _ = timeout(LAST_SAVE, self.running.save()).await;
    }

    /// Says loudly that another configuration runs than the one in the file.
    pub(super) fn admit_fallback(&mut self) {
        if self.options.broken.is_empty() {
            return;
        }
        self.reloads.rejection = Some(rejection(&self.options.broken));
        for problem in &self.options.broken {
            tracing::error!("{problem}");
        }
        tracing::error!(
            problems = self.options.broken.join("; "),
            "the configuration is broken: the last good one runs in its place until it is repaired and reloaded"
        );
        self.tell(|| Event::Rejected {
            service: None,
            problems: self.options.broken.as_slice().into(),
        });
    }
}

/// How long a stop waits for the disk.
const LAST_SAVE: Duration = Duration::from_secs(2);
