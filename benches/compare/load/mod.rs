//! The load generator: one job per process, given as JSON in an argument, its events and its report as
//! lines of JSON on standard output. Every session is checked: what comes back must be what was sent.
//! One file per kind of load; this one splits a job over threads, keeps the window in which things count,
//! and takes the proxy's CPU time at its two ends.

mod crr;
mod hammer;
mod hold;
mod rr;
mod stream;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, anyhow};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::proc;

/// A session without progress for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Failures whose times are kept; the rest is only counted.
const DATED_FAILURES: usize = 10_000;

/// What to do, and to whom.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) kind: Kind,
    /// Connections go to these in turn.
    pub(crate) targets: Vec<SocketAddr>,
    /// Sessions open at a time, over all threads.
    pub(crate) sessions: usize,
    pub(crate) threads: usize,
    /// Before anything counts.
    pub(crate) warm_up: Duration,
    /// How long it counts.
    pub(crate) length: Duration,
    /// The proxy whose CPU time, with that of its descendants, is taken over the window.
    pub(crate) proxy: Option<u32>,
}

/// The shape of the load.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// Connect, request, reply, close.
    Crr {
        /// Bytes of request and reply.
        size: usize,
        /// Sessions per second; without it, the next starts when one ends.
        rate: Option<f64>,
        /// Stops after so many sessions, whatever the window says.
        count: Option<u64>,
    },
    /// Ping-pong on open connections.
    Rr {
        /// Bytes of request and reply.
        size: usize,
    },
    /// As fast as possible.
    Stream(Direction),
    /// Opens, exchanges once, then keeps still until standard input ends, and exchanges once more.
    Hold,
    /// All that an admin port should bear, until standard input ends; its bytes are those of the answers.
    Hammer,
}

/// Seen from the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Direction {
    Up,
    Down,
    Both,
    /// Every other connection up, the rest down.
    Split,
}

/// What the process says while it runs.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// All sessions are open and warm, the window begins.
    Measuring,
    /// The end.
    Report(Box<Report>),
}

/// What came of a job.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Report {
    /// Seconds that the window lasted.
    pub(crate) seconds: f64,
    /// Sessions, or exchanges, that were complete and right within the window.
    pub(crate) units: u64,
    /// Payload moved within the window, both directions together.
    pub(crate) bytes: u64,
    /// Microseconds per unit.
    pub(crate) latency: Latency,
    /// Failed sessions by kind, warm-up included.
    pub(crate) failures: BTreeMap<String, u64>,
    /// When some of them failed.
    pub(crate) dated: Vec<Failure>,
    /// What the proxy spent.
    pub(crate) cpu: Option<Cpu>,
}

impl Report {
    pub(crate) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// The proxy's CPU time between two moments near the ends of the window, and what was done between the same two.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Cpu {
    /// utime + stime.
    pub(crate) seconds: f64,
    pub(crate) units: u64,
    pub(crate) bytes: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

/// One failed session.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) started: SystemTime,
    pub(crate) failed: SystemTime,
}

/// Why a session failed.
#[derive(Clone, Copy, Debug)]
enum Reason {
    Refused,
    Reset,
    /// FIN before the whole reply.
    Truncated,
    TimedOut,
    /// Not the bytes that were sent.
    Corrupt,
    /// Something local, such as no descriptor or no port left.
    Other,
}

impl Reason {
    fn of(error: &io::Error) -> Reason {
        match error
            .raw_os_error()
            .map(rustix::io::Errno::from_raw_os_error)
        {
            Some(rustix::io::Errno::CONNREFUSED) => Reason::Refused,
            Some(rustix::io::Errno::CONNRESET | rustix::io::Errno::PIPE) => Reason::Reset,
            Some(rustix::io::Errno::TIMEDOUT) => Reason::TimedOut,
            _ => Reason::Other,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Reason::Refused => "refused",
            Reason::Reset => "reset",
            Reason::Truncated => "truncated",
            Reason::TimedOut => "timed out",
            Reason::Corrupt => "corrupt",
            Reason::Other => "local error",
        }
    }
}

/// All that was done so far, inside the window and out of it, by all threads.
#[derive(Debug, Default)]
struct Progress {
    units: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    fn add(&self, units: u64, bytes: u64) {
        self.units.fetch_add(units, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn read(&self) -> (u64, u64) {
        (
            self.units.load(Ordering::Relaxed),
            self.bytes.load(Ordering::Relaxed),
        )
    }
}

/// What one thread counted.
struct Tally {
    units: u64,
    bytes: u64,
    /// Nanoseconds.
    latency: Histogram<u64>,
    failures: BTreeMap<&'static str, u64>,
    dated: Vec<Failure>,
    progress: Arc<Progress>,
}

impl Tally {
    fn new(progress: Arc<Progress>) -> Result<Tally> {
        Ok(Tally {
            progress,
            units: 0,
            bytes: 0,
            latency: Histogram::new(3)?,
            failures: BTreeMap::new(),
            dated: Vec::new(),
        })
    }

    /// A unit that moved `bytes` is complete; its latency counts only inside the window.
    fn done(&mut self, bytes: u64, latency: Option<Duration>) {
        self.progress.add(1, bytes);
        let Some(latency) = latency else { return };
        let nanos = latency.as_nanos().try_into().unwrap_or(u64::MAX);
        // The histogram grows by itself: it takes whatever a clock can say.
        if self.latency.record(nanos).is_ok() {
            self.units += 1;
            self.bytes += bytes;
        }
    }

    fn failed(&mut self, reason: Reason, started: Instant) {
        *self.failures.entry(reason.name()).or_default() += 1;
        let failed = SystemTime::now();
        // The last one is always known.
        self.dated.truncate(DATED_FAILURES - 1);
        self.dated.push(Failure {
            started: failed - started.elapsed(),
            failed,
        });
    }

    fn add(&mut self, other: &Tally) -> Result<()> {
        self.units += other.units;
        self.bytes += other.bytes;
        self.latency.add(&other.latency)?;
        for (reason, count) in &other.failures {
            *self.failures.entry(reason).or_default() += count;
        }
        self.dated.extend(&other.dated);
        Ok(())
    }

    fn report(self, seconds: f64, cpu: Option<Cpu>) -> Report {
        let micros = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1e3;
        Report {
            seconds,
            units: self.units,
            bytes: self.bytes,
            latency: Latency {
                p50: micros(0.5),
                p99: micros(0.99),
                p999: micros(0.999),
                max: micros(1.0),
            },
            failures: self
                .failures
                .iter()
                .map(|(reason, count)| ((*reason).to_owned(), *count))
                .collect(),
            dated: self.dated,
            cpu,
        }
    }
}

/// When things count.
#[derive(Clone, Copy, Debug)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn after(warm_up: Duration, length: Duration) -> Window {
        let begin = Instant::now() + warm_up;
        Window {
            begin,
            end: begin + length,
        }
    }

    fn contains(self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end
    }
}

/// The process's main: does the job and reports.
pub(crate) fn run(job: &Job) -> Result<()> {
    let whole: Option<fn(&Job) -> Result<Report>> = match job.kind {
        Kind::Hold => Some(hold::run),
        Kind::Hammer => Some(hammer::run),
        Kind::Crr { .. } | Kind::Rr { .. } | Kind::Stream(_) => None,
    };
    if let Some(run) = whole {
        return say(&Message::Report(Box::new(run(job)?)));
    }
    if let Kind::Crr {
        size,
        rate: None,
        count: Some(count),
    } = job.kind
    {
        let tally = crr::count(job, size, count, Tally::new(Arc::default())?)?;
        return say(&Message::Report(Box::new(tally.report(0.0, None))));
    }
    let threads = job.threads.clamp(1, job.sessions.max(1));
    // Once for "all sessions are open"; the threads then start their windows within microseconds.
    let open = Arc::new(Barrier::new(threads + 1));
    let progress = Arc::new(Progress::default());
    let tallies = (0..threads).map(|_| Tally::new(Arc::clone(&progress)));
    let workers: Vec<_> = tallies
        .collect::<Result<Vec<_>>>()?
        .into_iter()
        .enumerate()
        .map(|(index, tally)| {
            let (job, open) = (job.clone(), Arc::clone(&open));
            let share = job.sessions / threads + usize::from(index < job.sessions % threads);
            thread::spawn(move || match job.kind {
                Kind::Crr { size, rate, .. } => {
                    let rate = rate.map(|rate| rate / threads as f64);
                    open.wait();
                    crr::run(&job, size, share, rate, index, tally)
                }
                Kind::Rr { size } => rr::run(&job, size, share, index, &open, tally),
                Kind::Stream(direction) => stream::run(&job, direction, share, index, &open, tally),
                Kind::Hold | Kind::Hammer => Ok(tally),
            })
        })
        .collect();
    open.wait();
    let cpu = watch(job, &progress)?;
    let mut tally = Tally::new(progress)?;
    for worker in workers {
        tally.add(
            &worker
                .join()
                .map_err(|_| anyhow!("a load thread panicked"))??,
        )?;
    }
    say(&Message::Report(Box::new(
        tally.report(job.length.as_secs_f64(), cpu),
    )))
}

/// Sleeps through the window; takes the proxy's CPU time at its ends, and what was done by then, since on a
/// busy machine this thread wakes up late.
fn watch(job: &Job, progress: &Progress) -> Result<Option<Cpu>> {
    let window = Window::after(job.warm_up, job.length);
    // Looking for the proxy's processes takes milliseconds, which the warm-up has to spare.
    let processes = job.proxy.map(proc::family).unwrap_or_default();
    let sample = || {
        let (units, bytes) = progress.read();
        Cpu {
            seconds: proc::cpu_seconds(&processes),
            units,
            bytes,
        }
    };
    thread::sleep(window.begin.saturating_duration_since(Instant::now()));
    let before = sample();
    say(&Message::Measuring)?;
    thread::sleep(window.end.saturating_duration_since(Instant::now()));
    let after = sample();
    Ok(job.proxy.map(|_| Cpu {
        seconds: after.seconds - before.seconds,
        units: after.units - before.units,
        bytes: after.bytes - before.bytes,
    }))
}

/// A thread that ends when standard input does.
fn until_told() -> thread::JoinHandle<io::Result<u64>> {
    thread::spawn(|| io::copy(&mut io::stdin().lock(), &mut io::sink()))
}

fn say(message: &Message) -> Result<()> {
    use std::io::Write;
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, message)?;
    out.write_all(b"\n")?;
    out.flush().context("the parent is gone")
}

/// Opens `count` sessions one after the other, each proven by one echo of `request`: a start that floods no
/// backlog, and leaves every session established to its backend.
fn open(
    targets: &[SocketAddr],
    count: usize,
    offset: usize,
    request: &[u8],
) -> Result<Vec<std::net::TcpStream>> {
    use std::net::TcpStream;
    let mut sessions = Vec::with_capacity(count);
    for target in targets
        .iter()
        .cycle()
        .skip(offset % targets.len().max(1))
        .take(count)
    {
        let stream = TcpStream::connect_timeout(target, PATIENCE)
            .with_context(|| format!("session {} of {count} to {target}", sessions.len() + 1))?;
        stream.set_nodelay(true)?;
        exchange(&stream, request)
            .with_context(|| format!("first exchange of session {}", sessions.len() + 1))?;
        sessions.push(stream);
    }
    Ok(sessions)
}

/// One blocking echo.
pub(crate) fn exchange(mut stream: &std::net::TcpStream, request: &[u8]) -> Result<()> {
    use std::io::{Read, Write};
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(request)?;
    let mut reply = vec![0; request.len()];
    stream.read_exact(&mut reply)?;
    anyhow::ensure!(reply == request, "the reply is not what was sent");
    Ok(())
}
