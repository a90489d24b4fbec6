//! Socket options as operators ask for them in `[service.socket]`. Whether the kernel grants them is found
//! out next door, in [`grant`](super::grant).

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use socket2::SockRef;

use super::sys;
use crate::config::{Incoming, Keepalive, Outgoing, Tuning};
use crate::model::Egress;

/// SYNs with data that may wait for the rest of their handshake; the kernel caps it at
/// `net.core.somaxconn`.
const FAST_OPENS: i32 = 1024;

/// Has what a listener accepts be as `new` says, where so far it was as `old` says.
///
/// # Errors
/// What the kernel says to the first that it does not take.
pub(super) fn of_listener(
    fd: BorrowedFd<'_>,
    new: &Incoming,
    old: Option<&Incoming>,
) -> io::Result<()> {
    let preset = Incoming::default();
    let is_new = old.is_none();
    let old = old.unwrap_or(&preset);
    if is_new || new.tuning.keepalive != old.tuning.keepalive {
        keep_alive(fd, new.tuning.keepalive.unwrap_or_default())?;
    }
    tune(fd, &new.tuning, &old.tuning)?;
    if new.fast_open != old.fast_open {
        accept_fast_open(fd, new.fast_open)?;
    }
    if new.defer_accept != old.defer_accept {
        defer_accept(fd, new.defer_accept)?;
    }
    if new.interface != old.interface {
        let name = new.interface.as_ref().map(|name| name.as_bytes());
        SockRef::from(&fd).bind_device(name)?;
    }
    Ok(())
}

/// Has a socket that is to connect to a backend be as `outgoing` says.
///
/// # Errors
/// What the kernel says to the first that it does not take.
pub(super) fn of_connection(fd: BorrowedFd<'_>, outgoing: &Outgoing) -> io::Result<()> {
    if let Some(keepalive) = outgoing.tuning.keepalive {
        keep_alive(fd, keepalive)?;
    }
    tune(fd, &outgoing.tuning, &Tuning::default())?;
    match &outgoing.egress {
        Some(egress) => leave_by(fd, egress),
        None => Ok(()),
    }
}

/// Marks what a socket sends, and ties it to its interface.
fn leave_by(fd: BorrowedFd<'_>, egress: &Egress) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if let Some(mark) = egress.mark {
        socket.set_mark(mark)?;
    }
    if let Some(interface) = &egress.interface {
        socket.bind_device(Some(interface.as_bytes()))?;
    }
    Ok(())
}

/// Has a probe of `address` leave as sessions do; of several sources it takes the `turn`-th.
///
/// # Errors
/// What the kernel says.
pub fn of_probe(
    fd: BorrowedFd<'_>,
    egress: &Egress,
    address: SocketAddr,
    turn: usize,
) -> io::Result<()> {
    leave_by(fd, egress)?;
    let pool = egress.sources.of_family(address.is_ipv4());
    let many = pool.clone().count().max(1);
    match pool.clone().nth(turn % many) {
        Some(source) => bind_to(fd, source),
        None => Ok(()),
    }
}

fn tune(fd: BorrowedFd<'_>, new: &Tuning, old: &Tuning) -> io::Result<()> {
    let socket = SockRef::from(&fd);
    if new.user_timeout != old.user_timeout {
        socket.set_tcp_user_timeout(new.user_timeout)?;
    }
    if new.congestion != old.congestion {
        match &new.congestion {
            Some(name) => socket.set_tcp_congestion(name.as_bytes())?,
            None => {
                let preset = fs::read("/proc/sys/net/ipv4/tcp_congestion_control")?;
                socket.set_tcp_congestion(preset.trim_ascii())?;
            }
        }
    }
    if new.mss != old.mss {
        set_mss(fd, new.mss)?;
    }
    Ok(())
}

/// Probes a peer that is silent.
pub(super) fn keep_alive(fd: BorrowedFd<'_>, keepalive: Keepalive) -> io::Result<()> {
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(keepalive.idle)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.count);
    SockRef::from(&fd).set_tcp_keepalive(&keepalive)
}

/// Has connections come from `source`, with a port that the kernel picks when it knows where they go:
/// picked before, each port would serve one connection in all rather than one to each backend.
pub(super) fn bind_to(fd: BorrowedFd<'_>, source: IpAddr) -> io::Result<()> {
    sys::set_option(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, 1)?;
    rustix::net::bind(fd, &SocketAddr::new(source, 0))?;
    Ok(())
}

/// Lets a socket have an address that is not this host's, of the family of `like`.
pub(super) fn make_transparent(fd: BorrowedFd<'_>, like: IpAddr) -> io::Result<()> {
    match like {
        IpAddr::V4(_) => sys::set_option(fd, libc::IPPROTO_IP, libc::IP_TRANSPARENT, 1),
        IpAddr::V6(_) => sys::set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_TRANSPARENT, 1),
    }
}

pub(super) fn accept_fast_open(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let most = if on { FAST_OPENS } else { 0 };
    sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, most)
}

pub(super) fn defer_accept(fd: BorrowedFd<'_>, time: Option<Duration>) -> io::Result<()> {
    let seconds = time.map_or(0, |time| time.as_secs());
    let seconds = i32::try_from(seconds).unwrap_or(i32::MAX);
    sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, seconds)
}

/// 0 lets the kernel decide again.
pub(super) fn set_mss(fd: BorrowedFd<'_>, mss: Option<u16>) -> io::Result<()> {
    let mss = mss.unwrap_or(0).into();
    sys::set_option(fd, libc::IPPROTO_TCP, libc::TCP_MAXSEG, mss)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_listener_takes_on_options_and_lets_go_of_them() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = listener.as_fd();
        let socket = SockRef::from(&listener);
        let preset = socket.tcp_congestion().unwrap();
        let new = Incoming {
            tuning: Tuning {
                keepalive: Some(Keepalive {
                    idle: Duration::from_secs(7),
                    ..Keepalive::default()
                }),
                user_timeout: Some(Duration::from_secs(9)),
                congestion: Some("reno".into()),
                mss: Some(900),
            },
            defer_accept: Some(Duration::from_secs(3)),
            ..Incoming::default()
        };
        of_listener(fd, &new, None).unwrap();
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(7));
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(9)));
        assert!(socket.tcp_congestion().unwrap().starts_with(b"reno\0"));
        of_listener(fd, &Incoming::default(), Some(&new)).unwrap();
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
        assert_eq!(socket.tcp_congestion().unwrap(), preset);
    }
}
