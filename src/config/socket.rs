//! `[service.socket]`: what the connections of a service are told that the kernel would else decide:
//! where they come from, and how TCP behaves on them. Whether the kernel and our privileges allow it is
//! for [`Demand`]s to say, which whoever loads a file has tried.

use std::collections::HashSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::admin::{self, SocketAccess};
use super::decode::Table;
use super::keys;
use super::problem::{Problem, Problems, shown};
use super::source::Span;
use super::value::{Fault, written};
use crate::model::{Egress, Sources};

/// `[service.socket]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketConfig {
    /// Whether clients may come over several paths at once (`IPPROTO_MPTCP`).
    pub mptcp: bool,
    /// Who may connect to its Unix sockets.
    pub access: SocketAccess,
    /// Of connections from clients.
    pub incoming: Incoming,
    /// Of connections to backends; `None` leaves everything to the kernel and to the house.
    pub outgoing: Option<Arc<Outgoing>>,
}

/// What connections from clients are told. Set on the listener, from which they inherit it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// What holds for both sides.
    pub tuning: Tuning,
    /// Whether a SYN may bring the client's first bytes along (`TCP_FASTOPEN`).
    pub fast_open: bool,
    /// A client that says nothing is not accepted for about this long (`TCP_DEFER_ACCEPT`).
    pub defer_accept: Option<Duration>,
    /// The interface that clients come by (`SO_BINDTODEVICE`).
    pub interface: Option<Box<str>>,
}

/// What connections to backends are told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// What holds for both sides.
    pub tuning: Tuning,
    /// Whether a SYN brings along what is there to be sent (`TCP_FASTOPEN`).
    pub fast_open: bool,
    /// How they leave; probes leave like that, too.
    pub egress: Option<Arc<Egress>>,
}

/// How TCP behaves on either side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tuning {
    /// Probes of silent connections; `None` is as the house has it.
    pub keepalive: Option<Keepalive>,
    /// A connection whose peer acknowledges nothing for this long is given up (`TCP_USER_TIMEOUT`).
    pub user_timeout: Option<Duration>,
    /// The algorithm by which it sends (`TCP_CONGESTION`).
    pub congestion: Option<Box<str>>,
    /// The largest segment, in bytes (`TCP_MAXSEG`).
    pub mss: Option<u16>,
}

/// Probes of connections on which nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// The first one after this silence, …
    pub idle: Duration,
    /// … then one every interval, …
    pub interval: Duration,
    /// … and so many without an answer end the connection.
    pub count: u32,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            count: 6,
        }
    }
}

/// Something that a file wants and that only the kernel can say whether we get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Demand {
    /// Connections from this address.
    Source(IpAddr),
    /// Connections from the addresses of clients.
    Transparent,
    /// Data in the SYN of clients.
    FastOpenOfClients,
    /// Data in the SYN to backends.
    FastOpenToBackends,
    /// Clients that are accepted when they have said something.
    DeferAccept(Duration),
    /// A way of sending.
    Congestion(Box<str>),
    /// Segments no larger than this.
    Mss(u16),
    /// Marked packets.
    Mark(u32),
    /// Packets by this interface alone.
    Interface(Box<str>),
    /// Multipath TCP, with these options.
    Mptcp(Box<Incoming>),
}

impl fmt::Display for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(source) => write!(f, "no connection can come from {source}"),
            Self::Transparent => f.write_str("no connection can come from a client's address"),
            Self::FastOpenOfClients => f.write_str("clients cannot have TCP Fast Open"),
            Self::FastOpenToBackends => f.write_str("backends cannot have TCP Fast Open"),
            Self::DeferAccept(_) => f.write_str("accepting cannot wait for data"),
            Self::Congestion(name) => write!(f, "there is no congestion control \"{name}\" for us"),
            Self::Mss(mss) => write!(f, "segments of {mss} bytes cannot be had"),
            Self::Mark(_) => f.write_str("packets cannot be marked"),
            Self::Interface(name) => write!(f, "the interface \"{name}\" cannot be had"),
            Self::Mptcp(_) => f.write_str("clients cannot have Multipath TCP"),
        }
    }
}

/// Why the kernel does not grant a [`Demand`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// What it says.
    pub why: String,
    /// What would change that.
    pub help: Option<&'static str>,
}

/// The section as it is written.
pub(super) fn read(service: &Table<'_>, problems: &mut Problems) -> SocketConfig {
    let table = service.table("socket", &keys::SOCKET, problems);
    let tuning = Tuning {
        keepalive: keepalive(&table, problems),
        user_timeout: table.duration("user_timeout", &USER_TIMEOUTS, problems),
        congestion: demanded(&table, "congestion", problems, congestion, |name| {
            Demand::Congestion(name.clone())
        }),
        mss: mss(&table, problems),
    };
    let (of_clients, to_backends) = fast_open(&table, problems);
    let incoming = Incoming {
        tuning: tuning.clone(),
        fast_open: of_clients,
        defer_accept: defer_accept(&table, problems),
        interface: demanded(&table, "listen_interface", problems, interface, |name| {
            Demand::Interface(name.clone())
        }),
    };
    let mptcp = table.boolean("mptcp", problems).unwrap_or(false);
    if let Some(span) = table.span_of("mptcp").filter(|_| mptcp) {
        problems.demand(Demand::Mptcp(Box::new(incoming.clone())), span);
    }
    let egress = Egress {
        sources: sources(&table, problems),
        interface: demanded(&table, "interface", problems, interface, |name| {
            Demand::Interface(name.clone())
        }),
        mark: mark(&table, problems),
    };
    let outgoing = Outgoing {
        tuning,
        fast_open: to_backends,
        egress: (egress != Egress::default()).then(|| Arc::new(egress)),
    };
    SocketConfig {
        mptcp,
        access: admin::access(&table, problems),
        incoming,
        outgoing: (outgoing != Outgoing::default()).then(|| Arc::new(outgoing)),
    }
}

fn keepalive(table: &Table<'_>, problems: &mut Problems) -> Option<Keepalive> {
    let idle = seconds(table, "keepalive_idle", problems);
    let interval = seconds(table, "keepalive_interval", problems);
    let count = table.integer("keepalive_count", &PROBES, problems);
    if idle.is_none() && interval.is_none() && count.is_none() {
        return None;
    }
    let preset = Keepalive::default();
    let keepalive = Keepalive {
        idle: idle.unwrap_or(preset.idle),
        interval: interval.unwrap_or(preset.interval),
        count: count.unwrap_or(preset.count),
    };
    // What is written and comes to the same need not be paid for.
    (keepalive != preset).then_some(keepalive)
}

/// A time that the kernel counts in seconds.
fn seconds(table: &Table<'_>, key: &'static str, problems: &mut Problems) -> Option<Duration> {
    let time = table.duration(key, &SECONDS, problems)?;
    if time.subsec_nanos() != 0 {
        problems.add(
            Problem::error(format!("`{key}` is \"{}\"", written(time)))
                .at(table.span_of(key)?)
                .label("the kernel counts whole seconds"),
        );
        return None;
    }
    Some(time)
}

fn mss(table: &Table<'_>, problems: &mut Problems) -> Option<u16> {
    let mss = table.integer("mss", &SEGMENTS, problems)?;
    let mss = u16::try_from(mss).ok()?;
    problems.demand(Demand::Mss(mss), table.span_of("mss")?);
    Some(mss)
}

fn mark(table: &Table<'_>, problems: &mut Problems) -> Option<u32> {
    let mark = table.integer("mark", &MARKS, problems)?;
    problems.demand(Demand::Mark(mark), table.span_of("mark")?);
    Some(mark)
}

/// For clients, and for backends.
fn fast_open(table: &Table<'_>, problems: &mut Problems) -> (bool, bool) {
    let choice = table.choice("fast_open", FAST_OPENS, problems);
    let (of_clients, to_backends) = choice.unwrap_or_default();
    if let Some(span) = table.span_of("fast_open") {
        if of_clients {
            problems.demand(Demand::FastOpenOfClients, span.clone());
        }
        if to_backends {
            problems.demand(Demand::FastOpenToBackends, span);
        }
    }
    (of_clients, to_backends)
}

fn defer_accept(table: &Table<'_>, problems: &mut Problems) -> Option<Duration> {
    let time = seconds(table, "defer_accept", problems)?;
    problems.demand(Demand::DeferAccept(time), table.span_of("defer_accept")?);
    Some(time)
}

fn sources(table: &Table<'_>, problems: &mut Problems) -> Sources {
    let Some(texts) = table.texts("source", problems) else {
        return Sources::Routed;
    };
    if let [(CLIENT, span)] = &texts[..] {
        problems.demand(Demand::Transparent, span.clone());
        return Sources::Client;
    }
    if texts.len() > MOST_SOURCES
        && let Some(span) = table.span_of("source")
    {
        problems.add(
            Problem::error(format!("`source` lists {} addresses", texts.len()))
                .at(span)
                .label(format!("allowed: at most {MOST_SOURCES}")),
        );
        return Sources::Routed;
    }
    let mut pool: Vec<IpAddr> = Vec::with_capacity(texts.len());
    let mut seen = HashSet::new();
    for (text, span) in texts {
        match source(text) {
            Ok(address) if !seen.insert(address) => problems.add(
                Problem::warning(format!("`source` lists {address} twice"))
                    .at(span)
                    .label("once will do"),
            ),
            Ok(address) => {
                pool.push(address);
                problems.demand(Demand::Source(address), span);
            }
            Err(fault) => problems.add(fault.at(span)),
        }
    }
    match pool.is_empty() {
        true => Sources::Routed,
        false => Sources::Pool(pool.into()),
    }
}

fn source(text: &str) -> Result<IpAddr, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("`source` has \"{}\", {why}", shown(text)))
            .allowed("allowed: IP addresses of this host, or \"client\" alone")
    };
    let address: IpAddr = match text.parse() {
        Ok(address) => address,
        Err(_) if text == CLIENT => return Err(wrong("which stands alone")),
        Err(_) if text.parse::<std::net::SocketAddr>().is_ok() => {
            return Err(wrong("which has a port")
                .help("write the address alone: the kernel picks a port for each connection"));
        }
        Err(_) => return Err(wrong("which is no IP address")),
    };
    let is_local = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    match () {
        () if address.is_unspecified() => Err(wrong("which is every address")
            .help("leave `source` out to have the kernel's routes decide")),
        () if address.is_multicast() => Err(wrong("which nothing can come from")),
        () if is_local => Err(wrong("which is not the same on every interface")),
        () => Ok(address),
    }
}

fn congestion(text: &str) -> Result<Box<str>, Fault> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(c);
    match (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(fits) {
        true => Ok(text.into()),
        false => Err(Fault::new(format!(
            "`congestion` is \"{}\", which is no name",
            shown(text)
        ))
        .allowed("allowed: one of net.ipv4.tcp_available_congestion_control, such as \"bbr\"")),
    }
}

fn interface(text: &str) -> Result<Box<str>, Fault> {
    let unfit = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    match (1..=LONGEST_NAME).contains(&text.len()) && !text.chars().any(unfit) {
        true => Ok(text.into()),
        false => Err(
            Fault::new(format!("\"{}\" is no name of an interface", shown(text)))
                .allowed("allowed: a name as `ip link` shows it, such as \"eth0\""),
        ),
    }
}

/// The value of `key`, noted as what the kernel is to be asked for.
fn demanded<'t, T>(
    table: &Table<'t>,
    key: &'static str,
    problems: &mut Problems,
    read: impl FnOnce(&'t str) -> Result<T, Fault>,
    demand: impl FnOnce(&T) -> Demand,
) -> Option<T> {
    let value = table.parsed(key, problems, read)?;
    let span: Span = table.span_of(key)?;
    problems.demand(demand(&value), span);
    Some(value)
}

/// What stands for the address of each client.
const CLIENT: &str = "client";
/// What `fast_open` means for clients, and for backends.
const FAST_OPENS: &[(&str, (bool, bool))] = &[
    ("off", (false, false)),
    ("clients", (true, false)),
    ("backends", (false, true)),
    ("both", (true, true)),
];
/// Each has ports for some 28,000 connections to one backend; this many are looked through in turn.
const MOST_SOURCES: usize = 64;
/// Of an interface or an algorithm, without the NUL at its end (`IFNAMSIZ`, `TCP_CA_NAME_MAX`).
const LONGEST_NAME: usize = 15;
/// What the kernel takes (tcp(7)).
const PROBES: RangeInclusive<u32> = 1..=127;
const SECONDS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(32_767);
/// From `TCP_MIN_MSS` to `MAX_TCP_WINDOW`.
const SEGMENTS: RangeInclusive<u32> = 88..=32_767;
/// 0 is no mark.
const MARKS: RangeInclusive<u32> = 1..=u32::MAX;
/// At least one retransmission fits, and what the kernel counts in milliseconds.
const USER_TIMEOUTS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Loaded, compile};

    fn text(socket: &str) -> String {
        format!(
            "[[service]]\nname = \"s\"\nlisten = \"127.0.0.1:1\"\n[service.socket]\n{socket}\n\
             [[service.backend]]\naddress = \"10.0.0.1:80\"\n"
        )
    }

    fn good(socket: &str) -> (SocketConfig, Loaded) {
        let loaded = compile(&text(socket), "f").unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        (loaded.config.services[0].socket.clone(), loaded)
    }

    #[test]
    fn nothing_is_set_unless_it_is_written_and_differs() {
        for socket in [
            "",
            "keepalive_idle = \"60s\"\nkeepalive_interval = \"10s\"\nkeepalive_count = 6",
            "fast_open = \"off\"",
        ] {
            assert_eq!(good(socket).0, SocketConfig::default(), "{socket}");
        }
    }

    #[test]
    fn every_key_has_its_place_and_side() {
        let (socket, loaded) = good(
            "source = [\"10.0.0.2\", \"2001:db8::2\"]\nkeepalive_idle = \"5s\"\nkeepalive_count = 3\n\
             user_timeout = \"30s\"\ncongestion = \"bbr\"\nmss = 1200\nfast_open = \"both\"\n\
             defer_accept = \"3s\"\nmptcp = true\nmark = 7\ninterface = \"eth1\"\nlisten_interface = \"eth0\"",
        );
        let tuning = Tuning {
            keepalive: Some(Keepalive {
                idle: Duration::from_secs(5),
                interval: Duration::from_secs(10),
                count: 3,
            }),
            user_timeout: Some(Duration::from_secs(30)),
            congestion: Some("bbr".into()),
            mss: Some(1200),
        };
        let incoming = Incoming {
            tuning: tuning.clone(),
            fast_open: true,
            defer_accept: Some(Duration::from_secs(3)),
            interface: Some("eth0".into()),
        };
        assert_eq!(socket.incoming, incoming);
        assert!(socket.mptcp && loaded.config.services[0].listen[0].mptcp);
        let outgoing = socket.outgoing.unwrap();
        assert_eq!(outgoing.tuning, tuning);
        assert!(outgoing.fast_open);
        let egress = outgoing.egress.as_ref().unwrap();
        assert_eq!(egress.mark, Some(7));
        assert_eq!(egress.interface.as_deref(), Some("eth1"));
        assert_eq!(egress.sources.of_family(false).count(), 1);
        // The probes of its backends leave like its sessions.
        let check = &loaded.config.services[0].check;
        assert_eq!(check.egress.as_ref(), Some(egress));
        let denied = loaded.granted(|_| {
            Err(Denial {
                why: "no".to_owned(),
                help: None,
            })
        });
        // Two sources, congestion, mss, fast open for both, defer_accept, mptcp, mark, two interfaces.
        assert_eq!(denied.unwrap_err().report().errors(), 11);
    }

    #[test]
    fn the_source_may_be_the_client() {
        let (socket, _) = good("source = \"client\"");
        let outgoing = socket.outgoing.unwrap();
        assert_eq!(outgoing.egress.as_ref().unwrap().sources, Sources::Client);
    }

    #[test]
    fn what_the_kernel_denies_is_said_where_it_is_written() {
        let (_, loaded) = good("congestion = \"bbr\"\nmark = 7");
        let denied = loaded.granted(|demand| {
            if let Demand::Mark(_) = demand {
                return Err(Denial {
                    why: "operation not permitted".to_owned(),
                    help: Some("it takes CAP_NET_ADMIN"),
                });
            }
            Ok(())
        });
        let said = denied.unwrap_err().to_string();
        let message = "packets cannot be marked: operation not permitted";
        assert!(said.contains(message), "{said}");
        assert!(said.contains("f:6:8"), "{said}");
        assert!(said.contains("CAP_NET_ADMIN"), "{said}");
    }

    #[test]
    fn what_cannot_be_is_said() {
        for (socket, why) in [
            ("source = \"10.0.0.1:80\"", "has a port"),
            ("source = \"eth0\"", "no IP address"),
            ("source = \"0.0.0.0\"", "every address"),
            ("source = \"224.0.0.1\"", "nothing can come from"),
            ("source = [\"client\", \"10.0.0.1\"]", "stands alone"),
            ("keepalive_idle = \"1500ms\"", "whole seconds"),
            ("keepalive_count = 128", "1 to 127"),
            ("user_timeout = \"1ms\"", "out of range"),
            ("congestion = \"BBR!\"", "no name"),
            ("mss = 87", "88 to 32767"),
            ("mark = 0", "1 to 4294967295"),
            ("interface = \"eth0:1\"", "no name of an interface"),
            ("fast_open = true", "the boolean true"),
            ("defer_accept = \"0s\"", "out of range"),
            ("keepalive = \"5s\"", "keepalive_idle"),
        ] {
            let said = compile(&text(socket), "f").unwrap_err().to_string();
            assert!(said.contains(why), "{socket}: {said}");
        }
        let loaded = compile(&text("source = [\"10.0.0.1\", \"10.0.0.1\"]"), "f").unwrap();
        assert!(loaded.warnings.to_string().contains("twice"));
    }
}
