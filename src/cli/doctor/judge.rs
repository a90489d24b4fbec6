//! What is wrong, and what to do about it: facts in, findings out. `load` is what the machine must be able
//! to carry, `network` how it treats connections, `rights` what the daemon may do with which file,
//! `sandbox` what else it may do.

mod load;
mod network;
mod rights;
mod sandbox;

use std::time::Duration;

use super::Finding;
use super::access::quoted;
use super::facts::{Clock, Facts};
use crate::cli::figures::grouped as number;
use crate::config::{Config, written};

/// Every finding, by topic.
pub(super) fn all(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![running(facts)];
    match &facts.config {
        Ok(config) => {
            findings.extend(of_file(facts, config));
        }
        Err(problems) => findings.push(
            Finding::problem("file", problems)
                .why("a start or a reload with it fails; what depends on it was not looked at")
                .fix([format!("ballast check -c {}", quoted(&facts.path))]),
        ),
    }
    if let Some(refusal) = &facts.refusal {
        findings.push(
            Finding::problem("user", refusal.trim_end())
                .why("a start with it fails, be it after an update or with the machine")
                .fix([format!("sudo ballast check -c {}", quoted(&facts.path))]),
        );
    }
    findings.extend(network::machine(facts));
    findings.extend(rights::files(facts));
    findings.push(clock(&facts.clock));
    findings
}

fn of_file(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = vec![load::descriptors(facts, config)];
    findings.extend(load::memory(facts, config));
    findings.extend(load::pipes(facts, config));
    findings.extend(network::listeners(facts));
    findings.extend(network::backlog(facts, config));
    findings.extend(network::ports(facts, config));
    findings.extend(network::conntrack(facts, config));
    findings.push(rights::privileged_ports(facts, config));
    findings.extend(sandbox::root(facts, config));
    findings.push(sandbox::sandbox(facts, config));
    findings
}

/// Worker threads, as a daemon would have them.
fn workers(facts: &Facts, config: &Config) -> usize {
    let configured = config.runtime.workers;
    configured.map_or(facts.cores, |workers| workers.get() as usize)
}

fn running(facts: &Facts) -> Finding {
    let Some(daemon) = &facts.daemon else {
        if let Some(pid) = facts.answered {
            let now = format!("runs, pid {pid}; as whom is not to be seen from here");
            return Finding::fine("daemon", now);
        }
        return Finding::fine(
            "daemon",
            format!(
                "none runs with this file; {} would start it with these limits",
                facts.who.name
            ),
        );
    };
    let now = format!("runs as {}, pid {}", daemon.who.name, daemon.pid);
    if daemon.outdated {
        return Finding::advice("daemon", format!("{now}; its program was replaced since"))
            .wanted("a restart, when it suits")
            .why("until then the former version runs; a restart is a stop and a start")
            .fix(["sudo systemctl restart ballast"]);
    }
    let swapped = daemon.swapped_bytes.unwrap_or(0);
    if swapped > SWAPPED {
        return Finding::advice("daemon", format!("{now}; {} swapped out", bytes(swapped)))
            .wanted("nothing of it on disk")
            .why("a session waits for the disk when its part of the memory comes back")
            .fix([
                "sudo systemctl edit ballast",
                "[Service]",
                "MemorySwapMax=0",
            ]);
    }
    Finding::fine("daemon", now)
}

/// Less than this is what a start needed once.
const SWAPPED: u64 = 4 << 20;

fn clock(clock: &Clock) -> Finding {
    let why = "times of logs and reports, expiring certificates and the age of the state file \
               are judged by it";
    let synchronise = ["sudo systemctl enable --now systemd-timesyncd"];
    if let Some(made) = clock.not_before
        && let Ok(behind) = made.duration_since(clock.now)
        && behind > SKEW
    {
        let behind = written(Duration::from_secs(behind.as_secs()));
        return Finding::problem("clock", format!("{behind} or more behind"))
            .wanted("the time: this very program is younger than the clock says")
            .why(why)
            .fix(synchronise);
    }
    match clock.synchronised {
        Some(true) => Finding::fine("clock", "synchronised"),
        Some(false) => Finding::advice("clock", "nobody keeps it right")
            .wanted("an NTP client, such as systemd-timesyncd or chrony")
            .why(why)
            .fix(synchronise),
        None => Finding::fine(
            "clock",
            "the kernel does not say whether it is synchronised",
        ),
    }
}

/// What file systems and builds may differ by.
const SKEW: Duration = Duration::from_secs(60);

/// `12 MiB`, for people.
fn bytes(number: u64) -> String {
    match number {
        0..1024 => format!("{number} bytes"),
        1024..1_048_576 => format!("{} KiB", number >> 10),
        1_048_576..10_737_418_240 => format!("{} MiB", number >> 20),
        _ => format!("{} GiB", number >> 30),
    }
}

#[cfg(test)]
mod tests;
