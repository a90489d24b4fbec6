//! How fast things happen, out of two views of one daemon.

use std::collections::HashMap;

use super::figures::ago;
use crate::api::{Service, Traffic, View};

/// Per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    /// Sessions that connected.
    pub(super) sessions: f64,
    /// Clients that were given no backend, of a service, by its own rules or for lack of one.
    pub(super) turned_away: f64,
    /// Bytes from clients.
    pub(super) to_backend: f64,
    /// Bytes to clients.
    pub(super) to_client: f64,
}

/// The rates of everything between two views.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates {
    /// By service; and by service and backend.
    of: HashMap<(String, Option<String>), Rate>,
}

impl Rates {
    /// What happened from one view to the next. Nothing is said of what is in one of them only, nor
    /// of another process than before.
    pub(super) fn between(before: &View, after: &View) -> Self {
        let mut of = HashMap::new();
        let seconds = ago(&before.at, &after.at).unwrap_or_default().as_secs_f64();
        if seconds <= 0.0 || before.process.started != after.process.started {
            return Self { of };
        }
        let mut known: HashMap<(&str, Option<&str>), (&Traffic, u64)> = HashMap::new();
        for service in &before.services {
            known.insert(
                (&service.name, None),
                (&service.traffic, turned_away(service)),
            );
            for backend in &service.backends {
                known.insert((&service.name, Some(&backend.name)), (&backend.traffic, 0));
            }
        }
        let mut add = |service: &str, backend: Option<&str>, is: (&Traffic, u64)| {
            if let Some(was) = known.get(&(service, backend)) {
                let key = (service.to_owned(), backend.map(str::to_owned));
                of.insert(key, rate(*was, is, seconds));
            }
        };
        for service in &after.services {
            add(
                &service.name,
                None,
                (&service.traffic, turned_away(service)),
            );
            for backend in &service.backends {
                add(&service.name, Some(&backend.name), (&backend.traffic, 0));
            }
        }
        Self { of }
    }

    /// Of a service, or of one of its backends.
    pub(super) fn of(&self, service: &str, backend: Option<&str>) -> Option<Rate> {
        let key = (service.to_owned(), backend.map(str::to_owned));
        self.of.get(&key).copied()
    }
}

/// Clients that were given no backend, for whatever reason: by a rule, or because there was none.
fn turned_away(service: &Service) -> u64 {
    let by_rule = service.refusals.iter().map(|it| it.refused_total);
    service.unserved.total + by_rule.sum::<u64>()
}

/// Of sessions, and of clients that were turned away.
fn rate(
    (was, was_turned_away): (&Traffic, u64),
    (is, is_turned_away): (&Traffic, u64),
    seconds: f64,
) -> Rate {
    // A counter that is less than it was has begun anew.
    let per_second = |was: u64, is: u64| is.saturating_sub(was) as f64 / seconds;
    Rate {
        sessions: per_second(was.sessions_total, is.sessions_total),
        turned_away: per_second(was_turned_away, is_turned_away),
        to_backend: per_second(was.to_backend_bytes_total, is.to_backend_bytes_total),
        to_client: per_second(was.to_client_bytes_total, is.to_client_bytes_total),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Backend, Refusals};

    fn view(at: &str, sessions_total: u64) -> View {
        let traffic = Traffic {
            sessions_total,
            ..Traffic::default()
        };
        let backend = Backend {
            name: "a".into(),
            traffic: traffic.clone(),
            ..Backend::default()
        };
        View {
            at: at.into(),
            services: vec![Service {
                name: "web".into(),
                traffic,
                backends: vec![backend],
                ..Service::default()
            }],
            ..View::default()
        }
    }

    #[test]
    fn a_rate_is_what_was_added_over_the_time_between() {
        let before = view("2026-11-21T12:00:00.000Z", 100);
        let after = view("2026-11-21T12:00:02.000Z", 150);
        let rates = Rates::between(&before, &after);
        let sessions = |backend| rates.of("web", backend).map(|rate| rate.sessions);
        assert_eq!(sessions(None), Some(25.0));
        assert_eq!(sessions(Some("a")), Some(25.0));
        assert_eq!(sessions(Some("b")), None);
    }

    #[test]
    fn clients_that_a_rule_has_not_let_in_are_turned_away_too() {
        let before = view("2026-11-21T12:00:00.000Z", 100);
        let mut after = view("2026-11-21T12:00:02.000Z", 100);
        after.services[0].unserved.total = 2;
        after.services[0].refusals = vec![Refusals {
            refused_total: 6,
            ..Refusals::default()
        }];
        let rates = Rates::between(&before, &after);
        let rate = rates.of("web", None).map(|rate| rate.turned_away);
        assert_eq!(rate, Some(4.0));
    }

    #[test]
    fn nothing_is_known_of_another_process_or_of_one_moment() {
        let before = view("2026-11-21T12:00:00.000Z", 100);
        assert_eq!(Rates::between(&before, &before).of("web", None), None);
        let mut after = view("2026-11-21T12:00:02.000Z", 10);
        assert_eq!(
            Rates::between(&before, &after)
                .of("web", None)
                .map(|it| it.sessions),
            Some(0.0)
        );
        after.process.started = "2026-11-21T12:00:01.000Z".into();
        assert_eq!(Rates::between(&before, &after).of("web", None), None);
    }
}
