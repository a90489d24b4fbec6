//! One `[[service]]`, read key by key. What two services do to each other is
//! [`conflicts`](super::conflicts)'s business.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::access::{self, AccessConfig};
use super::backend::{self, BackendConfig, BackendDraft};
use super::decode::Table;
use super::health;
use super::keys;
use super::limits::{self, LimitsConfig};
use super::listen::{self, ListenConfig};
use super::passive;
use super::problem::{Need, Problem, Problems};
use super::proxy_protocol::{self, ProxyConfig};
use super::serving;
use super::socket::{self, SocketConfig};
use super::source::Span;
use super::unknown::unknown_word;
use super::value::{self, SOME_TIME, written};
use super::waiting::{self, OnDown, QueueConfig};
use crate::health::{Check, Passive, Policy, Rules};
use crate::model::BackendId;
use crate::strategy::{self, Entry, Parameters, Skip};

/// One `[[service]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Unique among the services.
    pub name: Arc<str>,
    /// At least one.
    pub listen: Vec<ListenConfig>,
    /// How a backend is picked.
    pub strategy: &'static Entry,
    /// What the strategy is told besides the candidates.
    pub parameters: Parameters,
    /// Handshakes that the kernel holds for us, per listener and up to four workers.
    pub backlog: u32,
    /// How bytes move.
    pub relay: RelayMode,
    /// Further backends that a session tries when a connect fails.
    pub retries: u32,
    /// `[service.timeouts]`
    pub timeouts: Timeouts,
    /// `[service.queue]`
    pub queue: QueueConfig,
    /// `on_down` and `close_rate`
    pub on_down: OnDown,
    /// The longest that a session may live, if there is such a limit.
    pub max_lifetime: Option<Duration>,
    /// `[service.socket]`
    pub socket: SocketConfig,
    /// `[service.access]` and `[service.limits]`
    pub admission: AdmissionConfig,
    /// `[service.proxy_protocol]`
    pub proxy: ProxyConfig,
    /// `[service.health]`: how its backends are checked.
    pub check: Arc<Check>,
    /// `[service.health]`: when, and what counts.
    pub health: Policy,
    /// Which of the backends serve when.
    pub serving: Rules,
    /// `[service.passive]`
    pub passive: Passive,
    /// A list of further backends that another program writes; `load` makes a relative path one
    /// beside the configuration.
    pub backends_file: Option<Arc<Path>>,
    /// In the order of the file; at least one where there is no `backends_file`. Shared, because there may be
    /// thousands and whoever lays out a table takes the service along.
    pub backends: Arc<[BackendConfig]>,
}

impl ServiceConfig {
    /// Its backends, each with who it is.
    pub fn identified(&self) -> impl Iterator<Item = (BackendId, &BackendConfig)> {
        self.backends.iter().map(|backend| {
            let id = BackendId::new(Arc::clone(&self.name), Arc::clone(&backend.name));
            (id, backend)
        })
    }
}

/// `relay` of a service
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayMode {
    /// By copying, and by splicing where a direction proves to be bulk.
    Auto,
    /// By copying only.
    Copy,
    /// By splicing from the first byte, where the kernel lets us.
    Splice,
}

/// `[service.timeouts]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For one connect to one backend.
    pub connect: Duration,
    /// For all connects of one session together.
    pub connect_total: Duration,
    /// The longest silence of a session open both ways.
    pub idle: Duration,
    /// The longest silence on the surviving direction of a half-closed session.
    pub half_closed: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            connect_total: Duration::from_secs(10),
            idle: Duration::from_secs(60 * 60),
            half_closed: Duration::from_secs(5 * 60),
        }
    }
}

/// `[service.access]` and `[service.limits]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Not everybody may come in.
    pub access: Option<AccessConfig>,
    /// How many may.
    pub limits: LimitsConfig,
}

/// A service as far as it could be read, with the places that later checks point at.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: Option<(Arc<str>, Span)>,
    pub(super) listen: Vec<(ListenConfig, Span)>,
    pub(super) backends: Vec<BackendDraft>,
    backends_file: Option<Arc<Path>>,
    strategy: Option<&'static Entry>,
    ipv6_prefix: u8,
    max_load: Option<u32>,
    backlog: u32,
    relay: RelayMode,
    retries: u32,
    timeouts: Timeouts,
    check: Arc<Check>,
    queue: QueueConfig,
    on_down: OnDown,
    max_lifetime: Option<Duration>,
    pub(super) socket: SocketConfig,
    admission: AdmissionConfig,
    proxy: ProxyConfig,
    health: Policy,
    serving: Rules,
    passive: Passive,
}

impl Draft {
    /// The service, if nothing that it needs is missing.
    pub(super) fn finish(self) -> Option<ServiceConfig> {
        let backends: Arc<[BackendConfig]> = self
            .backends
            .into_iter()
            .map(BackendDraft::finish)
            .collect::<Option<_>>()?;
        Some(ServiceConfig {
            name: self.name?.0,
            listen: self.listen.into_iter().map(|(listen, _)| listen).collect(),
            strategy: self.strategy?,
            parameters: Parameters {
                configured: backends.len(),
                ipv6_prefix: self.ipv6_prefix,
                max_load: self.max_load,
            },
            backlog: self.backlog,
            relay: self.relay,
            retries: self.retries,
            timeouts: self.timeouts,
            check: self.check,
            queue: self.queue,
            on_down: self.on_down,
            max_lifetime: self.max_lifetime,
            socket: self.socket,
            admission: self.admission,
            proxy: self.proxy,
            health: self.health,
            serving: self.serving,
            passive: self.passive,
            backends_file: self.backends_file,
            backends,
        })
    }
}

const RELAYS: &[(&str, RelayMode)] = &[
    ("auto", RelayMode::Auto),
    ("copy", RelayMode::Copy),
    ("splice", RelayMode::Splice),
];

pub(super) fn draft(table: &Table<'_>, problems: &mut Problems) -> Draft {
    let name = table
        .parsed("name", problems, value::name)
        .and_then(|name| Some((Arc::from(name), table.span_of("name")?)));
    if table.lacks("name") {
        let problem = table.missing("this service has no name");
        problems.add(problem.help("write name = \"web\""));
    }
    let called = match &name {
        Some((name, _)) => format!("service `{name}`"),
        None => "this service".to_owned(),
    };
    let (strategy, ipv6_prefix) = strategy(table, problems);
    let backends_file = table.parsed("backends_file", problems, |text| {
        value::file("backends_file", text)
    });
    if let (Some(file), Some(span)) = (&backends_file, table.span_of("backends_file")) {
        problems.need(Need::Later(file.clone()), span);
    }
    let backends: Vec<BackendDraft> = {
        let tables = table.tables("backend", &keys::BACKEND, problems);
        let none = tables.is_empty()
            && table
                .get("backend")
                .is_some_and(|it| it.get_ref().is_array())
            || table.lacks("backend");
        if none && table.lacks("backends_file") {
            problems.add(
                table
                    .missing(format!("{called} has no backend"))
                    .help("a backend begins with [[service.backend]] and needs an address"),
            );
        }
        backend::weights(&tables, strategy, problems);
        tables
            .iter()
            .map(|table| backend::read(table, problems))
            .collect()
    };
    if !backends.is_empty()
        && backends.iter().all(|backend| !backend.enabled)
        && backends_file.is_none()
    {
        let problem = Problem::warning(format!("no backend of {called} is enabled"));
        let label = "every connection will be refused";
        problems.add(problem.under(table.span()).label(label));
    }
    let max_load = serving::max_load(table, strategy, problems);
    let serving = serving::rules(table, problems);
    // How many there are of a name, and of which priority, is not known here.
    let is_fixed = |it: &BackendDraft| {
        let address = it.address.as_ref();
        address.is_some_and(|(address, _)| address.fixed().is_some())
    };
    if backends_file.is_none() && backends.iter().all(is_fixed) {
        let priorities = backends.iter().map(|backend| backend.priority);
        serving::tiers(table, &serving, priorities, problems);
    }
    let proxy = proxy_protocol::read(table, problems);
    let health = table.table("health", &keys::HEALTH, problems);
    let port = health.span_of("port");
    let (mut check, health) = health::health(&health, proxy.send, problems);
    let socket = socket::read(table, problems);
    check.egress = socket.outgoing.as_ref().and_then(|it| it.egress.clone());
    if let Some(span) = port
        && backends.iter().any(BackendDraft::has_no_port)
    {
        problems.add(
            Problem::warning("`port` has no effect for backends at paths")
                .at(span)
                .label("their checks go to their own sockets")
                .help("write check_address in each [[service.backend]] that is checked elsewhere"),
        );
    }
    // A file of backends may bring caps.
    let capped = backends_file.is_some() || backends.iter().any(|it| it.is_capped);
    Draft {
        listen: listen::read(table, &called, socket.mptcp, problems),
        name,
        backends,
        backends_file: backends_file.map(Arc::from),
        strategy,
        ipv6_prefix,
        max_load,
        backlog: table
            .integer("backlog", &(1..=65_535), problems)
            .unwrap_or(DEFAULT_BACKLOG),
        relay: table
            .choice("relay", RELAYS, problems)
            .unwrap_or(RelayMode::Auto),
        retries: table
            .integer("retries", &(0..=MOST_RETRIES), problems)
            .unwrap_or(DEFAULT_RETRIES),
        timeouts: timeouts(
            &table.table("timeouts", &keys::TIMEOUTS, problems),
            problems,
        ),
        check: Arc::new(check),
        health,
        serving,
        passive: passive::read(&table.table("passive", &keys::PASSIVE, problems), problems),
        queue: waiting::queue(table, capped, problems),
        on_down: waiting::on_down(table, problems),
        max_lifetime: waiting::max_lifetime(table, problems),
        socket,
        admission: AdmissionConfig {
            access: access::read(&table.table("access", &keys::ACCESS, problems), problems),
            limits: limits::read(&table.table("limits", &keys::LIMITS, problems), problems),
        },
        proxy,
    }
}

fn strategy(table: &Table<'_>, problems: &mut Problems) -> (Option<&'static Entry>, u8) {
    let names = strategy::REGISTRY.iter().map(|entry| entry.name);
    let entry = match table.get("strategy") {
        None if table.lacks("strategy") => strategy::find(DEFAULT_STRATEGY),
        None => None,
        Some(_) => table.parsed("strategy", problems, |name| {
            strategy::find(name).ok_or_else(|| unknown_word("strategy", name, names))
        }),
    };
    let prefix = table.integer("hash_ipv6_prefix", &(1..=128), problems);
    if let (Some(entry), Some(span)) = (entry, table.span_of("hash_ipv6_prefix"))
        && entry.name != HASHING_STRATEGY
    {
        problems.add(
            Problem::warning(format!(
                "`hash_ipv6_prefix` has no effect under \"{}\"",
                entry.name
            ))
            .at(span)
            .label(format!("only \"{HASHING_STRATEGY}\" looks at it")),
        );
    }
    let prefix = prefix.and_then(|prefix| u8::try_from(prefix).ok());
    (entry, prefix.unwrap_or(DEFAULT_IPV6_PREFIX))
}

fn timeouts(table: &Table<'_>, problems: &mut Problems) -> Timeouts {
    let preset = Timeouts::default();
    let mut read = |key, preset| table.duration(key, &SOME_TIME, problems).unwrap_or(preset);
    let timeouts = Timeouts {
        connect: read("connect", preset.connect),
        connect_total: read("connect_total", preset.connect_total),
        idle: read("idle", preset.idle),
        half_closed: read("half_closed", preset.half_closed),
    };
    let Timeouts {
        connect,
        connect_total,
        ..
    } = timeouts;
    let place = table
        .span_of("connect_total")
        .or_else(|| table.span_of("connect"));
    if connect_total < connect
        && let Some(span) = place
    {
        problems.add(
            Problem::warning(format!(
                "`connect_total` ({}) cuts every `connect` ({}) short",
                written(connect_total),
                written(connect)
            ))
            .at(span)
            .label("no retry can happen within it")
            .help("let connect_total be at least connect times the number of tries"),
        );
    }
    timeouts
}

const DEFAULT_STRATEGY: &str = "round-robin";
pub(super) const HASHING_STRATEGY: &str = "source-hash";
const DEFAULT_IPV6_PREFIX: u8 = 64;
const DEFAULT_BACKLOG: u32 = 4096;
const DEFAULT_RETRIES: u32 = 2;
/// One less than a session can remember as tried.
const MOST_RETRIES: u32 = Skip::MOST as u32 - 1;
