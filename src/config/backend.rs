//! One `[[service.backend]]`: who serves, and where.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use super::address;
use super::decode::Table;
use super::problem::{Problem, Problems};
use super::serving;
use super::source::Span;
use super::value::{self, MOST_CONNECTIONS};
use crate::model::{Address, UnixPath};
use crate::strategy::{self, Entry};

/// One `[[service.backend]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Unique within the service; by default the address as written.
    pub name: Arc<str>,
    /// Where it is.
    pub address: BackendAddress,
    /// 1 to 65,535.
    pub weight: u32,
    /// Its tier, 0 to 255: those of priority 0 serve first.
    pub priority: u32,
    /// The most sessions at a time, if there is such a limit.
    pub max_connections: Option<NonZeroU32>,
    /// `false` sends it no new sessions.
    pub enabled: bool,
    /// Where its check goes, when not to the backend itself.
    pub check_address: Option<Address>,
}

/// `address` of a backend
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// `ip:port` or `[v6]:port`
    Ip(SocketAddr),
    /// `unix:/path`
    Unix(UnixPath),
    /// `name:port`: every address of the name, followed as it changes.
    Name {
        /// The name to look up.
        host: Arc<str>,
        /// The port to connect to.
        port: u16,
        /// The addresses that count.
        family: Family,
    },
    /// `srv`: every address of every target that the records name, with their ports.
    Srv {
        /// The name to look up, such as `_pg._tcp.example.org`.
        name: Arc<str>,
        /// The addresses that count.
        family: Family,
    },
}

/// `family` of a backend
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl BackendAddress {
    /// Where it is, unless a name has to be asked for that.
    pub fn fixed(&self) -> Option<Address> {
        match self {
            Self::Ip(address) => Some(Address::Inet(*address)),
            Self::Unix(path) => Some(Address::Unix(*path)),
            Self::Name { .. } | Self::Srv { .. } => None,
        }
    }

    /// Whether all of it is IPv4, or all IPv6; `None` where that is open, or neither.
    pub fn is_ipv4(&self) -> Option<bool> {
        match self {
            Self::Ip(address) => Some(address.is_ipv4()),
            Self::Name { family, .. } | Self::Srv { family, .. } => match family {
                Family::Any => None,
                Family::V4 => Some(true),
                Family::V6 => Some(false),
            },
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(path) => Address::Unix(*path).fmt(f),
            Self::Name { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Srv { name, .. } => f.write_str(name),
        }
    }
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
    pub(super) priority: u32,
    max_connections: Option<NonZeroU32>,
    /// It has a `max_connections`, be it a wrong one.
    pub(super) is_capped: bool,
    pub(super) enabled: bool,
    check_address: Option<Address>,
}

impl BackendDraft {
    /// It is at a path, and checked there.
    pub(super) fn has_no_port(&self) -> bool {
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

/// Reads one, wherever it is listed.
pub(super) fn read(table: &Table<'_>, problems: &mut Problems) -> BackendDraft {
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

/// Where a backend is, with the place that says so, and that place as written.
type Located<'t> = (
    Option<(BackendAddress, Span)>,
    &'static str,
    Option<&'t str>,
);

fn located<'t>(table: &Table<'t>, problems: &mut Problems) -> Located<'t> {
    if table.lacks("address") && table.lacks("srv") {
        problems.add(
            table
                .missing("this backend has no address")
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

const FAMILIES: &[(&str, Family)] = &[
    ("any", Family::Any),
    ("ipv4", Family::V4),
    ("ipv6", Family::V6),
];
