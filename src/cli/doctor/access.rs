//! Who may do what with which file, by the permission bits of the file and of every directory on the
//! way to it (path_resolution(7)). Knows no file system. Access control lists are not looked at: whoever uses
//! them has the answer of the daemon's log.

use std::path::{Path, PathBuf};

/// The user that the daemon runs as, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Who {
    /// For people: `ballast`, `uid 1000`.
    pub(super) name: String,
    pub(super) uid: u32,
    /// The first, and the others.
    pub(super) groups: Vec<u32>,
    /// The effective set, capabilities(7).
    pub(super) capabilities: u64,
}

/// Of the directories on the way to a file, and of the file, which is last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) path: PathBuf,
    /// The type and the permissions.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What one wants to do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Read,
    /// Of a directory: make and replace files in it.
    Write,
    Run,
}

/// May override the permissions of any file.
const DAC_OVERRIDE: u32 = 1;
/// May bind ports below 1024.
pub(super) const NET_BIND_SERVICE: u32 = 10;
/// May exceed what users share, such as pages of pipes.
pub(super) const SYS_RESOURCE: u32 = 24;

const READ: u32 = 0o4;
const WRITE: u32 = 0o2;
const EXECUTE: u32 = 0o1;
const STICKY: u32 = 0o1000;
const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

impl Who {
    pub(super) fn can(&self, capability: u32) -> bool {
        self.capabilities & 1 << capability != 0
    }

    fn may(&self, node: &Node, wanted: u32) -> bool {
        let any_execute = node.mode & 0o111 != 0;
        let executes_a_file = wanted & EXECUTE != 0 && !node.is_directory();
        if self.can(DAC_OVERRIDE) {
            return any_execute || !executes_a_file;
        }
        // The first that fits decides, even where a later one would allow more.
        let shift = if self.uid == node.uid {
            6
        } else if self.groups.contains(&node.gid) {
            3
        } else {
            0
        };
        (node.mode >> shift) & wanted == wanted
    }

    /// The first obstacle on the way, if there is one.
    pub(super) fn refused<'a>(&self, chain: &'a [Node], want: Want) -> Option<&'a Node> {
        let (last, way) = chain.split_last()?;
        let closed = way.iter().find(|node| !self.may(node, EXECUTE));
        let wanted = match want {
            Want::Read => READ,
            Want::Write => WRITE | EXECUTE,
            Want::Run => EXECUTE,
        };
        closed.or_else(|| (!self.may(last, wanted)).then_some(last))
    }
}

impl Node {
    pub(super) fn is_directory(&self) -> bool {
        self.mode & KIND == DIRECTORY
    }

    pub(super) fn is_regular(&self) -> bool {
        self.mode & KIND == REGULAR
    }

    /// As `ls` writes it: `rw-r-----`.
    pub(super) fn permissions(&self) -> String {
        let bits = (0..9).rev().map(|bit| match self.mode >> bit & 1 {
            0 => '-',
            _ => ['x', 'w', 'r'][bit % 3],
        });
        bits.collect()
    }
}

/// The node by which any user of the machine could put something else there.
pub(super) fn open_to_all(chain: &[Node]) -> Option<&Node> {
    let last = chain.len().checked_sub(1)?;
    chain.iter().enumerate().find_map(|(at, node)| {
        // In a sticky directory, such as /tmp, only the owner replaces a file.
        let shielded = at < last && node.mode & STICKY != 0;
        (node.mode & WRITE != 0 && !shielded).then_some(node)
    })
}

/// Whether any user of the machine could read it.
pub(super) fn readable_by_all(chain: &[Node]) -> bool {
    let Some((last, way)) = chain.split_last() else {
        return false;
    };
    last.mode & READ != 0 && way.iter().all(|node| node.mode & EXECUTE != 0)
}

/// `path`, quoted for a shell where it has to be.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |it: char| it.is_ascii_alphanumeric() || "/._-+@%:,".contains(it);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(uid: u32, groups: &[u32]) -> Who {
        Who {
            name: format!("uid {uid}"),
            uid,
            groups: groups.to_vec(),
            capabilities: 0,
        }
    }

    fn node(path: &str, mode: u32, uid: u32, gid: u32) -> Node {
        Node {
            path: path.into(),
            mode,
            uid,
            gid,
        }
    }

    fn chain(directory: u32, file: u32) -> Vec<Node> {
        vec![
            node("/", DIRECTORY | 0o755, 0, 0),
            node("/d", DIRECTORY | directory, 0, 7),
            node("/d/f", REGULAR | file, 0, 7),
        ]
    }

    fn obstacle(who: &Who, chain: &[Node], want: Want) -> Option<String> {
        let node = who.refused(chain, want)?;
        Some(node.path.display().to_string())
    }

    #[test]
    fn a_directory_on_the_way_can_be_the_obstacle() {
        let stranger = who(1000, &[1000]);
        let reads = |directory, file| obstacle(&stranger, &chain(directory, file), Want::Read);
        assert_eq!(reads(0o755, 0o644), None);
        assert_eq!(reads(0o750, 0o644).as_deref(), Some("/d"));
        assert_eq!(reads(0o755, 0o640).as_deref(), Some("/d/f"));
    }

    #[test]
    fn the_first_class_that_fits_decides() {
        let of_the_group = who(1000, &[1000, 7]);
        let reads = |file| obstacle(&of_the_group, &chain(0o750, file), Want::Read);
        assert_eq!(reads(0o640), None);
        // Others may, and the group may not.
        assert_eq!(reads(0o604).as_deref(), Some("/d/f"));
    }

    #[test]
    fn root_reads_everything_and_runs_what_somebody_may_run() {
        let root = Who {
            capabilities: u64::MAX,
            ..who(0, &[0])
        };
        assert_eq!(root.refused(&chain(0o000, 0o000), Want::Read), None);
        assert!(root.refused(&chain(0o755, 0o644), Want::Run).is_some());
        assert_eq!(root.refused(&chain(0o755, 0o645), Want::Run), None);
    }

    #[test]
    fn what_everybody_may_replace_is_found_and_a_sticky_directory_shields() {
        let found = |directory, file| {
            let chain = chain(directory, file);
            open_to_all(&chain).map(|it| it.path.display().to_string())
        };
        assert_eq!(found(0o755, 0o644), None);
        assert_eq!(found(0o755, 0o666).as_deref(), Some("/d/f"));
        assert_eq!(found(0o777, 0o644).as_deref(), Some("/d"));
        assert_eq!(found(0o1777, 0o644), None);
    }

    #[test]
    fn a_secret_behind_a_closed_directory_is_one() {
        assert!(readable_by_all(&chain(0o755, 0o644)));
        assert!(!readable_by_all(&chain(0o750, 0o644)));
        assert!(!readable_by_all(&chain(0o755, 0o640)));
        assert!(!readable_by_all(&[]));
    }

    #[test]
    fn permissions_are_written_as_ls_does() {
        assert_eq!(node("/", 0o100_640, 0, 0).permissions(), "rw-r-----");
        assert_eq!(node("/", 0o040_755, 0, 0).permissions(), "rwxr-xr-x");
    }

    #[test]
    fn a_path_can_be_pasted() {
        assert_eq!(quoted(Path::new("/etc/a.toml")), "/etc/a.toml");
        assert_eq!(quoted(Path::new("/a b's")), "'/a b'\\''s'");
    }
}
