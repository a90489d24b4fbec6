//! A failover tells what happened when, and what it has cost; clients see the same.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::support::{
    Backend, BlackHole, Config, Daemon, Line, ProcessBackend, Service, Signal, Storm, ask_name,
    eventually, words,
};

mod storm;

/// The log's times and a client's may differ by this.
const AGREES: Duration = Duration::from_millis(50);
/// The machine may have other things to do between what the daemon does and what a client sees of
/// it; that the two agree shows once it has not.
const TRIES: usize = 5;

/// What the line says, on the clock of the test.
struct Timeline {
    began: Instant,
    failed: Instant,
    detected: Instant,
    moved: Instant,
    recovered: Instant,
}

fn timeline(line: &Line) -> Timeline {
    let began = humantime::parse_rfc3339(&line.text("began")).unwrap();
    let began = Instant::now() - SystemTime::now().duration_since(began).unwrap();
    let at = |field| {
        let ms: f64 = line.text(field).parse().unwrap();
        began + Duration::from_secs_f64(ms / 1e3)
    };
    Timeline {
        began,
        failed: at("first_evidence_ms"),
        detected: at("detected_ms"),
        moved: at("moved_ms"),
        recovered: at("total_ms"),
    }
}

fn apart(a: Instant, b: Instant) -> Duration {
    a.saturating_duration_since(b)
        .max(b.saturating_duration_since(a))
}

fn service(failing: SocketAddr, others: &[Backend]) -> Service {
    let service = Service::new("web")
        .rare_health()
        .backend("failing", failing);
    others.iter().enumerate().fold(service, |service, (n, it)| {
        service.backend(&format!("other-{n}"), it.address())
    })
}

#[test]
fn the_timeline_of_a_killed_backend_is_what_clients_saw() {
    let mut failing = ProcessBackend::named("failing");
    let others: Vec<_> = ["b", "c", "d"].map(Backend::named).into();
    let health = service(failing.address(), &others).quick_health();
    let daemon = Daemon::start(&Config::of(health));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    let storm = Storm::start(8, move |_| ask_name(address));
    let mut told = Vec::new();
    for _ in 0..TRIES {
        storm.pass(200);
        let mark = daemon.log().mark();
        let before = Instant::now();
        let after = failing.kill();
        let line = daemon.wait_for(mark, words::FAILOVER, "backend", "failing");
        let times = timeline(&line);
        assert_eq!(line.text("eligible"), "3/4");
        assert!(times.began <= times.detected && times.detected <= times.moved);
        assert!(times.moved <= times.recovered);
        assert!(line.text("last_success_ms").starts_with('-'));
        let failed = storm.so_far().failed;
        let failed = failed.iter().filter(|it| it.ended >= before);
        let last = failed.map(|it| it.ended).max();
        // Between the last client that was lost and the kill, whichever came later.
        let ends = last.is_none_or(|last| last <= times.recovered + AGREES);
        let begins = times.began + AGREES >= before && times.began <= after + AGREES;
        if begins && ends && apart(times.recovered, last.unwrap_or(after)) <= AGREES {
            return;
        }
        told.push(line);
        failing.start();
        daemon.wait_until_up(mark, "failing");
    }
    panic!("no failover agreed with the clients: {told:?}");
}

#[test]
fn the_failover_of_the_only_backend_begins_with_the_first_session_that_it_failed() {
    let mut failing = ProcessBackend::named("failing");
    let service = Service::new("web")
        .health("interval", "2s")
        .health("fall", 2)
        .backend("failing", failing.address());
    let mut told = Vec::new();
    for _ in 0..TRIES {
        let daemon = Daemon::start(&Config::of(service.clone()));
        let address = daemon.address("web");
        daemon.wait_until_up(0, "failing");
        let storm = Storm::start(4, move |_| ask_name(address));
        storm.pass(100);
        let killed = failing.kill();
        let line = daemon.wait_for(0, words::FAILOVER, "backend", "failing");
        let clients = storm.finish();
        failing.start();
        // A probe takes it down; sessions knew long before, and nobody else could take them.
        assert_eq!(line.text("eligible"), "0/1");
        let lost = clients.failed.len() as u64;
        let hurt = line.number("sessions_hurt");
        assert!(0 < hurt && hurt <= lost, "{hurt} of {lost}");
        if apart(timeline(&line).began, killed) <= AGREES {
            return;
        }
        told.push(line);
    }
    panic!("no failover began when the backend was killed: {told:?}");
}

/// Clients that were kept waiting for the time of a connect, with the beginning and the end of each.
type Stalled = Arc<Mutex<Vec<(Instant, Instant)>>>;

#[test]
fn the_timeline_of_a_silent_backend_is_what_clients_saw() {
    let connect = Duration::from_millis(500);
    let mut told = Vec::new();
    for _ in 0..TRIES {
        let mut hole = BlackHole::new();
        let others: Vec<_> = ["b", "c", "d"].map(Backend::named).into();
        let health = service(hole.address(), &others).timeout("connect", "500ms");
        let daemon = Daemon::start(&Config::of(health));
        let address = daemon.address("web");
        daemon.wait_until_up(0, "failing");
        hole.swallow();
        let stalled = Stalled::default();
        let seen = Arc::clone(&stalled);
        let storm = Storm::start(16, move |_| {
            let started = Instant::now();
            let name = ask_name(address);
            if started.elapsed() >= connect {
                seen.lock().unwrap().push((started, Instant::now()));
            }
            name
        });
        let line = daemon.wait_for(0, words::FAILOVER, "backend", "failing");
        storm.finish().assert_flawless();
        let times = timeline(&line);
        assert_eq!(line.number("sessions_hurt"), 0);
        let stalled = stalled.lock().unwrap();
        assert_eq!(line.number("sessions_moved"), stalled.len() as u64);
        let first = stalled.iter().map(|(began, _)| *began).min().unwrap();
        let last = stalled.iter().map(|(_, ended)| *ended).max().unwrap();
        // A session before the first one that had to wait may have been picked, and not begun yet.
        if apart(times.began, first) <= AGREES && apart(times.recovered, last) <= AGREES {
            return;
        }
        told.push(line);
    }
    panic!("no failover agreed with the clients: {told:?}");
}

#[test]
fn a_failover_with_nobody_there_costs_nobody_anything_and_is_remembered() {
    let mut failing = Backend::named("failing");
    let other = Backend::named("other");
    let service = Service::new("web")
        .quick_health()
        .backend("failing", failing.address())
        .backend("other", other.address());
    let daemon = Daemon::start(&Config::of(service));
    daemon.wait_until_up(0, "failing");
    failing.refuse();
    let line = daemon.wait_for(0, words::FAILOVER, "backend", "failing");
    assert_eq!(line.number("sessions_hurt"), 0);
    assert_eq!(line.number("sessions_moved"), 0);
    assert_eq!(line.text("total_ms"), line.text("moved_ms"));
    assert!(line.text("why").contains(words::REFUSED));
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    let past = daemon.wait_for(mark, words::PAST_FAILOVER, "backend", "failing");
    assert_eq!(past.text("total_ms"), line.text("total_ms"));
}

#[test]
fn a_reload_before_a_failure_is_detected_forgets_no_session() {
    let mut failing = Backend::named("failing");
    let other = Backend::named("other");
    let service = Service::new("web")
        .blind_health()
        .backend("failing", failing.address())
        .backend("other", other.address());
    let config = |service| Config::of(service).log("level", "debug");
    let daemon = Daemon::start(&config(service.clone()));
    daemon.wait_until_up(0, "failing");
    failing.refuse();
    daemon.wait_for(0, words::MISSED, "backend", "failing");
    let moved = || {
        let mark = daemon.log().mark();
        daemon.signal(Signal::USR1);
        let line = daemon.wait_for(mark, words::BACKEND, "backend", "failing");
        line.number("moved")
    };
    eventually("a session is moved", || {
        ask_name(daemon.address("web")).unwrap();
        (moved() > 0).then_some(())
    });
    daemon.reload(&config(service.health("fall", 1)));
    let line = daemon.wait_for(0, words::FAILOVER, "backend", "failing");
    assert!(line.number("sessions_moved") > 0, "{}", line.raw());
    assert_eq!(line.number("sessions_moved"), moved());
}

#[test]
fn a_session_that_finds_nobody_is_counted_as_hurt() {
    let mut only = Backend::named("only");
    let service = Service::new("web")
        .rare_health()
        .backend("only", only.address());
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "only");
    only.refuse();
    for _ in 0..2 {
        assert!(ask_name(address).is_err());
    }
    // A session is counted before it leaves its line.
    daemon.wait_for_sessions(0, 2);
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    let line = daemon.wait_for(mark, words::BACKEND, "backend", "only");
    assert_eq!((line.number("hurt"), line.number("moved")), (2, 0));
}

#[test]
fn a_frozen_backend_is_out_under_a_check_that_expects_an_answer() {
    let failing = ProcessBackend::named("failing");
    let others: Vec<_> = ["failing-too", "failing-not", "failing-never"]
        .map(Backend::named)
        .into();
    let service = service(failing.address(), &others)
        .quick_health()
        .health("timeout", "300ms")
        .health("expect", "failing")
        .timeout("connect", "500ms")
        .timeout("connect_total", "1s");
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "failing");
    for _ in 0..2 {
        let storm = Storm::start(8, move |_| ask_name(address));
        storm.pass(100);
        let mark = daemon.log().mark();
        let frozen = failing.freeze();
        daemon.wait_until_down(mark, "failing");
        // Those that were with it wait for it. Nobody who comes from here on meets it.
        for _ in 0..40 {
            assert_ne!(ask_name(address).unwrap(), "failing");
        }
        let line = daemon.wait_for(mark, words::FAILOVER, "backend", "failing");
        assert!(timeline(&line).detected >= frozen - AGREES);
        failing.thaw();
        daemon.wait_until_up(mark, "failing");
        storm.finish().assert_flawless();
    }
}
