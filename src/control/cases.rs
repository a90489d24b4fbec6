//! What is held against each backend: the failures of its sessions, and what they have led to.
//! What has to be done about it is decided in [`health`](crate::health) and carried out by the
//! supervisor.

use std::collections::HashMap;
use std::time::Instant;

use super::probe::TargetId;
use super::reload::Staged;
use super::services::{Loads, Members};
use crate::health::{Ejection, Evidence, Passive, Suspicion};
use crate::model::BackendId;

/// One backend with a session that failed.
#[derive(Debug)]
pub(super) struct Case {
    /// What it is checked by.
    pub(super) target: TargetId,
    pub(super) suspicion: Suspicion,
    pub(super) ejection: Ejection,
    /// What a confirming probe is under way for.
    pub(super) evidence: Option<Evidence>,
    /// A probe has confirmed the evidence, and it has not come back since.
    removed: bool,
}

/// All of them. No more than there are backends in the file.
#[derive(Debug, Default)]
pub(super) struct Cases {
    of: HashMap<BackendId, Case>,
    next_return: Option<Instant>,
}

impl Cases {
    /// The case of a backend, if there is one.
    pub(super) fn get_mut(&mut self, backend: &BackendId) -> Option<&mut Case> {
        self.of.get_mut(backend)
    }

    /// Opens one.
    pub(super) fn open(&mut self, backend: &BackendId, target: &TargetId) -> &mut Case {
        self.of.entry(backend.clone()).or_insert_with(|| Case {
            target: target.clone(),
            suspicion: Suspicion::default(),
            ejection: Ejection::default(),
            evidence: None,
            removed: false,
        })
    }

    /// Whether sessions of that backend have failed lately.
    pub(super) fn suspects(&self, backend: &BackendId) -> bool {
        let case = self.of.get(backend);
        case.is_some_and(|case| case.suspicion.is_open())
    }

    /// Forgets failures that do not count any more; `well` is when a backend last did well.
    pub(super) fn forget(
        &mut self,
        policy: impl Fn(&BackendId) -> Option<Passive>,
        well: impl Fn(&BackendId, &TargetId) -> Option<Instant>,
        now: Instant,
    ) {
        for (id, case) in &mut self.of {
            case.suspicion.relent(well(id, &case.target));
            if let Some(policy) = policy(id) {
                case.suspicion.is_clear(&policy, now);
            }
        }
    }

    /// How many backends of `service` evidence keeps out.
    pub(super) fn removed(&self, service: &str) -> usize {
        let of = |(id, case): &(&BackendId, &Case)| {
            **id.service() == *service && (case.removed || case.ejection.is_out())
        };
        self.of.iter().filter(of).count()
    }

    /// The backend has changed its state, for what sessions told if `by_evidence`: from here on it
    /// is judged afresh.
    pub(super) fn closed(&mut self, backend: &BackendId, by_evidence: bool) {
        if let Some(case) = self.of.get_mut(backend) {
            case.suspicion.heard();
            case.removed = by_evidence;
        }
    }

    /// Until when that backend is kept out, if it is.
    pub(super) fn ejected_until(&self, backend: &BackendId) -> Option<Instant> {
        self.of.get(backend)?.ejection.until()
    }

    /// When the next ejection is over.
    pub(super) fn next_return(&self) -> Option<Instant> {
        self.next_return
    }

    /// Looks again which ejection is over next. To be called when one began or ended.
    pub(super) fn reckon(&mut self) {
        let all = self.of.values().filter_map(|case| case.ejection.until());
        self.next_return = all.min();
    }

    /// Ends the ejections whose time has come, and tells whose.
    pub(super) fn end_ejections(&mut self, now: Instant) -> Vec<BackendId> {
        let over = |(id, case): (&BackendId, &mut Case)| case.ejection.end(now).then(|| id.clone());
        let returned = self.of.iter_mut().filter_map(over).collect();
        self.reckon();
        returned
    }

    /// Ends those of `service`, whatever their time, and tells whose.
    pub(super) fn lift_ejections(&mut self, service: &str, now: Instant) -> Vec<BackendId> {
        let its = self
            .of
            .iter_mut()
            .filter(|(id, _)| **id.service() == *service);
        let lifted = its.filter_map(|(id, case)| case.ejection.lift(now).then(|| id.clone()));
        let lifted = lifted.collect();
        self.reckon();
        lifted
    }

    /// Drops what a new configuration has made void: a backend that is gone, that has another
    /// address or check, or whose sessions may not take it out any more.
    pub(super) fn review(&mut self, staged: &Staged, loads: &Loads) {
        self.drop_void(|service| staged.members(service), |_| true, loads);
    }

    /// The same, of one service with other members.
    pub(super) fn review_service(&mut self, service: &str, members: &Members, loads: &Loads) {
        self.drop_void(|_| Some(members), |it| it == service, loads);
    }

    fn drop_void<'m>(
        &mut self,
        members: impl Fn(&str) -> Option<&'m Members>,
        concerned: impl Fn(&str) -> bool,
        loads: &Loads,
    ) {
        self.of.retain(|id, case| {
            let holds = members(id.service()).is_some_and(|members| {
                members.passive().enabled && members.target(id) == Some(&case.target)
            }) || !concerned(id.service());
            if !holds && let Some(load) = loads.find(id) {
                load.set_ejected(false);
            }
            holds
        });
        self.reckon();
    }
}
