//! How a configuration takes effect, the first one included: all of it or nothing.
//!
//! What may fail comes first: binding the new listeners, rolled back as a whole by dropping them.
//! Then snapshots are built beside the loop, then everything is swapped in one go.

use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::discovery::{Answers, Asker};
use super::failovers::Over;
use super::listening::Bound;
use super::membership::concrete;
use super::prepare::Prepared;
use super::probe::{Prober, TargetId};
use super::running::Running;
use super::services::{Blueprint, Built, Members, Served, Services, Serving, User};
use crate::config::Config;
use crate::health::Decision;
use crate::model::{BackendId, Map};
use crate::net::BindError;
use crate::pool::Service;
use crate::worker::{Command, Workers};

/// The configuration that the daemon was started with.
const FIRST: u64 = 1;

/// A configuration that is ready but for its snapshots.
#[derive(Debug)]
pub(super) struct Staged {
    prepared: Prepared,
    bound: Bound,
    members: Map<Arc<str>, Members>,
    /// What the snapshots are laid out by.
    decisions: Map<Arc<str>, Decision>,
    users: Map<TargetId, Vec<User>>,
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
        for (question, (resolution, _)) in &prepared.answers {
            let endpoints = resolution.endpoints().to_vec();
            self.endpoints.insert(question.clone(), endpoints);
        }
        let mut members = Map::with_capacity_and_hasher(config.services.len(), Default::default());
        for service in &config.services {
            let list = prepared.lists.get(&service.name);
            let concrete = concrete(service, list, &self.endpoints);
            let its = Members::new(
                concrete,
                config.log.sessions,
                &mut self.loads,
                &self.memory,
                &self.targets,
            );
            members.insert(Arc::clone(&service.name), its);
        }
        let mut users: Map<_, Vec<_>> = Map::default();
        let mut heirs = Vec::new();
        for (service, its) in &members {
            let serving = self.services.0.get(service);
            let mut former = serving.map(|it| it.members.in_order());
            for (user, target) in its.users() {
                self.targets.add(target);
                if let Some(prior) = self.memory.prior(&user.id, target.address) {
                    self.targets.presume(target, &prior);
                }
                let former = former.as_mut().and_then(|it| it.find(&user.id));
                let from = former.and_then(|it| it.target.as_ref());
                if let Some(from) = from.filter(|from| *from != target) {
                    self.targets.inherit(target, from);
                    heirs.push((target.clone(), from.clone()));
                }
                users.entry(target.clone()).or_default().push(user);
            }
        }
        let mut decisions = Map::with_capacity_and_hasher(members.len(), Default::default());
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

    /// Swaps everything that was staged in. From here on nothing fails.
    ///
    /// Who serves may have changed since the snapshots were laid out: ask the rosters again.
    pub(super) fn apply(
        &mut self,
        staged: Staged,
        built: Vec<Built>,
        workers: &Workers,
        prober: &Prober,
        closed: &TaskTracker,
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
        let mut snapshots: Map<_, _> = built
            .into_iter()
            .map(|built| (built.service, built.snapshot))
            .collect();
        let mut services = Map::with_capacity_and_hasher(members.len(), Default::default());
        for (name, mut members) in members {
            let Some(snapshot) = snapshots.remove(&name) else {
                continue;
            };
            let roster = self.roster_for(&name, members.rules());
            // Something may have been said since it was laid out.
            members.heed(&self.memory);
            members.cap();
            let (service, served, stands_in, failovers) = match self.services.0.remove(&name) {
                Some(serving) => {
                    members.inherit(&serving.members);
                    serving.service.swap(snapshot);
                    let Serving {
                        service,
                        served,
                        stands_in,
                        failovers,
                        ..
                    } = serving;
                    (service, served, stands_in, failovers)
                }
                None => {
                    let queue = self.loads.queue(&name);
                    let service = Service::new(Arc::clone(&name), snapshot, queue);
                    (service, Served::default(), None, Over::default())
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
                stands_in,
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
            .switch(&self.config, services, loads, bound, workers, closed);
        self.loads.prune();
        self.remember();
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
}
