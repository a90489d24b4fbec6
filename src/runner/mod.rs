//! Starting programs for checks and alerts, in a small process of their own: the daemon starts it
//! before anything else and never starts another program itself, so that it can be locked down. The
//! two talk over a pair of Unix sockets; `frame` is what goes over it, `process` is the other end,
//! and `keeper` the process that starts it again when it has died.
//!
//! [`Process::start`] it once, [`Process::attach`] it to a runtime, then [`Runner::run`] jobs.

mod frame;
mod keeper;
mod process;

use std::collections::HashMap;
use std::io;
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use self::frame::{read, write};
use self::keeper::Keeper;

/// The hidden subcommand by which this program becomes the runner's keeper, …
pub const SUBCOMMAND: &str = "runner";
/// … and with this option the runner.
const WORKER: &str = "--worker";

/// Jobs that wait to be handed over; further ones wait for their turn.
const QUEUE: usize = 64;
/// Before a runner that died is started again; doubled with each one that dies soon, …
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// … up to this, and forgotten when one has lived for longer than it.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const TOO_LARGE: &str = "arguments, environment and input are larger than 1 MiB";

/// A program to run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Job {
    /// Its path, or a name to be found by `PATH`.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// What is added to the environment that the daemon was started with.
    pub env: Vec<(String, String)>,
    /// What it reads on its standard input.
    pub stdin: Vec<u8>,
    /// Its whole process group is killed after this long, the wait for its turn included.
    pub timeout: Duration,
}

/// What a program came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// The first [`Outcome::MOST_OUTPUT`] bytes of its standard output and error together.
    pub output: Vec<u8>,
}

impl Outcome {
    /// The longest output that is kept.
    pub const MOST_OUTPUT: usize = 4096;

    fn not_started(why: impl Into<String>) -> Self {
        Self {
            ended: Ended::NotStarted(why.into()),
            output: Vec::new(),
        }
    }
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signalled(i32),
    /// Killed with its process group, because its time was over.
    TimedOut,
    /// It never ran, and why.
    NotStarted(String),
}

/// The runner has ended: no program can be run until another one is there.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the runner is gone")]
pub struct Gone;

/// The runner's process, to which nobody speaks yet. It ends when this end of the sockets closes.
#[derive(Debug)]
pub struct Process {
    keeper: Keeper,
    socket: StdStream,
}

impl Process {
    /// Starts this very program again, as the keeper and as the runner.
    ///
    /// # Errors
    /// When the operating system lets no process be started.
    pub fn start() -> io::Result<Self> {
        let mut keeper = Keeper::start()?;
        let (socket, _) = keeper.runner()?;
        Ok(Self { keeper, socket })
    }

    /// Lets jobs be run from the runtime that this is called in. A runner that dies is started again.
    ///
    /// # Errors
    /// When the runtime cannot register the socket.
    pub fn attach(self) -> io::Result<Runner> {
        let first = register(self.socket)?;
        let (jobs, queue) = mpsc::channel(QUEUE);
        tokio::spawn(keep(self.keeper, first, queue));
        Ok(Runner { jobs })
    }
}

fn register(socket: StdStream) -> io::Result<UnixStream> {
    socket.set_nonblocking(true)?;
    UnixStream::from_std(socket)
}

/// Becomes what the hidden subcommand asks for: the runner if `worker`, otherwise its keeper.
///
/// # Errors
/// When there is no daemon, or it sends what is no job.
pub fn serve(worker: bool) -> io::Result<()> {
    match worker {
        true => process::serve(),
        false => keeper::serve(),
    }
}

/// Gives up what the daemon was given for its ports: they are not a program's business. A kernel or a
/// sandbox that does not know of such privileges gives none.
fn disarm() {
    let _ = rustix::thread::clear_ambient_capability_set();
}

/// Signals to the whole group, such as Ctrl-C in a terminal, are the daemon's business: it may drain for
/// long, and check all the while. Handlers do not survive an exec, so that programs start without them.
fn deaf() -> [io::Result<Signal>; 5] {
    [
        SignalKind::hangup(),
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::user_defined1(),
        SignalKind::user_defined2(),
    ]
    .map(signal)
}

/// The daemon's end. Clones share one process.
#[derive(Clone, Debug)]
pub struct Runner {
    jobs: mpsc::Sender<Asked>,
}

impl Runner {
    /// Runs a program, and waits until it has ended. One with more than a mebibyte of arguments,
    /// environment and input is not started.
    ///
    /// # Errors
    /// [`Gone`] when there is no runner any more.
    pub async fn run(&self, job: Job) -> Result<Outcome, Gone> {
        let (answer, outcome) = oneshot::channel();
        self.jobs.send((job, answer)).await.map_err(|_| Gone)?;
        outcome.await.map_err(|_| Gone)
    }
}

/// A job, and whom to tell what it came to.
type Asked = (Job, oneshot::Sender<Outcome>);

/// Has jobs run by one runner after the other, until nobody can ask any more.
async fn keep(mut keeper: Keeper, first: UnixStream, mut queue: mpsc::Receiver<Asked>) {
    let mut socket = first;
    let mut pause = SHORTEST_PAUSE;
    loop {
        let since = Instant::now();
        if exchange(socket, &mut queue).await == Side::Daemon {
            return;
        }
        if since.elapsed() > LONGEST_PAUSE {
            pause = SHORTEST_PAUSE;
        }
        tracing::error!(
            "the runner is gone: exec checks keep their last verdict, and alerts start no program, until another one is there"
        );
        let (next, status);
        (next, status) = loop {
            // Who asks meanwhile is told at once that there is none.
            let over = sleep(pause);
            tokio::pin!(over);
            loop {
                tokio::select! {
                    () = &mut over => break,
                    asked = queue.recv() => match asked {
                        Some(asked) => drop(asked),
                        None => return,
                    },
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            let asked = spawn_blocking(move || (another(&mut keeper), keeper)).await;
            let Ok((started, back)) = asked else {
                // The panic itself is logged.
                return;
            };
            keeper = back;
            match started.and_then(|(socket, status)| Ok((register(socket)?, status))) {
                Ok(next) => break next,
                Err(error) => tracing::warn!(%error, "the runner cannot be started again yet"),
            }
        };
        socket = next;
        tracing::info!(
            status = status.map(tracing::field::display),
            "the runner is back"
        );
    }
}

/// Another runner, by another keeper where that one is gone too: which only a daemon without a sandbox may
/// start.
fn another(keeper: &mut Keeper) -> io::Result<(StdStream, Option<ExitStatus>)> {
    if keeper.is_gone() {
        *keeper = Keeper::start().map_err(|error| {
            let why = format!("its keeper is gone too, and only a restart brings it back: {error}");
            io::Error::new(error.kind(), why)
        })?;
    }
    keeper.runner()
}

/// Who ended an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Daemon,
    Runner,
}

/// Hands jobs over and outcomes back, until either side is gone.
async fn exchange(socket: UnixStream, queue: &mut mpsc::Receiver<Asked>) -> Side {
    let (mut incoming, mut outgoing) = socket.into_split();
    let (outcomes, mut done) = mpsc::channel(QUEUE);
    // A task of its own, because reading half a frame must not be given up for something else.
    tokio::spawn(async move {
        while let Ok(Some((number, outcome))) = read(&mut incoming).await {
            if outcomes.send((number, outcome)).await.is_err() {
                return;
            }
        }
    });
    let mut waiting: HashMap<u64, oneshot::Sender<Outcome>> = HashMap::new();
    let mut next = 0;
    loop {
        tokio::select! {
            outcome = done.recv() => match outcome {
                Some((number, outcome)) => {
                    if let Some(answer) = waiting.remove(&number) {
                        // Whoever asked may have given up.
                        let _ = answer.send(outcome);
                    }
                }
                None => return Side::Runner,
            },
            job = queue.recv() => match job {
                Some((job, answer)) => {
                    next += 1;
                    let Some(frame) = write(next, &job) else {
                        // As above.
                        let _ = answer.send(Outcome::not_started(TOO_LARGE));
                        continue;
                    };
                    waiting.insert(next, answer);
                    if outgoing.write_all(&frame).await.is_err() {
                        return Side::Runner;
                    }
                }
                // Nobody can ask any more: control is over.
                None => return Side::Daemon,
            },
        }
    }
}
