//! What watchers are told of everything at once: after a reload, and when they have missed events.

use std::sync::Arc;

use super::Supervisor;
use crate::control::Event;
use crate::control::event::{Picture, Presence};
use crate::health::State;

impl Supervisor {
    /// Watchers have missed events: tells them how everything stands since.
    pub(super) fn recap(&self) {
        self.tell(|| Event::Recap(self.picture()));
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
        Arc::new(Picture {
            services: services.standing(),
            backends: backends.collect(),
            rejected: self.reloads.last_rejected,
        })
    }
}
