//! Sockets at paths: made so that nobody gets in who may not, and that a daemon that was killed does not
//! keep the next one out. Services and the admin API listen on them.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::unistd::{Group, User};
use rustix::fs::{AtFlags, CWD, Gid, RenameFlags, Uid, chownat, renameat_with};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::config::SocketAccess;

/// What a socket is called in addition while nobody is to find it: before it opens, and before it closes.
const ASIDE: &str = ".aside";

/// How many may wait until the caller says how many.
const AT_FIRST: i32 = 1;

/// Why there is no socket at a path.
#[derive(Debug, Error)]
pub enum Why {
    /// Somebody else listens.
    #[error(
        "another process, or a listener of a service, has it: 'ss -ltnp' tells who ('ss -lxp' at a path)"
    )]
    Taken,
    /// It is not ours to remove.
    #[error("something else than a socket is there")]
    NoSocket,
    /// It is not ours to remove either, and the socket would have this name for a while.
    #[error("something else than a socket is at \"{}\"", .0.display())]
    InTheWay(PathBuf),
    /// It would have to be made first.
    #[error("its directory does not exist")]
    NoDirectory,
    /// The owner is nobody.
    #[error("no user is named `{0}`")]
    NoUser(String),
    /// The group is none.
    #[error("no group is named `{0}`")]
    NoGroup(String),
    /// The kernel does not let us.
    #[error("its owner or mode cannot be set: {0}")]
    Access(io::Error),
    /// Anything else.
    #[error("{0}")]
    Io(io::Error),
}

impl From<io::Error> for Why {
    fn from(error: io::Error) -> Self {
        match error.kind() == io::ErrorKind::AddrInUse {
            true => Self::Taken,
            false => Self::Io(error),
        }
    }
}

/// A socket that listens at `path`, and that those may connect to whom `access` lets. Nobody finds it before it is
/// [shown](OwnPath::show), and a further listen() says how many may wait. May ask the system for names of users.
///
/// # Errors
/// Why there is none; nothing of it is left then.
pub fn bind(path: &Path, access: &SocketAccess) -> Result<(OwnedFd, OwnPath), Why> {
    make_way(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let own = OwnPath::of(path)?;
    // Nobody gets in before it listens.
    own.hide()?;
    own.grant(access)?;
    // One that is bound and does not listen looks like one that was left behind, to another daemon and to
    // another name of this path.
    socket.listen(AT_FIRST)?;
    match own.is_there() {
        true => Ok((socket.into(), own)),
        false => Err(Why::Taken),
    }
}

/// Has the path free, and its directory there.
fn make_way(path: &Path) -> Result<(), Why> {
    clear(path)?;
    match path.parent().is_some_and(Path::is_dir) {
        true => Ok(()),
        false => Err(Why::NoDirectory),
    }
}

/// Removes a socket that nobody listens on, if there is one: a daemon that was killed has left it.
fn clear(path: &Path) -> Result<(), Why> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if !metadata.file_type().is_socket() {
        return Err(Why::NoSocket);
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // One whose queue is full would keep us waiting.
    probe.set_nonblocking(true)?;
    match probe.connect(&SockAddr::unix(path)?) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            Ok(fs::remove_file(path)?)
        }
        Ok(()) | Err(_) => Err(Why::Taken),
    }
}

/// What the socket at `path` is called while nobody is to find it.
fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(ASIDE);
    aside.into()
}

/// The same access with numbers for names, which nobody needs to ask for any more. Asks the system.
///
/// # Errors
/// Why there is no number.
pub fn numbered(access: &SocketAccess) -> Result<SocketAccess, Why> {
    let owner = access.owner.as_ref().map(|name| user(name)).transpose()?;
    let group = access.group.as_ref().map(|name| group(name)).transpose()?;
    Ok(SocketAccess {
        mode: access.mode,
        owner: owner.map(|number| number.to_string()),
        group: group.map(|number| number.to_string()),
    })
}

fn user(name: &str) -> Result<u32, Why> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let user = User::from_name(name).map_err(|error| Why::Io(error.into()))?;
    let user = user.ok_or_else(|| Why::NoUser(name.to_owned()))?;
    Ok(user.uid.as_raw())
}

fn group(name: &str) -> Result<u32, Why> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let group = Group::from_name(name).map_err(|error| Why::Io(error.into()))?;
    let group = group.ok_or_else(|| Why::NoGroup(name.to_owned()))?;
    Ok(group.gid.as_raw())
}

/// The path of a socket of ours, which goes when nobody listens on it any more.
#[derive(Debug)]
pub struct OwnPath {
    path: PathBuf,
    /// Device and number: another daemon may have put its own there since.
    inode: (u64, u64),
    /// Nobody finds it under its name.
    hidden: AtomicBool,
}

impl OwnPath {
    fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.file_type().is_socket() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(Self {
            inode: number(&metadata),
            path: path.to_owned(),
            hidden: AtomicBool::new(false),
        })
    }

    /// Gives the socket its owner and its mode: whatever else somebody may have put at the path stays as it is.
    /// May ask the system for names of users, unless they are [`numbered`].
    ///
    /// # Errors
    /// Why it stays as it is.
    pub fn grant(&self, access: &SocketAccess) -> Result<(), Why> {
        let owner = access.owner.as_ref().map(|name| user(name)).transpose()?;
        let group = access.group.as_ref().map(|name| group(name)).transpose()?;
        let socket = pinned(&self.place()).map_err(Why::Access)?;
        if number(&socket.metadata().map_err(Why::Access)?) != self.inode {
            return Err(Why::Taken);
        }
        // What is only pinned has its mode changed by this name alone, which leads to it and nowhere else.
        let name = format!("/proc/self/fd/{}", socket.as_raw_fd());
        // The mode first: whoever is not the owner any more may not change it.
        let mode = fs::Permissions::from_mode(access.mode);
        fs::set_permissions(name, mode).map_err(Why::Access)?;
        if owner.is_some() || group.is_some() {
            let (owner, group) = (owner.map(Uid::from_raw), group.map(Gid::from_raw));
            let outcome = chownat(&socket, "", owner, group, AtFlags::EMPTY_PATH);
            outcome.map_err(|error| Why::Access(error.into()))?;
        }
        Ok(())
    }

    /// Has nobody find the socket any more; who has connected stays in its queue.
    ///
    /// # Errors
    /// What the kernel says, or that something else has the name which it would have meanwhile.
    pub fn hide(&self) -> Result<(), Why> {
        if self.is_ours(&self.path) {
            let aside = aside(&self.path);
            if let Err(error) = rename(&self.path, &aside) {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    return Err(error.into());
                }
                // A daemon that was killed meanwhile has left it, or it is somebody's.
                clear(&aside).map_err(|why| match matches!(why, Why::NoSocket) {
                    true => Why::InTheWay(aside.clone()),
                    false => why,
                })?;
                rename(&self.path, &aside)?;
            }
            self.hidden.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Has clients find the socket under its name, unless somebody else is at the path by now.
    ///
    /// # Errors
    /// What the kernel says, or that nobody finds it, because somebody has removed or replaced it.
    pub fn show(&self) -> io::Result<()> {
        if self.hidden.load(Ordering::Relaxed) {
            rename(&aside(&self.path), &self.path)?;
            self.hidden.store(false, Ordering::Relaxed);
        }
        match self.is_there() {
            true => Ok(()),
            false => Err(io::Error::other(
                "somebody has replaced its socket: remove what is there and reload",
            )),
        }
    }

    /// Whether it still has a name, hidden or not: anybody who may write its directory can take that away.
    pub fn is_there(&self) -> bool {
        self.is_ours(&self.place())
    }

    /// Where it is now.
    fn place(&self) -> PathBuf {
        match self.hidden.load(Ordering::Relaxed) {
            true => aside(&self.path),
            false => self.path.clone(),
        }
    }

    fn is_ours(&self, path: &Path) -> bool {
        inode(path).is_ok_and(|inode| inode == self.inode)
    }
}

impl fmt::Display for OwnPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        let path = self.place();
        if self.is_ours(&path)
            && let Err(error) = fs::remove_file(&path)
        {
            tracing::debug!(path = %path.display(), %error, "socket left behind");
        }
    }
}

/// Unless something is at `to`.
fn rename(from: &Path, to: &Path) -> io::Result<()> {
    Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|metadata| number(&metadata))
}

fn number(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// What is at the path itself, a link included; not opened, which a socket cannot be.
fn pinned(path: &Path) -> io::Result<File> {
    let mut how = File::options();
    how.read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW);
    how.open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    fn at(path: &Path) -> Result<(UnixListener, OwnPath), String> {
        let (socket, own) = bind(path, &SocketAccess::default()).map_err(|why| why.to_string())?;
        let socket = Socket::from(socket);
        socket.listen(16).unwrap();
        own.show().unwrap();
        Ok((OwnedFd::from(socket).into(), own))
    }

    #[test]
    fn a_socket_is_private_and_goes_with_its_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bound = at(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        UnixStream::connect(&path).unwrap();
        drop(bound);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_is_taken_as_soon_as_it_is_bound_under_whatever_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let other = directory.path().join("link");
        std::os::unix::fs::symlink(directory.path(), &other).unwrap();
        let access = SocketAccess::default();
        let (_socket, own) = bind(&path, &access).unwrap();
        for path in [path, other.join("s")] {
            assert!(matches!(bind(&path, &access), Err(Why::Taken)));
        }
        own.show().unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn nobody_finds_a_socket_before_it_is_shown_and_one_that_never_is_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bound = bind(&path, &SocketAccess::default()).unwrap();
        assert!(!path.exists());
        assert!(UnixStream::connect(&path).is_err());
        drop(bound);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        // What a killed daemon has left of one is cleared away, and nothing else.
        drop(UnixListener::bind(aside(&path)).unwrap());
        drop(at(&path).unwrap());
        fs::write(aside(&path), "file").unwrap();
        assert!(at(&path).unwrap_err().contains("s.aside"));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn nobody_else_gets_what_somebody_has_put_in_the_place_of_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let secret = directory.path().join("secret");
        fs::write(&secret, "").unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
        let open = SocketAccess {
            mode: 0o666,
            owner: Some("0".to_owned()),
            ..SocketAccess::default()
        };
        let (_listener, own) = at(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        own.grant(&SocketAccess {
            owner: None,
            ..open.clone()
        })
        .unwrap();
        assert_eq!(mode(&path), 0o666);
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&secret, &path).unwrap();
        assert!(matches!(own.grant(&open), Err(Why::Taken)));
        assert_eq!(mode(&secret), 0o600);
    }

    #[test]
    fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let stale = UnixListener::bind(&path).unwrap();
        assert!(at(&path).unwrap_err().contains("another process"));
        drop(stale);
        let bound = at(&path).unwrap();
        // Somebody else has taken the path over: it is theirs now.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "file").unwrap();
        drop(bound);
        assert!(path.exists());
        assert!(at(&path).unwrap_err().contains("something else"));
        let nowhere = directory.path().join("none/s");
        assert!(at(&nowhere).unwrap_err().contains("does not exist"));
    }

    #[test]
    fn a_hidden_socket_is_found_again_unless_another_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (listener, own) = at(&path).unwrap();
        let _waits = UnixStream::connect(&path).unwrap();
        own.hide().unwrap();
        assert!(UnixStream::connect(&path).is_err());
        listener.accept().unwrap();
        own.show().unwrap();
        UnixStream::connect(&path).unwrap();
        own.hide().unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        assert!(own.show().is_err());
        drop(own);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_socket_that_somebody_has_taken_away_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (_listener, own) = at(&path).unwrap();
        own.show().unwrap();
        fs::remove_file(&path).unwrap();
        own.hide().unwrap();
        assert!(own.show().is_err());
        fs::write(&path, "").unwrap();
        assert!(own.show().is_err());
    }

    #[test]
    fn hiding_removes_what_a_killed_daemon_has_left_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let (_listener, own) = at(&path).unwrap();
        let hidden = aside(&path);
        fs::write(&hidden, "file").unwrap();
        assert!(own.hide().is_err());
        assert!(path.exists());
        assert_eq!(fs::read(&hidden).unwrap(), b"file");
        fs::remove_file(&hidden).unwrap();
        drop(UnixListener::bind(&hidden).unwrap());
        own.hide().unwrap();
        assert!(!path.exists());
        own.show().unwrap();

        drop(UnixListener::bind(&hidden).unwrap());
        drop(own);
        let _again = at(&path).unwrap();
        assert!(!hidden.exists());
    }

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(user("0").unwrap(), 0);
        assert_eq!(user("root").unwrap(), 0);
        assert_eq!(group("root").unwrap(), 0);
        let why = user("nobody-is-named-so").unwrap_err().to_string();
        assert_eq!(why, "no user is named `nobody-is-named-so`");
    }
}
