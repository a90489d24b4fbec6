//! The system's own word on names: `/etc/hosts`, and whom `/etc/resolv.conf` says to ask, about what.

use std::net::{IpAddr, SocketAddr};
use std::time::SystemTime;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::{Hosts, Resolver, system_conf};

use super::runtime::Runtime;
use crate::config::DiscoveryConfig;

/// Servers that are asked for the same at a time, where there are several.
pub(super) const SERVERS_AT_A_TIME: usize = 2;

/// When the system's files were last written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<SystemTime>; 2]);

impl Stamp {
    /// That of the files as they are. May block.
    pub(super) fn now() -> Self {
        let written = |path: &str| std::fs::metadata(path).ok()?.modified().ok();
        Self([RESOLV_CONF, HOSTS].map(written))
    }
}

/// The system's files, as they were at a [`Stamp`].
#[derive(Debug)]
pub(super) struct System {
    resolver: Result<Resolver<Runtime>, String>,
    hosts: Hosts,
    search: Vec<Name>,
    ndots: usize,
}

impl System {
    /// Reads them; servers that `config` names count instead of the system's.
    pub(super) fn read(config: &DiscoveryConfig) -> Self {
        let system = system_conf::read_system_conf();
        let (servers, search, mut options, failed) = match system {
            Ok((system, options)) => {
                let (domain, mut search, servers) = system.into_parts();
                if search.is_empty() {
                    search.extend(domain);
                }
                (servers, search, options, None)
            }
            Err(error) => {
                let failed = format!("{RESOLV_CONF}: {error}");
                (
                    Vec::new(),
                    Vec::new(),
                    ResolverOpts::default(),
                    Some(failed),
                )
            }
        };
        let servers = match config.resolvers.as_slice() {
            [] => servers,
            own => own.iter().copied().map(server).collect(),
        };
        options.timeout = config.timeout;
        options.attempts = ATTEMPTS;
        options.num_concurrent_reqs = SERVERS_AT_A_TIME;
        // Looked at beforehand, and nothing is kept but by `Resolution`.
        options.use_hosts_file = ResolveHosts::Never;
        options.cache_size = 0;
        let (ndots, silent) = (options.ndots, servers.is_empty());
        let parts = ResolverConfig::from_parts(None, Vec::new(), servers);
        let mut builder = Resolver::builder_with_config(parts, Runtime::default());
        *builder.options_mut() = options;
        let resolver = match failed.filter(|_| silent) {
            Some(failed) => Err(failed),
            None => builder.build().map_err(|error| error.to_string()),
        };
        Self {
            resolver,
            hosts: Hosts::from_system().unwrap_or_default(),
            search,
            ndots,
        }
    }

    /// Nothing of it is known, for this reason.
    pub(super) fn without(why: String) -> Self {
        Self {
            resolver: Err(why),
            hosts: Hosts::default(),
            search: Vec::new(),
            ndots: 1,
        }
    }

    /// What `name` may stand for, in the order of resolv.conf(5).
    pub(super) fn candidates(&self, name: &str) -> Vec<Name> {
        let Ok(mut name) = Name::from_str_relaxed(name) else {
            return Vec::new();
        };
        if name.is_fqdn() {
            return vec![name];
        }
        let search = self.search.iter();
        let mut all: Vec<Name> = search
            .filter_map(|domain| name.clone().append_domain(domain).ok())
            .collect();
        let as_it_is = match usize::from(name.num_labels()) > self.ndots || name.is_localhost() {
            true => 0,
            false => all.len(),
        };
        name.set_fqdn(true);
        all.insert(as_it_is, name);
        all
    }

    /// What the hosts file says of it, if that has it at all.
    pub(super) fn said_of(&self, name: &Name) -> Option<Vec<IpAddr>> {
        let said = [RecordType::A, RecordType::AAAA]
            .into_iter()
            .filter_map(|kind| {
                let query = Query::query(name.clone(), kind);
                self.hosts.lookup_static_host(&query)
            });
        let all: Vec<IpAddr> = said
            .flat_map(|lookup| {
                let records = lookup.answers().iter();
                records
                    .filter_map(|record| record.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect();
        (!all.is_empty()).then_some(all)
    }

    /// Who asks the servers, or why nobody can.
    pub(super) fn resolver(&self) -> Result<&Resolver<Runtime>, &str> {
        self.resolver.as_ref().map_err(String::as_str)
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

const HOSTS: &str = "/etc/hosts";
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// How often a server is asked before it counts as silent.
const ATTEMPTS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_for_as_resolv_conf_says() {
        let name = |text: &str| Name::from_str_relaxed(text).unwrap();
        let system = System {
            search: vec![name("a.test."), name("b.test.")],
            ..System::without(String::new())
        };
        let all = |text| {
            let all = system.candidates(text).into_iter();
            all.map(|name| name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(all("db"), ["db.a.test.", "db.b.test.", "db."]);
        assert_eq!(all("db.c"), ["db.c.", "db.c.a.test.", "db.c.b.test."]);
        assert_eq!(all("db.c."), ["db.c."]);
        assert_eq!(all("localhost")[0], "localhost.");
    }
}
