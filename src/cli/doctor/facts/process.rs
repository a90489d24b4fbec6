//! The daemon that runs, by its entry in /proc, and as whom one would run otherwise.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit};

use super::super::access::{NET_BIND_SERVICE, Who};
use super::kibibytes;

/// A running `ballast run`.
#[derive(Clone, Debug)]
pub(crate) struct Daemon {
    pub(crate) pid: u32,
    pub(crate) who: Who,
    /// The limit that it has now.
    pub(crate) descriptors: Option<u64>,
    /// Its program was replaced since it has started.
    pub(crate) outdated: bool,
    /// What of it is not in memory.
    pub(crate) swapped_bytes: Option<u64>,
    pub(crate) state_directory: Option<PathBuf>,
    /// Its system calls go through a filter.
    pub(crate) filtered: bool,
}

impl Daemon {
    /// The one that was started with the file at `path`.
    pub(super) fn find(path: &Path) -> Option<Self> {
        let wanted = path.canonicalize().ok()?;
        let own = std::process::id();
        let numbers = fs::read_dir("/proc").ok()?.filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.parse::<u32>().ok()
        });
        let mut pids = numbers.filter(|pid| *pid != own);
        let pid = pids.find(|pid| file_of(*pid).is_some_and(|file| file == wanted))?;
        Self::of(pid)
    }

    fn of(pid: u32) -> Option<Self> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let status = read("status")?;
        let limits = read("limits").unwrap_or_default();
        let program = fs::read_link(format!("/proc/{pid}/exe"));
        let deleted = |it: PathBuf| it.as_os_str().as_bytes().ends_with(b" (deleted)");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|byte| *byte == 0);
        let state = variables.find_map(|it| it.strip_prefix(b"STATE_DIRECTORY="));
        Some(Self {
            pid,
            who: identity(&status)?,
            descriptors: open_files(&limits),
            outdated: program.is_ok_and(deleted),
            swapped_bytes: kibibytes(&status, "VmSwap:"),
            state_directory: state.map(|it| PathBuf::from(OsStr::from_bytes(it))),
            filtered: is_filtered(&status),
        })
    }
}

/// The configuration of the daemon that `pid` is, if it is one.
fn file_of(pid: u32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words: Vec<&OsStr> = line
        .split(|byte| *byte == 0)
        .map(OsStr::from_bytes)
        .collect();
    let file = named(&words)?;
    match file.is_absolute() {
        true => file.canonicalize().ok(),
        false => {
            let from = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
            from.join(file).canonicalize().ok()
        }
    }
}

/// The file that `ballast run …` was given.
fn named(words: &[&OsStr]) -> Option<PathBuf> {
    let (program, arguments) = words.split_first()?;
    if Path::new(program).file_name()? != "ballast" || *arguments.first()? != "run" {
        return None;
    }
    let mut arguments = arguments.iter();
    while let Some(word) = arguments.next() {
        let bytes = word.as_bytes();
        if bytes == b"-c" || bytes == b"--config" {
            return arguments.next().map(PathBuf::from);
        }
        let joined = bytes
            .strip_prefix(b"--config=")
            .or_else(|| bytes.strip_prefix(b"-c"));
        if let Some(file) = joined {
            return Some(PathBuf::from(OsStr::from_bytes(file)));
        }
    }
    Some(PathBuf::from(crate::cli::CONFIGURATION))
}

/// Of `/proc/PID/status`.
fn identity(status: &str) -> Option<Who> {
    let words = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.map(|it| it.split_whitespace().collect::<Vec<_>>())
    };
    // Real, effective, saved, of the file system.
    let uid = words("Uid:")?.get(1)?.parse().ok()?;
    let gid = words("Gid:")?.get(1)?.parse().ok();
    let others = words("Groups:").unwrap_or_default();
    let others = others.into_iter().filter_map(|it| it.parse().ok());
    let capabilities = words("CapEff:").unwrap_or_default();
    let capabilities = capabilities.first().copied().unwrap_or_default();
    Some(Who {
        name: name_of(uid),
        uid,
        groups: gid.into_iter().chain(others).collect(),
        capabilities: u64::from_str_radix(capabilities, 16).unwrap_or(0),
    })
}

/// `Seccomp: 2`: mode 2 is a filter, 0 nothing.
fn is_filtered(status: &str) -> bool {
    let mode = status.lines().find_map(|it| it.strip_prefix("Seccomp:"));
    mode.is_some_and(|it| it.trim() == "2")
}

/// `Max open files            1024                 524288               files`
fn open_files(limits: &str) -> Option<u64> {
    let line = limits
        .lines()
        .find_map(|it| it.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// What a daemon started from here would raise its limit to.
pub(super) fn own_descriptors() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// The `wanted` user, or the unit's, where an administrator asks and there is one; otherwise whoever asks.
pub(super) fn would_run_as(wanted: Option<&str>) -> Who {
    let own = fs::read_to_string("/proc/self/status");
    let own = own.ok().and_then(|status| identity(&status));
    let own = own.unwrap_or_else(|| Who {
        name: "nobody in particular".to_owned(),
        uid: u32::MAX,
        groups: Vec::new(),
        capabilities: 0,
    });
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let unit = match own.uid {
        0 => {
            let user = wanted.unwrap_or(USER);
            user_of(user, &text("/etc/passwd"), &text("/etc/group"))
        }
        _ => None,
    };
    unit.unwrap_or(own)
}

/// The user by this name or number, with the one capability that the unit, or the daemon itself, leaves it.
fn user_of(wanted: &str, passwd: &str, group: &str) -> Option<Who> {
    let is_wanted = |line: &&str| {
        line.split(':').next() == Some(wanted) || line.split(':').nth(2) == Some(wanted)
    };
    let mut fields = passwd.lines().find(is_wanted)?.split(':');
    let name = fields.next()?;
    let uid = fields.nth(1)?.parse().ok()?;
    let gid = fields.next()?.parse().ok()?;
    let others = group.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let gid = fields.next()?.parse().ok()?;
        let members = fields.next()?;
        members.split(',').any(|it| it == name).then_some(gid)
    });
    Some(Who {
        name: name.to_owned(),
        uid,
        groups: std::iter::once(gid).chain(others).collect(),
        capabilities: 1 << NET_BIND_SERVICE,
    })
}

const USER: &str = "ballast";

fn name_of(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_known_by_its_command_line() {
        let file = |line: &str| {
            let words: Vec<&OsStr> = line.split(' ').map(OsStr::new).collect();
            named(&words).map(|it| it.display().to_string())
        };
        assert_eq!(file("/usr/bin/ballast run -c /a").as_deref(), Some("/a"));
        assert_eq!(file("ballast run --config=b").as_deref(), Some("b"));
        assert_eq!(file("ballast run --last-good -c/c").as_deref(), Some("/c"));
        assert_eq!(
            file("ballast run").as_deref(),
            Some("/etc/ballast/ballast.toml")
        );
        assert_eq!(file("ballast check -c /a"), None);
        assert_eq!(file("/usr/bin/vim run -c /a"), None);
        assert_eq!(file(""), None);
    }

    #[test]
    fn an_identity_is_read_from_its_status() {
        let status = "Name:\tballast\nUid:\t0\t0\t0\t0\nGid:\t5\t6\t5\t5\nGroups:\t7 8 \n\
                      CapEff:\t0000000000000400\n";
        let who = identity(status).unwrap();
        assert_eq!((who.uid, who.groups.as_slice()), (0, &[6, 7, 8][..]));
        assert!(who.can(NET_BIND_SERVICE) && !who.can(1));
        assert_eq!(identity(""), None);
    }

    #[test]
    fn a_user_is_found_with_its_groups() {
        let passwd = "root:x:0:0::/:/bin/sh\nballast:x:991:990::/:/x\n";
        let group = "adm:x:4:a,ballast\nx:x:5:ballast2\nballast:x:990:\n";
        for wanted in ["ballast", "991"] {
            let who = user_of(wanted, passwd, group).unwrap();
            assert_eq!((who.name.as_str(), who.uid), ("ballast", 991));
            assert_eq!(who.groups, [990, 4]);
        }
        assert_eq!(user_of("ballast", "root:x:0:0::/:/bin/sh\n", group), None);
        assert!(is_filtered("Name:\tb\nSeccomp:\t2\n") && !is_filtered("Seccomp:\t0\n"));
    }

    #[test]
    fn the_descriptor_limit_is_the_soft_one() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\n\
                      Max open files            1024                 524288               files\n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files(""), None);
    }
}
