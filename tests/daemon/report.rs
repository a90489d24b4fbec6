//! `ballast report`: what a running daemon has remembered, told in three forms.

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::support::{Api, Backend, Config, Daemon, Launch, Line, Service, eventually, words};

fn report(daemon: &Daemon, arguments: &[&str]) -> Output {
    let told = |line: &Line| line.says(words::ADMIN_LISTENS);
    let line = daemon.log().wait(0, words::ADMIN_LISTENS, told);
    Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["report", "--admin", &line.text("listener")])
        .args(arguments)
        .output()
        .unwrap()
}

fn text(output: Output) -> String {
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    String::from_utf8(output.stdout).unwrap()
}

fn json(daemon: &Daemon, arguments: &[&str]) -> Value {
    let told = text(report(daemon, &[&["--format", "json"], arguments].concat()));
    serde_json::from_str(&told).unwrap()
}

/// `web` with the backends `a` and `b`, of which `needed` must be up.
fn web(a: &Backend, b: &Backend, needed: i64) -> Config {
    let service = Service::new("web")
        .key("min_up", needed)
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    Config::of(service).admin("listen", "127.0.0.1:0")
}

/// Until all backends are up, and again after `a` was down.
fn fail_and_repair(daemon: &Daemon, a: &mut Backend) {
    daemon.wait_until_up(0, "a");
    daemon.wait_until_up(0, "b");
    let mark = daemon.log().mark();
    a.refuse();
    daemon.wait_until_down(mark, "a");
    a.answer();
    daemon.wait_until_up(mark, "a");
}

#[test]
fn it_tells_measured_beside_predicted_availability_and_each_failover() {
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let daemon = Daemon::start(&web(&a, &b, 1));
    fail_and_repair(&daemon, &mut a);
    let found = eventually("the failover is over", || {
        let found = json(&daemon, &[]);
        let failovers = found["failovers"].as_array().unwrap().len();
        (failovers == 1).then_some(found)
    });
    let service = &found["services"][0];
    assert_eq!(service["name"], "web");
    // One of two was enough.
    assert_eq!(service["record"]["failures"], 0, "{service:#}");
    assert_eq!(service["record"]["availability"], 1.0);
    let [a, b] = [0, 1].map(|at| &service["backends"][at]["record"]);
    assert_eq!(
        (&a["failures"], &b["failures"]),
        (&Value::from(1), &Value::from(0))
    );
    let of = |record: &Value| record["availability"].as_f64().unwrap();
    assert!(of(a) < 1.0 && of(b) == 1.0);
    let predicted = service["predicted_availability"].as_f64().unwrap();
    assert!(
        (predicted - 1.0).abs() < 1e-9,
        "b never failed: {predicted}"
    );
    let failover = &found["failovers"][0];
    assert_eq!(
        (&failover["service"], &failover["backend"]),
        (&"web".into(), &"a".into())
    );
    let times = ["detected_seconds", "moved_seconds", "recovered_seconds"];
    let times = times.map(|it| failover[it].as_f64().unwrap());
    assert!(times.is_sorted() && times[0] >= 0.0, "{times:?}");

    let told = text(report(&daemon, &[]));
    for part in [
        "web: 1 of 2 backends must be up",
        "measured",
        "predicted",
        "1 failover since",
        "web/a",
    ] {
        assert!(told.contains(part), "{part:?} not in\n{told}");
    }
    let page = text(report(&daemon, &["--format", "html"]));
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg") && page.contains("web/a"));
    // Nothing has happened in the last moment.
    assert_eq!(
        json(&daemon, &["--since", "0s"])["failovers"],
        Value::Array(Vec::new())
    );
}

#[test]
fn a_service_that_needs_all_of_them_was_down_with_one() {
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let daemon = Daemon::start(&web(&a, &b, 2));
    fail_and_repair(&daemon, &mut a);
    let found = eventually("the service is whole again", || {
        let found = json(&daemon, &[]);
        (found["services"][0]["record"]["recoveries"] == 1).then_some(found)
    });
    let service = &found["services"][0];
    assert_eq!(service["record"]["failures"], 1);
    let product: f64 = [0, 1]
        .map(|at| {
            service["backends"][at]["record"]["availability"]
                .as_f64()
                .unwrap()
        })
        .iter()
        .product();
    let predicted = service["predicted_availability"].as_f64().unwrap();
    assert!((predicted - product).abs() < 1e-9, "{predicted} {product}");
}

#[test]
fn what_an_operator_takes_out_is_told_apart_and_is_no_failure() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let door = format!("unix:{}", socket.display());
    let daemon = Daemon::start(&web(&a, &b, 1).admin("listen", door.clone()));
    daemon.wait_until_up(0, "a");
    daemon.wait_until_up(0, "b");
    assert!(!text(report(&daemon, &[])).contains("an operator had"));
    let all = "/v1/services/web/backends";
    let api = Api::unix(&socket);
    assert_eq!(api.post(all, &json!({ "do": "disable" })).status, 200);
    eventually("it has been out for a moment", || {
        let told = text(report(&daemon, &[]));
        let parts = told.split_once("an operator had all of them out for ");
        parts
            .filter(|(_, rest)| !rest.starts_with("0.0s"))
            .map(|_| ())
    });
    assert_eq!(api.post(all, &json!({ "do": "reset" })).status, 200);
    // What is written into the file is as much an operator's doing.
    let taken_out = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .also_placed("enabled", false);
    let taken_out = Config::of(taken_out).runtime("reload_guard", "off");
    let set_aside = || {
        let record = &json(&daemon, &[])["services"][0]["record"];
        record["set_aside_seconds"].as_f64().unwrap()
    };
    let before = set_aside();
    daemon.reload(&taken_out.admin("listen", door));
    eventually("that is counted, too", || {
        (set_aside() > before).then_some(())
    });
    let record = &json(&daemon, &[])["services"][0]["record"];
    assert_eq!(
        (&record["failures"], &record["down_seconds"]),
        (&0.into(), &0.0.into())
    );
    assert!(
        record["set_aside_seconds"].as_f64().unwrap() > 0.0,
        "{record:#}"
    );
}

#[test]
fn servers_that_change_places_while_no_daemon_runs_are_no_outage_and_no_failover() {
    let (mut up, mut down) = (Backend::named("a"), Backend::named("b"));
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let config = web(&up, &down, 1).runtime("state_file", state.to_str().unwrap());
    down.refuse();
    let mut daemon = Launch::new().start(&config);
    let mut names = ["a", "b"];
    daemon.wait_until_up(0, names[0]);
    daemon.wait_until_down(0, names[1]);
    // Which of the first verdicts comes first is not for a test to say.
    for _ in 0..4 {
        daemon.signal(crate::support::Signal::TERM);
        daemon.wait_until_stopped();
        up.refuse();
        down.answer();
        std::mem::swap(&mut up, &mut down);
        names.reverse();
        daemon = Launch::new().start(&config);
        daemon.wait_until_up(0, names[0]);
        daemon.wait_until_down(0, names[1]);
        let found = json(&daemon, &[]);
        assert_eq!(found["failovers"], Value::Array(Vec::new()));
        let record = &found["services"][0]["record"];
        assert_eq!(
            (&record["failures"], &record["down_seconds"]),
            (&0.into(), &0.0.into())
        );
        let nobody = |line: &Line| line.says(words::NOBODY_SERVES);
        assert_eq!(daemon.log().all(0, nobody).len(), 0);
    }
}

#[test]
fn the_record_of_a_service_goes_on_after_a_restart() {
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state.json");
    let config = web(&a, &b, 2).runtime("state_file", state.to_str().unwrap());
    let mut daemon = Launch::new().start(&config);
    fail_and_repair(&daemon, &mut a);
    eventually("the service is whole again", || {
        let found = json(&daemon, &[]);
        (found["services"][0]["record"]["recoveries"] == 1).then_some(())
    });
    daemon.signal(crate::support::Signal::TERM);
    daemon.wait_until_stopped();
    let daemon = Launch::new().start(&config);
    let record = &json(&daemon, &[])["services"][0]["record"];
    assert_eq!(
        (&record["failures"], &record["recoveries"]),
        (&1.into(), &1.into()),
        "{record}"
    );
}

#[test]
fn without_a_daemon_it_says_what_to_do_and_exits_with_3() {
    let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["report", "--admin", "unix:/no/such/socket"])
        .current_dir(Path::new("/"))
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.starts_with("ballast: cannot reach the daemon"),
        "{said}"
    );
}
