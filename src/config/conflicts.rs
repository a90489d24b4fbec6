//! What is fine alone and wrong together: names used twice, listeners that cannot both be bound, a
//! service that is its own backend. Every check is one pass with hash maps, however large the file.

use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use super::backend::BackendDraft;
use super::problem::{Problem, Problems, shown};
use super::service::Draft;
use super::source::{Source, Span};
use super::{AdminAddress, BackendAddress, ListenConfig, SocketConfig};
use crate::model::{Address, Map, Set, Sources, UnixPath};

/// `admin` is where the admin endpoint listens.
pub(super) fn check(
    drafts: &[Draft],
    admin: &[(AdminAddress, Span)],
    source: &Source<'_>,
    problems: &mut Problems,
) {
    services(drafts, source, problems);
    listeners(drafts, admin, source, problems);
    for draft in drafts {
        backends(&draft.backends, source, problems);
        let listen = draft.listen.iter().map(|(listen, _)| listen);
        loops(listen, &draft.backends, problems);
        sources(&draft.socket, &draft.backends, problems);
    }
}

fn services(drafts: &[Draft], source: &Source<'_>, problems: &mut Problems) {
    let mut first: Map<&str, &Span> = Map::default();
    for (name, span) in drafts.iter().filter_map(|draft| draft.name.as_ref()) {
        match first.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(span);
            }
            Entry::Occupied(entry) => problems.add(
                Problem::error(format!("two services are named `{}`", shown(name)))
                    .at(span.clone())
                    .label("a name is unique among the services")
                    .note(format!("first used on line {}", line(source, entry.get()))),
            ),
        }
    }
}

/// Backends of one service that have a name or an address in common.
pub(super) fn backends(backends: &[BackendDraft], source: &Source<'_>, problems: &mut Problems) {
    let mut names: Map<&str, &Span> = Map::default();
    let mut addresses: Map<&BackendAddress, &Span> = Map::default();
    for backend in backends {
        let mut twin = false;
        if let Some(name) = &backend.name {
            match names.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(&backend.name_span);
                }
                Entry::Occupied(entry) => {
                    twin = true;
                    let problem = Problem::error(format!(
                        "two backends of this service are named `{}`",
                        shown(name)
                    ))
                    .at(backend.name_span.clone())
                    .label("a name is unique within its service")
                    .note(format!("first used on line {}", line(source, entry.get())));
                    problems.add(match backend.named {
                        true => problem,
                        false => problem.help("without a `name`, the address is the name"),
                    });
                }
            }
        }
        let Some((address, span)) = &backend.address else {
            continue;
        };
        // A disabled one has no share: how an operator keeps the successor of a server at hand.
        if !backend.enabled {
            continue;
        }
        match addresses.entry(address) {
            Entry::Vacant(entry) => {
                entry.insert(span);
            }
            Entry::Occupied(_) if twin => {}
            Entry::Occupied(entry) => problems.add(
                Problem::warning(format!("two backends of this service are at {address}"))
                    .at(span.clone())
                    .label("it gets the share of both")
                    .note(format!("first used on line {}", line(source, entry.get()))),
            ),
        }
    }
}

/// Listeners that share a port, by what they could take from each other.
#[derive(Default)]
struct Port<'a> {
    exact: Map<SocketAddr, Seen<'a>>,
    any_v4: Option<Seen<'a>>,
    any_v6: Option<(Seen<'a>, bool)>,
    one_v4: Option<Seen<'a>>,
    one_v6: Option<Seen<'a>>,
}

#[derive(Clone, Copy)]
struct Seen<'a> {
    address: Address,
    owner: Owner<'a>,
    span: &'a Span,
}

/// Whose a listener is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner<'a> {
    /// Its name, if that could be read.
    Service(Option<&'a str>),
    Admin,
}

/// Linux binds a wildcard beside a specific address of its family and port only while neither listens
/// (`inet_csk_bind_conflict`); a dual-stack IPv6 wildcard takes the IPv4 port as well.
fn listeners(
    drafts: &[Draft],
    admin: &[(AdminAddress, Span)],
    source: &Source<'_>,
    problems: &mut Problems,
) {
    let of_services = drafts.iter().flat_map(|draft| {
        let owner = Owner::Service(draft.name.as_ref().map(|(name, _)| name.as_ref()));
        let listen = draft.listen.iter();
        listen.map(move |(listen, span)| (owner, *listen, span))
    });
    let of_admin = admin.iter().filter_map(|(address, span)| {
        let listen = ListenConfig {
            address: match address {
                AdminAddress::Tcp(address) => Address::Inet(*address),
                AdminAddress::Unix(path) => Address::Unix(UnixPath::new(path)?),
            },
            dual_stack: false,
            mptcp: false,
        };
        Some((Owner::Admin, listen, span))
    });
    let mut ports: Map<u16, Port<'_>> = Map::default();
    let mut paths: Map<PathBuf, Seen<'_>> = Map::default();
    for (owner, listen, span) in of_services.chain(of_admin) {
        let address = match listen.address {
            Address::Inet(address) => address,
            Address::Unix(path) => {
                let new = Seen {
                    address: listen.address,
                    owner,
                    span,
                };
                match paths.entry(real(path.as_path())) {
                    Entry::Vacant(entry) => {
                        entry.insert(new);
                    }
                    Entry::Occupied(entry) => {
                        problems.add(clash(&new, entry.get(), SAME_PATH, source));
                    }
                }
                continue;
            }
        };
        if address.port() == 0 {
            continue;
        }
        let new = Seen {
            address: listen.address,
            owner,
            span,
        };
        let port = ports.entry(address.port()).or_default();
        if let Some((old, why)) = port.clash(address, &listen) {
            problems.add(clash(&new, &old, why, source));
        }
        port.remember(new, address, &listen);
    }
}

/// The name of a socket in its directory with every link followed, as far as that is there.
fn real(path: &Path) -> PathBuf {
    let directory = path.parent().and_then(|it| it.canonicalize().ok());
    match (directory, path.file_name()) {
        (Some(directory), Some(name)) => directory.join(name),
        _ => path.to_owned(),
    }
}

impl<'a> Port<'a> {
    fn clash(&self, address: SocketAddr, new: &ListenConfig) -> Option<(Seen<'a>, &'static str)> {
        if let Some(old) = self.exact.get(&address) {
            return Some((*old, SAME));
        }
        let dual_v6 = self.any_v6.filter(|(_, dual)| *dual).map(|(old, _)| old);
        let any = address.ip().is_unspecified();
        match (address.ip(), any) {
            (IpAddr::V4(_), true) => with(self.one_v4, COVERS).or(with(dual_v6, DUAL)),
            (IpAddr::V4(_), false) => with(self.any_v4, COVERED).or(with(dual_v6, DUAL)),
            (IpAddr::V6(_), true) if new.dual_stack => with(self.one_v6, COVERS)
                .or(with(self.any_v4, TAKES))
                .or(with(self.one_v4, TAKES)),
            (IpAddr::V6(_), true) => with(self.one_v6, COVERS),
            (IpAddr::V6(_), false) => with(self.any_v6.map(|(old, _)| old), COVERED),
        }
    }

    fn remember(&mut self, new: Seen<'a>, address: SocketAddr, listen: &ListenConfig) {
        self.exact.entry(address).or_insert(new);
        let any = address.ip().is_unspecified();
        match (address.ip(), any) {
            (IpAddr::V4(_), true) => self.any_v4 = self.any_v4.or(Some(new)),
            (IpAddr::V4(_), false) => self.one_v4 = self.one_v4.or(Some(new)),
            (IpAddr::V6(_), true) => {
                let dual = listen.dual_stack || self.any_v6.is_some_and(|(_, dual)| dual);
                self.any_v6 = Some((self.any_v6.map_or(new, |(old, _)| old), dual));
            }
            (IpAddr::V6(_), false) => self.one_v6 = self.one_v6.or(Some(new)),
        }
    }
}

fn with<'a>(old: Option<Seen<'a>>, why: &'static str) -> Option<(Seen<'a>, &'static str)> {
    old.map(|old| (old, why))
}

fn clash(new: &Seen<'_>, old: &Seen<'_>, why: &str, source: &Source<'_>) -> Problem {
    let owner = match old.owner {
        Owner::Service(Some(_)) if old.owner == new.owner => "this service".to_owned(),
        Owner::Service(Some(name)) => format!("service `{}`", shown(name)),
        Owner::Service(None) => "another service".to_owned(),
        Owner::Admin => "the admin endpoint".to_owned(),
    };
    let message = match new.address == old.address {
        true => format!("{} is listened on twice", new.address),
        false => format!("{} conflicts with {}", new.address, old.address),
    };
    Problem::error(message)
        .at(new.span.clone())
        .label(why)
        .note(format!(
            "{} belongs to {owner}, line {}",
            old.address,
            line(source, old.span)
        ))
}

const SAME: &str = "one address has one listener";
const SAME_PATH: &str = "one path has one listener, whatever it is called";
const COVERS: &str = "this wildcard takes that address too";
const COVERED: &str = "that wildcard takes this address too";
const DUAL: &str = "that dual-stack wildcard takes IPv4 too";
const TAKES: &str = "this dual-stack wildcard takes IPv4 too";

/// A backend that is a listener of its own service: the first connection would multiply until the
/// limit on connections stops it.
pub(super) fn loops<'l>(
    listen: impl Iterator<Item = &'l ListenConfig>,
    backends: &[BackendDraft],
    problems: &mut Problems,
) {
    let own = Doors::of(listen);
    for (address, span) in backends.iter().filter_map(|it| it.address.as_ref()) {
        let Some(address) = address.fixed() else {
            continue;
        };
        if own.leads_to(address) {
            problems.add(
                Problem::error(format!(
                    "the backend {address} is a listener of its own service"
                ))
                .at(span.clone())
                .label("connections would go round in circles"),
            );
        }
    }
}

/// Backends that no address of the service's pool of sources can connect to.
pub(super) fn sources(socket: &SocketConfig, backends: &[BackendDraft], problems: &mut Problems) {
    let egress = socket.outgoing.as_ref().and_then(|it| it.egress.as_ref());
    let Some(egress) = egress.filter(|it| matches!(it.sources, Sources::Pool(_))) else {
        return;
    };
    for (address, span) in backends.iter().filter_map(|it| it.address.as_ref()) {
        let Some(ipv4) = address.is_ipv4() else {
            continue;
        };
        if egress.sources.of_family(ipv4).next().is_none() {
            let family = if ipv4 { "IPv4" } else { "IPv6" };
            problems.add(
                Problem::warning(format!("no address of `source` is of {family}"))
                    .at(span.clone())
                    .label("connections to it come from where the routes say")
                    .help(format!("add an {family} address to `source`")),
            );
        }
    }
}

/// The listeners of one service, to tell whether a backend is one of them.
#[derive(Debug)]
pub(crate) struct Doors {
    exact: Set<Address>,
    /// Wildcards: the port, and whether IPv4 and IPv6 get in.
    any: Vec<(u16, bool, bool)>,
}

impl Doors {
    /// Of these.
    pub(crate) fn of<'l>(listen: impl Iterator<Item = &'l ListenConfig>) -> Self {
        let mut any = Vec::new();
        let mut exact = Set::default();
        for listen in listen {
            exact.insert(listen.address);
            let Some(address) = listen.address.inet() else {
                continue;
            };
            let (ip, port) = (address.ip(), address.port());
            if ip.is_unspecified() {
                any.push((port, ip.is_ipv4() || listen.dual_stack, ip.is_ipv6()));
            }
        }
        any.sort_unstable();
        any.dedup();
        any.truncate(MOST_WILDCARDS);
        Self { exact, any }
    }

    /// Whether a connection to `address` comes in by one of them.
    pub(crate) fn leads_to(&self, to: Address) -> bool {
        if self.exact.contains(&to) {
            return true;
        }
        let Some(address) = to.inet() else {
            return false;
        };
        let by_any = |&(port, v4, v6): &(u16, bool, bool)| {
            port == address.port() && if address.is_ipv4() { v4 } else { v6 }
        };
        address.ip().is_loopback() && self.any.iter().any(by_any)
    }
}

/// More wildcard listeners than any service has; keeps the check linear in the backends.
const MOST_WILDCARDS: usize = 64;

fn line(source: &Source<'_>, span: &Span) -> usize {
    source.line_of(span.start) + 1
}
