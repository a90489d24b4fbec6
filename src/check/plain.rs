//! A plain connect: nothing is said and nothing is expected. Most probes are that, thousands a second where
//! there are thousands of backends, so it is made of as few system calls and wake-ups as it can be.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, Shutdown, SocketFlags, SocketType, connect, ipproto, recv, shutdown,
    socket_with, sockopt,
};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::sleep;

use super::{LEAVING, MOST_LEFT};
use crate::health::Check;
use crate::model::{Address, UnixPath};
use crate::net::{FULL, may_connect_to_itself, of_probe, to_path};

/// How often it is looked whether servers have closed, too.
const ROUND: Duration = Duration::from_millis(25);

/// Connects to the server at `address`, as `check` says how to get there, and says at once that nothing will follow.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn knock(address: Address, check: &Check) -> io::Result<Left> {
    let address = match address {
        Address::Inet(address) => address,
        Address::Unix(path) => {
            // Rare, so not part of what every probe weighs.
            let socket = Box::pin(at_path(path)).await?;
            shutdown(&socket, Shutdown::Write)?;
            return Ok(Left {
                socket,
                until: Instant::now() + LEAVING,
                more: MOST_LEFT,
            });
        }
    };
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(family, SocketType::STREAM, flags, Some(ipproto::TCP))?;
    // The acknowledgement that completes the handshake may wait for the FIN which follows at once, and go
    // with it: a packet less of few. A kernel that will not sends the packet, no more.
    let _ = sockopt::set_tcp_quickack(&socket, false);
    if let Some(egress) = &check.egress {
        of_probe(socket.as_fd(), egress, address, fastrand::usize(..))?;
    }
    match connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS | Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let stream = TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    if may_connect_to_itself(address) && stream.local_addr().ok() == Some(address) {
        // Nobody listened, and TCP connected the probe to itself: see net::connect.
        return Err(Errno::CONNREFUSED.into());
    }
    // A socket whose connect is under way is never writable, so this succeeds where there is a connection,
    // and only there: nobody needs to ask first.
    match shutdown(&stream, Shutdown::Write) {
        Ok(()) => Ok(Left {
            socket: stream.into_std()?.into(),
            until: Instant::now() + LEAVING,
            more: MOST_LEFT,
        }),
        Err(error) => Err(sockopt::socket_error(&stream)?
            .err()
            .unwrap_or(error)
            .into()),
    }
}

/// A connection to a path. Where too many wait to be accepted it is tried again for as long as the caller likes,
/// as the kernel does with a SYN.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn at_path(path: UnixPath) -> io::Result<OwnedFd> {
    loop {
        match to_path(path) {
            Ok(socket) => return Ok(socket),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(FULL).await,
            Err(error) => return Err(error),
        }
    }
}

/// A connection that was left with a FIN, and that the server has yet to close.
#[derive(Debug)]
pub(super) struct Left {
    socket: OwnedFd,
    /// Then nobody waits any longer for the server.
    until: Instant,
    /// What the server may still say.
    more: usize,
}

impl Left {
    /// Hears what the server has said: closing over unread bytes would reset it. Whether it has closed by
    /// `now`, or has had its time.
    fn is_over(&mut self, now: Instant) -> bool {
        let mut heard = [0; 4096];
        while self.more > 0 {
            match recv(&self.socket, &mut heard, RecvFlags::empty()) {
                Ok((read @ 1.., _)) => self.more = self.more.saturating_sub(read),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.until <= now,
                Ok(_) | Err(_) => break,
            }
        }
        true
    }
}

/// Closes connections that were left, many at a time: the end of one is nothing to wake up for.
#[derive(Clone, Debug)]
pub struct Doorman(mpsc::Sender<(Left, OwnedSemaphorePermit)>);

impl Doorman {
    /// One for at most so many connections at a time.
    pub fn new(most: usize) -> Self {
        let (sender, queue) = mpsc::channel(most);
        tokio::spawn(see_off(queue));
        Self(sender)
    }

    /// Has the connection closed, and gives the permit for its descriptor back then.
    pub(super) async fn see_off(&self, left: Left, permit: OwnedSemaphorePermit) {
        // Nobody takes it once control ends, and dropping it is as good then.
        let _ = self.0.send((left, permit)).await;
    }
}

async fn see_off(mut queue: mpsc::Receiver<(Left, OwnedSemaphorePermit)>) {
    while let Some(first) = queue.recv().await {
        let mut leaving = vec![first];
        while !leaving.is_empty() {
            sleep(ROUND).await;
            while let Ok(more) = queue.try_recv() {
                leaving.push(more);
            }
            let now = Instant::now();
            leaving.retain_mut(|(left, _)| !left.is_over(now));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::task::Poll;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    fn knock_at(address: SocketAddr) -> io::Result<Left> {
        tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .build()
            .unwrap()
            .block_on(knock(address.into(), &Check::default()))
    }

    #[test]
    fn a_server_that_answers_meets_a_fin_and_has_its_say() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut left = knock_at(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        assert_eq!(server.read(&mut [0; 16]).unwrap(), 0, "a FIN");
        server.write_all(&[b'x'; 10_000]).unwrap();
        let now = Instant::now();
        assert!(!left.is_over(now), "the server has not closed");
        drop(server);
        assert!(left.is_over(now));
    }

    #[test]
    fn a_server_that_does_not_close_has_its_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut left = knock_at(listener.local_addr().unwrap()).unwrap();
        let now = Instant::now();
        assert!(!left.is_over(now));
        assert!(left.is_over(now + LEAVING));
    }

    #[test]
    fn a_server_that_does_not_end_is_not_heard_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut left = knock_at(listener.local_addr().unwrap()).unwrap();
        left.more = 100;
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(&[b'x'; 200]).unwrap();
        assert!(left.is_over(Instant::now()));
    }

    #[test]
    fn a_path_with_too_many_waiting_is_knocked_at_until_there_is_room() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("full");
        let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        listener.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        // The one place in its queue.
        let _waits = UnixStream::connect(&path).unwrap();
        let address = Address::Unix(UnixPath::new(&path).unwrap());
        let check = Check::default();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let mut knocking = Box::pin(knock(address, &check));
                let pends = poll_fn(|cx| Poll::Ready(knocking.as_mut().poll(cx).is_pending()));
                assert!(pends.await);
                listener.accept().unwrap();
                knocking.await.unwrap();
            });
        listener.accept().unwrap();
    }

    #[test]
    fn where_nobody_listens_it_is_refused() {
        let address = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let error = knock_at(address).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
