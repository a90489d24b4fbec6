//! STREAM: as fast as possible, every byte counted at both ends.

use anyhow::Result;

use super::{FAILED, Metric, Reading, Scenario};
use crate::bench::{BACKENDS, Bench};
use crate::front::Contender;
use crate::load::{Direction, Kind};

pub(super) static SCENARIO: Scenario = Scenario {
    name: "stream",
    about: "bulk, as fast as it goes; by connections and direction (up: to the backend; both directions add up)",
    metrics: &[
        Metric::higher("throughput", "GB/s", 2).compared(),
        Metric::lower("CPU", "s/GB", 3).compared(),
        FAILED,
    ],
    once: false,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    let backends = bench.backends(BACKENDS)?;
    let front = bench.front(contender, &backends.addresses)?;
    let mut readings = Vec::new();
    for sessions in [1, 2, 64] {
        for (direction, name) in [
            (Direction::Up, "up"),
            (Direction::Down, "down"),
            (Direction::Both, "both"),
        ] {
            let report = bench.load(&bench.job(Kind::Stream(direction), sessions, &front))?;
            let gigabytes = report.bytes as f64 / 1e9;
            readings.push(
                Reading::new(format!("{sessions} {name}"))
                    .with("throughput", gigabytes / report.seconds)
                    .with_some(
                        "CPU",
                        report.cpu.map(|cpu| cpu.seconds * 1e9 / cpu.bytes as f64),
                    )
                    .with_failures(&report),
            );
        }
    }
    Ok(readings)
}
