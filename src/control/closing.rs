//! `on_down = "close"`: the sessions of a backend that went down are reset, so many a second that their
//! clients do not all come back at once.
//!
//! Who is to be closed is looked up anew at each step: sessions of members that are down and would
//! serve otherwise. So a backend that has recovered, is disabled or drains, has left the file or is kept
//! by a new one is let go by that very look. Workers find the sessions and share what the step allows; what
//! they have not used by the next step is taken back, so a slow worker closes late but never too many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use super::services::{Member, Members, Serving};
use super::targets::Targets;
use super::token_bucket::{STEP, TokenBucket};
use crate::config::OnDown;
use crate::health::{State, WhenAllDown};
use crate::model::{BackendId, Cause, Load};
use crate::worker::{Allowance, Command, Workers};

/// The services that are closing sessions.
#[derive(Debug, Default)]
pub(super) struct Closing(HashMap<Arc<str>, Wave>);

#[derive(Debug)]
struct Wave {
    tokens: TokenBucket,
    /// By their marks.
    lost: BTreeMap<u32, Lost>,
    allowance: Arc<Allowance>,
    next: Instant,
}

impl Closing {
    /// When the next step is due.
    pub(super) fn next_step(&self) -> Option<Instant> {
        self.0.values().map(|wave| wave.next).min()
    }

    /// Forgets services that are gone.
    pub(super) fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.0.retain(|service, wave| {
            let stays = is_there(service);
            if !stays {
                wave.allowance.revoke();
            }
            stays
        });
    }

    /// Looks whose sessions of a service are to be closed, and closes as many as are due.
    pub(super) fn step(
        &mut self,
        serving: &Serving,
        targets: &Targets,
        workers: &Workers,
        now: Instant,
    ) {
        let service = serving.service.name();
        let (rate, lost) = match serving.members.config().on_down {
            OnDown::Keep => (0, BTreeMap::new()),
            OnDown::Close { rate } => (rate, lost(&serving.members, targets)),
        };
        if lost.is_empty() {
            if let Some(wave) = self.0.remove(service) {
                wave.allowance.revoke();
                wave.lost.values().for_each(Lost::tell_end);
            }
            return;
        }
        let wave = self.0.entry(Arc::clone(service)).or_insert_with(|| Wave {
            tokens: TokenBucket::default(),
            lost: BTreeMap::new(),
            allowance: Arc::default(),
            next: now,
        });
        for (mark, lost) in &lost {
            if !wave.lost.contains_key(mark) {
                lost.tell_begin(rate);
            }
        }
        for (mark, former) in &wave.lost {
            if !lost.contains_key(mark) {
                former.tell_end();
            }
        }
        wave.lost = lost;
        wave.next = now + STEP;
        let unused = wave.allowance.revoke();
        let allowed = wave.tokens.grant(rate, unused, now);
        if allowed > 0 {
            wave.allowance = Allowance::of(allowed);
            let marks: Arc<[u32]> = wave.lost.keys().copied().collect();
            workers.tell(|_| Command::EndMarked {
                marks: Arc::clone(&marks),
                before: None,
                cause: Cause::BackendDown,
                allowance: Arc::clone(&wave.allowance),
            });
        }
    }
}

/// Those of `members` that went down with sessions and may not serve, by mark. One that is disabled or
/// draining is not among them: its sessions were to end in their own time.
fn lost(members: &Members, targets: &Targets) -> BTreeMap<u32, Lost> {
    // Where all are down and all may be used, a session has nowhere better to go.
    let use_all = members.rules().when_all_down == WhenAllDown::UseAll;
    if use_all && !members.each().any(|it| it.view(targets).is_eligible()) {
        return BTreeMap::new();
    }
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
    let with_sessions = members.each().filter(|it| it.load.in_flight() > 0);
    with_sessions.filter(is_lost).map(lost).collect()
}

/// A backend that went down with sessions.
#[derive(Debug)]
struct Lost {
    backend: BackendId,
    load: Arc<Load>,
}

impl Lost {
    /// Says that its sessions are being closed.
    fn tell_begin(&self, rate: u32) {
        tracing::info!(
            service = %self.backend.service(),
            backend = %self.backend.name(),
            sessions = self.load.in_flight(),
            close_rate = rate,
            "closing sessions"
        );
    }

    /// Says that they are not any more.
    fn tell_end(&self) {
        tracing::info!(
            service = %self.backend.service(),
            backend = %self.backend.name(),
            left = self.load.in_flight(),
            "closing ends"
        );
    }
}
