//! Whether the kernel grants what a file wants of it: each thing is tried on a socket of its own, because
//! only the kernel knows what it and our privileges allow.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};
use socket2::SockRef;

use super::options::{
    accept_fast_open, bind_to, defer_accept, make_transparent, of_listener, set_mss,
};
use crate::config::{Demand, Denial, Incoming, Loaded, Rejected};

/// Of `net.ipv4.tcp_fastopen`: with data in what we send, …
const FAST_OPEN_SENDS: u32 = 1;
/// … and in what we accept.
const FAST_OPEN_ACCEPTS: u32 = 2;

/// What the kernel grants of what `loaded` wants: all of it, or a report of what it does not.
///
/// # Errors
/// Everything that it denies, with the reason.
pub fn granted(loaded: Loaded) -> Result<Loaded, Rejected> {
    loaded.granted(grant)
}

/// Tries one thing on a socket that nobody else has.
fn grant(demand: &Demand) -> Result<(), Denial> {
    attempt(demand).map_err(|error| {
        let code = error.raw_os_error().unwrap_or(0);
        Denial {
            why: reason(demand, code).unwrap_or_else(|| error.to_string()),
            help: help(demand, code),
        }
    })?;
    fast_open_is_on(demand)
}

fn attempt(demand: &Demand) -> io::Result<()> {
    let family = match matches!(demand, Demand::Source(IpAddr::V6(_))) {
        true => AddressFamily::INET6,
        false => AddressFamily::INET,
    };
    let protocol = match matches!(demand, Demand::Mptcp(_)) {
        true => ipproto::MPTCP,
        false => ipproto::TCP,
    };
    let flags = SocketFlags::CLOEXEC;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, Some(protocol))?;
    let fd = fd.as_fd();
    let socket = SockRef::from(&fd);
    match demand {
        Demand::Source(source) => bind_to(fd, *source),
        Demand::Transparent => make_transparent(fd, Ipv4Addr::UNSPECIFIED.into()),
        Demand::FastOpenOfClients => accept_fast_open(fd, true),
        Demand::FastOpenToBackends => Ok(()),
        Demand::DeferAccept(time) => defer_accept(fd, Some(*time)),
        Demand::Congestion(name) => socket.set_tcp_congestion(name.as_bytes()),
        Demand::Mss(mss) => set_mss(fd, Some(*mss)),
        Demand::Mark(mark) => socket.set_mark(*mark),
        Demand::Interface(name) => socket.bind_device(Some(name.as_bytes())),
        // Of the other options it takes not all that TCP does.
        Demand::Mptcp(incoming) => of_listener(fd, incoming, None),
    }
}

/// The option is taken even where a switch of the kernel has it do nothing.
fn fast_open_is_on(demand: &Demand) -> Result<(), Denial> {
    let (wanted, help) = match demand {
        Demand::FastOpenOfClients => (
            FAST_OPEN_ACCEPTS,
            "set it with: sysctl net.ipv4.tcp_fastopen=3",
        ),
        Demand::FastOpenToBackends => (
            FAST_OPEN_SENDS,
            "set it with: sysctl net.ipv4.tcp_fastopen=1, or 3 for both sides",
        ),
        Demand::Source(_)
        | Demand::Transparent
        | Demand::DeferAccept(_)
        | Demand::Congestion(_)
        | Demand::Mss(_)
        | Demand::Mark(_)
        | Demand::Interface(_)
        | Demand::Mptcp(_) => return Ok(()),
    };
    let written = fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").unwrap_or_default();
    // What cannot be read is not held against it.
    let Ok(switch) = written.trim().parse::<u32>() else {
        return Ok(());
    };
    match switch & wanted {
        0 => Err(Denial {
            why: format!("net.ipv4.tcp_fastopen is {switch}"),
            help: Some(help),
        }),
        _ => Ok(()),
    }
}

/// What an error means here, where its own words do not say.
fn reason(demand: &Demand, code: i32) -> Option<String> {
    Some(match (demand, code) {
        (Demand::Source(_), libc::EADDRNOTAVAIL) => {
            "no interface of this host has that address".to_owned()
        }
        (Demand::Congestion(_), libc::ENOENT) => {
            let available = "/proc/sys/net/ipv4/tcp_available_congestion_control";
            let available = fs::read_to_string(available).unwrap_or_default();
            format!("the kernel has {}", available.trim().replace(' ', ", "))
        }
        (Demand::Interface(_), libc::ENODEV) => "this host has none of that name".to_owned(),
        (Demand::Mptcp(incoming), libc::EOPNOTSUPP | libc::ENOPROTOOPT)
            if **incoming != Incoming::default() =>
        {
            "this kernel's does not take all other options of this section".to_owned()
        }
        (Demand::Mptcp(_), libc::EPROTONOSUPPORT) => "this kernel has none".to_owned(),
        (Demand::Mptcp(_), libc::ENOPROTOOPT) => "net.mptcp.enabled is 0".to_owned(),
        _ => return None,
    })
}

fn help(demand: &Demand, code: i32) -> Option<&'static str> {
    Some(match (demand, code) {
        (Demand::Transparent | Demand::Mark(_), libc::EPERM) => {
            "it takes CAP_NET_RAW (for `mark`, Linux 5.17 too), which the daemon keeps if the file asks for this when it starts"
        }
        (Demand::Interface(_), libc::EPERM) => "it takes CAP_NET_RAW",
        (Demand::Congestion(_), libc::EPERM) => "add it to net.ipv4.tcp_allowed_congestion_control",
        (Demand::Congestion(_), libc::ENOENT) => {
            "its module may have to be loaded, as with: modprobe tcp_bbr"
        }
        (Demand::Mptcp(_), libc::ENOPROTOOPT) => "set it with: sysctl net.mptcp.enabled=1",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_kernel_says_what_it_does_not_have() {
        let why = |demand: Demand| grant(&demand).unwrap_err().why;
        let said = why(Demand::Congestion("nosuch".into()));
        assert!(said.contains("cubic"), "{said}");
        let said = why(Demand::Interface("nosuch0".into()));
        assert!(said.contains("none of that name"), "{said}");
        let said = why(Demand::Source("192.0.2.1".parse().unwrap()));
        assert!(said.contains("no interface"), "{said}");
        assert!(grant(&Demand::Source("127.0.0.77".parse().unwrap())).is_ok());
        assert!(grant(&Demand::Mss(1000)).is_ok());
        assert!(grant(&Demand::DeferAccept(Duration::from_secs(5))).is_ok());
    }
}
