//! Which networks may come in: of those that an address is in, the most specific decides.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Networks;

/// Networks that may come in, and networks that may not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access(Networks);

impl Access {
    /// Those of `allowed` may come in, and nobody else; without such a list, everybody may but those of
    /// `denied`. A network that is in both may not.
    pub fn new(
        allowed: Option<impl IntoIterator<Item = IpNet>>,
        denied: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        let otherwise = allowed.is_none();
        let allowed = allowed.into_iter().flatten().map(|network| (network, true));
        let denied = denied.into_iter().map(|network| (network, false));
        Self(Networks::new(allowed.chain(denied), otherwise))
    }

    /// Whether `ip`, which is never IPv4-mapped, may come in.
    pub fn admits(&self, ip: IpAddr) -> bool {
        self.0.contain(ip)
    }

    /// Whether no address of this family may come in.
    pub fn admits_none(&self, ipv4: bool) -> bool {
        self.0.lack(ipv4)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ipnet::Ipv4Net;
    use proptest::prelude::*;

    use super::*;

    fn networks(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|it| it.parse().unwrap()).collect()
    }

    fn access(allowed: Option<&[&str]>, denied: &[&str]) -> impl Fn(&str) -> bool {
        let access = Access::new(allowed.map(networks), networks(denied));
        move |ip| access.admits(ip.parse().unwrap())
    }

    #[test]
    fn the_most_specific_network_decides_whichever_list_it_is_in() {
        let admits = access(
            Some(&["10.0.0.0/8", "10.1.2.3/32", "2001:db8::/32"]),
            &["10.1.0.0/16", "2001:db8:bad::/48"],
        );
        assert!(admits("10.2.0.1") && admits("10.1.2.3") && admits("2001:db8::1"));
        assert!(!admits("10.1.2.4") && !admits("2001:db8:bad::1"));
        assert!(!admits("11.0.0.1") && !admits("2001:db9::1"));
    }

    #[test]
    fn rules_are_equal_when_all_of_them_are() {
        let rules = |denied: &[&str]| Access::new(None::<[IpNet; 0]>, networks(denied));
        assert_eq!(rules(&["10.0.0.0/8"]), rules(&["10.0.0.0/8"]));
        assert_ne!(rules(&["10.0.0.0/8"]), rules(&["10.0.0.0/8", "11.0.0.0/8"]));
        assert_ne!(rules(&[]), rules(&["10.0.0.0/8"]));
    }

    #[test]
    fn without_an_allow_list_everybody_else_may_come_in() {
        let admits = access(None, &["192.0.2.0/24"]);
        assert!(admits("192.0.3.1") && admits("::1"));
        assert!(!admits("192.0.2.1"));
    }

    #[test]
    fn an_empty_allow_list_lets_nobody_in_and_a_network_in_both_is_denied() {
        assert!(!access(Some(&[]), &[])("10.0.0.1"));
        assert!(!access(Some(&["10.0.0.0/8"]), &["10.0.0.0/8"])("10.0.0.1"));
    }

    #[test]
    fn whether_nobody_may_come_in_is_known_by_family() {
        let none = |allowed: Option<&[&str]>, denied: &[&str]| {
            let access = Access::new(allowed.map(networks), networks(denied));
            (access.admits_none(true), access.admits_none(false))
        };
        assert_eq!(none(None, &["0.0.0.0/0", "::/0"]), (true, true));
        assert_eq!(none(None, &["0.0.0.0/1", "128.0.0.0/1"]), (true, false));
        assert_eq!(none(Some(&["::1/128"]), &[]), (true, false));
        assert_eq!(
            none(
                Some(&["10.0.0.0/8", "::1/128"]),
                &["10.0.0.0/9", "10.128.0.0/9"]
            ),
            (true, false)
        );
        assert_eq!(none(None, &["0.0.0.0/1"]), (false, false));
        assert_eq!(
            none(Some(&["255.255.255.255/32"]), &["::/0"]),
            (false, true)
        );
    }

    fn nets() -> impl Strategy<Value = Vec<(Ipv4Net, bool)>> {
        let net = (any::<[u8; 2]>(), 0_u8..=32, any::<bool>()).prop_map(|(tail, length, allow)| {
            // Close together, so that they lie within each other.
            let ip = Ipv4Addr::new(10, 0, tail[0] & 3, tail[1]);
            (Ipv4Net::new(ip, length).unwrap().trunc(), allow)
        });
        prop::collection::vec(net, 0..30)
    }

    proptest! {
        #[test]
        fn it_decides_like_a_search_through_all_networks(nets in nets(), tail in any::<[u8; 2]>()) {
            let of = |wanted| {
                let these = nets.iter().filter(move |(_, allow)| *allow == wanted);
                these.map(|(net, _)| IpNet::V4(*net))
            };
            let access = Access::new(Some(of(true)), of(false));
            let ip = Ipv4Addr::new(10, 0, tail[0] & 3, tail[1]);
            let best = nets
                .iter()
                .filter(|(net, _)| net.contains(&ip))
                .max_by_key(|(net, allow)| (net.prefix_len(), !allow));
            prop_assert_eq!(access.admits(ip.into()), best.is_some_and(|(_, allow)| *allow));
        }
    }
}
