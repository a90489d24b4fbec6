//! CHURN: short sessions at half of the contender's own speed while its configuration is read again every
//! second, each time with one backend of four less or more.

use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario, crr, per_second};
use crate::bench::{BACKENDS, Bench};
use crate::front::Contender;
use crate::load::{Job, Kind};

pub(super) static SCENARIO: Scenario = Scenario {
    name: "churn",
    about: "CRR at half speed with a reload every second that removes or adds one of four backends, beside the same \
            load without reloads; latency from the moment a session was due",
    metrics: &[
        FAILED,
        Metric::lower("p99 with reloads", "µs", 0).compared(),
        Metric::lower("p99 without", "µs", 0),
        Metric::lower("p99 ratio", "×", 2).compared(),
        Metric::higher("rate", "conn/s", 0),
        Metric::higher("reloads", "", 0),
    ],
    once: false,
    run,
};

/// Between two reloads.
const PERIOD: Duration = Duration::from_secs(1);

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    const SESSIONS: usize = 256;
    let backends = bench.backends(BACKENDS)?;
    let front = bench.front(contender, &backends.addresses)?;
    if !front.reloads() {
        return Ok(Vec::new());
    }
    let full = Kind::Crr {
        size: crr::SIZE,
        rate: None,
        count: None,
    };
    let speed = per_second(&bench.load(&bench.job(full, 32, &front))?);
    let half = Kind::Crr {
        size: crr::SIZE,
        rate: Some(speed / 2.0),
        count: None,
    };
    // At least two reloads, and whole periods.
    let periods = bench.args.length().as_secs().max(1) * 2;
    let job = Job {
        length: PERIOD * u32::try_from(periods)?,
        ..bench.job(half, SESSIONS, &front)
    };
    let calm = bench.load(&job)?;
    let mut load = bench.begin(&job)?;
    load.measuring()?;
    thread::sleep(PERIOD / 2);
    for number in 1..=periods {
        front.reload(usize::from(number % 2 == 1))?;
        if number < periods {
            thread::sleep(PERIOD);
        }
    }
    let report = load.report()?;
    Ok(vec![
        Reading::new("every second")
            .with("p99 with reloads", report.latency.p99)
            .with("p99 without", calm.latency.p99)
            .with("p99 ratio", report.latency.p99 / calm.latency.p99)
            .with("rate", per_second(&report))
            .with("reloads", periods as f64)
            .with_failures(&report),
    ])
}
