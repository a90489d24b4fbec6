//! Reading the file: the one impure step, and every way in which a path is not a readable text.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::access;
use super::compile::{Loaded, Rejected, compile_beside};
use super::problem::{Lack, Need, Problem, Problems, shown};
use super::source::Source;

/// What bars the daemon from something that a file counts on; a need's path is absolute.
pub type Seen<'a> = &'a dyn Fn(&Need) -> Option<Lack>;

/// Reads and checks the file at `path`.
///
/// # Errors
///
/// That the file cannot be read, or every problem of its text.
pub fn load(path: &Path) -> Result<Loaded, Rejected> {
    load_in_place_of(path, path, &|_| None)
}

/// Reads and checks the file at `copy`, whose relative paths are meant beside `path`; `bars` is asked of
/// everything that it counts on.
///
/// # Errors
///
/// That the file cannot be read, or every problem of its text.
pub fn load_in_place_of(path: &Path, copy: &Path, bars: Seen<'_>) -> Result<Loaded, Rejected> {
    in_place_of(path, copy, bars, "name another file with -c PATH")
}

/// The same of the file at `path` of a daemon that runs, which reads no other.
///
/// # Errors
///
/// That the file cannot be read, or every problem of its text.
pub fn load_again(path: &Path, bars: Seen<'_>) -> Result<Loaded, Rejected> {
    in_place_of(path, path, bars, "put it back: the daemon reads no other")
}

fn in_place_of(
    path: &Path,
    copy: &Path,
    bars: Seen<'_>,
    missing: &'static str,
) -> Result<Loaded, Rejected> {
    let loaded = text(copy, Some(missing), |text, origin| {
        compile_beside(text, origin, lacks(path, bars))
    })?;
    beside(path, loaded)
}

/// Checks a text that may take the place of the file at `path`; `origin` is what its problems name as the
/// file.
///
/// # Errors
///
/// Every problem of the text, or that it is too long for a file.
pub fn compile_in_place_of(
    path: &Path,
    text: &str,
    origin: &str,
    bars: Seen<'_>,
) -> Result<Loaded, Rejected> {
    if text.len() as u64 > LARGEST {
        let problem = Problem::error(Unreadable::TooLarge.to_string());
        return Err(Rejected::because(origin, problem));
    }
    beside(path, compile_beside(text, origin, lacks(path, bars))?)
}

/// What bars the daemon, and then what lacks, of a need of the file at `path`.
fn lacks(path: &Path, bars: Seen<'_>) -> impl Fn(&Need) -> Option<Lack> {
    let directory = path.parent().unwrap_or(Path::new(""));
    move |need| {
        let need = need.clone().within(directory);
        match bars(&need) {
            barred @ Some(Lack::Barred { .. }) => barred,
            // What is not there is unwise in no other way.
            other => lack(&need).map(Lack::Now).or(other),
        }
    }
}

/// What is `loaded`, with relative paths in it made to begin beside `path`, and lists of networks read.
fn beside(path: &Path, mut loaded: Loaded) -> Result<Loaded, Rejected> {
    let beside = path.parent().unwrap_or(Path::new(""));
    let needs = std::mem::take(&mut loaded.needs);
    loaded.needs = needs.into_iter().map(|need| need.within(beside)).collect();
    for service in &mut loaded.config.services {
        if let Some(file) = &mut service.backends_file {
            *file = beside.join(&*file).into();
        }
        if let Some(access) = &mut service.admission.access {
            access.complete(beside)?;
            if !access.is_whole() && service.shuts_everybody_out() {
                loaded.warnings.warn(access::shut(&service.name));
            }
        }
    }
    Ok(loaded)
}

/// What is wrong with something that a file counts on. Another user may see more, or less: only what is
/// seen for sure is told.
fn lack(need: &Need) -> Option<String> {
    let (what, path) = match need {
        Need::Program(path) => ("program", path),
        Need::Directory(path) => ("directory", path),
        // Whoever reads or makes it says what is wrong.
        Need::Later(_)
        | Need::Token(_)
        | Need::Secret(_)
        | Need::Socket(_)
        | Need::Account { .. } => return None,
    };
    let named = shown(&path.to_string_lossy());
    match (fs::metadata(path), need) {
        (Err(error), _) => (error.kind() == io::ErrorKind::NotFound)
            .then(|| format!("there is no {what} \"{named}\"")),
        (Ok(it), Need::Program(_)) if it.is_file() && it.permissions().mode() & 0o111 == 0 => {
            Some(format!("\"{named}\" is not executable"))
        }
        (Ok(it), Need::Directory(_)) => {
            (!it.is_dir()).then(|| format!("\"{named}\" is no directory"))
        }
        (
            Ok(it),
            Need::Program(_)
            | Need::Later(_)
            | Need::Token(_)
            | Need::Secret(_)
            | Need::Socket(_)
            | Need::Account { .. },
        ) => (!it.is_file()).then(|| format!("\"{named}\" is no regular file")),
    }
}

/// What `compile` makes of the text of a file; `missing` is the help for one that is not there.
pub(super) fn text<T>(
    path: &Path,
    missing: Option<&'static str>,
    compile: impl FnOnce(&str, &str) -> Result<T, Rejected>,
) -> Result<T, Rejected> {
    let origin = path.display().to_string();
    let bytes = read(path).map_err(|unreadable| {
        let help = match unreadable {
            Unreadable::Missing => missing,
            Unreadable::Forbidden
            | Unreadable::Irregular(_)
            | Unreadable::TooLarge
            | Unreadable::Failed(_) => unreadable.help(),
        };
        let problem = Problem::error(unreadable.to_string());
        Rejected::because(
            &origin,
            match help {
                Some(help) => problem.help(help),
                None => problem,
            },
        )
    })?;
    match std::str::from_utf8(&bytes) {
        Ok(text) => compile(text, &origin),
        Err(error) => Err(not_text(&bytes, error.valid_up_to(), &origin)),
    }
}

/// `runtime.state_file` as it is written in the file at `path`, which may be broken in any other way.
pub fn state_file(path: &Path) -> Option<PathBuf> {
    let bytes = read(path).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (tree, _) = DeTable::parse_recoverable(&text);
    let runtime = tree.get_ref().get("runtime")?.get_ref().as_table()?;
    let file = runtime.get("state_file")?.get_ref().as_str()?;
    Some(PathBuf::from(file)).filter(|file| file.is_absolute())
}

/// Where a daemon answers, as it is written in `[admin]` of its file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminDoors {
    /// Unix sockets.
    pub sockets: Vec<PathBuf>,
    /// Addresses with a port.
    pub listeners: Vec<String>,
    /// What opens them.
    pub token_file: Option<PathBuf>,
}

/// `[admin]` as it is written in the file at `path`, which may be broken in any other way: whoever looks
/// for the reason asks the daemon.
///
/// # Errors
///
/// Why the file cannot be read.
pub fn admin_doors(path: &Path) -> Result<AdminDoors, String> {
    let bytes = read(path).map_err(|unreadable| unreadable.to_string())?;
    let text = String::from_utf8_lossy(&bytes);
    let (tree, _) = DeTable::parse_recoverable(&text);
    let mut doors = AdminDoors::default();
    let admin = tree.get_ref().get("admin");
    let Some(admin) = admin.and_then(|admin| admin.get_ref().as_table()) else {
        return Ok(doors);
    };
    if let Some(listen) = admin.get("listen").map(toml::Spanned::get_ref) {
        let one = listen.as_str().into_iter();
        let many = listen.as_array().into_iter().flatten();
        let all = one.chain(many.filter_map(|it| it.get_ref().as_str()));
        for text in all {
            match text.strip_prefix("unix:") {
                Some(path) => doors.sockets.push(path.into()),
                None => doors.listeners.push(text.to_owned()),
            }
        }
    }
    let token_file = admin.get("token_file");
    doors.token_file = token_file.and_then(|it| it.get_ref().as_str().map(PathBuf::from));
    Ok(doors)
}

/// Why there is no text to check.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It is not there.
    #[error("no such file")]
    Missing,
    /// Others may be let in.
    #[error("permission denied")]
    Forbidden,
    /// It is something else.
    #[error("not a regular file but {0}")]
    Irregular(&'static str),
    /// Nobody has written that by hand.
    #[error("larger than {} MiB", LARGEST >> 20)]
    TooLarge,
    /// Anything else.
    #[error("cannot be read: {0}")]
    Failed(io::Error),
}

impl Unreadable {
    fn help(&self) -> Option<&'static str> {
        match self {
            Self::Forbidden => Some("the user that runs ballast needs to read it"),
            Self::TooLarge => Some("is this the right file?"),
            Self::Missing | Self::Irregular(_) | Self::Failed(_) => None,
        }
    }
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound {
            Self::Missing
        } else if error.kind() == io::ErrorKind::PermissionDenied {
            Self::Forbidden
        } else {
            Self::Failed(error)
        }
    }
}

/// All that is in the file at `path`, which is a regular one of a bounded size.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, Unreadable> {
    // Non-blocking, because opening a FIFO would otherwise wait for somebody to write to it, and a
    // reload would hang; what is opened is looked at, so nothing can be swapped in between.
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| match error.raw_os_error() {
            Some(libc::ENXIO) => Unreadable::Irregular("a socket"),
            _ => error.into(),
        })?;
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(Unreadable::Irregular("a directory"));
    }
    if !metadata.is_file() {
        return Err(Unreadable::Irregular("a pipe or a device"));
    }
    // The size may change while reading, and is 0 for files that the kernel makes up.
    let mut bytes = Vec::with_capacity(metadata.len().min(LARGEST) as usize);
    file.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Unreadable::TooLarge);
    }
    Ok(bytes)
}

fn not_text(bytes: &[u8], at: usize, origin: &str) -> Rejected {
    // The line is shown with its bad bytes replaced; up to the first of them nothing moves.
    let from = bytes[..at].iter().rposition(|&byte| byte == b'\n');
    let lines = bytes[..at].iter().filter(|&&byte| byte == b'\n').count();
    let from = from.map_or(0, |newline| newline + 1);
    let to = (at + MOST_SHOWN_AFTER).min(bytes.len());
    let text = format!(
        "{}{}",
        "\n".repeat(lines),
        String::from_utf8_lossy(&bytes[from..to])
    );
    let start = lines + (at - from);
    let mut problems = Problems::default();
    problems.add(
        Problem::error(format!(
            "not a text file: byte 0x{:02x} is not UTF-8",
            bytes.get(at).copied().unwrap_or_default()
        ))
        .at(start..start + char::REPLACEMENT_CHARACTER.len_utf8())
        .help("is this the right file? write it in UTF-8"),
    );
    Rejected::with(problems.report(origin, &Source::new(&text)))
}

/// The largest file that is read: thirty thousand backends fit.
const LARGEST: u64 = 4 << 20;
const MOST_SHOWN_AFTER: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn message(path: &Path) -> String {
        load(path).unwrap_err().lines().join("\n")
    }

    #[test]
    fn what_is_not_a_readable_file_is_said_without_hanging() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("none");
        assert!(message(&none).contains("no such file; name another file with -c PATH"));
        // A daemon that runs cannot be given another one.
        let again = load_again(&none, &|_| None).unwrap_err().lines().join("\n");
        assert!(again.contains("no such file; put it back"), "{again}");
        assert!(message(dir.path()).contains("a directory"));
        assert!(message(Path::new("/dev/null")).contains("a pipe or a device"));
        let fifo = dir.path().join("fifo");
        let made = std::process::Command::new("mkfifo").arg(&fifo).status();
        assert!(made.unwrap().success());
        assert!(message(&fifo).contains("a pipe or a device"));
        let socket = dir.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(message(&socket).contains("a socket"));
    }

    #[test]
    fn the_state_file_is_found_in_a_broken_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let found = |text: &str| {
            std::fs::write(&path, text).unwrap();
            state_file(&path)
        };
        let broken = "[runtime]\nstate_file = \"/var/lib/b/s.json\"\nworkers = \n[[service]\nx = [";
        assert_eq!(found(broken), Some(PathBuf::from("/var/lib/b/s.json")));
        assert_eq!(found("[runtime]\nstate_file = \"s.json\""), None);
        assert_eq!(found(""), None);
        assert_eq!(state_file(&dir.path().join("none")), None);
    }

    #[test]
    fn where_the_daemon_answers_is_found_in_a_broken_file_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let found = |text: &str| {
            std::fs::write(&path, text).unwrap();
            admin_doors(&path).unwrap()
        };
        assert_eq!(found("[[service]]\nname = 3"), AdminDoors::default());
        let text = "[admin]\nlisten = [\"127.0.0.1:9900\", \"unix:/run/b.sock\"]\n\
                    token_file = \"/etc/token\"\nx = \n[[service]]\nx = [";
        let doors = AdminDoors {
            sockets: vec!["/run/b.sock".into()],
            listeners: vec!["127.0.0.1:9900".into()],
            token_file: Some("/etc/token".into()),
        };
        assert_eq!(found(text), doors);
        assert_eq!(
            found("admin.listen = \"[::1]:1\"").listeners,
            ["[::1]:1".to_owned()]
        );
        assert_eq!(
            admin_doors(&dir.path().join("none")).unwrap_err(),
            "no such file"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_located() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, b"# fine\n# caf\xe9 au lait\n").unwrap();
        let lines = message(&path);
        assert!(
            lines.contains("f:2:6: not a text file: byte 0xe9"),
            "{lines}"
        );
    }

    #[test]
    fn a_file_beyond_the_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(message(&path).contains("larger than 4 MiB"));
    }
}
