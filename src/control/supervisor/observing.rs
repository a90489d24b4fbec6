//! What becomes of a probe's verdict: nearly always nothing; else a transition, which everybody is told of
//! and which has services laid out anew.

use std::time::Instant;

use super::Supervisor;
use crate::control::probe::{Probed, TargetId};
use crate::control::services::User;
use crate::control::targets::Observed;
use crate::health::{Evidence, State, Transition, Verdict, Why};

impl Supervisor {
    /// A probe has its verdict.
    pub(super) fn observe(&mut self, probed: &Probed) {
        let id = &probed.target;
        let Some(Observed {
            transition,
            is_still_down,
            other_agent,
            turn,
        }) = self.running.targets.observe(probed, &self.prober)
        else {
            return;
        };
        self.warn(probed);
        let Ok(finding) = &probed.finding else {
            return;
        };
        if finding.verdict == Verdict::Alive
            && transition.is_none()
            && !other_agent
            && turn.is_none()
        {
            // So it is nearly always, thousands of times a second.
            self.relent(id);
            return;
        }
        let users = self.running.users.get(id).cloned().unwrap_or_default();
        if finding.verdict == Verdict::Alive {
            for load in users.iter().filter_map(|user| self.running.load(&user.id)) {
                match transition {
                    Some(_) => load.forgive(),
                    None => load.relent(),
                }
            }
        }
        if other_agent {
            // Before the transition is told, so that it counts with what the agent asks for.
            for user in &users {
                self.count(user);
            }
        }
        if let Some(turn) = turn {
            self.report_turn(&users, id, &turn);
        }
        match (transition, &finding.verdict) {
            (Some(transition), _) => {
                self.announce(id, &users, &transition, None);
            }
            (None, Verdict::Dead(why)) if is_still_down => self.still_down(&users, id, why),
            (None, Verdict::Dead(why)) => self.report_missed(&users, id, why),
            (None, Verdict::Alive) => self.report_answered(&users, id),
        }
        if other_agent {
            for user in &users {
                self.reconsider(user.id.service());
            }
        }
    }

    /// A probe has found a target alive, which changes nothing.
    pub(super) fn relent(&self, id: &TargetId) {
        let Some(users) = self.running.users.get(id) else {
            return;
        };
        for load in users.iter().filter_map(|user| self.running.load(&user.id)) {
            load.relent();
        }
        self.report_answered(users, id);
    }

    /// Keeps the number of those who may serve up to date until the roster decides.
    pub(super) fn count(&mut self, user: &User) {
        if let Some(serving) = self.running.services.0.get_mut(user.id.service()) {
            serving.count(user, &self.running.targets);
        }
    }

    /// Tells everybody of a transition, which `evidence` of sessions has brought about, and has their
    /// services laid out anew.
    pub(super) fn announce(
        &mut self,
        id: &TargetId,
        users: &[User],
        transition: &Transition,
        evidence: Option<&Evidence>,
    ) {
        let now = Instant::now();
        for user in users {
            let backend = &user.id;
            let started = match &transition.cause {
                // Before this daemon it was another one's, unless clients have met it here.
                Some(_) if transition.presumed && evidence.is_none() => None,
                Some(_) if transition.from == State::Up => self.started(backend, id, evidence, now),
                Some(_) => None,
                None => {
                    self.failovers.cut_short(backend);
                    None
                }
            };
            self.cases.closed(backend, evidence.is_some());
            if transition.to != State::Down {
                // Who is back is let go before anybody hears of it.
                self.close_sessions_of(backend.service());
            }
            if transition.presumed && transition.to == State::Down {
                self.doubt(user);
            }
            self.record(backend, transition.to == State::Up, now);
            self.report(user, id, transition, evidence);
            if transition.to == State::Down {
                self.close_sessions_of(backend.service());
            }
            if let (Some(started), Some(why)) = (started, &transition.cause) {
                self.fail_over(backend, id, why.clone(), evidence, started, now);
            }
            self.unsettled.note(backend.service(), now);
        }
    }

    /// The first verdict has found a target down, as it was before this daemon. One that was tried until now is out
    /// again.
    pub(super) fn still_down(&mut self, users: &[User], id: &TargetId, why: &Why) {
        for user in users {
            let service = user.id.service();
            let before = self.running.services.0.get(service).map(|it| it.eligible);
            self.count(user);
            if self.running.services.0.get(service).map(|it| it.eligible) != before {
                self.close_sessions_of(service);
                self.unsettled.note(service, Instant::now());
            }
        }
        self.report_still_down(users, id, why);
    }

    /// Before this daemon the backend behind `user` was up, and it is not. Where that leaves nobody, whoever was
    /// down then is tried until its own first verdict: they may have changed places meanwhile.
    fn doubt(&mut self, user: &User) {
        self.count(user);
        let Some(serving) = self.running.services.0.get(user.id.service()) else {
            return;
        };
        if serving.eligible > 0 {
            return;
        }
        let targets = &mut self.running.targets;
        let doubted = serving.members.users().filter(|(_, it)| targets.doubt(it));
        let doubted: Vec<_> = doubted.map(|(_, it)| it.clone()).collect();
        for id in &doubted {
            for user in self.running.users.get(id).cloned().unwrap_or_default() {
                self.count(&user);
                self.unsettled.note(user.id.service(), Instant::now());
            }
        }
    }
}
