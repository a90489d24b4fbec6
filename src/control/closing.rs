//! `on_down = "close"`: the sessions of a backend that went down are reset, so many a second that their
//! clients do not all come back at once.
//!
//! Who is to be closed is looked up anew at each step: sessions of members that are down and would
//! serve otherwise. So a backend that has recovered, is disabled or drains, has left the file or is kept
//! by a new one is let go by that very look. Workers find the sessions and share what the step allows; what they have not used by the next
//! step is taken back, so a slow worker closes late but never too many.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::services::{Lost, Serving};
use super::targets::Targets;
use crate::config::OnDown;
use crate::model::Cause;
use crate::worker::{Allowance, Command, Workers};

/// Between two steps.
pub(super) const STEP: Duration = Duration::from_millis(100);

/// The services that are closing sessions.
#[derive(Debug, Default)]
pub(super) struct Closing(HashMap<Arc<str>, Wave>);

#[derive(Debug)]
struct Wave {
    pace: Pace,
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
            OnDown::Close { rate } => (rate, serving.members.lost(targets)),
        };
        if lost.is_empty() {
            if let Some(wave) = self.0.remove(service) {
                wave.allowance.revoke();
                wave.lost.values().for_each(Lost::tell_end);
            }
            return;
        }
        let wave = self.0.entry(Arc::clone(service)).or_insert_with(|| Wave {
            pace: Pace::default(),
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
        let allowed = wave.pace.grant(rate, unused, now);
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

/// How many sessions may be closed by now: the rate, and at most a step's worth at once.
#[derive(Debug, Default)]
pub(super) struct Pace {
    credit: f64,
    /// When it was last granted, `None` before the first time.
    last: Option<Instant>,
}

impl Pace {
    /// As many as are due at `rate` a second, of which `unused` were granted before and not used.
    pub(super) fn grant(&mut self, rate: u32, unused: u32, now: Instant) -> u32 {
        let rate = f64::from(rate);
        // A step's worth, and what is left of the one before, which is less than one session.
        let most = rate * STEP.as_secs_f64() + 1.0;
        let passed = self
            .last
            .replace(now)
            .map(|last| now.saturating_duration_since(last));
        let earned = passed.map_or(most, |passed| passed.as_secs_f64() * rate);
        self.credit = (self.credit + f64::from(unused) + earned).min(most);
        let whole = self.credit.floor();
        self.credit -= whole;
        whole as u32
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_rate_is_kept_over_time_whatever_is_not_used_at_once() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let steps = (0..=100).map(|step| start + STEP * step);
        let all: u32 = steps.map(|now| pace.grant(25, 0, now)).sum();
        // 2.5 a step for ten seconds, and those of the first step.
        assert!((252..=253).contains(&all), "{all}");
    }

    #[test]
    fn a_slow_rate_closes_one_at_once_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let at = |tenths: u32| start + STEP * tenths;
        let granted: Vec<_> = (0..=25)
            .map(|tenths| pace.grant(1, 0, at(tenths)))
            .collect();
        assert_eq!(granted[0], 1);
        assert_eq!(granted.iter().sum::<u32>(), 3);
        assert!(granted.iter().all(|&granted| granted <= 1));
    }

    proptest! {
        #[test]
        fn never_more_than_the_rate_and_a_step_at_once(
            rate in 1_u32..10_000,
            steps in prop::collection::vec((0_u64..3_000, 0_u32..100), 1..100),
        ) {
            let start = Instant::now();
            let mut pace = Pace::default();
            let (mut now, mut used, mut last) = (start, 0_u64, 0);
            let most = f64::from(rate) * STEP.as_secs_f64() + 1.0;
            for (milliseconds, unused_percent) in steps {
                now += Duration::from_millis(milliseconds);
                let unused = last * unused_percent / 100;
                used -= u64::from(unused);
                last = pace.grant(rate, unused, now);
                prop_assert!(f64::from(last) <= most);
                used += u64::from(last);
                let due = (now - start).as_secs_f64() * f64::from(rate) + most;
                prop_assert!(used as f64 <= due + 1e-3, "{used} of {due}");
            }
        }
    }
}
