//! What of all that happens an alert tells of: events in, notices out. Pure: the time comes in.
//!
//! Every alert has a watch of its own, since its thresholds are its own: what is degraded for one
//! alert is not for another. What it has told is remembered by whom it was about, [`backends`], [`services`] or
//! [`files`], so that nothing is told twice and everything that was told to begin is told to end.

mod backends;
mod files;
mod flapping;
mod services;
#[cfg(test)]
mod testing;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use self::backends::{Backends, Change, Whom, failed_over};
use self::files::Files;
use self::services::Services;
use super::drafting::{Draft, Moment};
use super::notice::Notice;
use crate::config::{AlertConfig, written};
use crate::control::{Event, Picture, Standing};
use crate::health::State;

/// What one alert remembers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    backends: Backends,
    services: Services,
    files: Files,
}

impl Watch {
    /// What `config` has told of `event`.
    pub(super) fn observe(
        &mut self,
        config: &AlertConfig,
        event: &Event,
        now: Moment,
    ) -> Vec<Notice> {
        let mut draft = Draft::new(config, now);
        self.take_in(event, &mut draft);
        draft.into_notices()
    }

    fn take_in(&mut self, event: &Event, draft: &mut Draft<'_>) {
        match event {
            Event::Transition {
                backend,
                address,
                from,
                to,
                cause,
                after,
                ejected,
                eligible,
                configured,
            } => {
                let change = match (from, to) {
                    // Its sessions fail none the less.
                    (_, State::Up) if *ejected => None,
                    (_, State::Down) => {
                        let why = cause.as_ref().map(ToString::to_string);
                        Some(Change::Down(why.unwrap_or_default()))
                    }
                    (State::Down, State::Up) => Some(Change::Up),
                    // A first good verdict is no news, unless the backend was told to be down: at the
                    // address that it had before.
                    (_, State::Up) => self.backends.is_down(backend).then_some(Change::Up),
                    (_, State::Unknown) => None,
                };
                let whom = Whom {
                    backend,
                    address: *address,
                    after: Some(*after),
                };
                let counts = *from != State::Unknown;
                self.changed(whom, change, counts, (*eligible, *configured), draft);
            }
            Event::Ejection {
                backend,
                address,
                out,
                state,
                eligible,
                configured,
            } => {
                let change = match (out, state) {
                    (Some(out), _) => {
                        let out = written(*out);
                        Some(Change::Down(format!("its sessions fail; out for {out}")))
                    }
                    // Its check has it down besides.
                    (None, State::Down) => None,
                    (None, State::Up | State::Unknown) => Some(Change::Up),
                };
                let whom = Whom {
                    backend,
                    address: *address,
                    after: None,
                };
                self.changed(whom, change, true, (*eligible, *configured), draft);
            }
            Event::Failover(failover) => {
                if draft.config.is_about(failover.backend.service()) {
                    failed_over(failover, draft);
                }
            }
            Event::Suspect {
                backend,
                address,
                turn,
            } => {
                if draft.config.is_about(backend.service()) {
                    self.backends.answers(backend, *address, turn, draft);
                }
            }
            Event::Ready(picture) | Event::Reloaded(picture) => self.review(picture, draft),
            Event::Recap(picture) => {
                self.review(picture, draft);
                self.catch_up(picture, draft);
            }
            Event::Membership { standing, removed } => {
                if draft.config.is_about(&standing.service) {
                    self.backends.forget(|it| removed.contains(it), draft);
                    self.services.stands(standing, draft);
                }
            }
            Event::Rejected { service, problems } => self.files.rejected(service, problems, draft),
            Event::Accepted { service } => self.files.accepted(service, draft),
            Event::Tier {
                service,
                stands_in,
                eligible,
                configured,
                ..
            } => {
                let standing = Standing {
                    service: Arc::clone(service),
                    eligible: *eligible,
                    configured: *configured,
                };
                if draft.config.is_about(service) {
                    self.services.served_by(*stands_in, &standing, draft);
                }
            }
            // Whoever was told that it is down was told so before, but it may have been counted on since.
            Event::StillDown {
                backend,
                eligible,
                configured,
                ..
            } => {
                let standing = Standing {
                    service: Arc::clone(backend.service()),
                    eligible: *eligible,
                    configured: *configured,
                };
                if draft.config.is_about(&standing.service) {
                    self.services.stands(&standing, draft);
                }
            }
            Event::Listening { .. } | Event::Missed { .. } => {}
        }
    }

    /// A backend went out or came back, if there is a `change`, and so many of its service's may serve
    /// since. `counts` if it was a transition.
    fn changed(
        &mut self,
        whom: Whom<'_>,
        change: Option<Change>,
        counts: bool,
        (eligible, configured): (usize, usize),
        draft: &mut Draft<'_>,
    ) {
        let service = whom.backend.service();
        if !draft.config.is_about(service) {
            return;
        }
        let standing = Standing {
            service: Arc::clone(service),
            eligible,
            configured,
        };
        if let Some(change) = change {
            self.backends.changed(whom, change, &standing, draft);
        }
        if counts {
            self.backends.count(whom, draft);
        }
        self.services.stands(&standing, draft);
    }

    /// Takes in which files are rejected, which services and backends there are, and how the services
    /// stand.
    fn review(&mut self, picture: &Picture, draft: &mut Draft<'_>) {
        self.files.review(&picture.rejected, draft);
        let services = picture.services.iter().map(|it| &it.service);
        let services: HashSet<_> = services.filter(|it| draft.config.is_about(it)).collect();
        self.services.forget(|it| !services.contains(it), draft);
        let backends = picture.backends.iter().map(|it| &it.backend);
        let backends: HashSet<_> = backends
            .filter(|it| services.contains(it.service()))
            .collect();
        self.backends.forget(|it| !backends.contains(it), draft);
        for standing in &picture.services {
            if services.contains(&standing.service) {
                self.services.stands(standing, draft);
                let mut standbys = picture.standbys.iter();
                let stands_in = standbys.find(|(service, _)| *service == standing.service);
                let stands_in = stands_in.map(|(_, priority)| *priority);
                self.services.served_by(stands_in, standing, draft);
            }
        }
    }

    /// Tells of what has changed unheard of the backends, once the rest was reviewed.
    fn catch_up(&mut self, picture: &Picture, draft: &mut Draft<'_>) {
        let services = picture.services.iter().map(|it| (&it.service, it));
        let services: HashMap<_, _> = services.collect();
        for presence in &picture.backends {
            let service = presence.backend.service();
            if let Some(standing) = services.get(service)
                && draft.config.is_about(service)
            {
                self.backends.catch_up(presence, standing, draft);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{config, picture, told, transition};
    use super::*;
    use crate::config::Occasion::{AllDown, BackendDown, BackendUp, ReloadFailed};
    use crate::control::alerts::notice::Status::{Firing, Resolved};
    use State::{Down, Unknown, Up};

    #[test]
    fn other_services_are_none_of_its_business() {
        let config = config("on = [\"backend-down\"]\nservices = \"db\"");
        let events = [
            transition("web", Up, Down, 3),
            transition("db", Up, Down, 3),
        ];
        assert_eq!(
            told(&config, &events),
            [vec![], vec![(BackendDown, Firing)]]
        );
    }

    #[test]
    fn what_was_missed_is_told_from_how_things_stand() {
        let config =
            config("on = [\"backend-down\", \"backend-up\", \"all-down\", \"reload-failed\"]");
        let recap = |eligible, states: &[State]| Event::Recap(picture("web", eligible, states));
        let rejected = Event::Rejected {
            service: None,
            problems: ["x".into()].into(),
        };
        let events = [
            transition("web", Up, Down, 0),
            rejected,
            // The return of a was missed, and so was the end of b.
            recap(3, &[Up, Down]),
            recap(3, &[Up, Down]),
            recap(4, &[Unknown, Up]),
            transition("web", Up, Down, 3),
            // It has left.
            recap(4, &[]),
        ];
        let (down, up) = ((BackendDown, Firing), (BackendUp, Resolved));
        assert_eq!(
            told(&config, &events),
            [
                vec![down, (AllDown, Firing)],
                vec![(ReloadFailed, Firing)],
                vec![(ReloadFailed, Resolved), (AllDown, Resolved), up, down],
                vec![],
                vec![up],
                vec![down],
                vec![up],
            ]
        );
    }
}
