//! Stopping: running sessions finish, the rest is reset and counted, and nothing waits for ever.

use std::time::{Duration, Instant};

use ballast::api;

use crate::support::{
    Api, Backend, Config, Daemon, End, Held, Meeting, Peer, Service, Signal, ask_name, ballast,
    connect, eventually, is_refused, words,
};

fn one_service(meeting: &Meeting, drain_timeout: &str) -> Config {
    Config::of(Service::new("web").backend("only", meeting.address()))
        .runtime("drain_timeout", drain_timeout)
}

fn running_sessions_finish(signal: Signal) {
    let meeting = Meeting::new();
    let mut daemon = Daemon::start(&one_service(&meeting, "60s"));
    let address = daemon.address("web");
    let (mut client, mut backend) = meeting.session(address);
    let start = Instant::now();
    daemon.signal(signal);
    daemon
        .log()
        .wait(0, words::STOPPING, |line| line.says(words::STOPPING));
    eventually("the listener closes", || is_refused(address).then_some(()));
    client.put(b"one more thing");
    backend.get(b"one more thing");
    assert!(daemon.is_running());
    client.half_close();
    assert_eq!(backend.end(), End::Fin);
    backend.put(b"the last answer");
    backend.half_close();
    client.get(b"the last answer");
    assert_eq!(client.end(), End::Fin);
    assert_eq!(daemon.wait_until_stopped(), 0);
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "it waited for its deadline"
    );
}

#[test]
fn sigterm_lets_running_sessions_finish() {
    running_sessions_finish(Signal::TERM);
}

#[test]
fn sigint_lets_running_sessions_finish() {
    running_sessions_finish(Signal::INT);
}

#[test]
fn an_idle_daemon_stops_at_once() {
    let backend = Backend::named("only");
    let mut daemon = Daemon::start(&Config::of(
        Service::new("web").backend("only", backend.address()),
    ));
    ask_name(daemon.address("web")).unwrap();
    let start = Instant::now();
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_until_stopped(), 0);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn the_drain_deadline_resets_what_is_left_and_counts_it() {
    let meeting = Meeting::new();
    let mut daemon = Daemon::start(&one_service(&meeting, "500ms"));
    let address = daemon.address("web");
    let mut sessions: Vec<_> = (0..5).map(|_| meeting.session(address)).collect();
    // One of them is half-closed, which is no reason to end it with a FIN.
    sessions[0].0.half_close();
    assert_eq!(sessions[0].1.end(), End::Fin);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_until_stopped(), 5);
    for (number, (client, backend)) in sessions.iter_mut().enumerate() {
        assert_eq!(client.end(), End::Reset);
        if number == 0 {
            crate::support::wait_for_error(backend);
        } else {
            assert_eq!(backend.end(), End::Reset);
        }
    }
    let lines = daemon.wait_for_sessions(0, 5);
    assert!(
        lines
            .iter()
            .all(|line| line.has("who", "ballast") && line.has("cause", words::STOPPED_CAUSE)),
        "{lines:?}"
    );
}

#[test]
fn a_second_signal_ends_at_once_with_resets() {
    for second in [Signal::TERM, Signal::INT] {
        let meeting = Meeting::new();
        let mut daemon = Daemon::start(&one_service(&meeting, "10m"));
        let (mut client, mut backend) = meeting.session(daemon.address("web"));
        daemon.signal(Signal::TERM);
        daemon
            .log()
            .wait(0, words::STOPPING, |line| line.says(words::STOPPING));
        daemon.signal(second);
        assert_eq!(daemon.wait_until_stopped(), 1);
        assert_eq!(client.end(), End::Reset);
        assert_eq!(backend.end(), End::Reset);
    }
}

#[test]
fn a_stop_loses_no_handshake() {
    let backend = Backend::named("only");
    let mut daemon = Daemon::start(
        &Config::of(Service::new("web").backend("only", backend.address()))
            .runtime("drain_timeout", "20s"),
    );
    let address = daemon.address("web");
    let storm = crate::support::Storm::start(8, move |_| {
        let Ok(stream) = connect(address) else {
            return Ok("refused".to_owned());
        };
        crate::support::name_and_part(stream)
    });
    storm.pass(300);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_until_stopped(), 0);
    let tally = storm.finish();
    tally.assert_flawless();
    assert!(tally.by("refused") > 0);
}

#[test]
fn a_reload_during_a_stop_does_not_revive_anything() {
    let meeting = Meeting::new();
    let config = one_service(&meeting, "60s");
    let mut daemon = Daemon::start(&config);
    let address = daemon.address("web");
    let (mut client, mut backend) = meeting.session(address);
    daemon.signal(Signal::TERM);
    daemon
        .log()
        .wait(0, words::STOPPING, |line| line.says(words::STOPPING));
    daemon.write(&config.text());
    daemon.signal(Signal::HUP);
    eventually("the listener closes", || is_refused(address).then_some(()));
    client.put(b"still here");
    backend.get(b"still here");
    client.half_close();
    backend.half_close();
    assert_eq!(client.end(), End::Fin);
    assert_eq!(daemon.wait_until_stopped(), 0);
}

#[test]
fn whoever_asks_for_a_plan_or_a_reload_during_a_stop_is_refused_at_once() {
    let meeting = Meeting::new();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let door = format!("unix:{}", socket.display());
    let config = one_service(&meeting, "10m").admin("listen", door.clone());
    let mut daemon = Daemon::start(&config);
    let session = meeting.session(daemon.address("web"));
    let asked = Api::unix(&socket);
    daemon.signal(Signal::TERM);
    daemon
        .log()
        .wait(0, words::STOPPING, |line| line.says(words::STOPPING));
    // Well before anybody gives up waiting, be it the API or the client.
    for path in ["/v1/plan", "/v1/reload"] {
        let answer = asked.post(path, &serde_json::json!({}));
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        let refused: api::Refused = answer.document();
        assert_eq!(refused.error, "the daemon is stopping", "{path}");
    }
    for command in [&["plan"][..], &["reload", "--yes"]] {
        let said = ballast(
            &daemon.beside("ballast.toml"),
            &[command, &["--admin", &door]].concat(),
        );
        said.exits_with(1);
        assert!(said.stderr.contains("the daemon is stopping"), "{said:#?}");
    }
    drop(session);
    assert_eq!(daemon.wait_until_stopped(), 0);
}

#[test]
fn sessions_that_finish_during_the_drain_are_not_counted_as_closed() {
    let backend = Backend::named("only");
    let mut daemon = Daemon::start(
        &Config::of(Service::new("web").backend("only", backend.address()))
            .runtime("drain_timeout", "1s"),
    );
    let address = daemon.address("web");
    let leaving = Held::open(address);
    let staying = Held::open(address);
    daemon.signal(Signal::TERM);
    daemon
        .log()
        .wait(0, words::STOPPING, |line| line.says(words::STOPPING));
    leaving.part();
    assert_eq!(daemon.wait_until_stopped(), 1);
    let mut stream = staying.stream;
    assert_eq!(stream.end(), End::Reset);
}
