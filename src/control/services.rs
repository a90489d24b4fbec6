//! What control holds of each service, and the blueprints from which snapshots are built beside it.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::event::Standing;
use super::failovers::Harm;
use super::memory::Memory;
use super::probe::TargetId;
use super::targets::{Target, Targets};
use crate::config::{BackendAddress, ServiceConfig, SessionLog};
use crate::health::{
    self, AdminView, Decision, HealthView, Passive, Roster, Rules, Seat, State, WhenAllDown,
};
use crate::model::{Backend, BackendId, Load, Portion};
use crate::pool::{Queue, Reserve, Service, Snapshot};
use crate::strategy::{Candidate, Strategy};

/// The counters of every backend identity. They outlive the configuration: a backend that leaves the
/// file and comes back finds its sessions counted.
#[derive(Debug)]
pub(super) struct Loads {
    workers: usize,
    of: HashMap<BackendId, Counted>,
    /// The line of each service that one of them belongs to.
    queues: HashMap<Arc<str>, Arc<Queue>>,
    /// Marks that were given out.
    marks: u32,
}

#[derive(Debug)]
struct Counted {
    load: Arc<Load>,
    /// Where the backend is, and the number of its name there.
    address: Option<SocketAddr>,
    mark: u32,
}

impl Loads {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            of: HashMap::new(),
            queues: HashMap::new(),
            marks: 0,
        }
    }

    /// The counters of `id`, and its mark at `address`.
    fn get(&mut self, id: &BackendId, address: Option<SocketAddr>) -> (Arc<Load>, u32) {
        let queue = self.queue(id.service());
        let counted = self.of.entry(id.clone()).or_insert_with(|| Counted {
            load: Arc::new(Load::new(self.workers).telling(queue)),
            address: None,
            mark: 0,
        });
        if address.is_some() && counted.address != address {
            self.marks += 1;
            counted.mark = self.marks;
            counted.address = address;
        }
        (Arc::clone(&counted.load), counted.mark)
    }

    /// Who waits for a backend of `service`.
    pub(super) fn queue(&mut self, service: &Arc<str>) -> Arc<Queue> {
        Arc::clone(self.queues.entry(Arc::clone(service)).or_default())
    }

    /// The counters of that identity, if it was ever in the file.
    pub(super) fn find(&self, id: &BackendId) -> Option<&Arc<Load>> {
        self.of.get(id).map(|counted| &counted.load)
    }

    /// Forgets identities that nobody holds: not in the file, and without a session.
    pub(super) fn prune(&mut self) {
        self.of
            .retain(|_, counted| Arc::strong_count(&counted.load) > 1);
        self.queues.retain(|_, queue| Arc::strong_count(queue) > 1);
    }

    /// Like [`Loads::prune`], once there are more than `most` beyond those that are held: a name server that
    /// answers with some of its records in turn has the same backends leave and return all the time.
    pub(super) fn prune_beyond(&mut self, most: usize) {
        if self.of.len() <= most {
            return;
        }
        let held = |it: &Counted| Arc::strong_count(&it.load) > 1;
        if self.of.values().filter(|it| !held(it)).count() > most {
            self.prune();
        }
    }

    /// Identities without a member that are remembered between reloads.
    pub(super) const MOST_FORMER: usize = 4096;
}

/// A backend of the service.
#[derive(Debug)]
struct Member {
    id: BackendId,
    weight: u32,
    priority: u32,
    enabled: bool,
    target: Option<TargetId>,
    max_connections: Option<NonZeroU32>,
    load: Arc<Load>,
    mark: u32,
    /// What an operator has said of it, as memory has it.
    admin: AdminView,
    /// Whether it counted as eligible last.
    counted: bool,
    /// Whom it had failed when that was last looked at with nothing against it, and the time before.
    noted: [Harm; 2],
}

impl Member {
    /// As the roster sees it.
    fn view(&self, targets: &Targets) -> health::Member<'_> {
        let target = self.target.as_ref().and_then(|id| targets.get(id));
        let known = target.map_or(HealthView::of(State::Unknown), Target::view);
        health::Member {
            id: &self.id,
            weight: self.weight,
            priority: self.priority,
            enabled: self.enabled,
            resolved: self.target.is_some(),
            admin: self.admin,
            health: HealthView {
                ejected: self.load.is_ejected(),
                ..known
            },
        }
    }
}

/// A backend behind a target.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub(super) id: BackendId,
    /// Its place among the members of its service.
    at: usize,
    pub(super) enabled: bool,
}

/// The backends of one service.
#[derive(Debug)]
pub(super) struct Members {
    config: ServiceConfig,
    session_log: SessionLog,
    all: Vec<Member>,
}

impl Members {
    /// The backends of `config`, each with its counters. One whose address is still a name has none:
    /// the name leads nowhere.
    pub(super) fn new(
        config: ServiceConfig,
        session_log: SessionLog,
        loads: &mut Loads,
        memory: &Memory,
    ) -> Self {
        let member = |backend: &crate::config::BackendConfig| {
            let id = BackendId::new(Arc::clone(&config.name), Arc::clone(&backend.name));
            let address = match &backend.address {
                BackendAddress::Ip(address) => Some(*address),
                BackendAddress::Name { .. } | BackendAddress::Srv { .. } => None,
            };
            let target = address.map(|address| TargetId {
                address,
                probed_at: backend
                    .check_address
                    .unwrap_or_else(|| config.check.destination(address)),
                check: Arc::clone(&config.check),
                policy: config.health.clone(),
            });
            let (load, mark) = loads.get(&id, address);
            let admin = memory.admin(&id);
            Member {
                noted: [Harm::of(&load.sum()); 2],
                load,
                mark,
                max_connections: backend.max_connections,
                id,
                weight: backend.weight,
                priority: backend.priority,
                enabled: backend.enabled,
                target,
                admin,
                counted: false,
            }
        };
        Self {
            all: config.backends.iter().map(member).collect(),
            config,
            session_log,
        }
    }

    /// Has those that were among the `former` go on with what was noted of them there: one of them may
    /// be failing right now. At another address it is another server.
    pub(super) fn inherit(&mut self, former: &Self) {
        let former: HashMap<_, _> = former.all.iter().map(|it| (&it.id, it)).collect();
        for member in &mut self.all {
            let known = former.get(&member.id);
            if let Some(known) = known.filter(|known| known.mark == member.mark) {
                member.noted = known.noted;
            }
        }
    }

    /// The service, with the backends that it has now.
    pub(super) fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// Every check that these backends need, by backend.
    pub(super) fn targets(&self) -> impl Iterator<Item = (&BackendId, &TargetId)> {
        self.all
            .iter()
            .filter_map(|member| Some((&member.id, member.target.as_ref()?)))
    }

    /// Backends whose name has no address.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = &BackendId> {
        let unresolved = self.all.iter().filter(|member| member.target.is_none());
        unresolved.map(|member| &member.id)
    }

    /// Each backend with whether the operator lets it serve, and what it is checked by.
    pub(super) fn users(&self) -> impl Iterator<Item = (User, &TargetId)> {
        self.all.iter().enumerate().filter_map(|(at, member)| {
            let user = User {
                id: member.id.clone(),
                at,
                enabled: member.enabled,
            };
            Some((user, member.target.as_ref()?))
        })
    }

    /// Notes whom the backends have failed so far, but for those that something speaks against.
    pub(super) fn note(&mut self, accused: impl Fn(&BackendId, Option<&TargetId>) -> bool) {
        for member in &mut self.all {
            if !accused(&member.id, member.target.as_ref()) {
                member.noted = [member.noted[1], Harm::of(&member.load.sum())];
            }
        }
    }

    /// Whom `backend` had failed a second or two before anything spoke against it.
    pub(super) fn noted(&self, backend: &BackendId) -> Option<(Harm, &Arc<Load>)> {
        let member = self.all.iter().find(|member| member.id == *backend)?;
        Some((member.noted[0], &member.load))
    }

    /// The longest that a session takes to connect.
    pub(super) fn patience(&self) -> Duration {
        self.config.timeouts.connect_total
    }

    /// What failures of sessions lead to.
    pub(super) fn passive(&self) -> &Passive {
        &self.config.passive
    }

    /// What `backend` is checked by, if it has an address.
    pub(super) fn target(&self, backend: &BackendId) -> Option<&TargetId> {
        let member = self.all.iter().find(|member| member.id == *backend)?;
        member.target.as_ref()
    }

    /// Puts the caps of these backends in force, before the snapshot that knows of them.
    pub(super) fn cap(&self) {
        for member in &self.all {
            member
                .load
                .set_cap(member.max_connections.map(NonZeroU32::get));
        }
    }

    /// Those that went down with sessions and may not serve, by mark. One that is disabled or draining
    /// is not among them: its sessions were to end in their own time.
    pub(super) fn lost(&self, targets: &Targets) -> BTreeMap<u32, Lost> {
        let is_lost = |member: &&Member| {
            let view = member.view(targets);
            view.is_allowed() && view.health.state == State::Down
        };
        let lost = |member: &Member| {
            let lost = Lost {
                backend: member.id.clone(),
                load: Arc::clone(&member.load),
            };
            (member.mark, lost)
        };
        let with_sessions = self.all.iter().filter(|it| it.load.in_flight() > 0);
        let mut all: BTreeMap<_, _> = with_sessions.filter(is_lost).map(lost).collect();
        // Where all are down and all may be used, a session has nowhere better to go.
        let use_all = self.rules().when_all_down == WhenAllDown::UseAll;
        if use_all && !self.all.iter().any(|it| it.view(targets).is_eligible()) {
            all.clear();
        }
        all
    }

    /// All of them.
    pub(super) fn configured(&self) -> usize {
        self.all.len()
    }

    /// Which of them serve when.
    pub(super) fn rules(&self) -> &Rules {
        &self.config.serving
    }

    /// What is remembered of each backend, over restarts too: where and how it is.
    pub(super) fn standings<'a>(
        &'a self,
        targets: &'a Targets,
    ) -> impl Iterator<Item = (&'a BackendId, Option<SocketAddr>, State)> {
        self.all.iter().map(|member| {
            let target = member.target.as_ref();
            let known = target.and_then(|id| targets.get(id));
            let state = known.map_or(State::Unknown, Target::state);
            (&member.id, target.map(|id| id.address), state)
        })
    }

    /// Has the record of each backend go on with what is known of it.
    pub(super) fn record(&self, targets: &Targets, memory: &mut Memory) {
        let now = Instant::now();
        for member in &self.all {
            let target = member.target.as_ref().and_then(|id| targets.get(id));
            match target.map_or(State::Unknown, Target::state) {
                State::Unknown => {}
                state @ (State::Up | State::Down) => {
                    let up = state == State::Up && !member.load.is_ejected();
                    memory.enter(&member.id, up, now);
                }
            }
        }
    }

    /// Whether the backend behind `user` was eligible when it was last counted, and is now.
    fn count(&mut self, user: &User, targets: &Targets) -> (bool, bool) {
        let member = self.all.get_mut(user.at).filter(|it| it.id == user.id);
        let Some(member) = member else {
            return (false, false);
        };
        let is = member.view(targets).is_eligible();
        (std::mem::replace(&mut member.counted, is), is)
    }

    /// Counts who is eligible now.
    pub(super) fn count_all(&mut self, targets: &Targets) -> usize {
        for member in &mut self.all {
            member.counted = member.view(targets).is_eligible();
        }
        self.all.iter().filter(|it| it.counted).count()
    }

    /// Has `roster` decide who serves.
    pub(super) fn decide(
        &mut self,
        roster: &mut Roster,
        targets: &Targets,
        now: Instant,
    ) -> Decision {
        self.count_all(targets);
        let members: Vec<_> = self.all.iter().map(|it| it.view(targets)).collect();
        roster.decide(self.rules(), &members, now)
    }

    /// Everything that a snapshot is built from, as was decided.
    pub(super) fn blueprint(
        &self,
        decision: &Decision,
        targets: &Targets,
        epoch: u64,
        revision: u64,
    ) -> Blueprint {
        Blueprint {
            epoch,
            revision,
            config: self.config.clone(),
            session_log: self.session_log,
            serving: self.line_up(&decision.serving, decision.regardless, targets),
            reserve: self.line_up(&decision.reserve, decision.reserve_regardless, targets),
        }
    }

    /// `candidates` as picks see them; `regardless` of their health, picks skip none.
    fn line_up(&self, candidates: &[Candidate], regardless: bool, targets: &Targets) -> LineUp {
        // A decision keeps the order of the members, so one pass pairs the two.
        let mut members = self.all.iter();
        let (candidates, backends) = candidates
            .iter()
            .filter_map(|candidate| {
                let member = members.find(|member| member.id == candidate.id)?;
                let id = member.target.as_ref()?;
                let mut backend = Backend::new(
                    member.id.clone(),
                    id.address,
                    candidate.weight,
                    Arc::clone(&member.load),
                    Arc::clone(targets.get(id)?.down()),
                )
                .with_portion(candidate.portion)
                .capped(member.max_connections.is_some())
                .marked(member.mark);
                if regardless {
                    backend = backend.regardless();
                }
                let backend = Arc::new(backend);
                Some((candidate.clone(), backend))
            })
            .unzip();
        LineUp {
            candidates,
            backends,
        }
    }
}

/// A backend that went down with sessions.
#[derive(Debug)]
pub(super) struct Lost {
    backend: BackendId,
    load: Arc<Load>,
}

impl Lost {
    /// Says that its sessions are being closed.
    pub(super) fn tell_begin(&self, rate: u32) {
        tracing::info!(
            service = %self.backend.service(),
            backend = %self.backend.name(),
            sessions = self.load.in_flight(),
            close_rate = rate,
            "closing sessions"
        );
    }

    /// Says that they are not any more.
    pub(super) fn tell_end(&self) {
        tracing::info!(
            service = %self.backend.service(),
            backend = %self.backend.name(),
            left = self.load.in_flight(),
            "closing ends"
        );
    }
}

/// Backends that serve together, and what a strategy over them is built from.
#[derive(Debug)]
struct LineUp {
    candidates: Vec<Candidate>,
    backends: Vec<Arc<Backend>>,
}

impl LineUp {
    fn build(self, config: &ServiceConfig) -> (Vec<Arc<Backend>>, Box<dyn Strategy>) {
        let strategy = config.strategy.build(&self.candidates, &config.parameters);
        (self.backends, strategy)
    }
}

/// A snapshot to be built: laying out a large table takes long, so it is done beside control.
#[derive(Debug)]
pub(super) struct Blueprint {
    epoch: u64,
    revision: u64,
    config: ServiceConfig,
    session_log: SessionLog,
    serving: LineUp,
    reserve: LineUp,
}

/// A blueprint carried out.
#[derive(Debug)]
pub(super) struct Built {
    /// Which service it is for.
    pub(super) service: Arc<str>,
    /// Which configuration it was made from.
    pub(super) epoch: u64,
    /// Which state of health it was made from.
    pub(super) revision: u64,
    /// The table.
    pub(super) snapshot: Snapshot,
}

impl Blueprint {
    /// Builds the snapshot.
    pub(super) fn build(self) -> Built {
        let Self {
            epoch,
            revision,
            config,
            session_log,
            serving,
            reserve,
        } = self;
        let all = serving.backends.iter().chain(&reserve.backends);
        let capped = all.clone().any(|backend| backend.is_capped());
        let (backends, strategy) = serving.build(&config);
        let reserve = (!reserve.backends.is_empty()).then(|| {
            let (backends, strategy) = reserve.build(&config);
            Box::new(Reserve { backends, strategy })
        });
        Built {
            service: config.name,
            epoch,
            revision,
            snapshot: Snapshot {
                capped,
                backends,
                strategy,
                reserve,
                queue: config.queue,
                timeouts: config.timeouts,
                max_lifetime: config.max_lifetime,
                retries: config.retries,
                relay: config.relay,
                session_log,
            },
        }
    }
}

/// A service that runs.
#[derive(Debug)]
pub(super) struct Serving {
    /// What workers see of it.
    pub(super) service: Arc<Service>,
    /// Its backends.
    pub(super) members: Members,
    /// Who of them serves, decided from time to time.
    pub(super) roster: Roster,
    /// What the table that is in use, or being built, was made from; `None` if that is not known.
    pub(super) laid_out: Option<Decision>,
    /// When the roster wants to be asked again.
    pub(super) wake: Option<Instant>,
    /// How many may serve now, kept up to date between decisions.
    pub(super) eligible: usize,
    /// That there are none was said.
    pub(super) lost: bool,
    /// Counts the changes of health; what is built for an older one is built again.
    pub(super) revision: u64,
    /// A build is under way. There is one at a time: a flap storm costs one more, not one each.
    pub(super) building: bool,
}

impl Serving {
    /// Where the last decision has put the backend behind `user`.
    pub(super) fn seat(&self, user: &User) -> Option<Seat> {
        self.laid_out.as_ref()?.seats.get(user.at).copied()
    }

    /// How much of its weight counts, of each that serves.
    pub(super) fn portions(&self) -> HashMap<&BackendId, Portion> {
        let serving = self.laid_out.iter().flat_map(|it| &it.serving);
        serving.map(|it| (&it.id, it.portion)).collect()
    }

    /// Counts the backend behind `user` anew: O(1), because many may change at once.
    pub(super) fn count(&mut self, user: &User, targets: &Targets) {
        match self.members.count(user, targets) {
            (false, true) => self.eligible += 1,
            (true, false) => self.eligible = self.eligible.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
    }

    /// Decides who serves.
    pub(super) fn decide(&mut self, targets: &Targets, now: Instant) -> Decision {
        self.members.decide(&mut self.roster, targets, now)
    }
}

/// All services by name.
#[derive(Debug, Default)]
pub(super) struct Services(pub(super) HashMap<Arc<str>, Serving>);

impl Services {
    /// Services, backends that may serve, and all backends.
    pub(super) fn count(&self) -> (usize, usize, usize) {
        let (mut eligible, mut configured) = (0, 0);
        for serving in self.0.values() {
            eligible += serving.eligible;
            configured += serving.members.configured();
        }
        (self.0.len(), eligible, configured)
    }

    /// How each of them stands.
    pub(super) fn standing(&self) -> Vec<Standing> {
        let of = |(name, serving): (&Arc<str>, &Serving)| Standing {
            service: Arc::clone(name),
            eligible: serving.eligible,
            configured: serving.members.configured(),
        };
        self.0.iter().map(of).collect()
    }
}
