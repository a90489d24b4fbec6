//! Clients and chance that are made up, always in the same way.

use std::net::{IpAddr, Ipv4Addr};

/// `count` different addresses, spread over all of IPv4; a greater `count` only adds to them.
pub fn clients(count: u32) -> impl Iterator<Item = IpAddr> {
    // Multiplying by an odd number is a bijection of the 32-bit numbers, so no two are the same.
    (0..count).map(|at| IpAddr::V4(Ipv4Addr::from_bits(at.wrapping_mul(GOLDEN) ^ OFFSET)))
}

/// What a session at that place in the order draws: splitmix64 (Steele, Lea and Flood, 2014).
pub fn entropy(at: u64) -> u64 {
    let mut z = at.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// 2³² divided by the golden ratio: neighbours end up far apart.
const GOLDEN: u32 = 0x9e37_79b1;
/// Keeps the first one from being 0.0.0.0.
const OFFSET: u32 = 0x0a00_0001;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn they_are_all_different_and_always_the_same() {
        let all: HashSet<_> = clients(100_000).collect();
        assert_eq!(all.len(), 100_000);
        assert_eq!(clients(1).next(), Some("10.0.0.1".parse().unwrap()));
        assert!(clients(1000).eq(clients(2000).take(1000)));
    }
}
