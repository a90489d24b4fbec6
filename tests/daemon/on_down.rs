//! Sessions of a backend that went down: kept, or closed at a bounded rate.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::support::{Backend, Config, Daemon, End, Line, Meeting, Peer, Service, steadily, words};

/// Longer than it takes to close another session at one a second.
const QUIET: Duration = Duration::from_millis(2_500);
/// At one a second, enough to last until a backend is back.
const MANY: usize = 25;

fn closing(rate: i64) -> Service {
    Service::new("web")
        .quick_health()
        .key("on_down", "close")
        .key("close_rate", rate)
}

type Session = (TcpStream, TcpStream);

fn open(daemon: &Daemon, service: &str, meeting: &Meeting, count: usize) -> Vec<Session> {
    let address = daemon.address(service);
    (0..count).map(|_| meeting.session(address)).collect()
}

/// A daemon whose backend of that name is up and has so many sessions of `web`.
fn busy(config: &Config, name: &str, meeting: &Meeting, count: usize) -> (Daemon, Vec<Session>) {
    let daemon = Daemon::start(config);
    daemon.wait_until_up(0, name);
    let sessions = open(&daemon, "web", meeting, count);
    (daemon, sessions)
}

fn goes_down(daemon: &Daemon, name: &str, meeting: &mut Meeting) {
    let mark = daemon.log().mark();
    meeting.refuse();
    daemon.wait_until_down(mark, name);
}

fn still_works((client, backend): &mut Session) {
    client.put(b"still there?");
    backend.get(b"still there?");
    backend.put(b"yes");
    client.get(b"yes");
}

fn closed(daemon: &Daemon) -> Vec<Arc<Line>> {
    daemon.log().all(0, |line| {
        line.says(words::SESSION) && line.has("cause", words::BACKEND_DOWN_CAUSE)
    })
}

fn time(line: &Line) -> SystemTime {
    humantime::parse_rfc3339(&line.text("timestamp")).unwrap()
}

/// Holds that none of them is closed.
fn live_on(daemon: &Daemon, mut sessions: Vec<Session>) {
    let closed = steadily(QUIET, "nobody is closed", || closed(daemon).len());
    assert_eq!(closed, 0);
    sessions.iter_mut().for_each(still_works);
}

/// Waits until a session is closed, lets `rescue` keep the others, and holds that nobody is closed
/// any more.
fn rescued_by(daemon: &Daemon, sessions: Vec<Session>, rescue: impl FnOnce()) {
    daemon.wait_for(0, words::SESSION, "cause", words::BACKEND_DOWN_CAUSE);
    rescue();
    let closed = steadily(QUIET, "nobody is closed any more", || closed(daemon).len());
    let mut kept: Vec<_> = sessions
        .into_iter()
        .filter_map(|mut session| session.0.is_silent(Duration::ZERO).then_some(session))
        .collect();
    assert_eq!(kept.len() + closed, MANY);
    assert!(!kept.is_empty(), "all were closed before");
    kept.iter_mut().for_each(still_works);
}

#[test]
fn sessions_of_a_backend_that_went_down_are_reset_on_both_sides() {
    let mut meeting = Meeting::new();
    let config = Config::of(closing(500).backend("only", meeting.address()));
    let (daemon, sessions) = busy(&config, "only", &meeting, 10);
    meeting.refuse();
    for (mut client, mut backend) in sessions {
        assert_eq!(client.end(), End::Reset);
        assert_eq!(backend.end(), End::Reset);
    }
    for line in daemon.wait_for_sessions(0, 10) {
        assert!(
            line.has("cause", words::BACKEND_DOWN_CAUSE),
            "{}",
            line.raw()
        );
        assert!(line.has("who", "ballast") && line.has("phase", "relay"));
        assert!(line.has("backend", "only"));
    }
    let failover = daemon.wait_for(0, words::FAILOVER, "backend", "only");
    assert_eq!(failover.number("sessions_hurt"), 10);
    assert_eq!(
        daemon
            .wait_for(0, words::CLOSING, "backend", "only")
            .number("sessions"),
        10
    );
    assert_eq!(
        daemon
            .wait_for(0, words::CLOSING_ENDS, "backend", "only")
            .number("left"),
        0
    );
}

#[test]
fn by_default_they_live_on() {
    let mut meeting = Meeting::new();
    let config = Config::of(
        Service::new("web")
            .quick_health()
            .backend("only", meeting.address()),
    );
    let (daemon, sessions) = busy(&config, "only", &meeting, 5);
    goes_down(&daemon, "only", &mut meeting);
    live_on(&daemon, sessions);
}

#[test]
fn they_live_on_where_all_are_used_while_all_are_down() {
    let mut meeting = Meeting::new();
    let service = closing(500).key("when_all_down", "use-all");
    let config = Config::of(service.backend("only", meeting.address()));
    let (daemon, sessions) = busy(&config, "only", &meeting, 5);
    goes_down(&daemon, "only", &mut meeting);
    live_on(&daemon, sessions);
}

#[test]
fn they_live_on_at_a_backend_that_is_disabled_before_it_goes_down() {
    let mut meeting = Meeting::new();
    let other = Backend::named("other");
    let service = closing(500).backend("leaves", meeting.address());
    let config = Config::of(service.clone());
    let (daemon, sessions) = busy(&config, "leaves", &meeting, 5);
    let disabled = service.also_placed("enabled", false);
    daemon.reload(&Config::of(disabled.backend("other", other.address())));
    goes_down(&daemon, "leaves", &mut meeting);
    live_on(&daemon, sessions);
}

#[test]
fn no_more_are_closed_in_any_time_than_the_rate_allows() {
    let mut meeting = Meeting::new();
    let (rate, count) = (20, 30);
    let config = Config::of(closing(rate).backend("only", meeting.address()));
    let (daemon, sessions) = busy(&config, "only", &meeting, count);
    meeting.refuse();
    let lines = daemon.wait_for_sessions(0, count);
    drop(sessions);
    // At most 3 sessions a step; one may be carried out late, and then with the next one.
    let late = 3;
    for (first, line) in lines.iter().enumerate() {
        for (last, other) in lines.iter().enumerate().skip(first) {
            let passed = time(other).duration_since(time(line)).unwrap_or_default();
            let allowed = rate as f64 * passed.as_secs_f64() + f64::from(3 + late);
            let closed = last - first + 1;
            assert!(closed as f64 <= allowed + 1.0, "{closed} in {passed:?}");
        }
    }
}

#[test]
fn a_backend_that_recovers_keeps_the_sessions_that_are_left() {
    let mut meeting = Meeting::new();
    let config = Config::of(closing(1).backend("only", meeting.address()));
    let (daemon, sessions) = busy(&config, "only", &meeting, MANY);
    goes_down(&daemon, "only", &mut meeting);
    let mark = daemon.log().mark();
    rescued_by(&daemon, sessions, || {
        meeting.answer();
        daemon.wait_until_up(mark, "only");
    });
    let ends = daemon.wait_for(0, words::CLOSING_ENDS, "backend", "only");
    assert!(ends.number("left") > 0, "{}", ends.raw());
}

#[test]
fn a_backend_that_leaves_the_file_keeps_the_sessions_that_are_left() {
    let mut meeting = Meeting::new();
    let other = Backend::named("other");
    let service = closing(1);
    let config = Config::of(service.clone().backend("leaves", meeting.address()));
    let (daemon, sessions) = busy(&config, "leaves", &meeting, MANY);
    meeting.refuse();
    rescued_by(&daemon, sessions, || {
        daemon.reload(&Config::of(service.backend("other", other.address())));
    });
}

#[test]
fn a_backend_that_is_disabled_keeps_the_sessions_that_are_left() {
    let mut meeting = Meeting::new();
    let other = Backend::named("other");
    let service = closing(1).backend("leaves", meeting.address());
    let config = Config::of(service.clone());
    let (daemon, sessions) = busy(&config, "leaves", &meeting, MANY);
    meeting.refuse();
    rescued_by(&daemon, sessions, || {
        let disabled = service.also_placed("enabled", false);
        daemon.reload(&Config::of(disabled.backend("other", other.address())));
    });
}

#[test]
fn a_reload_may_begin_to_close_them_and_end_it() {
    let mut meeting = Meeting::new();
    let keeping = closing(1).key("on_down", "keep");
    let keeping = keeping.backend("only", meeting.address());
    let config = Config::of(keeping.clone());
    let (daemon, sessions) = busy(&config, "only", &meeting, MANY);
    goes_down(&daemon, "only", &mut meeting);
    daemon.reload(&Config::of(keeping.clone().key("on_down", "close")));
    rescued_by(&daemon, sessions, || {
        daemon.reload(&Config::of(keeping));
    });
}

#[test]
fn sessions_of_other_backends_and_of_other_services_are_none_of_its_business() {
    let (mut dies, lives) = (Meeting::new(), Meeting::new());
    let service = |name: &str| Service::new(name).quick_health();
    let daemon = Daemon::start(
        &Config::of(closing(500).backend("dies", dies.address()))
            .service(service("keeps").backend("dies", dies.address()))
            .service(
                service("other")
                    .key("on_down", "close")
                    .backend("lives", lives.address()),
            ),
    );
    daemon.wait_until_up(0, "dies");
    let closed = open(&daemon, "web", &dies, 5);
    let mut kept = open(&daemon, "keeps", &dies, 5);
    let mut others = open(&daemon, "other", &lives, 5);
    dies.refuse();
    for (mut client, _backend) in closed {
        assert_eq!(client.end(), End::Reset);
    }
    daemon.wait_for(0, words::CLOSING_ENDS, "service", "web");
    kept.iter_mut().chain(&mut others).for_each(still_works);
}
