//! What a resolver said, and the endpoints that come of it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

/// Where to connect, as a name says it. Their order is the order of the backends: answers come
/// shuffled, and a table must not depend on that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// What SRV records say besides the address.
    pub srv: Option<Srv>,
    /// The address.
    pub ip: IpAddr,
}

/// The part of an SRV record (RFC 2782) that is not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Srv {
    /// The lowest is used first.
    pub priority: u16,
    /// Share among those of the same priority.
    pub weight: u16,
    /// Where to connect.
    pub port: u16,
}

/// One SRV record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// Everything but the target.
    pub srv: Srv,
    /// The name whose addresses it is about.
    pub target: Arc<str>,
}

/// What a resolver said to one question of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// These.
    Found(Vec<T>),
    /// That there is no such name, or no such record of it.
    Nothing,
    /// Nothing that could be relied on.
    Failed,
}

impl<T: Clone> Outcome<T> {
    /// What holds now, after `last`; sets `failed` where that is only because nothing better is
    /// known.
    fn or(self, last: &[T], failed: &mut bool) -> Vec<T> {
        match self {
            Self::Found(all) => all,
            Self::Nothing => Vec::new(),
            Self::Failed => {
                *failed = true;
                last.to_vec()
            }
        }
    }
}

/// What was said of the addresses of a name. The two types are asked for each on its own: that one
/// fails must not drop its addresses, however well the other is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostReply {
    /// A records.
    pub v4: Outcome<IpAddr>,
    /// AAAA records.
    pub v6: Outcome<IpAddr>,
}

/// What was said to a [`Question`](super::Question).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// SRV records, of a question for them.
    pub records: Option<Outcome<Record>>,
    /// Addresses: of the name itself, or of the targets of its records.
    pub hosts: BTreeMap<Arc<str>, HostReply>,
    /// How long it may be used: the shortest TTL of everything that was said.
    pub ttl: Option<Duration>,
    /// Targets of records that were not asked for, because there are too many.
    pub unasked: usize,
    /// What went wrong first.
    pub error: Option<String>,
}

impl Reply {
    /// Whether an address was said, rather than only remembered.
    pub(super) fn has_addresses(&self) -> bool {
        let found = |outcome: &Outcome<IpAddr>| matches!(outcome, Outcome::Found(_));
        let mut hosts = self.hosts.values();
        hosts.any(|said| found(&said.v4) || found(&said.v6))
    }
}

/// What is known: as a [`Reply`], without its holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    records: Option<Vec<Record>>,
    hosts: BTreeMap<Arc<str>, [Vec<IpAddr>; 2]>,
}

impl Known {
    /// What is known after `reply`, and whether a part of it had to be taken from before.
    pub(super) fn after(&self, reply: Reply) -> (Self, bool) {
        let mut failed = false;
        let records = reply.records.map(|outcome| {
            let last = self.records.as_deref().unwrap_or_default();
            outcome.or(last, &mut failed)
        });
        let mut hosts = BTreeMap::new();
        for (name, said) in reply.hosts {
            let [v4, v6] = self.hosts.get(&name).cloned().unwrap_or_default();
            let v4 = said.v4.or(&v4, &mut failed);
            let v6 = said.v6.or(&v6, &mut failed);
            hosts.insert(name, [v4, v6]);
        }
        // Records that are believed without an answer have targets that nobody was asked for.
        for target in records.iter().flatten().map(|record| &record.target) {
            if let Some(last) = self.hosts.get(target) {
                hosts.entry(Arc::clone(target)).or_insert(last.clone());
            }
        }
        (Self { records, hosts }, failed)
    }

    /// Where to connect: sorted, each address and port once, at most `most` of them; and how many more
    /// there are.
    pub(super) fn endpoints(&self, most: usize) -> (Vec<Endpoint>, usize) {
        let at = |name: &Arc<str>, srv| {
            let ips = self.hosts.get(name).into_iter().flatten().flatten();
            ips.filter(|ip| is_usable(**ip))
                .map(move |&ip| Endpoint { srv, ip })
        };
        let mut all: Vec<Endpoint> = match &self.records {
            None => self.hosts.keys().flat_map(|name| at(name, None)).collect(),
            Some(records) => records
                .iter()
                .filter(|record| record.srv.port != 0)
                .flat_map(|record| at(&record.target, Some(record.srv)))
                .collect(),
        };
        // Of two records for one place the more urgent comes first, and then the heavier.
        let urgency = |it: &Endpoint| it.srv.map(|srv| (srv.priority, u16::MAX - srv.weight));
        let place = |it: &Endpoint| (it.ip, it.srv.map(|srv| srv.port));
        all.sort_by_key(|it| (place(it), urgency(it)));
        all.dedup_by_key(|it| place(it));
        all.sort_by_key(|it| (it.srv.map(|srv| srv.priority), place(it)));
        let left_out = all.len().saturating_sub(most);
        all.truncate(most);
        (all, left_out)
    }
}

/// Whether a TCP connection can be meant to go there. 0.0.0.0, which name servers answer to say "blocked", would be
/// this machine.
fn is_usable(ip: IpAddr) -> bool {
    let mapped = match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    !ip.is_unspecified() && !ip.is_multicast() && ip != IpAddr::V4(Ipv4Addr::BROADCAST) && !mapped
}
