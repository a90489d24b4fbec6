//! Sessions that an operator has closed: at the deadline of a drain, or at once.
//!
//! Those at an address which their backend had before are among them. They are closed at the `close_rate` of the service, so that their clients do not all come
//! back at once. Sessions that began after the order are not concerned.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::token_bucket::{STEP, TokenBucket};
use crate::model::{BackendId, Cause, Load};
use crate::worker::{Allowance, Command, Workers};

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Evictions {
    /// When drains are over.
    deadlines: HashMap<BackendId, Instant>,
    waves: HashMap<BackendId, Wave>,
}

/// The sessions of one backend.
#[derive(Debug)]
struct Wave {
    load: Arc<Load>,
    marks: Arc<[u32]>,
    /// Those that began before this.
    before: Instant,
    rate: u32,
    tokens: TokenBucket,
    allowance: Arc<Allowance>,
    /// How many may still be closed: there were no more.
    left: u32,
    next: Instant,
    /// Who has not been found by then is gone, or has hidden well.
    ends: Instant,
}

impl Evictions {
    /// When there is something to do next.
    pub(super) fn next_step(&self) -> Option<Instant> {
        let waves = self.waves.values().map(|wave| wave.next);
        self.deadlines.values().copied().chain(waves).min()
    }

    /// When the drain of `backend` is over, if it has a deadline.
    pub(super) fn deadline(&self, backend: &BackendId) -> Option<Instant> {
        self.deadlines.get(backend).copied()
    }

    /// `backend` drains until then, or for as long as its sessions live.
    pub(super) fn set_deadline(&mut self, backend: &BackendId, deadline: Option<Instant>) {
        match deadline {
            Some(deadline) => self.deadlines.insert(backend.clone(), deadline),
            None => self.deadlines.remove(backend),
        };
    }

    /// Its drain is over before its time: what it has is left alone.
    pub(super) fn relent(&mut self, backend: &BackendId) {
        self.deadlines.remove(backend);
        if let Some(wave) = self.waves.remove(backend) {
            wave.allowance.revoke();
        }
    }

    /// The drains whose time has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<BackendId> {
        let due = |(_, deadline): &(&BackendId, &mut Instant)| **deadline <= now;
        let due: Vec<_> = self.deadlines.iter_mut().filter(due).collect();
        let due: Vec<_> = due
            .into_iter()
            .map(|(backend, _)| backend.clone())
            .collect();
        due.iter().for_each(|backend| {
            self.deadlines.remove(backend);
        });
        due
    }

    /// Closes the sessions that `backend` has now, so many a second.
    pub(super) fn begin(
        &mut self,
        backend: &BackendId,
        (load, marks): (&Arc<Load>, Arc<[u32]>),
        rate: u32,
        now: Instant,
    ) {
        let sessions = load.in_flight();
        tracing::info!(
            service = %backend.service(),
            backend = %backend.name(),
            sessions,
            close_rate = rate,
            "closing sessions"
        );
        let time = Duration::from_secs(u64::from(sessions / rate.max(1)));
        let wave = Wave {
            load: Arc::clone(load),
            marks,
            before: now,
            rate,
            tokens: TokenBucket::default(),
            allowance: Arc::default(),
            left: sessions,
            next: now,
            ends: now + 2 * time + SEARCH,
        };
        if let Some(former) = self.waves.insert(backend.clone(), wave) {
            former.allowance.revoke();
        }
    }

    /// Closes as many as are due.
    pub(super) fn step(&mut self, workers: &Workers, now: Instant) {
        self.waves.retain(|backend, wave| {
            if wave.next > now {
                return true;
            }
            let unused = wave.allowance.revoke();
            wave.left += unused;
            if wave.left == 0 || wave.load.in_flight() == 0 || wave.ends <= now {
                tracing::info!(
                    service = %backend.service(),
                    backend = %backend.name(),
                    left = wave.load.in_flight(),
                    "closing ends"
                );
                return false;
            }
            wave.next = now + STEP;
            let allowed = wave.tokens.grant(wave.rate, unused, now).min(wave.left);
            if allowed > 0 {
                wave.left -= allowed;
                wave.allowance = Allowance::of(allowed);
                workers.tell(|_| Command::EndMarked {
                    marks: Arc::clone(&wave.marks),
                    before: Some(wave.before),
                    cause: Cause::Closed,
                    allowance: Arc::clone(&wave.allowance),
                });
            }
            true
        });
    }
}

/// How long sessions are searched for beyond the time that closing them takes.
const SEARCH: Duration = Duration::from_secs(30);
