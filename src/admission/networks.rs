//! A set of networks, and whether an address is in one of them.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::set::JointPrefixSet;

/// Networks of both families.
#[derive(Clone, Default)]
pub struct Networks(JointPrefixSet<IpNet>);

/// The crate's own compares as many as both have.
impl PartialEq for Networks {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().eq(other.0.iter())
    }
}

impl Eq for Networks {}

impl Networks {
    /// Whether `ip`, which is never IPv4-mapped, is in one of them.
    pub fn contain(&self, ip: IpAddr) -> bool {
        self.0.get_lpm(&IpNet::from(ip)).is_some()
    }
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// How many there are: they may be thousands.
impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} networks", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_networks_and_in_no_other_family() {
        let some = ["10.0.0.0/8", "192.0.2.1/32", "2001:db8::/32"];
        let networks: Networks = some.iter().map(|it| it.parse().unwrap()).collect();
        let contain = |ip: &str| networks.contain(ip.parse().unwrap());
        assert!(contain("10.255.0.1") && contain("192.0.2.1") && contain("2001:db8::1"));
        assert!(!contain("11.0.0.1") && !contain("192.0.2.2") && !contain("::a00:1"));
        let every: Networks = ["0.0.0.0/0".parse().unwrap()].into_iter().collect();
        assert!(every.contain("1.2.3.4".parse().unwrap()));
        assert!(!every.contain("::1".parse().unwrap()));
        assert!(!Networks::default().contain("::1".parse().unwrap()));
        assert!(every == every.clone() && every != networks && every != Networks::default());
    }
}
