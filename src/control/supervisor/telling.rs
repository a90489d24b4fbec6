//! What watchers are told: each event as it comes, and how everything stands where they missed some or a
//! reload has changed it.

use std::sync::Arc;

use super::Supervisor;
use crate::control::Event;
use crate::control::event::{Picture, Presence};
use crate::control::journal;
use crate::health::State;

impl Supervisor {
    /// Tells watchers of an event, and those who read the journal.
    pub(super) fn tell(&self, event: impl FnOnce() -> Event) {
        let event = event();
        if let Some(entry) = journal::entry(&event) {
            self.journal.write(entry);
        }
        self.tell_watchers(|| event);
    }

    /// Tells watchers alone. Without any there is no event.
    pub(super) fn tell_watchers(&self, event: impl FnOnce() -> Event) {
        let watched = self.options.events.as_ref();
        if let Some(events) = watched.filter(|it| it.receiver_count() > 0) {
            // The last of them may just have gone.
            let _ = events.send(event());
        }
    }

    /// Watchers have missed events: tells them how everything stands since.
    pub(super) fn recap(&self) {
        self.tell(|| Event::Recap(self.picture()));
    }

    /// The files of backends that cannot be used as they are; the log knows.
    pub(super) fn tell_rejected_lists(&self) {
        for (service, list) in &self.running.lists {
            if !list.problems.is_empty() {
                self.tell(|| Event::Rejected {
                    service: Some(Arc::clone(service)),
                    problems: Arc::clone(&list.problems),
                });
            }
        }
    }

    /// How everything stands.
    pub(super) fn picture(&self) -> Arc<Picture> {
        let services = &self.running.services;
        let users = services.0.values().flat_map(|it| it.members.users());
        let backends = users.filter_map(|(user, target)| {
            let known = self.running.targets.get(target)?;
            let load = self.running.load(&user.id);
            Some(Presence {
                address: target.address,
                state: match load.is_some_and(|it| it.is_ejected()) {
                    true => State::Down,
                    false => known.state(),
                },
                turn: known.turn(),
                backend: user.id,
            })
        });
        let lists = self.running.lists.iter();
        let lists = lists.filter(|(_, list)| !list.problems.is_empty());
        let lists = lists.map(|(service, _)| Some(Arc::clone(service)));
        let configuration = self.reloads.rejection.is_some().then_some(None);
        Arc::new(Picture {
            services: services.standing(),
            backends: backends.collect(),
            standbys: services.standbys(),
            rejected: configuration.into_iter().chain(lists).collect(),
        })
    }
}
