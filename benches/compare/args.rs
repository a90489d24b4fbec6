//! What can be asked of the bench on its command line.

use std::time::Duration;

use clap::Parser;

/// Compares Ballast with direct connections and with every other proxy installed here.
///
/// Results go to target/compare/ as JSON, Markdown and SVG while it runs.
#[derive(Clone, Debug, Parser)]
#[command(name = "compare")]
pub(crate) struct Args {
    /// Two rounds of short runs: to see that all works, not to quote
    #[arg(long)]
    pub(crate) quick: bool,

    /// Only these tests: crr, rr, stream, idle, churn, failover, mix, admin, syscalls, pick; of --growth
    /// sessions, services, backends, reload
    #[arg(long, value_delimiter = ',', value_name = "TEST")]
    pub(crate) only: Vec<String>,

    /// Only these contenders, by the names the table uses, e.g. direct,ballast,haproxy
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub(crate) peers: Vec<String>,

    /// Rounds; in each, every contender runs once, in an order that rotates [default: 5, or 2 with --quick]
    #[arg(long)]
    rounds: Option<usize>,

    /// Seconds that each single run is measured [default: 2, or 0.5 with --quick]
    #[arg(long)]
    seconds: Option<f64>,

    /// Workers of every proxy
    #[arg(long, default_value_t = 2)]
    pub(crate) workers: usize,

    /// Threads of the load generator and of the backends [default: a quarter of the cores, at least 1]
    #[arg(long)]
    threads: Option<usize>,

    /// Idle sessions of the IDLE test
    #[arg(long, default_value_t = 8_000)]
    pub(crate) idle_sessions: usize,

    /// Seconds at rest over which the IDLE test takes CPU time [default: 10, or 2 with --quick]
    #[arg(long)]
    idle_seconds: Option<f64>,

    /// Instead of the comparison: how figures grow with sessions, services and backends (Ballast unless --peers)
    #[arg(long)]
    pub(crate) growth: bool,

    /// Given by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 }).max(1)
    }

    /// How long one run is measured.
    pub(crate) fn length(&self) -> Duration {
        seconds(self.seconds.unwrap_or(if self.quick { 0.5 } else { 2.0 }))
    }

    /// How long one run goes before it is measured.
    pub(crate) fn warm_up(&self) -> Duration {
        (self.length() / 4).clamp(Duration::from_millis(200), Duration::from_secs(1))
    }

    pub(crate) fn rest(&self) -> Duration {
        seconds(
            self.idle_seconds
                .unwrap_or(if self.quick { 2.0 } else { 10.0 }),
        )
    }

    pub(crate) fn threads(&self) -> usize {
        /// The proxy gets most of the machine, client and backends a quarter each.
        const SHARE: usize = 4;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.threads.unwrap_or(cores / SHARE).max(1)
    }
}

fn seconds(value: f64) -> Duration {
    const RANGE: (f64, f64) = (0.1, 3600.0);
    // NaN becomes the lower bound.
    Duration::from_secs_f64(value.max(RANGE.0).min(RANGE.1))
}
