//! A connection that a check speaks over: how it is made, and how it is left without a complaint.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::task::{Poll, ready};

use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_util::either::Either;

use super::MOST_LEFT;
use super::plain::at_path;
use crate::health::Check;
use crate::model::Address;
use crate::net::{may_connect_to_itself, of_probe};

/// Over the network, or at a path.
pub(super) type Stream = Either<TcpStream, UnixStream>;

/// Connects to `address`, and leaves this host as the sessions do.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn connect(address: Address, check: &Check) -> io::Result<Stream> {
    let address = match address {
        Address::Inet(address) => address,
        Address::Unix(path) => {
            let socket = Box::pin(at_path(path)).await?;
            return Ok(Either::Right(UnixStream::from_std(socket.into())?));
        }
    };
    let stream = match &check.egress {
        None => TcpStream::connect(address).await?,
        Some(egress) => {
            let socket = match address {
                SocketAddr::V4(_) => TcpSocket::new_v4(),
                SocketAddr::V6(_) => TcpSocket::new_v6(),
            }?;
            of_probe(socket.as_fd(), egress, address, fastrand::usize(..))?;
            socket.connect(address).await?
        }
    };
    if may_connect_to_itself(address) && stream.local_addr().ok() == Some(address) {
        // Nobody listened, and TCP connected the probe to itself: see net::connect.
        return Err(Errno::CONNREFUSED.into());
    }
    Ok(Either::Left(stream))
}

/// Says `farewell`, closes with a FIN, and reads what the server still has to say: closing over unread bytes
/// would reset it, and fill its log.
///
/// # Errors
/// When the server has not stayed to hear it.
pub(super) async fn leave(mut stream: Stream, farewell: &[u8]) -> io::Result<()> {
    stream.write_all(farewell).await?;
    stream.shutdown().await?;
    let mut left = MOST_LEFT;
    poll_fn(|cx| {
        while left > 0 {
            let mut heard = [0; 4096];
            let mut heard = ReadBuf::new(&mut heard);
            ready!(Pin::new(&mut stream).poll_read(cx, &mut heard))?;
            match heard.filled().len() {
                0 => break,
                read => left = left.saturating_sub(read),
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
