//! On what a run was made: a figure without its machine is no figure.

use std::fs;
use std::time::SystemTime;

use serde::Serialize;

use crate::args::Args;
use crate::front::Contender;
use crate::peers::Missing;

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Environment {
    pub(crate) date: String,
    pub(crate) kernel: String,
    pub(crate) cores: usize,
    pub(crate) congestion_control: String,
    pub(crate) workers: usize,
    pub(crate) load_threads: usize,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Name and version, in the order of the tables.
    pub(crate) contenders: Vec<(String, String)>,
    /// Name and reason.
    pub(crate) missing: Vec<(String, String)>,
    pub(crate) warnings: Vec<String>,
}

impl Environment {
    pub(crate) fn read(args: &Args, contenders: &[Contender], missing: &[Missing]) -> Environment {
        let uname = rustix::system::uname();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let control = sysctl("net/ipv4/tcp_congestion_control");
        let mut warnings = Vec::new();
        if control == "bbr" {
            warnings.push(
                "congestion control is bbr, whose pacing distorts loopback: sysctl net.ipv4.tcp_congestion_control=cubic"
                    .to_owned(),
            );
        }
        if cores < args.workers + 2 * args.threads() {
            warnings.push(format!(
                "{} workers, client and backends share {cores} cores: compare CPU time and ratios, not rates",
                args.workers
            ));
        }
        let soft = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(u64::MAX);
        let needed = 2 * args.idle_sessions as u64 + 1_000;
        if soft < needed {
            warnings.push(format!(
                "at most {soft} descriptors per process; IDLE needs about {needed}"
            ));
        }
        Environment {
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            kernel: format!(
                "{} {} {}",
                uname.sysname().to_string_lossy(),
                uname.release().to_string_lossy(),
                uname.machine().to_string_lossy()
            ),
            cores,
            congestion_control: control,
            workers: args.workers,
            load_threads: args.threads(),
            rounds: args.rounds(),
            seconds: args.length().as_secs_f64(),
            contenders: contenders
                .iter()
                .map(|contender| {
                    let version = contender
                        .peer()
                        .map_or("no proxy".to_owned(), |peer| peer.version.clone());
                    (contender.name().to_owned(), version)
                })
                .collect(),
            missing: missing
                .iter()
                .map(|(name, reason)| ((*name).to_owned(), reason.clone()))
                .collect(),
            warnings,
        }
    }

    pub(crate) fn markdown(&self) -> String {
        let mut lines = vec![format!(
            "{}, {} cores, {} workers, {} load thread(s), {}, {} round(s) of {} s, {}.",
            self.kernel,
            self.cores,
            self.workers,
            self.load_threads,
            self.congestion_control,
            self.rounds,
            self.seconds,
            self.date
        )];
        let versions: Vec<_> = self
            .contenders
            .iter()
            .map(|(name, version)| format!("{name} ({version})"))
            .collect();
        lines.push(format!("Contenders: {}.", versions.join(", ")));
        lines.extend(
            self.missing
                .iter()
                .map(|(name, reason)| format!("Missing: {name}: {reason}.")),
        );
        lines.extend(
            self.warnings
                .iter()
                .map(|warning| format!("Warning: {warning}.")),
        );
        lines.join("\n\n")
    }
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{name}"))
        .map_or("unknown".to_owned(), |value| value.trim().to_owned())
}
