//! Sessions that failed: heard, confirmed by a probe, and acted on. Every decision is logged with its
//! evidence.

use std::time::{Duration, Instant};

use super::Supervisor;
use crate::config::written;
use crate::control::Event;
use crate::control::probe::{Answer, TargetId};
use crate::health::{Evidence, Failure, Spared, State, Verdict, may_remove};
use crate::model::BackendId;
use crate::pool::Testimony;

impl Supervisor {
    /// A session has failed. Once enough of them have, the backend is probed or taken out.
    pub(super) fn hear(&mut self, testimony: Testimony) {
        let Testimony {
            backend,
            address,
            symptom,
            at,
            since,
        } = testimony;
        let failure = Failure { symptom, since, at };
        let Some(serving) = self.running.services.0.get(backend.service()) else {
            return;
        };
        let policy = serving.members.passive();
        if !policy.enabled {
            return;
        }
        let case = match self.cases.get_mut(&backend) {
            Some(case) => case,
            None => match serving.members.target(&backend) {
                Some(target) => self.cases.open(&backend, target),
                None => return,
            },
        };
        let state = self.running.targets.get(&case.target).map(|it| it.state());
        let is_out = case.ejection.is_out() || state == Some(State::Down);
        if is_out || case.target.address != address {
            // Known already, or about an address that it had before.
            return;
        }
        let well = self.running.successes(&backend, &case.target);
        case.suspicion
            .note(failure, well.into_iter().flatten().max());
        let Some(evidence) = case.suspicion.observe(failure, policy) else {
            return;
        };
        if policy.confirm {
            decided(&backend, &case.target, &evidence, &"probe at once");
            case.evidence = Some(evidence);
            self.prober.confirm(case.target.clone(), backend);
        } else {
            self.eject(&backend, &evidence);
        }
    }

    /// A confirming probe has its answer.
    pub(super) fn answered(&mut self, answer: Answer) {
        let Answer {
            target,
            accused,
            finding,
        } = answer;
        let case = self.cases.get_mut(&accused);
        let case = case.filter(|case| case.target == target);
        let Some(evidence) = case.and_then(|case| case.evidence.take()) else {
            // Of a configuration that is not in force any more.
            return;
        };
        let state = self.running.targets.get(&target).map(|it| it.state());
        match finding.map(|finding| finding.verdict) {
            // Its own probes were faster.
            _ if state == Some(State::Down) => {}
            Err(_) => self.spare(&accused, &evidence, &"none: no probe could be sent"),
            Ok(Verdict::Alive) => {
                self.spare(&accused, &evidence, &"none: a probe has succeeded");
            }
            Ok(Verdict::Dead(why)) => match self.may_go(&accused, &target) {
                Ok(()) => {
                    let users = self.running.users.get(&target).cloned();
                    let users = users.unwrap_or_default();
                    match self.running.targets.condemn(&target, why.clone()) {
                        Some(transition) => {
                            self.announce(&target, &users, &transition, Some(&evidence));
                        }
                        None => self.still_down(&users, &target, &why),
                    }
                }
                // Then its own probes decide, as slowly as ever.
                Err(spared) => self.spare(&accused, &evidence, &format_args!("none: {spared}")),
            },
        }
    }

    /// Lets those in again that have been out long enough.
    pub(super) fn end_ejections(&mut self) {
        for backend in self.cases.end_ejections(Instant::now()) {
            self.let_in(&backend);
            self.reconsider(backend.service());
        }
    }

    /// Evidence keeps nobody out of `service` when nobody else is left who may serve: lets those in again.
    pub(super) fn let_in_the_last(&mut self, service: &str) {
        for backend in self.cases.lift_ejections(service, Instant::now()) {
            self.let_in(&backend);
        }
    }

    fn let_in(&mut self, backend: &BackendId) {
        if let Some(load) = self.running.load(backend) {
            load.set_ejected(false);
            load.forgive();
        }
        let case = self.cases.get_mut(backend);
        let target = case.and_then(|case| self.running.targets.get(&case.target));
        if target.is_some_and(|target| target.state() == State::Up) {
            self.record(backend, true, Instant::now());
        }
        self.failovers.cut_short(backend);
        self.count_again(backend, None);
    }

    /// Takes it out without a probe, as the operator wants it.
    fn eject(&mut self, backend: &BackendId, evidence: &Evidence) {
        let Some(target) = self.cases.get_mut(backend).map(|case| case.target.clone()) else {
            return;
        };
        if let Err(spared) = self.may_go(backend, &target) {
            self.spare(backend, evidence, &format_args!("none: {spared}"));
            return;
        }
        let Some(policy) = self.policy(backend) else {
            return;
        };
        let Some(case) = self.cases.get_mut(backend) else {
            return;
        };
        let now = Instant::now();
        let time = case.ejection.eject(&policy, now);
        if let Some(load) = self.running.load(backend) {
            load.set_ejected(true);
        }
        let started = self.started(backend, &target, Some(evidence), now);
        if let Some(case) = self.cases.get_mut(backend) {
            case.suspicion.heard();
        }
        self.cases.reckon();
        decided(
            backend,
            &target,
            evidence,
            &format_args!("out for {}", written(time)),
        );
        self.record(backend, false, now);
        self.count_again(backend, Some(time));
        self.reconsider(backend.service());
        if let Some(started) = started {
            let why = evidence.last.cause().into();
            self.fail_over(backend, &target, why, Some(evidence), started, now);
        }
    }

    /// Nothing comes of the evidence.
    fn spare(&mut self, backend: &BackendId, evidence: &Evidence, why: &dyn std::fmt::Display) {
        let Some(policy) = self.policy(backend) else {
            return;
        };
        if let Some(case) = self.cases.get_mut(backend) {
            case.suspicion.dropped(&policy, Instant::now());
            decided(backend, &case.target, evidence, why);
        }
    }

    fn policy(&self, backend: &BackendId) -> Option<crate::health::Passive> {
        let serving = self.running.services.0.get(backend.service())?;
        Some(serving.members.passive().clone())
    }

    /// Whether evidence may take `accused` out. Others behind the same target go with it, so it must
    /// be nobody's last.
    fn may_go(&self, accused: &BackendId, target: &TargetId) -> Result<(), Spared> {
        let services = &self.running.services.0;
        let Some(own) = services.get(accused.service()) else {
            return Ok(());
        };
        let policy = own.members.passive();
        let removed = self.cases.removed(accused.service());
        may_remove(policy, own.members.configured(), own.eligible, removed)?;
        if !policy.confirm {
            return Ok(());
        }
        let users = self.running.users.get(target).into_iter().flatten();
        let mut others = users.filter_map(|user| services.get(user.id.service()));
        match others.any(|serving| serving.eligible <= 1) {
            true => Err(Spared::Last),
            false => Ok(()),
        }
    }

    /// A backend was ejected (`out`), or has returned from that: its service is counted anew, and whoever
    /// wants to know is told.
    fn count_again(&mut self, backend: &BackendId, out: Option<Duration>) {
        let Some(serving) = self.running.services.0.get_mut(backend.service()) else {
            return;
        };
        let Some(target) = serving.members.target(backend) else {
            return;
        };
        let address = target.address;
        let known = self.running.targets.get(target);
        let state = known.map_or(State::Unknown, |target| target.state());
        serving.revision += 1;
        serving.eligible = serving.members.count_all(&self.running.targets);
        let (eligible, configured) = (serving.eligible, serving.members.configured());
        let (service, name) = (backend.service(), backend.name());
        let of = format!("{eligible}/{configured}");
        match out {
            Some(time) => {
                let out = written(time);
                tracing::warn!(%service, backend = %name, %address, %out, eligible = %of, "backend ejected");
            }
            None => {
                tracing::info!(%service, backend = %name, %address, eligible = %of, "ejection over");
            }
        }
        self.tell(|| Event::Ejection {
            backend: backend.clone(),
            address,
            out,
            state,
            eligible,
            configured,
        });
    }
}

/// Tells what was decided about a backend, and on what evidence.
fn decided(
    backend: &BackendId,
    target: &TargetId,
    evidence: &Evidence,
    decision: &dyn std::fmt::Display,
) {
    tracing::info!(
        service = %backend.service(),
        backend = %backend.name(),
        address = %target.address,
        %evidence,
        %decision,
        "sessions fail"
    );
}
