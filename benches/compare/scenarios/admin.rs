//! ADMIN: what sessions see while somebody hammers the admin port.

use std::time::Duration;

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario, cpu_micros, crr, per_second};
use crate::bench::{BACKENDS, Bench};
use crate::front::{Contender, Setting};
use crate::load::{Job, Kind};
use crate::peers::BALLAST;

pub(super) static SCENARIO: Scenario = Scenario {
    name: "admin",
    about: "CRR and RR beside 1,000 connections to the admin port that are slow, malformed, huge, or read documents and \
            scrape in a loop, over the same without them; CPU is that of the whole daemon, the admin port included",
    metrics: &[
        Metric::higher("rate ratio", "×", 3).compared(),
        Metric::lower("CPU ratio", "×", 3),
        Metric::lower("p50 ratio", "×", 3),
        Metric::lower("p99 ratio", "×", 3),
        Metric::higher("rate", "units/s", 0),
        Metric::lower("p99", "µs", 0),
        Metric::higher("answers", "per s", 0),
        FAILED,
    ],
    once: false,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    const SESSIONS: usize = 32;
    const HAMMERS: usize = 1_000;
    // The others have no such port, or one of another kind.
    if contender.name() != BALLAST {
        return Ok(Vec::new());
    }
    let backends = bench.backends(BACKENDS)?;
    let setting = Setting {
        admin: true,
        ..Setting::new(&backends.addresses, bench.args.workers)
    };
    let front = bench.front_of(contender, &setting)?;
    let crr = Kind::Crr {
        size: crr::SIZE,
        rate: None,
        count: None,
    };
    let mut readings = Vec::new();
    for (case, kind) in [("CRR", crr), ("RR", Kind::Rr { size: crr::SIZE })] {
        let job = bench.job(kind, SESSIONS, &front);
        let calm = bench.load(&job)?;
        let mut hammer = bench.begin(&Job {
            targets: front.admin().into_iter().collect(),
            length: Duration::from_secs(120),
            ..bench.job(Kind::Hammer, HAMMERS, &front)
        })?;
        hammer.measuring()?;
        // What it takes of the cores by itself says nothing of the daemon.
        hammer.give_way()?;
        let report = bench.load(&job)?;
        let hammered = hammer.finish()?;
        let ratio = |of: fn(&crate::load::Report) -> f64| of(&report) / of(&calm);
        let cpu = cpu_micros(&report).zip(cpu_micros(&calm));
        readings.push(
            Reading::new(case)
                .with("rate ratio", ratio(per_second))
                .with_some("CPU ratio", cpu.map(|(with, without)| with / without))
                .with("p50 ratio", ratio(|report| report.latency.p50))
                .with("p99 ratio", ratio(|report| report.latency.p99))
                .with("rate", per_second(&report))
                .with("p99", report.latency.p99)
                .with("answers", per_second(&hammered))
                .with_failures(&report),
        );
    }
    Ok(readings)
}
