//! What /proc says of a process and its descendants: CPU time and resident memory.

use std::collections::BTreeMap;
use std::fs;
use std::sync::LazyLock;

/// Clock ticks per second of the times in /proc.
static TICKS: LazyLock<f64> = LazyLock::new(|| rustix::param::clock_ticks_per_second() as f64);

/// `root` and all its descendants, as far as they live.
pub(crate) fn family(root: u32) -> Vec<u32> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for id in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        if let Some(parent) = stat(id).and_then(|fields| fields.get(1)?.parse().ok()) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut family = vec![root];
    let mut next = 0;
    while let Some(id) = family.get(next) {
        family.extend(children.remove(id).unwrap_or_default());
        next += 1;
    }
    family
}

/// utime + stime of these processes together, their threads included. Steps of a clock tick (10 ms).
pub(crate) fn cpu_seconds(processes: &[u32]) -> f64 {
    let ticks = |id: &u32| -> Option<f64> {
        let fields = stat(*id)?;
        let time = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(time(11)? + time(12)?)
    };
    processes.iter().filter_map(ticks).sum::<f64>() / *TICKS
}

/// Resident memory of these processes together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Pages shared between processes counted once in each.
    pub(crate) rss: f64,
    /// Shared pages divided among those who share them; the fairer sum.
    pub(crate) pss: f64,
}

/// In bytes.
pub(crate) fn memory(processes: &[u32]) -> Memory {
    let mut sum = Memory::default();
    for id in processes {
        let rollup = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let bytes = |key: &str| -> f64 {
            let line = rollup.lines().find_map(|line| line.strip_prefix(key));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
            kib.unwrap_or(0.0) * 1024.0
        };
        sum.rss += bytes("Rss:");
        sum.pss += bytes("Pss:");
    }
    sum
}

/// The fields of /proc/ID/stat after the command's name, which may itself hold spaces and parentheses.
fn stat(id: u32) -> Option<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    let rest = &stat[stat.rfind(')')? + 1..];
    Some(rest.split_whitespace().map(str::to_owned).collect())
}
