//! The one loop of the control thread.
//!
//! It waits for orders, verdicts, finished builds and the tick, and acts on each at once: whatever
//! may take time (reading, resolving, laying out tables) runs beside it and comes back as a message.
//!
//! Read [`run`] for what is waited for. Each file beside it is what is done about one of these:
//! [`starting`], [`reloading`] and [`stopping`] are the daemon's life, [`observing`] what a probe's verdict
//! leads to, [`passive`] what sessions say of backends, [`failing_over`] what an outage has cost,
//! [`discovering`] backends that come and go, [`seating`] who serves next, [`operating`], [`answering`] and
//! [`planning`] what operators ask for. [`ticking`] is what nothing else says the time for, [`remembering`]
//! what outlives the daemon, and [`telling`], [`reporting`], [`refusing`] and [`warnings`] are what is said of it all.

mod answering;
mod discovering;
mod failing_over;
mod observing;
mod operating;
mod passive;
mod planning;
mod refusing;
mod reloading;
mod remembering;
mod reporting;
mod seating;
mod starting;
mod stopping;
mod telling;
mod ticking;
mod warnings;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{MissedTickBehavior, interval, sleep_until};
use tokio_util::task::TaskTracker;

use self::planning::Planning;
use self::refusing::Refusing;
use self::reloading::{Awaiting, Reload};
use self::seating::{Unsettled, Wakes};
use self::starting::workers_of;
pub use self::starting::{Options, StartError, Stopped};
use super::Order;
use super::alerts::Alerts;
use super::cases::Cases;
use super::closing::Closing;
use super::discovery::Discovery;
use super::evictions::Evictions;
use super::failovers::Failovers;
use super::limits::{descriptors, limits};
use super::notify::Notify;
use super::probe::Prober;
use super::running::Running;
use super::services::Built;
use crate::admin::{Journal, Server};
use crate::api;
use crate::config::Loaded;
use crate::net::Shortage;
use crate::pool::{Permits, Witness, moment, testimonies};
use crate::runner;
use crate::worker::{Workers, die};

/// Verdicts that wait to be looked at; probes wait beyond that.
const VERDICTS: usize = 4096;
/// Requests of the admin API that wait for an answer; further ones wait beyond that.
const REQUESTS: usize = 64;

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
    let descriptors = descriptors();
    let limits = limits(descriptors, &loaded.config, count);
    // Before anybody has a descriptor who is to do without these.
    let shortage = Shortage::of(descriptors);
    let permits = Permits::new(limits.max_connections);
    // What sessions note the time by begins here.
    moment(Instant::now());
    let (witness, mut told) = testimonies();
    let workers = Workers::start(count, permits, &witness, shortage)?;
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
        shortage,
        short_of: None,
        held_back: None,
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
            // Nothing else would say that it is time for them.
            () = until(control.unsettled.rested()) => {}
        }
        control.settle(verdict_queue.is_empty());
    }
    control.give_up_reload();
    control.end_plan();
    let last_words = control.alerts.finish();
    let closed = control.stop(&mut orders, &mut requests).await;
    control.save_for_good().await;
    control.workers.stop();
    last_words.await;
    tracing::info!(closed, "stopped");
    Ok(Stopped { closed })
}

/// Waits for the order to stop, or for nobody to be left who could give one.
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
    shortage: &'static Shortage,
    /// What was lacking when clients began to wait for it, until that is over.
    short_of: Option<api::ShortOf>,
    /// What probes may not hold until then.
    held_back: Option<OwnedSemaphorePermit>,
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
    /// What of the configuration in force takes effect only after a restart.
    needs_restart: Vec<String>,
    /// When what runs took effect.
    applied_at: Option<SystemTime>,
    /// How long the last reload that took effect needed.
    last_took: Option<Duration>,
}
