//! Growth: how cost and latency change with the number of open sessions, of services and of backends, and
//! what a reload of a very long list costs. A healthy balancer shows flat lines.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::bench::{BACKENDS, Bench};
use crate::front::{Contender, Front, Setting};
use crate::load::{Job, Kind, Report};
use crate::peers::{BALLAST, OTHER};
use crate::proc;
use crate::scenarios::{Better, FAILED, Metric, Reading, Scenario, cpu_micros, per_second};

pub(crate) static ALL: [&Scenario; 4] = [&SESSIONS, &SERVICES, &LISTS, &RELOADS];

const METRICS: &[Metric] = &[
    Metric::lower("CPU", "µs/conn", 1).compared(),
    Metric::lower("p50", "µs", 0),
    Metric::lower("p99", "µs", 0).compared(),
    Metric::lower("p99.9", "µs", 0),
    Metric::higher("rate", "conn/s", 0),
    FAILED,
];

static SESSIONS: Scenario = Scenario {
    name: "sessions",
    about: "CRR, 10 at a time, beside so many established sessions less 10",
    metrics: METRICS,
    once: false,
    run: sessions,
};

static SERVICES: Scenario = Scenario {
    name: "services",
    about: "CRR, 32 at a time, over so many services in turn",
    metrics: METRICS,
    once: false,
    run: services,
};

static LISTS: Scenario = Scenario {
    name: "backends",
    about: "CRR, 32 at a time, over one service with so many backends",
    metrics: METRICS,
    once: false,
    run: backends,
};

static RELOADS: Scenario = Scenario {
    name: "reload",
    about: "reloads of one service with so many backends, each removing or adding one, under CRR at half speed: from \
            the signal to the log line that says \"reloaded\"",
    metrics: &[
        Metric::lower("reload", "ms", 1).compared(),
        Metric::lower("slowest", "ms", 1),
        Metric::lower("p99", "µs", 0).compared(),
        Metric::lower("p99 without", "µs", 0),
        Metric {
            key: "reloads",
            unit: "",
            digits: 0,
            compared: false,
            better: Better::Higher,
        },
        FAILED,
    ],
    once: false,
    run: reloads,
};

const SHORT: Kind = Kind::Crr {
    size: 64,
    rate: None,
    count: None,
};

/// Checks of thousands of backends every two seconds would drown what is measured here.
const RARELY: Duration = Duration::from_secs(3600);

fn sessions(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    const ACTIVE: usize = 10;
    let backends = bench.backends(BACKENDS)?;
    let front = bench.front(contender, &backends.addresses)?;
    let mut readings = Vec::new();
    for sessions in [10, 100, 1_000, 4_000, 8_000] {
        let hold = Job {
            length: Duration::from_secs(600),
            ..bench.job(Kind::Hold, sessions - ACTIVE, &front)
        };
        let mut held = bench.begin(&hold)?;
        held.measuring()?;
        let report = bench.load(&bench.job(SHORT, ACTIVE, &front))?;
        let held = held.finish()?;
        let mut reading = reading(sessions, &report);
        if held.failed() > 0 {
            reading.note = Some(format!("{} of the open sessions were lost", held.failed()));
        }
        readings.push(reading);
    }
    Ok(readings)
}

fn services(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    let backends = bench.backends(BACKENDS)?;
    let mut readings = Vec::new();
    for services in [1, 10, 100, 1_000] {
        let setting = Setting {
            services: vec![backends.addresses.clone(); services],
            check_interval: RARELY,
            ..Setting::new(&[], bench.args.workers)
        };
        let front = bench.front_of(contender, &setting)?;
        settle(&front);
        readings.push(reading(
            services,
            &bench.load(&bench.job(SHORT, 32, &front))?,
        ));
    }
    Ok(readings)
}

fn backends(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for count in [2, 10, 100, 1_000, 10_000] {
        let backends = bench.backends(count)?;
        let setting = Setting {
            check_interval: RARELY,
            ..Setting::new(&backends.addresses, bench.args.workers)
        };
        let front = bench.front_of(contender, &setting)?;
        settle(&front);
        readings.push(reading(count, &bench.load(&bench.job(SHORT, 32, &front))?));
    }
    Ok(readings)
}

fn reloads(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    /// From one signal to the next, the reload itself included if it is faster.
    const PERIOD: Duration = Duration::from_millis(500);
    const RELOADS: u32 = 6;
    // Only Ballast's log is known to say when a reload is over.
    if ![BALLAST, OTHER].contains(&contender.name()) {
        return Ok(Vec::new());
    }
    let mut readings = Vec::new();
    for count in [10, 1_000, 10_000] {
        let backends = bench.backends(count)?;
        let setting = Setting {
            check_interval: RARELY,
            ..Setting::new(&backends.addresses, bench.args.workers)
        };
        let front = bench.front_of(contender, &setting)?;
        settle(&front);
        let speed = per_second(&bench.load(&bench.job(SHORT, 32, &front))?);
        let half = Kind::Crr {
            size: 64,
            rate: Some(speed / 2.0),
            count: None,
        };
        let job = Job {
            length: PERIOD * (RELOADS + 1),
            ..bench.job(half, 256, &front)
        };
        let calm = bench.load(&job)?;
        let mut load = bench.begin(&job)?;
        load.measuring()?;
        let mut times = Vec::new();
        for number in 0..RELOADS {
            let next = Instant::now() + PERIOD;
            times.push(timed_reload(&front, usize::from(number % 2 == 0))?);
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        let report = load.report()?;
        times.sort();
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        readings.push(
            Reading::new(count.to_string())
                .with("reload", millis(times[times.len() / 2]))
                .with_some("slowest", times.last().copied().map(millis))
                .with("p99", report.latency.p99)
                .with("p99 without", calm.latency.p99)
                .with("reloads", times.len() as f64)
                .with_failures(&report),
        );
    }
    Ok(readings)
}

fn timed_reload(front: &Front<'_>, removed: usize) -> Result<Duration> {
    const PATIENCE: Duration = Duration::from_secs(10);
    let output = &front.group().context("no proxy")?.output;
    let position = output.position();
    let signalled = front.reload(removed)?;
    let ((), arrival, _) = output
        .wait_for(position, PATIENCE, |line| {
            line.to_lowercase().contains("reloaded").then_some(())
        })
        .with_context(|| format!("no line says \"reloaded\":\n{}", output.tail()))?;
    Ok(arrival - signalled)
}

fn reading(case: usize, report: &Report) -> Reading {
    Reading::new(case.to_string())
        .with_some("CPU", cpu_micros(report))
        .with("rate", per_second(report))
        .with_latency(report)
        .with_failures(report)
}

/// First probes of thousands of backends, and what else follows a start, are not what is measured.
fn settle(front: &Front<'_>) {
    const STEP: Duration = Duration::from_millis(500);
    const STEPS: usize = 40;
    /// Of one core.
    const QUIET: f64 = 0.04;
    let family = front.family();
    for _ in 0..STEPS {
        let before = proc::cpu_seconds(&family);
        thread::sleep(STEP);
        if proc::cpu_seconds(&family) - before <= QUIET * STEP.as_secs_f64() {
            return;
        }
    }
}
