//! How a configuration takes effect, the first one included: all of it or nothing.
//!
//! What may fail comes first: binding the new listeners, rolled back as a whole by dropping them.
//! Then snapshots are built beside the loop, then everything is swapped in one go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

use super::discovery::{Answers, Asker};
use super::failovers::Over;
use super::membership::{Endpoints, concrete};
use super::memory::Memory;
use super::prepare::{Lists, Prepared};
use super::probe::{Prober, TargetId};
use super::services::{Blueprint, Built, Loads, Members, Served, Services, Serving, User};
use super::targets::Targets;
use crate::config::{Config, ListenerId, ServiceConfig, listeners};
use crate::discovery::origin;
use crate::health::{Decision, FailBack, Roster, Rules};
use crate::model::{Address, BackendId, Load};
use crate::net::{BindError, BoundListener, Claim};
use crate::pool::{Permits, Route, Service, Way};
use crate::worker::{Command, Workers};

/// A retired listener is closed this long after it refused its last handshake: what could be under
/// way then has had its retransmission.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// The configuration that the daemon was started with.
const FIRST: u64 = 1;
/// Workers may hold a closed listener's socket for this long, while they empty its queue.
const EMPTYING: Duration = Duration::from_secs(6);

/// Everything that a reload may change.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) services: Services,
    pub(super) targets: Targets,
    /// Who is behind each target.
    pub(super) users: HashMap<TargetId, Vec<User>>,
    listeners: HashMap<ListenerId, Listening>,
    /// Listeners that were closed, and when.
    emptying: Vec<(Claim, Instant)>,
    /// The files of backends.
    pub(super) lists: Lists,
    /// Where names lead.
    pub(super) endpoints: Endpoints,
    pub(super) loads: Loads,
    pub(super) memory: Memory,
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
    bound: HashMap<ListenerId, BoundListener>,
    members: HashMap<Arc<str>, Members>,
    /// What the snapshots are laid out by.
    decisions: HashMap<Arc<str>, Decision>,
    users: HashMap<TargetId, Vec<User>>,
    /// Targets that replace another one of the same backend.
    heirs: Vec<(TargetId, TargetId)>,
}

impl Staged {
    /// The configuration that will be in force.
    pub(super) fn config(&self) -> &Config {
        &self.prepared.loaded.config
    }

    /// The file that it was read from.
    pub(super) fn text(&self) -> &Arc<str> {
        &self.prepared.loaded.text
    }

    /// The backends of that service.
    pub(super) fn members(&self, service: &str) -> Option<&Members> {
        self.members.get(service)
    }

    /// What discovery is to go on with: answers, and who asks.
    pub(super) fn take_findings(&mut self) -> (Answers, Asker) {
        let answers = std::mem::take(&mut self.prepared.answers);
        (answers, self.prepared.asker.clone())
    }

    /// Backends whose name has no address, now or before.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = &BackendId> {
        self.members.values().flat_map(Members::unresolved)
    }
}

impl Running {
    /// Nothing runs yet.
    pub(super) fn new(workers: usize, permits: &'static Permits) -> Self {
        Self {
            config: Config::empty(),
            services: Services::default(),
            targets: Targets::default(),
            users: HashMap::new(),
            listeners: HashMap::new(),
            emptying: Vec::new(),
            lists: Lists::new(),
            endpoints: Endpoints::new(),
            loads: Loads::new(workers, permits),
            memory: Memory::default(),
            epoch: 0,
        }
    }

    /// Binds what is new and lays out the rest. Nothing that runs is changed.
    ///
    /// # Errors
    /// Every address that cannot be listened on; those that could are let go again.
    pub(super) fn stage(
        &mut self,
        prepared: Prepared,
        workers: usize,
    ) -> Result<(Staged, Vec<Blueprint>), Vec<BindError>> {
        let config = &prepared.loaded.config;
        let bound = self.bind(config, workers)?;
        // Nobody followed these names, so what is known of them is not better.
        for (question, (memory, _)) in &prepared.answers {
            let endpoints = memory.endpoints().to_vec();
            self.endpoints.insert(question.clone(), endpoints);
        }
        let mut members = HashMap::with_capacity(config.services.len());
        for service in &config.services {
            let list = prepared.lists.get(&service.name);
            let concrete = concrete(service, list, &self.endpoints);
            let its = Members::new(concrete, config.log.sessions, &mut self.loads, &self.memory);
            members.insert(Arc::clone(&service.name), its);
        }
        let mut users: HashMap<_, Vec<_>> = HashMap::new();
        let mut heirs = Vec::new();
        for (service, its) in &members {
            let known: HashMap<_, _> = self
                .services
                .0
                .get(service)
                .map(|serving| serving.members.targets().collect())
                .unwrap_or_default();
            for (user, target) in its.users() {
                self.targets.add(target);
                if let Some(state) = self.memory.prior(&user.id, target.address) {
                    self.targets.presume(target, state);
                }
                if let Some(&from) = known.get(&user.id).filter(|from| **from != target) {
                    self.targets.inherit(target, from);
                    heirs.push((target.clone(), from.clone()));
                }
                users.entry(target.clone()).or_default().push(user);
            }
        }
        let mut decisions = HashMap::with_capacity(members.len());
        let mut blueprints = Vec::with_capacity(members.len());
        for (name, its) in &mut members {
            // A rehearsal: what is known of health may change before the configuration is applied.
            let mut roster = self.roster_for(name, its.rules());
            let decision = its.decide(&mut roster, &self.targets, Instant::now().into_std());
            blueprints.push(its.blueprint(&decision, &self.targets, self.epoch + 1, 0));
            decisions.insert(Arc::clone(name), decision);
        }
        let staged = Staged {
            prepared,
            bound,
            members,
            decisions,
            users,
            heirs,
        };
        Ok((staged, blueprints))
    }

    /// The roster of service `name` as it goes on under `rules`.
    pub(super) fn roster_for(&self, name: &Arc<str>, rules: &Rules) -> Roster {
        let mut roster = Roster::default();
        if let Some(serving) = self.services.0.get(name) {
            roster = serving.roster.clone();
        }
        if rules.fail_back == FailBack::Manual {
            // To ask for a reload is how an operator asks for it.
            roster.fail_back();
        }
        roster
    }

    fn bind(
        &self,
        config: &Config,
        workers: usize,
    ) -> Result<HashMap<ListenerId, BoundListener>, Vec<BindError>> {
        let (bound, mut failed) = self.bind_new(config, workers, |_| true);
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

    /// Every new address in the network of `config` that cannot be listened on. Nobody can connect while that is
    /// found out; at a path somebody could, so paths are not tried.
    pub(super) fn try_listeners(&self, config: &Config, workers: usize) -> Vec<BindError> {
        self.bind_new(config, workers, |address| address.inet().is_some())
            .1
    }

    /// The new listeners of `config` at addresses that are `meant`, which do not listen yet, with their backlogs.
    fn bind_new(
        &self,
        config: &Config,
        workers: usize,
        meant: impl Fn(Address) -> bool,
    ) -> (HashMap<ListenerId, (BoundListener, u32)>, Vec<BindError>) {
        let open = self.listeners.values().map(|it| it.bound.claim());
        let ours: Vec<_> = open
            .chain(self.emptying.iter().map(|(claim, _)| *claim))
            .collect();
        let mut bound = HashMap::new();
        let mut failed = Vec::new();
        let mut wanted = listeners(config);
        wanted
            .retain(|(key, listen, _)| meant(listen.address) && !self.listeners.contains_key(key));
        for (key, listen, service) in wanted {
            match BoundListener::bind(listen, &service.socket, workers, &ours) {
                Ok(listener) => {
                    bound.insert(key, (listener, service.backlog));
                }
                Err(error) => failed.push(error),
            }
        }
        (bound, failed)
    }

    /// Swaps everything that was staged in. From here on nothing fails.
    ///
    /// Who serves may have changed since the snapshots were laid out: ask the rosters again.
    pub(super) fn apply(
        &mut self,
        staged: Staged,
        built: Vec<Built>,
        workers: &Workers,
        prober: &Prober,
    ) {
        let Staged {
            mut prepared,
            bound,
            members,
            mut decisions,
            users,
            heirs,
        } = staged;
        for (heir, from) in &heirs {
            self.targets.inherit(heir, from);
        }
        self.epoch += 1;
        let mut snapshots: HashMap<_, _> = built
            .into_iter()
            .map(|built| (built.service, built.snapshot))
            .collect();
        let mut services = HashMap::with_capacity(members.len());
        for (name, mut members) in members {
            let Some(snapshot) = snapshots.remove(&name) else {
                continue;
            };
            let roster = self.roster_for(&name, members.rules());
            // Something may have been said since it was laid out.
            members.heed(&self.memory);
            members.cap();
            let (service, served, failovers) = match self.services.0.remove(&name) {
                Some(serving) => {
                    members.inherit(&serving.members);
                    serving.service.swap(snapshot);
                    (serving.service, serving.served, serving.failovers)
                }
                None => {
                    let queue = self.loads.queue(&name);
                    let service = Service::new(Arc::clone(&name), snapshot, queue);
                    (service, Served::default(), Over::default())
                }
            };
            if let Some(permits) = members.gate().begin_count() {
                workers.tell(|_| Command::Count {
                    service: Arc::clone(&service),
                    permits,
                });
            }
            let laid_out = decisions.remove(&name);
            let serving = Serving {
                service,
                eligible: laid_out.as_ref().map_or(0, |decision| decision.eligible),
                members,
                roster,
                laid_out,
                wake: None,
                served,
                failovers,
                revision: 0,
                building: false,
            };
            services.insert(name, serving);
        }
        self.services = Services(services);
        self.config = self.in_force(prepared.loaded.config);
        // What the watcher has read while the reload was under way is newer; who serves by it follows.
        for (service, list) in &mut prepared.lists {
            if let Some(read) = self.lists.remove(service)
                && read.path == list.path
                && read.reading.at > list.reading.at
            {
                *list = read;
            }
        }
        self.lists = prepared.lists;
        self.users = users;
        let wanted = &self.users;
        self.targets.retain(|id| wanted.contains_key(id));
        self.targets.start(prober);
        self.switch_listeners(bound, workers);
        self.loads.prune();
        self.remember();
    }

    /// Has every backend's record go on with what is known of it, and forgets those that have left.
    pub(super) fn remember(&mut self) {
        let mut known = HashSet::new();
        let mut unresolved = HashSet::new();
        for serving in self.services.0.values() {
            let members = &serving.members;
            members.record(&self.targets, &mut self.memory);
            let name = &members.config().name;
            let whole = members.is_whole(serving.eligible, &self.targets);
            let now = Instant::now().into_std();
            self.memory.note_service(name, whole, now);
            known.extend(members.standings(&self.targets).map(|(it, ..)| it.clone()));
            unresolved.extend(members.unresolved().cloned());
        }
        // Who is behind a name that leads nowhere has not left: nobody can say.
        // Nor has who may be in a list that cannot be read.
        let is_listed = |backend: &BackendId| {
            let list = self.lists.get(backend.service());
            list.is_some_and(|list| !list.problems.is_empty())
        };
        let is_awaited = |backend: &BackendId| {
            is_listed(backend)
                || origin(backend.name()).is_some_and(|name| {
                    unresolved.contains(&BackendId::new(Arc::clone(backend.service()), name))
                })
        };
        self.memory.retain(|it| known.contains(it), is_awaited);
        let services = &self.services.0;
        self.memory.retain_services(|it| services.contains_key(it));
    }

    /// Has what is remembered written.
    pub(super) fn save(&mut self) -> oneshot::Receiver<()> {
        let services = self.services.0.values();
        let standings = services.flat_map(|it| it.members.standings(&self.targets));
        self.memory.save(standings)
    }

    /// The configuration as far as it takes effect: what needs a restart stays what it is, so that
    /// the next plan compares with what runs.
    fn in_force(&self, mut config: Config) -> Config {
        if self.epoch > FIRST {
            config.runtime.workers = self.config.runtime.workers;
            config.log.format = self.config.log.format;
            config.runtime.state_file = self.config.runtime.state_file.clone();
            config.runtime.user = self.config.runtime.user.clone();
            config.runtime.group = self.config.runtime.group.clone();
            config.runtime.sandbox = self.config.runtime.sandbox;
        }
        let keys: Vec<_> = listeners(&config).iter().map(|(key, ..)| *key).collect();
        let mut keys = keys.iter();
        for service in &mut config.services {
            for (listen, key) in service.listen.iter_mut().zip(&mut keys) {
                if let Some(listening) = self.listeners.get(key) {
                    listen.dual_stack = listening.bound.dual_stack();
                    listen.mptcp = listening.bound.mptcp();
                    service.socket.incoming.interface = listening.bound.interface();
                }
            }
        }
        config
    }

    fn switch_listeners(
        &mut self,
        mut bound: HashMap<ListenerId, BoundListener>,
        workers: &Workers,
    ) {
        let mut wanted = HashSet::new();
        for (key, _, config) in listeners(&self.config) {
            wanted.insert(key);
            // Every service of the configuration has just been put there.
            let Some(serving) = self.services.0.get(&config.name) else {
                continue;
            };
            let service = Arc::clone(&serving.service);
            if let Some(listening) = self.listeners.get_mut(&key) {
                let ledger = self.loads.ledger(service.name(), listening.bound.address());
                listening.keep(Way { service, ledger }, config);
            } else if let Some(bound) = bound.remove(&key) {
                let ledger = self.loads.ledger(service.name(), bound.address());
                let route = Route::new(bound.address(), Way { service, ledger });
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
            } else {
                tracing::error!(service = %config.name, listener = %key, "not bound: a defect");
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
        self.emptying
            .retain(|(_, since)| now.duration_since(*since) < EMPTYING);
        self.listeners.retain(|key, listening| {
            let due = listening.closes.is_some_and(|at| at_once || at <= now);
            if due {
                self.emptying.push((listening.bound.claim(), now));
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

    /// Every listener, by its address as bound, and where its clients go.
    pub(super) fn listening(&self) -> Vec<(Address, Arc<Way>)> {
        let all = listeners(&self.config);
        let open = all.iter().filter_map(|(key, ..)| self.listeners.get(key));
        open.map(|it| (it.bound.address(), Arc::clone(&it.route.way())))
            .collect()
    }

    /// Every listener, with its service and its address as bound.
    pub(super) fn bound(&self) -> Vec<(Arc<str>, Address)> {
        let all = self.listening().into_iter();
        all.map(|(address, way)| (Arc::clone(way.service.name()), address))
            .collect()
    }
}

impl Listening {
    fn keep(&mut self, way: Way, config: &ServiceConfig) {
        let leads = self.route.way();
        let stays =
            Arc::ptr_eq(&way.service, &leads.service) && Arc::ptr_eq(&way.ledger, &leads.ledger);
        if !stays {
            self.route.lead(way);
        }
        let was_closing = self.closes.take().is_some();
        // Anybody who may write its directory can take a socket away from its path.
        let is_path = self.bound.address().inet().is_none();
        if (was_closing || is_path)
            && let Err(error) = self.bound.accept_handshakes()
        {
            tracing::error!(listener = %self.bound.address(), %error, "listener takes no new clients");
        }
        if let Err(error) = self.bound.tune(&config.socket) {
            tracing::warn!(%error, "socket options not changed");
        }
        if let Err(error) = self.bound.listen(config.backlog) {
            tracing::warn!(%error, "backlog not changed");
        }
    }

    fn retire(&mut self) {
        if self.closes.is_some() {
            return;
        }
        tracing::info!(service = %self.route.way().service.name(), listener = %self.bound.address(), "listener closes");
        // Without the filter a handshake that completes in the last instant is lost.
        if let Err(error) = self.bound.refuse_handshakes() {
            tracing::warn!(listener = %self.bound.address(), %error, "listener closes without a filter");
        }
        self.closes = Some(Instant::now() + QUIET);
    }
}
