//! `[discovery]`: whom names are asked of, and how far their answers are believed.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::address;
use super::decode::{Table, mistype};
use super::problem::{Problem, Problems, shown};
use super::value::{Fault, LONGEST, SOME_TIME, written};

/// `[discovery]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveryConfig {
    /// DNS servers to ask; empty stands for those of `/etc/resolv.conf`.
    pub resolvers: Vec<SocketAddr>,
    /// For one question to one server.
    pub timeout: Duration,
    /// An answer is used for at least this long, however short its TTL.
    pub min_ttl: Duration,
    /// An answer is used for at most this long, however long its TTL.
    pub max_ttl: Duration,
    /// How long backends outlive an answer without a single address.
    pub hold: Duration,
}

impl Default for DiscoveryConfig {
    fn default() -> Self {
        Self {
            resolvers: Vec::new(),
            timeout: Duration::from_secs(2),
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(5 * 60),
            hold: Duration::from_secs(30),
        }
    }
}

pub(super) fn discovery(table: &Table<'_>, problems: &mut Problems) -> DiscoveryConfig {
    let preset = DiscoveryConfig::default();
    let config = DiscoveryConfig {
        resolvers: resolvers(table, problems),
        timeout: table
            .duration("timeout", &TIMEOUTS, problems)
            .unwrap_or(preset.timeout),
        min_ttl: table
            .duration("min_ttl", &(SHORTEST_TTL..=LONGEST), problems)
            .unwrap_or(preset.min_ttl),
        max_ttl: table
            .duration("max_ttl", &SOME_TIME, problems)
            .unwrap_or(preset.max_ttl),
        hold: table
            .duration("hold", &(Duration::ZERO..=LONGEST), problems)
            .unwrap_or(preset.hold),
    };
    let place = table
        .span_of("max_ttl")
        .or_else(|| table.span_of("min_ttl"));
    if config.max_ttl < config.min_ttl
        && let Some(span) = place
    {
        problems.add(
            Problem::error(format!(
                "`max_ttl` ({}) is shorter than `min_ttl` ({})",
                written(config.max_ttl),
                written(config.min_ttl)
            ))
            .at(span)
            .label("no answer can be used for both")
            .help("let max_ttl be at least min_ttl"),
        );
    }
    config
}

fn resolvers(table: &Table<'_>, problems: &mut Problems) -> Vec<SocketAddr> {
    let Some(value) = table.get("resolvers") else {
        return Vec::new();
    };
    let Some(items) = value.get_ref().as_array() else {
        problems.add(
            mistype("resolvers", value, "a list of addresses")
                .help("write resolvers = [\"127.0.0.1:53\"]"),
        );
        return Vec::new();
    };
    if items.is_empty() {
        problems.add(
            Problem::error("`resolvers` is empty")
                .at(value.span())
                .label("at least one address is needed")
                .help("leave the key out to use /etc/resolv.conf"),
        );
    }
    if items.len() > MOST_RESOLVERS {
        problems.add(
            Problem::error(format!("`resolvers` has {} addresses", items.len()))
                .at(value.span())
                .label(format!("allowed: up to {MOST_RESOLVERS}")),
        );
    }
    let mut read = Vec::with_capacity(items.len());
    for item in items.iter() {
        match item.get_ref().as_str().map(resolver) {
            Some(Ok(address)) => read.push(address),
            Some(Err(fault)) => problems.add(fault.at(item.span())),
            None => problems.add(
                mistype("resolvers", item, "an address in quotes")
                    .label("allowed: ip, ip:port or [v6]:port"),
            ),
        }
    }
    read
}

/// `ip`, or an address with a port; without one it is DNS's own.
fn resolver(text: &str) -> Result<SocketAddr, Fault> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, DNS_PORT));
    }
    match address::backend(text)? {
        super::BackendAddress::Ip(address) => Ok(address),
        super::BackendAddress::Unix(_) => Err(Fault::new(format!(
            "\"{}\" is a path, where no resolver listens",
            shown(text)
        ))
        .allowed("allowed: ip, ip:port or [v6]:port")),
        super::BackendAddress::Name { .. } | super::BackendAddress::Srv { .. } => {
            Err(Fault::new(format!(
                "\"{}\" is a name, and a resolver is what names are asked of",
                shown(text)
            ))
            .allowed("allowed: ip, ip:port or [v6]:port"))
        }
    }
}

const DNS_PORT: u16 = 53;
/// More than anybody lists; a question goes to one after the other.
const MOST_RESOLVERS: usize = 16;
/// Below it, a name is asked for more often than it is worth to anyone.
const SHORTEST_TTL: Duration = Duration::from_millis(100);
/// A question that takes longer holds a re-look-up back for no gain.
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_is_an_address_with_or_without_a_port() {
        assert_eq!(resolver("127.0.0.53"), Ok("127.0.0.53:53".parse().unwrap()));
        assert_eq!(resolver("::1"), Ok("[::1]:53".parse().unwrap()));
        assert_eq!(resolver("[::1]:5353"), Ok("[::1]:5353".parse().unwrap()));
        let fault = resolver("dns.example.org:53").unwrap_err();
        assert!(fault.message.contains("is a name"), "{fault:?}");
        assert!(resolver("127.0.0.1:0").is_err());
        assert!(resolver("").is_err());
    }
}
