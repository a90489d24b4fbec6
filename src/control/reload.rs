//! How a configuration takes effect, the first one included: all of it or nothing.
//!
//! What may fail comes first: binding the new listeners, rolled back as a whole by dropping them.
//! Then snapshots are built beside the loop, then everything is swapped in one go.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

use super::prepare::{Name, Prepared};
use super::probe::Prober;
use super::services::{Blueprint, Built, Loads, Members, Services, Serving, members};
use super::targets::{TargetId, Targets};
use crate::config::{Config, ListenConfig};
use crate::model::{BackendId, Load};
use crate::net::{BindError, BoundListener, Key};
use crate::pool::{Route, Service};
use crate::worker::{Command, Workers};

/// A retired listener is closed this long after it refused its last handshake: what could be under
/// way then has had its retransmission.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// Everything that a reload may change.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) services: Services,
    pub(super) targets: Targets,
    /// Who is behind each target.
    pub(super) users: HashMap<TargetId, Vec<BackendId>>,
    listeners: HashMap<Key, Listening>,
    addresses: HashMap<Name, SocketAddr>,
    loads: Loads,
    /// Counts configurations.
    pub(super) epoch: u64,
}

#[derive(Debug)]
struct Listening {
    bound: BoundListener,
    route: Arc<Route>,
    /// When it closes, once no handshake may begin any more.
    closes: Option<Instant>,
}

/// A configuration that is ready but for its snapshots.
#[derive(Debug)]
pub(super) struct Staged {
    prepared: Prepared,
    bound: HashMap<Key, BoundListener>,
    members: HashMap<Arc<str>, Members>,
    users: HashMap<TargetId, Vec<BackendId>>,
}

impl Staged {
    /// The configuration that will be in force.
    pub(super) fn config(&self) -> &Config {
        &self.prepared.loaded.config
    }

    /// Backends whose name has no address, now or before, with the name.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = &BackendId> {
        self.members.values().flat_map(Members::unresolved)
    }
}

impl Running {
    /// Nothing runs yet.
    pub(super) fn new(workers: usize) -> Self {
        Self {
            config: Config::empty(),
            services: Services::default(),
            targets: Targets::default(),
            users: HashMap::new(),
            listeners: HashMap::new(),
            addresses: HashMap::new(),
            loads: Loads::new(workers),
            epoch: 0,
        }
    }

    /// Binds what is new and lays out the rest. Nothing that runs is changed.
    ///
    /// # Errors
    /// Every address that cannot be listened on; those that could are let go again.
    pub(super) fn stage(
        &mut self,
        mut prepared: Prepared,
        workers: usize,
    ) -> Result<(Staged, Vec<Blueprint>), Vec<BindError>> {
        let config = &prepared.loaded.config;
        let bound = self.bind(config, workers)?;
        // A name that does not resolve now keeps the address it had.
        for (name, address) in &self.addresses {
            prepared.addresses.entry(name.clone()).or_insert(*address);
        }
        let members = members(config, &prepared.addresses, &mut self.loads);
        let mut users: HashMap<_, Vec<_>> = HashMap::new();
        for (service, its) in &members {
            let known: HashMap<_, _> = self
                .services
                .0
                .get(service)
                .map(|serving| serving.members.targets().collect())
                .unwrap_or_default();
            for (backend, target) in its.targets() {
                self.targets.add(target, known.get(backend).copied());
                users
                    .entry(target.clone())
                    .or_default()
                    .push(backend.clone());
            }
        }
        let blueprints = members
            .values()
            .map(|its| its.blueprint(&self.targets, self.epoch + 1, 0))
            .collect();
        let staged = Staged {
            prepared,
            bound,
            members,
            users,
        };
        Ok((staged, blueprints))
    }

    fn bind(
        &self,
        config: &Config,
        workers: usize,
    ) -> Result<HashMap<Key, BoundListener>, Vec<BindError>> {
        let ours: Vec<_> = self
            .listeners
            .values()
            .map(|it| it.bound.address())
            .collect();
        let mut bound = HashMap::new();
        let mut failed = Vec::new();
        let wanted = listeners(config);
        for (key, listen, backlog) in wanted
            .iter()
            .filter(|(key, ..)| !self.listeners.contains_key(key))
        {
            match BoundListener::bind(listen, workers, &ours) {
                Ok(listener) => {
                    bound.insert(*key, (listener, *backlog));
                }
                Err(error) => failed.push(error),
            }
        }
        if failed.is_empty() {
            for (listener, backlog) in bound.values() {
                failed.extend(listener.listen(*backlog).err());
            }
        }
        if failed.is_empty() {
            Ok(bound
                .into_iter()
                .map(|(key, (listener, _))| (key, listener))
                .collect())
        } else {
            Err(failed)
        }
    }

    /// Swaps everything that was staged in. From here on nothing fails.
    ///
    /// Gives back the services whose health has changed since their snapshot was laid out.
    pub(super) fn apply(
        &mut self,
        staged: Staged,
        built: Vec<Built>,
        workers: &Workers,
        prober: &Prober,
    ) -> Vec<Arc<str>> {
        let Staged {
            prepared,
            bound,
            members,
            users,
        } = staged;
        self.epoch += 1;
        let mut snapshots: HashMap<_, _> = built
            .into_iter()
            .map(|built| (built.service, built.snapshot))
            .collect();
        let mut stale = Vec::new();
        let mut services = HashMap::with_capacity(members.len());
        for (name, members) in members {
            let Some(snapshot) = snapshots.remove(&name) else {
                continue;
            };
            let now = members.roster(&self.targets);
            let laid_out = snapshot.backends.iter().map(|backend| backend.id());
            if !laid_out.eq(now.iter().map(|candidate| &candidate.id)) {
                stale.push(Arc::clone(&name));
            }
            let service = match self.services.0.remove(&name) {
                Some(serving) => {
                    serving.service.swap(snapshot);
                    serving.service
                }
                None => Service::new(Arc::clone(&name), snapshot),
            };
            let serving = Serving {
                service,
                members,
                revision: 0,
                building: false,
            };
            services.insert(name, serving);
        }
        self.services = Services(services);
        self.config = prepared.loaded.config;
        self.addresses = prepared.addresses;
        self.users = users;
        let wanted = &self.users;
        self.targets.retain(|id| wanted.contains_key(id));
        self.targets.start(prober);
        self.switch_listeners(bound, workers);
        self.loads.prune();
        stale
    }

    fn switch_listeners(&mut self, mut bound: HashMap<Key, BoundListener>, workers: &Workers) {
        let owners = owners(&self.config);
        let mut wanted = HashSet::new();
        for (key, _, backlog) in listeners(&self.config) {
            wanted.insert(key);
            let Some(serving) = owners.get(&key).and_then(|name| self.services.0.get(*name)) else {
                continue;
            };
            let service = Arc::clone(&serving.service);
            if let Some(listening) = self.listeners.get_mut(&key) {
                listening.keep(service, backlog);
            } else if let Some(bound) = bound.remove(&key) {
                let route = Route::new(bound.address(), service);
                workers.tell(|worker| Command::Listen {
                    key,
                    route: Arc::clone(&route),
                    socket: bound.of_worker(worker),
                });
                let listening = Listening {
                    bound,
                    route,
                    closes: None,
                };
                tracing::info!(service = %serving.service.name(), listener = %listening.bound.address(), "listening");
                self.listeners.insert(key, listening);
            }
        }
        for (key, listening) in &mut self.listeners {
            if !wanted.contains(key) {
                listening.retire();
            }
        }
    }

    /// Closes listeners that were retired long enough ago, or at once.
    pub(super) fn close_retired(&mut self, workers: &Workers, at_once: bool, closed: &TaskTracker) {
        let now = Instant::now();
        self.listeners.retain(|key, listening| {
            let due = listening.closes.is_some_and(|at| at_once || at <= now);
            if due {
                workers.tell(|_| Command::Close {
                    key: *key,
                    done: closed.token(),
                });
            }
            !due
        });
    }

    /// Lets no handshake begin on any listener.
    pub(super) fn retire_all(&mut self) {
        self.listeners.values_mut().for_each(Listening::retire);
    }

    /// The counters of a backend in the file.
    pub(super) fn load(&self, id: &BackendId) -> Option<&Arc<Load>> {
        self.loads.find(id)
    }

    /// Every listener, with its service and its address as bound.
    pub(super) fn bound(&self) -> Vec<(Arc<str>, SocketAddr)> {
        let all = listeners(&self.config);
        let open = all.iter().filter_map(|(key, ..)| self.listeners.get(key));
        open.map(|listening| {
            let service = Arc::clone(listening.route.service().name());
            (service, listening.bound.address())
        })
        .collect()
    }
}

impl Listening {
    fn keep(&mut self, service: Arc<Service>, backlog: u32) {
        self.route.lead_to(service);
        if self.closes.take().is_some()
            && let Err(error) = self.bound.accept_handshakes()
        {
            tracing::error!(listener = %self.bound.address(), %error, "listener takes no new clients");
        }
        if let Err(error) = self.bound.listen(backlog) {
            tracing::warn!(%error, "backlog not changed");
        }
    }

    fn retire(&mut self) {
        if self.closes.is_some() {
            return;
        }
        // Without the filter a handshake that completes in the last instant is lost.
        if let Err(error) = self.bound.refuse_handshakes() {
            tracing::warn!(listener = %self.bound.address(), %error, "listener closes without a filter");
        }
        self.closes = Some(Instant::now() + QUIET);
    }
}

/// Every listener of a configuration by identity, with its backlog.
fn listeners(config: &Config) -> Vec<(Key, ListenConfig, u32)> {
    let mut seen: HashMap<SocketAddr, usize> = HashMap::new();
    let mut all = Vec::new();
    for service in &config.services {
        for listen in &service.listen {
            let next = seen.entry(listen.address).or_default();
            let key = Key {
                address: listen.address,
                ordinal: *next,
            };
            *next += 1;
            all.push((key, *listen, service.backlog));
        }
    }
    all
}

fn owners(config: &Config) -> HashMap<Key, &Arc<str>> {
    let names = config
        .services
        .iter()
        .flat_map(|service| service.listen.iter().map(|_| &service.name));
    let keys = listeners(config).into_iter().map(|(key, ..)| key);
    keys.zip(names).collect()
}
