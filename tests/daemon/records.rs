//! One line per session: who, where, how much, how long, and how it ended.

use crate::support::{
    Backend, Config, Daemon, Held, Meeting, Pattern, Peer, Service, Signal, ask_name, echo_once,
    eventually, words,
};

#[test]
fn a_session_leaves_one_line_with_its_account() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(
        &Config::of(Service::new("web").backend("only", meeting.address())).log_every_session(),
    );
    let address = daemon.address("web");
    let (mut client, mut backend) = meeting.session(address);
    let client_address = client.local_addr().unwrap();
    let (up, down) = (Pattern::new(1, 92), Pattern::new(2, 5000));
    up.send(&mut client).unwrap();
    client.half_close();
    up.expect(&mut backend);
    down.send(&mut backend).unwrap();
    drop(backend);
    down.expect_then_end(&mut client);
    let lines = daemon.wait_for_sessions(0, 1);
    let line = &lines[0];
    assert_eq!(line.text("client"), client_address.to_string());
    assert_eq!(line.text("listener"), address.to_string());
    assert_eq!(line.text("service"), "web");
    assert_eq!(line.text("backend"), "only");
    // Eight bytes of the meeting's own come before the pattern.
    assert_eq!(line.number("to_backend"), 100);
    assert_eq!(line.number("to_client"), 5000);
    assert_eq!(line.number("attempts"), 1);
    assert!(line.has("cause", words::FINISHED), "{}", line.raw());
    for key in ["connect_ms", "duration_ms"] {
        assert!(line.text(key).parse::<f64>().is_ok(), "{}", line.raw());
    }
}

#[test]
fn by_default_only_failed_sessions_leave_a_line() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        Service::new("web").backend("only", backend.address()),
    ));
    let address = daemon.address("web");
    for _ in 0..10 {
        ask_name(address).unwrap();
    }
    let mut broken = crate::support::connect(address).unwrap();
    crate::support::read_name(&mut broken).unwrap();
    broken.reset();
    daemon.wait_for_sessions(0, 1);
    assert_eq!(daemon.sessions(0).len(), 1);
}

#[test]
fn every_session_of_many_is_counted_once() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(
        &Config::of(Service::new("web").backend("only", backend.address())).log_every_session(),
    );
    let address = daemon.address("web");
    for number in 0..100 {
        echo_once(address, number, number * 100).unwrap();
    }
    let lines = daemon.wait_for_sessions(0, 100);
    assert_eq!(lines.len(), 100);
    let sent: u64 = lines.iter().map(|line| line.number("to_backend")).sum();
    assert_eq!(sent, (0..100).map(|number| number * 100).sum::<u64>());
    assert!(lines.iter().all(|line| line.has("cause", words::FINISHED)));
}

#[test]
fn session_lines_can_be_turned_off_and_on_by_a_reload() {
    let backend = Backend::named("only");
    let config = Config::of(Service::new("web").backend("only", backend.address()));
    let daemon = Daemon::start(&config.clone().log("sessions", "off"));
    let address = daemon.address("web");
    ask_name(address).unwrap();
    daemon.reload(&config.log_every_session());
    ask_name(address).unwrap();
    daemon.wait_for_sessions(0, 1);
    assert_eq!(daemon.sessions(0).len(), 1);
}

#[test]
fn a_report_on_demand_has_a_line_for_every_backend() {
    let (a, mut b) = (Backend::named("a"), Backend::named("b"));
    b.refuse();
    let service = |name| {
        Service::new(name)
            .quick_health()
            .backend("a", a.address())
            .backend("b", b.address())
    };
    let daemon = Daemon::start(&Config::of(service("web")).service(service("other")));
    for name in ["web", "other"] {
        daemon.log().wait(0, "every first verdict", |line| {
            line.says(words::BACKEND_DOWN) && line.has("service", name)
        });
        daemon.log().wait(0, "every first verdict", |line| {
            line.says(words::BACKEND_UP) && line.has("service", name)
        });
    }
    let address = daemon.address("web");
    let held = Held::open(address);
    for _ in 0..3 {
        ask_name(address).unwrap();
    }
    // A session stops counting as one a moment after its client saw the end.
    eventually("the report is complete", || {
        let mark = daemon.log().mark();
        daemon.signal(Signal::USR1);
        let report = daemon
            .log()
            .wait(mark, "a report", |line| line.says(words::REPORT));
        let lines = eventually("a line for every backend", || {
            Some(daemon.log().all(mark, |line| line.says(words::BACKEND)))
                .filter(|lines| lines.len() >= 4)
        });
        assert_eq!(lines.len(), 4, "{lines:?}");
        let of = |service, backend| {
            let mut found = lines
                .iter()
                .filter(|line| line.has("service", service) && line.has("backend", backend));
            let line = found.next().expect("each backend has a line");
            assert!(found.next().is_none(), "{lines:?}");
            line
        };
        for service in ["web", "other"] {
            assert_eq!(of(service, "a").text("state"), "up");
            assert_eq!(of(service, "b").text("state"), "down");
        }
        for line in [of("web", "b"), of("other", "a"), of("other", "b")] {
            assert_eq!((line.number("sessions"), line.number("served")), (0, 0));
        }
        let busy = of("web", "a");
        let counts = (busy.number("sessions"), busy.number("served"));
        (counts == (1, 4) && report.number("sessions") == 1).then_some(())
    });
    held.part();
}
