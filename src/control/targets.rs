//! What is known about each (address, check). Health belongs here and not to a backend: a backend
//! that gets a new address is judged afresh, and two services with the same check share one probe.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::task::AbortHandle;

use super::probe::{Prober, TargetId};
use crate::health::{Health, HealthView, State, Transition, Verdict};
use crate::model::DownFlag;

/// One of them.
#[derive(Debug)]
pub(super) struct Target {
    health: Health,
    down: Arc<DownFlag>,
    probe: Option<AbortHandle>,
}

impl Target {
    /// What its probes say so far.
    pub(super) fn state(&self) -> State {
        self.health.state()
    }

    /// What the roster is told of it.
    pub(super) fn view(&self) -> HealthView {
        HealthView::of(self.health.state())
    }

    /// The flag that picks look at.
    pub(super) fn down(&self) -> &Arc<DownFlag> {
        &self.down
    }

    /// Failures in a row that have not taken it down.
    pub(super) fn against(&self) -> u32 {
        self.health.against()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(probe) = &self.probe {
            probe.abort();
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Targets(HashMap<TargetId, Target>);

impl Targets {
    /// The target of that name, once it was added.
    pub(super) fn get(&self, id: &TargetId) -> Option<&Target> {
        self.0.get(id)
    }

    /// Adds a target unless it is known.
    pub(super) fn add(&mut self, id: &TargetId) {
        if !self.0.contains_key(id) {
            let target = Target {
                health: Health::new(Instant::now()),
                down: Arc::default(),
                probe: None,
            };
            self.0.insert(id.clone(), target);
        }
    }

    /// Lets a target that is not probed yet know what was found out about the same address: a
    /// changed check does not unlearn it.
    pub(super) fn inherit(&mut self, id: &TargetId, from: &TargetId) {
        let health = match self.0.get(from) {
            Some(from_target) if from.address == id.address => from_target.health.clone(),
            _ => return,
        };
        if let Some(target) = self.0.get_mut(id).filter(|it| it.probe.is_none()) {
            target.down.set(health.state() == State::Down);
            target.health = health;
        }
    }

    /// Forgets, and stops probing, what is not `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&TargetId) -> bool) {
        self.0.retain(|id, _| wanted(id));
    }

    /// Starts the probes of targets that were added.
    pub(super) fn start(&mut self, prober: &Prober) {
        let count = self.0.len();
        for (id, target) in &mut self.0 {
            target
                .probe
                .get_or_insert_with(|| prober.start(id.clone(), count));
        }
    }

    /// Takes a verdict in. At a transition the down flag is set before anything else happens.
    pub(super) fn observe(&mut self, id: &TargetId, verdict: Verdict) -> Option<Transition> {
        let target = self.0.get_mut(id)?;
        let transition = target.health.observe(verdict, &id.policy, Instant::now())?;
        target.down.set(transition.to == State::Down);
        Some(transition)
    }
}
