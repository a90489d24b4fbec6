//! A failover from its first trace to its last session: when it begins, when its table is swapped,
//! and what is told once it is over.

use std::sync::Arc;
use std::time::Instant;

use super::Supervisor;
use crate::control::Event;
use crate::control::failovers::{Open, log};
use crate::control::probe::TargetId;
use crate::control::running::Running;
use crate::control::targets::Target;
use crate::health::{Evidence, Failover, Started, Why};
use crate::model::BackendId;
use crate::pool::instant;

impl Supervisor {
    /// How the failover of `backend` started, which counts as failed since `detected`. `None` when it
    /// was not serving, so that there is nothing to fail over.
    pub(super) fn started(
        &mut self,
        backend: &BackendId,
        target: &TargetId,
        evidence: Option<&Evidence>,
        detected: Instant,
    ) -> Option<Started> {
        let serving = self.running.services.0.get(backend.service())?;
        let snapshot = serving.service.snapshot();
        snapshot.backends.iter().find(|it| it.id() == backend)?;
        let successes = self.running.successes(backend, target);
        let known = self.running.targets.get(target);
        let probe = known.and_then(Target::first_miss);
        let case = self.cases.get_mut(backend);
        let told = case.iter().flat_map(|case| case.suspicion.failures());
        let told = told.chain(evidence.iter().flat_map(|it| &it.failures));
        Some(Started::find(told, probe, &successes, detected))
    }

    /// The backend is out of the roster, and the table without it is being built.
    pub(super) fn fail_over(
        &mut self,
        backend: &BackendId,
        target: &TargetId,
        why: Why,
        evidence: Option<&Evidence>,
        started: Started,
        detected: Instant,
    ) {
        let Some(serving) = self.running.services.0.get(backend.service()) else {
            return;
        };
        let Some((before, load)) = serving.members.noted(backend) else {
            return;
        };
        self.failovers.begin(Open {
            failover: Failover {
                backend: backend.clone(),
                address: target.address,
                why,
                evidence: evidence.map(|evidence| evidence.to_string().into()),
                last_success: started.last_success,
                began: started.began,
                first_evidence: started.first_evidence,
                detected,
                moved: detected,
                recovered: detected,
                sessions_hurt: 0,
                sessions_moved: 0,
                eligible: serving.eligible,
                configured: serving.members.configured(),
            },
            revision: serving.revision,
            load: Arc::clone(load),
            before,
            patience: serving.members.patience() + serving.members.closing_time(load.in_flight()),
            moved: None,
            idle: None,
        });
    }

    /// Tells of those failovers that are over.
    pub(super) fn settle_failovers(&mut self) {
        for failover in self.failovers.settle(Instant::now()) {
            log(&failover, "failover");
            let services = &mut self.running.services.0;
            if let Some(serving) = services.get_mut(failover.backend.service()) {
                serving.failovers.total += 1;
                serving.failovers.last = Some(failover.total());
            }
            self.tell(|| Event::Failover(failover));
        }
    }

    /// Notes what backends have done to sessions while nothing speaks against them: what a failover
    /// has cost is told from there.
    pub(super) fn note_harm(&mut self) {
        let services = &self.running.services.0;
        let policy = |backend: &BackendId| {
            let serving = services.get(backend.service())?;
            Some(serving.members.passive().clone())
        };
        let well = |backend: &BackendId, target: &TargetId| {
            self.running
                .successes(backend, target)
                .into_iter()
                .flatten()
                .max()
        };
        self.cases.forget(policy, well, Instant::now());
        let (cases, targets) = (&self.cases, &self.running.targets);
        for serving in self.running.services.0.values_mut() {
            serving.members.note(|backend, target| {
                let target = target.and_then(|target| targets.get(target));
                target.and_then(Target::first_miss).is_some() || cases.suspects(backend)
            });
        }
    }
}

impl Running {
    /// When a session to that backend, and a probe of it, last went well.
    pub(super) fn successes(&self, id: &BackendId, target: &TargetId) -> [Option<Instant>; 2] {
        let sum = self.load(id).map(|load| load.sum());
        let known = self.targets.get(target);
        [
            sum.and_then(|sum| instant(sum.last_success)),
            known.and_then(Target::last_alive),
        ]
    }
}
