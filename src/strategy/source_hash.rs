//! The same client address, the same backend: Maglev tables looked up by a hash of the source IP.
//! How a table is laid out, and what it keeps when a backend leaves, is told in
//! [`maglev`](super::maglev); what a backend at less than its full portion changes, in
//! [`homes`](super::homes).
//!
//! With `max_load`, a backend takes no new session while it holds more than that multiple of its share
//! of all sessions; its clients then go to their next choice that has room (consistent hashing with
//! bounded loads, Mirrokni, Thorup and Zadimoghaddam, SODA 2018, arXiv:1608.01350, 2016). Next is not the
//! neighbour, as on the ring of the paper, but a draw by the client's own hash, so that what one
//! backend spills is spread over all of the others.
//!
//! The hashes are XXH3 with fixed seeds over names and addresses alone, so one file gives one
//! mapping on every machine and after every restart. Changing anything here remaps every client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::draw::{draw, redraw, scale, usable};
use super::homes::Homes;
use super::{Basis, Candidate, Entry, Flow, Parameters, Skip, Strategy};
use crate::model::{Backend, Portion};

/// Keeps sources apart from the names that a table hashes.
const SOURCE_SEED: u64 = 0x736f_7572_6365;

/// The most backends whose sessions a pick under `max_load` counts one by one; of more, it looks at
/// this many.
const COUNTED: usize = 64;

pub(super) const ENTRY: Entry = Entry {
    name: "source-hash",
    summary: "one client address, one backend, by Maglev hashing; for servers that cache per client",
    weighted: true,
    goes_by: Basis::Source,
    build,
};

fn build(candidates: &[Candidate], parameters: &Parameters) -> Box<dyn Strategy> {
    let ignored = 128 - u32::from(parameters.ipv6_prefix.min(128));
    Box::new(SourceHash {
        homes: Homes::new(candidates, parameters.configured),
        ipv6_mask: u128::MAX.checked_shl(ignored).unwrap_or(0),
        max_load: parameters.max_load,
    })
}

#[derive(Debug)]
struct SourceHash {
    homes: Homes,
    ipv6_mask: u128,
    max_load: Option<u32>,
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

    /// The home of `hash` if it fits, or its next choice that does. Drawn from the source alone, so a
    /// client's second choice is as stable as its first.
    fn choose(
        &self,
        hash: u64,
        backends: &[Arc<Backend>],
        fits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let home = self.homes.owner(hash);
        if fits(home) {
            return Some(home);
        }
        redraw(
            hash,
            backends.len(),
            fits,
            |hash| self.homes.owner(hash),
            |index| backends[index].effective_weight(),
        )
    }
}

impl Strategy for SourceHash {
    fn pick(&self, flow: &Flow, backends: &[Arc<Backend>], skip: &Skip) -> Option<usize> {
        let hash = match flow.source.is_unnamed() {
            // Who has no address has no home: each of its connections goes where the next one would.
            true => xxh3_64_with_seed(&flow.sequence.to_be_bytes(), SOURCE_SEED),
            false => self.hash(flow.source.ip()),
        };
        let usable = |index: usize| usable(index, backends, skip);
        if let Some(max_load) = self.max_load {
            let level = Level::of(backends, flow.entropy, usable);
            let has_room =
                |index: usize| usable(index) && level.leaves_room(&backends[index], max_load);
            let chosen = self.choose(hash, backends, has_room);
            if chosen.is_some() {
                return chosen;
            }
            // A sample may be wrong about everybody, and other workers count meanwhile.
        }
        self.choose(hash, backends, usable)
    }
}

/// How full the backends are together: so many sessions, the one to come included, for so much
/// effective weight.
#[derive(Clone, Copy, Debug)]
struct Level {
    sessions: u64,
    weight: u64,
}

impl Level {
    /// Of the usable among `backends`, or of a sample of them.
    fn of(backends: &[Arc<Backend>], entropy: u64, usable: impl Fn(usize) -> bool) -> Self {
        let count = backends.len();
        let mut level = Self {
            sessions: 1,
            weight: 0,
        };
        let mut look = |index: usize| {
            if usable(index) {
                level.sessions += u64::from(backends[index].in_flight());
                level.weight += backends[index].effective_weight();
            }
        };
        if count <= COUNTED {
            (0..count).for_each(&mut look);
        } else {
            let sample = (0..COUNTED as u64).map(|at| scale(draw(entropy, at), count as u64));
            sample.for_each(|index| look(index as usize));
        }
        level
    }

    /// Whether `backend` holds less than `max_load` thousandths of its share: with n sessions, it has
    /// room for another while n < max_load · sessions · its weight / all weight. Some backend always
    /// has, as long as max_load is more than 1.
    fn leaves_room(&self, backend: &Backend, max_load: u32) -> bool {
        let bound = u128::from(max_load)
            * u128::from(self.sessions)
            * u128::from(backend.effective_weight());
        let holds = Portion::FULL.of_weight(backend.in_flight());
        u128::from(holds) * u128::from(self.weight) < bound
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::SocketAddr;

    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::model::ClientAddr;
    use crate::strategy::testing::{
        Backends, Pool, assert_shares, at_sequence, candidates, strategy,
    };

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
        let candidates = candidates(&backends.all);
        for (ipv6_prefix, at_least, at_most) in [(128, 30, 50), (120, 1, 1), (1, 1, 1), (0, 1, 1)] {
            let parameters = Parameters {
                ipv6_prefix,
                ..Parameters::of(50)
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

    /// A strategy over `backends` that bounds their load.
    fn bounded(backends: &Backends, max_load: u32) -> Box<dyn Strategy> {
        let parameters = Parameters {
            max_load: Some(max_load),
            ..Parameters::of(backends.all.len())
        };
        ENTRY.build(&candidates(&backends.all), &parameters)
    }

    #[test]
    fn a_client_of_a_full_backend_goes_to_its_next_choice_and_home_again() {
        let backends = Backends::new(&[1; 8]);
        let strategy = bounded(&backends, 1250);
        let plain = strategy_without_bound(&backends);
        let pick = |port| strategy.pick(&from("192.0.2.33", port), &backends.all, &Skip::none());
        let home = pick(1).unwrap();
        assert_eq!(
            Some(home),
            plain.pick(&from("192.0.2.33", 1), &backends.all, &Skip::none())
        );
        // Everybody holds eight, of the ten that each may hold.
        (0..8).for_each(|at| backends.enter(at, 8));
        assert_eq!(pick(1), Some(home));
        backends.enter(home, 4);
        let next = pick(1).unwrap();
        assert_ne!(next, home);
        assert!((2..300).all(|port| pick(port) == Some(next)));
        backends.enter(next, 4);
        let third = pick(1).unwrap();
        assert!(![home, next].contains(&third));
        (0..3).for_each(|_| backends.all[home].load().leave());
        assert_eq!(pick(1), Some(home));
    }

    fn strategy_without_bound(backends: &Backends) -> Box<dyn Strategy> {
        strategy(&ENTRY, &backends.all, backends.all.len())
    }

    #[test]
    fn one_client_alone_fills_everybody_evenly_within_the_bound() {
        for (weights, portions) in [
            (vec![1; 10], vec![1000; 10]),
            (vec![1, 2, 3, 4], vec![1000, 1000, 500, 1000]),
            (vec![1; 200], vec![1000; 200]),
        ] {
            let backends = Backends::with_portions(&weights, &portions);
            let strategy = bounded(&backends, 1250);
            let total: u64 = backends.all.iter().map(|it| it.effective_weight()).sum();
            let sessions = 20 * weights.len() as u64;
            for port in 0..sessions {
                let flow = from("192.0.2.7", port as u16);
                let picked = strategy.pick(&flow, &backends.all, &Skip::none()).unwrap();
                backends.enter(picked, 1);
            }
            for backend in &backends.all {
                let even = sessions as f64 * backend.effective_weight() as f64 / total as f64;
                // Above 64 backends the level is that of a sample.
                let most = if weights.len() > COUNTED { 1.6 } else { 1.25 };
                let holds = f64::from(backend.in_flight());
                assert!(holds <= (most * even).ceil(), "{holds} of {even}");
            }
        }
    }

    #[test]
    fn with_many_clients_nearly_all_stay_at_home() {
        let backends = Backends::new(&[1; 20]);
        let strategy = bounded(&backends, 1250);
        let plain = strategy_without_bound(&backends);
        let (mut at_home, sessions) = (0, 20_000);
        for flow in (0..sessions).map(at_sequence) {
            let picked = strategy.pick(&flow, &backends.all, &Skip::none()).unwrap();
            backends.enter(picked, 1);
            at_home += u64::from(plain.pick(&flow, &backends.all, &Skip::none()) == Some(picked));
        }
        assert!(at_home > sessions * 97 / 100, "{at_home}");
    }

    #[test]
    fn sessions_of_a_backend_that_is_down_are_nobodys_share() {
        let backends = Backends::new(&[1; 4]);
        let strategy = bounded(&backends, 1250);
        backends.enter(3, 1_000);
        backends.set_down(3, true);
        (0..3).for_each(|at| backends.enter(at, 10));
        let before: Vec<u32> = backends.all.iter().map(|it| it.in_flight()).collect();
        for flow in (0..30).map(|port| from("192.0.2.7", port)) {
            let picked = strategy.pick(&flow, &backends.all, &Skip::none()).unwrap();
            backends.enter(picked, 1);
        }
        assert_eq!(before[3], backends.all[3].in_flight());
        assert!(backends.all[..3].iter().all(|it| it.in_flight() <= 26));
    }

    proptest! {
        #[test]
        fn a_bound_leaves_somebody_whenever_somebody_is_usable(
            members in prop::collection::vec((1_u32..50, 1_u64..=1000, any::<bool>(), 0_u32..30), 1..90),
            max_load in 1010_u32..3000,
            sequence in any::<u64>(),
        ) {
            let weights: Vec<u32> = members.iter().map(|it| it.0).collect();
            let portions: Vec<u64> = members.iter().map(|it| it.1).collect();
            let backends = Backends::with_portions(&weights, &portions);
            for (index, &(_, _, down, sessions)) in members.iter().enumerate() {
                backends.set_down(index, down);
                backends.enter(index, sessions);
            }
            let strategy = bounded(&backends, max_load);
            let picked = strategy.pick(&at_sequence(sequence), &backends.all, &Skip::none());
            prop_assert_eq!(picked.is_none(), members.iter().all(|it| it.2));
            let Some(picked) = picked else { return Ok(()) };
            prop_assert!(!members[picked].2);
            if members.len() <= COUNTED {
                let usable = || members.iter().zip(&backends.all).filter(|(it, _)| !it.2);
                let sessions: f64 = usable().map(|(it, _)| f64::from(it.3)).sum();
                let weight: f64 = usable().map(|(_, it)| it.effective_weight() as f64).sum();
                let even = (sessions + 1.0) * backends.all[picked].effective_weight() as f64 / weight;
                let most = (even * f64::from(max_load) / 1000.0).ceil().max(1.0);
                prop_assert!(f64::from(members[picked].3) < most + 1e-6);
            }
        }
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
