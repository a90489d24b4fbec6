//! What has been measured lately, of each service and backend, for sparklines.

use std::collections::{HashMap, VecDeque};

use super::rows::Key;
use crate::api::View;
use crate::cli::rates::{Rate, Rates};

/// The latest of everything that is in the view.
#[derive(Debug, Default)]
pub(super) struct History {
    of: HashMap<Key, VecDeque<Sample>>,
    whole: VecDeque<Sample>,
}

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Sample {
    pub(super) sessions: u64,
    pub(super) rate: Rate,
}

impl History {
    /// Adds what a view says; what is not in it is forgotten.
    pub(super) fn add(&mut self, view: &View, rates: &Rates) {
        let mut old = std::mem::take(&mut self.of);
        let mut whole = Sample::default();
        let mut keep = |key: Key, sessions: u64| -> Option<Sample> {
            let mut samples = old.remove(&key).unwrap_or_default();
            let sample = rates
                .of(&key.service, key.backend.as_deref())
                .map(|rate| Sample { sessions, rate });
            if let Some(sample) = sample {
                push(&mut samples, sample);
            }
            self.of.insert(key, samples);
            sample
        };
        let mut is_known = false;
        for service in &view.services {
            if let Some(sample) = keep(Key::service(&service.name), service.traffic.sessions) {
                is_known = true;
                whole.sessions += sample.sessions;
                whole.rate.sessions += sample.rate.sessions;
                whole.rate.turned_away += sample.rate.turned_away;
                whole.rate.to_backend += sample.rate.to_backend;
                whole.rate.to_client += sample.rate.to_client;
            }
            for backend in &service.backends {
                keep(
                    Key::backend(&service.name, &backend.name),
                    backend.traffic.sessions,
                );
            }
        }
        if is_known {
            push(&mut self.whole, whole);
        }
    }

    /// Of one of them, the oldest first.
    pub(super) fn of(&self, key: &Key) -> impl DoubleEndedIterator<Item = &Sample> {
        self.of.get(key).into_iter().flatten()
    }

    /// Of all services together.
    pub(super) fn whole(&self) -> impl DoubleEndedIterator<Item = &Sample> {
        self.whole.iter()
    }
}

fn push(samples: &mut VecDeque<Sample>, sample: Sample) {
    if samples.len() == MOST {
        samples.pop_front();
    }
    samples.push_back(sample);
}

/// What of a sample a line is drawn of.
pub(super) type What = fn(&Sample) -> f64;

/// That of each of them.
pub(super) fn numbers<'a>(samples: impl Iterator<Item = &'a Sample>, what: What) -> Vec<f64> {
    samples.map(what).collect()
}

/// The latest numbers as characters, each as high as its share of the highest; nothing is a blank.
pub(super) fn sparkline(numbers: &[f64], columns: usize, unicode: bool) -> String {
    const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    const PLAIN: [char; 9] = [' ', '.', '.', ':', ':', '+', '+', '#', '#'];
    let levels = if unicode { BLOCKS } else { PLAIN };
    let shown = &numbers[numbers.len().saturating_sub(columns)..];
    let most = shown.iter().copied().fold(0.0, f64::max);
    let line = shown.iter().map(|&number| match number > 0.0 {
        // What is there at all is seen.
        true => levels[((number / most * 8.0).round() as usize).clamp(1, 8)],
        false => levels[0],
    });
    let blanks = std::iter::repeat_n(' ', columns - shown.len());
    blanks.chain(line).collect()
}

/// Two minutes: more than any terminal is wide enough for.
const MOST: usize = 240;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Service;

    #[test]
    fn a_sparkline_is_as_high_as_its_share_of_the_highest() {
        assert_eq!(sparkline(&[0.0, 1.0, 4.0, 8.0], 4, true), " ▁▄█");
        assert_eq!(sparkline(&[8.0], 3, true), "  █");
        assert_eq!(sparkline(&[1.0, 2.0, 3.0], 2, false), "+#");
        assert_eq!(sparkline(&[], 3, true), "   ");
        assert_eq!(sparkline(&[0.0, 0.0], 2, true), "  ");
    }

    #[test]
    fn what_has_left_is_forgotten_and_the_rest_is_bounded() {
        let view = |names: &[&str], second: u64| View {
            at: format!("2026-11-21T12:{:02}:{:02}.000Z", second / 60, second % 60),
            services: names
                .iter()
                .map(|name| Service {
                    name: (*name).into(),
                    ..Service::default()
                })
                .collect(),
            ..View::default()
        };
        let mut history = History::default();
        for second in 0..MOST as u64 + 10 {
            let (was, is) = (view(&["a", "b"], second), view(&["a", "b"], second + 1));
            history.add(&is, &Rates::between(&was, &is));
        }
        assert_eq!(history.of(&Key::service("a")).count(), MOST);
        assert_eq!(history.whole().count(), MOST);
        let (was, is) = (view(&["a"], 1), view(&["a"], 2));
        history.add(&is, &Rates::between(&was, &is));
        assert_eq!(history.of(&Key::service("b")).count(), 0);
    }
}
