//! A set of addresses, given as networks, and whether an address is in it.
//!
//! Networks lie within each other, addresses are in order: once it is known which decides, a set is no more than
//! the addresses at which being in it begins or ends. Those are sorted, so a look is one binary search in
//! flat memory: 50 ns among a hundred thousand IPv4 networks and 200 ns among as many of IPv6, where a trie took 620.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

/// Addresses of both families.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Networks {
    /// Where being in it begins, ends, begins again, …
    ipv4: Box<[u32]>,
    ipv6: Box<[u128]>,
    /// Networks that it was made of.
    count: usize,
}

impl Networks {
    /// The addresses whose most specific network comes with `true`, and those that are in none if
    /// `otherwise`. Of one network that comes with both, they are not in it.
    pub fn new(networks: impl IntoIterator<Item = (IpNet, bool)>, otherwise: bool) -> Self {
        let networks = networks.into_iter();
        let mut networks: Vec<_> = networks.map(|(it, inside)| (it.trunc(), inside)).collect();
        // A network comes before those within it, and `false` before `true`.
        networks.sort_unstable();
        networks.dedup_by_key(|(network, _)| *network);
        let of = |is_ipv4: bool| {
            let those = networks
                .iter()
                .filter(move |(it, _)| it.addr().is_ipv4() == is_ipv4);
            let spans =
                those.map(|(it, inside)| (bits(it.network()), bits(it.broadcast()), *inside));
            flips(spans, otherwise)
        };
        Self {
            // Of an IPv4 address only the lower bits are there; the end of the last one is beyond them.
            ipv4: of(true).map_while(|at| u32::try_from(at).ok()).collect(),
            ipv6: of(false).collect(),
            count: networks.len(),
        }
    }

    /// Whether no address of this family is in it.
    pub fn lack(&self, ipv4: bool) -> bool {
        // It would begin somewhere.
        match ipv4 {
            true => self.ipv4.is_empty(),
            false => self.ipv6.is_empty(),
        }
    }

    /// Whether `ip`, which is never IPv4-mapped, is in it.
    pub fn contain(&self, ip: IpAddr) -> bool {
        let flips = match ip {
            IpAddr::V4(ip) => self.ipv4.partition_point(|at| *at <= ip.to_bits()),
            IpAddr::V6(ip) => self.ipv6.partition_point(|at| *at <= ip.to_bits()),
        };
        flips % 2 == 1
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Where being inside begins and ends, of spans that lie within each other or apart, the outer and the earlier
/// ones first.
fn flips(
    spans: impl Iterator<Item = (u128, u128, bool)>,
    otherwise: bool,
) -> impl Iterator<Item = u128> {
    // Whether it is inside from there on; of several at one place the last counts.
    let mut told = vec![(0, otherwise)];
    let mut now = otherwise;
    // Spans that are not over: their last address, and what holds behind it.
    let mut open: Vec<(u128, bool)> = Vec::new();
    for (first, last, inside) in spans {
        while let Some((end, behind)) = open.pop_if(|(end, _)| *end < first) {
            now = behind;
            told.push((end + 1, now));
        }
        open.push((last, now));
        now = inside;
        told.push((first, now));
    }
    // Behind the last address of all there is nothing.
    let rest = open.into_iter().rev();
    told.extend(rest.filter_map(|(end, behind)| Some((end.checked_add(1)?, behind))));
    let mut flips: Vec<u128> = Vec::new();
    for (at, (place, inside)) in told.iter().enumerate() {
        let is_last = told.get(at + 1).is_none_or(|(next, _)| next != place);
        if is_last && *inside != (flips.len() % 2 == 1) {
            flips.push(*place);
        }
    }
    flips.into_iter()
}

impl FromIterator<IpNet> for Networks {
    fn from_iter<T: IntoIterator<Item = IpNet>>(networks: T) -> Self {
        Self::new(networks.into_iter().map(|network| (network, true)), false)
    }
}

/// How many there are: they may be a hundred thousand.
impl fmt::Debug for Networks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.count {
            1 => f.write_str("1 network"),
            count => write!(f, "{count} networks"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

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

    #[test]
    fn the_first_and_the_last_address_are_addresses_like_any_other() {
        let ends = ["0.0.0.0/32", "255.255.255.255/32", "::/128", "ffff::/16"];
        let networks: Networks = ends.iter().map(|it| it.parse().unwrap()).collect();
        let contain = |ip: &str| networks.contain(ip.parse().unwrap());
        assert!(contain("0.0.0.0") && contain("255.255.255.255"));
        assert!(contain("::") && contain("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
        assert!(!contain("0.0.0.1") && !contain("255.255.255.254") && !contain("::1"));
        let not: Vec<_> = ends.iter().map(|it| (it.parse().unwrap(), false)).collect();
        let others = Networks::new(not, true);
        for ip in [
            "0.0.0.0",
            "0.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ffff::1",
        ] {
            assert_ne!(others.contain(ip.parse().unwrap()), contain(ip), "{ip}");
        }
    }

    fn ipv6() -> impl Strategy<Value = (IpNet, bool)> {
        // At both ends of what there is, and close together.
        let ip = any::<(bool, u8)>().prop_map(|(high, low)| match high {
            true => u128::MAX - u128::from(low),
            false => u128::from(low),
        });
        (ip, 120_u8..=128, any::<bool>()).prop_map(|(ip, length, inside)| {
            let network = IpNet::new(std::net::Ipv6Addr::from_bits(ip).into(), length);
            (network.unwrap().trunc(), inside)
        })
    }

    proptest! {
        #[test]
        fn the_most_specific_decides_for_every_address(
            networks in prop::collection::vec(ipv6(), 0..20), otherwise in any::<bool>(),
        ) {
            let set = Networks::new(networks.clone(), otherwise);
            for low in 0..=u8::MAX {
                for bits in [u128::from(low), u128::MAX - u128::from(low)] {
                    let ip = IpAddr::V6(bits.into());
                    let those = networks.iter().filter(|(it, _)| it.contains(&ip));
                    let decides = those.max_by_key(|(it, inside)| (it.prefix_len(), !inside));
                    let inside = decides.map_or(otherwise, |(_, inside)| *inside);
                    prop_assert_eq!(set.contain(ip), inside, "{}", ip);
                }
            }
        }
    }
}
