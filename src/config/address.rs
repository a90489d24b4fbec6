//! Addresses: text → where to listen or where to connect, or what is wrong with the text and what was
//! probably meant. Resolves no names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use super::problem::shown;
use super::value::Fault;
use super::{BackendAddress, Family};
use crate::model::{Address, UnixPath};

/// What goes before the path of a Unix socket.
const UNIX: &str = "unix:";

/// An address to listen on: `ip:port` or `[v6]:port`; port 0 lets the kernel choose.
pub(super) fn listen(text: &str) -> Result<SocketAddr, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("\"{}\" {why}", shown(text))).allowed("allowed: ip:port or [v6]:port")
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        if let Some(v4) = mapped(address.ip()) {
            let port = address.port();
            return Err(
                wrong("is an IPv4 address in IPv6 clothes").help(format!("write \"{v4}:{port}\""))
            );
        }
        return Ok(address);
    }
    let every = |port: &str| {
        format!(
            "write \"0.0.0.0:{port}\" for every IPv4 address, \"[::]:{port}\" for every IPv6 one"
        )
    };
    if let Some(fault) = common(text, &wrong) {
        return Err(fault);
    }
    if port_of(text).is_some() {
        return Err(wrong("is a port without an address").help(every(text)));
    }
    match text.rsplit_once(':') {
        Some(("" | "*" | "[*]", port)) => {
            Err(wrong("does not say on which address").help(every(port)))
        }
        Some((host, port)) if hostname(host).is_ok() => Err(wrong(
            "names a host, where an IP address is needed",
        )
        .help(format!(
            "write the address itself, as in \"127.0.0.1:{port}\" or \"[::1]:{port}\""
        ))),
        _ => Err(wrong("is not an address to listen on")),
    }
}

/// The same, or a path: `unix:/path`.
pub(super) fn listener(text: &str) -> Result<Address, Fault> {
    match text.strip_prefix(UNIX) {
        Some(path) => unix(path).map(Address::Unix),
        None => listen(text)
            .map(Address::Inet)
            .map_err(|fault| hint_at_path(text, fault)),
    }
}

/// The path of a Unix socket.
fn unix(path: &str) -> Result<UnixPath, Fault> {
    let written = shown(path);
    match UnixPath::new(Path::new(path)) {
        Some(_) if path.ends_with('/') => {
            Err(Fault::new(format!("\"{UNIX}{written}\" names a directory"))
                .allowed("allowed: the path of a socket"))
        }
        Some(path) => Ok(path),
        None if path.len() > UnixPath::LONGEST => {
            let message = format!("\"{UNIX}{written}\" is too long");
            Err(Fault::new(message).allowed(format!(
                "allowed: at most {} bytes, as the kernel has it",
                UnixPath::LONGEST
            )))
        }
        None => Err(
            Fault::new(format!("\"{UNIX}{written}\" has no absolute path"))
                .allowed("allowed: a path that begins with \"/\""),
        ),
    }
}

/// `fault` of a text that is the path of a socket, hardly anything else.
fn hint_at_path(text: &str, fault: Fault) -> Fault {
    match text.starts_with('/') {
        true => fault.help(format!("write \"{UNIX}{}\" for a Unix socket", shown(text))),
        false => fault,
    }
}

/// The address of a backend: `ip:port`, `[v6]:port`, `name:port` or `unix:/path`.
pub(super) fn backend(text: &str) -> Result<BackendAddress, Fault> {
    match text.strip_prefix(UNIX) {
        Some(path) => unix(path).map(BackendAddress::Unix),
        None => in_network(text).map_err(|fault| hint_at_path(text, fault)),
    }
}

fn in_network(text: &str) -> Result<BackendAddress, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("\"{}\" {why}", shown(text)))
            .allowed("allowed: ip:port, [v6]:port, name:port or unix:/path")
    };
    if let Ok(address) = text.parse::<SocketAddr>() {
        return reachable(address, &wrong).map(BackendAddress::Ip);
    }
    if let Some(fault) = common(text, &wrong) {
        return Err(fault);
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return match (port_of(text), hostname(text)) {
            (Some(_), _) => Err(wrong("is a port without a host")
                .help(format!("write \"127.0.0.1:{text}\" for this machine"))),
            (None, Ok(())) => Err(wrong("has no port").help(format!("write \"{text}:PORT\""))),
            (None, Err(why)) => Err(wrong(why)),
        };
    };
    if host.is_empty() {
        return Err(
            wrong("has no host").help(format!("write \"127.0.0.1:{port}\" for this machine"))
        );
    }
    hostname(host).map_err(&wrong)?;
    match port_of(port) {
        Some(0) => Err(wrong("has port 0, which nothing listens on")),
        Some(port) => Ok(BackendAddress::Name {
            host: host.to_ascii_lowercase().into(),
            port,
            family: Family::Any,
        }),
        None if port.is_empty() => Err(wrong("has no port after the colon")),
        None => Err(bad_port(port, &wrong)),
    }
}

/// Where a check goes instead of the backend's address: `ip:port`, `[v6]:port` or `unix:/path`.
pub(super) fn check(text: &str) -> Result<Address, Fault> {
    match backend(text)? {
        BackendAddress::Ip(address) => Ok(address.into()),
        BackendAddress::Unix(path) => Ok(Address::Unix(path)),
        BackendAddress::Name { port, .. } => Err(Fault::new(format!(
            "\"{}\" names a host, where an IP address is needed",
            shown(text)
        ))
        .allowed("allowed: ip:port or [v6]:port")
        .help(format!(
            "for another port of the backend itself, write port = {port} in [service.health]"
        ))),
        BackendAddress::Srv { .. } => Err(Fault::new("a check goes to an address")),
    }
}

/// A name that SRV records are asked for: `_service._proto.domain`.
pub(super) fn srv(text: &str) -> Result<&str, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("\"{}\" {why}", shown(text)))
            .allowed("allowed: a name such as _pg._tcp.example.org")
    };
    if let Some((name, port)) = text.rsplit_once(':')
        && port_of(port).is_some()
    {
        return Err(
            wrong("has a port, which the records say").help(format!("write \"{}\"", shown(name)))
        );
    }
    hostname(text).map_err(&wrong)?;
    Ok(text)
}

/// What goes wrong with addresses of either kind.
fn common(text: &str, wrong: &dyn Fn(&str) -> Fault) -> Option<Fault> {
    if text.is_empty() {
        return Some(wrong("is empty"));
    }
    if let Some((_, rest)) = text.split_once("://") {
        let rest = rest.trim_end_matches('/');
        return Some(wrong("is a URL").help(format!("write \"{}\"", shown(rest))));
    }
    if text.chars().any(char::is_whitespace) {
        let without: String = text.split_whitespace().collect();
        return Some(wrong("contains a space").help(format!("write \"{}\"", shown(&without))));
    }
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let (inside, after) = bracketed.unwrap_or((text, ""));
    if let Some((_, zone)) = inside.split_once('%')
        && !zone.bytes().all(|byte| byte.is_ascii_digit())
    {
        return Some(
            wrong("names its zone, where a number is needed")
                .help("write the interface's number, as `ip link` shows it: \"[fe80::1%2]:80\""),
        );
    }
    if bracketed.is_some() {
        let port = after.strip_prefix(':');
        return match (inside.parse::<Ipv6Addr>().is_ok(), port) {
            (false, _) if inside.contains('%') => None,
            (false, _) => Some(wrong("has no IPv6 address between its brackets")),
            (true, None) => Some(wrong("has no port").help(format!("write \"[{inside}]:PORT\""))),
            (true, Some("")) => Some(wrong("has no port after the colon")),
            (true, Some(port)) => Some(bad_port(port, wrong)),
        };
    }
    if text.bytes().filter(|&byte| byte == b':').count() >= 2 {
        return Some(without_brackets(text, wrong));
    }
    if text.parse::<Ipv4Addr>().is_ok() {
        return Some(wrong("has no port").help(format!("write \"{text}:PORT\"")));
    }
    let (host, port) = text.rsplit_once(':')?;
    if host.parse::<Ipv4Addr>().is_ok() {
        return Some(match port {
            "" => wrong("has no port after the colon"),
            port => bad_port(port, wrong),
        });
    }
    let numeric = |c: char| c.is_ascii_digit() || c == '.';
    (host.contains('.') && host.chars().all(numeric)).then(|| {
        let zero = host
            .split('.')
            .any(|part| part.len() > 1 && part.starts_with('0'));
        let fault = wrong("has no valid IPv4 address");
        match zero {
            true => fault.help("write the numbers without leading zeros"),
            false => fault.help("write four numbers from 0 to 255"),
        }
    })
}

fn without_brackets(text: &str, wrong: &dyn Fn(&str) -> Fault) -> Fault {
    let split = text
        .rsplit_once(':')
        .filter(|(host, port)| host.parse::<Ipv6Addr>().is_ok() && port_of(port).is_some());
    match split {
        Some((host, port)) => {
            wrong("is an IPv6 address without brackets").help(format!("write \"[{host}]:{port}\""))
        }
        None if text.parse::<Ipv6Addr>().is_ok() => {
            wrong("has no port").help(format!("write \"[{text}]:PORT\""))
        }
        None => {
            wrong("has too many colons").help("an IPv6 address is written \"[2001:db8::1]:80\"")
        }
    }
}

fn bad_port(port: &str, wrong: &dyn Fn(&str) -> Fault) -> Fault {
    if port.bytes().all(|byte| byte.is_ascii_digit()) {
        wrong("has a port that is out of range").help("a port is a number from 1 to 65535")
    } else {
        wrong("has a port that is not a number").help("a port is a number from 1 to 65535")
    }
}

fn port_of(text: &str) -> Option<u16> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// Refuses addresses that no TCP connection can go to.
fn reachable(address: SocketAddr, wrong: &dyn Fn(&str) -> Fault) -> Result<SocketAddr, Fault> {
    let (ip, port) = (address.ip(), address.port());
    if port == 0 {
        return Err(wrong("has port 0, which nothing listens on"));
    }
    if ip.is_unspecified() {
        let this = if ip.is_ipv4() { "127.0.0.1" } else { "[::1]" };
        return Err(wrong("is an address to listen on, not to connect to")
            .help(format!("write \"{this}:{port}\" for this machine")));
    }
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err(wrong(
            "is a multicast or broadcast address, which TCP cannot connect to",
        ));
    }
    if let Some(v4) = mapped(ip) {
        return Err(
            wrong("is an IPv4 address in IPv6 clothes").help(format!("write \"{v4}:{port}\""))
        );
    }
    Ok(address)
}

fn mapped(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

/// The syntax of a host name: RFC 1123 § 2.1, with the underscore that container networks use.
fn hostname(text: &str) -> Result<(), &'static str> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() {
        return Err("has no host");
    }
    if text.len() > 253 {
        return Err("has a host name longer than 253 characters");
    }
    for label in text.split('.') {
        if label.is_empty() {
            return Err("has a host name with an empty part");
        }
        if label.len() > 63 {
            return Err("has a host name with a part longer than 63 characters");
        }
        if label.starts_with('-') || label.ends_with('-') {
            return Err("has a host name with a part that begins or ends in \"-\"");
        }
        if !label
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        {
            return Err(
                "has a host name with a character other than a-z, 0-9, \"-\", \"_\" and \".\"",
            );
        }
    }
    let last = text.rsplit('.').next().unwrap_or(text);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has a number for a host");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn listeners_are_ip_and_port() {
        for good in ["0.0.0.0:80", "[::]:80", "127.0.0.1:0", "[fe80::1%2]:80"] {
            assert_eq!(listen(good), Ok(good.parse().unwrap()));
        }
    }

    #[test]
    fn a_wrong_listener_says_what_was_probably_meant() {
        for (text, why, help) in [
            ("80", "without an address", "0.0.0.0:80"),
            (":80", "on which address", "[::]:80"),
            ("*:80", "on which address", "0.0.0.0:80"),
            ("localhost:80", "names a host", "127.0.0.1:80"),
            ("10.0.0.1", "has no port", "10.0.0.1:PORT"),
            ("::1", "has no port", "[::1]:PORT"),
            ("::1:80", "without brackets", "\"[::1]:80\""),
            ("2001:db8::1", "has no port", "[2001:db8::1]:PORT"),
            ("[::1]", "has no port", "[::1]:PORT"),
            ("[::1%eth0]:80", "zone", "number"),
            ("10.0.0.1:99999", "out of range", "65535"),
            ("10.0.0.1:http", "not a number", "65535"),
            ("10.0.0.256:80", "no valid IPv4", "0 to 255"),
            ("010.0.0.1:80", "no valid IPv4", "leading zeros"),
            ("tcp://10.0.0.1:80", "URL", "\"10.0.0.1:80\""),
            (" 10.0.0.1:80", "space", "\"10.0.0.1:80\""),
            ("[::ffff:10.0.0.1]:80", "clothes", "\"10.0.0.1:80\""),
        ] {
            let fault = listen(text).unwrap_err();
            assert!(fault.message.contains(why), "{text}: {fault:?}");
            assert!(
                fault.help.as_deref().unwrap_or_default().contains(help),
                "{text}: {fault:?}"
            );
        }
    }

    #[test]
    fn backends_are_addresses_or_names_with_a_port() {
        assert_eq!(
            backend("10.0.0.1:80"),
            Ok(BackendAddress::Ip("10.0.0.1:80".parse().unwrap()))
        );
        assert_eq!(
            backend("[2001:db8::1]:80"),
            Ok(BackendAddress::Ip("[2001:db8::1]:80".parse().unwrap()))
        );
        assert_eq!(
            backend("DB-1.my_net.internal.:5432"),
            Ok(BackendAddress::Name {
                host: "db-1.my_net.internal.".into(),
                port: 5432,
                family: Family::Any
            })
        );
    }

    #[test]
    fn a_unix_socket_is_a_path_behind_its_prefix() {
        let address: Address = "unix:/run/x.sock".parse().unwrap();
        assert_eq!(listener("unix:/run/x.sock"), Ok(address));
        assert_eq!(check("unix:/run/x.sock"), Ok(address));
        assert_eq!(backend("unix:/run/x.sock").unwrap().fixed(), Some(address));
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, why) in [
            ("unix:x.sock", "no absolute path"),
            ("unix:", "no absolute path"),
            ("unix:/run/", "names a directory"),
            (long.as_str(), "too long"),
        ] {
            for fault in [listener(text).unwrap_err(), backend(text).unwrap_err()] {
                assert!(fault.message.contains(why), "{text}: {fault:?}");
            }
        }
        for fault in [listener("/a").unwrap_err(), backend("/a").unwrap_err()] {
            assert!(fault.help.unwrap().contains("\"unix:/a\""));
        }
    }

    #[test]
    fn a_wrong_backend_says_what_is_wrong_with_it() {
        let long = format!("{}:80", "a".repeat(64));
        for (text, why) in [
            ("", "empty"),
            ("app", "has no port"),
            ("app:", "no port after the colon"),
            ("localhost:", "no port after the colon"),
            ("8080", "port without a host"),
            (":8080", "has no host"),
            ("app:0", "port 0"),
            ("app:65536", "out of range"),
            ("app:http", "not a number"),
            ("app:+80", "not a number"),
            ("10.0.0.1:0", "port 0"),
            ("0.0.0.0:80", "to listen on"),
            ("224.0.0.1:80", "multicast"),
            ("a..b:80", "empty part"),
            ("-a:80", "begins or ends"),
            ("a$b:80", "a character other"),
            (long.as_str(), "longer than 63"),
            ("1.2.3:80", "no valid IPv4"),
            ("fe80::1%eth0:80", "zone"),
            ("http://app:80/", "URL"),
            ("app:80:90", "too many colons"),
        ] {
            let fault = backend(text).unwrap_err();
            assert!(fault.message.contains(why), "{text}: {fault:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_a_fault(text in "\\PC{0,30}|[0-9a-f:.%\\[\\]]{0,30}") {
            let _ = listen(&text);
            if let Ok(address) = backend(&text) {
                let port = match address {
                    BackendAddress::Ip(address) => address.port(),
                    BackendAddress::Name { port, .. } => port,
                    BackendAddress::Unix(_) | BackendAddress::Srv { .. } => {
                        unreachable!("an address has a port")
                    }
                };
                prop_assert!(port > 0);
            }
        }
    }
}
