//! SYSCALLS: what a short session makes the proxy ask of the kernel, counted by strace.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::{FAILED, Metric, Reading, Scenario, crr};
use crate::bench::{BACKENDS, Bench};
use crate::front::{Contender, Front};
use crate::load::{Job, Kind};
use crate::process::{Group, Signal};

pub(super) static SCENARIO: Scenario = Scenario {
    name: "syscalls",
    about: "system calls of the proxy per CRR session, by sessions at a time, counted by strace (which slows the proxy, \
            so that it finds more to do per wake-up than usual)",
    metrics: &[Metric::lower("calls", "per session", 2).compared(), FAILED],
    once: true,
    run,
};

fn run(bench: &Bench, contender: &Contender) -> Result<Vec<Reading>> {
    const COUNT: u64 = 2_000;
    if contender.peer().is_none() {
        return Ok(Vec::new());
    }
    let strace = Path::new("/usr/bin/strace");
    if !strace.is_file() {
        bail!("strace is missing (Debian: apt install strace)");
    }
    let backends = bench.backends(BACKENDS)?;
    let front = bench.front(contender, &backends.addresses)?;
    let summary = bench.path().join("strace");
    let mut readings = Vec::new();
    for sessions in [1, 32] {
        let kind = Kind::Crr {
            size: crr::SIZE,
            rate: None,
            count: Some(COUNT),
        };
        let job = bench.job(kind, sessions, &front);
        // What is done once per worker is no session's.
        bench.load(&Job {
            kind: Kind::Crr {
                size: crr::SIZE,
                rate: None,
                count: Some(100),
            },
            ..job.clone()
        })?;
        let trace = Trace::attach(strace, &front, &summary)?;
        let report = bench.load(&job)?;
        let calls = trace.detach()?;
        let total: u64 = calls.iter().map(|(_, count)| count).sum();
        let mut reading = Reading::new(sessions.to_string())
            .with("calls", total as f64 / COUNT as f64)
            .with_failures(&report);
        let each: Vec<_> = (calls.iter())
            .map(|(name, count)| (name, *count as f64 / COUNT as f64))
            .filter(|(_, share)| *share >= 0.01)
            .map(|(name, share)| format!("{name} {share:.2}"))
            .collect();
        reading.note = Some(each.join(", "));
        readings.push(reading);
    }
    Ok(readings)
}

/// strace on all threads of a proxy's processes.
struct Trace<'a> {
    group: Group,
    summary: &'a Path,
}

impl<'a> Trace<'a> {
    fn attach(strace: &Path, front: &Front<'_>, summary: &'a Path) -> Result<Trace<'a>> {
        const PATIENCE: Duration = Duration::from_secs(10);
        let family = front.family();
        let mut arguments = vec!["-c".into(), "-f".into(), "-o".into(), summary.into()];
        for id in &family {
            arguments.extend(["-p".into(), id.to_string().into()]);
        }
        let group = Group::program(strace, &arguments)?;
        let mut from = 0;
        for _ in &family {
            // "strace: Process 17 attached", or "... attached with 3 threads", one line per process.
            let attached = |line: &str| line.contains("attached").then_some(());
            let Some(((), _, next)) = group.output.wait_for(from, PATIENCE, attached) else {
                bail!("strace did not attach: {}", group.output.tail());
            };
            from = next;
        }
        Ok(Trace { group, summary })
    }

    /// Calls by name, most frequent first.
    fn detach(mut self) -> Result<Vec<(String, u64)>> {
        const PATIENCE: Duration = Duration::from_secs(10);
        self.group.signal(Signal::INT)?;
        if self.group.wait(PATIENCE).is_none() {
            bail!("strace did not end");
        }
        let summary = std::fs::read_to_string(self.summary).context("strace wrote no summary")?;
        // "% time  seconds  usecs/call  calls  [errors]  syscall"
        let mut calls: Vec<(String, u64)> = (summary.lines())
            .filter_map(|line| {
                let fields: Vec<_> = line.split_whitespace().collect();
                fields.first()?.parse::<f64>().ok()?;
                Some(((*fields.last()?).to_owned(), fields.get(3)?.parse().ok()?))
            })
            .filter(|(name, _)| name != "total")
            .collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        Ok(calls)
    }
}
