//! Which backends change their state too often.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::config::AlertConfig;
use crate::model::BackendId;

/// The latest transitions of each backend.
#[derive(Debug, Default)]
pub(super) struct Flapping(HashMap<BackendId, Changes>);

/// Those of one.
#[derive(Debug, Default)]
struct Changes {
    at: VecDeque<Instant>,
    told: bool,
}

impl Flapping {
    /// Whether this transition is the one by which `backend` begins to flap. It is told once, and
    /// again only after it has calmed down.
    pub(super) fn begins(
        &mut self,
        config: &AlertConfig,
        backend: &BackendId,
        now: Instant,
    ) -> bool {
        let window = config.flapping.window;
        let recent = |at: &Instant| now.saturating_duration_since(*at) < window;
        if self.0.len() >= MANY && !self.0.contains_key(backend) {
            self.0
                .retain(|_, changes| changes.at.back().is_some_and(recent));
        }
        let changes = self.0.entry(backend.clone()).or_default();
        changes.at.push_back(now);
        while changes.at.len() > config.flapping.transitions as usize
            || changes.at.front().is_some_and(|at| !recent(at))
        {
            changes.at.pop_front();
        }
        let flaps = changes.at.len() >= config.flapping.transitions as usize;
        let began = flaps && !changes.told;
        changes.told = flaps;
        began
    }

    /// Forgets those that have `left`.
    pub(super) fn forget(&mut self, left: impl Fn(&BackendId) -> bool) {
        self.0.retain(|backend, _| !left(backend));
    }
}

/// Backends with transitions, above which those that are calm again are forgotten first.
const MANY: usize = 1024;
