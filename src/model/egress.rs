//! How connections to backends leave this host, where that is not left to the kernel.

use std::net::IpAddr;

/// How connections to the backends of a service leave: sessions and probes alike, so that a probe goes
/// the way that sessions go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Egress {
    /// The address that they come from.
    pub sources: Sources,
    /// The interface that they leave by (`SO_BINDTODEVICE`).
    pub interface: Option<Box<str>>,
    /// The mark of their packets (`SO_MARK`).
    pub mark: Option<u32>,
}

/// Where connections to backends come from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sources {
    /// From where the kernel's routes say.
    #[default]
    Routed,
    /// From one of these; when it has no port left, from the next.
    Pool(Box<[IpAddr]>),
    /// From the client's own address (`IP_TRANSPARENT`). Probes have no client and come from where
    /// routes say.
    Client,
}

impl Sources {
    /// Those of a pool that a connection to an address of this family can come from.
    pub fn of_family(&self, ipv4: bool) -> impl Iterator<Item = IpAddr> + Clone {
        let all = match self {
            Self::Pool(all) => &**all,
            Self::Routed | Self::Client => &[],
        };
        all.iter().copied().filter(move |it| it.is_ipv4() == ipv4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_sources_of_both_families() {
        let text = ["10.0.0.1", "2001:db8::1", "10.0.0.2"];
        let pool = Sources::Pool(text.iter().map(|it| it.parse().unwrap()).collect());
        let of = |ipv4| pool.of_family(ipv4).map(|it| it.to_string());
        assert_eq!(of(true).collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2"]);
        assert_eq!(of(false).collect::<Vec<_>>(), ["2001:db8::1"]);
        assert_eq!(Sources::Client.of_family(true).count(), 0);
    }
}
