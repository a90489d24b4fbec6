//! RR: ping-pong on connections that stay open.

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario, cpu_micros, per_second};
use crate::bench::{BACKENDS, Bench};
use crate::front::Contender;
use crate::load::Kind;

pub(super) static SCENARIO: Scenario = Scenario {
    name: "rr",
    about: "ping-pong on open connections; by connections × bytes each way",
    metrics: &[
        Metric::lower("CPU", "µs/exchange", 2).compared(),
        Metric::higher("rate", "exchanges/s", 0),
        Metric::lower("p50", "µs", 0).compared(),
        Metric::lower("p99", "µs", 0).compared(),
        Metric::lower("p99.9", "µs", 0),
        FAILED,
    ],
    once: false,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    let backends = bench.backends(BACKENDS)?;
    let front = bench.front(contender, &backends.addresses)?;
    let mut readings = Vec::new();
    for (sessions, size) in [(1, 64), (32, 64), (200, 64), (32, 1024), (32, 16 * 1024)] {
        let report = bench.load(&bench.job(Kind::Rr { size }, sessions, &front))?;
        readings.push(
            Reading::new(format!("{sessions} × {size} B"))
                .with_some("CPU", cpu_micros(&report))
                .with("rate", per_second(&report))
                .with_latency(&report)
                .with_failures(&report),
        );
    }
    Ok(readings)
}
