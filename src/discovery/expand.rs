//! From what the file says to backends that have an address.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Endpoint, Question};
use crate::config::{BackendAddress, BackendConfig};

/// What has to be asked to know where `backend` is.
pub fn question(backend: &BackendConfig) -> Option<Question> {
    match &backend.address {
        BackendAddress::Ip(_) | BackendAddress::Unix(_) => None,
        BackendAddress::Name { host, family, .. } => Some(Question::Host {
            name: Arc::clone(host),
            family: *family,
        }),
        BackendAddress::Srv { name, family } => Some(Question::Srv {
            name: Arc::clone(name),
            family: *family,
        }),
    }
}

/// Everything that has to be asked for `backends`.
pub fn questions<'b>(
    backends: impl IntoIterator<Item = &'b BackendConfig>,
) -> impl Iterator<Item = Question> {
    backends.into_iter().filter_map(question)
}

/// The backends that `backend` of the file stands for, given where its name leads: one for each
/// endpoint, called after it, or `backend` itself while there is none.
///
/// The names depend on nothing else, so that a backend that leaves and returns is the same again.
pub fn expand(backend: &BackendConfig, endpoints: &[Endpoint]) -> Vec<BackendConfig> {
    let port = match &backend.address {
        BackendAddress::Ip(_) | BackendAddress::Unix(_) => return vec![backend.clone()],
        BackendAddress::Name { port, .. } => Some(*port),
        BackendAddress::Srv { .. } => None,
    };
    let at = |endpoint: &Endpoint| {
        let mut one = backend.clone();
        let address = SocketAddr::new(endpoint.ip, port.or(endpoint.srv.map(|it| it.port))?);
        one.address = BackendAddress::Ip(address);
        one.name = match endpoint.srv {
            None => format!("{}@{}", backend.name, endpoint.ip),
            Some(_) => format!("{}@{address}", backend.name),
        }
        .into();
        if let Some(srv) = endpoint.srv {
            // 0 asks for "a very small proportion", which is what the least weight is.
            one.weight = u32::from(srv.weight).max(1);
            one.priority = u32::from(srv.priority);
        }
        Some(one)
    };
    let all: Vec<_> = endpoints.iter().filter_map(at).collect();
    match all.is_empty() {
        true => vec![backend.clone()],
        false => all,
    }
}

/// The name that the file has for the backend that [`expand`] has called `name`.
pub fn origin(name: &str) -> Option<&str> {
    let (origin, _) = name.rsplit_once('@')?;
    Some(origin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;
    use crate::discovery::Srv;

    fn backend(place: &str) -> BackendConfig {
        let text = format!(
            "[[service]]\nname = \"s\"\nlisten = \"127.0.0.1:1\"\n[[service.backend]]\nname = \"db\"\n{place}\n"
        );
        let config = compile(&text, "f").unwrap().config;
        config.services[0].backends[0].clone()
    }

    fn endpoint(ip: &str, srv: Option<Srv>) -> Endpoint {
        Endpoint {
            srv,
            ip: ip.parse().unwrap(),
        }
    }

    fn shown(backends: &[BackendConfig]) -> Vec<String> {
        let one = |it: &BackendConfig| format!("{} {} {}", it.name, it.address, it.weight);
        backends.iter().map(one).collect()
    }

    #[test]
    fn each_address_of_a_name_is_a_backend_called_after_it() {
        let all = expand(
            &backend("address = \"db.internal:5432\"\nweight = 7"),
            &[endpoint("10.0.0.1", None), endpoint("2001:db8::1", None)],
        );
        assert_eq!(
            shown(&all),
            [
                "db@10.0.0.1 10.0.0.1:5432 7",
                "db@2001:db8::1 [2001:db8::1]:5432 7"
            ]
        );
        assert!(all.iter().all(|it| origin(&it.name) == Some("db")));
        assert_eq!(origin("db"), None);
    }

    #[test]
    fn records_bring_port_and_weight_and_no_weight_is_the_least() {
        let srv = |weight, port| {
            Some(Srv {
                priority: 0,
                weight,
                port,
            })
        };
        let all = expand(
            &backend("srv = \"_pg._tcp.Example.org\""),
            &[
                endpoint("10.0.0.1", srv(0, 5432)),
                endpoint("10.0.0.1", srv(60_000, 5433)),
            ],
        );
        assert_eq!(
            shown(&all),
            [
                "db@10.0.0.1:5432 10.0.0.1:5432 1",
                "db@10.0.0.1:5433 10.0.0.1:5433 60000"
            ]
        );
    }

    #[test]
    fn a_name_that_leads_nowhere_stays_one_backend_without_an_address() {
        let name = backend("address = \"db.internal:5432\"");
        assert_eq!(expand(&name, &[]), [name]);
        let fixed = backend("address = \"10.0.0.1:80\"");
        assert_eq!(expand(&fixed, &[]), std::slice::from_ref(&fixed));
        assert_eq!(question(&fixed), None);
    }

    #[test]
    fn backends_with_one_name_and_family_share_the_question() {
        let a = backend("address = \"DB.internal:1\"");
        let b = backend("address = \"db.internal:2\"");
        let v6 = backend("address = \"db.internal:1\"\nfamily = \"ipv6\"");
        assert_eq!(question(&a), question(&b));
        assert_ne!(question(&a), question(&v6));
    }
}
