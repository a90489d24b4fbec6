//! The address of a client, in one form whatever socket it came through.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// A client's address, or that it has none: it came by a Unix socket. An IPv4-mapped IPv6 address becomes IPv4 on construction, so neither rules
/// nor hashing ever see `::ffff:`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientAddr(SocketAddr);

impl ClientAddr {
    /// A client without an address: of a Unix socket. No other is equal to it: those that the kernel and
    /// proxies tell of lose their zone.
    pub const UNNAMED: Self = Self(SocketAddr::V6(SocketAddrV6::new(
        Ipv6Addr::UNSPECIFIED,
        0,
        0,
        u32::MAX,
    )));

    /// Whether it has no address, and the other methods tell of none that means anything.
    pub fn is_unnamed(self) -> bool {
        self == Self::UNNAMED
    }

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
        match self.is_unnamed() {
            true => f.write_str("unix:"),
            false => self.0.fmt(f),
        }
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
    fn nobody_who_has_an_address_is_unnamed() {
        assert_eq!(ClientAddr::UNNAMED.to_string(), "unix:");
        assert!(!ClientAddr::new(ClientAddr::UNNAMED.socket_addr()).is_unnamed());
    }

    #[test]
    fn a_plain_ipv6_client_stays_one() {
        let plain: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(ClientAddr::new(plain).socket_addr(), plain);
    }
}
