//! What runs: the configuration in force, and all that control holds of its services, listeners and servers.
//!
//! Changed as a whole by a [`reload`](super::reload), and of one service by a change of its
//! [`membership`](super::membership); everybody else reads.

use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::listening::Listeners;
use super::memory::Memory;
use super::prepare::Lists;
use super::probe::TargetId;
use super::services::{Loads, Services, User};
use super::targets::Targets;
use crate::api;
use crate::config::Config;
use crate::discovery::{Endpoint, Question, origin};
use crate::health::{FailBack, Roster, Rules};
use crate::model::{Address, BackendId, Load, Map, Set};
use crate::pool::Permits;

/// Where names lead.
pub(super) type Endpoints = Map<Question, Vec<Endpoint>>;

/// Everything that a reload may change, and much that changes in between.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) services: Services,
    pub(super) targets: Targets,
    /// Who is behind each target.
    pub(super) users: Map<TargetId, Vec<User>>,
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

impl Running {
    /// Nothing runs yet.
    pub(super) fn new(workers: usize, permits: &'static Permits) -> Self {
        Self {
            config: Config::empty(),
            services: Services::default(),
            targets: Targets::default(),
            users: Map::default(),
            listeners: Listeners::default(),
            lists: Lists::new(),
            endpoints: Endpoints::default(),
            loads: Loads::new(workers, permits),
            memory: Memory::default(),
            epoch: 0,
        }
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

    /// Has every backend's record go on with what is known of it, and forgets those that have left.
    pub(super) fn remember(&mut self) {
        let mut known = Set::default();
        let mut unresolved = Set::default();
        for serving in self.services.0.values() {
            let members = &serving.members;
            members.record(&self.targets, &mut self.memory);
            let name = &members.config().name;
            let course = members.course(serving.eligible, &self.targets);
            let now = Instant::now().into_std();
            self.memory.note_service(name, course, now);
            known.extend(members.each().map(|it| &it.id));
            unresolved.extend(members.unresolved());
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

    /// The counters of a backend in the file.
    pub(super) fn load(&self, id: &BackendId) -> Option<&Arc<Load>> {
        self.loads.find(id)
    }

    /// The sessions of backends that have left, by service.
    pub(super) fn left(&self) -> Map<&Arc<str>, api::Left> {
        let (_, _, members) = self.services.count();
        let services = self.services.0.values();
        let all = services.flat_map(|it| it.members.each()).map(|it| &it.id);
        let mut left: Map<_, api::Left> = Map::default();
        for (id, sessions) in self.loads.left(members, all) {
            let left = left.entry(id.service()).or_default();
            left.backends += 1;
            left.sessions += u64::from(sessions);
            left.named.push(api::Departed {
                name: id.name().to_string(),
                sessions: u64::from(sessions),
            });
        }
        left
    }

    /// Every listener, with its service and its address as bound.
    pub(super) fn bound(&self) -> Vec<(Arc<str>, Address)> {
        let all = self.listeners.of(&self.config).into_iter();
        all.map(|(bound, leads)| (Arc::clone(leads.service.name()), bound.address()))
            .collect()
    }
}
