//! What a start or a reload does before it touches anything: read, compile, resolve. All of it may
//! block, so it runs beside the control thread.

use std::collections::{HashMap, HashSet};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::config::{BackendAddress, Config, Loaded, load};

/// Look-ups that run at a time.
const AT_A_TIME: usize = 16;

/// `name:port`, as it is written.
pub(super) type Name = (Arc<str>, u16);

/// A configuration and the addresses of its names; a name without one did not resolve in time.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) loaded: Loaded,
    pub(super) addresses: HashMap<Name, SocketAddr>,
}

/// Reads, compiles and resolves. A name that still has the address in `known` keeps it, however the
/// answer is ordered.
///
/// # Errors
/// Every problem of the file. A name that does not resolve is none.
pub(super) async fn prepare(
    path: Arc<Path>,
    known: HashMap<Name, SocketAddr>,
) -> Result<Prepared, Vec<String>> {
    let loaded = match tokio::task::spawn_blocking(move || load(&path)).await {
        Ok(loaded) => loaded.map_err(|rejected| rejected.lines())?,
        // The panic itself is logged; what runs goes on.
        Err(_) => return Err(vec!["internal error while reading the file".into()]),
    };
    let addresses = resolve(&loaded.config, &known).await;
    Ok(Prepared { loaded, addresses })
}

/// Asks the system's resolver for every name, within `runtime.resolve_timeout` for all together.
/// Takes the address in `known` while it is among the answers or there is none, else the first.
pub(super) async fn resolve(
    config: &Config,
    known: &HashMap<Name, SocketAddr>,
) -> HashMap<Name, SocketAddr> {
    let names = names(config);
    let found = resolve_names(names.clone(), config.runtime.resolve_timeout).await;
    names
        .into_iter()
        .filter_map(|name| {
            let known = known.get(&name);
            let address = match found.get(&name) {
                Some(found) => known.filter(|it| found.contains(it)).or(found.first()),
                None => known,
            };
            Some((name, *address?))
        })
        .collect()
}

fn names(config: &Config) -> HashSet<Name> {
    let backends = config.services.iter().flat_map(|service| &service.backends);
    backends
        .filter_map(|backend| match &backend.address {
            BackendAddress::Ip(_) => None,
            BackendAddress::Name { host, port } => Some((Arc::clone(host), *port)),
        })
        .collect()
}

async fn resolve_names(names: HashSet<Name>, limit: Duration) -> HashMap<Name, Vec<SocketAddr>> {
    let deadline = Instant::now() + limit;
    let at_a_time = Arc::new(Semaphore::new(AT_A_TIME));
    let mut lookups = JoinSet::new();
    for name in names {
        let at_a_time = Arc::clone(&at_a_time);
        lookups.spawn(async move {
            let _turn = at_a_time.acquire_owned().await;
            let (host, port) = name.clone();
            let found = tokio::task::spawn_blocking(move || {
                (&*host, port).to_socket_addrs().map(Vec::from_iter)
            });
            (name, found.await)
        });
    }
    let mut addresses = HashMap::new();
    while let Ok(Some(lookup)) = timeout_at(deadline, lookups.join_next()).await {
        match lookup {
            Ok((name, Ok(Ok(found)))) => {
                addresses.insert(name, found);
            }
            Ok(((host, _), Ok(Err(error)))) => {
                tracing::debug!(%host, %error, "name look-up failed")
            }
            Ok((_, Err(_))) | Err(_) => {}
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_local_name_resolves_and_a_bad_one_does_not() {
        let names = HashSet::from([("localhost".into(), 80), ("no..such".into(), 80)]);
        let addresses = resolve_names(names, Duration::from_secs(10)).await;
        assert!(addresses[&("localhost".into(), 80)][0].ip().is_loopback());
        assert_eq!(addresses.len(), 1);
    }

    #[tokio::test]
    async fn no_time_means_no_addresses() {
        let names = HashSet::from([("localhost".into(), 80)]);
        assert!(resolve_names(names, Duration::ZERO).await.len() <= 1);
    }
}
