//! FAILOVER: one of four backend processes is killed under short sessions.

use std::thread;
use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario, crr};
use crate::bench::{BACKENDS, Bench};
use crate::front::Contender;
use crate::load::{Job, Kind};

pub(super) static SCENARIO: Scenario = Scenario {
    name: "failover",
    about: "SIGKILL to one of four backends under 32 CRR sessions: sessions that failed in all, those among them that \
            started after the kill (the others died with the backend that had them), and when the last one failed",
    metrics: &[
        Metric::lower("failed after", "sessions", 0).compared(),
        FAILED,
        Metric::lower("last failure", "ms after the kill", 1),
        Metric::lower("p99", "µs", 0),
    ],
    once: false,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    const SESSIONS: usize = 32;
    /// Health checks at their 2 s and three misses have had their turn by then.
    const AFTER: Duration = Duration::from_secs(7);
    if contender.peer().is_none() {
        return Ok(Vec::new());
    }
    let mut processes = (0..BACKENDS)
        .map(|_| bench.backends(1))
        .collect::<Result<Vec<_>>>()?;
    let addresses: Vec<_> = processes
        .iter()
        .flat_map(|process| process.addresses.clone())
        .collect();
    let front = bench.front(contender, &addresses)?;
    let kind = Kind::Crr {
        size: crr::SIZE,
        rate: None,
        count: None,
    };
    let before = bench.args.length();
    let after = if bench.args.quick { AFTER / 4 } else { AFTER };
    let mut load = bench.begin(&Job {
        length: before + after,
        ..bench.job(kind, SESSIONS, &front)
    })?;
    load.measuring()?;
    thread::sleep(before);
    let killed = SystemTime::now();
    drop(processes.pop());
    // Until the process is reaped its sockets may still answer; what starts meanwhile is not held against anybody.
    let gone = SystemTime::now();
    let report = load.report()?;
    let late = report
        .dated
        .iter()
        .filter(|failure| failure.started > gone)
        .count();
    let last = report
        .dated
        .iter()
        .filter_map(|failure| failure.failed.duration_since(killed).ok())
        .max();
    Ok(vec![
        Reading::new("1 of 4")
            .with("failed after", late as f64)
            .with("last failure", last.unwrap_or_default().as_secs_f64() * 1e3)
            .with("p99", report.latency.p99)
            .with_failures(&report),
    ])
}
