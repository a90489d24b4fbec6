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
