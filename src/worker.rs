//! One thread: its reactor, its accept loops, its sessions, its command inbox.
//!
//! A session lives and dies on one worker, so nothing on the way of a byte wakes another thread.
//! Only right after accept may a client be handed to a worker with fewer sessions. Control speaks
//! to a worker through its inbox and reads its load and its beat; it never touches a session.
//! A worker that panics outside a session, or stops on its own, takes the process with it: serving
//! half of the clients would be worse.

mod accept;
mod counting;
mod listing;

use std::collections::HashMap;
use std::io;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use tokio_util::task::task_tracker::TaskTrackerToken;

use self::accept::{Acceptor, Closing};
pub use self::listing::{Described, Found, Wanted};
use crate::config::ListenerId;
use crate::model::{Cause, Moment};
use crate::net::relay::Workspace;
use crate::net::{Listener, Registry, Shortage, Unregistered, reset_everything};
use crate::pool::{Door, Permits, Route, Service, Witness, moment};
use crate::reactor;
use crate::session::{self, Client, Context};
use crate::telemetry::Facts;

/// So many commands in a row, clients that others hand over above all, before bytes have their turn.
const COMMANDS: usize = 64;
/// How long the writer of the log is given before an abort.
const LAST_LINE: Duration = Duration::from_millis(100);
/// How long workers may take to stop, …
const STOPPING: Duration = Duration::from_secs(5);
/// … and how often that is looked at.
const LOOK: Duration = Duration::from_millis(1);

/// What a worker is asked to do. The inbox needs no bound of its own: clients in it hold permits,
/// and control sends a handful of the rest.
#[derive(Debug)]
pub enum Command {
    /// Accept from a socket.
    Listen {
        /// Whose socket it is.
        key: ListenerId,
        /// Where its clients go.
        route: Arc<Route>,
        /// The socket that it accepts from, which others may have as well.
        socket: Unregistered,
    },
    /// Accept what is in the queue, then let go of the socket.
    Close {
        /// Whose socket it is.
        key: ListenerId,
        /// When it is let go of, whoever still waits for room.
        until: Instant,
        /// Dropped when the socket is closed.
        done: TaskTrackerToken,
    },
    /// Serve a client that another worker accepted, counted already.
    Serve {
        /// The listener it came through.
        route: Arc<Route>,
        /// The client.
        client: Client,
    },
    /// Reset every session.
    EndAll(Cause),
    /// Reset sessions of some backends.
    EndMarked {
        /// Their marks, sorted.
        marks: Arc<[u32]>,
        /// Only those that began before this, if it is given.
        before: Option<Instant>,
        /// Why.
        cause: Cause,
        /// How many sessions, over all workers.
        allowance: Arc<Allowance>,
    },
    /// Tell which sessions there are.
    List {
        /// Those that are meant.
        wanted: Arc<Wanted>,
        /// Who has asked.
        reply: oneshot::Sender<Vec<Found>>,
    },
    /// Tell more of some of them.
    Describe {
        /// Which.
        which: Vec<Found>,
        /// Who has asked.
        reply: oneshot::Sender<Vec<Described>>,
    },
    /// Reset one session.
    EndOne {
        /// Its place …
        place: u32,
        /// … and when it began, as a moment: another one may have the place by now.
        began: Moment,
        /// Why.
        cause: Cause,
        /// Told whether it was there.
        reply: oneshot::Sender<bool>,
    },
    /// Have the running sessions of a service count towards a limit that is new.
    Count {
        /// Whose sessions.
        service: Arc<Service>,
        /// The limit.
        permits: &'static Permits,
    },
    /// Show that the worker is alive by storing this number.
    Beat(u64),
    /// Drop everything and end the thread.
    Stop,
}

/// What workers may do so many times between them, until control takes it back.
#[derive(Debug, Default)]
pub struct Allowance(AtomicU32);

impl Allowance {
    /// An allowance of `times`.
    pub fn of(times: u32) -> Arc<Self> {
        Arc::new(Self(AtomicU32::new(times)))
    }

    /// Takes one, if there is one left.
    fn take(&self) -> bool {
        let one_less = |left: u32| left.checked_sub(1);
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.is_ok()
    }

    /// Takes back what is left, and tells how much that was.
    pub fn revoke(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }
}

/// All workers, as control holds them.
#[derive(Debug)]
pub struct Workers {
    shared: &'static [Shared],
    inboxes: Vec<UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
}

/// What other threads see of a worker, on a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Shared {
    sessions: AtomicUsize,
    beat: AtomicU64,
    accept_errors: AtomicU64,
    pipes: AtomicUsize,
    pooled: AtomicUsize,
    busy: Busy,
}

/// Nanoseconds that a worker has not slept. It writes this all the time, so nobody else writes next to it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Busy(AtomicU64);

impl Shared {
    fn accept_failed(&self) {
        self.accept_errors.fetch_add(1, Ordering::Relaxed);
    }

    fn look(&self) -> Look {
        Look {
            sessions: self.sessions.load(Ordering::Relaxed),
            busy: Duration::from_nanos(self.busy.0.load(Ordering::Relaxed)),
            accept_errors: self.accept_errors.load(Ordering::Relaxed),
            pipes: self.pipes.load(Ordering::Relaxed),
            pooled: self.pooled.load(Ordering::Relaxed),
        }
    }
}

/// How a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Its sessions, clients on their way to it included.
    pub sessions: usize,
    /// How long it has not slept since it began.
    pub busy: Duration,
    /// Times that it could not accept because the process or the machine was out of something.
    pub accept_errors: u64,
    /// Pipes that it held at its last beat …
    pub pipes: usize,
    /// … and how many of them nobody used.
    pub pooled: usize,
}

impl Workers {
    /// Starts `count` workers that share `permits`, and tell `witness` of backends that fail and all of a
    /// `shortage`.
    ///
    /// # Errors
    /// When a thread cannot be made.
    pub fn start(
        count: usize,
        permits: &'static Permits,
        witness: &Witness,
        shortage: &'static Shortage,
    ) -> io::Result<Self> {
        // Lives as long as the process, so that a session need not count references.
        let shared: &'static [Shared] =
            Box::leak((0..count).map(|_| Shared::default()).collect::<Box<[_]>>());
        let (inboxes, receivers): (Vec<_>, Vec<_>) =
            (0..count).map(|_| mpsc::unbounded_channel()).unzip();
        let mut threads = Vec::with_capacity(count);
        for (index, inbox) in receivers.into_iter().enumerate() {
            let peers = Peers {
                own: index,
                shared,
                inboxes: inboxes.clone(),
            };
            let witness = witness.clone();
            threads.push(
                thread::Builder::new()
                    .name(format!("worker-{index}"))
                    .spawn(move || live(peers, permits, witness, shortage, inbox))?,
            );
        }
        Ok(Self {
            shared,
            inboxes,
            threads,
        })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.threads.len()
    }

    /// Sessions on all workers, clients on their way to one included.
    pub fn sessions(&self) -> usize {
        self.shared
            .iter()
            .map(|worker| worker.sessions.load(Ordering::Relaxed))
            .sum()
    }

    /// How each of them is.
    pub fn look(&self) -> impl Iterator<Item = Look> {
        self.shared.iter().map(Shared::look)
    }

    /// The number that the worker furthest behind has stored last.
    pub fn slowest_beat(&self) -> u64 {
        self.shared
            .iter()
            .map(|worker| worker.beat.load(Ordering::Relaxed))
            .min()
            .unwrap_or(0)
    }

    /// Gives each worker a command of its own.
    pub fn tell(&self, mut command: impl FnMut(usize) -> Command) {
        for (index, inbox) in self.inboxes.iter().enumerate() {
            // A worker whose inbox is closed has aborted the process, or is being stopped.
            if inbox.send(command(index)).is_err() {
                tracing::debug!(worker = index, "worker is gone");
            }
        }
    }

    /// A way to reach them for whoever waits for their answers.
    pub fn reach(&self) -> Reach {
        Reach(self.inboxes.clone())
    }

    /// Stops the threads; sessions that are left are reset. A thread that does not end in time is
    /// stuck, and ends the process.
    pub fn stop(self) {
        self.tell(|_| Command::Stop);
        let started = Instant::now();
        while !self.threads.iter().all(JoinHandle::is_finished) {
            if started.elapsed() > STOPPING {
                tracing::error!("a worker does not stop");
                die();
            }
            thread::sleep(LOOK);
        }
    }
}

/// All workers, as those hold them who ask beside control.
#[derive(Clone, Debug)]
pub struct Reach(Vec<UnboundedSender<Command>>);

impl Reach {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Gives one of them a command.
    pub fn tell(&self, worker: usize, command: Command) {
        if self.0[worker].send(command).is_err() {
            tracing::debug!(worker, "worker is gone");
        }
    }
}

/// One worker's view of all of them.
#[derive(Clone, Debug)]
struct Peers {
    own: usize,
    shared: &'static [Shared],
    inboxes: Vec<UnboundedSender<Command>>,
}

impl Peers {
    fn own(&self) -> &'static Shared {
        &self.shared[self.own]
    }

    /// Counts one more session towards the worker that is to serve it: this one, unless it has
    /// drifted away from the less loaded of two others drawn at random.
    fn seat(&self) -> (usize, Seat) {
        let sessions = |index: usize| self.shared[index].sessions.load(Ordering::Relaxed);
        let mut chosen = self.own;
        let others = self.shared.len() - 1;
        if others > 0 {
            let draw = || (self.own + 1 + fastrand::usize(..others)) % self.shared.len();
            let (one, two) = (draw(), draw());
            let other = if sessions(two) < sessions(one) {
                two
            } else {
                one
            };
            let own = sessions(self.own);
            let drift = (own / 8).max(2);
            if own >= sessions(other) + drift {
                chosen = other;
            }
        }
        let shared = &self.shared[chosen];
        shared.sessions.fetch_add(1, Ordering::Relaxed);
        (chosen, Seat(shared))
    }
}

/// One session counted towards a worker, until dropped.
#[derive(Debug)]
struct Seat(&'static Shared);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

fn live(
    peers: Peers,
    permits: &'static Permits,
    witness: Witness,
    shortage: &'static Shortage,
    inbox: UnboundedReceiver<Command>,
) {
    let own = peers.own;
    let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let busy = &peers.own().busy.0;
        reactor::run(
            async move {
                let worker = Worker::new(peers, permits, witness, shortage);
                worker.run(inbox).await;
            },
            busy,
        )
    }));
    match outcome {
        Ok(Ok(())) => {}
        Ok(Err(error)) => abort(own, &error.to_string()),
        Err(_) => abort(own, "it panicked"),
    }
}

fn abort(worker: usize, why: &str) -> ! {
    tracing::error!(worker, why, "worker died");
    die();
}

/// Ends the process at once: every session with RST, and with a core dump where those are wanted.
pub fn die() -> ! {
    reset_everything();
    // The log has a thread of its own; the last line deserves a moment.
    thread::sleep(LAST_LINE);
    std::process::abort();
}

/// Runs a task that the worker cannot do without. The reactor keeps a panic to the task, so it is
/// passed on from here.
fn spawn_essential(worker: usize, task: impl Future<Output = ()> + 'static) {
    struct Essential(usize);
    impl Drop for Essential {
        fn drop(&mut self) {
            if thread::panicking() {
                abort(self.0, "one of its tasks panicked");
            }
        }
    }
    reactor::spawn(async move {
        let _essential = Essential(worker);
        task.await;
    });
}

struct Worker {
    peers: Peers,
    permits: &'static Permits,
    context: Rc<Context>,
    accepting: HashMap<ListenerId, oneshot::Sender<Closing>>,
}

impl Worker {
    fn new(
        peers: Peers,
        permits: &'static Permits,
        witness: Witness,
        shortage: &'static Shortage,
    ) -> Self {
        let context = Rc::new(Context {
            worker: peers.own,
            registry: Registry::new(),
            workspace: Workspace::new(peers.own, shortage),
            witness,
            shortage,
        });
        Self {
            peers,
            permits,
            context,
            accepting: HashMap::new(),
        }
    }

    fn listen(&mut self, key: ListenerId, route: Arc<Route>, socket: Unregistered) {
        let (close, closing) = oneshot::channel();
        let acceptor = Acceptor {
            route: Door::new(route),
            peers: self.peers.clone(),
            permits: self.permits,
            context: Rc::clone(&self.context),
        };
        let listener = register(socket, self.peers.own);
        spawn_essential(self.peers.own, acceptor.run(listener, closing));
        self.accepting.insert(key, close);
    }

    async fn run(mut self, mut inbox: UnboundedReceiver<Command>) {
        let registry = self.context.registry.clone();
        spawn_essential(self.peers.own, async move { registry.drive().await });
        let mut carried_out = 0_usize;
        while let Some(command) = inbox.recv().await {
            carried_out += 1;
            if carried_out.is_multiple_of(COMMANDS) {
                reactor::yield_now().await;
            }
            match command {
                Command::Listen { key, route, socket } => self.listen(key, route, socket),
                Command::Close { key, until, done } => {
                    // The acceptor keeps the token until its socket is closed. One that is gone
                    // already has nothing to close.
                    if let Some(close) = self.accepting.remove(&key)
                        && close.send(Closing { until, done }).is_err()
                    {
                        tracing::debug!(?key, "listener is gone");
                    }
                }
                Command::Serve { route, client } => {
                    let seat = Seat(self.peers.own());
                    serve(&self.context, Door::new(route), client, seat);
                }
                Command::EndAll(cause) => {
                    self.context.registry.end_all(cause);
                }
                Command::EndMarked {
                    marks,
                    before,
                    cause,
                    allowance,
                } => {
                    let registry = &self.context.registry;
                    registry.end_marked(&marks, before, cause, || allowance.take());
                }
                Command::List { wanted, reply } => {
                    let context = Rc::clone(&self.context);
                    reactor::spawn(listing::list(context, wanted, reply));
                }
                Command::Describe { which, reply } => {
                    // Whoever has asked may be gone.
                    let _ = reply.send(listing::describe(&self.context.registry, &which));
                }
                Command::EndOne {
                    place,
                    began,
                    cause,
                    reply,
                } => {
                    let is_it = |it: &Facts| moment(it.started()) == began;
                    let _ = reply.send(self.context.registry.end_one(place, is_it, cause));
                }
                Command::Count { service, permits } => {
                    let context = Rc::clone(&self.context);
                    reactor::spawn(counting::count(context, service, permits));
                }
                Command::Beat(number) => {
                    let mut workspace = self.context.workspace.borrow_mut();
                    let (pipes, pooled) = workspace.pipes();
                    workspace.trim();
                    drop(workspace);
                    self.peers.own().pipes.store(pipes, Ordering::Relaxed);
                    self.peers.own().pooled.store(pooled, Ordering::Relaxed);
                    self.peers.own().beat.store(number, Ordering::Relaxed);
                }
                Command::Stop => return,
            }
        }
    }
}

/// Has `worker` accept from a socket: this thread. Where it is the only one to do so, clients would wait for nobody.
fn register(socket: Unregistered, worker: usize) -> Listener {
    Listener::register(socket)
        .unwrap_or_else(|error| abort(worker, &format!("cannot register a listener: {error}")))
}

fn serve(context: &Rc<Context>, route: Door, client: Client, seat: Seat) {
    reactor::spawn(session::serve(Rc::clone(context), route, client, seat));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn future_size<F: Future>(_: &dyn Fn(Rc<Context>, Door, Client, Seat) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_session_is_small() {
        // Thousands of them sit idle, and this is most of what each one costs.
        let size = future_size(&session::serve::<Seat>);
        assert!(size <= 624, "{size} bytes");
    }
}
