//! The start: what the daemon is started with, and its first configuration, which takes effect as a later
//! one does.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use thiserror::Error;
use tokio::sync::broadcast;

use super::Supervisor;
use super::reloading::build;
use crate::admin;
use crate::config::{Config, Loaded};
use crate::confine::Reach;
use crate::control::Event;
use crate::control::prepare::complete;
use crate::net::BindError;
use crate::runner;
use crate::telemetry::logging::Logging;

/// Events that a watcher may lag behind.
const EVENTS: usize = 1024;

/// What the daemon is started with besides its configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Where a reload reads; without it, a reload is refused.
    pub path: Option<Arc<Path>>,
    /// Whose level a reload may change.
    pub logging: Option<Logging>,
    /// Where the state file is if the configuration does not say: systemd's `StateDirectory`.
    pub state_directory: Option<Arc<Path>>,
    /// What is wrong with the file at `path`, when another one was started in its place.
    pub broken: Vec<String>,
    /// Who watches.
    pub events: Option<broadcast::Sender<Event>>,
    /// Watchers want to hear of every failed heartbeat, too.
    pub heartbeats: bool,
    /// Who starts programs; without it none is started.
    pub runner: Option<runner::Process>,
    /// Which files a reload may name; without it, any.
    pub reach: Option<Arc<Reach>>,
}

impl Options {
    /// Adds a watcher.
    pub fn watch(&mut self) -> broadcast::Receiver<Event> {
        let events = self
            .events
            .get_or_insert_with(|| broadcast::channel(EVENTS).0);
        events.subscribe()
    }
}

/// Why the daemon cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Addresses that cannot be listened on.
    #[error("{}", join(.0))]
    Bind(Vec<BindError>),
    /// The same for the admin endpoint.
    #[error("{}", join(.0))]
    Admin(Vec<admin::BindError>),
    /// A state file that another daemon writes.
    #[error(
        "another daemon has the state file {}, and what an operator tells the one would be lost to the other: \
         give each a `state_file` of its own in [runtime]",
        .0.display()
    )]
    State(PathBuf),
    /// Threads or runtimes that cannot be made.
    #[error("cannot start the workers: {0}")]
    Workers(#[from] std::io::Error),
}

/// How it stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopped {
    /// Sessions that were reset.
    pub closed: usize,
}

impl Supervisor {
    /// Has `loaded` take effect, and says that the daemon is ready.
    pub(super) async fn start(&mut self, loaded: Loaded) -> Result<(), StartError> {
        for warning in loaded.warnings.lines() {
            tracing::warn!("{warning}");
        }
        self.recall(&loaded.config).await?;
        let mut prepared = complete(loaded, self.known()).await;
        let endpoints = prepared.take_endpoints().map_err(StartError::Admin)?;
        let (staged, blueprints) = self
            .running
            .stage(prepared, self.workers.count())
            .map_err(StartError::Bind)?;
        match build(blueprints).await {
            Ok(built) => self.apply(staged, built, endpoints),
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
        for (service, listener) in self.running.bound() {
            self.tell(|| Event::Listening {
                service,
                address: listener,
            });
        }
        self.started = (Instant::now(), SystemTime::now());
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            workers = self.workers.count(),
            max_connections = self.permits.limit(),
            "ready"
        );
        self.tell(|| Event::Ready(self.picture()));
        self.notify.ready();
        self.admit_fallback();
        self.tell_status();
        Ok(())
    }
}

/// How many workers `config` wants.
pub(super) fn workers_of(config: &Config) -> usize {
    match config.runtime.workers {
        Some(workers) => workers.get() as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

fn join<E: std::error::Error>(errors: &[E]) -> String {
    let errors: Vec<_> = errors.iter().map(E::to_string).collect();
    errors.join("\n")
}
