//! What of all that happens an alert tells of: events in, notices out. Pure: the time comes in.
//!
//! Every alert has a watch of its own, since its thresholds are its own: what is degraded for one
//! alert is not for another.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Details, Notice, Status};
use crate::config::{AlertConfig, Occasion, written};
use crate::control::{Event, Standing};
use crate::health::{Failover, State, Turn};
use crate::model::BackendId;

/// What one alert remembers.
#[derive(Debug, Default)]
pub(super) struct Watch {
    services: HashMap<Arc<str>, Known>,
    changes: HashMap<BackendId, Changes>,
    rejected: bool,
}

/// What was last told of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Known {
    degraded: bool,
    all_down: bool,
}

/// The latest transitions of a backend.
#[derive(Debug, Default)]
struct Changes {
    at: VecDeque<Instant>,
    told: bool,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Since 1970.
    pub(super) wall: Duration,
}

/// A backend that has changed, and how its service stands since.
struct Whom<'a> {
    backend: &'a BackendId,
    address: SocketAddr,
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
                eligible,
                configured,
            } => {
                let change = match (from, to) {
                    (_, State::Down) => {
                        let why = cause.as_ref().map(ToString::to_string);
                        Some(Change::Down(why.unwrap_or_default()))
                    }
                    (State::Down, State::Up) => Some(Change::Up),
                    // A first good verdict is no news.
                    (State::Unknown | State::Up | State::Down, State::Up | State::Unknown) => None,
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
                eligible,
                configured,
            } => {
                let change = out.map_or(Change::Up, |out| {
                    Change::Down(format!("its sessions fail; out for {}", written(out)))
                });
                let whom = Whom {
                    backend,
                    address: *address,
                    after: None,
                    eligible: *eligible,
                    configured: *configured,
                };
                self.changed(config, &whom, Some(change), true, now, &mut notices);
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
                    notices.push(suspect(backend, *address, turn, now));
                }
            }
            Event::Reloaded { services } => {
                if std::mem::take(&mut self.rejected) {
                    notices.push(reload(Status::Resolved, &[], now));
                }
                self.forget(config, services, now, &mut notices);
                for standing in services.iter() {
                    if config.is_about(&standing.service) {
                        self.stands(config, standing, now, &mut notices);
                    }
                }
            }
            Event::Membership(standing) => {
                if config.is_about(&standing.service) {
                    self.stands(config, standing, now, &mut notices);
                }
            }
            Event::Rejected { problems } => {
                self.rejected = true;
                notices.push(reload(Status::Firing, problems, now));
            }
            Event::Listening { .. } | Event::Ready | Event::Missed { .. } | Event::Tier { .. } => {}
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
                let details = Details::Down {
                    why,
                    after,
                    eligible,
                    configured,
                };
                notices.push(about(Occasion::BackendDown, Status::Firing, details));
            }
            Some(Change::Up) => {
                let details = Details::Up {
                    after,
                    eligible,
                    configured,
                };
                notices.push(about(Occasion::BackendUp, Status::Resolved, details));
            }
            None => {}
        }
        if counts && self.flaps(config, backend, now.at) {
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

    /// Whether this transition is the one by which `backend` begins to flap. It is told once, and
    /// again only after it has calmed down.
    fn flaps(&mut self, config: &AlertConfig, backend: &BackendId, now: Instant) -> bool {
        let window = config.flapping.window;
        let recent = |at: &Instant| now.saturating_duration_since(*at) < window;
        if self.changes.len() >= MANY && !self.changes.contains_key(backend) {
            self.changes
                .retain(|_, changes| changes.at.back().is_some_and(recent));
        }
        let changes = self.changes.entry(backend.clone()).or_default();
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

    fn stands(
        &mut self,
        config: &AlertConfig,
        standing: &Standing,
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let (eligible, configured) = (standing.eligible, standing.configured);
        let is = Known {
            degraded: eligible * 100 < configured * usize::from(config.degraded_below),
            all_down: eligible == 0 && configured > 0,
        };
        let was = match is == Known::default() {
            true => self.services.remove(&standing.service),
            false => self.services.insert(Arc::clone(&standing.service), is),
        };
        compared(config, standing, was.unwrap_or_default(), is, now, notices);
    }

    /// A service that is gone is neither degraded nor down any more.
    fn forget(
        &mut self,
        config: &AlertConfig,
        services: &[Standing],
        now: Moment,
        notices: &mut Vec<Notice>,
    ) {
        let there: HashSet<&Arc<str>> = services
            .iter()
            .map(|it| &it.service)
            .filter(|name| config.is_about(name))
            .collect();
        for (service, was) in self.services.extract_if(|name, _| !there.contains(name)) {
            let gone = Standing {
                service,
                eligible: 0,
                configured: 0,
            };
            compared(config, &gone, was, Known::default(), now, notices);
        }
        self.changes
            .retain(|backend, _| there.contains(backend.service()));
    }
}

/// What there is to tell of a service that stood as it `was` and stands as it `is`.
fn compared(
    config: &AlertConfig,
    standing: &Standing,
    was: Known,
    is: Known,
    now: Moment,
    notices: &mut Vec<Notice>,
) {
    let (eligible, configured) = (standing.eligible, standing.configured);
    let below_percent = config.degraded_below;
    let all = [
        (
            Occasion::Degraded,
            was.degraded,
            is.degraded,
            Details::Degraded {
                eligible,
                configured,
                below_percent,
            },
        ),
        (
            Occasion::AllDown,
            was.all_down,
            is.all_down,
            Details::AllDown { configured },
        ),
    ];
    for (event, was, is, details) in all {
        if was != is {
            notices.push(Notice {
                event,
                status: if is { Status::Firing } else { Status::Resolved },
                time: now.wall,
                service: Some(Arc::clone(&standing.service)),
                backend: None,
                address: None,
                details,
            });
        }
    }
}

fn over(failover: &Failover, now: Moment) -> Notice {
    let since = now.at.saturating_duration_since(failover.began);
    Notice {
        event: Occasion::Failover,
        status: Status::Firing,
        time: now.wall,
        service: Some(Arc::clone(failover.backend.service())),
        backend: Some(Arc::clone(failover.backend.name())),
        address: Some(failover.address),
        details: Details::Failover {
            why: failover.why.to_string(),
            began: now.wall.saturating_sub(since),
            detected: failover.after(failover.detected),
            moved: failover.after(failover.moved),
            total: failover.total(),
            sessions_hurt: failover.sessions_hurt,
            sessions_moved: failover.sessions_moved,
            eligible: failover.eligible,
            configured: failover.configured,
        },
    }
}

fn suspect(backend: &BackendId, address: SocketAddr, turn: &Turn, now: Moment) -> Notice {
    Notice {
        event: Occasion::Suspect,
        status: if turn.suspect {
            Status::Firing
        } else {
            Status::Resolved
        },
        time: now.wall,
        service: Some(Arc::clone(backend.service())),
        backend: Some(Arc::clone(backend.name())),
        address: Some(address),
        details: Details::Suspect {
            latency: turn.latency,
            usual: turn.usual,
            phi: turn.phi.round(),
        },
    }
}

fn reload(status: Status, problems: &[String], now: Moment) -> Notice {
    let short = |problem: &String| problem.chars().take(MOST_OF_A_PROBLEM).collect();
    Notice {
        event: Occasion::ReloadFailed,
        status,
        time: now.wall,
        service: None,
        backend: None,
        address: None,
        details: Details::Reload {
            problems: problems.iter().take(MOST_PROBLEMS).map(short).collect(),
        },
    }
}

/// Problems of a file that an alert tells; the log has all of them.
const MOST_PROBLEMS: usize = 10;
/// Characters of each.
const MOST_OF_A_PROBLEM: usize = 400;
/// Backends with transitions, above which those that are calm again are forgotten first.
const MANY: usize = 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::compile;
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
            eligible,
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

    fn standing(service: &str, eligible: usize) -> Event {
        Event::Reloaded {
            services: [Standing {
                service: service.into(),
                eligible,
                configured: 4,
            }]
            .into(),
        }
    }

    use Occasion::{AllDown, BackendDown, BackendUp, Degraded, Flapping, ReloadFailed};
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
    fn a_reload_may_make_a_service_degraded_or_take_it_away() {
        let config = config("on = \"degraded\"");
        let events = [standing("web", 1), standing("web", 1), standing("db", 4)];
        assert_eq!(
            told(&config, &events),
            [vec![(Degraded, Firing)], vec![], vec![(Degraded, Resolved)]]
        );
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
