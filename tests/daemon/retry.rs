//! A connect that fails before any byte moved is tried on another backend; the client never knows.

use std::time::{Duration, Instant};

use crate::support::{
    Backend, BlackHole, Config, Daemon, End, Peer, Service, ask_name, connect, words,
};

/// Loaded machines are slow; a session that hangs is slower.
const PROMPT: Duration = Duration::from_secs(8);

#[test]
fn a_session_moves_on_from_a_backend_that_refuses() {
    let mut dead = Backend::named("dead");
    let alive = Backend::named("alive");
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .strategy("round-robin")
                .blind_health()
                .backend("dead", dead.address())
                .backend("alive", alive.address()),
        )
        .log_every_session(),
    );
    dead.wait_for_probe();
    dead.refuse();
    for _ in 0..20 {
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "alive");
    }
    let lines = daemon.wait_for_sessions(0, 20);
    assert!(
        lines.iter().any(|line| line.number("attempts") == 2),
        "no session says that it was retried"
    );
    assert!(lines.iter().all(|line| line.has("backend", "alive")));
}

#[test]
fn a_session_moves_on_from_a_backend_that_answers_nothing() {
    let mut hole = BlackHole::new();
    let alive = Backend::named("alive");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .strategy("round-robin")
            .blind_health()
            .timeout("connect", "300ms")
            .backend("hole", hole.address())
            .backend("alive", alive.address()),
    ));
    hole.accept_probe();
    hole.swallow();
    let start = Instant::now();
    for _ in 0..4 {
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "alive");
    }
    assert!(start.elapsed() < 2 * PROMPT);
}

#[test]
fn two_other_backends_are_tried() {
    let mut dead = [Backend::named("dead-1"), Backend::named("dead-2")];
    let alive = Backend::named("alive");
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .strategy("round-robin")
                .blind_health()
                .backend("dead-1", dead[0].address())
                .backend("dead-2", dead[1].address())
                .backend("alive", alive.address()),
        )
        .log_every_session(),
    );
    for backend in &mut dead {
        backend.wait_for_probe();
        backend.refuse();
    }
    for _ in 0..12 {
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "alive");
    }
}

#[test]
fn a_session_that_no_backend_takes_is_reset() {
    let mut hole = BlackHole::new();
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .blind_health()
            .timeout("connect", "300ms")
            .backend("hole", hole.address()),
    ));
    hole.accept_probe();
    hole.swallow();
    let start = Instant::now();
    let mut client = connect(daemon.address("web")).unwrap();
    client.put(b"nobody will read this");
    assert_eq!(client.end(), End::Reset);
    assert!(start.elapsed() < PROMPT);
    let line = daemon.wait_for(0, words::SESSION, "cause", words::TIMED_OUT);
    assert!(line.has("phase", "connect"), "{}", line.raw());
}

#[test]
fn a_client_that_leaves_during_the_connect_frees_its_session() {
    let mut hole = BlackHole::new();
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .blind_health()
                .timeout("connect", "5s")
                .backend("hole", hole.address()),
        )
        .log_every_session(),
    );
    hole.accept_probe();
    hole.swallow();
    let client = connect(daemon.address("web")).unwrap();
    client.reset();
    daemon.wait_for_sessions(0, 1);
}
