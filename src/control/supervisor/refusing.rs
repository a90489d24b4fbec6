//! What an operator is told of clients that were not let in: one line now and then, however many they are.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Supervisor;
use crate::admission::{Cap, Rule};
use crate::control::journal;
use crate::pool::{Delays, GateSum, ThrottleSum};

/// Between two lines about the clients of one service.
const PAUSE: Duration = Duration::from_secs(10);

/// What was told of each service.
#[derive(Debug, Default)]
pub(super) struct Refusing {
    /// Of the limits of all services together.
    all: Told,
    told: HashMap<Arc<str>, Told>,
}

#[derive(Debug, Default)]
struct Told {
    sum: GateSum,
    at: Option<Instant>,
    /// It has as many sessions as it may have.
    full: bool,
}

impl Supervisor {
    /// Tells of services whose clients were refused, or wait, since that was told last.
    pub(super) fn tell_refusals(&mut self) {
        let now = Instant::now();
        self.refusing.all.tell(None, self.permits.sum(), now);
        let services = &self.running.services.0;
        self.refusing
            .told
            .retain(|name, _| services.contains_key(name));
        for (service, serving) in services {
            let gate = serving.members.gate();
            let (sum, full) = (gate.sum(), gate.is_full());
            if sum == GateSum::default()
                && full.is_none()
                && !self.refusing.told.contains_key(service)
            {
                continue;
            }
            let told = self.refusing.told.entry(Arc::clone(service)).or_default();
            let was_full = std::mem::replace(&mut told.full, full.is_some());
            if was_full != full.is_some() {
                let most = full.unwrap_or_default();
                let news = journal::pause(Some(service), full.is_some(), most);
                self.journal.write(news);
            }
            match (was_full, full) {
                (false, Some(max_connections)) => tracing::warn!(
                    %service,
                    max_connections,
                    "accepting pauses: as many sessions as the service may have"
                ),
                (true, None) => tracing::info!(%service, "accepting goes on"),
                (false, None) | (true, Some(_)) => {}
            }
            told.tell(Some(service), sum, now);
        }
    }

    /// The same since the start, for the report.
    pub(super) fn report_refusals(&self) {
        let sum = self.permits.sum();
        if sum != GateSum::default() {
            tracing::info!(would_be = in_words(&sum.dry), "admission");
        }
        for (service, serving) in &self.running.services.0 {
            let sum = serving.members.gate().sum();
            if sum != GateSum::default() {
                tracing::info!(
                    %service,
                    refused = in_words(&sum.refused),
                    would_be = in_words(&sum.dry),
                    uncounted = sum.uncounted,
                    "admission"
                );
            }
            let sum = serving.members.throttle().sum();
            if sum != ThrottleSum::default() {
                tracing::info!(
                    %service,
                    slowed = delays_in_words(&sum.delayed),
                    would_be = delays_in_words(&sum.would_be),
                    "bandwidth"
                );
            }
        }
    }
}

impl Told {
    /// Tells what has changed since the last time, unless that was just now.
    fn tell(&mut self, service: Option<&str>, sum: GateSum, now: Instant) {
        if self.at.is_some_and(|at| now - at < PAUSE) || self.sum == sum {
            return;
        }
        let before = std::mem::replace(&mut self.sum, sum);
        self.at = Some(now);
        let since = |is: &[u64], was: &[u64]| {
            let counts: Vec<_> = is.iter().zip(was).map(|(is, was)| is - was).collect();
            in_words(&counts)
        };
        tracing::warn!(
            service,
            refused = since(&sum.refused, &before.refused),
            would_be = since(&sum.dry, &before.dry),
            uncounted = Some(sum.uncounted - before.uncounted).filter(|&it| it > 0),
            unlogged = Some(sum.hushed - before.hushed).filter(|&it| it > 0),
            "clients refused"
        );
    }
}

/// `access 12, max_per_source 3`
fn in_words(counts: &[u64]) -> Option<String> {
    let counts = Rule::ALL
        .into_iter()
        .zip(counts)
        .filter(|(_, count)| **count > 0);
    let words: Vec<_> = counts
        .map(|(rule, count)| format!("{rule} {count}"))
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// `to_client 12 (3m 20s)`: so many sessions, and how long all of them together.
fn delays_in_words(delays: &[Delays]) -> Option<String> {
    let slowed = Cap::ALL.into_iter().zip(delays);
    let slowed = slowed.filter(|(_, it)| it.sessions > 0);
    let words: Vec<_> = slowed
        .map(|(cap, it)| {
            let time = Duration::from_millis(it.time.as_millis() as u64);
            format!(
                "{cap} {} ({})",
                it.sessions,
                humantime::format_duration(time)
            )
        })
        .collect();
    (!words.is_empty()).then(|| words.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rules_that_have_refused_somebody_are_told() {
        assert_eq!(in_words(&[0; Rule::ALL.len()]), None);
        let words = in_words(&[0, 0, 12, 0, 0, 3, 0]).unwrap();
        assert_eq!(words, "access 12, max_per_source 3");
    }

    #[test]
    fn caps_that_have_slowed_somebody_down_are_told_with_how_long() {
        let mut delays = [Delays::default(); Cap::ALL.len()];
        assert_eq!(delays_in_words(&delays), None);
        delays[Cap::ToClient as usize] = Delays {
            sessions: 12,
            time: Duration::from_micros(200_000_400),
        };
        let words = delays_in_words(&delays).unwrap();
        assert_eq!(words, "to_client 12 (3m 20s)");
    }
}
