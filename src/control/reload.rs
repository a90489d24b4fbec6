//! How a configuration takes effect, the first one included: all of it or nothing.
//!
//! What may fail comes first: binding the new listeners, rolled back as a whole by dropping them.
//! Then snapshots are built beside the loop, then everything is swapped in one go.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::discovery::{Answers, Asker};
use super::failovers::Over;
use super::listening::{Bound, Listeners};
use super::membership::{Endpoints, concrete};
use super::memory::Memory;
use super::prepare::{Lists, Prepared};
use super::probe::{Prober, TargetId};
use super::services::{Blueprint, Built, Loads, Members, Served, Services, Serving, User};
use super::targets::Targets;
use crate::config::Config;
use crate::discovery::origin;
use crate::health::{Decision, FailBack, Roster, Rules};
use crate::model::{Address, BackendId, Load};
use crate::net::BindError;
use crate::pool::{Permits, Service};
use crate::worker::{Command, Workers};

/// The configuration that the daemon was started with.
const FIRST: u64 = 1;

/// Everything that a reload may change.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) services: Services,
    pub(super) targets: Targets,
    /// Who is behind each target.
    pub(super) users: HashMap<TargetId, Vec<User>>,
    pub(super) listeners: Listeners,
    /// The files of backends.
    pub(super) lists: Lists,
    /// Where names lead.
    pub(super) endpoints: Endpoints,
    pub(super) loads: Loads,
    pub(super) memory: Memory,
    /// Counts configurations.
    pub(super) epoch: u64,
}

/// A configuration that is ready but for its snapshots.
#[derive(Debug)]
pub(super) struct Staged {
    prepared: Prepared,
    bound: Bound,
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
            listeners: Listeners::default(),
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
        let bound = self.listeners.bind(config, workers)?;
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
        let (services, loads) = (&self.services, &mut self.loads);
        self.listeners
            .switch(&self.config, services, loads, bound, workers);
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
        self.listeners.correct(&mut config);
        config
    }

    /// The counters of a backend in the file.
    pub(super) fn load(&self, id: &BackendId) -> Option<&Arc<Load>> {
        self.loads.find(id)
    }

    /// Every listener, with its service and its address as bound.
    pub(super) fn bound(&self) -> Vec<(Arc<str>, Address)> {
        let all = self.listeners.of(&self.config).into_iter();
        all.map(|(address, leads)| (Arc::clone(leads.service.name()), address))
            .collect()
    }
}
