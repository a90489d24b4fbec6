//! The address of a client, in one form whatever socket it came through.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// A client's address. An IPv4-mapped IPv6 address becomes IPv4 on construction, so neither rules
/// nor hashing ever see `::ffff:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(SocketAddr);

impl ClientAddr {
    /// Takes the address as the kernel tells it.
    pub fn new(address: SocketAddr) -> Self {
        Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// The address without its port, never IPv4-mapped.
    pub fn ip(self) -> IpAddr {
        self.0.ip()
    }

    /// Address and port.
    pub fn socket_addr(self) -> SocketAddr {
        self.0
    }
}

impl From<SocketAddr> for ClientAddr {
    fn from(address: SocketAddr) -> Self {
        Self::new(address)
    }
}

impl fmt::Display for ClientAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_client_is_an_ipv4_client() {
        let mapped: SocketAddr = "[::ffff:192.0.2.7]:4711".parse().unwrap();
        assert_eq!(ClientAddr::new(mapped).to_string(), "192.0.2.7:4711");
    }

    #[test]
    fn a_plain_ipv6_client_stays_one() {
        let plain: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(ClientAddr::new(plain).socket_addr(), plain);
    }
}
