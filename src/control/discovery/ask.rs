//! Asking: /etc/hosts first, then DNS, as the system is configured or as `[discovery]` says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, Resolver, system_conf};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::runtime::Runtime;
use crate::config::{DiscoveryConfig, Family};
use crate::discovery::{HostReply, Outcome, Question, Record, Reply, Srv};

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Names that are looked up at a time, however many there are.
const AT_A_TIME: usize = 32;
/// Servers that are asked for the same at a time, where there are several.
const SERVERS_AT_A_TIME: usize = 2;
/// Sockets of all look-ups: each is for A and AAAA records.
pub(in crate::control) const MOST_SOCKETS: usize = AT_A_TIME * SERVERS_AT_A_TIME * 2;
/// Targets of one SRV answer that are looked up at a time.
const TARGETS_AT_A_TIME: usize = 8;
/// How often a server is asked before it counts as silent.
const ATTEMPTS: usize = 2;
/// A question is given up after this many timeouts, whatever the resolver is still trying.
const MOST_TIMEOUTS: u32 = 6;
/// Targets of one SRV answer that are asked for; one answer hardly has room for more.
const MOST_TARGETS: usize = 256;
/// What /etc/hosts says is used for this long.
const HOSTS_TTL: Duration = Duration::from_secs(5);

/// Whom to ask. Cheap to clone.
#[derive(Clone, Debug)]
pub(in crate::control) struct Asker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: DiscoveryConfig,
    system: Mutex<Option<(Stamp, Arc<System>)>>,
    turns: Semaphore,
}

/// When the system's files were last written.
type Stamp = [Option<SystemTime>; 2];

/// The system's files, as they were at a [`Stamp`].
#[derive(Debug)]
struct System {
    resolver: Result<Resolver<Runtime>, String>,
    hosts: Hosts,
    search: Vec<Name>,
    ndots: usize,
}

impl Asker {
    /// One that does as `config` says.
    pub(in crate::control) fn new(config: DiscoveryConfig) -> Self {
        Self(Arc::new(Shared {
            config,
            system: Mutex::default(),
            turns: Semaphore::new(AT_A_TIME),
        }))
    }

    /// What it does as.
    pub(in crate::control) fn config(&self) -> &DiscoveryConfig {
        &self.0.config
    }

    /// Asks, and takes an answer as it comes: nothing of it is kept here.
    pub(in crate::control) async fn ask(&self, question: &Question) -> Reply {
        let mut asking = Asking {
            system: self.system().await,
            shared: Arc::clone(&self.0),
            ttl: None,
            error: None,
        };
        let mut hosts = BTreeMap::new();
        let mut unasked = 0;
        let records = match question {
            Question::Host { name, family } => {
                hosts.insert(Arc::clone(name), asking.host(name, *family).await);
                None
            }
            Question::Srv { name, family } => {
                let records = asking.srv(name).await;
                if let Outcome::Found(records) = &records {
                    let mut targets = targets(records);
                    unasked = targets.len().saturating_sub(MOST_TARGETS);
                    targets.truncate(MOST_TARGETS);
                    hosts = asking.targets(targets.into_iter(), *family).await;
                }
                Some(records)
            }
        };
        Reply {
            records,
            hosts,
            ttl: asking.ttl,
            unasked,
            error: asking.error,
        }
    }

    /// The system's files, read again when they have changed. Beside the loop: reading may block.
    async fn system(&self) -> Arc<System> {
        let asker = self.clone();
        let read = tokio::task::spawn_blocking(move || asker.read_system()).await;
        read.unwrap_or_else(|_| {
            Arc::new(System {
                resolver: Err("internal error".to_owned()),
                hosts: Hosts::default(),
                search: Vec::new(),
                ndots: 1,
            })
        })
    }

    fn read_system(&self) -> Arc<System> {
        let mut system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = [RESOLV_CONF, HOSTS].map(written);
        match &*system {
            Some((known, system)) if *known == stamp => Arc::clone(system),
            _ => {
                let read = Arc::new(System::read(&self.0.config));
                *system = Some((stamp, Arc::clone(&read)));
                read
            }
        }
    }
}

/// The names that records are about, each once, those first that are to be used first.
fn targets(records: &[Record]) -> Vec<Arc<str>> {
    let ranked = records.iter().map(|it| (it.srv.priority, &it.target));
    let ranked: BTreeSet<_> = ranked.collect();
    let mut seen = BTreeSet::new();
    let targets = ranked.into_iter().map(|(_, target)| target);
    targets.filter(|it| seen.insert(*it)).cloned().collect()
}

fn written(path: &str) -> Option<SystemTime> {
    std::fs::metadata(Path::new(path)).ok()?.modified().ok()
}

impl System {
    fn read(config: &DiscoveryConfig) -> Self {
        let system = system_conf::read_system_conf();
        let (servers, search, mut options, failed) = match system {
            Ok((system, options)) => {
                let (domain, mut search, servers) = system.into_parts();
                if search.is_empty() {
                    search.extend(domain);
                }
                (servers, search, options, None)
            }
            Err(error) => {
                let failed = format!("{RESOLV_CONF}: {error}");
                (
                    Vec::new(),
                    Vec::new(),
                    ResolverOpts::default(),
                    Some(failed),
                )
            }
        };
        let servers = match config.resolvers.as_slice() {
            [] => servers,
            own => own.iter().copied().map(server).collect(),
        };
        options.timeout = config.timeout;
        options.attempts = ATTEMPTS;
        options.num_concurrent_reqs = SERVERS_AT_A_TIME;
        // Looked at beforehand, and nothing is kept but by `Resolution`.
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let (ndots, silent) = (options.ndots, servers.is_empty());
        let parts = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(parts, Runtime::default());
        *builder.options_mut() = options;
        let resolver = match failed.filter(|_| silent) {
            Some(failed) => Err(failed),
            None => builder.build().map_err(|error| error.to_string()),
        };
        Self {
            resolver,
            hosts: Hosts::from_system().unwrap_or_default(),
            search,
            ndots,
        }
    }

    /// What `name` may stand for, in the order of resolv.conf(5).
    fn candidates(&self, name: &str) -> Vec<Name> {
        let Ok(mut name) = Name::from_str_relaxed(name) else {
            return Vec::new();
        };
        if name.is_fqdn() {
            return vec![name];
        }
        let search = self.search.iter();
        let mut all: Vec<Name> = search
            .filter_map(|domain| name.clone().append_domain(domain).ok())
            .collect();
        let as_it_is = match usize::from(name.num_labels()) > self.ndots || name.is_localhost() {
            true => 0,
            false => all.len(),
        };
        name.set_fqdn(true);
        all.insert(as_it_is, name);
        all
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

/// One question under way.
struct Asking {
    system: Arc<System>,
    shared: Arc<Shared>,
    ttl: Option<Duration>,
    error: Option<String>,
}

impl Asking {
    /// The addresses of all of `names`, some of them at a time.
    async fn targets(
        &mut self,
        names: impl Iterator<Item = Arc<str>>,
        family: Family,
    ) -> BTreeMap<Arc<str>, HostReply> {
        let mut hosts = BTreeMap::new();
        let mut asked = JoinSet::new();
        let mut names = names.fuse();
        loop {
            // One silence is enough: the others would add up to minutes. What is known of them stays.
            while asked.len() < TARGETS_AT_A_TIME
                && self.error.is_none()
                && let Some(name) = names.next()
            {
                let mut asking = Self {
                    system: Arc::clone(&self.system),
                    shared: Arc::clone(&self.shared),
                    ttl: None,
                    error: None,
                };
                asked.spawn(async move {
                    let reply = asking.host(&name, family).await;
                    (name, reply, asking)
                });
            }
            match asked.join_next().await {
                None => return hosts,
                Some(Ok((name, reply, asking))) => {
                    hosts.insert(name, reply);
                    asking.ttl.into_iter().for_each(|ttl| self.use_for(ttl));
                    self.error = self.error.take().or(asking.error);
                }
                // The panic is logged; what is known of that name stays.
                Some(Err(_)) => {}
            }
        }
    }

    /// The addresses of the first candidate that has any. One that fails ends the search, or a
    /// hiccup would send clients to a namesake in another domain.
    async fn host(&mut self, name: &str, family: Family) -> HostReply {
        let shared = Arc::clone(&self.shared);
        // Closed only when everything ends.
        let _turn = shared.turns.acquire().await;
        let (v4, v6) = (family != Family::V6, family != Family::V4);
        let mut reply = HostReply {
            v4: Outcome::Nothing,
            v6: Outcome::Nothing,
        };
        for candidate in self.system.candidates(name) {
            if let Some(said) = self.hosts(&candidate) {
                self.use_for(HOSTS_TTL);
                let of = |is_wanted, is_it: fn(&IpAddr) -> bool| {
                    let all: Vec<_> = said.iter().copied().filter(is_it).collect();
                    match is_wanted && !all.is_empty() {
                        true => Outcome::Found(all),
                        false => Outcome::Nothing,
                    }
                };
                return HostReply {
                    v4: of(v4, IpAddr::is_ipv4),
                    v6: of(v6, IpAddr::is_ipv6),
                };
            }
            let (said_v4, said_v6) = tokio::join!(
                self.look_up(&candidate, RecordType::A, v4),
                self.look_up(&candidate, RecordType::AAAA, v6)
            );
            let ip = |data: &RData| data.ip_addr();
            reply = HostReply {
                v4: self.outcome(said_v4, ip),
                v6: self.outcome(said_v6, ip),
            };
            if reply.v4 != Outcome::Nothing || reply.v6 != Outcome::Nothing {
                break;
            }
        }
        reply
    }

    async fn srv(&mut self, name: &str) -> Outcome<Record> {
        let shared = Arc::clone(&self.shared);
        let _turn = shared.turns.acquire().await;
        let record = |data: &RData| {
            let RData::SRV(record) = data else {
                return None;
            };
            let record = Record {
                srv: Srv {
                    priority: record.priority,
                    weight: record.weight,
                    port: record.port,
                },
                target: record.target.to_lowercase().to_string().into(),
            };
            // "." says that the service is decidedly not available (RFC 2782).
            (*record.target != *".").then_some(record)
        };
        for candidate in self.system.candidates(name) {
            let said = self.look_up(&candidate, RecordType::SRV, true).await;
            match self.outcome(said, record) {
                Outcome::Nothing => {}
                outcome @ (Outcome::Found(_) | Outcome::Failed) => return outcome,
            }
        }
        Outcome::Nothing
    }

    /// What the hosts file says of it, if that has it at all.
    fn hosts(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let said = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| {
                let query = Query::query(name.clone(), kind);
                self.system.hosts.lookup_static_host(&query)
            });
        let all: Vec<IpAddr> = said
            .flat_map(|lookup| {
                let records = lookup.answers().iter();
                records
                    .filter_map(|record| record.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect();
        (!all.is_empty()).then_some(all)
    }

    async fn look_up(&self, name: &Name, kind: RecordType, wanted: bool) -> Said {
        if !wanted {
            return Said::Nothing(None);
        }
        let resolver = match &self.system.resolver {
            Ok(resolver) => resolver,
            Err(error) => return Said::Failed(error.clone()),
        };
        // The cache has no room; that it is empty is certain only so.
        resolver.clear_lookup_cache(name.clone(), kind);
        let limit = self.shared.config.timeout * MOST_TIMEOUTS;
        match timeout(limit, resolver.lookup(name.clone(), kind)).await {
            Ok(Ok(lookup)) => Said::Records(
                lookup
                    .answers()
                    .iter()
                    .map(|record| (record.data.clone(), Duration::from_secs(record.ttl.into())))
                    .collect(),
            ),
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
                if matches!(
                    none.response_code,
                    ResponseCode::NoError | ResponseCode::NXDomain
                ) =>
            {
                let ttl = none.negative_ttl.map(u64::from).map(Duration::from_secs);
                Said::Nothing(ttl)
            }
            Ok(Err(error)) => Said::Failed(error.to_string()),
            Err(_) => Said::Failed("timed out".to_owned()),
        }
    }

    fn outcome<T>(&mut self, said: Said, pick: impl Fn(&RData) -> Option<T>) -> Outcome<T> {
        match said {
            Said::Nothing(ttl) => {
                ttl.into_iter().for_each(|ttl| self.use_for(ttl));
                Outcome::Nothing
            }
            Said::Failed(error) => {
                self.error.get_or_insert(error);
                Outcome::Failed
            }
            Said::Records(records) => {
                let shortest = records.iter().map(|(_, ttl)| *ttl).min();
                shortest.into_iter().for_each(|ttl| self.use_for(ttl));
                let found: Vec<T> = records.iter().filter_map(|(data, _)| pick(data)).collect();
                match found.is_empty() {
                    true => Outcome::Nothing,
                    false => Outcome::Found(found),
                }
            }
        }
    }

    fn use_for(&mut self, ttl: Duration) {
        self.ttl = Some(self.ttl.map_or(ttl, |known| known.min(ttl)));
    }
}

/// What DNS said, with the TTLs that came along: those of aliases on the way count too.
enum Said {
    Records(Vec<(RData, Duration)>),
    Nothing(Option<Duration>),
    Failed(String),
}

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, OpCode};
    use hickory_resolver::proto::rr;
    use hickory_resolver::proto::rr::rdata::{A, SRV};

    use super::*;

    fn host(name: &str, family: Family) -> Question {
        Question::Host {
            name: name.into(),
            family,
        }
    }

    #[tokio::test]
    async fn a_name_of_this_machine_needs_no_server() {
        // Nothing answers there: port 9 is discard.
        let config = DiscoveryConfig {
            resolvers: vec!["127.0.0.1:9".parse().unwrap()],
            timeout: Duration::from_millis(50),
            ..DiscoveryConfig::default()
        };
        let asker = Asker::new(config);
        let mut reply = asker.ask(&host("localhost", Family::V4)).await;
        let said = reply.hosts.remove("localhost").unwrap();
        assert_eq!(said.v4, Outcome::Found(vec![[127, 0, 0, 1].into()]));
        assert_eq!(said.v6, Outcome::Nothing);
        let mut reply = asker.ask(&host("db.example.test.", Family::Any)).await;
        let said = reply.hosts.remove("db.example.test.").unwrap();
        assert_eq!((said.v4, said.v6), (Outcome::Failed, Outcome::Failed));
        assert!(reply.error.is_some());
    }

    #[tokio::test]
    async fn a_server_that_is_silent_is_not_waited_for_longer_than_it_may_take() {
        let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let asker = Asker::new(DiscoveryConfig {
            resolvers: vec![silent.local_addr().unwrap()],
            timeout: Duration::from_millis(50),
            ..DiscoveryConfig::default()
        });
        let question = Question::Srv {
            name: "_web._tcp.example.test.".into(),
            family: Family::Any,
        };
        let reply = timeout(Duration::from_secs(20), asker.ask(&question)).await;
        assert_eq!(reply.unwrap().records, Some(Outcome::Failed));
    }

    /// Answers for SRV records with `count` targets, and for their addresses once all were asked for.
    async fn answer_all_at_once(socket: tokio::net::UdpSocket, count: usize) {
        let mut waiting = BTreeMap::new();
        let mut bytes = [0; 512];
        loop {
            let (length, from) = socket.recv_from(&mut bytes).await.unwrap();
            let asked = Message::from_vec(&bytes[..length]).unwrap();
            let query = asked.queries[0].clone();
            let name = query.name().clone();
            let mut answer = Message::response(asked.metadata.id, OpCode::Query);
            answer.add_query(query);
            if name.to_string().starts_with('_') {
                for target in 0..count {
                    let target = Name::from_ascii(format!("t{target}.test.")).unwrap();
                    let data = RData::SRV(SRV::new(0, 1, 80, target));
                    answer.add_answer(rr::Record::from_rdata(name.clone(), 5, data));
                }
                let answer = answer.to_vec().unwrap();
                socket.send_to(&answer, from).await.unwrap();
                continue;
            }
            let data = RData::A(A::new(127, 0, 0, 1));
            answer.add_answer(rr::Record::from_rdata(name.clone(), 5, data));
            waiting.insert(name, (answer.to_vec().unwrap(), from));
            if waiting.len() == count {
                for (answer, from) in std::mem::take(&mut waiting).into_values() {
                    socket.send_to(&answer, from).await.unwrap();
                }
            }
        }
    }

    #[tokio::test]
    async fn targets_of_one_answer_do_not_wait_for_each_other() {
        let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let asker = Asker::new(DiscoveryConfig {
            resolvers: vec![socket.local_addr().unwrap()],
            ..DiscoveryConfig::default()
        });
        let question = Question::Srv {
            name: "_web._tcp.example.test.".into(),
            family: Family::V4,
        };
        let reply = tokio::select! {
            reply = asker.ask(&question) => reply,
            () = answer_all_at_once(socket, TARGETS_AT_A_TIME) => unreachable!(),
        };
        assert_eq!(reply.error, None);
        assert_eq!(reply.hosts.len(), TARGETS_AT_A_TIME);
        let found = vec![IpAddr::from([127, 0, 0, 1])];
        let mut hosts = reply.hosts.values();
        assert!(hosts.all(|said| said.v4 == Outcome::Found(found.clone())));
    }

    #[test]
    fn names_are_searched_for_as_resolv_conf_says() {
        let name = |text: &str| Name::from_str_relaxed(text).unwrap();
        let system = System {
            resolver: Err(String::new()),
            hosts: Hosts::default(),
            search: vec![name("a.test."), name("b.test.")],
            ndots: 1,
        };
        let all = |text| {
            let all = system.candidates(text).into_iter();
            all.map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all("db"), ["db.a.test.", "db.b.test.", "db."]);
        assert_eq!(all("db.c"), ["db.c.", "db.c.a.test.", "db.c.b.test."]);
        assert_eq!(all("db.c."), ["db.c."]);
        assert_eq!(all("localhost")[0], "localhost.");
    }
}
