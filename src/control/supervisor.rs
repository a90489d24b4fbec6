//! The one loop of the control thread.
//!
//! It waits for orders, verdicts, finished builds and the tick, and acts on each at once: whatever
//! may take time (reading, resolving, laying out tables) runs beside it and comes back as a message.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::task::TaskTracker;

use super::limits::limits;
use super::notify::Notify;
use super::prepare::{Prepared, prepare, resolve};
use super::probe::Prober;
use super::reload::{Running, Staged};
use super::services::{Blueprint, Built};
use super::stop::stop;
use super::targets::TargetId;
use super::{Event, Order};
use crate::config::{Config, Loaded, Plan, Rejected};
use crate::health::{Transition, Verdict};
use crate::model::BackendId;
use crate::net::BindError;
use crate::pool::Permits;
use crate::telemetry::logging::Logging;
use crate::worker::{Command, Workers};

/// How often the status is told, workers are asked to beat and retired listeners are closed.
const TICK: Duration = Duration::from_secs(1);
/// A worker that has missed this many beats is stuck.
const MISSED_BEATS: u64 = 10;
/// Verdicts that wait to be looked at; probes wait beyond that.
const VERDICTS: usize = 4096;
/// Events that a watcher may lag behind.
const EVENTS: usize = 1024;

/// What the daemon is started with besides its configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Where a reload reads; without it, a reload is refused.
    pub path: Option<Arc<Path>>,
    /// Whose level a reload may change.
    pub logging: Option<Logging>,
    /// Who watches.
    pub events: Option<broadcast::Sender<Event>>,
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

/// Runs the daemon until it is told to stop. Call it inside a current-thread runtime of its own.
///
/// # Errors
/// When it cannot start; once it runs, nothing ends it but an order.
pub async fn run(
    loaded: Loaded,
    options: Options,
    mut orders: mpsc::Receiver<Order>,
) -> Result<Stopped, StartError> {
    let count = workers_of(&loaded.config);
    let limits = limits(&loaded.config, count);
    let permits = Permits::new(limits.max_connections);
    let workers = Workers::start(count, permits)?;
    let (verdicts, mut verdict_queue) = mpsc::channel(VERDICTS);
    let (builds, mut build_queue) = mpsc::unbounded_channel();
    let mut control = Supervisor {
        running: Running::new(count),
        permits,
        prober: Prober {
            in_flight: Arc::new(Semaphore::new(limits.probes)),
            verdicts,
        },
        builds,
        notify: Notify::from_environment(),
        options,
        reload: Reload::None,
        again: false,
        reloads: Reloads::default(),
        closed: TaskTracker::new(),
        beat: 0,
        status: String::new(),
        workers,
    };
    control.start(loaded).await?;
    let mut tick = interval(control.tick_period());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Reload) => control.begin_reload(),
                Some(Order::Stop) | None => break,
            },
            Some((target, verdict)) = verdict_queue.recv() => control.observe(&target, verdict),
            Some(built) = build_queue.recv() => control.built(built),
            step = control.reload.next() => control.continue_reload(step),
            _ = tick.tick() => control.tick(),
        }
    }
    let closed = stop(
        &mut control.running,
        &control.workers,
        &mut orders,
        &control.notify,
    )
    .await;
    control.workers.stop();
    tracing::info!(closed, "stopped");
    Ok(Stopped { closed })
}

fn workers_of(config: &Config) -> usize {
    match config.runtime.workers {
        Some(workers) => workers.get() as usize,
        None => std::thread::available_parallelism().map_or(1, usize::from),
    }
}

struct Supervisor {
    running: Running,
    workers: Workers,
    permits: &'static Permits,
    prober: Prober,
    builds: mpsc::UnboundedSender<Built>,
    notify: Notify,
    options: Options,
    reload: Reload,
    /// Another reload was asked for while one was under way.
    again: bool,
    reloads: Reloads,
    closed: TaskTracker,
    beat: u64,
    status: String,
}

/// How many reloads took effect, and how many did not.
#[derive(Debug, Default)]
struct Reloads {
    applied: u64,
    rejected: u64,
}

/// What a reload is doing beside the loop.
enum Reload {
    None,
    Preparing(Instant, JoinHandle<Result<Prepared, Rejected>>),
    Building(Instant, Box<Staged>, JoinHandle<Vec<Built>>),
}

/// What it has done.
enum Step {
    Prepared(Instant, Result<Prepared, Rejected>),
    Built(Instant, Box<Staged>, Vec<Built>),
}

impl Reload {
    /// The next step, once it is done. Cancel safe.
    async fn next(&mut self) -> Step {
        let joined = match self {
            Reload::None => return std::future::pending().await,
            Reload::Preparing(_, task) => Joined::Prepared(unpanic(task.await)),
            Reload::Building(_, _, task) => Joined::Built(unpanic(task.await)),
        };
        match (std::mem::replace(self, Reload::None), joined) {
            (Reload::Building(started, staged, _), Joined::Built(built)) => {
                Step::Built(started, staged, built)
            }
            (Reload::Preparing(started, _), Joined::Prepared(prepared)) => {
                Step::Prepared(started, prepared)
            }
            // The stage cannot change between the two matches.
            (Reload::None | Reload::Preparing(..) | Reload::Building(..), _) => {
                std::future::pending().await
            }
        }
    }
}

enum Joined {
    Prepared(Result<Prepared, Rejected>),
    Built(Vec<Built>),
}

fn unpanic<T>(joined: Result<T, tokio::task::JoinError>) -> T {
    match joined {
        Ok(value) => value,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

impl Supervisor {
    async fn start(&mut self, loaded: Loaded) -> Result<(), StartError> {
        for warning in loaded.warnings.lines() {
            tracing::warn!(%warning, "configuration");
        }
        let addresses = resolve(&loaded.config).await;
        let prepared = Prepared { loaded, addresses };
        let (staged, blueprints) = self
            .running
            .stage(prepared, self.workers.count())
            .map_err(StartError::Bind)?;
        let built = unpanic(build(blueprints).await);
        self.apply(staged, built);
        for (service, listener) in self.running.bound() {
            self.tell(|| Event::Listening {
                service,
                address: listener,
            });
        }
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            workers = self.workers.count(),
            max_connections = self.permits.limit(),
            "ready"
        );
        self.tell(|| Event::Ready);
        self.notify.ready();
        self.tell_status();
        Ok(())
    }

    fn begin_reload(&mut self) {
        let Some(path) = &self.options.path else {
            tracing::warn!("reload ignored: this daemon has no configuration file");
            return;
        };
        if !matches!(self.reload, Reload::None) {
            self.again = true;
            return;
        }
        self.notify.reloading();
        let task = tokio::spawn(prepare(Arc::clone(path)));
        self.reload = Reload::Preparing(Instant::now(), task);
    }

    fn continue_reload(&mut self, step: Step) {
        match step {
            Step::Prepared(_, Err(rejected)) => self.reject(&rejected.lines()),
            Step::Prepared(started, Ok(prepared)) => {
                let warnings = prepared.loaded.warnings.lines();
                match self.running.stage(prepared, self.workers.count()) {
                    Err(errors) => {
                        let problems: Vec<_> = errors.iter().map(BindError::to_string).collect();
                        self.reject(&problems);
                    }
                    Ok((staged, blueprints)) => {
                        for warning in warnings {
                            tracing::warn!(%warning, "configuration");
                        }
                        self.reload =
                            Reload::Building(started, Box::new(staged), build(blueprints));
                    }
                }
            }
            Step::Built(started, staged, built) => {
                let plan = Plan::between(&self.running.config, staged.config());
                self.apply(*staged, built);
                self.reloads.applied += 1;
                tracing::info!(
                    %plan,
                    took_ms = started.elapsed().as_millis(),
                    reloads = self.reloads.applied,
                    "reloaded"
                );
                for what in &plan.needs_restart {
                    tracing::warn!(%what, "takes effect after a restart only");
                }
                self.end_reload();
            }
        }
    }

    fn reject(&mut self, problems: &[String]) {
        self.reloads.rejected += 1;
        tracing::error!(
            problems = problems.join("; "),
            rejected = self.reloads.rejected,
            "reload rejected: the running configuration stays"
        );
        self.end_reload();
    }

    fn end_reload(&mut self) {
        self.notify.ready();
        self.tell_status();
        if std::mem::take(&mut self.again) {
            self.begin_reload();
        }
    }

    fn apply(&mut self, staged: Staged, built: Vec<Built>) {
        for backend in staged.unresolved() {
            tracing::warn!(
                service = %backend.service(),
                backend = %backend.name(),
                "name does not resolve: the backend is down"
            );
        }
        let stale = self
            .running
            .apply(staged, built, &self.workers, &self.prober);
        let limits = limits(&self.running.config, self.workers.count());
        self.permits.set_limit(limits.max_connections);
        if let Some(logging) = &self.options.logging {
            logging.set_level(self.running.config.log.level);
        }
        for service in stale {
            self.rebuild(&service);
        }
    }

    fn observe(&mut self, id: &TargetId, verdict: Verdict) {
        let transition = self.running.targets.observe(id, verdict);
        let users = self.running.users.get(id).cloned().unwrap_or_default();
        if verdict == Verdict::Alive {
            for load in users.iter().filter_map(|user| self.running.load(user)) {
                match transition {
                    Some(_) => load.forgive(),
                    None => load.relent(),
                }
            }
        }
        match (transition, verdict) {
            (Some(transition), _) => {
                for backend in &users {
                    if let Some(serving) = self.running.services.0.get_mut(backend.service()) {
                        serving.revision += 1;
                    }
                    self.report(backend, id, transition);
                    self.rebuild(backend.service());
                }
                self.tell_status();
            }
            (None, Verdict::Dead(cause)) => {
                let target = self.running.targets.get(id);
                if let Some(streak) = target.map(|it| it.against()).filter(|&streak| streak > 0) {
                    for backend in users {
                        tracing::debug!(service = %backend.service(), backend = %backend.name(), %cause, streak, "heartbeat missed");
                        self.tell(|| Event::Missed {
                            backend,
                            cause,
                            streak,
                        });
                    }
                }
            }
            (None, Verdict::Alive) => {}
        }
    }

    fn report(&self, backend: &BackendId, id: &TargetId, transition: Transition) {
        let Some(serving) = self.running.services.0.get(backend.service()) else {
            return;
        };
        let eligible = serving.members.roster(&self.running.targets).len();
        let configured = serving.members.configured();
        let (service, name, address) = (backend.service(), backend.name(), id.address);
        let after = humantime::format_duration(Duration::from_millis(
            u64::try_from(transition.after.as_millis()).unwrap_or(u64::MAX),
        ));
        let of = format!("{eligible}/{configured}");
        match transition.cause {
            Some(why) => {
                tracing::warn!(%service, backend = %name, %address, %why, %after, eligible = %of, "backend down");
            }
            None => {
                tracing::info!(%service, backend = %name, %address, %after, eligible = %of, "backend up");
            }
        }
        if eligible == 0 {
            tracing::error!(%service, "no backend may serve: clients are refused");
        }
        self.tell(|| Event::Transition {
            backend: backend.clone(),
            to: transition.to,
            cause: transition.cause,
            after: transition.after,
            eligible,
            configured,
        });
    }

    /// Has a snapshot built for `service` as it is now, unless one is being built: then it is
    /// compared when that one is done.
    fn rebuild(&mut self, service: &Arc<str>) {
        let Some(serving) = self.running.services.0.get_mut(service) else {
            return;
        };
        if std::mem::replace(&mut serving.building, true) {
            return;
        }
        let blueprint =
            serving
                .members
                .blueprint(&self.running.targets, self.running.epoch, serving.revision);
        let builds = self.builds.clone();
        tokio::task::spawn_blocking(move || {
            // Control is gone only when everything ends.
            let _ = builds.send(blueprint.build());
        });
    }

    fn built(&mut self, built: Built) {
        if built.epoch != self.running.epoch {
            // Of a configuration that is not in force any more.
            return;
        }
        let Some(serving) = self.running.services.0.get_mut(&built.service) else {
            return;
        };
        serving.building = false;
        let is_current = serving.revision == built.revision;
        serving.service.swap(built.snapshot);
        if !is_current {
            self.rebuild(&built.service);
        }
    }

    fn tick(&mut self) {
        self.running
            .close_retired(&self.workers, false, &self.closed);
        let behind = self.beat.saturating_sub(self.workers.slowest_beat());
        if behind > MISSED_BEATS {
            tracing::error!(seconds = behind, "a worker is stuck: aborting");
            if let Some(logging) = &self.options.logging {
                logging.flush();
            }
            std::process::abort();
        }
        self.beat += 1;
        let beat = self.beat;
        self.workers.tell(|_| Command::Beat(beat));
        if behind <= MISSED_BEATS / 2 {
            self.notify.pet();
        }
        if let Some(logging) = &self.options.logging {
            logging.report_dropped();
        }
        self.tell_status();
    }

    /// Often enough for the watchdog, if there is one.
    fn tick_period(&self) -> Duration {
        self.notify
            .watchdog()
            .map_or(TICK, |limit| TICK.min(limit / 2))
    }

    /// One line for `systemctl status`, when it has changed.
    fn tell_status(&mut self) {
        let (services, eligible, configured) = self.running.services.count(&self.running.targets);
        let mut status = format!(
            "{services} service{}, {eligible}/{configured} backends up, {} sessions",
            if services == 1 { "" } else { "s" },
            self.workers.sessions()
        );
        if self.reloads.rejected > 0 {
            status += &format!(
                ", {} rejected since the start",
                reloads(self.reloads.rejected)
            );
        }
        if status != self.status {
            self.notify.status(&status);
            self.status = status;
        }
    }

    fn tell(&self, event: impl FnOnce() -> Event) {
        if let Some(events) = &self.options.events {
            // Nobody watching is no problem.
            let _ = events.send(event());
        }
    }
}

fn build(blueprints: Vec<Blueprint>) -> JoinHandle<Vec<Built>> {
    tokio::task::spawn_blocking(|| blueprints.into_iter().map(Blueprint::build).collect())
}

fn reloads(count: u64) -> String {
    format!("{count} reload{}", if count == 1 { "" } else { "s" })
}

fn join(errors: &[BindError]) -> String {
    let errors: Vec<_> = errors.iter().map(BindError::to_string).collect();
    errors.join("\n")
}
