//! The sockets that the admin API listens on, made so that nobody gets in who may not, and that a
//! daemon that was killed does not keep the next one out.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::{Group, User};
use socket2::{Domain, SockAddr, Socket, Type};
use thiserror::Error;

use crate::config::{AdminAddress, SocketAccess};

/// A socket that listens.
#[derive(Debug)]
pub struct Bound {
    pub(super) address: AdminAddress,
    pub(super) socket: BoundSocket,
}

#[derive(Debug)]
pub(super) enum BoundSocket {
    Tcp(TcpListener, SocketAddr),
    Unix(UnixListener, OwnPath),
}

/// An address that the admin API cannot listen on.
#[derive(Debug, Error)]
#[error("the admin endpoint cannot listen on {address}: {why}")]
pub struct BindError {
    address: AdminAddress,
    why: Why,
}

#[derive(Debug, Error)]
enum Why {
    #[error("another process, or a listener of a service, has it")]
    Taken,
    #[error("something else than a socket is there")]
    NoSocket,
    #[error("its directory does not exist")]
    NoDirectory,
    #[error("no user is named `{0}`")]
    NoUser(String),
    #[error("no group is named `{0}`")]
    NoGroup(String),
    #[error("its owner or mode cannot be set: {0}")]
    Access(io::Error),
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

/// Binds `addresses`. May ask the system for names of users, so it belongs on a thread of its own.
///
/// # Errors
/// Every address that cannot be listened on; those that could are let go again.
pub fn bind(
    addresses: &[AdminAddress],
    access: &SocketAccess,
) -> Result<Vec<Bound>, Vec<BindError>> {
    let (mut bound, mut failed) = (Vec::new(), Vec::new());
    for address in addresses {
        let socket = match address {
            AdminAddress::Tcp(address) => tcp(*address),
            AdminAddress::Unix(path) => unix(path, access),
        };
        let address = address.clone();
        match socket {
            Ok(socket) => bound.push(Bound { address, socket }),
            Err(why) => failed.push(BindError { address, why }),
        }
    }
    if failed.is_empty() {
        Ok(bound)
    } else {
        Err(failed)
    }
}

fn tcp(address: SocketAddr) -> Result<BoundSocket, Why> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // What is left of former connections does not keep the address; a listener does.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from(socket);
    let local = listener.local_addr()?;
    Ok(BoundSocket::Tcp(listener, local))
}

fn unix(path: &Path, access: &SocketAccess) -> Result<BoundSocket, Why> {
    make_way(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let own = OwnPath::of(path)?;
    // Nobody gets in before it listens.
    grant(path, access)?;
    socket.listen(BACKLOG)?;
    Ok(BoundSocket::Unix(UnixListener::from(socket), own))
}

/// Removes a socket that nobody listens on: a daemon that was killed has left it.
fn make_way(path: &Path) -> Result<(), Why> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match path.parent().is_some_and(Path::is_dir) {
                true => Ok(()),
                false => Err(Why::NoDirectory),
            };
        }
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

/// Gives the socket at `path` its owner and its mode.
fn grant(path: &Path, access: &SocketAccess) -> Result<(), Why> {
    let owner = access.owner.as_ref().map(|name| user(name)).transpose()?;
    let group = access
        .group
        .as_ref()
        .map(|name| self::group(name))
        .transpose()?;
    // The mode first: whoever is not the owner any more may not change it.
    let mode = fs::Permissions::from_mode(access.mode);
    fs::set_permissions(path, mode).map_err(Why::Access)?;
    if owner.is_some() || group.is_some() {
        chown(path, owner, group).map_err(Why::Access)?;
    }
    Ok(())
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
pub(super) struct OwnPath {
    path: PathBuf,
    /// Device and number: another daemon may have put its own there since.
    inode: (u64, u64),
}

impl OwnPath {
    fn of(path: &Path) -> io::Result<Self> {
        Ok(Self {
            inode: inode(path)?,
            path: path.to_owned(),
        })
    }

    /// Gives the socket another owner and mode, beside the caller.
    pub(super) fn grant(&self, access: SocketAccess) {
        let path = self.path.clone();
        tokio::task::spawn_blocking(move || {
            if let Err(why) = grant(&path, &access) {
                tracing::warn!(listener = %path.display(), %why, "admin socket stays as it is");
            }
        });
    }
}

impl Drop for OwnPath {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::debug!(path = %self.path.display(), %error, "admin socket left behind");
        }
    }
}

fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    fn at(path: &Path) -> Result<Vec<Bound>, String> {
        let addresses = [AdminAddress::Unix(path.to_owned())];
        bind(&addresses, &SocketAccess::default()).map_err(|errors| errors[0].to_string())
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
    fn owners_are_names_or_numbers() {
        assert_eq!(user("0").unwrap(), 0);
        assert_eq!(user("root").unwrap(), 0);
        assert_eq!(group("root").unwrap(), 0);
        let why = user("nobody-is-named-so").unwrap_err().to_string();
        assert_eq!(why, "no user is named `nobody-is-named-so`");
    }

    #[test]
    fn one_address_that_is_taken_keeps_all_from_being_bound() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = [
            AdminAddress::Unix(path.clone()),
            AdminAddress::Tcp(taken.local_addr().unwrap()),
        ];
        let errors = bind(&addresses, &SocketAccess::default()).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(!path.exists());
    }
}
