//! ADMIN: what sessions see while somebody hammers the admin port.
//!
//! A thousand connections, and what the kernel does for them, take from the cores that Ballast runs on, whoever
//! is hammered. So the same hammer meets a [`stranger`](crate::stranger) too, and what counts is how
//! sessions fare beside the one over how they fare beside the other.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{FAILED, Metric, Reading, Scenario, cpu_micros, crr, per_second};
use crate::bench::{BACKENDS, Bench};
use crate::front::{Contender, Front, Setting};
use crate::load::{Job, Kind, Report};
use crate::peers::BALLAST;

pub(super) static SCENARIO: Scenario = Scenario {
    name: "admin",
    about: "CRR and RR while 1,000 connections that are slow, malformed, huge, or read documents and scrape in a loop \
            hammer nobody, a stranger's port that answers as much, and the admin port; CPU is that of the whole \
            daemon, the admin port included",
    metrics: &[
        Metric::higher("quiet", "units/s", 0),
        Metric::higher("stranger / quiet", "rate", 3),
        Metric::higher("admin / quiet", "rate", 3),
        Metric::higher("admin / stranger", "rate", 3).compared(),
        Metric::lower("CPU", "×", 3),
        Metric::lower("p50", "×", 3),
        Metric::lower("p99", "×", 3),
        Metric::higher("stranger's answers", "per s", 0),
        Metric::higher("admin's answers", "per s", 0),
        FAILED,
    ],
    once: false,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    const SESSIONS: usize = 32;
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
    let admin = front.admin().context("it has an admin port")?;
    let crr = Kind::Crr {
        size: crr::SIZE,
        rate: None,
        count: None,
    };
    let mut readings = Vec::new();
    for (case, kind) in [("CRR", crr), ("RR", Kind::Rr { size: crr::SIZE })] {
        let job = bench.job(kind, SESSIONS, &front);
        let quiet = bench.load(&job)?;
        let (ours, answers) = beside_hammer(bench, &front, &job, admin)?;
        let size = answers.bytes / answers.units.max(1);
        let stranger = bench.stranger(size.try_into()?)?;
        let (theirs, their_answers) = beside_hammer(bench, &front, &job, stranger.address)?;
        drop(stranger);
        let rate = |one: &Report, other: &Report| per_second(one) / per_second(other);
        let over_theirs = |of: fn(&Report) -> f64| of(&ours) / of(&theirs);
        let cpu = cpu_micros(&ours).zip(cpu_micros(&theirs));
        readings.push(
            Reading::new(case)
                .with("quiet", per_second(&quiet))
                .with("stranger / quiet", rate(&theirs, &quiet))
                .with("admin / quiet", rate(&ours, &quiet))
                .with("admin / stranger", rate(&ours, &theirs))
                .with_some("CPU", cpu.map(|(ours, theirs)| ours / theirs))
                .with("p50", over_theirs(|report| report.latency.p50))
                .with("p99", over_theirs(|report| report.latency.p99))
                .with("stranger's answers", per_second(&their_answers))
                .with("admin's answers", per_second(&answers))
                .with_failures(&ours),
        );
    }
    Ok(readings)
}

/// The load while `target` is hammered, and what the hammer was answered.
fn beside_hammer(
    bench: &Bench,
    front: &Front<'_>,
    job: &Job,
    target: SocketAddr,
) -> Result<(Report, Report)> {
    const HAMMERS: usize = 1_000;
    let mut hammer = bench.begin(&Job {
        targets: vec![target],
        length: Duration::from_secs(120),
        ..bench.job(Kind::Hammer, HAMMERS, front)
    })?;
    hammer.measuring()?;
    // What it takes of the cores by itself says nothing of the daemon.
    hammer.give_way()?;
    let report = bench.load(job)?;
    Ok((report, hammer.finish()?))
}
