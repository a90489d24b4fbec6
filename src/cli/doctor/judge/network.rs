//! How the kernel treats connections: what it holds back, drops or forgets.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{load, number};
use crate::cli::doctor::Finding;
use crate::cli::doctor::facts::{Facts, Kernel, Refusal, Why};
use crate::config::{BackendAddress, Config, ServiceConfig};
use crate::model::Sources;

/// What is in the way of those who would listen.
pub(super) fn listeners(facts: &Facts) -> Vec<Finding> {
    let Some(refusals) = &facts.refusals else {
        return Vec::new();
    };
    if refusals.is_empty() {
        return vec![Finding::fine("listen", "nobody else is in the way")];
    }
    let told = refusals.iter().take(MOST_REFUSALS);
    told.map(|refusal| {
        let Refusal { of, address, why } = refusal;
        let found = |how: String| {
            Finding::problem("listen", format!("{address} of {of} {how}"))
                .why("a start fails as long as it is so, and a reload that is to add it")
        };
        let port = address.port();
        match why {
            Why::Taken(holder) => found(match holder {
                Some(holder) => format!("is taken by {holder}"),
                None => "is taken; root may see by whom".to_owned(),
            })
            .wanted("nobody else at that address and port")
            .fix([format!("sudo ss -ltnp 'sport = :{port}'")]),
            Why::Elsewhere => found("is no address of this machine".to_owned())
                .wanted("an interface that has it, or net.ipv4.ip_nonlocal_bind for one that comes later")
                .fix(["ip address"]),
            Why::Other(words) => found(format!("cannot be bound: {words}")),
        }
    })
    .collect()
}

/// Addresses that are told of, each by itself.
const MOST_REFUSALS: usize = 10;

/// `backlog` of each service against what the kernel gives.
pub(super) fn backlog(facts: &Facts, config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let greatest = config.services.iter().max_by_key(|it| it.backlog);
    if let (Some(service), Some(limit)) = (greatest, facts.kernel.number("net.core.somaxconn")) {
        let asked = u64::from(service.backlog);
        findings.push(if asked > limit {
            Finding::problem(
                "backlog",
                format!("{} of the {} that service {} asks for", number(limit), number(asked), service.name),
            )
            .wanted(format!("net.core.somaxconn = {asked}"))
            .why("the kernel cuts a larger backlog down without a word, and a burst of clients has to try again")
            .sysctl("net.core.somaxconn", asked)
        } else {
            Finding::fine("backlog", format!("{} of at most {}", number(asked), number(limit)))
        });
        let half_open = facts.kernel.number("net.ipv4.tcp_max_syn_backlog");
        if let Some(half_open) = half_open.filter(|it| *it < asked.min(limit)) {
            findings.push(
                Finding::advice("backlog", format!("{} handshakes half done", number(half_open)))
                    .wanted(number(asked))
                    .why("beyond it SYN cookies take over, which cost clients without timestamps their window scale")
                    .sysctl("net.ipv4.tcp_max_syn_backlog", asked),
            );
        }
    }
    if let Some(lost) = facts.meters.listen_overflows.filter(|it| *it > 0) {
        findings.push(
            Finding::advice(
                "backlog",
                format!(
                    "{} handshakes found a full one since the machine has started",
                    number(lost)
                ),
            )
            .wanted(
                "0, if they were Ballast's: ss -ltn shows who is full now (Recv-Q beyond Send-Q)",
            )
            .why("a client whose handshake is dropped waits a second before it tries again")
            .fix(["ss -ltn", "nstat -az TcpExtListenOverflows"]),
        );
    }
    findings
}

/// Local ports against sessions and new sessions for each address of a backend.
pub(super) fn ports(facts: &Facts, config: &Config) -> Vec<Finding> {
    let Some((first, last)) = range(&facts.kernel) else {
        return Vec::new();
    };
    let reserved = reserved(&facts.kernel);
    let is_reserved = |port: u64| {
        reserved
            .iter()
            .any(|(from, to)| (*from..=*to).contains(&port))
    };
    let ports = (first..=last).filter(|port| !is_reserved(*port)).count() as u64;
    let reuse = facts.kernel.number("net.ipv4.tcp_tw_reuse");
    let reuses = reuse == Some(1);
    // 2 is for loopback only. Backends that only a file of their own names may be anywhere.
    let here_too = reuse == Some(2);
    let is_left = config
        .services
        .iter()
        .any(|it| it.backends_file.is_some() || leaves(&it.backends, here_too));
    let a_second = match reuses {
        true => "taken over at once (tcp_tw_reuse)".to_owned(),
        false if !is_left => "taken over at once on this machine".to_owned(),
        false => format!(
            "held for 60 s: {} new sessions a second",
            number(ports / TIME_WAIT)
        ),
    };
    let waiting = facts
        .meters
        .time_wait
        .map_or_else(String::new, |it| format!("; {} wait now", number(it)));
    let from_each = match config.services.iter().any(|it| pool(it).is_some()) {
        true => " from each source",
        false => "",
    };
    let now = format!(
        "{} to each backend address{from_each}, {a_second}{waiting}",
        number(ports)
    );
    let wider = |finding: Finding| {
        let finding = match ports < WIDE {
            true => finding.sysctl("net.ipv4.ip_local_port_range", "10240 65535"),
            false => finding,
        };
        match reuses {
            true => finding,
            false => finding.sysctl("net.ipv4.tcp_tw_reuse", 1),
        }
    };
    let mut findings = Vec::new();
    let held = rates(facts, config).into_iter();
    let held = held.filter(|(to, _)| !(reuses || here_too && to.ip().is_loopback()));
    let fastest = held.max_by(|(_, left), (_, right)| left.total_cmp(right));
    let too_fast = fastest.filter(|(_, rate)| rate * TIME_WAIT as f64 * 2.0 > ports as f64);
    if let Some((address, rate)) = too_fast {
        let finding = match rate * TIME_WAIT as f64 > ports as f64 {
            true => Finding::problem("ports", now),
            false => Finding::advice("ports", now),
        };
        findings.push(wider(
            finding
                .wanted(format!(
                    "room for {rate:.0} new sessions a second to {address}, and for more"
                ))
                .why("without a port a session goes to another backend, or fails"),
        ));
    } else if let Some((address, sessions)) = busiest(facts, config).filter(|(_, it)| *it > ports) {
        findings.push(wider(
            Finding::problem("ports", now)
                .wanted(format!("{} for the sessions that {address} may get", number(sessions)))
                .why("each session to one address takes a port; without one it goes to another backend, or fails")
                .fix([format!("# or another address of {address} as a backend of its own")]),
        ));
    } else if !reuses && ports < WIDE && is_left {
        findings.push(wider(
            Finding::advice("ports", now)
                .wanted("a wider range, and ports in TIME_WAIT taken over")
                .why("beyond that rate sessions go to another backend, or fail; timestamps make it safe (RFC 6191)"),
        ));
    } else {
        findings.push(Finding::fine("ports", now));
    }
    let listeners = config.services.iter().flat_map(|it| &it.listen);
    let exposed = listeners
        .filter_map(|it| Some(u64::from(it.address.inet()?.port())))
        .find(|port| (first..=last).contains(port) && !is_reserved(*port));
    if let Some(port) = exposed {
        let so_far = facts
            .kernel
            .text("net.ipv4.ip_local_reserved_ports")
            .filter(|it| !it.is_empty());
        let list = so_far.map_or_else(|| port.to_string(), |it| format!("{it},{port}"));
        findings.push(
            Finding::advice(
                "ports",
                format!("listener port {port} is among those that outgoing connections take"),
            )
            .wanted("it reserved")
            .why("a start, or a reload that adds it, fails while some connection has the port")
            .sysctl("net.ipv4.ip_local_reserved_ports", list),
        );
    }
    findings
}

/// How long a port is held after its session (RFC 9293, 3.6.1; Linux keeps to one minute).
const TIME_WAIT: u64 = 60;
/// As wide as the shipped settings make it, or nearly.
const WIDE: u64 = 50_000;

fn range(kernel: &Kernel) -> Option<(u64, u64)> {
    let text = kernel.text("net.ipv4.ip_local_port_range")?;
    let mut ports = text.split_whitespace().map(str::parse);
    Some((ports.next()?.ok()?, ports.next()?.ok()?))
}

/// `8080,9000-9010`
fn reserved(kernel: &Kernel) -> Vec<(u64, u64)> {
    let text = kernel
        .text("net.ipv4.ip_local_reserved_ports")
        .unwrap_or_default();
    let parts = text.split(',').filter_map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    });
    parts.collect()
}

/// The sources that connections of a service take turns to come from, if there are some.
fn pool(service: &ServiceConfig) -> Option<&Sources> {
    let egress = service.socket.outgoing.as_ref()?.egress.as_ref()?;
    let sources = Some(&egress.sources);
    sources.filter(|it| **it != Sources::Routed)
}

/// The address with the most sessions from one source that it may get by limits that somebody has written: those of
/// all its backends, or its share of `max_connections` where one service has nobody else.
fn busiest(facts: &Facts, config: &Config) -> Option<(SocketAddr, u64)> {
    let mut most: BTreeMap<SocketAddr, u64> = BTreeMap::new();
    let all = config
        .runtime
        .max_connections
        .map(|_| load::sessions(facts, config));
    for service in &config.services {
        for backend in service.backends.iter() {
            let BackendAddress::Ip(address) = backend.address else {
                continue;
            };
            let alone =
                all.filter(|_| service.backends.len() == 1 && service.backends_file.is_none());
            let own = backend
                .max_connections
                .map(|it| u64::from(it.get()))
                .or(alone);
            let Some(sources) = sources(Some(service), address) else {
                continue;
            };
            *most.entry(address).or_default() += own.unwrap_or(0).div_ceil(sources);
        }
    }
    most.into_iter().max_by_key(|(_, sessions)| *sessions)
}

/// New sessions a second to each address from one source, as the daemon has them now.
fn rates(facts: &Facts, config: &Config) -> BTreeMap<SocketAddr, f64> {
    let mut rates = BTreeMap::new();
    for ((service, address), rate) in &facts.rates {
        let service = config.services.iter().find(|it| *it.name == **service);
        if let Some(sources) = sources(service, *address) {
            *rates.entry(*address).or_default() += rate / sources as f64;
        }
    }
    rates
}

/// From how many addresses connections of a service to `address` come; `None` where each client has the ports of
/// its own.
fn sources(service: Option<&ServiceConfig>, address: SocketAddr) -> Option<u64> {
    match service.and_then(pool) {
        Some(Sources::Client) => None,
        Some(pool) => Some(pool.of_family(address.is_ipv4()).count().max(1) as u64),
        None => Some(1),
    }
}

/// Whether one of them is where ports are held: elsewhere than on this machine, if they are taken over on it.
fn leaves(backends: &[crate::config::BackendConfig], here_too: bool) -> bool {
    backends.iter().any(|it| match &it.address {
        BackendAddress::Ip(address) => !(here_too && address.ip().is_loopback()),
        BackendAddress::Name { host, .. } => !(here_too && &**host == "localhost"),
        BackendAddress::Srv { .. } => true,
        BackendAddress::Unix(_) => false,
    })
}

/// The table of connections that a firewall keeps.
pub(super) fn conntrack(facts: &Facts, config: &Config) -> Option<Finding> {
    let most = facts.kernel.number("net.netfilter.nf_conntrack_max");
    let Some(most) = most.filter(|it| *it > 0) else {
        return Some(Finding::fine("conntrack", "not loaded"));
    };
    let used = facts
        .kernel
        .number("net.netfilter.nf_conntrack_count")
        .unwrap_or(0);
    let sessions = load::sessions(facts, config);
    let needed = sessions.saturating_mul(2);
    let now = format!("{} of {} entries used", number(used), number(most));
    let why = "when the table is full, the kernel drops whatever would begin";
    // Room for all of them as well as for what else the machine does.
    let room = needed
        .saturating_add(used)
        .next_power_of_two()
        .min(MOST_TRACKED);
    let grow = |finding: Finding| {
        finding.sysctl(
            "net.netfilter.nf_conntrack_max",
            room.max(most.saturating_mul(2)),
        )
    };
    if used.saturating_mul(5) >= most.saturating_mul(4) {
        return Some(grow(
            Finding::problem("conntrack", now)
                .wanted("less than 80 %")
                .why(why),
        ));
    }
    if used > 0 && needed > most {
        let finding = match config.runtime.max_connections {
            Some(_) => Finding::problem("conntrack", now),
            None => Finding::advice("conntrack", now),
        };
        let wanted = format!(
            "two for each of {} sessions, or none of Ballast's connections in it",
            number(sessions)
        );
        return Some(grow(finding.wanted(wanted).why(why)));
    }
    Some(Finding::fine("conntrack", now))
}

/// Each entry takes some 300 bytes of the kernel's memory.
const MOST_TRACKED: u64 = 4 << 20;

/// What has nothing to do with the file.
pub(super) fn machine(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(control) = facts.kernel.text("net.ipv4.tcp_congestion_control") {
        findings.push(match control {
            "bbr" => Finding::advice("congestion", "bbr")
                .wanted("cubic, unless clients are far away and their lines lose packets")
                .why("bbr paces: towards loopback and a local network that costs throughput and adds latency")
                .sysctl("net.ipv4.tcp_congestion_control", "cubic"),
            other => Finding::fine("congestion", other),
        });
    }
    if let Some(migrate) = facts.kernel.number("net.ipv4.tcp_migrate_req") {
        // It is for servers that close one of several sockets of a port.
        findings.push(Finding::fine(
            "migrate",
            format!("tcp_migrate_req = {migrate}; not needed: listeners outlive reloads, and are emptied before they close"),
        ));
    }
    findings
}
