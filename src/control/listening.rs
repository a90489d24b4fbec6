//! The listeners that are open, and the life of each: it is bound, kept from one configuration to the
//! next, retired once none wants it, and closed when nobody can be on the way any more.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;

use tokio::time::{Duration, Instant};
use tokio_util::task::TaskTracker;

use super::services::{Loads, Services};
use crate::config::{Config, ListenerId, ServiceConfig, listeners};
use crate::model::Address;
use crate::net::{BindError, BoundListener, Remains};
use crate::pool::{Destination, Route};
use crate::worker::{Command, Workers};

/// A retired listener is closed this long after it refused its last handshake: what could be under
/// way then has had its retransmission.
pub(super) const QUIET: Duration = Duration::from_secs(1);

/// Every listener that is open.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    open: HashMap<ListenerId, Listening>,
    /// Those that were closed, while workers empty their queues.
    emptying: Vec<Remains>,
}

/// Listeners that no worker serves yet; whoever drops them closes them.
pub(super) type Bound = HashMap<ListenerId, BoundListener>;

#[derive(Debug)]
struct Listening {
    bound: BoundListener,
    route: Arc<Route>,
    /// When it closes, once no handshake may begin any more.
    closes: Option<Instant>,
}

impl Listeners {
    /// Listens on what is new in `config`.
    ///
    /// # Errors
    /// Every address that cannot be listened on; those that could are let go again.
    pub(super) fn bind(&self, config: &Config, workers: usize) -> Result<Bound, Vec<BindError>> {
        let (mut bound, mut failed) = self.bind_new(config, workers, |_| true);
        bound.extend(self.bind_lost(config, workers));
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
    pub(super) fn try_to_bind(&self, config: &Config, workers: usize) -> Vec<BindError> {
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
        let open = self.open.values().map(|it| it.bound.claim());
        let ours: Vec<_> = open
            .chain(self.emptying.iter().filter_map(Remains::claim))
            .collect();
        let mut bound = HashMap::new();
        let mut failed = Vec::new();
        let mut wanted = listeners(config);
        wanted.retain(|(key, listen, _)| meant(listen.address) && !self.open.contains_key(key));
        for (key, listen, service) in wanted {
            match BoundListener::bind(listen, &service.socket, workers, &ours) {
                Ok(listener) => {
                    bound.insert(key, (listener, service.backlog));
                }
                Err(error) => failed.push(error.of(&service.name)),
            }
        }
        (bound, failed)
    }

    /// New listeners in place of those of `config` whose sockets somebody has taken away from their paths. One for
    /// which there is no place is told of when the rest takes effect.
    fn bind_lost(
        &self,
        config: &Config,
        workers: usize,
    ) -> HashMap<ListenerId, (BoundListener, u32)> {
        let mut wanted = listeners(config);
        wanted.retain(|(key, ..)| self.open.get(key).is_some_and(|it| it.bound.is_lost()));
        let anew = wanted.into_iter().filter_map(|(key, listen, service)| {
            let bound = BoundListener::bind(listen, &service.socket, workers, &[]);
            Some((key, (bound.ok()?, service.backlog)))
        });
        anew.collect()
    }

    /// Has the listeners of `config` be open, `bound` being those of them that were not or are lost, and retires the others.
    pub(super) fn switch(
        &mut self,
        config: &Config,
        services: &Services,
        loads: &mut Loads,
        mut bound: Bound,
        workers: &Workers,
        closed: &TaskTracker,
    ) {
        let mut wanted = HashSet::new();
        let until = patience(config.runtime.drain_timeout.max(QUIET));
        for (key, _, config) in listeners(config) {
            wanted.insert(key);
            // Every service of the configuration has just been put there.
            let Some(serving) = services.0.get(&config.name) else {
                continue;
            };
            let mut destination = |listener| Destination {
                service: Arc::clone(&serving.service),
                ledger: loads.ledger(&config.name, listener),
            };
            if let Some(bound) = bound.remove(&key) {
                let lost = self.open.remove(&key).is_some();
                if lost {
                    // Nobody finds it any more; whoever has is served.
                    workers.tell(|_| Command::Close {
                        key,
                        until,
                        done: closed.token(),
                    });
                }
                let destination = destination(bound.address());
                let listening = Listening::open(key, bound, destination, workers, lost);
                self.open.insert(key, listening);
            } else if let Some(listening) = self.open.get_mut(&key) {
                let destination = destination(listening.bound.address());
                listening.keep(destination, config);
            } else {
                tracing::error!(service = %config.name, listener = %key, "not bound: a defect");
            }
        }
        for (key, listening) in &mut self.open {
            if !wanted.contains(key) {
                listening.retire();
            }
        }
    }

    /// Has `config` say of its listeners what they are: some of it cannot change while they are open.
    pub(super) fn correct(&self, config: &mut Config) {
        let keys: Vec<_> = listeners(config).iter().map(|(key, ..)| *key).collect();
        let mut keys = keys.iter();
        for service in &mut config.services {
            for (listen, key) in service.listen.iter_mut().zip(&mut keys) {
                if let Some(listening) = self.open.get(key) {
                    listen.dual_stack = listening.bound.dual_stack();
                    listen.mptcp = listening.bound.mptcp();
                    service.socket.incoming.interface = listening.bound.interface();
                }
            }
        }
    }

    /// Lets no handshake begin on any listener.
    pub(super) fn retire_all(&mut self) {
        self.open.values_mut().for_each(Listening::retire);
    }

    /// Closes listeners that were retired long enough ago, or at once. Who waits there for room does so for at
    /// most as long as `limit`.
    pub(super) fn close_retired(
        &mut self,
        workers: &Workers,
        limit: Duration,
        at_once: bool,
        closed: &TaskTracker,
    ) {
        // Who has come in time is let in if there is room.
        let least = if at_once { Duration::ZERO } else { QUIET };
        let (now, until) = (Instant::now(), patience(limit.max(least)));
        self.emptying.retain(|it| it.claim().is_some());
        self.open.retain(|key, listening| {
            let due = listening.closes.is_some_and(|at| at_once || at <= now);
            if due {
                self.emptying.push(listening.bound.remains());
                workers.tell(|_| Command::Close {
                    key: *key,
                    until,
                    done: closed.token(),
                });
            }
            !due
        });
    }

    /// Those of `config` in its order, each as bound, and where its clients go.
    pub(super) fn of(&self, config: &Config) -> Vec<(&BoundListener, Arc<Destination>)> {
        let all = listeners(config);
        let open = all.iter().filter_map(|(key, ..)| self.open.get(key));
        open.map(|it| (&it.bound, Arc::clone(&it.route.destination())))
            .collect()
    }
}

impl Listening {
    /// Has every worker serve its part of `bound`, in place of one that was `lost` if so.
    fn open(
        key: ListenerId,
        bound: BoundListener,
        destination: Destination,
        workers: &Workers,
        lost: bool,
    ) -> Self {
        let service = Arc::clone(&destination.service);
        let route = Route::new(bound.address(), destination);
        workers.tell(|worker| Command::Listen {
            key,
            route: Arc::clone(&route),
            socket: bound.of_worker(worker),
        });
        let (service, listener) = (service.name(), bound.address());
        match bound.open() {
            Err(error) => takes_nobody(listener, &error),
            Ok(()) if lost => tracing::warn!(
                %service,
                %listener,
                "socket made anew: somebody had taken it away from its path"
            ),
            Ok(()) => tracing::info!(%service, %listener, "listening"),
        }
        Self {
            bound,
            route,
            closes: None,
        }
    }

    /// Goes on as `config` has it, whoever served here before.
    fn keep(&mut self, destination: Destination, config: &ServiceConfig) {
        if !destination.is(&self.route.destination()) {
            self.route.lead(destination);
        }
        let was_closing = self.closes.take().is_some();
        // Anybody who may write its directory can take a socket away from its path.
        let is_path = self.bound.address().inet().is_none();
        if (was_closing || is_path)
            && let Err(error) = self.bound.accept_handshakes()
        {
            takes_nobody(self.bound.address(), &error);
        }
        if let Err(error) = self.bound.tune(&config.socket) {
            tracing::warn!(%error, "socket options not changed");
        }
        if let Err(error) = self.bound.listen(config.backlog) {
            tracing::warn!(%error, "backlog not changed");
        }
    }

    /// Lets no handshake begin any more.
    fn retire(&mut self) {
        if self.closes.is_some() {
            return;
        }
        tracing::info!(service = %self.route.destination().service.name(), listener = %self.bound.address(), "listener closes");
        // Without the filter a handshake that completes in the last instant is lost.
        if let Err(error) = self.bound.refuse_handshakes() {
            tracing::warn!(listener = %self.bound.address(), %error, "listener closes without a filter");
        }
        self.closes = Some(Instant::now() + QUIET);
    }
}

/// Until when whoever waits somewhere that closes does so.
fn patience(limit: Duration) -> std::time::Instant {
    std::time::Instant::now() + limit
}

fn takes_nobody(listener: Address, error: &io::Error) {
    tracing::error!(%listener, %error, "listener takes no new clients");
}
