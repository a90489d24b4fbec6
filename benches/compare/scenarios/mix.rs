//! MIX: what a ping-pong sees beside bulk and crowds on the same daemon.

use std::time::Duration;

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario, cpu_micros, per_second};
use crate::bench::{BACKENDS, Bench};
use crate::front::{Contender, Setting};
use crate::load::{Direction, Job, Kind};

pub(super) static SCENARIO: Scenario = Scenario {
    name: "mix",
    about: "32 ping-pongs of 64 bytes beside 64 bulk streams (half up, half down, a service and backends of their own) \
            and 5,000 idle sessions on the same daemon; alone first, for comparison",
    metrics: &[
        Metric::lower("p50", "µs", 0),
        Metric::lower("p99", "µs", 0).compared(),
        Metric::lower("p99.9", "µs", 0),
        Metric::higher("rate", "exchanges/s", 0),
        Metric::higher("bulk", "GB/s", 2).compared(),
        Metric::lower("CPU", "µs/exchange", 2),
        FAILED,
    ],
    once: false,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    const PING_PONGS: usize = 32;
    const BULK: usize = 64;
    const IDLE: usize = 5_000;
    let (backends, bulk_backends) = (bench.backends(BACKENDS)?, bench.backends(BACKENDS)?);
    let setting = Setting {
        services: vec![backends.addresses.clone(), bulk_backends.addresses.clone()],
        ..Setting::new(&[], bench.args.workers)
    };
    let front = bench.front_of(contender, &setting)?;
    let (small, large) = (front.targets_of(0), front.targets_of(1));
    let job = |kind, sessions, targets: &[_]| Job {
        targets: targets.to_vec(),
        ..bench.job(kind, sessions, &front)
    };

    let ping_pong = job(Kind::Rr { size: 64 }, PING_PONGS, &small);
    let alone = bench.load(&ping_pong)?;

    let mut idle = bench.begin(&Job {
        length: Duration::from_secs(120),
        ..job(Kind::Hold, IDLE, &small)
    })?;
    idle.measuring()?;
    // The bulk begins before the ping-pong's window and ends after it, its slower start-up included.
    let margin = Duration::from_secs(1);
    let bulk_length = ping_pong.warm_up + ping_pong.length + margin;
    let mut bulk = bench.begin(&Job {
        length: bulk_length,
        ..job(Kind::Stream(Direction::Split), BULK, &large)
    })?;
    bulk.measuring()?;
    // Both ends of the bulk would take whole slices of a core each, and what waits for them in the
    // scheduler's queue says nothing of the proxy.
    bulk.give_way()?;
    bulk_backends.give_way()?;
    let beside = bench.load(&ping_pong)?;
    let bulk = bulk.report()?;
    let idle = idle.finish()?;

    let reading = |case, report| {
        Reading::new(case)
            .with_latency(report)
            .with("rate", per_second(report))
            .with_failures(report)
    };
    let mut all = beside;
    for (name, report) in [("bulk", &bulk), ("idle", &idle)] {
        let failures = report
            .failures
            .iter()
            .map(|(kind, count)| (format!("{kind} ({name})"), *count));
        all.failures.extend(failures);
    }
    Ok(vec![
        reading("alone", &alone).with_some("CPU", cpu_micros(&alone)),
        reading("mixed", &all).with("bulk", bulk.bytes as f64 / 1e9 / bulk.seconds),
    ])
}
