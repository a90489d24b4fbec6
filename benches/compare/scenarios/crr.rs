//! CRR: connect, 64-byte request, 64-byte reply, close.

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario, cpu_micros, per_second};
use crate::bench::{BACKENDS, Bench};
use crate::front::Contender;
use crate::load::Kind;

pub(super) static SCENARIO: Scenario = Scenario {
    name: "crr",
    about: "connect, 64-byte request, 64-byte reply, close; by sessions at a time",
    metrics: &[
        Metric::lower("CPU", "µs/conn", 1).compared(),
        Metric::higher("rate", "conn/s", 0).compared(),
        Metric::lower("p50", "µs", 0),
        Metric::lower("p99", "µs", 0).compared(),
        Metric::lower("p99.9", "µs", 0),
        FAILED,
    ],
    once: false,
    run,
};

/// Bytes of request and reply.
pub(super) const SIZE: usize = 64;

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    let backends = bench.backends(BACKENDS)?;
    let front = bench.front(contender, &backends.addresses)?;
    let kind = Kind::Crr {
        size: SIZE,
        rate: None,
        count: None,
    };
    let mut readings = Vec::new();
    for sessions in [32, 256] {
        let report = bench.load(&bench.job(kind, sessions, &front))?;
        readings.push(
            Reading::new(sessions.to_string())
                .with_some("CPU", cpu_micros(&report))
                .with("rate", per_second(&report))
                .with_latency(&report)
                .with_failures(&report),
        );
    }
    Ok(readings)
}
