//! How a server is checked: what a probe says to it and what it must answer. Only the description;
//! the room `check` carries it out.

use std::net::SocketAddr;

/// One way to check, as an operator chose it. Backends at the same address with an equal check, in
/// whatever services, are probed once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is said, and what must be answered.
    pub kind: Kind,
    /// Another port than the backend's.
    pub port: Option<u16>,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            kind: Kind::Tcp,
            port: None,
        }
    }
}

impl Check {
    /// Where a probe of the backend at `address` goes.
    pub fn destination(&self, mut address: SocketAddr) -> SocketAddr {
        if let Some(port) = self.port {
            address.set_port(port);
        }
        address
    }
}

/// What is said, and what must be answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A connect is answered.
    Tcp,
}
