//! IDLE: what sessions cost that do nothing.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario};
use crate::bench::{BACKENDS, Bench};
use crate::front::Contender;
use crate::load::{Job, Kind};
use crate::proc;

pub(super) static SCENARIO: Scenario = Scenario {
    name: "idle",
    about: "idle sessions after one 64-byte exchange: growth of the proxy's resident memory, and its CPU at rest \
            (memory of the kernel's sockets not included)",
    metrics: &[
        Metric::lower("memory", "B/session (Pss)", 0).compared(),
        Metric::lower("Rss", "B/session", 0),
        Metric::lower("CPU at rest", "%", 2).compared(),
        FAILED,
    ],
    once: false,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    /// What opening leaves behind, such as timers of a few milliseconds, is over by then.
    const SETTLE: Duration = Duration::from_secs(1);
    if contender.peer().is_none() {
        return Ok(Vec::new());
    }
    let backends = bench.backends(BACKENDS)?;
    let front = bench.front(contender, &backends.addresses)?;
    // Buffers that a worker allocates once belong to no session.
    bench.load(&Job {
        length: Duration::from_millis(200),
        ..bench.job(Kind::Rr { size: 64 }, 16, &front)
    })?;
    let family = front.family();
    let before = proc::memory(&family);
    let sessions = bench.args.idle_sessions;
    let hold = Job {
        length: bench.args.rest() + Duration::from_secs(60),
        ..bench.job(Kind::Hold, sessions, &front)
    };
    let mut held = bench.begin(&hold)?;
    held.measuring()?;
    thread::sleep(SETTLE);
    let (begin, cpu) = (Instant::now(), proc::cpu_seconds(&family));
    thread::sleep(bench.args.rest());
    let cpu_at_rest = (proc::cpu_seconds(&family) - cpu) / begin.elapsed().as_secs_f64();
    let after = proc::memory(&family);
    let report = held.finish()?;
    Ok(vec![
        Reading::new(format!("{sessions} sessions"))
            .with("memory", (after.pss - before.pss) / sessions as f64)
            .with("Rss", (after.rss - before.rss) / sessions as f64)
            .with("CPU at rest", cpu_at_rest * 100.0)
            .with_failures(&report),
    ])
}
