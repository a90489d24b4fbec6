//! What is measured: a row for every few seconds, and how everything stands while the load rests.

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ballast::api::View;

use crate::load::Load;
use crate::site::Site;
use crate::support::proc::{cpu_ticks, descriptors, resident_bytes};
use crate::support::{Api, Daemon};

/// Between two rows.
const STEP: Duration = Duration::from_secs(5);

/// How long it may take until nothing is left of the load: pipes that nobody uses are closed after a while.
const SETTLING: Duration = Duration::from_secs(90);

/// Of what comes and goes by itself at rest, such as the sockets of probes, the least within this counts. A thread
/// that runs what blocks stays for ten seconds after it.
const LOOKING: Duration = Duration::from_secs(12);

/// The columns of the table, `seconds` first.
pub const COLUMNS: [&str; 16] = [
    "seconds",
    "resident_mib",
    "descriptors",
    "threads",
    "sessions",
    "in_flight",
    "waiting",
    "pipes",
    "pipes_pooled",
    "cpu_percent",
    "sessions_per_second",
    "failed_per_second",
    "mib_per_second",
    "p50_ms",
    "p99_ms",
    "trouble",
];

/// Takes a row every [`STEP`] until it is ended.
pub struct Watch {
    shared: Arc<Shared>,
    load: Load,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    over: bool,
    /// What was done since the last row.
    troubles: Vec<String>,
}

/// How everything stands at rest.
pub struct Mark {
    pub when: &'static str,
    pub resident: u64,
    pub descriptors: u64,
    pub threads: u64,
    pub sessions: u64,
    pub in_flight: u64,
    pub waiting: u64,
    pub pipes: u64,
}

impl Watch {
    pub fn start(site: &Site, load: &Load, file: &Path) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let mut file = File::create(file).unwrap();
        writeln!(file, "{}", COLUMNS.join(",")).unwrap();
        let mut table = Table {
            file,
            api: site.api(),
            pid: site.daemon.pid(),
            began: Instant::now(),
            last: Instant::now(),
            ticks: 0,
            counted: (0, 0, 0),
        };
        let (inside, counting) = (Arc::clone(&shared), load.clone());
        let thread = thread::spawn(move || {
            let mut state = inside.lock();
            while !state.over {
                state = (inside
                    .changed
                    .wait_timeout_while(state, STEP, |it| !it.over))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
                let troubles = std::mem::take(&mut state.troubles).join(" + ");
                drop(state);
                table.row(&counting, &troubles);
                state = inside.lock();
            }
        });
        Self {
            shared,
            load: load.clone(),
            thread: Some(thread),
        }
    }

    /// Has the next row tell that this was done.
    pub fn note(&self, trouble: &str) {
        self.shared.lock().troubles.push(trouble.to_owned());
    }

    /// Sends the load away, waits until nothing is left of it that was not there at the `first` rest, and looks.
    pub fn rest(&self, site: &Site, when: &'static str, first: Option<&Mark>) -> Mark {
        self.note("rest");
        self.load.rest();
        let api = site.api();
        let began = Instant::now();
        let mut mark = Mark::now(when, &api, &site.daemon);
        while !mark.is_quiet(first) && began.elapsed() < SETTLING {
            thread::sleep(LOOKING / 40);
            let fewest = mark.descriptors;
            mark = Mark::now(when, &api, &site.daemon);
            // A probe, or this very question, takes one for a moment.
            mark.descriptors = mark.descriptors.min(fewest);
        }
        let began = Instant::now();
        while began.elapsed() < LOOKING {
            thread::sleep(LOOKING / 40);
            mark.least(&Mark::now(when, &api, &site.daemon));
        }
        println!("{mark}");
        mark
    }

    pub fn end(mut self) {
        self.shared.lock().over = true;
        self.shared.changed.notify_all();
        let thread = self.thread.take().expect("it is ended once");
        thread.join().expect("the watch sees to the end");
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    fn now(when: &'static str, api: &Api, daemon: &Daemon) -> Self {
        let view: View = api.get("/v1/view").good();
        let sum = Sum::of(&view);
        Self {
            when,
            resident: daemon.resident_bytes(),
            descriptors: daemon.descriptors() as u64,
            threads: threads(daemon.pid()),
            sessions: view.process.sessions,
            in_flight: sum.in_flight,
            waiting: sum.waiting,
            pipes: sum.pipes,
        }
    }

    fn is_quiet(&self, first: Option<&Mark>) -> bool {
        let is_back =
            |first: &Mark| self.descriptors <= first.descriptors && self.threads <= first.threads;
        let busy = self.sessions + self.in_flight + self.waiting + self.pipes;
        busy == 0 && first.is_none_or(is_back)
    }

    fn least(&mut self, other: &Self) {
        self.resident = self.resident.min(other.resident);
        self.descriptors = self.descriptors.min(other.descriptors);
        self.threads = self.threads.min(other.threads);
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at rest, {}: {} KiB resident, {} descriptors, {} threads, {} sessions, {} in flight, \
             {} waiting, {} pipes",
            self.when,
            self.resident >> 10,
            self.descriptors,
            self.threads,
            self.sessions,
            self.in_flight,
            self.waiting,
            self.pipes
        )
    }
}

/// What a view says of all services and workers together.
struct Sum {
    in_flight: u64,
    waiting: u64,
    pipes: u64,
    pooled: u64,
}

impl Sum {
    fn of(view: &View) -> Self {
        let services = || view.services.iter();
        let workers = || view.process.workers.iter();
        Self {
            in_flight: services()
                .flat_map(|it| &it.backends)
                .map(|it| it.traffic.sessions)
                .sum(),
            waiting: services().map(|it| it.queue.waiting).sum(),
            pipes: workers().map(|it| it.pipes).sum(),
            pooled: workers().map(|it| it.pipes_pooled).sum(),
        }
    }
}

struct Table {
    file: File,
    api: Api,
    pid: u32,
    began: Instant,
    last: Instant,
    ticks: u64,
    counted: (u64, u64, u64),
}

impl Table {
    fn row(&mut self, load: &Load, troubles: &str) {
        // While the daemon has no descriptors it may have none for us.
        let Ok(answer) = self.api.ask("GET", "/v1/view", None) else {
            return;
        };
        let view: View = answer.good();
        let sum = Sum::of(&view);
        let seconds = self.last.elapsed().as_secs_f64();
        self.last = Instant::now();
        let ticks = cpu_ticks(self.pid);
        let busy = ticks - std::mem::replace(&mut self.ticks, ticks);
        let interval = load.interval(&mut self.counted);
        let latency = |quantile: f64| {
            let last = interval.latencies.len().checked_sub(1)?;
            let index = (last as f64 * quantile).round() as usize;
            Some(interval.latencies[index].as_secs_f64() * 1e3)
        };
        let milliseconds = |it: Option<f64>| it.map_or(String::new(), |it| format!("{it:.2}"));
        let per_second = |count: u64| format!("{:.1}", count as f64 / seconds);
        let values = [
            format!("{:.1}", self.began.elapsed().as_secs_f64()),
            format!(
                "{:.2}",
                resident_bytes(self.pid) as f64 / f64::from(1 << 20)
            ),
            descriptors(self.pid).to_string(),
            threads(self.pid).to_string(),
            view.process.sessions.to_string(),
            sum.in_flight.to_string(),
            sum.waiting.to_string(),
            sum.pipes.to_string(),
            sum.pooled.to_string(),
            // A tick is 10 ms.
            format!("{:.0}", busy as f64 / seconds),
            per_second(interval.served),
            per_second(interval.excused),
            per_second(interval.bytes >> 20),
            milliseconds(latency(0.5)),
            milliseconds(latency(0.99)),
            troubles.to_owned(),
        ];
        writeln!(self.file, "{}", values.join(",")).unwrap();
    }
}

fn threads(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"));
    tasks.expect("the process runs").count() as u64
}
