//! One `[[service]]`, read key by key. What two services do to each other is
//! [`conflicts`](super::conflicts)'s business.

use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::address;
use super::admission;
use super::decode::{Table, mistype, unknown_word};
use super::health;
use super::keys;
use super::passive;
use super::problem::{Need, Problem, Problems};
use super::proxy_protocol;
use super::serving;
use super::socket;
use super::source::Span;
use super::value::{self, MOST_CONNECTIONS, SOME_TIME, written};
use super::waiting;
use super::{
    AdmissionConfig, BackendAddress, BackendConfig, Family, ListenConfig, OnDown, ProxyConfig,
    QueueConfig, RelayMode, ServiceConfig, SocketConfig, Timeouts,
};
use crate::health::{Check, Passive, Policy, Rules};
use crate::model::{Address, UnixPath};
use crate::strategy::{self, Entry, Parameters, Skip};

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

/// A backend as far as it could be read.
#[derive(Debug)]
pub(super) struct BackendDraft {
    pub(super) name: Option<Arc<str>>,
    /// Where the name is written, or the address that stands in for it.
    pub(super) name_span: Span,
    /// Whether the name is written, rather than the address standing in for it.
    pub(super) named: bool,
    pub(super) address: Option<(BackendAddress, Span)>,
    weight: u32,
    priority: u32,
    max_connections: Option<NonZeroU32>,
    /// It has a `max_connections`, be it a wrong one.
    is_capped: bool,
    pub(super) enabled: bool,
    check_address: Option<Address>,
}

impl Draft {
    /// The service, if nothing that it needs is missing.
    pub(super) fn finish(self) -> Option<ServiceConfig> {
        let backends: Vec<BackendConfig> = self
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

impl BackendDraft {
    fn has_no_port(&self) -> bool {
        let at_path = matches!(self.address, Some((BackendAddress::Unix(_), _)));
        at_path && self.check_address.is_none()
    }

    /// The backend, if nothing that it needs is missing.
    pub(super) fn finish(self) -> Option<BackendConfig> {
        Some(BackendConfig {
            name: self.name?,
            address: self.address?.0,
            weight: self.weight,
            priority: self.priority,
            max_connections: self.max_connections,
            enabled: self.enabled,
            check_address: self.check_address,
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
        problems.add(missing(table, "this service has no name").help("write name = \"web\""));
    }
    let (strategy, ipv6_prefix) = strategy(table, problems);
    let backends_file = table.parsed("backends_file", problems, backends_file);
    if let (Some(file), Some(span)) = (&backends_file, table.span_of("backends_file")) {
        problems.need(Need::Later(file.to_path_buf()), span);
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
                missing(table, format!("{} has no backend", called(name.as_ref())))
                    .help("a backend begins with [[service.backend]] and needs an address"),
            );
        }
        weights(&tables, strategy, problems);
        tables
            .iter()
            .map(|table| backend(table, problems))
            .collect()
    };
    if !backends.is_empty()
        && backends.iter().all(|backend| !backend.enabled)
        && backends_file.is_none()
    {
        let mut problem = Problem::warning(format!(
            "no backend of {} is enabled",
            called(name.as_ref())
        ));
        problem.span = table.span();
        problems.add(problem.label("every connection will be refused"));
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
        listen: listen(table, name.as_ref(), socket.mptcp, problems),
        name,
        backends,
        backends_file,
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
        admission: admission::read(table, problems),
        proxy,
    }
}

fn called(name: Option<&(Arc<str>, Span)>) -> String {
    name.map_or_else(
        || "this service".to_owned(),
        |(name, _)| format!("service `{name}`"),
    )
}

fn missing(table: &Table<'_>, message: impl Into<String>) -> Problem {
    let mut problem = Problem::error(message).absent();
    problem.span = table.span();
    problem
}

fn listen(
    table: &Table<'_>,
    name: Option<&(Arc<str>, Span)>,
    mptcp: bool,
    problems: &mut Problems,
) -> Vec<(ListenConfig, Span)> {
    let dual_stack = table.boolean("dual_stack", problems).unwrap_or(false);
    let Some(value) = table.get("listen") else {
        if table.lacks("listen") {
            problems.add(
                missing(table, format!("{} has no listener", called(name)))
                    .help("write listen = \"0.0.0.0:8080\", or several as listen = [\"…\", \"…\"]"),
            );
        }
        return Vec::new();
    };
    let items = match value.get_ref().as_array() {
        Some(items) => items.iter().collect(),
        None => vec![value],
    };
    if items.is_empty() {
        problems.add(
            Problem::error(format!("{} has no listener", called(name)))
                .at(value.span())
                .label("at least one address is needed"),
        );
    }
    let mut read: Vec<(Address, Span)> = Vec::with_capacity(items.len());
    for item in items {
        match item.get_ref().as_str().map(address::listener) {
            Some(Ok(address)) => {
                if let Address::Unix(path) = &address {
                    problems.need(Need::Socket(path.as_path().to_owned()), item.span());
                }
                read.push((address, item.span()));
            }
            Some(Err(fault)) => problems.add(fault.at(item.span())),
            None if item.get_ref().is_integer() => {
                let port = item.get_ref().as_integer().map(ToString::to_string);
                let port = port.unwrap_or_default();
                problems.add(
                    mistype("listen", item, "an address in quotes")
                        .label("allowed: ip:port or [v6]:port")
                        .help(format!("write \"0.0.0.0:{port}\" for every IPv4 address")),
                );
            }
            None => problems.add(
                mistype("listen", item, "an address in quotes")
                    .label("allowed: ip:port or [v6]:port, or a list of them"),
            ),
        }
    }
    let wildcard = |address: &Address| {
        let ip = address.inet().map(|it| it.ip());
        ip.is_some_and(|ip| ip.is_ipv6() && ip.is_unspecified())
    };
    if dual_stack
        && !read.iter().any(|(address, _)| wildcard(address))
        && let Some(span) = table.span_of("dual_stack")
    {
        problems.add(
            Problem::warning("`dual_stack` has no effect here")
                .at(span)
                .label("no listener of this service is an IPv6 wildcard, \"[::]:port\""),
        );
    }
    read.into_iter()
        .map(|(address, span)| {
            let listen = ListenConfig {
                address,
                dual_stack: dual_stack && wildcard(&address),
                mptcp: mptcp && address.inet().is_some(),
            };
            (listen, span)
        })
        .collect()
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

/// One warning for all the weights of a service that its strategy ignores.
pub(super) fn weights(
    tables: &[Table<'_>],
    strategy: Option<&'static Entry>,
    problems: &mut Problems,
) {
    let Some(entry) = strategy.filter(|entry| !entry.weighted) else {
        return;
    };
    let mut spans = tables.iter().filter_map(|table| table.span_of("weight"));
    let Some(first) = spans.next() else {
        return;
    };
    let mut problem = Problem::warning(format!("weights have no effect under \"{}\"", entry.name))
        .at(first)
        .label("ignored");
    match spans.count() {
        0 => {}
        1 => problem = problem.note("and so has another one of this service"),
        more => problem = problem.note(format!("and so have {more} others of this service")),
    }
    let weighted: Vec<String> = strategy::REGISTRY
        .iter()
        .filter(|entry| entry.weighted)
        .map(|entry| format!("\"{}\"", entry.name))
        .collect();
    problems.add(problem.help(format!("weights count under {}", weighted.join(", "))));
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

/// A path as far as its text tells.
fn backends_file(text: &str) -> Result<Arc<Path>, value::Fault> {
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        return Err(value::Fault::new("`backends_file` does not name a file")
            .allowed("allowed: a path, relative to the directory of this file or from \"/\""));
    }
    Ok(Arc::from(Path::new(text)))
}

/// Where a backend is, with the place that says so, and that place as written.
type Located<'t> = (
    Option<(BackendAddress, Span)>,
    &'static str,
    Option<&'t str>,
);

fn located<'t>(table: &Table<'t>, problems: &mut Problems) -> Located<'t> {
    if table.lacks("address") && table.lacks("srv") {
        problems.add(
            missing(table, "this backend has no address")
                .help("write address = \"10.0.0.11:8080\", or a name and a port"),
        );
    }
    let family = table.choice("family", FAMILIES, problems);
    let which = family.unwrap_or_default();
    let text = |key| table.get(key).and_then(|it| it.get_ref().as_str());
    if let Some(span) = table.span_of("srv") {
        if table.get("address").is_some() {
            problems.add(
                Problem::error("this backend has an `address` and a `srv`")
                    .at(span.clone())
                    .label("the records of `srv` say where to connect")
                    .help("keep one of them"),
            );
        }
        if let Some(weight) = table.span_of("weight") {
            problems.add(
                Problem::error("this backend has a `weight` and a `srv`")
                    .at(weight)
                    .label("the records of `srv` say how much each one weighs")
                    .help("leave `weight` out"),
            );
        }
        if let Some(priority) = table.span_of("priority") {
            problems.add(
                Problem::error("this backend has a `priority` and a `srv`")
                    .at(priority)
                    .label("the records of `srv` say who comes first")
                    .help("leave `priority` out"),
            );
        }
        let name = table.parsed("srv", problems, address::srv);
        let name = name.map(|name| Arc::from(name.to_ascii_lowercase()));
        let address = name.map(|name| BackendAddress::Srv {
            name,
            family: which,
        });
        return (address.map(|it| (it, span)), "srv", text("srv"));
    }
    let mut address = table.parsed("address", problems, address::backend);
    match &mut address {
        Some(BackendAddress::Name { family, .. }) => *family = which,
        Some(fixed @ (BackendAddress::Ip(_) | BackendAddress::Unix(_))) => {
            if let Some(span) = table.span_of("family") {
                problems.add(
                    Problem::warning("`family` has no effect here")
                        .at(span)
                        .label(format!("{fixed} is not a name")),
                );
            }
        }
        Some(BackendAddress::Srv { .. }) | None => {}
    }
    let address = address.and_then(|address| Some((address, table.span_of("address")?)));
    (address, "address", text("address"))
}

/// What a backend at a path is called that has no name: paths of APIs are made of names, so not by its own.
fn file_name(path: &UnixPath) -> Result<&str, value::Fault> {
    let last = path.as_path().file_name().and_then(|it| it.to_str());
    value::name(last.unwrap_or_default()).map_err(|fault| fault.help("give this backend a `name`"))
}

pub(super) fn backend(table: &Table<'_>, problems: &mut Problems) -> BackendDraft {
    let (address, key, written) = located(table, problems);
    let named = table.get("name").is_some();
    let name = match named {
        true => table.parsed("name", problems, value::name).map(Arc::from),
        false => match &address {
            Some((BackendAddress::Unix(path), span)) => file_name(path)
                .map(Arc::from)
                .map_err(|fault| problems.add(fault.at(span.clone())))
                .ok(),
            address => address.as_ref().and(written).map(Arc::from),
        },
    };
    BackendDraft {
        name,
        name_span: table
            .span_of(if named { "name" } else { key })
            .unwrap_or_default(),
        named,
        address,
        weight: table
            .integer("weight", &(1..=65_535), problems)
            .unwrap_or(1),
        priority: serving::priority(table, problems),
        is_capped: !table.lacks("max_connections"),
        max_connections: table
            .integer("max_connections", &(1..=MOST_CONNECTIONS), problems)
            .and_then(NonZeroU32::new),
        enabled: table.boolean("enabled", problems).unwrap_or(true),
        check_address: table.parsed("check_address", problems, address::check),
    }
}

const FAMILIES: &[(&str, Family)] = &[
    ("any", Family::Any),
    ("ipv4", Family::V4),
    ("ipv6", Family::V6),
];
const DEFAULT_STRATEGY: &str = "round-robin";
pub(super) const HASHING_STRATEGY: &str = "source-hash";
const DEFAULT_IPV6_PREFIX: u8 = 64;
const DEFAULT_BACKLOG: u32 = 4096;
const DEFAULT_RETRIES: u32 = 2;
/// One less than a session can remember as tried.
const MOST_RETRIES: u32 = Skip::MOST as u32 - 1;
