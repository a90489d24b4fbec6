//! What was told of backends: who is down, who is suspect, who flaps.

use std::collections::HashSet;
use std::time::Duration;

use super::flapping::Flapping;
use crate::config::Occasion;
use crate::control::alerts::drafting::{About, Draft};
use crate::control::alerts::notice::{Details, Status};
use crate::control::{Presence, Standing};
use crate::health::{Failover, State, Turn};
use crate::model::{Address, BackendId};

/// Whom there is more to tell of: that it is as it should be again.
#[derive(Debug, Default)]
pub(super) struct Backends {
    down: HashSet<BackendId>,
    suspects: HashSet<BackendId>,
    flapping: Flapping,
}

/// A backend that has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Whom<'a> {
    pub(super) backend: &'a BackendId,
    pub(super) address: Address,
    /// How long it had been in its former state.
    pub(super) after: Option<Duration>,
}

/// How it has changed.
#[derive(Debug)]
pub(super) enum Change {
    /// And why.
    Down(String),
    Up,
}

impl Backends {
    /// Whether this backend was told to be down.
    pub(super) fn is_down(&self, backend: &BackendId) -> bool {
        self.down.contains(backend)
    }

    /// Tells of a backend that went out or came back; its service stands as `standing` since.
    pub(super) fn changed(
        &mut self,
        whom: Whom<'_>,
        change: Change,
        standing: &Standing,
        draft: &mut Draft<'_>,
    ) {
        let Whom { backend, after, .. } = whom;
        let (eligible, configured) = (standing.eligible, standing.configured);
        let (event, status, details) = match change {
            Change::Down(why) => {
                self.down.insert(backend.clone());
                let details = Details::Down {
                    why,
                    after,
                    eligible,
                    configured,
                };
                (Occasion::BackendDown, Status::Firing, details)
            }
            Change::Up => {
                self.down.remove(backend);
                let details = Details::Up {
                    after,
                    eligible,
                    configured,
                };
                (Occasion::BackendUp, Status::Resolved, details)
            }
        };
        draft.tell(event, status, whom.into(), details);
    }

    /// Counts a transition, and tells if the backend flaps by that.
    pub(super) fn count(&mut self, whom: Whom<'_>, draft: &mut Draft<'_>) {
        let config = &draft.config.flapping;
        if self.flapping.begins(config, whom.backend, draft.now.at) {
            let details = Details::Flapping {
                transitions: config.transitions,
                within: config.window,
            };
            draft.tell(Occasion::Flapping, Status::Firing, whom.into(), details);
        }
    }

    /// Tells that a backend answers slower than it used to, or as usual again.
    pub(super) fn answers(
        &mut self,
        backend: &BackendId,
        address: Address,
        turn: &Turn,
        draft: &mut Draft<'_>,
    ) {
        match turn.suspect {
            true => self.suspects.insert(backend.clone()),
            false => self.suspects.remove(backend),
        };
        let details = Details::Suspect {
            latency: turn.latency,
            usual: turn.usual,
            phi: turn.phi.round(),
        };
        let about = About::Backend(backend, Some(address));
        let status = Status::firing(turn.suspect);
        draft.tell(Occasion::Suspect, status, about, details);
    }

    /// Tells of whatever has changed unheard.
    pub(super) fn catch_up(
        &mut self,
        presence: &Presence,
        standing: &Standing,
        draft: &mut Draft<'_>,
    ) {
        let Presence {
            backend,
            address,
            state,
            turn,
        } = presence;
        let change = match (self.is_down(backend), state) {
            (false, State::Down) => Some(Change::Down(UNHEARD.to_owned())),
            (true, State::Up) => Some(Change::Up),
            (true, State::Down | State::Unknown) | (false, State::Up | State::Unknown) => None,
        };
        if let Some(change) = change {
            let whom = Whom {
                backend,
                address: *address,
                after: None,
            };
            self.changed(whom, change, standing, draft);
        }
        if turn.suspect != self.suspects.contains(backend) {
            self.answers(backend, *address, turn, draft);
        }
    }

    /// A backend that has left is neither down nor suspect any more.
    pub(super) fn forget(&mut self, left: impl Fn(&BackendId) -> bool, draft: &mut Draft<'_>) {
        let told = [
            (Occasion::BackendUp, &mut self.down),
            (Occasion::Suspect, &mut self.suspects),
        ];
        for (event, told) in told {
            for backend in told.extract_if(&left) {
                draft.tell_gone(event, About::Backend(&backend, None));
            }
        }
        self.flapping.forget(left);
    }
}

impl<'a> From<Whom<'a>> for About<'a> {
    fn from(whom: Whom<'a>) -> Self {
        Self::Backend(whom.backend, Some(whom.address))
    }
}

/// Tells what a failover has cost: it is over when it is known, so there is nothing to remember.
pub(super) fn failed_over(failover: &Failover, draft: &mut Draft<'_>) {
    let since = draft.now.at.saturating_duration_since(failover.began);
    let details = Details::Failover {
        why: failover.why.to_string(),
        began: draft.now.wall.saturating_sub(since),
        detected: failover.after(failover.detected),
        moved: failover.after(failover.moved),
        total: failover.total(),
        sessions_hurt: failover.sessions_hurt,
        sessions_moved: failover.sessions_moved,
        eligible: failover.eligible,
        configured: failover.configured,
    };
    let about = About::Backend(&failover.backend, Some(failover.address));
    draft.tell(Occasion::Failover, Status::Firing, about, details);
}

/// Why a backend is down, when that was not heard.
const UNHEARD: &str = "the log tells: too much happened at once";

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::control::Event;
    use crate::control::alerts::drafting::{GONE, Moment};
    use crate::control::alerts::watch::Watch;
    use crate::control::alerts::watch::testing::{
        config, ejection, everything, standing, told, transition,
    };
    use Occasion::{BackendDown, BackendUp};
    use State::{Down, Unknown, Up};
    use Status::{Firing, Resolved};

    #[test]
    fn a_first_good_verdict_is_no_news_and_a_first_bad_one_is() {
        let config = everything();
        assert_eq!(
            told(&config, &[transition("web", Unknown, Up, 4)]),
            [vec![]]
        );
        assert_eq!(
            told(&config, &[transition("web", Unknown, Down, 3)]),
            [vec![(BackendDown, Firing)]]
        );
    }

    #[test]
    fn a_backend_that_returns_at_another_address_is_told() {
        let config = config("on = \"backend-up\"");
        let events = [
            transition("web", Unknown, Down, 3),
            transition("web", Unknown, Up, 4),
            transition("web", Unknown, Up, 4),
        ];
        let up = vec![(BackendUp, Resolved)];
        assert_eq!(told(&config, &events), [vec![], up, vec![]]);
    }

    #[test]
    fn a_backend_is_up_again_only_when_neither_its_check_nor_its_sessions_keep_it_out() {
        let config = config("on = [\"backend-down\", \"backend-up\"]");
        let mut checked_up = transition("web", Down, Up, 3);
        if let Event::Transition { ejected, .. } = &mut checked_up {
            *ejected = true;
        }
        let out = || ejection(Some(Duration::from_secs(10)), Up);
        let events = [
            out(),
            transition("web", Up, Down, 3),
            ejection(None, Down),
            transition("web", Down, Up, 4),
            out(),
            checked_up,
            ejection(None, Up),
        ];
        let (down, up) = (vec![(BackendDown, Firing)], vec![(BackendUp, Resolved)]);
        assert_eq!(
            told(&config, &events),
            [
                down.clone(),
                down.clone(),
                vec![],
                up.clone(),
                down,
                vec![],
                up
            ]
        );
    }

    #[test]
    fn who_has_left_is_not_told_to_be_up_again() {
        let config = everything();
        let now = Moment {
            at: Instant::now(),
            wall: Duration::ZERO,
        };
        let mut watch = Watch::default();
        watch.observe(&config, &transition("web", Up, Down, 0), now);
        let told = watch.observe(&config, &standing("db", 4), now);
        let gone = Details::Gone { why: GONE };
        assert_eq!(told.len(), 3, "degraded, all-down, backend-up: {told:?}");
        assert!(told.iter().all(|it| it.details == gone), "{told:?}");
    }
}
