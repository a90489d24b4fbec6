//! Which files the daemon may still open, as a Landlock rule set, landlock(7): the directories of its
//! configuration, of its state and of what the configuration names, and what the system's own look-ups
//! read. By directories, because whoever changes a file replaces it, and a rule for a file ends with it.
//!
//! The kernel knows these directories themselves, not their names: one that is made anew, or that a link leads to
//! instead, is another one. [`Reach::bars`] judges as the kernel does, and is the one place that says so.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, make_bitflags,
};

use crate::config::{Lack, Need};

/// A directory, or a file, and what may be done beneath it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Grant {
    path: PathBuf,
    access: Use,
}

/// What a directory is for; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    /// Files are read.
    Read,
    /// A Unix socket is made in it, and removed.
    Socket,
    /// Files are made in it, replaced and removed.
    Write,
}

/// What the system's own look-ups read: DNS servers and hosts, users and groups, the authorities of TLS,
/// modules of the C library's name service, the daemon's own figures. Everybody on the machine may read
/// these; what is secret in /etc is not readable for the user that the daemon runs as.
const SYSTEM: &[&str] = &[
    "/etc",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    "/proc",
];

/// The newest kernel interface whose rights are used; an older kernel's fewer rights are better than none.
const NEWEST: ABI = ABI::V5;

/// Directories that the environment names: the service manager's for state and for sockets, and where else
/// the authorities of TLS are.
const GIVEN: &[(&str, Use)] = &[
    ("STATE_DIRECTORY", Use::Write),
    ("RUNTIME_DIRECTORY", Use::Socket),
    ("SSL_CERT_DIR", Use::Read),
];
/// Like these, but a file.
const GIVEN_FILE: &str = "SSL_CERT_FILE";

/// What the environment grants; `variable` is how to ask it.
fn given(variable: impl Fn(&str) -> Option<OsString>) -> Vec<Grant> {
    let mut all = Vec::new();
    for (name, access) in GIVEN {
        let paths = variable(name).unwrap_or_default();
        let paths = env::split_paths(&paths).filter(|it| it.is_absolute());
        all.extend(paths.map(|path| grant(path, *access)));
    }
    if let Some(file) = variable(GIVEN_FILE) {
        all.push(grant(directory_of(Path::new(&file)), Use::Read));
    }
    all
}

/// The rule set for the configuration at `file`, which counts on `needs`, and what was `given` besides.
/// Programs are not in it: the runner starts them.
fn grants(file: &Path, needs: &[Need], given: Vec<Grant>) -> BTreeSet<Grant> {
    let system = SYSTEM.iter().map(|path| grant(path, Use::Read));
    let named = needs.iter().filter_map(needed);
    let own = grant(directory_of(file), Use::Read);
    system.chain(named).chain(given).chain([own]).collect()
}

fn grant(path: impl Into<PathBuf>, access: Use) -> Grant {
    Grant {
        path: path.into(),
        access,
    }
}

/// Where a need is met.
fn needed(need: &Need) -> Option<Grant> {
    match need {
        Need::Directory(path) => Some(grant(path, Use::Write)),
        Need::Socket(path) => Some(grant(directory_of(path), Use::Socket)),
        Need::Later(path) | Need::Token(path) | Need::Secret(path) => {
            Some(grant(directory_of(path), Use::Read))
        }
        Need::Program(_) | Need::Account { .. } => None,
    }
}

/// The directory that a file is in, unless that is the whole system.
fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if directory.as_os_str().is_empty() => Path::new("."),
        Some(directory) if directory != Path::new("/") => directory,
        Some(_) | None => file,
    }
}

/// What the daemon may open from now on.
#[derive(Debug)]
pub struct Reach {
    /// With every link followed, and what was there then.
    grants: Vec<(Grant, Node)>,
}

/// A directory or a file itself, whatever its name: device and number, and the time at which it was made, because
/// numbers are used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Node {
    device: u64,
    number: u64,
    made: Option<SystemTime>,
}

impl Node {
    fn of(path: &Path) -> Option<Self> {
        let metadata = path.metadata().ok()?;
        Some(Self {
            device: metadata.dev(),
            number: metadata.ino(),
            // Some file systems do not say.
            made: metadata.created().ok(),
        })
    }
}

impl Reach {
    /// For the configuration at `file` with its needs, in this environment.
    pub(super) fn of(file: &Path, needs: &[Need]) -> Self {
        let mut all = grants(file, needs, given(|name| env::var_os(name)));
        // A file that is a link is read where it leads to, and replaced there.
        let files = needs.iter().filter_map(Need::path).chain([file]);
        for real in files.filter_map(|path| path.canonicalize().ok()) {
            let writes = needs
                .iter()
                .any(|need| matches!(need, Need::Directory(of) if state_beneath(of, needs, &real)));
            if real.is_file() {
                let access = if writes { Use::Write } else { Use::Read };
                all.insert(grant(directory_of(&real), access));
            }
        }
        let real = all.into_iter().filter_map(|it| {
            let path = it.path.canonicalize().ok()?;
            let node = Node::of(&path)?;
            Some((grant(path, it.access), node))
        });
        Self {
            grants: real.collect(),
        }
    }

    /// What bars the daemon from a need that it did not have at the start.
    pub fn bars(&self, need: &Need) -> Option<Lack> {
        let wanted = needed(need)?;
        let named = need.path()?.display();
        // What is not there cannot be opened either: others tell.
        let place = wanted.path.canonicalize().ok()?;
        let real = match need {
            Need::Later(path) | Need::Token(path) | Need::Secret(path) => path.canonicalize().ok(),
            Need::Directory(_) | Need::Socket(_) | Need::Program(_) | Need::Account { .. } => None,
        };
        (!self.is_open(&real.unwrap_or(place), wanted.access)).then(|| Lack::Barred {
            message: format!("\"{named}\" is outside of the sandbox that was set up at the start"),
            help: "this needs a restart; what is in a directory that was there and that the file named at \
                   the start needs none"
                .to_owned(),
        })
    }

    /// Like [`bars`](Self::bars), of a file that is to be read, in one line.
    pub fn bars_file(&self, path: &Path) -> Option<String> {
        match self.bars(&Need::Later(path.to_owned()))? {
            Lack::Barred { message, help } => Some(format!("{message}: {help}")),
            Lack::Now(message) | Lack::Unwise { message, .. } => Some(message),
        }
    }

    /// Whether the kernel lets `path`, in which no link is left, be opened for that.
    fn is_open(&self, path: &Path, access: Use) -> bool {
        let granted = |it: Node| {
            let mut fitting = self.grants.iter().filter(|(of, _)| of.access >= access);
            fitting.any(|(_, node)| *node == it)
        };
        path.ancestors().filter_map(Node::of).any(granted)
    }

    /// Has the kernel hold this thread, and those that it starts, to it.
    pub(super) fn limit(&self) -> Result<Extent, RulesetError> {
        let rules = self.grants.iter().filter_map(|(it, _)| {
            // Gone since, or never there: nothing to grant.
            let opened = PathFd::new(&it.path).ok()?;
            Some(Ok::<_, RulesetError>(PathBeneath::new(
                opened,
                rights(it.access),
            )))
        });
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .create()?
            .add_rules(rules)?
            .restrict_self()?;
        Ok(match status.ruleset {
            RulesetStatus::FullyEnforced => Extent::Full,
            RulesetStatus::PartiallyEnforced => Extent::Partial,
            RulesetStatus::NotEnforced => Extent::None,
        })
    }
}

/// Whether `real` is what a state file in `directory` leads to.
fn state_beneath(directory: &Path, needs: &[Need], real: &Path) -> bool {
    needs.iter().any(|need| {
        matches!(need, Need::Later(file) if file.parent() == Some(directory)
            && file.canonicalize().is_ok_and(|it| it == real))
    })
}

fn rights(access: Use) -> BitFlags<AccessFs> {
    let read = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let socket = read | make_bitflags!(AccessFs::{MakeSock | RemoveFile});
    match access {
        Use::Read => read,
        Use::Socket => socket,
        Use::Write => socket | make_bitflags!(AccessFs::{WriteFile | Truncate | MakeReg}),
    }
}

/// How much of a rule set the kernel knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Full,
    /// What an older kernel knows.
    Partial,
    /// It has no Landlock, or leaves it off.
    None,
}

/// Whether this kernel has Landlock, for who asks without being held to anything.
pub fn kernel_has_landlock() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load;
    use std::fs;

    fn paths(all: &BTreeSet<Grant>, access: Use) -> Vec<&str> {
        let own = all.iter().filter(|it| it.access == access);
        let paths = own.filter_map(|it| it.path.to_str());
        paths.filter(|it| !SYSTEM.contains(it)).collect()
    }

    #[test]
    fn the_rule_set_is_what_the_file_names_and_nothing_of_it_is_executed() {
        let needs = [
            Need::Program("/usr/local/bin/check".into()),
            Need::Directory("/var/lib/b".into()),
            Need::Later("/var/lib/b/state.json".into()),
            Need::Socket("/run/b/admin.sock".into()),
            Need::Later("/srv/secret/token".into()),
            Need::Later("/token".into()),
        ];
        let file = Path::new("/etc/ballast/ballast.toml");
        let given = given(|name| match name {
            "STATE_DIRECTORY" => Some("/var/lib/ballast:/var/lib/more".into()),
            "RUNTIME_DIRECTORY" => Some("/run/ballast".into()),
            "SSL_CERT_FILE" => Some("/srv/trust/ca.pem".into()),
            _ => None,
        });
        let all = grants(file, &needs, given);
        assert_eq!(
            paths(&all, Use::Read),
            [
                "/etc/ballast",
                "/srv/secret",
                "/srv/trust",
                "/token",
                "/var/lib/b"
            ]
        );
        assert_eq!(paths(&all, Use::Socket), ["/run/b", "/run/ballast"]);
        assert_eq!(
            paths(&all, Use::Write),
            ["/var/lib/b", "/var/lib/ballast", "/var/lib/more"]
        );
        // The system's own is only read.
        let system = all
            .iter()
            .filter(|it| SYSTEM.contains(&it.path.to_str().unwrap()));
        assert!(system.clone().count() == SYSTEM.len());
        assert!(system.clone().all(|it| it.access == Use::Read));
        for access in [Use::Read, Use::Socket, Use::Write] {
            assert!(!rights(access).contains(AccessFs::Execute));
            assert!(!rights(access).contains(AccessFs::MakeSym));
        }
    }

    #[test]
    fn a_relative_configuration_is_beside_where_the_daemon_was_started() {
        let all = grants(Path::new("ballast.toml"), &[], Vec::new());
        assert_eq!(paths(&all, Use::Read), ["."]);
    }

    #[test]
    fn what_a_later_file_names_elsewhere_is_an_error_with_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let beside = |name: &str| directory.path().join(name);
        fs::create_dir(beside("conf")).unwrap();
        fs::create_dir(beside("lists")).unwrap();
        fs::create_dir(beside("other")).unwrap();
        for list in ["conf/one", "lists/two", "lists/three", "other/four"] {
            fs::write(beside(list), "10.0.0.0/8\n").unwrap();
        }
        std::os::unix::fs::symlink(beside("other/four"), beside("conf/link")).unwrap();
        let file = beside("conf/ballast.toml");
        let write = |list: &str| {
            let text = format!(
                "[[service]]\nname = \"s\"\nlisten = \"127.0.0.1:0\"\n\
                 [service.access]\nallow_file = \"{list}\"\n\
                 [[service.backend]]\naddress = \"10.0.0.1:80\"\n"
            );
            fs::write(&file, text).unwrap();
        };
        write("../lists/two");
        let loaded = load(&file).unwrap();
        let reach = Reach::of(&file, &loaded.needs);
        let again = |list: &str| {
            write(list);
            crate::config::load_in_place_of(&file, &file, &|need| reach.bars(need))
        };
        // The same file, its neighbour, and what is beside the configuration.
        for list in ["../lists/two", "../lists/three", "one"] {
            again(list).unwrap();
        }
        for list in ["../other/four", "link"] {
            let rejected = again(list).unwrap_err().lines().join("\n");
            assert!(rejected.contains("ballast.toml:5:14: "), "{rejected}");
            assert!(rejected.contains("outside of the sandbox"), "{rejected}");
        }
        let rejected = again("../other/four").unwrap_err().render(false);
        assert!(rejected.contains("needs a restart"), "{rejected}");
    }

    #[test]
    fn a_directory_that_is_another_one_by_now_is_outside_whatever_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let beside = |name: &str| directory.path().join(name);
        for name in ["conf", "old", "new"] {
            fs::create_dir(beside(name)).unwrap();
            fs::write(beside(name).join("list"), "").unwrap();
        }
        fs::write(beside("conf/ballast.toml"), "").unwrap();
        let link = |to: &str| {
            let draft = beside("draft");
            std::os::unix::fs::symlink(beside(to), &draft).unwrap();
            fs::rename(draft, beside("link")).unwrap();
        };
        link("old");
        let file = beside("conf/ballast.toml");
        let (list, state) = (beside("link/list"), beside("link"));
        let needs = [Need::Later(list.clone()), Need::Directory(state)];
        let reach = Reach::of(&file, &needs);
        let barred = || needs.iter().filter(|it| reach.bars(it).is_some()).count();
        assert_eq!(barred(), 0);
        assert_eq!(reach.bars_file(&file), None);

        link("new");
        assert_eq!(barred(), 2);
        let told = reach.bars_file(&list).unwrap();
        assert!(told.contains("link/list\" is outside"), "{told}");
        assert!(told.contains("needs a restart"), "{told}");
        // The one that was granted goes by another name: the kernel does not mind.
        fs::rename(beside("old"), beside("moved")).unwrap();
        link("moved");
        assert_eq!(barred(), 0);

        // Nor has the name of the configuration's own directory anything to do with it.
        fs::rename(beside("conf"), beside("former")).unwrap();
        fs::create_dir(beside("conf")).unwrap();
        fs::write(&file, "").unwrap();
        assert!(reach.bars_file(&file).is_some());
        assert_eq!(reach.bars_file(&beside("former/ballast.toml")), None);
    }

    #[test]
    fn a_directory_to_read_is_none_to_write() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ballast.toml");
        fs::write(&file, "").unwrap();
        let reach = Reach::of(&file, &[]);
        let read = Need::Later(directory.path().join("list"));
        assert_eq!(reach.bars(&read), None);
        let write = Need::Directory(directory.path().to_owned());
        assert!(reach.bars(&write).is_some());
        let socket = Need::Socket(directory.path().join("s"));
        assert!(reach.bars(&socket).is_some());
        assert_eq!(reach.bars(&Need::Program("/bin/true".into())), None);
    }
}
