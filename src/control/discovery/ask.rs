//! Asking: /etc/hosts first, then DNS, as the system is configured or as `[discovery]` says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::system::{SERVERS_AT_A_TIME, Stamp, System};
use crate::config::{DiscoveryConfig, Family};
use crate::discovery::{HostReply, Outcome, Question, Record, Reply, Srv};

/// Names that are looked up at a time, however many there are.
const AT_A_TIME: usize = 32;
/// Sockets of all look-ups: each is for A and AAAA records.
pub(in crate::control) const MOST_SOCKETS: usize = AT_A_TIME * SERVERS_AT_A_TIME * 2;
/// Targets of one SRV answer that are looked up at a time.
const TARGETS_AT_A_TIME: usize = 8;
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
    /// The system's files, as they were last read.
    system: Mutex<Option<(Stamp, Arc<System>)>>,
    turns: Semaphore,
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
            let unknown = System::without("internal error".to_owned());
            Arc::new(unknown)
        })
    }

    fn read_system(&self) -> Arc<System> {
        let mut system = self.0.system.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = Stamp::now();
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
            if let Some(said) = self.system.said_of(&candidate) {
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

    async fn look_up(&self, name: &Name, kind: RecordType, wanted: bool) -> Said {
        if !wanted {
            return Said::Nothing(None);
        }
        let resolver = match self.system.resolver() {
            Ok(resolver) => resolver,
            Err(error) => return Said::Failed(error.to_owned()),
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
}
