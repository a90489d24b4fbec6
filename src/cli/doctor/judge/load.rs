//! Whether there is enough of everything for the sessions that the file allows.

use super::{bytes, number, workers};
use crate::cli::doctor::Finding;
use crate::cli::doctor::access::SYS_RESOURCE;
use crate::cli::doctor::facts::Facts;
use crate::config::{Config, RelayMode};
use crate::control::capacity;
use crate::net::relay::MOST_PIPES;

/// Sessions at a time that the file and the descriptor limit allow together.
pub(super) fn sessions(facts: &Facts, config: &Config) -> u64 {
    let room = room(facts.descriptors, facts, config);
    let wanted = config.runtime.max_connections;
    wanted.map_or(room, |wanted| u64::from(wanted.get()).min(room))
}

fn room(descriptors: u64, facts: &Facts, config: &Config) -> u64 {
    let descriptors = usize::try_from(descriptors).unwrap_or(usize::MAX);
    capacity(descriptors, config, workers(facts, config)) as u64
}

/// The descriptor limit against `max_connections`.
pub(super) fn descriptors(facts: &Facts, config: &Config) -> Finding {
    let whose = match &facts.daemon {
        Some(daemon) => format!("of pid {}", daemon.pid),
        None => "of this shell; the unit sets its own".to_owned(),
    };
    let limit = number(facts.descriptors);
    let room = room(facts.descriptors, facts, config);
    let now = format!("{limit} ({whose}), room for {} sessions", number(room));
    let wanted = config.runtime.max_connections.map(|it| u64::from(it.get()));
    let Some(wanted) = wanted.or((room < FEW).then_some(FEW)) else {
        return Finding::fine("descriptors", now);
    };
    if wanted <= room {
        let now = format!("{now}, {} configured", number(wanted));
        return Finding::fine("descriptors", now);
    }
    let needed = needed(wanted, facts, config);
    let unit = [
        "sudo systemctl edit ballast".to_owned(),
        "[Service]".to_owned(),
        format!("LimitNOFILE={needed}"),
    ];
    let finding = match config.runtime.max_connections {
        Some(_) => Finding::problem("descriptors", now)
            .wanted(format!("{} for max_connections = {wanted}", number(needed)))
            .why("max_connections is lowered to what fits; clients beyond it wait in the backlog"),
        None => Finding::advice("descriptors", now)
            .wanted(format!("{} or more", number(needed)))
            .why("each session takes two; clients beyond that wait in the backlog"),
    };
    let finding = finding.fix(unit);
    // A limit beyond what the kernel gives to one process cannot be set at all.
    match facts.kernel.number("fs.nr_open") {
        Some(most) if most < needed => finding.sysctl("fs.nr_open", needed),
        _ => finding,
    }
}

/// Who has fewer has most likely forgotten to raise a limit.
const FEW: u64 = 1000;

/// The fewest descriptors with room for so many sessions.
fn needed(sessions: u64, facts: &Facts, config: &Config) -> u64 {
    // What is enough stays enough, so halving finds the least.
    let (mut short, mut enough) = (0, u64::from(u32::MAX) * 8);
    while short + 1 < enough {
        let middle = short + (enough - short) / 2;
        match room(middle, facts, config) >= sessions {
            true => enough = middle,
            false => short = middle,
        }
    }
    enough
}

/// Memory for that many sessions, all of them idle.
pub(super) fn memory(facts: &Facts, config: &Config) -> Option<Finding> {
    let available = facts.meters.available_bytes?;
    let sessions = sessions(facts, config);
    let needed = sessions.saturating_mul(PER_SESSION);
    let now = format!(
        "{} available; {} idle sessions take about {}",
        bytes(available),
        number(sessions),
        bytes(needed)
    );
    if needed <= available {
        return Some(Finding::fine("memory", now));
    }
    let fitting = available / 2 / PER_SESSION;
    // What follows from the descriptor limit alone nobody has asked for.
    let finding = match config.runtime.max_connections {
        Some(_) => Finding::problem("memory", now),
        None => Finding::advice("memory", now),
    };
    let finding = finding
        .wanted("sessions that fit, with as much again for what they have on the way")
        .why("when memory runs out the kernel drops packets, then ends processes")
        .fix([
            "[runtime]".to_owned(),
            format!("max_connections = {fitting}"),
        ]);
    Some(finding)
}

/// 1.4 KB of the daemon's, and 4.2 KB of the kernel's for each of two idle sockets; measured on Linux 6.18.
const PER_SESSION: u64 = 10 << 10;

/// Pages of pipes against what bulk sessions may take.
pub(super) fn pipes(facts: &Facts, config: &Config) -> Option<Finding> {
    let splices = config.services.iter().any(|it| it.relay != RelayMode::Copy);
    if !splices {
        return Some(Finding::fine("pipes", "none needed: relay = \"copy\""));
    }
    let exempt = facts.who.can(SYS_RESOURCE);
    let largest = facts.kernel.number("fs.pipe-max-size")?;
    if largest < PIPE && !exempt {
        let finding = Finding::advice("pipes", format!("{} at most", bytes(largest)))
            .wanted(bytes(PIPE))
            .why("bulk moves in smaller portions, or is copied, which takes more CPU")
            .sysctl("fs.pipe-max-size", PIPE);
        return Some(finding);
    }
    let most = workers(facts, config) as u64 * MOST_PIPES as u64;
    let pages = most * PIPE / PAGE;
    let limits = ["fs.pipe-user-pages-soft", "fs.pipe-user-pages-hard"];
    // 0 is no limit.
    let limit = |name: &&str| facts.kernel.number(name).filter(|it| *it > 0);
    let least = limits.iter().filter_map(|name| Some((limit(name)?, *name)));
    let short = least.filter(|(limit, _)| *limit < pages && !exempt).min();
    let Some((limit, name)) = short else {
        let now = format!("room for {} of {}", number(most), bytes(PIPE));
        return Some(Finding::fine("pipes", now));
    };
    let finding = Finding::advice(
        "pipes",
        format!(
            "{} pages for each user: {} pipes of {}",
            number(limit),
            number(limit * PAGE / PIPE),
            bytes(PIPE)
        ),
    )
    .wanted(format!(
        "{} pages, for {} pipes",
        number(pages),
        number(most)
    ))
    .why(
        "matters only where more bulk sessions than that move at the same moment: the others get \
         smaller pipes, or are copied, which takes more CPU",
    )
    .sysctl(name, pages);
    Some(finding)
}

/// What a direction that proves to be bulk asks for.
const PIPE: u64 = 1 << 20;
/// Of memory, on the machines that Ballast runs on.
const PAGE: u64 = 4096;
