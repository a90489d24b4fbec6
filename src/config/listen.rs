//! `listen`: where the clients of a service connect.

use super::address;
use super::decode::{Table, mistype};
use super::problem::{Need, Problem, Problems};
use super::source::Span;
use crate::model::Address;

/// One address of `listen`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenConfig {
    /// Where clients connect; port 0 lets the kernel choose.
    pub address: Address,
    /// Whether an IPv6 wildcard takes IPv4 clients too.
    pub dual_stack: bool,
    /// Whether clients may come over several paths at once (Multipath TCP).
    pub mptcp: bool,
}

/// Every address, and where it is written, of a service that is called `service`.
pub(super) fn read(
    table: &Table<'_>,
    service: &str,
    mptcp: bool,
    problems: &mut Problems,
) -> Vec<(ListenConfig, Span)> {
    let dual_stack = table.boolean("dual_stack", problems).unwrap_or(false);
    let Some(value) = table.get("listen") else {
        if table.lacks("listen") {
            problems.add(
                table
                    .missing(format!("{service} has no listener"))
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
            Problem::error(format!("{service} has no listener"))
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
