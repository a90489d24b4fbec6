//! Who belongs to a service: the backends of the file, those of its list, and what their names lead
//! to. Between reloads only this changes, and only one service at a time.

use std::sync::Arc;

use super::prepare::List;
use super::probe::Prober;
use super::running::{Endpoints, Running};
use super::services::{Loads, Members};
use crate::config::plan::Changes;
use crate::config::{BackendConfig, Doors, ServiceConfig};
use crate::discovery::{Question, expand, question, questions};
use crate::model::{BackendId, Map, Set};

/// What a change of membership came to.
#[derive(Debug)]
pub(super) struct Refreshed {
    pub(super) backends: Changes<BackendId>,
    /// Backends that may serve now.
    pub(super) eligible: usize,
    /// All of them.
    pub(super) configured: usize,
    /// Sessions that those who left still have.
    pub(super) leaving: u32,
}

/// `service` with every backend that it has now in place of those that the file says: what follows
/// needs to know nothing of lists and names.
pub(super) fn concrete(
    service: &ServiceConfig,
    list: Option<&List>,
    endpoints: &Endpoints,
) -> ServiceConfig {
    let listed = list
        .map(|list| list.backends.as_slice())
        .unwrap_or_default();
    if listed.is_empty() && questions(service.backends.iter()).next().is_none() {
        return service.clone();
    }
    let mut names = Set::default();
    let own = Doors::of(service.listen.iter());
    let backends: Arc<[BackendConfig]> = service
        .backends
        .iter()
        .chain(listed)
        .flat_map(|backend| {
            let found = question(backend).and_then(|question| endpoints.get(&question));
            expand(backend, found.map(Vec::as_slice).unwrap_or_default())
        })
        .map(|mut backend| {
            // Of the file it would be an error; a name says what it says.
            backend.enabled &= !is_circle(&own, &backend);
            backend
        })
        // A list that was read before the configuration changed may have a name of it.
        .filter(|backend| names.insert(Arc::clone(&backend.name)))
        .collect();
    let mut concrete = service.clone();
    concrete.parameters.configured = backends.len();
    concrete.backends = backends;
    concrete
}

/// Whether connections to `backend` would come back in by its own service's listeners.
fn is_circle(own: &Doors, backend: &BackendConfig) -> bool {
    let address = backend.address.fixed();
    address.is_some_and(|address| own.leads_to(address))
}

/// Says which of the `concerned` backends get nothing, because it would come back.
pub(super) fn tell_circles(config: &ServiceConfig, concerned: impl Fn(&str) -> bool) {
    let own = Doors::of(config.listen.iter());
    for backend in config.backends.iter() {
        if is_circle(&own, backend) && concerned(&backend.name) {
            tracing::warn!(
                service = %config.name,
                backend = %backend.name,
                address = %backend.address,
                "name leads to a listener of its own service: it gets no sessions"
            );
        }
    }
}

impl Running {
    /// Forgets where names lead that no backend is behind.
    pub(super) fn forget_names(&mut self) {
        let wanted: Set<_> = self.questions().into_iter().collect();
        self.endpoints
            .retain(|question, _| wanted.contains(question));
    }

    /// Every name that backends are behind.
    pub(super) fn questions(&self) -> Vec<Question> {
        let services = self.config.services.iter();
        let all: Set<_> = services
            .flat_map(|it| questions(self.backends(it)))
            .collect();
        all.into_iter().collect()
    }

    /// The services with a backend behind that name.
    pub(super) fn asking(&self, question: &Question) -> Vec<Arc<str>> {
        let services = self.config.services.iter();
        services
            .filter(|it| questions(self.backends(it)).any(|asked| asked == *question))
            .map(|it| Arc::clone(&it.name))
            .collect()
    }

    /// What the files say: the configuration, and the list of that service.
    fn backends<'a>(
        &'a self,
        service: &'a ServiceConfig,
    ) -> impl Iterator<Item = &'a BackendConfig> {
        let list = self.lists.get(&service.name);
        let listed = list.into_iter().flat_map(|it| &it.backends);
        service.backends.iter().chain(listed)
    }

    /// Gives a service the members that it has by now, if those are others. Its listeners and its
    /// sessions are not touched; who leaves gets no new ones.
    pub(super) fn refresh(&mut self, service: &Arc<str>, prober: &Prober) -> Option<Refreshed> {
        let config = self.config.services.iter().find(|it| it.name == *service)?;
        let config = concrete(config, self.lists.get(service), &self.endpoints);
        let serving = self.services.0.get_mut(service)?;
        if serving.members.config().backends == config.backends {
            return None;
        }
        let backends = Changes::between(serving.members.config().identified(), config.identified());
        if backends.is_empty() {
            return None;
        }
        let log = self.config.log.sessions;
        let mut members = Members::new(config, log, &mut self.loads, &self.memory, &self.targets);
        let known: Map<_, _> = serving.members.targets().collect();
        for &target in known.values() {
            if let Some(users) = self.users.get_mut(target) {
                users.retain(|user| user.id.service() != service);
            }
        }
        for (user, target) in members.users() {
            self.targets.add(target);
            if let Some(prior) = self.memory.take_prior(&user.id, target.address) {
                self.targets.presume(target, &prior);
            }
            if let Some(&from) = known.get(&user.id).filter(|from| **from != target) {
                self.targets.inherit(target, from);
            }
            self.users.entry(target.clone()).or_default().push(user);
        }
        for &target in known.values() {
            if self.users.get(target).is_some_and(Vec::is_empty) {
                self.users.remove(target);
                self.targets.remove(target);
            }
        }
        self.targets.start(prober);
        let gone = backends.removed.iter().filter_map(|id| self.loads.find(id));
        let leaving = gone.map(|load| load.in_flight()).sum();
        members.record(&self.targets, &mut self.memory);
        serving.eligible = members.count_all(&self.targets);
        members.inherit(&serving.members);
        members.cap();
        serving.members = members;
        serving.revision += 1;
        let refreshed = Refreshed {
            backends,
            eligible: serving.eligible,
            configured: serving.members.configured(),
            leaving,
        };
        self.loads.prune_beyond(Loads::MOST_FORMER);
        let (_, _, all) = self.services.count();
        if self.memory.len() > all + Loads::MOST_FORMER {
            self.remember();
        }
        Some(refreshed)
    }
}
