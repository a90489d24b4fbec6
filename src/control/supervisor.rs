//! The one loop of the control thread.
//!
//! It waits for orders, verdicts, finished builds and the tick, and acts on each at once: whatever
//! may take time (reading, resolving, laying out tables) runs beside it and comes back as a message.

mod answering;
mod discovering;
mod failing_over;
mod operating;
mod passive;
mod planning;
mod refusing;
mod reloading;
mod remembering;
mod reporting;
mod seating;
mod stopping;
mod telling;
mod warnings;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::task::TaskTracker;

use self::planning::Planning;
use self::refusing::Refusing;
use self::reloading::{Awaiting, Reload, build};
use self::seating::{Unsettled, Wakes};
use super::alerts::Alerts;
use super::cases::Cases;
use super::closing::Closing;
use super::discovery::Discovery;
use super::evictions::Evictions;
use super::failovers::Failovers;
use super::journal;
use super::limits::limits;
use super::notify::Notify;
use super::prepare::complete;
use super::probe::{Probed, Prober, TargetId};
use super::reload::Running;
use super::services::{Built, User};
use super::targets::Observed;
use super::{Event, Order};
use crate::admin::{self, Journal, Server};
use crate::api;
use crate::config::{Config, Loaded};
use crate::confine::Reach;
use crate::health::{Evidence, State, Transition, Verdict};
use crate::net::BindError;
use crate::pool::{Permits, Witness, testimonies};
use crate::runner;
use crate::telemetry::logging::Logging;
use crate::telemetry::moment;
use crate::worker::{Command, Workers, die};

/// How often the status is told, workers are asked to beat and retired listeners are closed.
const TICK: Duration = Duration::from_secs(1);
/// A worker that has missed this many beats is stuck.
const MISSED_BEATS: u64 = 10;
/// Verdicts that wait to be looked at; probes wait beyond that.
const VERDICTS: usize = 4096;
/// Requests of the admin API that wait for an answer; further ones wait beyond that.
const REQUESTS: usize = 64;
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
    mut options: Options,
    mut orders: mpsc::Receiver<Order>,
) -> Result<Stopped, StartError> {
    let count = workers_of(&loaded.config);
    let limits = limits(&loaded.config, count);
    let permits = Permits::new(limits.max_connections);
    // What sessions note the time by begins here.
    moment(Instant::now());
    let (witness, mut told) = testimonies();
    let workers = Workers::start(count, permits, &witness)?;
    let (verdicts, mut verdict_queue) = mpsc::channel(VERDICTS);
    let (answers, mut answer_queue) = mpsc::channel(VERDICTS);
    let (builds, mut build_queue) = mpsc::unbounded_channel();
    let (discovery, mut findings) = Discovery::new();
    let runner = options.runner.take().map(runner::Process::attach);
    let runner = runner.transpose().map_err(StartError::Workers)?;
    let alerts = Alerts::new(runner.clone());
    let (asking, mut requests) = mpsc::channel(REQUESTS);
    let journal = Arc::new(Journal::default());
    let mut control = Supervisor {
        running: Running::new(count, permits),
        permits,
        prober: Prober::new(limits.probes, verdicts, answers, runner),
        cases: Cases::default(),
        failovers: Failovers::default(),
        witness,
        builds,
        discovery,
        wakes: Wakes::default(),
        notify: Notify::from_environment(),
        options,
        reload: Reload::None,
        planning: Planning::default(),
        again: false,
        reloads: Reloads::default(),
        closed: TaskTracker::new(),
        beat: 0,
        status: String::new(),
        full: false,
        refusing: Refusing::default(),
        alerts,
        closing: Closing::default(),
        unsettled: Unsettled::default(),
        workers,
        admin: Server::new(asking, Arc::clone(&journal)),
        journal,
        evictions: Evictions::default(),
        awaiting: Awaiting::default(),
        text: Arc::from(""),
        started: (Instant::now(), SystemTime::now()),
        stopping: false,
        leaves: None,
    };
    tokio::select! {
        started = control.start(loaded) => started?,
        () = told_to_stop(&mut orders) => {
            control.workers.stop();
            return Ok(Stopped { closed: 0 });
        }
    }
    // Whatever goes wrong here, sessions must not end with a FIN.
    let _guard = DieWithIt;
    let mut tick = interval(control.tick_period());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            // Verdicts and testimonies come last: there may be thousands of them, and each of the
            // others is rare.
            biased;
            order = orders.recv() => match order {
                Some(Order::Reload) if control.stopping => tracing::warn!("ignored: stopping"),
                Some(Order::Reload) => control.begin_reload(),
                Some(Order::Report) => control.report_everything().await,
                Some(Order::Stop) | None if control.leave() => break,
                Some(Order::Stop) | None => {}
            },
            () = until(control.leaves) => break,
            _ = tick.tick() => control.tick(),
            Some(built) = build_queue.recv() => control.built(built),
            () = until(control.wakes.next()) => control.wake(),
            step = control.reload.next() => control.continue_reload(step),
            found = control.planning.next() => control.continue_plan(found),
            Some(answer) = answer_queue.recv() => control.answered(answer),
            () = until(control.cases.next_return()) => control.end_ejections(),
            () = until(control.closing.next_step()) => control.close_sessions(),
            () = until(control.evictions.next_step()) => control.evict(),
            () = until(control.failovers.next_look()) => control.settle_failovers(),
            () = control.alerts.behind() => control.recap(),
            // Nobody waits for it: what has changed is on disk a moment later.
            () = until(control.running.memory.due()) => drop(control.running.save()),
            Some(found) = findings.recv() => control.discovered(found),
            Some(request) = requests.recv() => control.answer(request),
            Some(probed) = verdict_queue.recv() => control.observe(&probed),
            Some(testimony) = told.recv() => control.hear(testimony),
        }
        control.settle(verdict_queue.is_empty());
    }
    // A reload that is not applied yet takes its new listeners with it.
    control.reload = Reload::None;
    let last_words = control.alerts.finish();
    let closed = control.stop(&mut orders, &mut requests).await;
    control.save_for_good().await;
    control.workers.stop();
    last_words.await;
    tracing::info!(closed, "stopped");
    Ok(Stopped { closed })
}

async fn told_to_stop(orders: &mut mpsc::Receiver<Order>) {
    while !matches!(orders.recv().await, Some(Order::Stop) | None) {}
}

/// Waits for `deadline`, if there is one.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Ends the process with RST for every session if control panics: the kernel would say FIN.
struct DieWithIt;

impl Drop for DieWithIt {
    fn drop(&mut self) {
        if std::thread::panicking() {
            die();
        }
    }
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
    /// What is held against backends.
    cases: Cases,
    failovers: Failovers,
    /// Whom sessions tell.
    witness: Witness,
    builds: mpsc::UnboundedSender<Result<Built, Arc<str>>>,
    discovery: Discovery,
    wakes: Wakes,
    notify: Notify,
    options: Options,
    reload: Reload,
    planning: Planning,
    /// Another reload was asked for while one was under way.
    again: bool,
    reloads: Reloads,
    closed: TaskTracker,
    beat: u64,
    status: String,
    /// `max_connections` was reached when last looked at.
    full: bool,
    /// Whose clients are not all let in.
    refusing: Refusing,
    alerts: Alerts,
    /// Whose sessions are being closed.
    closing: Closing,
    /// Services whose rosters are to decide anew.
    unsettled: Unsettled,
    admin: Server,
    /// What has happened, for those who ask.
    journal: Arc<Journal>,
    /// Whose sessions an operator has closed, or will have at the end of a drain.
    evictions: Evictions,
    /// Who is told what becomes of a reload.
    awaiting: Awaiting,
    /// The file in force.
    text: Arc<str>,
    /// When it was ready.
    started: (Instant, SystemTime),
    /// It was told to stop …
    stopping: bool,
    /// … and does so then: until then it only says so.
    leaves: Option<Instant>,
}

/// How many reloads took effect, and how many did not.
#[derive(Debug, Default)]
struct Reloads {
    applied: u64,
    rejected: u64,
    /// What is in the file is not what runs, and why not.
    rejection: Option<api::Rejection>,
    /// When what runs took effect.
    applied_at: Option<SystemTime>,
    /// How long the last reload that took effect needed.
    last_took: Option<Duration>,
}

impl Supervisor {
    async fn start(&mut self, loaded: Loaded) -> Result<(), StartError> {
        for warning in loaded.warnings.lines() {
            tracing::warn!("{warning}");
        }
        self.recall(&loaded.config).await;
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

    fn observe(&mut self, probed: &Probed) {
        let id = &probed.target;
        let Some(Observed {
            transition,
            other_agent,
            turn,
        }) = self.running.targets.observe(probed, &self.prober)
        else {
            return;
        };
        self.warn(probed);
        let Ok(finding) = &probed.finding else {
            return;
        };
        if finding.verdict == Verdict::Alive
            && transition.is_none()
            && !other_agent
            && turn.is_none()
        {
            // So it is nearly always, thousands of times a second.
            self.relent(id);
            return;
        }
        let users = self.running.users.get(id).cloned().unwrap_or_default();
        if finding.verdict == Verdict::Alive {
            for load in users.iter().filter_map(|user| self.running.load(&user.id)) {
                match transition {
                    Some(_) => load.forgive(),
                    None => load.relent(),
                }
            }
        }
        if other_agent {
            // Before the transition is told, so that it counts with what the agent asks for.
            for user in &users {
                self.count(user);
            }
        }
        if let Some(turn) = turn {
            self.report_turn(&users, id, &turn);
        }
        match (transition, &finding.verdict) {
            (Some(transition), _) => {
                self.announce(id, &users, &transition, None);
            }
            (None, Verdict::Dead(why)) => self.report_missed(&users, id, why),
            (None, Verdict::Alive) => self.report_answered(&users, id),
        }
        if other_agent {
            for user in &users {
                self.reconsider(user.id.service());
            }
        }
    }

    /// A probe has found a target alive, which changes nothing.
    fn relent(&self, id: &TargetId) {
        let Some(users) = self.running.users.get(id) else {
            return;
        };
        for load in users.iter().filter_map(|user| self.running.load(&user.id)) {
            load.relent();
        }
        self.report_answered(users, id);
    }

    /// Keeps the number of those who may serve up to date until the roster decides.
    fn count(&mut self, user: &User) {
        if let Some(serving) = self.running.services.0.get_mut(user.id.service()) {
            serving.count(user, &self.running.targets);
        }
    }

    /// Tells everybody of a transition, which `evidence` of sessions has brought about, and has their
    /// services laid out anew.
    fn announce(
        &mut self,
        id: &TargetId,
        users: &[User],
        transition: &Transition,
        evidence: Option<&Evidence>,
    ) {
        let now = Instant::now();
        for user in users {
            let backend = &user.id;
            let started = match &transition.cause {
                Some(_) if transition.from == State::Up => self.started(backend, id, evidence, now),
                Some(_) => None,
                None => {
                    self.failovers.cut_short(backend);
                    None
                }
            };
            self.cases.closed(backend, evidence.is_some());
            if transition.to != State::Down {
                // Who is back is let go before anybody hears of it.
                self.close_sessions_of(backend.service());
            }
            self.record(backend, transition.to == State::Up, now);
            self.report(user, id, transition, evidence);
            if transition.to == State::Down {
                self.close_sessions_of(backend.service());
            }
            if let (Some(started), Some(why)) = (started, &transition.cause) {
                self.fail_over(backend, id, why.clone(), evidence, started, now);
            }
            self.unsettled.note(backend.service(), now);
        }
    }

    fn tick(&mut self) {
        // A reload that is being built counts on the listeners that were open when it was laid out.
        if !matches!(self.reload, Reload::Building(..)) {
            self.running
                .listeners
                .close_retired(&self.workers, false, &self.closed);
        }
        let behind = self.beat.saturating_sub(self.workers.slowest_beat());
        if behind > MISSED_BEATS {
            tracing::error!(beats_missed = behind, "a worker is stuck");
            die();
        }
        self.note_harm();
        self.close_sessions();
        self.running.memory.refresh(Instant::now());
        self.beat += 1;
        let beat = self.beat;
        self.workers.tell(|_| Command::Beat(beat));
        if behind <= MISSED_BEATS / 2 {
            self.notify.pet();
        }
        if let Some(logging) = &self.options.logging {
            logging.report_dropped();
        }
        let full = !self.permits.has_room();
        if full != std::mem::replace(&mut self.full, full) {
            let max_connections = self.permits.limit();
            self.journal
                .write(journal::pause(None, full, max_connections));
            if full {
                tracing::warn!(
                    max_connections,
                    "accepting pauses: as many sessions as may be"
                );
            } else {
                tracing::info!(max_connections, "accepting goes on");
            }
        }
        self.tell_refusals();
        self.tell_status();
    }

    /// Has sessions of backends that are down closed, as many as are due by now.
    pub(super) fn close_sessions(&mut self) {
        let services = &self.running.services.0;
        self.closing
            .retain(|service| services.contains_key(service));
        let now = Instant::now();
        for serving in services.values() {
            self.closing
                .step(serving, &self.running.targets, &self.workers, now);
        }
    }

    /// The same for one service, which has just learnt something.
    pub(super) fn close_sessions_of(&mut self, service: &Arc<str>) {
        if let Some(serving) = self.running.services.0.get(service) {
            let (targets, now) = (&self.running.targets, Instant::now());
            self.closing.step(serving, targets, &self.workers, now);
        }
    }

    /// Often enough for the watchdog, if there is one.
    fn tick_period(&self) -> Duration {
        self.notify
            .watchdog()
            .map_or(TICK, |limit| TICK.min(limit / 2))
    }

    /// Tells watchers of an event, and those who read the journal.
    fn tell(&self, event: impl FnOnce() -> Event) {
        let event = event();
        if let Some(entry) = journal::entry(&event) {
            self.journal.write(entry);
        }
        self.tell_watchers(event);
    }

    fn tell_watchers(&self, event: Event) {
        if let Some(events) = &self.options.events {
            // Nobody watching is no problem.
            let _ = events.send(event);
        }
    }
}

fn join<E: std::error::Error>(errors: &[E]) -> String {
    let errors: Vec<_> = errors.iter().map(E::to_string).collect();
    errors.join("\n")
}
