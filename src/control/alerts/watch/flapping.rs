//! Which backends change their state too often.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use crate::config;
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
        config: &config::Flapping,
        backend: &BackendId,
        now: Instant,
    ) -> bool {
        let window = config.window;
        let recent = |at: &Instant| now.saturating_duration_since(*at) < window;
        if self.0.len() >= MANY && !self.0.contains_key(backend) {
            self.0
                .retain(|_, changes| changes.at.back().is_some_and(recent));
        }
        let changes = self.0.entry(backend.clone()).or_default();
        changes.at.push_back(now);
        while changes.at.len() > config.transitions as usize
            || changes.at.front().is_some_and(|at| !recent(at))
        {
            changes.at.pop_front();
        }
        let flaps = changes.at.len() >= config.transitions as usize;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// For each transition of one backend, in seconds, whether it begins to flap by it.
    fn begins(transitions: u32, window: u64, seconds: &[u64]) -> Vec<bool> {
        let config = config::Flapping {
            transitions,
            window: Duration::from_secs(window),
        };
        let (start, backend) = (Instant::now(), BackendId::new("web", "a"));
        let mut flapping = Flapping::default();
        let begins = |second| {
            let now = start + Duration::from_secs(second);
            flapping.begins(&config, &backend, now)
        };
        seconds.iter().copied().map(begins).collect()
    }

    #[test]
    fn flapping_is_told_once_until_it_has_calmed_down() {
        let begins = begins(3, 10, &[0, 1, 2, 3, 4, 20, 21, 22, 23]);
        let told: Vec<_> = begins.iter().map(|it| u8::from(*it)).collect();
        assert_eq!(told, [0, 0, 1, 0, 0, 0, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn it_flaps_exactly_when_so_many_transitions_fell_into_the_window(
            gaps in prop::collection::vec(0_u64..8, 1..60),
            transitions in 2_u32..6,
            window in 1_u64..20,
        ) {
            let sum = |second: &mut u64, gap| {
                *second += gap;
                Some(*second)
            };
            let seconds: Vec<_> = gaps.into_iter().scan(0, sum).collect();
            let mut flapped = false;
            for (index, begins) in begins(transitions, window, &seconds).into_iter().enumerate() {
                let (now, seen) = (seconds[index], &seconds[..=index]);
                let flaps = seen.iter().filter(|&&at| now - at < window).count() >= transitions as usize;
                prop_assert_eq!(begins, flaps && !flapped);
                flapped = flaps;
            }
        }
    }
}
