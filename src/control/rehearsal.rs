//! What a configuration would come to, found out before anything is touched: who would be up, who is
//! asked for the first time, whom nobody would serve any more.
//!
//! It is laid out on the control thread from what that holds, and owns all of it; probing and deciding
//! happen beside. A guarded reload and `ballast plan` both look at it, so that they agree.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::membership::concrete;
use super::prepare::Prepared;
use super::probe::{Prober, TargetId};
use super::running::Running;
use super::services::{Serving, aim};
use super::targets::Target;
use crate::check::Unsent;
use crate::config::{BackendConfig, ServiceConfig, listeners};
use crate::health::{
    AdminView, Decision, Finding, HealthView, Kind, Member, Roster, State, Verdict,
};
use crate::model::{BackendId, Map, Set};

/// Servers that are asked at a time.
const ASKED_AT_ONCE: usize = 64;
/// How long all that are asked may take together. Who has not answered by then is unknown, and an unknown
/// backend may serve.
const PATIENCE: Duration = Duration::from_secs(5);
/// Said of a check by a program that is in no file yet.
const NOT_RUN: &str = "the program of a file that is not the daemon's is not run";
/// Backends that a message tells the state of.
const MOST_TOLD: usize = 6;

/// A configuration that is tried in thought.
#[derive(Debug)]
pub(super) struct Rehearsal {
    pub(super) scenes: Vec<Scene>,
}

/// One service as it would go on.
#[derive(Debug)]
pub(super) struct Scene {
    /// With every backend that it would have.
    pub(super) config: ServiceConfig,
    roster: Roster,
    pub(super) parts: Vec<Part>,
    /// Whose clients it would take over: running services of its name or at its listeners that have
    /// somebody up, and how many of how many.
    predecessors: Vec<(Arc<str>, usize, usize)>,
}

/// One backend of it.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) id: BackendId,
    weight: u32,
    priority: u32,
    enabled: bool,
    admin: AdminView,
    health: HealthView,
    pub(super) target: Option<TargetId>,
    /// Nobody knows how its check would go.
    is_new: bool,
    /// How it went.
    pub(super) found: Option<Result<Finding, Unsent>>,
}

impl Part {
    fn member(&self) -> Member<'_> {
        Member {
            id: &self.id,
            weight: self.weight,
            priority: self.priority,
            enabled: self.enabled,
            resolved: self.target.is_some(),
            admin: self.admin,
            health: self.health,
        }
    }

    /// Whether it may serve, as far as that is known.
    pub(super) fn is_eligible(&self) -> bool {
        self.member().is_eligible()
    }

    /// The same if it were asked and did not answer.
    fn is_eligible_for_sure(&self) -> bool {
        self.is_eligible() && (!self.is_new || self.found.is_some())
    }

    fn runs_a_program(&self) -> bool {
        let check = self.target.as_ref().map(|it| &it.check.kind);
        matches!(check, Some(Kind::Exec(_)))
    }

    fn hear(&mut self, found: Result<Finding, Unsent>) {
        if let Ok(finding) = &found {
            self.health.state = match finding.verdict {
                Verdict::Alive => State::Up,
                Verdict::Dead(_) => State::Down,
            };
            if let Some(agent) = finding.agent {
                self.health.agent = agent;
            }
        }
        self.found = Some(found);
    }

    /// Why it may not serve, the plainest reason first.
    fn why(&self) -> String {
        let name = self.id.name();
        if !self.enabled {
            return format!("{name} is disabled");
        }
        let Some(target) = &self.target else {
            return format!("{name} has no address");
        };
        if !self.member().is_allowed() {
            return format!("{name} is not to serve, says an operator or its agent");
        }
        let address = match **name == *target.address.to_string() {
            true => String::new(),
            false => format!(" ({})", target.address),
        };
        match &self.found {
            Some(Ok(Finding {
                verdict: Verdict::Dead(why),
                ..
            })) => {
                format!("{name}{address}: {why}")
            }
            Some(_) | None => format!("{name}{address} is down"),
        }
    }
}

impl Scene {
    /// How many may serve, as far as that is known.
    pub(super) fn eligible(&self) -> usize {
        self.parts.iter().filter(|it| it.is_eligible()).count()
    }

    /// Whether only asking can tell if anybody is left for the clients that there are.
    fn is_in_doubt(&self) -> bool {
        !self.predecessors.is_empty() && !self.parts.iter().any(Part::is_eligible_for_sure)
    }

    /// What would be lost, if clients that are served now would not be any more.
    pub(super) fn loss(&self) -> Option<String> {
        let (name, eligible, configured) = self.predecessors.first()?;
        if self.eligible() > 0 {
            return None;
        }
        let mut text = format!("service `{}` would have no backend up", self.config.name);
        if *name == self.config.name {
            let _ = write!(text, ", and has {eligible}/{configured} now");
        } else {
            let _ = write!(
                text,
                ", and would take the listener of `{name}`, which has {eligible}/{configured}"
            );
        }
        let why: Vec<_> = self.parts.iter().take(MOST_TOLD).map(Part::why).collect();
        if !why.is_empty() {
            let _ = write!(text, ": {}", why.join(", "));
        }
        let more = self.parts.len().saturating_sub(MOST_TOLD);
        if more > 0 {
            let _ = write!(text, ", and {more} more");
        }
        Some(text)
    }

    /// Whether a later tier that stands in would stand down, now that it is asked to: there would be enough
    /// before it.
    pub(super) fn fails_back(&mut self, now: Instant) -> bool {
        let before = self.roster.stands_in();
        self.decide(now);
        self.roster.stands_in() < before
    }

    /// Who would serve in the end: when those that are new have their full share.
    pub(super) fn decide(&mut self, now: Instant) -> Decision {
        let members: Vec<_> = self.parts.iter().map(Part::member).collect();
        let rules = &self.config.serving;
        let decision = self.roster.decide(rules, &members, now);
        if rules.slow_start.is_zero() {
            return decision;
        }
        self.roster
            .decide(rules, &members, now + rules.slow_start * 2)
    }
}

impl Rehearsal {
    /// Whether the guard of a reload has to ask somebody.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.scenes.iter().any(Scene::is_in_doubt)
    }

    /// What would be lost.
    pub(super) fn losses(&self) -> Vec<String> {
        self.scenes.iter().filter_map(Scene::loss).collect()
    }

    /// Asks those on whom it depends whether anybody is left, each once, until that is known.
    pub(super) async fn clear_doubts(self, prober: Prober) -> Self {
        self.ask(prober, Scene::is_in_doubt).await
    }

    /// Asks those of the `concerned` services too of whom nobody knows how their check would go, each once;
    /// programs are run for it only if `runs_programs`.
    pub(super) async fn ask_of(
        mut self,
        concerned: Set<Arc<str>>,
        prober: Prober,
        runs_programs: bool,
    ) -> Self {
        if !runs_programs {
            let parts = self.scenes.iter_mut().flat_map(|scene| &mut scene.parts);
            for part in parts.filter(|it| it.is_new && it.runs_a_program()) {
                part.found = Some(Err(Unsent::Program(NOT_RUN.to_owned())));
                part.is_new = false;
            }
        }
        self.ask(prober, |scene| {
            scene.is_in_doubt() || concerned.contains(&scene.config.name)
        })
        .await
    }

    async fn ask(mut self, prober: Prober, concerns: impl Fn(&Scene) -> bool) -> Self {
        let mut places: Map<TargetId, Vec<(usize, usize)>> = Map::default();
        for (at, scene) in self
            .scenes
            .iter()
            .enumerate()
            .filter(|(_, it)| concerns(it))
        {
            for (part, it) in scene.parts.iter().enumerate().filter(|(_, it)| it.is_new) {
                if let Some(target) = it.target.as_ref().filter(|_| it.member().is_allowed()) {
                    places.entry(target.clone()).or_default().push((at, part));
                }
            }
        }
        let slots = Arc::new(Semaphore::new(ASKED_AT_ONCE));
        let mut asked = JoinSet::new();
        for target in places.keys().cloned() {
            let (slots, prober) = (Arc::clone(&slots), prober.clone());
            asked.spawn(async move {
                // Never closed.
                let _slot = slots.acquire().await;
                let found = prober.look(&target).await;
                (target, found)
            });
        }
        let until = tokio::time::Instant::now() + PATIENCE;
        while self.scenes.iter().any(&concerns) {
            let Ok(Some(answer)) = tokio::time::timeout_at(until, asked.join_next()).await else {
                break;
            };
            let Ok((target, found)) = answer else {
                continue;
            };
            for &(scene, part) in places.get(&target).into_iter().flatten() {
                self.scenes[scene].parts[part].hear(found.clone());
            }
        }
        self
    }
}

impl Running {
    /// What `prepared` would come to, as far as it is known without asking anybody.
    pub(super) fn rehearse(&self, prepared: &Prepared) -> Rehearsal {
        self.rehearse_of(prepared, |_| true)
    }

    /// The same of those services only of which it is not plain that somebody is left who serves.
    pub(super) fn rehearse_doubtful(&self, prepared: &Prepared) -> Rehearsal {
        self.rehearse_of(prepared, |service| !self.is_surely_served(service))
    }

    /// Whether a backend that the file gives an address is known to be one that may serve. It looks at no more of
    /// them than it takes to find one.
    fn is_surely_served(&self, service: &ServiceConfig) -> bool {
        let mut backends = service.identified();
        backends.any(|(id, backend)| self.part(service, id, backend, None).is_eligible_for_sure())
    }

    fn rehearse_of(
        &self,
        prepared: &Prepared,
        concerns: impl Fn(&ServiceConfig) -> bool,
    ) -> Rehearsal {
        let config = &prepared.loaded.config;
        let mut endpoints = self.endpoints.clone();
        for (question, (memory, _)) in &prepared.answers {
            endpoints.insert(question.clone(), memory.endpoints().to_vec());
        }
        let before: Map<_, _> = listeners(&self.config)
            .into_iter()
            .map(|(id, _, service)| (id, &service.name))
            .collect();
        let mut former: Map<&Arc<str>, Set<&Arc<str>>> = Map::default();
        for (id, _, service) in listeners(config) {
            let former = former.entry(&service.name).or_default();
            former.insert(&service.name);
            former.extend(before.get(&id));
        }
        let scene = |service: &ServiceConfig| {
            let list = prepared.lists.get(&service.name);
            let config = concrete(service, list, &endpoints);
            let serving = self.services.0.get(&service.name);
            let predecessors = former.get(&service.name).into_iter().flatten();
            let mut predecessors: Vec<_> = predecessors
                .filter_map(|name| {
                    let serving = self.services.0.get(*name)?;
                    let (up, all) = (
                        serving.members.up(&self.targets),
                        serving.members.configured(),
                    );
                    (up > 0).then(|| (Arc::clone(name), up, all))
                })
                .collect();
            // Its own name first.
            predecessors.sort_by_key(|(name, ..)| (*name != service.name, Arc::clone(name)));
            let mut parts = self.parts(&config, serving);
            // Evidence keeps nobody out when nobody else is left.
            if !parts.iter().any(Part::is_eligible) {
                parts.iter_mut().for_each(|it| it.health.ejected = false);
            }
            Scene {
                parts,
                roster: self.roster_for(&service.name, &service.serving),
                config,
                predecessors,
            }
        };
        let services = config.services.iter().filter(|it| concerns(it));
        Rehearsal {
            scenes: services.map(scene).collect(),
        }
    }

    fn parts(&self, config: &ServiceConfig, serving: Option<&Serving>) -> Vec<Part> {
        let former: Map<_, _> = serving
            .map(|serving| serving.members.targets().collect())
            .unwrap_or_default();
        let part = |(id, backend)| {
            let former = former.get(&id).copied();
            self.part(config, id, backend, former)
        };
        config.identified().map(part).collect()
    }

    /// What `backend`, which is `id`, is expected to be; it was checked as `former` so far.
    fn part(
        &self,
        config: &ServiceConfig,
        id: BackendId,
        backend: &BackendConfig,
        former: Option<&TargetId>,
    ) -> Part {
        let target = aim(config, backend).map(|it| self.targets.recognized(it));
        let (mut health, is_new) = match &target {
            None => (HealthView::of(State::Unknown), false),
            Some(target) => self.expect(&id, target, former),
        };
        health.ejected = self.load(&id).is_some_and(|load| load.is_ejected());
        Part {
            weight: backend.weight,
            priority: backend.priority,
            enabled: backend.enabled,
            admin: self.memory.admin(&id),
            id,
            health,
            target,
            is_new,
            found: None,
        }
    }

    /// How `target` is expected to be, and whether nobody knows how its check would go: it is at a place, or
    /// has a check, that is not asked yet.
    fn expect(
        &self,
        id: &BackendId,
        target: &TargetId,
        former: Option<&TargetId>,
    ) -> (HealthView, bool) {
        if let Some(known) = self.targets.get(target) {
            let view = known.view();
            return (view, view.state == State::Unknown);
        }
        let former = former.filter(|it| it.address == target.address);
        match former.and_then(|it| Some((it, self.targets.get(it)?))) {
            Some((former, known)) => {
                let same = former.probed_at == target.probed_at && former.check == target.check;
                let view = Target::view(known);
                (view, !same || view.state == State::Unknown)
            }
            None => {
                let prior = self.memory.prior(id, target.address);
                let state = prior.map_or(State::Unknown, |it| it.state);
                (HealthView::of(state), true)
            }
        }
    }
}
