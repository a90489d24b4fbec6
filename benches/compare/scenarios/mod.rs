//! The tests. Each is a name, what it measures, and one function that runs it once for one contender; a new
//! one is a file and its line in [`ALL`]. Knows no proxy by name.

mod admin;
mod churn;
mod crr;
mod failover;
mod idle;
mod mix;
mod rr;
mod stream;
mod syscalls;

use anyhow::Result;

use crate::bench::Bench;
use crate::front::Contender;
use crate::load::Report;

pub(crate) static ALL: [&Scenario; 9] = [
    &crr::SCENARIO,
    &rr::SCENARIO,
    &stream::SCENARIO,
    &idle::SCENARIO,
    &churn::SCENARIO,
    &failover::SCENARIO,
    &mix::SCENARIO,
    &admin::SCENARIO,
    &syscalls::SCENARIO,
];

/// Where the test lives that is none of these.
pub(crate) const PICK: &str =
    "PICK (nanoseconds per pick) needs no sockets: cargo bench --bench micro";

/// One test.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// As `--only` takes it.
    pub(crate) name: &'static str,
    /// One sentence for the reader of a table.
    pub(crate) about: &'static str,
    pub(crate) metrics: &'static [Metric],
    /// Some counts are the same in every round.
    pub(crate) once: bool,
    pub(crate) run: fn(&Bench, &Contender) -> Result<Vec<Reading>>,
}

/// One column.
#[derive(Debug)]
pub(crate) struct Metric {
    pub(crate) key: &'static str,
    pub(crate) unit: &'static str,
    /// Digits after the point.
    pub(crate) digits: usize,
    /// Gets a chart and ratios.
    pub(crate) compared: bool,
    pub(crate) better: Better,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
}

impl Metric {
    pub(crate) const fn lower(key: &'static str, unit: &'static str, digits: usize) -> Metric {
        Metric {
            key,
            unit,
            digits,
            compared: false,
            better: Better::Lower,
        }
    }

    pub(crate) const fn higher(key: &'static str, unit: &'static str, digits: usize) -> Metric {
        Metric {
            key,
            unit,
            digits,
            compared: false,
            better: Better::Higher,
        }
    }

    pub(crate) const fn compared(mut self) -> Metric {
        self.compared = true;
        self
    }
}

/// In every table: sessions that were refused, reset, cut, corrupted or too slow.
pub(crate) const FAILED: Metric = Metric::lower("failed", "sessions", 0);

/// What one run gave for one case of a test.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    /// "32", "1 up".
    pub(crate) case: String,
    pub(crate) values: Vec<(&'static str, f64)>,
    /// Worth saying under the table.
    pub(crate) note: Option<String>,
}

impl Reading {
    pub(crate) fn new(case: impl Into<String>) -> Reading {
        Reading {
            case: case.into(),
            values: Vec::new(),
            note: None,
        }
    }

    pub(crate) fn with(mut self, key: &'static str, value: f64) -> Reading {
        self.values.push((key, value));
        self
    }

    /// Nothing is said of what was not measured: direct connections have no proxy to charge.
    pub(crate) fn with_some(mut self, key: &'static str, value: Option<f64>) -> Reading {
        self.values.extend(
            value
                .filter(|value| value.is_finite())
                .map(|value| (key, value)),
        );
        self
    }

    /// The failures of `report`, and their kinds as a note.
    pub(crate) fn with_failures(mut self, report: &Report) -> Reading {
        self.values.push((FAILED.key, report.failed() as f64));
        if !report.failures.is_empty() {
            let kinds: Vec<_> = report
                .failures
                .iter()
                .map(|(kind, count)| format!("{count} {kind}"))
                .collect();
            self.note = Some(kinds.join(", "));
        }
        self
    }

    /// Microseconds.
    pub(crate) fn with_latency(self, report: &Report) -> Reading {
        // Percentiles of nothing are nothing.
        let some = |value| (report.units > 0).then_some(value);
        self.with_some("p50", some(report.latency.p50))
            .with_some("p99", some(report.latency.p99))
            .with_some("p99.9", some(report.latency.p999))
    }
}

/// CPU time per unit of work, in microseconds.
pub(crate) fn cpu_micros(report: &Report) -> Option<f64> {
    report.cpu.map(|cpu| cpu.seconds * 1e6 / cpu.units as f64)
}

pub(crate) fn per_second(report: &Report) -> f64 {
    report.units as f64 / report.seconds
}
