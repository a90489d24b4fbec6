//! What of all that happens an alert tells of: events in, notices out. Pure: the time comes in.
//!
//! Every alert has a watch of its own, since its thresholds are its own: what is degraded for one
//! alert is not for another.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::drafting::{Moment, Trouble, compared, gone, over, reload, suspect};
use super::flapping::Flapping;
use super::notice::{Details, Notice, Status};
use crate::config::{AlertConfig, Occasion, written};
use crate::control::{Event, Picture, Presence, Standing};
use crate::health::{State, Turn};
use crate::model::{Address, BackendId};

/// What one alert remembers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    services: HashMap<Arc<str>, Trouble>,
    flapping: Flapping,
    /// Backends that were told to be down …
    down: HashSet<BackendId>,
    /// … and to be suspect.
    suspects: HashSet<BackendId>,
    /// Services that were told to be served by standbys, and of which priority.
    standbys: HashMap<Arc<str>, u32>,
    /// Files that were told to be rejected: the configuration, and those of services.
    rejected: HashSet<Option<Arc<str>>>,
}

/// A backend that has changed, and how its service stands since.
struct Whom<'a> {
    backend: &'a BackendId,
    address: Address,
    /// How long it had been in its former state.
    after: Option<Duration>,
    eligible: usize,
    configured: usize,
}

/// How it has changed.
enum Change {
    Down(String),
    Up,
}

impl Watch {
    /// What `config` has told of `event`.
    pub(super) fn observe(
        &mut self,
        config: &AlertConfig,
        event: &Event,
        now: Moment,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
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
                    (_, State::Up) => self.down.contains(backend).then_some(Change::Up),
                    (_, State::Unknown) => None,
                };
                let whom = Whom {
                    backend,
                    address: *address,
                    after: Some(*after),
                    eligible: *eligible,
                    configured: *configured,
                };
                let counts = *from != State::Unknown;
                self.changed(config, &whom, change, counts, now, &mut notices);
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
                    eligible: *eligible,
                    configured: *configured,
                };
                self.changed(config, &whom, change, true, now, &mut notices);
            }
            Event::Failover(failover) => {
                if config.is_about(failover.backend.service()) {
                    notices.push(over(failover, now));
                }
            }
            Event::Suspect {
                backend,
                address,
                turn,
            } => {
                if config.is_about(backend.service()) {
                    self.suspected(backend, *address, turn, now, &mut notices);
                }
            }
            Event::Ready(picture) | Event::Reloaded(picture) => {
                self.files(config, picture, now, &mut notices);
                self.review(config, picture, now, &mut notices);
            }
            Event::Recap(picture) => {
                self.files(config, picture, now, &mut notices);
                self.review(config, picture, now, &mut notices);
                self.catch_up(config, picture, now, &mut notices);
            }
            Event::Membership { standing, removed } => {
                if config.is_about(&standing.service) {
                    self.forget(|backend| removed.contains(backend), now, &mut notices);
                    self.stands(config, standing, now, &mut notices);
                }
            }
            Event::Rejected { service, problems } => {
                if is_about_file(config, service) {
                    self.rejected.insert(service.clone());
                    notices.push(reload(service.clone(), Status::Firing, problems, now));
                }
            }
            Event::Accepted { service } => {
                let service = Some(Arc::clone(service));
                if self.rejected.remove(&service) {
                    notices.push(reload(service, Status::Resolved, &[], now));
                }
            }
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
                if config.is_about(service) {
                    notices.extend(self.stood_in(&standing, *stands_in, now));
                }
            }
            // Whoever was told that it is down was told so before.
            Event::Listening { .. } | Event::Missed { .. } | Event::StillDown { .. } => {}
        }
        notices.retain(|notice| config.tells_of(notice.event));
        notices
    }

    /// Tells of a backend that went out or came back; of whether it flaps, if this `counts` as a
    /// transition; and of its service.
    fn changed(
        &mut self,
        config: &AlertConfig,
        whom: &Whom<'_>,
        change: Option<Change>,
        counts: bool,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let &Whom {
            backend,
            address,
            after,
            eligible,
            configured,
        } = whom;
        if !config.is_about(backend.service()) {
            return;
        }
        let about = |event, status, details| Notice {
            event,
            status,
            time: now.wall,
            service: Some(Arc::clone(backend.service())),
            backend: Some(Arc::clone(backend.name())),
            address: Some(address),
            details,
        };
        match change {
            Some(Change::Down(why)) => {
                self.down.insert(backend.clone());
                let details = Details::Down {
                    why,
                    after,
                    eligible,
                    configured,
                };
                notices.push(about(Occasion::BackendDown, Status::Firing, details));
            }
            Some(Change::Up) => {
                self.down.remove(backend);
                let details = Details::Up {
                    after,
                    eligible,
                    configured,
                };
                notices.push(about(Occasion::BackendUp, Status::Resolved, details));
            }
            None => {}
        }
        if counts && self.flapping.begins(config, backend, now.at) {
            let details = Details::Flapping {
                transitions: config.flapping.transitions,
                within: config.flapping.window,
            };
            notices.push(about(Occasion::Flapping, Status::Firing, details));
        }
        let standing = Standing {
            service: Arc::clone(backend.service()),
            eligible,
            configured,
        };
        self.stands(config, &standing, now, notices);
    }

    fn stands(
        &mut self,
        config: &AlertConfig,
        standing: &Standing,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let is = Trouble {
            degraded: standing.is_below(config.degraded_below),
            all_down: standing.is_down(),
        };
        let was = match is == Trouble::default() {
            true => self.services.remove(&standing.service),
            false => self.services.insert(Arc::clone(&standing.service), is),
        };
        compared(config, standing, was.unwrap_or_default(), is, now, notices);
    }

    /// What there is to tell of a service in which the tier `stands_in` now, if any does.
    fn stood_in(
        &mut self,
        standing: &Standing,
        stands_in: Option<u32>,
        now: Moment,
    ) -> Option<Notice> {
        let service = &standing.service;
        let was = match stands_in {
            Some(priority) => self.standbys.insert(Arc::clone(service), priority),
            None => self.standbys.remove(service),
        };
        (was != stands_in).then(|| Notice {
            event: Occasion::Standby,
            status: if stands_in.is_some() {
                Status::Firing
            } else {
                Status::Resolved
            },
            time: now.wall,
            service: Some(Arc::clone(service)),
            backend: None,
            address: None,
            details: Details::Standby {
                priority: stands_in,
                eligible: standing.eligible,
                configured: standing.configured,
            },
        })
    }

    fn suspected(
        &mut self,
        backend: &BackendId,
        address: Address,
        turn: &Turn,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        match turn.suspect {
            true => self.suspects.insert(backend.clone()),
            false => self.suspects.remove(backend),
        };
        notices.push(suspect(backend, address, turn, now));
    }

    /// Takes in which files are rejected.
    fn files(
        &mut self,
        config: &AlertConfig,
        picture: &Picture,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let rejected = picture.rejected.iter().cloned();
        let rejected: HashSet<_> = rejected.filter(|it| is_about_file(config, it)).collect();
        let told = std::mem::replace(&mut self.rejected, rejected);
        for file in told.difference(&self.rejected) {
            notices.push(reload(file.clone(), Status::Resolved, &[], now));
        }
        for file in self.rejected.difference(&told) {
            notices.push(reload(file.clone(), Status::Firing, &[], now));
        }
    }

    /// Takes in which services and backends there are, and how the former stand.
    fn review(
        &mut self,
        config: &AlertConfig,
        picture: &Picture,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let services = picture.services.iter().map(|it| &it.service);
        let services: HashSet<_> = services.filter(|it| config.is_about(it)).collect();
        for (service, was) in self.services.extract_if(|it, _| !services.contains(it)) {
            for (event, was) in [
                (Occasion::Degraded, was.degraded),
                (Occasion::AllDown, was.all_down),
            ] {
                notices.extend(was.then(|| gone(event, &service, None, now)));
            }
        }
        for (service, _) in self.standbys.extract_if(|it, _| !services.contains(it)) {
            notices.push(gone(Occasion::Standby, &service, None, now));
        }
        let backends = picture.backends.iter().map(|it| &it.backend);
        let backends: HashSet<_> = backends
            .filter(|it| services.contains(it.service()))
            .collect();
        self.forget(|backend| !backends.contains(backend), now, notices);
        for standing in &picture.services {
            if config.is_about(&standing.service) {
                self.stands(config, standing, now, notices);
                let mut standbys = picture.standbys.iter();
                let stands_in = standbys.find(|(service, _)| *service == standing.service);
                notices.extend(self.stood_in(standing, stands_in.map(|it| it.1), now));
            }
        }
    }

    /// A backend that has left is neither down nor suspect any more.
    fn forget(
        &mut self,
        left: impl Fn(&BackendId) -> bool,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let told = [
            (Occasion::BackendUp, &mut self.down),
            (Occasion::Suspect, &mut self.suspects),
        ];
        for (event, told) in told {
            for backend in told.extract_if(&left) {
                notices.push(gone(event, backend.service(), Some(backend.name()), now));
            }
        }
        self.flapping.forget(left);
    }

    /// Tells of what has changed unheard.
    fn catch_up(
        &mut self,
        config: &AlertConfig,
        picture: &Picture,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let services = picture.services.iter().map(|it| (&it.service, it));
        let services: HashMap<_, _> = services.collect();
        for presence in &picture.backends {
            let Presence {
                backend,
                address,
                state,
                turn,
            } = presence;
            let Some(standing) = services.get(backend.service()) else {
                continue;
            };
            if !config.is_about(backend.service()) {
                continue;
            }
            let change = match (self.down.contains(backend), state) {
                (false, State::Down) => Some(Change::Down(UNHEARD.to_owned())),
                (true, State::Up) => Some(Change::Up),
                (true, State::Down | State::Unknown) | (false, State::Up | State::Unknown) => None,
            };
            if change.is_some() {
                let whom = Whom {
                    backend,
                    address: *address,
                    after: None,
                    eligible: standing.eligible,
                    configured: standing.configured,
                };
                self.changed(config, &whom, change, false, now, notices);
            }
            if turn.suspect != self.suspects.contains(backend) {
                self.suspected(backend, *address, turn, now, notices);
            }
        }
    }
}

/// Whether the configuration, or the file of backends of that service, is its business.
fn is_about_file(config: &AlertConfig, service: &Option<Arc<str>>) -> bool {
    service.as_ref().is_none_or(|it| config.is_about(it))
}

/// Why a backend is down, when that was not heard.
const UNHEARD: &str = "the log tells: too much happened at once";
#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::*;

    use super::super::drafting::GONE;
    use super::*;
    use crate::config::compile;
    use crate::health::TierChange;
    use crate::model::Cause;

    fn config(alert: &str) -> AlertConfig {
        let text = format!(
            "[[service]]\nname = \"web\"\nlisten = \"[::]:80\"\n[[service.backend]]\naddress = \"b:1\"\n\
             [[service]]\nname = \"db\"\nlisten = \"[::]:81\"\n[[service.backend]]\naddress = \"b:1\"\n\
             [[alert]]\nname = \"ops\"\nexec = \"/a\"\n{alert}\n"
        );
        let mut loaded = compile(&text, "f").unwrap_or_else(|wrong| panic!("{wrong}"));
        loaded.config.alerts.remove(0)
    }

    fn everything() -> AlertConfig {
        let mut config = config("on = \"suspect\"");
        config.on = Occasion::ALL.into();
        config
    }

    fn transition(service: &str, from: State, to: State, eligible: usize) -> Event {
        Event::Transition {
            backend: BackendId::new(service, "a"),
            address: "10.0.0.1:80".parse().unwrap(),
            from,
            to,
            cause: (to == State::Down).then_some(Cause::Refused.into()),
            after: Duration::from_secs(1),
            ejected: false,
            eligible,
            configured: 4,
        }
    }

    fn ejection(out: Option<Duration>, state: State) -> Event {
        Event::Ejection {
            backend: BackendId::new("web", "a"),
            address: "10.0.0.1:80".parse().unwrap(),
            out,
            state,
            eligible: 3,
            configured: 4,
        }
    }

    /// What is told of each event in turn, a second apart.
    fn told(config: &AlertConfig, events: &[Event]) -> Vec<Vec<(Occasion, Status)>> {
        let start = Instant::now();
        let mut watch = Watch::default();
        let mut second = 0;
        let observe = |event| {
            second += 1;
            let now = Moment {
                at: start + Duration::from_secs(second),
                wall: Duration::ZERO,
            };
            let notices = watch.observe(config, event, now);
            notices.iter().map(|it| (it.event, it.status)).collect()
        };
        events.iter().map(observe).collect()
    }

    fn picture(service: &str, eligible: usize, states: &[State]) -> Arc<Picture> {
        let turn = Turn {
            suspect: false,
            latency: Duration::ZERO,
            usual: Duration::ZERO,
            phi: 0.0,
        };
        let presence = |(name, &state): (&str, &State)| Presence {
            backend: BackendId::new(service, name),
            address: "10.0.0.1:80".parse().unwrap(),
            state,
            turn,
        };
        let standing = Standing {
            service: service.into(),
            eligible,
            configured: 4,
        };
        Arc::new(Picture {
            services: vec![standing],
            backends: ["a", "b"].into_iter().zip(states).map(presence).collect(),
            standbys: Vec::new(),
            rejected: Vec::new(),
        })
    }

    fn standing(service: &str, eligible: usize) -> Event {
        Event::Reloaded(picture(service, eligible, &[]))
    }

    use Occasion::{AllDown, BackendDown, BackendUp, Degraded, Flapping, ReloadFailed, Standby};
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
    fn degraded_and_all_down_are_told_as_they_begin_and_as_they_end() {
        let events = [
            transition("web", Up, Down, 2),
            transition("web", Up, Down, 1),
            transition("web", Up, Down, 0),
            transition("web", Down, Up, 1),
            transition("web", Down, Up, 2),
        ];
        let mut config = config("on = [\"degraded\", \"all-down\"]");
        assert_eq!(
            told(&config, &events),
            [
                vec![],
                vec![(Degraded, Firing)],
                vec![(AllDown, Firing)],
                vec![(AllDown, Resolved)],
                vec![(Degraded, Resolved)],
            ]
        );
        config.degraded_below = 10;
        assert_eq!(told(&config, &events[1..2]), [vec![]]);
    }

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
    fn a_rejected_reload_is_told_each_time_and_its_end_once() {
        let rejected = Event::Rejected {
            service: None,
            problems: ["x".repeat(10_000)].into(),
        };
        let config = config("on = \"reload-failed\"\nservices = \"db\"");
        let events = [
            rejected.clone(),
            rejected,
            standing("web", 4),
            standing("web", 4),
        ];
        let (fails, ends) = (vec![(ReloadFailed, Firing)], vec![(ReloadFailed, Resolved)]);
        assert_eq!(told(&config, &events), [fails.clone(), fails, ends, vec![]]);
    }

    #[test]
    fn a_rejected_list_is_told_with_its_service_until_it_is_good_or_gone() {
        let rejected = |service: &str| Event::Rejected {
            service: Some(service.into()),
            problems: ["x".into()].into(),
        };
        let accepted = Event::Accepted {
            service: "web".into(),
        };
        let config = config("on = \"reload-failed\"\nservices = \"web\"");
        let events = [
            rejected("db"),
            rejected("web"),
            accepted.clone(),
            accepted,
            rejected("web"),
            standing("db", 4),
        ];
        let (fails, ends) = (vec![(ReloadFailed, Firing)], vec![(ReloadFailed, Resolved)]);
        assert_eq!(
            told(&config, &events),
            [vec![], fails.clone(), ends.clone(), vec![], fails, ends]
        );
    }

    #[test]
    fn a_reload_may_make_a_service_degraded_or_take_it_away() {
        let config = config("on = \"degraded\"");
        let events = [standing("web", 1), standing("web", 1), standing("db", 4)];
        assert_eq!(
            told(&config, &events),
            [vec![(Degraded, Firing)], vec![], vec![(Degraded, Resolved)]]
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
    fn standbys_are_told_when_they_take_over_and_when_they_are_needed_no_more() {
        let config = config("on = \"standby\"\nservices = \"web\"");
        let tier = |stands_in| Event::Tier {
            service: "web".into(),
            change: TierChange::TakesOver {
                priority: 1,
                up: 0,
                needed: 1,
            },
            stands_in,
            eligible: 2,
            configured: 4,
        };
        let events = [
            tier(Some(1)),
            tier(Some(1)),
            tier(Some(2)),
            tier(None),
            tier(Some(1)),
            // A reload that has it stand down, and one that takes the service away.
            standing("web", 4),
            tier(Some(1)),
            standing("db", 4),
        ];
        let (fires, ends) = (vec![(Standby, Firing)], vec![(Standby, Resolved)]);
        assert_eq!(
            told(&config, &events),
            [
                fires.clone(),
                vec![],
                fires.clone(),
                ends.clone(),
                fires.clone(),
                ends.clone(),
                fires,
                ends
            ]
        );
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
    fn a_service_without_any_backend_is_down_and_stays_it_when_the_last_one_leaves() {
        let config = config("on = [\"degraded\", \"all-down\"]");
        let empty = |configured| Event::Membership {
            standing: Standing {
                service: "web".into(),
                eligible: 0,
                configured,
            },
            removed: [].into(),
        };
        let events = [empty(0), empty(2), empty(0), standing("web", 4)];
        let told = told(&config, &events);
        assert_eq!(told[0], [(Degraded, Firing), (AllDown, Firing)]);
        assert_eq!((told[1].len(), told[2].len()), (0, 0));
        assert_eq!(told[3], [(Degraded, Resolved), (AllDown, Resolved)]);
    }

    #[test]
    fn flapping_is_told_once_until_it_has_calmed_down() {
        let config = config("on = \"flapping\"\nflapping = 3\nflapping_window = \"10s\"");
        let start = Instant::now();
        let mut watch = Watch::default();
        let mut at = |second: u64| {
            let now = Moment {
                at: start + Duration::from_secs(second),
                wall: Duration::ZERO,
            };
            watch
                .observe(&config, &transition("web", Up, Down, 3), now)
                .len()
        };
        assert_eq!([at(0), at(1), at(2), at(3), at(4)], [0, 0, 1, 0, 0]);
        assert_eq!([at(20), at(21), at(22), at(23)], [0, 0, 1, 0]);
    }

    proptest! {
        #[test]
        fn what_begins_ends_before_it_begins_again(eligible in prop::collection::vec(0_usize..=4, 1..60)) {
            let events: Vec<_> = eligible
                .iter()
                .map(|&eligible| transition("web", Down, Up, eligible))
                .collect();
            let told: Vec<_> = told(&everything(), &events).into_iter().flatten().collect();
            for kind in [Degraded, AllDown] {
                let states = told.iter().filter(|(event, _)| *event == kind).map(|(_, status)| *status);
                for (index, status) in states.enumerate() {
                    prop_assert_eq!(status, if index % 2 == 0 { Firing } else { Resolved });
                }
            }
            prop_assert!(told.iter().filter(|(event, _)| *event == BackendUp).count() == eligible.len());
            prop_assert!(told.iter().filter(|(event, _)| *event == Flapping).count() <= 1);
        }

        #[test]
        fn it_flaps_exactly_when_so_many_transitions_fell_into_the_window(
            gaps in prop::collection::vec(0_u64..8, 1..60),
            transitions in 2_u32..6,
            window in 1_u64..20,
        ) {
            let mut config = config("on = \"flapping\"");
            config.flapping.transitions = transitions;
            config.flapping.window = Duration::from_secs(window);
            let start = Instant::now();
            let mut watch = Watch::default();
            let (mut second, mut seen, mut flapped) = (0, Vec::new(), false);
            for gap in gaps {
                second += gap;
                seen.push(second);
                let now = Moment { at: start + Duration::from_secs(second), wall: Duration::ZERO };
                let told = !watch.observe(&config, &transition("web", Up, Down, 3), now).is_empty();
                let flaps = seen.iter().filter(|&&at| second - at < window).count() >= transitions as usize;
                prop_assert_eq!(told, flaps && !flapped);
                flapped = flaps;
            }
        }
    }
}
