//! `[service.proxy_protocol]`: whose word is taken for who a client is, and whether backends are told.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::decode::Table;
use super::keys;
use super::network;
use super::problem::{Problem, Problems};
use crate::admission::Networks;
use crate::proxy_protocol::Version;

/// `[service.proxy_protocol]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Clients come with a header, if anything.
    pub accept: Option<Arc<AcceptHeader>>,
    /// Backends are sent one, if anything.
    pub send: Option<SendHeader>,
}

/// How a PROXY header is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptHeader {
    /// The proxies that may connect, and are believed.
    pub from: Networks,
    /// Whether who comes by a Unix socket is one: `unix:` is in the list.
    pub from_paths: bool,
    /// How long one may take to send it.
    pub timeout: Duration,
}

/// How a PROXY header is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendHeader {
    /// As text or in binary.
    pub version: Version,
    /// Whether it names the connection.
    pub unique_id: bool,
}

pub(super) fn read(service: &Table<'_>, problems: &mut Problems) -> ProxyConfig {
    let table = service.table("proxy_protocol", &keys::PROXY_PROTOCOL, problems);
    let mut from_paths = false;
    let from = network::networks_or(&table, "accept_from", problems, |text| {
        from_paths |= text == PATHS;
        text == PATHS
    });
    if let (Some([]), Some(span), false) =
        (from.as_deref(), table.span_of("accept_from"), from_paths)
    {
        let problem = network::nobody("accept_from", span);
        problems.add(problem.help("leave the key out to have clients come without a header"));
    }
    let timeout = table.duration("timeout", &TIMEOUTS, problems);
    if table.lacks("accept_from")
        && let Some(span) = table.span_of("timeout")
    {
        problems.add(
            Problem::warning("`timeout` has no effect here")
                .at(span)
                .label("no header is waited for")
                .help("write accept_from = [\"10.0.0.0/8\"], the networks of the proxies"),
        );
    }
    let version = table.choice("send", VERSIONS, problems);
    let unique_id = table.boolean("unique_id", problems).unwrap_or(false);
    if unique_id
        && table.get("send").and_then(|it| it.get_ref().as_str()) != Some("v2")
        && let Some(span) = table.span_of("unique_id")
    {
        problems.add(
            Problem::warning("`unique_id` has no effect here")
                .at(span)
                .label("only a header of version 2 has room for it")
                .help("write send = \"v2\""),
        );
    }
    let from = from.map(|from| from.into_iter().map(|(network, _)| network).collect());
    ProxyConfig {
        accept: from.map(|from| {
            Arc::new(AcceptHeader {
                from,
                from_paths,
                timeout: timeout.unwrap_or(DEFAULT_TIMEOUT),
            })
        }),
        send: version.map(|version| SendHeader {
            version,
            unique_id: unique_id && version == Version::V2,
        }),
    }
}

const VERSIONS: &[(&str, Version)] = &[("v1", Version::V1), ("v2", Version::V2)];
/// Among proxies, those that come by a Unix socket.
const PATHS: &str = "unix:";
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServiceConfig;
    use crate::config::testing;

    fn section(section: &str) -> String {
        format!("[service.proxy_protocol]\n{section}\n")
    }

    fn read(of: &str) -> (ServiceConfig, String) {
        testing::read(&section(of))
    }

    #[test]
    fn all_of_it_is_read() {
        let (service, warnings) = read(
            "accept_from = [\"10.0.0.0/8\", \"::1\"]\ntimeout = \"1s\"\nsend = \"v2\"\nunique_id = true",
        );
        assert_eq!(warnings, "");
        let accept = service.proxy.accept.unwrap();
        assert!(accept.from.contain("10.9.9.9".parse().unwrap()));
        assert!(accept.from.contain("::1".parse().unwrap()));
        assert!(!accept.from.contain("11.0.0.1".parse().unwrap()));
        assert_eq!(accept.timeout, Duration::from_secs(1));
        let send = service.proxy.send.unwrap();
        assert!(send.version == Version::V2 && send.unique_id);
    }

    #[test]
    fn without_the_section_nothing_is_expected_and_nothing_sent() {
        assert_eq!(read("").0.proxy, ProxyConfig::default());
    }

    #[test]
    fn what_has_no_effect_is_said_to_have_none() {
        for (section, key) in [
            ("timeout = \"1s\"", "timeout"),
            ("unique_id = true", "unique_id"),
            ("unique_id = true\nsend = \"v1\"", "unique_id"),
        ] {
            let (service, warnings) = read(section);
            assert!(
                warnings.contains(&format!("`{key}` has no effect here")),
                "{warnings}"
            );
            assert!(service.proxy.send.is_none_or(|send| !send.unique_id));
        }
        assert_eq!(read("unique_id = false").1, "");
    }

    #[test]
    fn mistakes_have_a_place_and_a_way_out() {
        for (section, expected) in [
            ("accept_from = []", "every client would be refused"),
            (
                "accept_from = \"10.0.0.1/8\"",
                "write \"10.0.0.0/8\", or \"10.0.0.1\"",
            ),
            (
                "accept_from = [\"proxy\"]",
                "`accept_from` has \"proxy\", which is not a network",
            ),
            ("accept_from = true", "not a string, or a list of them"),
            ("send = \"v3\"", "allowed: \"v1\", \"v2\""),
            ("timeout = \"2m\"", "allowed: \"10ms\" to \"1m\""),
            (
                "trusted = \"10.0.0.0/8\"",
                "allowed: accept_from, timeout, send, unique_id",
            ),
        ] {
            let wrong = testing::wrong(&self::section(section));
            assert!(wrong.contains(expected), "{wrong}");
            assert!(wrong.contains("f:5:"), "{wrong}");
        }
    }

    #[test]
    fn probes_bring_the_header_that_sessions_bring_unless_they_go_elsewhere() {
        let proxy = |of, health| {
            let text = section(of) + "[service.health]\n" + health;
            testing::read(&text).0.check.proxy
        };
        assert_eq!(proxy("send = \"v2\"", ""), Some(Version::V2));
        assert_eq!(
            proxy("send = \"v1\"", "kind = \"redis\""),
            Some(Version::V1)
        );
        assert_eq!(
            proxy("send = \"v1\"", "proxy_protocol = \"v2\""),
            Some(Version::V2)
        );
        assert_eq!(proxy("send = \"v1\"", "proxy_protocol = \"off\""), None);
        assert_eq!(proxy("send = \"v1\"", "port = 8081"), None);
        assert_eq!(proxy("send = \"v1\"", "kind = \"agent\"\nport = 1"), None);
        assert_eq!(
            proxy("send = \"v1\"", "kind = \"exec\"\ncommand = \"/a\""),
            None
        );
        assert_eq!(proxy("", ""), None);
    }
}
