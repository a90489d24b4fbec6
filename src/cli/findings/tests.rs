//! What is told of services, backends, alerts and files, in the words that an operator reads.

use super::*;
use crate::api::{
    Admin, Backend, BackendsFile, Check, Count, Refusals, StandsIn, State, Throttling, Traffic,
    Unserved,
};
use crate::cli::condition::{Condition, since_when};
use crate::cli::testing::{BEFORE, NOW, up};

#[test]
fn a_service_that_is_full_is_wrong_and_one_that_awaits_its_fail_back_is_noted() {
    let full = Service {
        name: "web".into(),
        full_at: Some(2000),
        ..Service::default()
    };
    let awaiting = Service {
        name: "db".into(),
        awaits_fail_back: true,
        ..Service::default()
    };
    let view = View {
        at: NOW.into(),
        services: vec![awaiting, full],
        ..View::default()
    };
    let all = findings(&view);
    let told: Vec<_> = all
        .iter()
        .map(|it| (it.gravity, &*it.subject, &*it.lines[0]))
        .collect();
    let full =
        "all 2,000 sessions of max_connections in [service.limits] are in use: new clients wait";
    let waits = "a later tier stands in although those before it are back, until 'ballast service fail-back db'";
    assert_eq!(
        told,
        [(Gravity::Wrong, "web", full), (Gravity::Noted, "db", waits)]
    );
}

#[test]
fn a_tier_that_stands_in_is_noted() {
    let service = Service {
        name: "web".into(),
        stands_in: Some(StandsIn {
            priority: 1,
            since: BEFORE.into(),
        }),
        ..Service::default()
    };
    let expected = "web: the tier of priority 1 took over 10s ago, and serves for those before it";
    assert_eq!(told(&view(service)), [(Gravity::Noted, expected.into())]);
}

#[test]
fn a_check_that_cannot_run_is_wrong_however_its_backend_is() {
    let blind = |state| Backend {
        state,
        why: Some("its check cannot run: /x: not found".into()),
        check: Some(Check {
            not_run: Some("/x: not found".into()),
            ..Check::default()
        }),
        ..up("a")
    };
    let mut drained = blind(State::Up);
    drained.admin = Some(Admin {
        duty: "drain".into(),
        weight_percent: 100,
        ..Admin::default()
    });
    drained.why = Some("drained by an operator".into());
    for (backend, line) in [
        (
            blind(State::Up),
            "up for 10s: its check cannot run: /x: not found",
        ),
        (
            blind(State::Down),
            "down for 10s: its check cannot run: /x: not found",
        ),
        (drained, "its check cannot run: /x: not found"),
    ] {
        let service = Service {
            name: "web".into(),
            backends: vec![backend],
            ..Service::default()
        };
        let all = findings(&view(service));
        assert_eq!((all.len(), all[0].gravity), (1, Gravity::Wrong), "{all:?}");
        assert!(all[0].lines.iter().any(|it| it == line), "{all:?}");
    }
}

fn view(service: Service) -> View {
    View {
        at: NOW.into(),
        services: vec![service],
        ..View::default()
    }
}

fn told(view: &View) -> Vec<(Gravity, String)> {
    let line = |it: Finding| {
        (
            it.gravity,
            format!("{}: {}", it.subject, it.lines.join("; ")),
        )
    };
    findings(view).into_iter().map(line).collect()
}

#[test]
fn nothing_is_said_when_all_is_well() {
    let service = Service {
        name: "web".into(),
        backends: vec![up("a")],
        ..Service::default()
    };
    assert_eq!(told(&view(service)), []);
}

#[test]
fn what_is_wrong_comes_before_what_is_meant_and_says_since_when_and_who_is_hurt() {
    let service = Service {
        name: "web".into(),
        standing: Standing::Degraded,
        eligible: 1,
        configured: 3,
        unserved: Unserved {
            total: 3,
            last: Some("2026-11-21T12:00:09.000Z".into()),
            causes: vec![Count {
                cause: "no eligible backend".into(),
                total: 3,
                last: Some("2026-11-21T12:00:09.000Z".into()),
            }],
        },
        backends: vec![
            up("a"),
            Backend {
                admin: Some(Admin {
                    duty: "drain".into(),
                    weight_percent: 100,
                    since: Some("2026-11-21T12:00:08.000Z".into()),
                    by: Some("uid 0".into()),
                    deadline: Some("2026-11-21T12:01:10.000Z".into()),
                }),
                why: Some("drained by an operator".into()),
                serving: false,
                traffic: Traffic {
                    sessions: 2,
                    ..Traffic::default()
                },
                ..up("b")
            },
            Backend {
                state: State::Down,
                why: Some("refused".into()),
                traffic: Traffic {
                    sessions_hurt_total: 1,
                    sessions_moved_total: 4,
                    ..Traffic::default()
                },
                ..up("c")
            },
        ],
        ..Service::default()
    };
    let expected = [
        (
            Gravity::Wrong,
            "web: 1 of 3 backends serve; 3 clients were turned away so far, the last 1s ago: no eligible backend",
        ),
        (
            Gravity::Wrong,
            "web/c: down for 10s: refused; 1 lost so far, 4 moved elsewhere",
        ),
        (
            Gravity::Noted,
            "web/b: drained by an operator (uid 0) 2s ago; what is left is closed in 1m; 2 sessions still there",
        ),
    ];
    assert_eq!(
        told(&view(service)),
        expected.map(|(it, text)| (it, text.into()))
    );
}

#[test]
fn a_rejected_file_is_told_with_what_is_wrong_in_it() {
    let mut view = view(Service::default());
    view.process.configuration.path = Some("/etc/b.toml".into());
    view.process.configuration.rejected = Some(Rejection {
        at: BEFORE.into(),
        problems: vec!["b.toml:3:1: unknown key".into()],
    });
    let expected = "configuration: /etc/b.toml was rejected 10s ago: what runs is not what is in it; \
                    b.toml:3:1: unknown key";
    assert_eq!(told(&view), [(Gravity::Wrong, expected.to_owned())]);
}

#[test]
fn a_backends_file_that_is_rejected_is_told_with_what_serves_in_its_place() {
    let mut service = Service {
        name: "web".into(),
        backends_file: Some(BackendsFile {
            path: "/etc/web.toml".into(),
            backends: 2,
            rejected: None,
            missing: false,
        }),
        ..Service::default()
    };
    assert_eq!(told(&view(service.clone())), []);
    let file = service.backends_file.as_mut().unwrap();
    file.rejected = Some(Rejection {
        at: BEFORE.into(),
        problems: vec!["web.toml:3:1: unknown key".into()],
    });
    let expected = "web: /etc/web.toml was rejected 10s ago: its last good list stays, of 2 backends; \
                    web.toml:3:1: unknown key";
    let all = findings(&view(service.clone()));
    assert!(all[0].concerns("web") && !all[0].concerns("api"));
    assert_eq!(
        told(&view(service.clone())),
        [(Gravity::Wrong, expected.into())]
    );
    let file = service.backends_file.as_mut().unwrap();
    file.missing = true;
    let expected =
        "web: /etc/web.toml has vanished 10s ago: its last good list stays, of 2 backends";
    assert_eq!(
        told(&view(service.clone())),
        [(Gravity::Wrong, expected.into())]
    );
    service.backends_file.as_mut().unwrap().backends = 0;
    let expected = "web: /etc/web.toml is not there: none of its backends serves";
    assert_eq!(told(&view(service)), [(Gravity::Wrong, expected.into())]);
}

#[test]
fn what_waits_for_a_restart_is_noted() {
    let mut view = view(Service::default());
    let keys = ["runtime.workers", "log.format"].map(str::to_owned);
    view.process.configuration.needs_restart = keys.into();
    let expected = "configuration: waits for a restart: runtime.workers, log.format";
    assert_eq!(told(&view), [(Gravity::Noted, expected.to_owned())]);
}

#[test]
fn an_alert_that_was_lost_is_wrong_for_an_hour_and_noted_for_a_day() {
    let mut view = view(Service::default());
    view.process.alerts.lost = vec![LostAlert {
        alert: "ops".into(),
        at: BEFORE.into(),
        to: "hooks.example.org".into(),
        why: "no answer within 5s".into(),
        text: "lb1: web/a is down: refused (1 of 2 eligible)".into(),
    }];
    let expected = |past: &str| {
        format!(
            "daemon: alert ops failed {past} ago, to hooks.example.org: \
             no answer within 5s; the message was: lb1: web/a is down: refused (1 of 2 eligible)"
        )
    };
    assert_eq!(told(&view), [(Gravity::Wrong, expected("10s"))]);
    view.at = "2026-11-21T13:30:00.000Z".into();
    assert_eq!(told(&view), [(Gravity::Noted, expected("1h 30m"))]);
    view.at = "2026-11-22T12:00:00.000Z".into();
    assert_eq!(told(&view), []);
}

#[test]
fn a_shortage_is_wrong_and_told_with_its_cure() {
    let mut view = view(Service::default());
    view.process.short_of = Some(ShortOf::Descriptors);
    let expected = "daemon: short of descriptors: new clients wait; \
                    raise LimitNOFILE, or lower max_connections; 'ballast doctor' has the figures";
    assert_eq!(told(&view), [(Gravity::Wrong, expected.into())]);
}

#[test]
fn clients_that_rules_kept_out_are_told_by_rule() {
    let rule = |rule: &str, refused_total| Refusals {
        rule: rule.into(),
        refused_total,
        last: Some("2026-11-21T12:00:07.000Z".into()),
        would_be_total: 0,
    };
    let mut service = Service {
        name: "web".into(),
        refusals: vec![rule("access", 3), rule("max_per_source", 1)],
        ..Service::default()
    };
    service.refusals[1].last = Some("2026-11-21T11:59:30.000Z".into());
    let both = "web: 3 clients were not let in by access so far, the last 3s ago; \
                1 client was not let in by max_per_source so far, the last 40s ago";
    assert_eq!(
        told(&view(service.clone())),
        [(Gravity::Noted, both.into())]
    );
    // What was a minute ago or more is no news, whatever else is, and is still told of the service.
    service.refusals[0].last = Some("2026-11-21T11:59:10.000Z".into());
    let one = "web: 1 client was not let in by max_per_source so far, the last 40s ago";
    assert_eq!(told(&view(service.clone())), [(Gravity::Noted, one.into())]);
    assert_eq!(
        not_let_in(&service.refusals[0], NOW).as_deref(),
        Some("3 clients were not let in by access so far, the last 1m ago")
    );
}

#[test]
fn what_rules_do_is_not_told_under_what_is_wrong() {
    let recently = Some("2026-11-21T12:00:07.000Z".to_owned());
    let service = Service {
        name: "web".into(),
        unserved: Unserved {
            total: 2,
            last: recently.clone(),
            causes: Vec::new(),
        },
        refusals: vec![Refusals {
            rule: "access".into(),
            refused_total: 1,
            last: recently,
            would_be_total: 0,
        }],
        ..Service::default()
    };
    let expected = [
        (
            Gravity::Wrong,
            "web: 2 clients were turned away so far, the last 3s ago",
        ),
        (
            Gravity::Noted,
            "web: 1 client was not let in by access so far, the last 3s ago",
        ),
    ];
    assert_eq!(
        told(&view(service)),
        expected.map(|(it, text)| (it, text.into()))
    );
}

#[test]
fn a_headline_begins_with_the_cause_even_where_an_operator_wanted_it_so() {
    let disabled = Backend {
        admin: Some(Admin {
            duty: "maintenance".into(),
            weight_percent: 100,
            by: Some("uid 0".into()),
            ..Admin::default()
        }),
        why: Some("disabled by an operator".into()),
        serving: false,
        ..up("a")
    };
    let service = Service {
        name: "web".into(),
        standing: Standing::Down,
        why: Some("no backend may serve: clients are reset".into()),
        backends: vec![disabled.clone()],
        ..Service::default()
    };
    let mut other = up("b");
    (other.state, other.why) = (State::Down, Some("its checks fail: refused".into()));
    assert_eq!(reason(&other).as_deref(), Some("its checks fail: refused"));
    let api = Service {
        name: "api".into(),
        standing: Standing::Degraded,
        why: Some("1 of 2 backends should serve and does not".into()),
        backends: vec![up("a"), other],
        ..Service::default()
    };
    let view = View {
        services: vec![service, api],
        ..view(Service::default())
    };
    let expected = [
        "web/a: disabled by an operator (uid 0)",
        "web: no backend may serve: clients are reset",
        "api/b: down for 10s: its checks fail: refused",
        "api: 1 of 2 backends should serve and does not",
    ];
    assert_eq!(headlines(&findings(&view), 9), expected);
    assert_eq!(headlines(&findings(&view), 3), expected[..3]);
    let why = reason(&disabled);
    assert_eq!(why.as_deref(), Some("disabled by an operator (uid 0)"));
}

#[test]
fn a_backend_that_serves_is_no_cause() {
    let weighed = Backend {
        admin: Some(Admin {
            duty: "serve".into(),
            weight_percent: 40,
            ..Admin::default()
        }),
        ..up("a")
    };
    let mut service = Service {
        name: "web".into(),
        unserved: Unserved {
            total: 1,
            last: Some("2026-11-21T12:00:09.000Z".into()),
            causes: Vec::new(),
        },
        backends: vec![weighed],
        ..Service::default()
    };
    let turned_away = "web: 1 client was turned away so far, the last 1s ago";
    let told = |service: &Service| headlines(&findings(&view(service.clone())), 5);
    assert_eq!(told(&service), [turned_away]);
    // A tier that stands by is not missed, whatever its weight.
    service.backends[0].serving = false;
    assert_eq!(told(&service), [turned_away]);
    let mut drained = up("b");
    drained.serving = false;
    drained.why = Some("drained by an operator".into());
    drained.admin = Some(Admin {
        duty: "drain".into(),
        weight_percent: 100,
        ..Admin::default()
    });
    service.backends.push(drained);
    let cause = "web/b: drained by an operator";
    assert_eq!(told(&service), [cause, turned_away]);
}

#[test]
fn what_an_operator_has_said_is_told_with_who_and_when() {
    let by_operator = |weight_percent| {
        Some(Admin {
            duty: "serve".into(),
            weight_percent,
            since: Some("2026-11-21T12:00:08.000Z".into()),
            by: Some("uid 0".into()),
            deadline: None,
        })
    };
    let service = Service {
        name: "web".into(),
        backends: vec![
            Backend {
                admin: by_operator(0),
                serving: false,
                why: Some("given no weight by an operator".into()),
                ..up("a")
            },
            Backend {
                admin: by_operator(40),
                ..up("b")
            },
        ],
        ..Service::default()
    };
    assert_eq!(
        since_when(&service.backends[0]),
        Some("2026-11-21T12:00:08.000Z")
    );
    let expected = [
        "web/a: given no weight by an operator (uid 0) 2s ago",
        "web/b: up for 10s; given 40% of its weight by an operator (uid 0) 2s ago",
    ];
    assert_eq!(
        told(&view(service)),
        expected.map(|text| (Gravity::Noted, text.into()))
    );
}

#[test]
fn a_deadline_is_told_while_somebody_is_left_to_meet_it() {
    let mut backend = Backend {
        admin: Some(Admin {
            duty: "drain".into(),
            deadline: Some("2026-11-21T12:01:10.000Z".into()),
            ..Admin::default()
        }),
        ..up("a")
    };
    assert_eq!(deadline(&backend, NOW), None);
    backend.traffic.sessions = 1;
    assert!(deadline(&backend, NOW).is_some());
}

#[test]
fn a_backend_with_all_its_sessions_is_full() {
    let mut backend = Backend {
        max_connections: Some(3),
        ..up("a")
    };
    backend.traffic.sessions = 2;
    assert_eq!(Condition::of(&backend), Condition::Up);
    backend.traffic.sessions = 3;
    let service = Service {
        name: "web".into(),
        backends: vec![backend],
        ..Service::default()
    };
    let expected = "web/a: full: it has the 3 sessions that it may have";
    assert_eq!(told(&view(service)), [(Gravity::Noted, expected.into())]);
}

#[test]
fn sessions_that_caps_slowed_down_are_told_by_cap_and_no_finding() {
    let cap = |cap: &str, slowed_total, slowed_seconds_total| Throttling {
        cap: cap.into(),
        slowed_total,
        slowed_seconds_total,
        ..Throttling::default()
    };
    let mut service = Service {
        throttling: vec![cap("to_client", 10, 200.0), cap("to_backend", 0, 0.0)],
        ..Service::default()
    };
    let expected = "slowed down so far: 10 sessions by to_client, 3m 20s together";
    assert_eq!(slowed_down(&service).as_deref(), Some(expected));
    assert_eq!(told(&view(service.clone())), []);
    service.throttling.remove(0);
    assert_eq!(slowed_down(&service), None);
}

#[test]
fn a_full_queue_is_wrong() {
    let mut service = Service::default();
    service.queue.size = 2;
    service.queue.waiting = 1;
    let some = ": 1 client waits for a place, of at most 2";
    assert_eq!(
        told(&view(service.clone())),
        [(Gravity::Noted, some.into())]
    );
    service.queue.waiting = 2;
    let all = ": 2 clients wait for a place; the queue (2) is full";
    assert_eq!(told(&view(service)), [(Gravity::Wrong, all.into())]);
}

#[test]
fn each_cause_says_when_it_was_and_the_latest_comes_first() {
    let count = |cause: &str, total, last: &str| Count {
        cause: cause.into(),
        total,
        last: Some(last.into()),
    };
    let service = Service {
        unserved: Unserved {
            total: 1_012,
            last: Some("2026-11-21T12:00:09.000Z".into()),
            causes: vec![
                count("queue full", 1_000, "2026-11-21T11:55:10.000Z"),
                count("refused", 12, "2026-11-21T12:00:09.000Z"),
            ],
        },
        ..Service::default()
    };
    assert_eq!(
        turned_away(&service, NOW),
        "1,012 clients were turned away so far, the last 1s ago: 12 refused, 1,000 queue full (5m ago)"
    );
}

#[test]
fn a_client_that_was_turned_away_long_ago_is_history() {
    let mut service = Service {
        unserved: Unserved {
            total: 3,
            last: Some("2026-11-21T11:00:00.000Z".into()),
            causes: Vec::new(),
        },
        ..Service::default()
    };
    assert_eq!(told(&view(service.clone())), []);
    service.standing = Standing::Down;
    let down = ": nobody serves".to_owned();
    assert_eq!(told(&view(service)), [(Gravity::Wrong, down)]);
}
