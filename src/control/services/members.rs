//! The backends of one service: who they are, how each is checked, and what is known of them.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loads::Loads;
use crate::config::{BackendConfig, OnDown, ServiceConfig, SessionLog};
use crate::control::failovers::Harm;
use crate::control::memory::{Memory, Prior};
use crate::control::probe::{Aim, TargetId};
use crate::control::targets::{Target, Targets};
use crate::health::{
    self, AdminView, Course, Decision, Duty, HealthView, Passive, Roster, Rules, State,
};
use crate::model::{Address, BackendId, InOrder, Load};
use crate::pool::{Gate, Throttle};

/// A backend of the service.
#[derive(Debug)]
pub(in crate::control) struct Member {
    pub(in crate::control) id: BackendId,
    weight: u32,
    priority: u32,
    pub(in crate::control) enabled: bool,
    pub(in crate::control) target: Option<TargetId>,
    pub(in crate::control) max_connections: Option<NonZeroU32>,
    pub(in crate::control) load: Arc<Load>,
    pub(in crate::control) mark: u32,
    /// What an operator has said of it, as memory has it.
    admin: AdminView,
    /// Whether it counted as eligible last.
    counted: bool,
    /// Whom it had failed when that was last looked at with nothing against it, and the time before.
    noted: [Harm; 2],
}

impl Member {
    /// As the roster sees it.
    pub(in crate::control) fn view(&self, targets: &Targets) -> health::Member<'_> {
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

/// What `backend` of the service `config` is checked by, if it has an address.
pub(in crate::control) fn aim(config: &ServiceConfig, backend: &BackendConfig) -> Option<Aim> {
    let address = backend.address.fixed()?;
    Some(Aim {
        address,
        probed_at: backend
            .check_address
            .unwrap_or_else(|| config.check.destination(address)),
        check: Arc::clone(&config.check),
        policy: config.health.clone(),
    })
}

/// A backend behind a target.
#[derive(Clone, Debug)]
pub(in crate::control) struct User {
    pub(in crate::control) id: BackendId,
    /// Its place among the members of its service.
    pub(super) at: usize,
    pub(in crate::control) enabled: bool,
}

/// The backends of one service.
#[derive(Debug)]
pub(in crate::control) struct Members {
    pub(super) config: ServiceConfig,
    pub(super) session_log: SessionLog,
    pub(super) gate: Arc<Gate>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) all: Vec<Member>,
}

impl Members {
    /// The backends of `config`, each with its counters, and checked as one of `targets` if that is what it
    /// is. One whose address is still a name has no check: the name leads nowhere.
    pub(in crate::control) fn new(
        config: ServiceConfig,
        session_log: SessionLog,
        loads: &mut Loads,
        memory: &Memory,
        targets: &Targets,
    ) -> Self {
        let member = |(id, backend): (BackendId, &BackendConfig)| {
            let target = aim(&config, backend).map(|it| targets.recognized(it));
            let (load, mark) = loads.get(&id, target.as_ref().map(|it| it.address));
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
            all: config.identified().map(member).collect(),
            gate: loads.gate(&config.name),
            throttle: loads.throttle(&config.name),
            config,
            session_log,
        }
    }

    /// Why those do not serve that do not.
    pub(super) fn absences(&self, targets: &Targets) -> String {
        let all: Vec<_> = self.all.iter().map(|it| it.view(targets)).collect();
        health::absences(&all)
    }

    /// Has those that were among the `former` go on with what was noted of them there: one of them may
    /// be failing right now. At another address it is another server.
    pub(in crate::control) fn inherit(&mut self, former: &Self) {
        let mut former = former.in_order();
        for member in &mut self.all {
            let known = former.find(&member.id);
            if let Some(known) = known.filter(|known| known.mark == member.mark) {
                member.noted = known.noted;
            }
        }
    }

    /// The service, with the backends that it has now.
    pub(in crate::control) fn config(&self) -> &ServiceConfig {
        &self.config
    }

    /// Has what operators have said of the backends count.
    pub(in crate::control) fn heed(&mut self, memory: &Memory) {
        for member in &mut self.all {
            member.admin = memory.admin(&member.id);
        }
    }

    /// Every backend, for somebody who asks for them in about their order.
    pub(in crate::control) fn in_order(&self) -> InOrder<'_, Member, BackendId> {
        InOrder::new(&self.all, |it| &it.id)
    }

    /// Every backend, in the order of the file.
    pub(in crate::control) fn each(&self) -> impl Iterator<Item = &Member> {
        self.all.iter()
    }

    /// Every check that these backends need, by backend.
    pub(in crate::control) fn targets(&self) -> impl Iterator<Item = (&BackendId, &TargetId)> {
        self.all
            .iter()
            .filter_map(|member| Some((&member.id, member.target.as_ref()?)))
    }

    /// Each backend with where it is, and the sessions that it has.
    pub(in crate::control) fn places(
        &self,
    ) -> impl Iterator<Item = (&BackendId, Option<Address>, u32)> {
        self.all.iter().map(|member| {
            let address = member.target.as_ref().map(|it| it.address);
            (&member.id, address, member.load.in_flight())
        })
    }

    /// Backends whose name has no address.
    pub(in crate::control) fn unresolved(&self) -> impl Iterator<Item = &BackendId> {
        let unresolved = self.all.iter().filter(|member| member.target.is_none());
        unresolved.map(|member| &member.id)
    }

    /// Each backend with whether the operator lets it serve, and what it is checked by.
    pub(in crate::control) fn users(&self) -> impl Iterator<Item = (User, &TargetId)> {
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
    pub(in crate::control) fn note(
        &mut self,
        accused: impl Fn(&BackendId, Option<&TargetId>) -> bool,
    ) {
        for member in &mut self.all {
            if !accused(&member.id, member.target.as_ref()) {
                member.noted = [member.noted[1], Harm::of(&member.load.sum())];
            }
        }
    }

    /// Whom `backend` had failed a second or two before anything spoke against it.
    pub(in crate::control) fn noted(&self, backend: &BackendId) -> Option<(Harm, &Arc<Load>)> {
        let member = self.all.iter().find(|member| member.id == *backend)?;
        Some((member.noted[0], &member.load))
    }

    /// The longest that a session takes to connect.
    pub(in crate::control) fn patience(&self) -> Duration {
        self.config.timeouts.connect_total
    }

    /// How long closing so many sessions of a backend that went down takes, if they are closed.
    pub(in crate::control) fn closing_time(&self, sessions: u32) -> Duration {
        match self.config.on_down {
            OnDown::Keep => Duration::ZERO,
            OnDown::Close { rate } => {
                Duration::from_secs_f64(f64::from(sessions) / f64::from(rate))
            }
        }
    }

    /// What failures of sessions lead to.
    pub(in crate::control) fn passive(&self) -> &Passive {
        &self.config.passive
    }

    /// What `backend` is checked by, if it has an address.
    pub(in crate::control) fn target(&self, backend: &BackendId) -> Option<&TargetId> {
        let member = self.all.iter().find(|member| member.id == *backend)?;
        member.target.as_ref()
    }

    /// Who counts the clients that are not all let in.
    pub(in crate::control) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// How fast bytes may flow.
    pub(in crate::control) fn throttle(&self) -> &Throttle {
        &self.throttle
    }

    /// Puts the limits of the service and the caps of its backends in force, before the snapshot that knows of them.
    pub(in crate::control) fn cap(&self) {
        let limits = &self.config.admission.limits;
        self.gate.hold(limits.max_connections);
        self.throttle.set(&limits.caps);
        for member in &self.all {
            member
                .load
                .set_cap(member.max_connections.map(NonZeroU32::get));
        }
    }

    /// All of them.
    pub(in crate::control) fn configured(&self) -> usize {
        self.all.len()
    }

    /// Which of them serve when.
    pub(in crate::control) fn rules(&self) -> &Rules {
        &self.config.serving
    }

    /// What is remembered of each backend, over restarts too: where and how it is, and since when.
    pub(in crate::control) fn standings<'a>(
        &'a self,
        targets: &'a Targets,
    ) -> impl Iterator<Item = (&'a BackendId, Option<Prior>)> {
        self.all.iter().map(|member| {
            let target = member.target.as_ref();
            let standing = target.and_then(|id| {
                let known = targets.get(id)?;
                Some(Prior {
                    address: id.address,
                    state: known.state(),
                    since: known.since(),
                })
            });
            (&member.id, standing)
        })
    }

    /// How many of them must be eligible for the service to be whole: `min_up`, of those that serve first.
    pub(in crate::control) fn needed(&self) -> usize {
        let first = self.all.iter().map(|it| it.priority).min();
        let in_first = self.all.iter().filter(|it| Some(it.priority) == first);
        self.rules().min_up.of(in_first.count())
    }

    /// How it stands when so many of its backends are eligible: down with fewer than it needs, unless that is
    /// an operator's doing. `None` while nobody knows, for backends that serve before their first verdict.
    pub(in crate::control) fn course(&self, eligible: usize, targets: &Targets) -> Option<Course> {
        let needed = self.needed();
        if eligible < needed {
            return Some(match self.are_set_aside(targets) {
                true => Course::SetAside,
                false => Course::Down,
            });
        }
        let is_known = |it: &&Member| {
            let view = it.view(targets);
            view.is_eligible() && view.health.state != State::Unknown
        };
        let known = self.all.iter().filter(is_known).take(needed).count();
        (known >= needed).then_some(Course::Up)
    }

    /// Whether nobody is missing but those that an operator has taken out, in the file or otherwise.
    fn are_set_aside(&self, targets: &Targets) -> bool {
        let is_meant =
            |it: &Member| it.enabled && it.admin.duty == Duty::Serve && it.admin.weight.get() > 0;
        let may_serve = |it: &Member| it.view(targets).is_eligible();
        !self.all.iter().all(is_meant) && self.all.iter().all(|it| !is_meant(it) || may_serve(it))
    }

    /// Has the record of each backend go on with what is known of it.
    pub(in crate::control) fn record(&self, targets: &Targets, memory: &mut Memory) {
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
    pub(super) fn count(&mut self, user: &User, targets: &Targets) -> (bool, bool) {
        let member = self.all.get_mut(user.at).filter(|it| it.id == user.id);
        let Some(member) = member else {
            return (false, false);
        };
        let is = member.view(targets).is_eligible();
        (std::mem::replace(&mut member.counted, is), is)
    }

    /// How many may serve and have passed their check.
    pub(in crate::control) fn up(&self, targets: &Targets) -> usize {
        let views = self.all.iter().map(|member| member.view(targets));
        let is_up =
            |view: &health::Member<'_>| view.is_eligible() && view.health.state == State::Up;
        views.filter(is_up).count()
    }

    /// Whether anybody may serve.
    pub(in crate::control) fn has_eligible(&self, targets: &Targets) -> bool {
        self.all.iter().any(|it| it.view(targets).is_eligible())
    }

    /// Counts who is eligible now.
    pub(in crate::control) fn count_all(&mut self, targets: &Targets) -> usize {
        for member in &mut self.all {
            member.counted = member.view(targets).is_eligible();
        }
        self.all.iter().filter(|it| it.counted).count()
    }

    /// Has `roster` decide who serves.
    pub(in crate::control) fn decide(
        &mut self,
        roster: &mut Roster,
        targets: &Targets,
        now: Instant,
    ) -> Decision {
        let mut members: Vec<_> = self.all.iter().map(|it| it.view(targets)).collect();
        // Evidence keeps nobody out when nobody else is left.
        if !members.iter().any(health::Member::is_eligible) {
            members.iter_mut().for_each(|it| it.health.ejected = false);
        }
        let eligible: Vec<_> = members.iter().map(health::Member::is_eligible).collect();
        let decision = roster.decide(self.rules(), &members, now);
        for (member, is_eligible) in self.all.iter_mut().zip(eligible) {
            member.counted = is_eligible;
        }
        decision
    }
}
