//! Alerts: what is told, to whom, how often, and that nothing suffers when nobody listens.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ballast::api::{Standing, View};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    Alert, Api, Backend, Config, Daemon, Line, Received, Receiver, Reply, Service, Signal, Storm,
    ask_name, eventually, words,
};

const EVERYTHING: [&str; 8] = [
    "backend-down",
    "backend-up",
    "degraded",
    "all-down",
    "flapping",
    "reload-failed",
    "failover",
    "suspect",
];

/// A service with backends of these names, probed often.
fn service(name: &str, backends: &[(&str, &Backend)]) -> Service {
    let service = Service::new(name).quick_health();
    backends.iter().fold(service, |service, (name, backend)| {
        service.backend(name, backend.address())
    })
}

/// Of one service with `a`, `receiver` is told of these occasions.
fn telling(receiver: &Receiver, a: &Backend, on: &[&str]) -> Config {
    let alert = Alert::webhook("ops", on, &receiver.url());
    Config::of(service("web", &[("a", a)])).alert(alert)
}

/// A daemon whose backends have had their first verdict.
fn settled(config: &Config, backends: &[&str]) -> Daemon {
    let daemon = Daemon::start(config);
    for backend in backends {
        daemon.wait_until_up(0, backend);
    }
    daemon
}

#[test]
fn a_backend_that_goes_down_and_returns_is_told_with_its_story() {
    let receiver = Receiver::new();
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::of(service("web", &[("a", &a), ("b", &b)])).alert(Alert::webhook(
        "ops",
        &["backend-down", "backend-up"],
        &receiver.url(),
    ));
    let daemon = settled(&config, &["a", "b"]);
    a.refuse();
    let down = receiver.wait_for("backend-down web/a");
    assert!(
        down.line.starts_with("POST /hook?key=1 HTTP/1.1"),
        "{}",
        down.line
    );
    assert_eq!(down.header("content-type"), "application/json");
    let json = down.json();
    assert_eq!(
        (&json["alert"], &json["status"]),
        (&"ops".into(), &"firing".into())
    );
    let event = &json["events"][0];
    assert_eq!(event["address"], a.address().to_string());
    assert_eq!(event["why"], words::REFUSED);
    assert_eq!(
        (&event["eligible"], &event["configured"]),
        (&1.into(), &2.into())
    );
    let text = json["text"].as_str().unwrap();
    assert!(
        text.ends_with("web/a is down: refused (1 of 2 eligible)"),
        "{text}"
    );
    a.answer();
    let up = receiver.wait_for("backend-up web/a");
    assert_eq!(up.json()["status"], "resolved");
    daemon.wait_for(0, words::ALERT_SENT, "alert", "ops");
    // The first verdicts were no news.
    assert_eq!(
        receiver.events(),
        ["backend-down web/a", "backend-up web/a"]
    );
}

#[test]
fn a_rack_that_dies_is_one_alert() {
    let receiver = Receiver::new();
    let names: Vec<String> = (0..20).map(|n| format!("rack-{n}")).collect();
    let mut rack: Vec<Backend> = names.iter().map(|name| Backend::named(name)).collect();
    let steady = Backend::named("steady");
    let mut all: Vec<(&str, &Backend)> = vec![("steady", &steady)];
    all.extend(names.iter().map(String::as_str).zip(&rack));
    let config = Config::of(service("web", &all)).alert(
        Alert::webhook("ops", &["backend-down", "degraded"], &receiver.url())
            .key("group_wait", "3s"),
    );
    let daemon = settled(
        &config,
        &names.iter().map(String::as_str).collect::<Vec<_>>(),
    );
    rack.iter_mut().for_each(Backend::refuse);
    let sent = daemon.wait_for(0, words::ALERT_SENT, "alert", "ops");
    assert_eq!(sent.number("events"), 21);
    let received = receiver.received();
    assert_eq!(received.len(), 1, "{received:?}");
    let text = received[0].json()["text"].as_str().unwrap().to_owned();
    assert!(
        text.contains("web is degraded (1 of 21 eligible)"),
        "{text}"
    );
    assert!(text.contains("20 backends are down: "), "{text}");
}

#[test]
fn the_limit_on_alerts_gathers_what_it_holds_back() {
    let receiver = Receiver::new();
    let mut a = Backend::named("a");
    let config = Config::of(service("web", &[("a", &a)])).alert(
        Alert::webhook("ops", &["backend-down", "backend-up"], &receiver.url())
            .key("min_interval", "4s"),
    );
    let daemon = settled(&config, &["a"]);
    for _ in 0..3 {
        let mark = daemon.log().mark();
        a.refuse();
        daemon.wait_until_down(mark, "a");
        a.answer();
        daemon.wait_until_up(mark, "a");
    }
    let all = eventually("every event is told", || {
        let received = receiver.received();
        let count: usize = received.iter().map(|it| it.events().len()).sum();
        (count == 6).then_some(received)
    });
    assert!(all.len() <= 3, "{all:?}");
    let held_back = |it: &Received| it.json()["held_back"].as_u64().unwrap();
    assert_eq!(held_back(&all[0]), 0);
    assert!(all.iter().map(held_back).sum::<u64>() >= 2, "{all:?}");
    assert_eq!(
        receiver.events(),
        ["backend-down web/a", "backend-up web/a"].repeat(3)
    );
}

#[test]
fn a_service_that_is_degraded_or_has_nobody_left_is_told_until_it_is_not() {
    let receiver = Receiver::new();
    let (mut a, mut b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::of(service("web", &[("a", &a), ("b", &b)])).alert(
        Alert::webhook("ops", &["degraded", "all-down"], &receiver.url())
            .key("degraded_below", "60%"),
    );
    let daemon = settled(&config, &["a", "b"]);
    let mark = daemon.log().mark();
    let status = |received: &Received| received.json()["events"][0]["status"].clone();
    a.refuse();
    daemon.wait_until_down(mark, "a");
    let degraded = receiver.wait_for("degraded web/");
    assert_eq!(status(&degraded), "firing");
    assert_eq!(degraded.json()["events"][0]["below_percent"], 60);
    b.refuse();
    let all_down = receiver.wait_for("all-down web/");
    assert_eq!(all_down.json()["severity"], "critical");
    daemon.wait_until_down(mark, "b");
    b.answer();
    receiver.wait("somebody serves again", |it| {
        it.events() == ["all-down web/"] && status(it) == "resolved"
    });
    a.answer();
    receiver.wait("all is well", |it| {
        it.events() == ["degraded web/"] && status(it) == "resolved"
    });
    assert_eq!(receiver.received().len(), 4);
}

#[test]
fn a_service_whose_backends_have_all_left_is_as_down_as_one_whose_backends_have_died() {
    let receiver = Receiver::new();
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("backends.toml");
    let write = |text: &str| {
        let draft = path.with_extension("draft");
        fs::write(&draft, text).unwrap();
        fs::rename(draft, &path).unwrap();
    };
    let mut a = Backend::named("a");
    let (empty, full) = (
        "backend = []",
        format!("[[backend]]\nname = \"a\"\naddress = \"{}\"\n", a.address()),
    );
    write(empty);
    let service = Service::new("web")
        .quick_health()
        .key("backends_file", path.to_str().unwrap());
    let config = Config::of(service)
        .alert(Alert::webhook("ops", &["all-down"], &receiver.url()).key("group_wait", "0s"));
    let told = |statuses: &[&str]| {
        eventually("the alert", || {
            let all = receiver.received();
            let status = |it: &Received| it.json()["events"][0]["status"].clone();
            (all.iter().map(status).collect::<Vec<_>>() == statuses).then_some(())
        });
    };
    let daemon = Daemon::start(&config);
    daemon.wait_for(0, words::NOBODY_SERVES, "service", "web");
    told(&["firing"]);
    write(&full);
    told(&["firing", "resolved"]);
    daemon.wait_for(0, words::SERVED_AGAIN, "service", "web");
    let mark = daemon.log().mark();
    a.refuse();
    daemon.wait_for(mark, words::NOBODY_SERVES, "service", "web");
    told(&["firing", "resolved", "firing"]);
    // Down for another reason, it is down still: nothing is told until somebody serves.
    let mark = daemon.log().mark();
    write(empty);
    daemon.wait_for(mark, words::CHANGED, "eligible", "0/0");
    a.answer();
    write(&full);
    told(&["firing", "resolved", "firing", "resolved"]);
    let line = |line: &Line| line.says(words::NOBODY_SERVES);
    assert_eq!(daemon.log().all(0, line).len(), 2);
}

#[test]
fn a_backend_that_flaps_is_told_once() {
    let receiver = Receiver::new();
    let mut a = Backend::named("a");
    let config = Config::of(service("web", &[("a", &a)])).alert(
        Alert::webhook("ops", &["flapping", "reload-failed"], &receiver.url()).key("flapping", 4),
    );
    let daemon = settled(&config, &["a"]);
    for _ in 0..4 {
        let mark = daemon.log().mark();
        a.refuse();
        daemon.wait_until_down(mark, "a");
        a.answer();
        daemon.wait_until_up(mark, "a");
    }
    let told = receiver.wait_for("flapping web/a");
    assert_eq!(told.json()["events"][0]["transitions"], 4);
    daemon.reload_rejected("nonsense");
    receiver.wait_for("reload-failed /");
    assert_eq!(receiver.events().len(), 2);
}

#[test]
fn a_rejected_reload_is_told_with_its_problems_and_its_end() {
    let receiver = Receiver::new();
    let a = Backend::named("a");
    let config = telling(&receiver, &a, &["reload-failed"]);
    let daemon = settled(&config, &["a"]);
    daemon.reload_rejected(&config.text().replace("interval", "intervall"));
    let told = receiver.wait_for("reload-failed /");
    let problem = told.json()["events"][0]["problems"][0].to_string();
    assert!(problem.contains("unknown key `intervall`"), "{problem}");
    daemon.reload(&config);
    receiver.wait("the reload that works", |it| {
        it.json()["status"] == "resolved"
    });
}

#[test]
fn a_rejected_list_of_backends_is_told_with_its_service() {
    let receiver = Receiver::new();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    let a = Backend::named("a");
    let good = format!("[[backend]]\nname = \"a\"\naddress = \"{}\"\n", a.address());
    let plain = service("web", &[]);
    let told = |service: Service| {
        let alert = Alert::webhook("ops", &["reload-failed"], &receiver.url());
        Config::of(service).alert(alert)
    };
    let listing = plain.clone().key("backends_file", path.to_str().unwrap());
    // What was wrong from the start has nobody at a terminal either.
    let daemon = Daemon::start(&told(listing));
    let statuses = || -> Vec<String> {
        let received = receiver.received().into_iter();
        let events = received.flat_map(|it| it.json()["events"].as_array().unwrap().clone());
        let status = |it: Value| {
            assert_eq!(it["service"], "web", "{it}");
            it["status"].as_str().unwrap().to_owned()
        };
        events.map(status).collect()
    };
    let first = receiver.wait_for("reload-failed web/");
    assert!(
        first.json()["text"]
            .as_str()
            .unwrap()
            .contains("the backends file of web was rejected: "),
        "{first:?}"
    );
    fs::write(&path, &good).unwrap();
    eventually("it is good", || {
        (statuses() == ["firing", "resolved"]).then_some(())
    });
    daemon.wait_until_up(0, "a");
    fs::write(&path, "nonsense").unwrap();
    eventually("it is bad", || {
        (statuses() == ["firing", "resolved", "firing"]).then_some(())
    });
    // Without the file there is nothing to be rejected.
    daemon.reload(&told(plain.backend("a", a.address())));
    eventually("it is gone", || {
        (statuses() == ["firing", "resolved", "firing", "resolved"]).then_some(())
    });
}

#[test]
fn a_receiver_that_hangs_is_given_up_after_bounded_retries_and_nobody_waits_for_it() {
    let receiver = Receiver::answering(&[], Reply::Never);
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::of(service("web", &[("a", &a), ("b", &b)])).alert(
        Alert::webhook("ops", &["backend-down", "backend-up"], &receiver.url())
            .key("timeout", "300ms")
            .key("retries", 2),
    );
    let daemon = settled(&config.admin("listen", "127.0.0.1:0"), &["a", "b"]);
    let api = daemon.api();
    let lost = || {
        let view: View = api.get("/v1/view").good();
        view.process.alerts.lost
    };
    let address = daemon.address("web");
    let storm = Storm::start(4, move |_| ask_name(address));
    let mark = daemon.log().mark();
    a.refuse();
    daemon.wait_until_down(mark, "a");
    storm.pass(200);
    let failed = daemon.wait_for(mark, words::ALERT_NOT_SENT, "alert", "ops");
    assert_eq!(failed.number("attempts"), 3);
    assert!(
        failed.text("error").contains("no answer within 300ms"),
        "{}",
        failed.raw()
    );
    assert_eq!(receiver.received().len(), 3);
    let told = failed.text("text");
    assert!(told.contains(": web/a is down: "), "{told}");
    assert!(receiver.url().contains(&failed.text("to")));
    let of = eventually("status to tell of it", || lost().pop());
    assert_eq!(
        (&*of.alert, of.to, of.text),
        ("ops", failed.text("to"), told)
    );
    assert!(of.why.contains("no answer within 300ms"), "{}", of.why);
    // The next one gets through.
    receiver.answer(Reply::Status(204));
    a.answer();
    receiver.wait_for("backend-up web/a");
    eventually("status to tell of it no more", || {
        lost().is_empty().then_some(())
    });
    storm.pass(200);
    drop(storm.finish());
}

#[test]
fn a_service_that_an_alert_tells_as_degraded_is_so_for_whoever_asks() {
    let receiver = Receiver::new();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let service = service("web", &[("a", &a), ("b", &b), ("c", &c)]);
    let alert = Alert::webhook("ops", &["degraded"], &receiver.url());
    let config = Config::of(service)
        .alert(alert)
        .admin("listen", format!("unix:{}", socket.display()));
    let _daemon = settled(&config, &["a", "b", "c"]);
    let api = Api::unix(&socket);
    let standing = |wanted: Standing| {
        eventually("the service to stand so", || {
            let view: View = api.get("/v1/view").good();
            let service = view.services.into_iter().next().unwrap();
            (service.standing == wanted).then_some(service.why)
        })
    };
    let change = |name: &str, what: &str| {
        let path = format!("/v1/services/web/backends/{name}");
        api.post(&path, &json!({ "do": what })).good::<Value>();
    };
    // It is meant so, and more than half of them serve.
    change("a", "drain");
    assert_eq!(standing(Standing::Ok), None);
    change("b", "drain");
    let degraded = receiver.wait_for("degraded web/");
    assert_eq!(degraded.json()["status"], "firing");
    let why = "1 of 3 backends may serve, of which alert ops tells: fewer than 50 %";
    assert_eq!(standing(Standing::Degraded).as_deref(), Some(why));
    change("b", "reset");
    receiver.wait("that it is over", |it| it.json()["status"] == "resolved");
    assert_eq!(standing(Standing::Ok), None);
}

#[test]
fn a_receiver_that_fails_for_a_while_is_tried_again() {
    for (first, attempts) in [
        (
            vec![Reply::Status(503), Reply::Status(429), Reply::Close],
            4,
        ),
        (vec![], 1),
    ] {
        let receiver = Receiver::answering(&first, Reply::Status(200));
        let mut a = Backend::named("a");
        let config = telling(&receiver, &a, &["backend-down"]);
        let daemon = settled(&config, &["a"]);
        a.refuse();
        let sent = daemon.wait_for(0, words::ALERT_SENT, "alert", "ops");
        assert_eq!(sent.number("attempts"), attempts);
    }
}

#[test]
fn a_receiver_that_refuses_is_not_asked_again_and_its_words_are_logged() {
    let receiver = Receiver::answering(&[], Reply::Status(400));
    let mut a = Backend::named("a");
    let config = telling(&receiver, &a, &["backend-down"]);
    let daemon = settled(&config, &["a"]);
    a.refuse();
    let failed = daemon.wait_for(0, words::ALERT_NOT_SENT, "alert", "ops");
    assert_eq!(failed.number("attempts"), 1);
    assert!(failed.text("error").contains("400"), "{}", failed.raw());
    assert!(failed.text("error").contains("why?"), "{}", failed.raw());
    daemon.signal(Signal::USR1);
    daemon.wait_for(0, words::REPORT, "alerts_failed", "1");
    assert_eq!(receiver.received().len(), 1);
}

#[test]
fn credentials_are_sent_and_a_token_that_comes_late_or_is_rotated_needs_no_reload() {
    let receiver = Receiver::new();
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    let mut a = Backend::named("a");
    let alert = |name, on: &str| Alert::webhook(name, &[on], &receiver.url());
    let mut headers = toml::Table::new();
    headers.insert("X-Key".to_owned(), "hush".into());
    let config = Config::of(service("web", &[("a", &a)]))
        .alert(
            alert("down", "backend-down")
                .key("token_file", token.to_str().unwrap())
                .key("headers", headers),
        )
        .alert(alert("up", "backend-up").key("token_file", token.to_str().unwrap()));
    let daemon = settled(&config, &["a"]);
    daemon.log().wait(0, "there is no token", |line| {
        line.raw().contains("no token can be read from")
    });
    std::fs::write(&token, "one-token\n").unwrap();
    a.refuse();
    let down = receiver.wait_for("backend-down web/a");
    assert_eq!(down.header("authorization"), "Bearer one-token");
    assert_eq!(down.header("x-key"), "hush");
    std::fs::write(&token, "another-token").unwrap();
    a.answer();
    let up = receiver.wait_for("backend-up web/a");
    assert_eq!(up.header("authorization"), "Bearer another-token");
    let told = daemon.log().all(0, |line| {
        ["hush", "one-token", "another-token", "key=1"]
            .iter()
            .any(|secret| line.raw().contains(secret))
    });
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn alerts_come_change_and_go_with_a_reload() {
    let (before, after) = (Receiver::new(), Receiver::new());
    let mut a = Backend::named("a");
    let plain = Config::of(service("web", &[("a", &a)]));
    let to = |receiver: &Receiver| {
        plain.clone().alert(Alert::webhook(
            "ops",
            &["backend-down", "backend-up"],
            &receiver.url(),
        ))
    };
    let daemon = settled(&plain, &["a"]);
    let line = daemon.reload(&to(&before));
    assert!(
        line.text("plan").ends_with("alerts +1 -0 ~0 =0"),
        "{}",
        line.raw()
    );
    a.refuse();
    before.wait_for("backend-down web/a");
    let line = daemon.reload(&to(&after));
    assert!(
        line.text("changes").contains("~alert ops"),
        "{}",
        line.raw()
    );
    a.answer();
    after.wait_for("backend-up web/a");
    daemon.reload(&plain);
    let mark = daemon.log().mark();
    a.refuse();
    daemon.wait_until_down(mark, "a");
    daemon.reload(&to(&after));
    let mark = daemon.log().mark();
    a.answer();
    daemon.wait_until_up(mark, "a");
    eventually("the second return is told", || {
        (after.events() == ["backend-up web/a"; 2]).then_some(())
    });
    assert_eq!(before.events(), ["backend-down web/a"]);
}

#[test]
fn an_alert_is_about_its_services_only() {
    let receiver = Receiver::new();
    let (mut a, mut b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::of(service("web", &[("a", &a)]))
        .service(service("db", &[("b", &b)]))
        .alert(Alert::webhook("db", &EVERYTHING, &receiver.url()).key("services", vec!["db"]));
    let daemon = settled(&config, &["a", "b"]);
    let mark = daemon.log().mark();
    a.refuse();
    daemon.wait_until_down(mark, "a");
    b.refuse();
    receiver.wait_for("backend-down db/b");
    let others = receiver
        .events()
        .iter()
        .filter(|it| !it.contains("db/"))
        .count();
    assert_eq!(others, 0);
}

#[test]
fn what_waits_when_the_daemon_stops_is_told_at_once() {
    let receiver = Receiver::new();
    let mut a = Backend::named("a");
    let config = Config::of(service("web", &[("a", &a)]))
        .alert(Alert::webhook("ops", &["backend-down"], &receiver.url()).key("group_wait", "1h"));
    let mut daemon = settled(&config, &["a"]);
    let mark = daemon.log().mark();
    a.refuse();
    daemon.wait_until_down(mark, "a");
    daemon.signal(Signal::TERM);
    receiver.wait_for("backend-down web/a");
    daemon.wait_until_stopped();
}

#[test]
fn a_stop_does_not_wait_long_for_a_receiver_that_hangs() {
    let receiver = Receiver::answering(&[], Reply::Never);
    let mut a = Backend::named("a");
    let config = Config::of(service("web", &[("a", &a)]))
        .alert(Alert::webhook("ops", &["backend-down"], &receiver.url()).key("timeout", "5m"));
    let mut daemon = settled(&config, &["a"]);
    a.refuse();
    receiver.wait_for("backend-down web/a");
    let since = std::time::Instant::now();
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    assert!(
        since.elapsed() < Duration::from_secs(20),
        "{:?}",
        since.elapsed()
    );
}

#[test]
fn a_failover_is_told_with_its_timeline() {
    let receiver = Receiver::new();
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::of(service("web", &[("a", &a), ("b", &b)])).alert(Alert::webhook(
        "ops",
        &["failover"],
        &receiver.url(),
    ));
    let _daemon = settled(&config, &["a", "b"]);
    a.refuse();
    let told = receiver.wait_for("failover web/a");
    let event = &told.json()["events"][0];
    assert_eq!(event["why"], words::REFUSED);
    let ms = |key: &str| {
        event[key]
            .as_f64()
            .unwrap_or_else(|| panic!("{key} in {event}"))
    };
    assert!(
        ms("detected_ms") <= ms("moved_ms") && ms("moved_ms") <= ms("total_ms"),
        "{event}"
    );
    assert_eq!(
        (&event["sessions_hurt"], &event["eligible"]),
        (&0.into(), &1.into())
    );
}

#[test]
fn a_backend_that_answers_slower_than_it_used_to_is_suspect_and_serves_on() {
    const SLOW: Duration = Duration::from_millis(200);
    let receiver = Receiver::new();
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = Arc::clone(&is_slow);
    let server = Backend::serve(move |mut stream| {
        if slow.load(Ordering::Relaxed) {
            // What it is under test for.
            thread::sleep(SLOW);
        }
        // A probe may have left already.
        stream.write_all(b"welcome\n").ok();
    });
    let config = Config::of(
        Service::new("web")
            .health("interval", "50ms")
            .health("timeout", "10s")
            .health("expect", "welcome")
            .backend("a", server.address()),
    )
    .alert(Alert::webhook("ops", &EVERYTHING, &receiver.url()));
    let daemon = settled(&config, &["a"]);
    // What is usual takes a few probes to learn, and one that is sent late teaches nothing.
    let punctual_probes = || {
        let mark = daemon.log().mark();
        daemon.signal(Signal::USR1);
        let report = daemon
            .log()
            .wait(mark, "a report", |line| line.says(words::REPORT));
        let late: f64 = report.text("latest_probe_ms").parse().unwrap();
        if late < 5.0 {
            report.number("probes")
        } else {
            0
        }
    };
    let mut seen = 0;
    eventually("the usual is known", || {
        seen += punctual_probes();
        (seen > 30).then_some(())
    });
    is_slow.store(true, Ordering::Relaxed);
    let suspect = daemon.wait_for(0, words::SUSPECT, "backend", "a");
    let latency: f64 = suspect.text("latency_ms").parse().unwrap();
    let usual: f64 = suspect.text("usual_ms").parse().unwrap();
    assert!(usual < latency, "{}", suspect.raw());
    let told = receiver.wait_for("suspect web/a");
    assert_eq!(
        (&told.json()["status"], &told.json()["severity"]),
        (&"firing".into(), &"info".into())
    );
    let event = &told.json()["events"][0];
    assert!(
        event["latency_ms"].as_f64() > event["usual_ms"].as_f64(),
        "{event}"
    );
    assert!(event["phi"].as_f64() >= Some(8.0), "{event}");
    is_slow.store(false, Ordering::Relaxed);
    daemon.wait_for(0, words::NO_LONGER_SUSPECT, "backend", "a");
    receiver.wait("it is as usual again", |it| {
        it.json()["status"] == "resolved"
    });
    let downs = daemon.log().all(0, |line| line.says(words::BACKEND_DOWN));
    assert!(downs.is_empty(), "{downs:?}");
}

/// A program that is a shell script, in a directory that goes with it.
fn script(text: &str) -> (TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("told");
    fs::write(&path, format!("#!/bin/sh\n{text}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn a_program_gets_the_message_on_its_input_and_in_its_environment() {
    let (directory, program) = script(
        "cat > \"$1/input.new\"; env > \"$1/environment\"; mv \"$1/input.new\" \"$1/input\"\n",
    );
    let place = directory.path();
    let mut a = Backend::named("a");
    let config = Config::of(service("web", &[("a", &a)])).alert(
        Alert::exec("ops", &EVERYTHING, &[&program, place.to_str().unwrap()])
            .key("group_wait", "1s"),
    );
    let daemon = settled(&config, &["a"]);
    a.refuse();
    daemon.wait_for(0, words::ALERT_SENT, "alert", "ops");
    let input = fs::read_to_string(place.join("input")).unwrap();
    let json: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(json["severity"], "critical");
    let environment = fs::read_to_string(place.join("environment")).unwrap();
    let variable = |name: &str| {
        let found = environment
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        found
            .unwrap_or_else(|| panic!("no {name} in {environment}"))
            .to_owned()
    };
    assert_eq!(variable("BALLAST_JSON"), input);
    assert_eq!(variable("BALLAST_TEXT"), json["text"].as_str().unwrap());
    assert_eq!(variable("BALLAST_ALERT"), "ops");
    assert_eq!(variable("BALLAST_SEVERITY"), "critical");
    assert_eq!(variable("BALLAST_SERVICES"), "web");
    assert!(variable("BALLAST_EVENTS").starts_with("all-down degraded backend-down"));
}

#[test]
fn a_program_that_fails_or_hangs_is_killed_tried_again_and_given_up() {
    for (text, timeout, why) in [
        ("echo no route >&2; exit 3", "10s", "exit code 3: no route"),
        ("sleep 1000 & wait", "200ms", "killed after 200ms"),
        ("kill -9 $$", "10s", "killed by signal 9"),
    ] {
        let (_directory, program) = script(text);
        let mut a = Backend::named("a");
        let config = Config::of(service("web", &[("a", &a)])).alert(
            Alert::exec("ops", &["backend-down"], &[&program])
                .key("timeout", timeout)
                .key("retries", 1),
        );
        let daemon = settled(&config, &["a"]);
        a.refuse();
        let failed = daemon.wait_for(0, words::ALERT_NOT_SENT, "alert", "ops");
        assert_eq!(failed.number("attempts"), 2);
        assert_eq!(failed.text("error"), why);
    }
}

#[test]
fn a_program_that_is_not_there_is_told_and_nothing_else_happens() {
    let mut a = Backend::named("a");
    let config = Config::of(service("web", &[("a", &a)]))
        .alert(Alert::exec("ops", &["backend-down"], &["/no/such/program"]).key("retries", 0));
    let daemon = settled(&config, &["a"]);
    a.refuse();
    let failed = daemon.wait_for(0, words::ALERT_NOT_SENT, "alert", "ops");
    assert!(
        failed.text("error").contains("No such file"),
        "{}",
        failed.raw()
    );
    let mark = daemon.log().mark();
    a.answer();
    daemon.wait_until_up(mark, "a");
}
