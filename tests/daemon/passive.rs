//! Evidence from sessions: a backend that fails them is out long before its next probe is due.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{
    Backend, BlackHole, Config, Daemon, ProcessBackend, Service, Signal, Storm, ask_name, words,
};

/// A service that learns from sessions only, in front of one backend that will fail and three that
/// will not.
fn watched(name: &str, failing: std::net::SocketAddr, others: &[Backend]) -> Service {
    let service = Service::new(name).rare_health().backend("failing", failing);
    others.iter().enumerate().fold(service, |service, (n, it)| {
        service.backend(&format!("other-{n}"), it.address())
    })
}

fn others() -> Vec<Backend> {
    ["b", "c", "d"].map(Backend::named).into()
}

#[test]
fn a_backend_that_refuses_is_out_at_once_and_no_client_notices() {
    let mut failing = ProcessBackend::named("failing");
    let others = others();
    let daemon = Daemon::start(&Config::of(watched("web", failing.address(), &others)));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    let storm = Storm::start(8, move |_| ask_name(address));
    storm.pass(200);

    let mark = daemon.log().mark();
    let before = Instant::now();
    let after = failing.kill();
    let down = daemon.wait_until_down(mark, "failing");
    storm.pass(200);
    // Those that were connected when it died are lost with it; nobody after them.
    let tally = storm.finish();
    tally.assert_only_in_flight(&[(before, after)]);
    assert_eq!(down.text("eligible"), "3/4");
    assert!(down.text("why").contains(words::REFUSED), "{}", down.raw());
    assert!(
        down.text("evidence").starts_with("3 failed within"),
        "{}",
        down.raw()
    );
    let decision = daemon.wait_for(mark, words::SESSIONS_FAIL, "backend", "failing");
    assert_eq!(decision.text("decision"), "probe at once");
}

#[test]
fn a_silent_backend_is_out_after_a_connect_and_a_probe_and_no_client_fails() {
    let mut hole = BlackHole::new();
    let others = others();
    let service = watched("web", hole.address(), &others).timeout("connect", "500ms");
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    let mark = daemon.log().mark();
    hole.swallow();
    let storm = Storm::start(16, move |_| ask_name(address));
    let down = daemon.wait_until_down(mark, "failing");
    assert!(
        down.text("why").contains(words::TIMED_OUT),
        "{}",
        down.raw()
    );
    assert!(
        down.text("evidence").contains(words::TIMED_OUT),
        "{}",
        down.raw()
    );
    storm.pass(200);
    storm.finish().assert_flawless();
}

/// A server that takes a session's first bytes and resets it.
fn resetting() -> Backend {
    Backend::serve(|mut stream: TcpStream| {
        let mut byte = [0];
        if stream.read_exact(&mut byte).is_ok() {
            crate::support::abort(stream);
        }
    })
}

/// One session that says something first, and whether it was answered.
fn ask(address: std::net::SocketAddr) -> bool {
    let mut stream = crate::support::connect(address).unwrap();
    stream.write_all(b"hello").unwrap();
    stream.read(&mut [0]).is_ok_and(|read| read > 0)
}

#[test]
fn a_backend_that_resets_its_sessions_and_answers_probes_stays() {
    let failing = resetting();
    let others = others();
    let daemon = Daemon::start(&Config::of(watched("web", failing.address(), &others)));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    let mut failed = 0;
    while failed < 3 {
        failed += usize::from(!ask(address));
    }
    let decision = daemon.wait_for(
        0,
        words::SESSIONS_FAIL,
        "decision",
        "none: a probe has succeeded",
    );
    assert!(
        decision.text("evidence").ends_with("3 reset"),
        "{}",
        decision.raw()
    );
}

#[test]
fn without_a_probe_it_is_ejected_for_a_while_that_grows() {
    let failing = resetting();
    let others = others();
    let service = watched("web", failing.address(), &others)
        .passive("confirm", false)
        .passive("eject_time", "300ms");
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    let mut mark = daemon.log().mark();
    for out in ["300ms", "600ms"] {
        let mut failed = 0;
        while failed < 3 {
            failed += usize::from(!ask(address));
        }
        let ejected = daemon.wait_for(mark, words::EJECTED, "backend", "failing");
        assert_eq!(ejected.text("eligible"), "3/4");
        assert_eq!(ejected.text("out"), out);
        let over = daemon.wait_for(mark, words::EJECTION_OVER, "backend", "failing");
        assert_eq!(over.text("eligible"), "4/4");
        mark = daemon.log().mark();
    }
}

#[test]
fn the_cap_and_the_last_backend_hold_whatever_sessions_say() {
    let mut failing: Vec<_> = (0..4).map(|n| Backend::named(&format!("b{n}"))).collect();
    let mut service = Service::new("web").rare_health().key("retries", 8);
    for (n, backend) in failing.iter().enumerate() {
        service = service.backend(&format!("b{n}"), backend.address());
    }
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    for n in 0..4 {
        daemon.wait_until_up(0, &format!("b{n}"));
    }
    failing.iter_mut().for_each(Backend::refuse);
    let spared = |line: &crate::support::Line| {
        line.says(words::SESSIONS_FAIL) && line.text("decision").starts_with("none: max_ejected")
    };
    while daemon.log().all(0, spared).is_empty() {
        assert!(ask_name(address).is_err());
    }
    let down = daemon.log().all(0, |line| line.says(words::BACKEND_DOWN));
    assert_eq!(down.len(), 2);
}

#[test]
fn turned_off_it_only_counts() {
    let mut failing = Backend::named("failing");
    let others = others();
    let service = watched("web", failing.address(), &others).passive("enabled", false);
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    failing.refuse();
    for _ in 0..40 {
        ask_name(address).unwrap();
    }
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    let line = daemon.wait_for(mark, words::BACKEND, "backend", "failing");
    assert_eq!(line.number("connect_failures"), 10);
    assert_eq!(line.text("ejected"), "false");
    let said = |line: &crate::support::Line| {
        line.says(words::SESSIONS_FAIL) || line.says(words::BACKEND_DOWN)
    };
    assert!(daemon.log().all(0, said).is_empty());
}

#[test]
fn a_reload_that_turns_it_off_lets_the_ejected_in_again() {
    let failing = resetting();
    let others = others();
    let service = watched("web", failing.address(), &others)
        .passive("confirm", false)
        .passive("eject_time", "1h");
    let daemon = Daemon::start(&Config::of(service.clone()));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    let mut failed = 0;
    while failed < 3 {
        failed += usize::from(!ask(address));
    }
    daemon.wait_for(0, words::EJECTED, "backend", "failing");
    daemon.reload(&Config::of(service.passive("enabled", false)));
    let started = Instant::now();
    while ask(address) {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "it is still out"
        );
    }
}

#[test]
fn who_was_ejected_is_let_in_when_nobody_else_is_left() {
    let failing = resetting();
    let other = Backend::named("b");
    let alone = watched("web", failing.address(), &[])
        .passive("confirm", false)
        .passive("eject_time", "1h");
    let both = alone.clone().backend("other", other.address());
    let daemon = Daemon::start(&Config::of(both));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    let mut failed = 0;
    while failed < 3 {
        failed += usize::from(!ask(address));
    }
    daemon.wait_for(0, words::EJECTED, "backend", "failing");
    let mark = daemon.log().mark();
    // A reload that left nobody would be refused.
    daemon.reload(&Config::of(alone));
    let over = daemon.wait_for(mark, words::EJECTION_OVER, "backend", "failing");
    assert_eq!(over.text("eligible"), "1/1");
    let before = failing.accepted();
    ask(address);
    assert!(failing.accepted() > before);
}
