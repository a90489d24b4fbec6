//! The sockets that the admin API listens on, made so that nobody gets in who may not, and that a
//! daemon that was killed does not keep the next one out.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::Path;

use socket2::{Domain, Socket, Type};
use thiserror::Error;

use crate::config::{AdminAddress, SocketAccess};
use crate::unix::{self, OwnPath, Why};

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
            AdminAddress::Unix(path) => at_path(path, access),
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

fn at_path(path: &Path, access: &SocketAccess) -> Result<BoundSocket, Why> {
    let (socket, own) = unix::bind(path, access)?;
    let socket = Socket::from(socket);
    socket.listen(BACKLOG)?;
    Ok(BoundSocket::Unix(UnixListener::from(socket), own))
}

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;

#[cfg(test)]
mod tests {
    use super::*;

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
