//! Heartbeats: who is taken out and returns, what is logged, and what it costs the clients.

use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Backend, BlackHole, Config, Daemon, End, Peer, ProcessBackend, Service, Storm, ask_name,
    connect, eventually, words,
};

#[test]
fn a_killed_backend_costs_only_its_own_sessions_and_returns() {
    let mut killed = ProcessBackend::named("killed");
    let others: Vec<_> = ["b", "c", "d"]
        .map(|name| (name, Backend::named(name)))
        .into();
    let mut service = Service::new("web")
        .strategy("round-robin")
        .quick_health()
        .backend("killed", killed.address());
    for (name, backend) in &others {
        service = service.backend(name, backend.address());
    }
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    let clients = 16;
    let storm = Storm::start(clients, move |_| ask_name(address));
    storm.pass(500);
    assert!(storm.so_far().by("killed") > 0);

    let mark = daemon.log().mark();
    let before = Instant::now();
    let after = killed.kill();
    daemon.wait_until_down(mark, "killed");
    storm.pass(200);
    let by_the_dead = storm.so_far().by("killed");
    storm.pass(500);
    assert_eq!(
        storm.so_far().by("killed"),
        by_the_dead,
        "traffic to a dead backend"
    );

    killed.start();
    daemon.wait_until_up(mark, "killed");
    storm.pass(1000);
    let tally = storm.finish();
    assert!(
        tally.by("killed") > by_the_dead,
        "no traffic after its return: {tally:?}"
    );
    let failed = tally.assert_only_in_flight(&[(before, after)]);
    assert!(failed as u64 <= clients, "{failed} failed: {tally:?}");
}

#[test]
fn flaps_under_load_cost_no_session_beyond_those_in_flight() {
    let mut flapping = Backend::named("flapping");
    let steady = Backend::named("steady");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .strategy("least-connections")
            .quick_health()
            .backend("flapping", flapping.address())
            .backend("steady", steady.address()),
    ));
    let address = daemon.address("web");
    let storm = Storm::start(8, move |_| ask_name(address));
    let mut moments = Vec::new();
    for _ in 0..10 {
        storm.pass(50);
        let mark = daemon.log().mark();
        let before = Instant::now();
        flapping.refuse();
        moments.push((before, Instant::now()));
        daemon.wait_until_down(mark, "flapping");
        storm.pass(50);
        let mark = daemon.log().mark();
        flapping.answer();
        daemon.wait_until_up(mark, "flapping");
    }
    storm.finish().assert_only_in_flight(&moments);
    let count = |message| {
        let lines = daemon.log().all(0, |line| {
            line.says(message) && line.has("backend", "flapping")
        });
        lines.len()
    };
    assert_eq!(count(words::BACKEND_DOWN), 10);
}

#[test]
fn a_transition_is_logged_once_with_its_reason() {
    let mut a = Backend::named("a");
    let b = Backend::named("b");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .quick_health()
            .backend("a", a.address())
            .backend("b", b.address()),
    ));
    // Their first verdicts are transitions too.
    daemon.wait_until_up(0, "a");
    daemon.wait_until_up(0, "b");
    let mark = daemon.log().mark();
    a.refuse();
    let down = daemon.wait_until_down(mark, "a");
    assert_eq!(down.text("service"), "web");
    assert!(down.text("why").contains(words::REFUSED), "{}", down.raw());
    assert_eq!(down.text("eligible"), "1/2");
    assert!(!down.text("after").is_empty());
    a.answer();
    let up = daemon.wait_until_up(mark, "a");
    assert_eq!(up.text("eligible"), "2/2");
    let transitions = daemon.log().all(mark, |line| {
        line.says(words::BACKEND_DOWN) || line.says(words::BACKEND_UP)
    });
    assert_eq!(transitions.len(), 2, "{transitions:?}");
}

#[test]
fn a_backend_that_answers_nothing_is_down_as_timed_out() {
    let mut hole = BlackHole::new();
    hole.swallow();
    let alive = Backend::named("alive");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .health("interval", "500ms")
            .health("timeout", "300ms")
            .backend("hole", hole.address())
            .backend("alive", alive.address()),
    ));
    let down = daemon.wait_until_down(0, "hole");
    assert!(
        down.text("why").contains(words::TIMED_OUT),
        "{}",
        down.raw()
    );
}

#[test]
fn backends_that_a_reload_brings_keep_no_other_from_being_probed() {
    let mut good = Backend::named("good");
    let service = Service::new("web")
        .health("interval", "200ms")
        .health("timeout", "500ms")
        .health("fall", 2)
        .backend("good", good.address());
    let daemon = Daemon::start(&Config::of(service.clone()));
    daemon.wait_until_up(0, "good");
    let mut holes: Vec<_> = (0..20).map(|_| BlackHole::new()).collect();
    // To know that a hole swallows takes a moment.
    thread::scope(|threads| {
        for hole in &mut holes {
            threads.spawn(|| hole.swallow());
        }
    });
    let mark = daemon.log().mark();
    let service = holes
        .iter()
        .enumerate()
        .fold(service, |service, (n, hole)| {
            service.backend(&format!("hole-{n}"), hole.address())
        });
    daemon.reload(&Config::of(service));
    for n in 0..20 {
        daemon.wait_until_down(mark, &format!("hole-{n}"));
    }
    let mark = daemon.log().mark();
    good.refuse();
    let since = Instant::now();
    daemon.wait_until_down(mark, "good");
    let took = since.elapsed();
    assert!(took < Duration::from_secs(3), "down after {took:?}");
}

#[test]
fn the_first_verdict_decides_at_once() {
    let mut dead = Backend::named("dead");
    dead.refuse();
    let alive = Backend::named("alive");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .health("interval", "1s")
            .health("fall", 1000)
            .backend("dead", dead.address())
            .backend("alive", alive.address()),
    ));
    daemon.wait_until_down(0, "dead");
}

#[test]
fn with_all_backends_down_a_client_is_reset_at_once() {
    let mut only = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .quick_health()
            .backend("only", only.address()),
    ));
    let address = daemon.address("web");
    only.wait_for_probe();
    let mark = daemon.log().mark();
    only.refuse();
    daemon.wait_until_down(mark, "only");
    for _ in 0..20 {
        let start = Instant::now();
        match connect(address) {
            Ok(mut client) => assert_eq!(client.end(), End::Reset),
            // So prompt that the handshake and the reset were there at once.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert!(start.elapsed() < Duration::from_secs(5));
    }
    daemon.wait_for(mark, words::SESSION, "cause", words::NO_BACKEND);
    only.answer();
    daemon.wait_until_up(mark, "only");
    // The table with the backend in it may come a moment after the line.
    eventually("it is served again", || ask_name(address).ok());
}

#[test]
fn a_service_whose_backends_were_never_seen_serves_before_the_first_verdict() {
    let only = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .health("interval", "1h")
            .backend("only", only.address()),
    ));
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "only");
}
