//! Networks as text, `10.0.0.0/8` or a single address.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};

use super::decode::Table;
use super::problem::{Problem, Problems, shown};
use super::source::Span;
use super::value::Fault;

/// The networks that `key` lists, each with its place.
pub(super) fn networks(
    table: &Table<'_>,
    key: &'static str,
    problems: &mut Problems,
) -> Option<Vec<(IpNet, Span)>> {
    networks_or(table, key, problems, |_| false)
}

/// The same, where other words may be among them that `knows` takes.
pub(super) fn networks_or(
    table: &Table<'_>,
    key: &'static str,
    problems: &mut Problems,
    mut knows: impl FnMut(&str) -> bool,
) -> Option<Vec<(IpNet, Span)>> {
    let texts = table.texts(key, problems)?;
    let mut read = Vec::with_capacity(texts.len());
    let mut all_well = true;
    for (text, span) in texts {
        match network(&format!("`{key}`"), text) {
            Ok(network) => read.push((network, span)),
            Err(_) if knows(text) => {}
            Err(fault) => {
                problems.add(fault.at(span));
                all_well = false;
            }
        }
    }
    all_well.then_some(read)
}

/// One network, or one address as a network of its own; `key` is what has it.
pub(super) fn network(key: &str, text: &str) -> Result<IpNet, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("{key} has \"{}\", {why}", shown(text)))
            .allowed("allowed: \"10.0.0.0/8\", \"2001:db8::/32\", or an address")
    };
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(ip.to_canonical()));
    }
    let Ok(network) = text.parse::<IpNet>() else {
        return Err(wrong("which is not a network"));
    };
    if network != network.trunc() {
        let help = format!("write \"{}\", or \"{}\"", network.trunc(), network.addr());
        return Err(wrong("which is an address inside of a network").help(help));
    }
    // Clients are never seen as IPv4-mapped, so such a network would hold nobody.
    match (network.addr().to_canonical(), network) {
        (IpAddr::V4(ip), IpNet::V6(wide)) => {
            let length = wide.prefix_len().checked_sub(MAPPED);
            let narrow = length.and_then(|length| Ipv4Net::new(ip, length).ok());
            narrow
                .map(IpNet::V4)
                .ok_or_else(|| wrong("which is more than IPv4 and less than IPv6"))
        }
        _ => Ok(network),
    }
}

/// A list in which nobody is.
pub(super) fn nobody(key: &str, span: Span) -> Problem {
    Problem::error(format!("`{key}` is empty"))
        .at(span)
        .label("every client would be refused".to_owned())
}

/// Leading bits of every IPv4-mapped address.
const MAPPED: u8 = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_and_addresses_are_read() {
        let read = |text| network("allow", text).unwrap().to_string();
        assert_eq!(read("10.0.0.0/8"), "10.0.0.0/8");
        assert_eq!(read("192.0.2.7"), "192.0.2.7/32");
        assert_eq!(read("2001:db8::/32"), "2001:db8::/32");
        assert_eq!(read("::1"), "::1/128");
        assert_eq!(read("0.0.0.0/0"), "0.0.0.0/0");
        assert_eq!(read("::/0"), "::/0");
        assert_eq!(read("::ffff:192.0.2.7"), "192.0.2.7/32");
        assert_eq!(read("::ffff:10.0.0.0/104"), "10.0.0.0/8");
    }

    #[test]
    fn what_is_no_network_is_said_to_be_none() {
        for text in [
            "",
            "10.0.0.0/33",
            "10.0.0/8",
            "localhost",
            "10.0.0.1-10.0.0.9",
            "*",
        ] {
            let fault = network("allow", text).unwrap_err();
            assert!(fault.message.contains("is not a network"), "{text}");
        }
        let help = network("allow", "10.1.2.3/8").unwrap_err().help.unwrap();
        assert_eq!(help, "write \"10.0.0.0/8\", or \"10.1.2.3\"");
    }
}
