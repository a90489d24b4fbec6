//! What outlives the daemon: health, what an operator has said, the record of each backend, and the
//! last configuration that took effect.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast::api;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Api, Backend, BlackHole, Config, Daemon, Dns, Launch, Line, Meeting, Service, Signal, ask_name,
    eventually, fresh_ip, installed, words,
};

/// A directory for a state file, and the file.
fn state() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.json");
    (directory, file)
}

fn remembering(service: Service, file: &Path) -> Config {
    Config::of(service).runtime("state_file", file.to_str().unwrap())
}

/// What the state file says of a backend, once it is `wanted`.
fn remembered(file: &Path, backend: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    eventually("the state file says so", || {
        // What a test has damaged is replaced.
        let state: Value = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
        let backends = state["backends"].as_array()?;
        let found = backends.iter().find(|it| it["name"] == backend)?;
        wanted(found).then(|| found.clone())
    })
}

/// The line of a backend in the report.
fn reported(daemon: &Daemon, backend: &str) -> Arc<Line> {
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    daemon.wait_for(mark, words::BACKEND, "backend", backend)
}

#[test]
fn after_a_kill_9_health_and_record_are_back_before_the_first_verdict() {
    let (_directory, file) = state();
    let mut hole = BlackHole::new();
    let other = Backend::named("other");
    let service = Service::new("web")
        .health("interval", "200ms")
        .health("timeout", "3s")
        .health("fall", 1)
        .backend("hole", hole.address())
        .backend("other", other.address());
    let config = remembering(service, &file);
    let daemon = Daemon::start(&config);
    daemon
        .log()
        .wait(0, "there is none", |line| line.says(words::NO_STATE));
    daemon.wait_until_up(0, "hole");
    hole.swallow();
    daemon.wait_until_down(0, "hole");
    remembered(&file, "hole", |it| it["health"] == "down");
    // A reload forgets nothing.
    daemon.reload(&config);
    assert_eq!(reported(&daemon, "hole").number("failures"), 1);
    // It is killed with SIGKILL.
    drop(daemon);

    let daemon = Daemon::start(&config);
    let hole = reported(&daemon, "hole");
    // Its first probe takes three seconds to fail.
    assert_eq!(hole.text("state"), "down", "{}", hole.raw());
    assert_eq!(hole.number("failures"), 1);
    assert!(hole.text("availability").ends_with('%'));
    assert_eq!(reported(&daemon, "other").text("state"), "up");
    let address = daemon.address("web");
    for _ in 0..10 {
        assert_eq!(ask_name(address).unwrap(), "other");
    }
    assert_eq!(reported(&daemon, "hole").number("connect_failures"), 0);
}

#[test]
fn what_somebody_has_written_into_the_state_file_is_no_command_to_a_terminal_and_no_record_for_ever()
 {
    let (directory, file) = state();
    let a = Backend::named("a");
    let socket = directory.path().join("admin.sock");
    let door = format!("unix:{}", socket.display());
    let service = Service::new("web").backend("a", a.address());
    let config = remembering(service, &file).admin("listen", door.clone());
    let mut daemon = Launch::new().start(&config);
    let change = json!({ "do": "drain" });
    let api = Api::unix(&socket);
    assert_eq!(api.post("/v1/services/web/backends/a", &change).status, 200);
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();

    let mut edited: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let backend = &mut edited["backends"][0];
    assert_eq!(backend["said_by"], "uid 0");
    backend["said_by"] = "\u{1b}[2J\rnobody".into();
    backend["up_ms"] = u64::MAX.into();
    backend["drains_until_ms"] = 32_503_680_000_000_u64.into();
    fs::write(&file, edited.to_string()).unwrap();
    let daemon = Launch::new().start(&config);
    let odd = |line: &Line| line.says(words::STATE_ODD);
    let line = daemon.log().wait(0, words::STATE_ODD, odd);
    let told = line.text("odd");
    assert!(
        told.contains("web/a: its record") && told.contains("web/a: its drain"),
        "{told}"
    );
    let status = |arguments: &[&str]| {
        let status = Command::new(env!("CARGO_BIN_EXE_ballast"))
            .args(["status", "--no-rates", "--admin", &door])
            .args(arguments)
            .output();
        let told = String::from_utf8(status.unwrap().stdout).unwrap();
        assert!(!told.contains(['\u{1b}', '\r']), "{told:?}");
        told
    };
    let told = status(&[]);
    assert!(told.contains("\\u{1b}[2J\\rnobody"), "{told:?}");
    // A program gets what was written.
    let by = |json: &str, path: &str| {
        let document: Value = serde_json::from_str(json).unwrap();
        document.pointer(path).cloned().unwrap_or_default()
    };
    let backend = "/backends/0/admin/by";
    let all = by(&status(&["--json"]), &format!("/services/0{backend}"));
    assert_eq!(all, "\u{1b}[2J\rnobody");
    assert_eq!(by(&status(&["web", "--json"]), backend), all);
    let backend: api::Backend = api.get("/v1/services/web/backends/a").good();
    assert!(backend.record.up_seconds < 3600.0, "{:?}", backend.record);
}

#[test]
fn what_is_down_before_and_after_a_restart_is_told_once_and_has_been_since_it_went_down() {
    let (directory, file) = state();
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    let socket = directory.path().join("admin.sock");
    let config = remembering(service, &file).admin("listen", format!("unix:{}", socket.display()));
    let api = Api::unix(&socket);
    let since = |name: &str| {
        let path = format!("/v1/services/web/backends/{name}");
        let backend: api::Backend = api.get(&path).good();
        humantime::parse_rfc3339(&backend.since.unwrap()).unwrap()
    };
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "a");
    daemon.wait_until_up(0, "b");
    let refused = Instant::now();
    a.refuse();
    daemon.wait_until_down(0, "a");
    let down = Instant::now();
    for name in ["a", "b"] {
        let health = if name == "a" { "down" } else { "up" };
        remembered(&file, name, |it| it["health"] == health);
    }
    let before = ["a", "b"].map(since);
    drop(daemon);

    let least = down.elapsed();
    let daemon = Daemon::start(&config);
    let told = daemon.wait_for(0, words::STILL_DOWN, "backend", "a");
    assert!(told.text("why").contains("refused"), "{}", told.raw());
    assert_eq!(told.text("eligible"), "1/2");
    // From when the first one saw it go down. Two clocks are read one after the other, so that a part is given up.
    let slack = Duration::from_millis(500);
    let after = humantime::parse_duration(&told.text("after")).unwrap();
    let most = refused.elapsed() + slack;
    assert!(
        (least / 2..most).contains(&after),
        "{after:?}, from {least:?} to {most:?}"
    );
    for (name, before) in ["a", "b"].into_iter().zip(before) {
        let after = since(name);
        let between = after
            .duration_since(before)
            .or_else(|it| Ok::<_, ()>(it.duration()));
        assert!(
            between.unwrap() < slack,
            "{name}: {before:?}, now {after:?}"
        );
    }
    let events: api::Events = api.get("/v1/events").good();
    let told: Vec<_> = events
        .events
        .iter()
        .filter(|it| it.kind == "backend-down")
        .collect();
    assert!(
        matches!(told[..], [it] if it.text.starts_with("web/a is still down: ")),
        "{events:?}"
    );
    // It comes and goes as ever from here on.
    let mark = daemon.log().mark();
    a.answer();
    daemon.wait_until_up(mark, "a");
    a.refuse();
    daemon.wait_until_down(mark, "a");
    assert_eq!(
        daemon.log().all(0, |it| it.says(words::STILL_DOWN)).len(),
        1
    );
}

/// Of two backends, `b` is down when its daemon ends, and `a` when the next one starts on the same file: that one,
/// and since when `b` was down.
fn changing_places(
    config: &Config,
    a: &mut Backend,
    checked: &mut BlackHole,
    file: &Path,
) -> (Daemon, String) {
    let daemon = Daemon::start(config);
    for backend in ["a", "b"] {
        daemon.wait_until_up(0, backend);
    }
    checked.swallow();
    daemon.wait_until_down(0, "b");
    remembered(file, "b", |it| it["health"] == "down");
    remembered(file, "a", |it| it["health"] == "up");
    let since = backend(&daemon, "b").since.unwrap();
    drop(daemon);
    a.refuse();
    let daemon = Daemon::start(config);
    daemon.wait_until_down(0, "a");
    // Its own check has not said anything yet, and takes seconds to.
    let address = daemon.address("web");
    eventually("the other one is tried", || {
        ask_name(address).is_ok_and(|it| it == "b").then_some(())
    });
    (daemon, since)
}

/// What the API says of a backend of `web`.
fn backend(daemon: &Daemon, name: &str) -> api::Backend {
    let path = format!("/v1/services/web/backends/{name}");
    daemon.api().get(&path).good()
}

/// A service over `a` and `b`, whose check goes elsewhere.
fn of_two(a: &Backend, b: &Backend, checked: &BlackHole) -> Service {
    Service::new("web")
        .health("interval", "200ms")
        .health("timeout", "4s")
        .health("fall", 1)
        .backend("a", a.address())
        .backend("b", b.address())
        .check_address("b", checked.address())
}

#[test]
fn who_was_down_before_a_restart_is_tried_when_nobody_else_is_left_and_has_been_down_since() {
    let (_directory, file) = state();
    let (mut a, b, mut checked) = (Backend::named("a"), Backend::named("b"), BlackHole::new());
    let service = of_two(&a, &b, &checked);
    let config = remembering(service, &file).admin("listen", "127.0.0.1:0");
    let (daemon, since) = changing_places(&config, &mut a, &mut checked, &file);
    let told = daemon.wait_for(0, words::STILL_DOWN, "backend", "b");
    assert_eq!(told.text("eligible"), "0/2");
    let b = backend(&daemon, "b");
    assert_eq!((b.state, b.record.failures), (api::State::Down, 1));
    let time = |text: &str| humantime::parse_rfc3339(text).unwrap();
    // Two clocks are read one after the other, at either start.
    let (before, after) = (time(&since), time(&b.since.unwrap()));
    let apart = after.duration_since(before);
    let apart = apart.unwrap_or_else(|it| it.duration());
    assert!(apart < Duration::from_millis(500), "{before:?}, {after:?}");
    let lost = daemon.log().all(0, |line| line.says(words::BACKEND_DOWN));
    assert_eq!(lost.len(), 1, "{lost:?}");
}

#[test]
fn who_change_places_while_no_daemon_runs_are_no_outage() {
    let (_directory, file) = state();
    let (mut a, b, mut checked) = (Backend::named("a"), Backend::named("b"), BlackHole::new());
    let service = of_two(&a, &b, &checked);
    let config = remembering(service, &file).admin("listen", "127.0.0.1:0");
    let (daemon, _) = changing_places(&config, &mut a, &mut checked, &file);
    // The next try of its first check is answered.
    checked.accept_probe();
    daemon.wait_until_up(0, "b");
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "b");
    for message in [words::STILL_DOWN, words::NOBODY_SERVES, words::ALL_USED] {
        let told = daemon.log().all(0, |line| line.says(message));
        assert!(told.is_empty(), "{told:?}");
    }
    let b = backend(&daemon, "b");
    assert_eq!((b.state, b.record.recoveries), (api::State::Up, 1));
}

#[test]
fn the_first_verdict_overrides_what_is_remembered() {
    let (_directory, file) = state();
    let mut backend = Backend::named("a");
    let other = Backend::named("b");
    backend.refuse();
    let service = Service::new("web")
        .quick_health()
        .health("rise", 1000)
        .backend("a", backend.address())
        .backend("b", other.address());
    let config = remembering(service, &file);
    let daemon = Daemon::start(&config);
    daemon.wait_until_down(0, "a");
    remembered(&file, "a", |it| it["health"] == "down");
    drop(daemon);
    backend.answer();
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "a");
}

/// Has the state file say that an operator drains that backend.
fn drain(file: &Path, backend: &str) {
    let text = fs::read_to_string(file).unwrap();
    let name = format!("\"name\":\"{backend}\"");
    let (before, after) = text.split_once(&name).unwrap();
    let after = after.replacen("\"duty\":\"serve\"", "\"duty\":\"drain\"", 1);
    fs::write(file, format!("{before}{name}{after}")).unwrap();
}

#[test]
fn a_drain_outlives_every_restart() {
    let (_directory, file) = state();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    let config = remembering(service, &file);
    let daemon = Daemon::start(&config);
    remembered(&file, "a", |it| it["health"] == "up");
    drop(daemon);
    drain(&file, "a");
    for _ in 0..2 {
        let saved = fs::read(&file).unwrap();
        let daemon = Daemon::start(&config);
        let address = daemon.address("web");
        for _ in 0..6 {
            assert_eq!(ask_name(address).unwrap(), "b");
        }
        assert_eq!(reported(&daemon, "a").text("administered"), "drain 100%");
        eventually("the state file is written again", || {
            (fs::read(&file).unwrap() != saved).then_some(())
        });
    }
}

#[test]
fn who_drains_since_when_and_until_when_outlives_a_kill_9() {
    let (directory, file) = state();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    let socket = directory.path().join("admin.sock");
    let config = remembering(service, &file).admin("listen", format!("unix:{}", socket.display()));
    let api = Api::unix(&socket);
    let said = || {
        let a: api::Backend = api.get("/v1/services/web/backends/a").good();
        a.admin
    };
    let daemon = Daemon::start(&config);
    let drain = json!({ "do": "drain", "deadline_seconds": 3600.0 });
    let changed: api::Changed = api.post("/v1/services/web/backends/a", &drain).good();
    assert!(changed.durable, "{changed:?}");
    let before = said().unwrap();
    assert_eq!(before.duty, "drain");
    let by = format!("uid {}", rustix::process::getuid().as_raw());
    assert_eq!(before.by, Some(by));
    assert!(
        before.since.is_some() && before.deadline.is_some(),
        "{before:?}"
    );
    // It is killed with SIGKILL.
    drop(daemon);
    let daemon = Daemon::start(&config);
    assert_eq!(said().unwrap(), before);
    for _ in 0..6 {
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "b");
    }
    // The deadline of a drain that was over before the start is over.
    let drain = json!({ "do": "drain", "deadline_seconds": 0.0 });
    let _: api::Changed = api.post("/v1/services/web/backends/a", &drain).good();
    drop(daemon);
    let _daemon = Daemon::start(&config);
    assert_eq!(said().unwrap().duty, "drain");
}

#[test]
fn a_drain_outlives_starts_at_which_the_name_leads_nowhere() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    const PORT: u16 = 7071;
    let [a, b] = ["a", "b"].map(|name| Backend::named_at((fresh_ip(), PORT).into(), name));
    let [to_a, to_b] = [&a, &b].map(|it| format!("db 0 A {}", it.address().ip()));
    let both = [to_a, to_b];
    let dns = Dns::start(&both);
    let (_directory, file) = state();
    let address = format!("db.example.test:{PORT}");
    let service = Service::new("web")
        .strategy("round-robin")
        .quick_health()
        .placed("db", "address", &address);
    let config = remembering(service, &file)
        .discovery("resolvers", vec![dns.address().to_string()])
        .discovery("min_ttl", "100ms");
    let daemon = Daemon::start(&config);
    let of_a = format!("db@{}", a.address().ip());
    remembered(&file, &of_a, |it| it["health"] == "up");
    drop(daemon);
    drain(&file, &of_a);
    dns.set(&[]);
    for _ in 0..2 {
        let saved = fs::read(&file).unwrap();
        let daemon = Daemon::start(&config);
        eventually("the state file is written again", || {
            (fs::read(&file).unwrap() != saved).then_some(())
        });
        remembered(&file, &of_a, |it| it["duty"] == "drain");
        daemon.hang_up();
    }
    let daemon = Daemon::start(&config);
    let mark = daemon.log().mark();
    dns.set(&both);
    let line = daemon.wait_for(mark, words::CHANGED, "plan", "+2 -1 ~0 =0");
    assert_eq!(line.text("eligible"), "1/2");
    let address = daemon.address("web");
    eventually("b serves", || ask_name(address).ok());
    for _ in 0..6 {
        assert_eq!(ask_name(address).unwrap(), "b");
    }
    assert_eq!(reported(&daemon, &of_a).text("administered"), "drain 100%");
}

#[test]
fn a_state_file_that_cannot_be_used_is_ignored_with_a_warning_and_replaced() {
    let (_directory, file) = state();
    let a = Backend::named("a");
    let service = Service::new("web").quick_health().backend("a", a.address());
    let config = remembering(service, &file);
    let old = "{\"version\":1,\"saved_ms\":1,\"backends\":[]}";
    for (content, why) in [
        ("{\"version\":1,\"back", "it is damaged"),
        ("{\"version\":7}", "it is of version 7"),
        (old, "more than state_max_age"),
    ] {
        fs::write(&file, content).unwrap();
        let daemon = Daemon::start(&config);
        let said = |line: &Line| line.says(words::STATE_IGNORED);
        let line = daemon.log().wait(0, words::STATE_IGNORED, said);
        assert!(line.text("why").contains(why), "{}", line.raw());
        remembered(&file, "a", |it| it["health"] == "up");
    }
}

#[test]
fn a_place_that_cannot_be_written_is_told_and_keeps_nobody_from_serving() {
    let (directory, _) = state();
    let nowhere = directory.path().join("none/state.json");
    let a = Backend::named("a");
    let service = Service::new("web").quick_health().backend("a", a.address());
    let mut daemon = Daemon::start(&remembering(service, &nowhere));
    let said = |line: &Line| line.says(words::STATE_NOT_SAVED);
    daemon.log().wait(0, words::STATE_NOT_SAVED, said);
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "a");
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_until_stopped(), 0);
}

#[test]
fn a_state_file_is_one_daemons_until_it_stops() {
    let (_directory, file) = state();
    let meeting = Meeting::new();
    let service = Service::new("web").backend("a", meeting.address());
    let config = remembering(service, &file).runtime("drain_timeout", "30s");
    let mut first = Daemon::start(&config);
    let (status, said) = Launch::new().refuse(&config.text());
    assert!(!status.success(), "{said}");
    let named = format!("another daemon has the state file {}", file.display());
    assert!(said.contains(&named), "{said}");
    // While sessions end there, the next one starts.
    let session = meeting.session(first.address("web"));
    first.signal(Signal::TERM);
    let second = Daemon::start(&config);
    assert!(first.is_running());
    drop(session);
    assert_eq!(first.wait_until_stopped(), 0);
    let not_locked = second
        .log()
        .all(0, |line| line.raw().contains("not locked"));
    assert!(not_locked.is_empty(), "{not_locked:?}");
}

#[test]
fn a_stop_saves_and_systemd_says_where() {
    let (directory, file) = state();
    let a = Backend::named("a");
    let service = Service::new("web").quick_health().backend("a", a.address());
    let mut daemon = Launch::new()
        .env("STATE_DIRECTORY", directory.path())
        .start(&Config::of(service));
    daemon.wait_until_up(0, "a");
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    let a = remembered(&file, "a", |_| true);
    assert_eq!(a["health"], "up");
    // It drained for a second.
    assert!(a["up_ms"].as_u64().unwrap() >= 500, "{a}");
}

#[test]
fn the_last_good_configuration_starts_in_place_of_a_broken_one() {
    let (_directory, file) = state();
    let a = Backend::named("a");
    let service = Service::new("web").quick_health().backend("a", a.address());
    let config = remembering(service, &file);
    let good = file.with_extension("last-good.toml");
    let daemon = Daemon::start(&config);
    eventually("the configuration is kept", || {
        (fs::read_to_string(&good).ok()? == config.text()).then_some(())
    });
    drop(daemon);

    let broken = format!("{}\nnonsense = [", config.text());
    let (status, said) = Launch::new().refuse(&broken);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("nonsense"), "{said}");

    let daemon = Launch::new().with("--last-good").start_text(&broken);
    let said = |line: &Line| line.says(words::BROKEN);
    let line = daemon.log().wait(0, words::BROKEN, said);
    assert!(line.raw().contains("ERROR"), "{}", line.raw());
    assert!(!line.text("problems").is_empty());
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "a");
    // What is broken stays broken, and what is repaired takes effect.
    daemon.reload_rejected(&broken);
    daemon.reload(&config);
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "a");
}

#[test]
fn without_a_last_good_configuration_a_broken_one_is_refused() {
    let (_directory, file) = state();
    let broken = format!("[runtime]\nstate_file = \"{}\"\n", file.display());
    let (status, said) = Launch::new().with("--last-good").refuse(&broken);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("no service is configured"), "{said}");
    assert!(said.contains("no last good configuration"), "{said}");
}
