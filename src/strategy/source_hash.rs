//! The same client address, the same backend: a Maglev table looked up by a hash of the source IP.
//! How the table is laid out, and what it keeps when a backend leaves, is told in
//! [`maglev`](super::maglev).
//!
//! The hashes are XXH3 with fixed seeds over names and addresses alone, so one file gives one
//! mapping on every machine and after every restart. Changing anything here remaps every client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::draw::{redraw, usable};
use super::maglev::Table;
use super::{Candidate, Entry, Flow, Parameters, Skip, Strategy};
use crate::model::Backend;

/// Keeps sources apart from the names that a table hashes.
const SOURCE_SEED: u64 = 0x736f_7572_6365;

pub(super) const ENTRY: Entry = Entry {
    name: "source-hash",
    summary: "one client address, one backend, by Maglev hashing; for servers that cache per client",
    weighted: true,
    build,
};

fn build(candidates: &[Candidate], parameters: &Parameters) -> Box<dyn Strategy> {
    let members: Vec<(&str, u32)> = candidates
        .iter()
        .map(|candidate| (&**candidate.id.name(), candidate.weight))
        .collect();
    let ignored = 128 - u32::from(parameters.ipv6_prefix.min(128));
    Box::new(SourceHash {
        table: Table::new(&members, parameters.configured),
        ipv6_mask: u128::MAX.checked_shl(ignored).unwrap_or(0),
    })
}

#[derive(Debug)]
struct SourceHash {
    table: Table,
    ipv6_mask: u128,
}

impl SourceHash {
    fn hash(&self, source: IpAddr) -> u64 {
        match source {
            IpAddr::V4(ip) => xxh3_64_with_seed(&ip.octets(), SOURCE_SEED),
            IpAddr::V6(ip) => {
                let network = Ipv6Addr::from_bits(ip.to_bits() & self.ipv6_mask);
                xxh3_64_with_seed(&network.octets(), SOURCE_SEED)
            }
        }
    }
}

impl Strategy for SourceHash {
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
        let hash = self.hash(flow.source.ip());
        let home = self.table.owner(hash);
        if usable(home, backends, skip) {
            return Some(home);
        }
        // Drawn from the source alone, so a client's second choice is as stable as its first.
        redraw(
            hash,
            backends,
            skip,
            |hash| self.table.owner(hash),
            |index| u64::from(backends[index].weight()),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;

    use super::*;
    use crate::model::ClientAddr;
    use crate::strategy::testing::{Backends, Pool, assert_shares, at_sequence, strategy};

    fn from(ip: &str, port: u16) -> Flow {
        Flow {
            source: ClientAddr::new(SocketAddr::new(ip.parse().unwrap(), port)),
            ..at_sequence(u64::from(port))
        }
    }

    #[test]
    fn a_client_returns_to_its_backend_from_every_port() {
        let pool = Pool::new(&ENTRY, &[1, 2, 3]);
        for client in ["192.0.2.1", "198.51.100.77", "2001:db8::1"] {
            let home = pool.pick(&from(client, 1));
            assert!((2..500).all(|port| pool.pick(&from(client, port)) == home));
        }
    }

    #[test]
    fn mapped_and_plain_ipv4_are_one_client() {
        let pool = Pool::new(&ENTRY, &[1; 50]);
        assert_eq!(
            pool.pick(&from("::ffff:192.0.2.9", 1)),
            pool.pick(&from("192.0.2.9", 1))
        );
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_its_neighbours_are_others() {
        let pool = Pool::new(&ENTRY, &[1; 50]);
        let home = pool.pick(&from("2001:db8:0:7::", 1));
        for host in ["2001:db8:0:7::1", "2001:db8:0:7:ffff:ffff:ffff:ffff"] {
            assert_eq!(pool.pick(&from(host, 1)), home);
        }
        let elsewhere = (8..40)
            .filter(|net| pool.pick(&from(&format!("2001:db8:0:{net:x}::"), 1)) != home)
            .count();
        assert!(elsewhere > 25, "{elsewhere}");
    }

    #[test]
    fn the_whole_ipv6_address_counts_if_so_configured() {
        let backends = Backends::new(&[1; 50]);
        let candidates: Vec<Candidate> = backends
            .all
            .iter()
            .map(|backend| Candidate {
                id: backend.id().clone(),
                weight: 1,
            })
            .collect();
        for (ipv6_prefix, at_least, at_most) in [(128, 30, 50), (120, 1, 1), (1, 1, 1), (0, 1, 1)] {
            let parameters = Parameters {
                configured: 50,
                ipv6_prefix,
            };
            let strategy = ENTRY.build(&candidates, &parameters);
            let mut homes: Vec<_> = (0..200)
                .map(|host| from(&format!("2001:db8::{host:x}"), 1))
                .map(|flow| strategy.pick(&flow, &backends.all, &Skip::none()))
                .collect();
            homes.sort_unstable();
            homes.dedup();
            assert!((at_least..=at_most).contains(&homes.len()));
        }
    }

    /// If this fails, an upgrade of Ballast would send every client to another server.
    #[test]
    fn the_mapping_is_the_same_everywhere_and_for_ever() {
        let pool = Pool::new(&ENTRY, &[1, 2, 3, 4, 5]);
        let homes = [
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "198.51.100.1",
            "198.51.100.2",
            "203.0.113.200",
            "10.0.0.1",
            "127.0.0.1",
            "2001:db8::1",
            "2001:db8:1::1",
            "2001:db8:2::1",
            "fe80::1",
        ]
        .map(|client| pool.pick(&from(client, 1)).unwrap());
        assert_eq!(homes, [4, 1, 4, 1, 3, 1, 3, 3, 3, 3, 3, 4]);
    }

    #[test]
    fn shares_follow_weights() {
        let pool = Pool::new(&ENTRY, &[1, 2, 3, 4]);
        let counts = pool.count((0..100_000).map(at_sequence));
        assert_shares(&counts, &[1.0, 2.0, 3.0, 4.0], 0.03);
    }

    #[test]
    fn a_second_choice_is_as_stable_as_the_first() {
        let pool = Pool::new(&ENTRY, &[1; 10]);
        let client = "192.0.2.33";
        let mut skip = Skip::none();
        skip.insert(pool.pick(&from(client, 1)).unwrap());
        let second = pool.pick_but(&from(client, 1), &skip);
        assert!((2..200).all(|port| pool.pick_but(&from(client, port), &skip) == second));
    }

    #[test]
    fn losing_one_keeps_the_other_clients_where_they_are() {
        let backends = Backends::new(&[2, 1, 3, 1, 1, 2]);
        let before = strategy(&ENTRY, &backends.all, 6);
        let mut left = backends.all.clone();
        let lost = left.remove(2);
        let after = strategy(&ENTRY, &left, 6);

        let mut moved = 0;
        let mut spread: HashMap<Arc<str>, u32> = HashMap::new();
        for flow in (0..60_000).map(at_sequence) {
            let old = &backends.all[before.pick(&flow, &backends.all, &Skip::none()).unwrap()];
            let new = &left[after.pick(&flow, &left, &Skip::none()).unwrap()];
            if old.id() == lost.id() {
                *spread.entry(Arc::clone(new.id().name())).or_default() += 1;
            } else if old.id() != new.id() {
                moved += 1;
            }
        }
        assert!(moved < 60_000 * 7 / 10 / 50, "{moved} moved");
        let counts: Vec<u32> = left.iter().map(|b| spread[b.id().name()]).collect();
        assert_shares(&counts, &[2.0, 1.0, 1.0, 1.0, 2.0], 0.1);
    }
}
