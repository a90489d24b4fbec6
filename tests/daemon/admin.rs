//! The admin API: what it tells, who may change what, and that nobody who uses or abuses it harms a
//! session.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use ballast::api::{self, Changed, Events, Refused, Reloaded, Sessions, Standing, State, View};
use serde_json::{Value, json};

use crate::support::{
    Api, Backend, Config, Daemon, End, Held, Launch, Peer, Service, Signal, Storm, ask_name,
    echo_once, eventually, faults, read_head, words,
};

/// A service of two backends, `a` and `b`, with the API on a free port of loopback.
fn two() -> (Backend, Backend, Config) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    (a, b, Config::of(service).admin("listen", "127.0.0.1:0"))
}

/// The view, once it is `wanted`.
fn view_when(api: &Api, what: &str, wanted: impl Fn(&View) -> bool) -> View {
    eventually(what, || {
        let view: View = api.get("/v1/view").good();
        wanted(&view).then_some(view)
    })
}

fn backend<'v>(view: &'v View, name: &str) -> &'v api::Backend {
    let all = view.services.iter().flat_map(|it| &it.backends);
    let found = all.into_iter().find(|it| it.name == name);
    found.expect("it is in the view")
}

#[test]
fn a_view_tells_how_everything_stands_over_tcp_and_over_a_socket() {
    let (mut a, _b, config) = two();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listen = format!("unix:{}", socket.display());
    let listen = toml::Value::from(vec!["127.0.0.1:0".to_owned(), listen]);
    let mut daemon = Daemon::start(&config.admin("listen", listen));
    for api in [daemon.api(), Api::unix(&socket)] {
        let view = view_when(&api, "both are up", |view| {
            view.services[0]
                .backends
                .iter()
                .all(|it| it.state == State::Up)
        });
        assert_eq!(view.process.pid, daemon.pid());
        assert_eq!(view.process.workers.len(), 2);
        assert_eq!(view.process.configuration.generation, 1);
        let web = &view.services[0];
        assert_eq!((web.name.as_str(), web.standing), ("web", Standing::Ok));
        assert_eq!((web.eligible, web.configured, web.min_up), (2, 2, 1));
        assert_eq!(web.listeners[0].address, daemon.address("web").to_string());
        let a = backend(&view, "a");
        assert!(a.serving && a.why.is_none() && a.effective_weight_thousandths == 1000);
        assert!(a.check.as_ref().unwrap().latency_seconds.is_some());
    }
    let api = daemon.api();
    assert_eq!(api.get("/healthz").text(), "ok\n");
    assert_eq!(api.get("/readyz").text(), "ready\n");
    a.refuse();
    daemon.wait_until_down(0, "a");
    let view = view_when(&api, "one is down", |view| view.services[0].eligible == 1);
    let a = backend(&view, "a");
    assert_eq!((a.state, a.serving), (State::Down, false));
    assert!(a.why.as_deref().unwrap().contains("refused"), "{:?}", a.why);
    assert_eq!(view.services[0].standing, Standing::Degraded);
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    assert!(!socket.exists(), "the socket goes with the daemon");
}

#[test]
fn what_is_not_there_is_refused_in_words() {
    let (_a, _b, config) = two();
    let daemon = Daemon::start(&config);
    let api = daemon.api();
    let refused = |method, path| -> (u16, Refused) {
        let answer = api.ask(method, path, None).unwrap();
        (answer.status, answer.document())
    };
    assert_eq!(refused("GET", "/nowhere").0, 404);
    let (status, why) = refused("DELETE", "/v1/view");
    assert_eq!(status, 405);
    assert_eq!(why.help.as_deref(), Some("allowed: GET"));
    let head = api.ask("HEAD", "/v1/view", None).unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    // A name that was made to lead here, and the page of another site.
    let rebound = api.clone().with("Host", "evil.example");
    assert_eq!(rebound.get("/v1/view").status, 421);
    let other = api.clone().with("Origin", "https://evil.example");
    assert_eq!(other.get("/v1/view").status, 403);
}

#[test]
fn the_endpoint_follows_a_reload_and_a_stale_socket_does_not_keep_the_next_daemon_out() {
    let (_a, _b, config) = two();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let on_socket = config
        .clone()
        .admin("listen", format!("unix:{}", socket.display()));
    // Where a service manager has it make sockets, so that a reload may name one.
    let launch = Launch::new().env("RUNTIME_DIRECTORY", directory.path());
    let daemon = launch.start(&config);
    let tcp = daemon.api();
    daemon.reload(&on_socket);
    eventually("it listens there no more", || tcp.connect().err());
    let view: View = Api::unix(&socket).get("/v1/view").good();
    assert_eq!(view.process.configuration.generation, 2);
    // Another daemon must not take it.
    let (status, said) = Launch::new().refuse(&on_socket.text());
    assert!(
        !status.success() && said.contains("another process"),
        "{said}"
    );
    // It is killed with SIGKILL, and leaves the socket behind.
    drop(daemon);
    assert!(socket.exists());
    let daemon = Daemon::start(&on_socket);
    assert_eq!(Api::unix(&socket).get("/healthz").status, 200);
    let mark = daemon.log().mark();
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "a file").unwrap();
    daemon.reload(&config);
    assert!(socket.exists(), "what is not ours stays");
    assert_eq!(daemon.api_since(mark).get("/healthz").status, 200);
    let rejected = daemon.reload_rejected(&on_socket.text());
    assert!(
        rejected.text("problems").contains("something else"),
        "{}",
        rejected.raw()
    );
    daemon.log().wait(0, words::ADMIN_LISTENS, |line| {
        line.says(words::ADMIN_LISTENS)
    });
}

/// The same two, with a token for TCP and a state file.
fn administered(directory: &Path) -> (Backend, Backend, Config) {
    let token = directory.join("token");
    fs::write(&token, "secret\n").unwrap();
    let (a, b, config) = two();
    let config = config
        .admin("token_file", token.to_str().unwrap())
        .runtime("state_file", directory.join("state.json").to_str().unwrap());
    (a, b, config)
}

/// Its session is closed by the daemon.
fn is_reset(mut session: Held) {
    assert_eq!(session.stream.end(), End::Reset);
}

const A: &str = "/v1/services/web/backends/a";

#[test]
fn changes_over_tcp_take_the_token_and_make_sense() {
    let directory = tempfile::tempdir().unwrap();
    let (_a, _b, config) = administered(directory.path());
    let daemon = Daemon::start(&config);
    let api = daemon.api();
    let drain = json!({ "do": "drain" });
    let refused = |api: &Api, path: &str, body| {
        let answer = api.post(path, &body);
        (answer.status, answer.document::<Refused>())
    };
    assert_eq!(refused(&api, A, drain.clone()).0, 401);
    let wrong = api.clone().bearing("secres");
    assert_eq!(refused(&wrong, A, drain.clone()).0, 401);
    let api = api.bearing("secret");
    let (status, why) = refused(&api, "/v1/services/web/backends/c", drain.clone());
    assert_eq!((status, why.help.as_deref()), (404, Some("it has a, b")));
    let (status, why) = refused(&api, "/v1/services/wed/backends", drain.clone());
    assert_eq!((status, why.help.as_deref()), (404, Some("there is web")));
    assert_eq!(refused(&api, A, json!({ "do": "explode" })).0, 422);
    let heavy = json!({ "do": "weight", "percent": 1001 });
    assert_eq!(
        refused(&api, A, heavy).1.help.as_deref(),
        Some("allowed: 0 to 1000")
    );
    let back = json!({ "do": "drain", "deadline_seconds": -1.0 });
    assert_eq!(refused(&api, A, back).0, 422);
    assert_eq!(
        refused(&api, "/v1/services/web/fail-back", json!({})).0,
        422
    );
    let form = api.ask("POST", A, Some(("text/plain", b"{\"do\":\"drain\"}")));
    assert_eq!(form.unwrap().status, 415);
    let broken = api.ask("POST", A, Some(("application/json", b"{")));
    assert_eq!(broken.unwrap().status, 400);
    let huge = vec![b' '; (64 << 10) + 1];
    let huge = api.ask("POST", A, Some(("application/json; charset=utf-8", &huge)));
    assert_eq!(huge.unwrap().status, 413);
    let view: View = api.get("/v1/view").good();
    assert!(
        view.services[0]
            .backends
            .iter()
            .all(|it| it.admin.is_none())
    );
    // The token is replaced while the daemon runs, and taken away.
    fs::write(directory.path().join("token"), "other").unwrap();
    assert_eq!(refused(&api, A, drain.clone()).0, 401);
    fs::remove_file(directory.path().join("token")).unwrap();
    assert_eq!(refused(&api, A, drain.clone()).0, 403);
    let (_a, _b, config) = two();
    let daemon = Daemon::start(&config);
    let (status, why) = refused(&daemon.api().bearing("secret"), A, drain);
    assert_eq!(status, 403);
    assert!(why.help.unwrap().contains("token_file"));
}

#[test]
fn a_drain_outlives_a_reload_and_a_kill_9_until_it_is_reset() {
    let directory = tempfile::tempdir().unwrap();
    let (_a, _b, config) = administered(directory.path());
    let mut daemon = Daemon::start(&config);
    let mut api = daemon.api().bearing("secret");
    view_when(&api, "both are up", |view| view.services[0].eligible == 2);
    let changed: Changed = api.post(A, &json!({ "do": "drain" })).good();
    assert!(changed.durable, "{changed:?}");
    assert_eq!(changed.backends, 1);
    let again: Changed = api.post(A, &json!({ "do": "drain" })).good();
    assert_eq!(again.backends, 0, "{again:?}");
    let drained = |view: &View| {
        let a = backend(view, "a");
        let admin = a.admin.as_ref().is_some_and(|it| it.duty == "drain");
        !a.serving && admin && a.why.as_deref() == Some("drained by an operator")
    };
    for round in ["at once", "after a reload", "after a kill -9"] {
        view_when(&api, round, drained);
        let address = daemon.address("web");
        assert!(
            (0..10).all(|_| ask_name(address).unwrap() == "b"),
            "{round}"
        );
        match round {
            "at once" => drop(daemon.reload(&config)),
            "after a reload" => {
                drop(daemon);
                daemon = Daemon::start(&config);
                api = daemon.api().bearing("secret");
            }
            _ => {}
        }
    }
    let weighed: Changed = api
        .post(A, &json!({ "do": "weight", "percent": 50 }))
        .good();
    assert_eq!(weighed.backends, 1);
    let enabled: Changed = api.post(A, &json!({ "do": "enable" })).good();
    assert_eq!(enabled.backends, 1);
    let view = view_when(&api, "it serves with half its weight", |view| {
        backend(view, "a").effective_weight_thousandths == 500
    });
    assert_eq!(
        backend(&view, "a").admin.as_ref().unwrap().weight_percent,
        50
    );
    let reset: Changed = api
        .post("/v1/services/web/backends", &json!({ "do": "reset" }))
        .good();
    assert_eq!(reset.backends, 1);
    let view: View = api.get("/v1/view").good();
    assert_eq!(backend(&view, "a").admin, None);
    let events: Events = api.get("/v1/events?backend=a").good();
    let changes = events.events.iter().filter(|it| it.kind == "changed");
    assert!(changes.count() >= 2);
}

#[test]
fn a_drain_has_a_deadline_and_until_then_costs_no_session() {
    let directory = tempfile::tempdir().unwrap();
    let (a, _b, config) = administered(directory.path());
    let daemon = Daemon::start(&config.log_every_session());
    let api = daemon.api().bearing("secret");
    let address = daemon.address("web");
    let storm = Storm::start(4, move |seed| echo_once(address, seed, 1000));
    let (mut held, mut of_a) = (Vec::new(), 0);
    while of_a < 3 {
        let client = Held::open(address);
        of_a += usize::from(client.name == "a");
        held.push(client);
    }
    let changed: Changed = api.post(A, &json!({ "do": "drain" })).good();
    assert!(changed.sessions >= 3, "{changed:?}");
    view_when(&api, "it serves no more", |view| {
        !backend(view, "a").serving
    });
    assert!((0..20).all(|_| ask_name(address).unwrap() == "b"));
    held.iter_mut().for_each(Held::still_works);
    let mark = daemon.log().mark();
    let drain = json!({ "do": "drain", "deadline_seconds": 0.05 });
    let _: Changed = api.post(A, &drain).good();
    daemon.wait_for(mark, words::CLOSING_ENDS, "backend", "a");
    view_when(&api, "its sessions are closed", |view| {
        backend(view, "a").traffic.sessions == 0
    });
    let (closed, open): (Vec<_>, Vec<_>) = held.into_iter().partition(|it| it.name == "a");
    closed.into_iter().for_each(is_reset);
    open.into_iter().for_each(|mut it| it.still_works());
    storm.pass(20);
    assert_eq!(storm.finish().failed.len(), 0);
    drop(a);
}

#[test]
fn sessions_are_listed_in_pages_filtered_and_closed() {
    let directory = tempfile::tempdir().unwrap();
    let (_a, _b, config) = administered(directory.path());
    let daemon = Daemon::start(&config);
    let api = daemon.api().bearing("secret");
    let address = daemon.address("web");
    let mut held: Vec<_> = (0..6).map(|_| Held::open(address)).collect();
    let of_a = held.iter().filter(|it| it.name == "a").count();
    let all: Sessions = api.get("/v1/sessions").good();
    assert_eq!((all.total, all.sessions.len(), all.next), (6, 6, None));
    let ages: Vec<_> = all.sessions.iter().map(|it| it.age_seconds).collect();
    assert!(ages.is_sorted_by(|one, other| one >= other), "{ages:?}");
    let first: Sessions = api.get("/v1/sessions?limit=4").good();
    assert_eq!((first.sessions.len(), first.next), (4, Some(4)));
    let rest: Sessions = api.get("/v1/sessions?limit=4&offset=4").good();
    assert_eq!((rest.sessions.len(), rest.next), (2, None));
    assert_eq!(rest.sessions[1].id, all.sessions[5].id);
    let its: Sessions = api.get("/v1/sessions?service=web&backend=a").good();
    assert_eq!(its.total as usize, of_a);
    let one = &its.sessions[0];
    assert_eq!(
        (one.backend.as_deref(), one.phase.as_str()),
        (Some("a"), "relay")
    );
    assert_eq!(one.listener, address.to_string());
    let nobody: Sessions = api.get("/v1/sessions?client=10.0.0.1").good();
    assert_eq!(nobody.total, 0);
    assert_eq!(api.get("/v1/sessions?client=x").status, 422);
    assert_eq!(api.get("/v1/sessions?limit=x").status, 400);
    let close = format!("/v1/sessions/{}/close", one.id);
    let closed: Changed = api.post(&close, &json!({})).good();
    assert_eq!(closed.sessions, 1);
    let at = held
        .iter()
        .position(|it| it.stream.local_addr().unwrap().to_string() == one.client);
    is_reset(held.remove(at.unwrap()));
    eventually("it is not there any more", || {
        (api.post(&close, &json!({})).status == 404).then_some(())
    });
    held.iter_mut().for_each(Held::still_works);
    let all = "/v1/services/web/backends";
    let closed: Changed = api.post(all, &json!({ "do": "close-sessions" })).good();
    assert_eq!(closed.sessions, 5);
    held.into_iter().for_each(is_reset);
}

#[test]
fn a_reload_is_answered_with_its_outcome() {
    let directory = tempfile::tempdir().unwrap();
    let (_a, b, config) = administered(directory.path());
    let daemon = Daemon::start(&config);
    let api = daemon.api().bearing("secret");
    daemon.write(
        &config
            .clone()
            .service(Service::new("more").backend("b", b.address()))
            .text(),
    );
    let reloaded: Reloaded = api.post("/v1/reload", &json!({})).good();
    assert!(reloaded.changes.contains("+service more"), "{reloaded:?}");
    daemon.write("[[service]]\nname = \"web\"\n");
    let answer = api.post("/v1/reload", &json!({}));
    let refused: Refused = answer.document();
    assert_eq!(answer.status, 422);
    assert!(refused.problems[0].contains("ballast.toml:"), "{refused:?}");
    let view: View = api.get("/v1/view").good();
    assert_eq!(view.services.len(), 2);
    let configuration = view.process.configuration;
    assert_eq!(
        (configuration.generation, configuration.rejected.is_some()),
        (2, true)
    );
    let text = api.get("/v1/config");
    assert!(text.text().contains("name = \"more\""), "{}", text.text());
}

#[test]
fn events_are_told_as_they_happen() {
    let (mut a, _b, config) = two();
    let daemon = Daemon::start(&config);
    let api = daemon.api();
    view_when(&api, "both are up", |view| {
        view.services[0]
            .backends
            .iter()
            .all(|it| it.state == State::Up)
    });
    let events: Events = api.get("/v1/events").good();
    let ids: Vec<_> = events.events.iter().map(|it| it.id).collect();
    assert!(ids.iter().copied().eq(1..=ids.len() as u64), "{ids:?}");
    let kinds: Vec<_> = events.events.iter().map(|it| it.kind.as_str()).collect();
    assert!(
        kinds.contains(&"listening") && kinds.contains(&"ready"),
        "{kinds:?}"
    );
    let mut stream = api.connect().unwrap();
    stream
        .write_all(&api.request("GET", "/v1/events/stream", None))
        .unwrap();
    let mut stream = BufReader::new(stream);
    let (status, headers) = read_head(&mut stream).unwrap();
    assert_eq!(status, 200);
    let is_stream =
        |(name, value): &(String, String)| name == "content-type" && value == "text/event-stream";
    assert!(headers.iter().any(is_stream), "{headers:?}");
    a.refuse();
    let (mut seen, mut views) = (String::new(), 0);
    for line in stream.lines() {
        let line = line.unwrap();
        views += usize::from(line == "event: view");
        if line.contains("backend-down") {
            seen = line;
        }
        if !seen.is_empty() && views >= 2 {
            break;
        }
    }
    let event: api::Event = serde_json::from_str(seen.strip_prefix("data: ").unwrap()).unwrap();
    assert_eq!(
        (event.backend.as_deref(), event.level.as_str()),
        (Some("a"), "warn")
    );
    let since: Events = api
        .get(&format!("/v1/events?since={}", event.id - 1))
        .good();
    assert_eq!(since.events[0], event);
    let one: Events = api.get("/v1/events?limit=1").good();
    assert_eq!(one.events.len(), 1);
}

#[test]
fn it_is_not_ready_before_it_stops_and_when_too_few_are_up() {
    let (mut a, mut b, config) = two();
    let mut daemon = Daemon::start(
        &config
            .admin("lame_duck", "1h")
            .runtime("drain_timeout", "0s"),
    );
    let api = daemon.api();
    assert_eq!(api.get("/readyz").status, 200);
    a.refuse();
    b.refuse();
    let answer = eventually("it is not ready", || {
        Some(api.get("/readyz")).filter(|it| it.status == 503)
    });
    assert!(
        answer.text().contains("0 backends may serve, 1 needed"),
        "{}",
        answer.text()
    );
    a.answer();
    b.answer();
    eventually("it is ready", || {
        (api.get("/readyz").status == 200).then_some(())
    });
    daemon.signal(Signal::TERM);
    let answer = eventually("it is not ready", || {
        Some(api.get("/readyz")).filter(|it| it.status == 503)
    });
    assert_eq!(answer.text(), "stopping\n");
    assert_eq!(api.get("/healthz").status, 200);
    // Clients that have not moved yet are served.
    ask_name(daemon.address("web")).unwrap();
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
}

#[test]
fn whoever_is_slow_silent_or_numerous_harms_neither_sessions_nor_operators() {
    let (_a, _b, config) = two();
    let daemon = Daemon::start(&config);
    let api = daemon.api();
    let address = daemon.address("web");
    let storm = Storm::start(4, move |seed| echo_once(address, seed, 1000));
    let mut crowd = Vec::new();
    for number in 0..1000 {
        // Some say nothing, some begin a request and some talk nonsense.
        let mut stream = api.connect().unwrap();
        let words: &[u8] = match number % 4 {
            0 => b"",
            1 => b"GET /v1/view HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ",
            2 => b"\x16\x03\x01\x02\x00\x01\x00",
            _ => b"POST /v1/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n",
        };
        // Those that had to make room are closed by now.
        let _ = stream.write_all(words);
        crowd.push(stream);
        if number % 100 == 0 {
            assert_eq!(api.get("/healthz").status, 200);
        }
    }
    assert_eq!(api.get("/v1/view").status, 200);
    assert!(daemon.descriptors() < 400, "{}", daemon.descriptors());
    let head = format!(
        "GET /healthz HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    let mut stream = api.connect().unwrap();
    let _ = stream.write_all(head.as_bytes());
    assert_eq!(api.get("/healthz").status, 200);
    storm.pass(20);
    assert_eq!(storm.finish().failed.len(), 0);
    drop(crowd);
}

#[test]
fn whoever_floods_the_endpoint_over_tcp_keeps_nobody_out_at_its_path() {
    let (_a, _b, config) = two();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listen = format!("unix:{}", socket.display());
    let listen = toml::Value::from(vec!["127.0.0.1:0".to_owned(), listen]);
    let daemon = Daemon::start(&config.admin("listen", listen));
    let (tcp, at_path) = (daemon.api(), Api::unix(&socket));
    let (over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    // Asks without a pause, and again as soon as it is let go.
    let flood = || {
        while !over.load(Ordering::Relaxed) {
            let Ok(mut stream) = tcp.connect() else {
                continue;
            };
            let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
            while !over.load(Ordering::Relaxed)
                && stream.write_all(request).is_ok()
                && matches!(stream.read(&mut [0; 4096]), Ok(1..))
            {
                answered.fetch_add(1, Ordering::Relaxed);
            }
        }
    };
    thread::scope(|threads| {
        for _ in 0..100 {
            threads.spawn(flood);
        }
        // A panic would leave the others at it.
        let asked = catch_unwind(|| {
            eventually("the flood has begun", || {
                (answered.load(Ordering::Relaxed) > 100).then_some(())
            });
            for _ in 0..50 {
                assert_eq!(at_path.get("/healthz").status, 200);
            }
        });
        over.store(true, Ordering::Relaxed);
        asked.unwrap();
    });
}

#[test]
fn every_document_is_as_the_description_says() {
    let directory = tempfile::tempdir().unwrap();
    let (mut a, _b, config) = administered(directory.path());
    let daemon = Daemon::start(&config);
    let api = daemon.api().bearing("secret");
    let address = daemon.address("web");
    let _held: Vec<_> = (0..4).map(|_| Held::open(address)).collect();
    daemon.wait_until_up(0, "a");
    a.refuse();
    view_when(&api, "one is down", |view| view.services[0].eligible == 1);
    eventually("a failover is told of", || {
        let all: api::Failovers = api.get("/v1/failovers").good();
        all.failovers.first().cloned()
    });
    let description: Value = api.get("/v1/openapi.json").good();
    assert_eq!(description["openapi"], "3.1.0");
    let session = api.get("/v1/sessions").good::<Sessions>().sessions[0]
        .id
        .clone();
    let check = |method: &str, path: &str, status: &str, answer: &Value| {
        let pointer = path.replace('/', "~1");
        let operation = format!("/paths/{pointer}/{method}/responses/{status}");
        let schema = format!("{operation}/content/application~1json/schema");
        let schema = description.pointer(&schema);
        let schema = schema.unwrap_or_else(|| panic!("{method} {path} has no schema"));
        let faults = faults(&description, schema, answer);
        assert!(faults.is_empty(), "{method} {path}: {faults:#?}");
    };
    let mut documents = 0;
    for (path, operations) in description["paths"].as_object().unwrap() {
        let concrete = path.replace("{service}", "web").replace("{backend}", "a");
        let content = &operations["get"]["responses"]["200"]["content"];
        if content["application/json"].get("schema").is_some() {
            let query = if path == "/v1/explain" {
                "?client=192.0.2.1"
            } else {
                ""
            };
            let answer: Value = api.get(&format!("{concrete}{query}")).good();
            check("get", path, "200", &answer);
            documents += 1;
        }
        let body = match path.as_str() {
            "/v1/services/{service}/backends" => json!({ "do": "drain", "deadline_seconds": 5.0 }),
            "/v1/services/{service}/backends/{backend}" => json!({ "do": "weight", "percent": 7 }),
            _ => json!({}),
        };
        if operations.get("post").is_some() {
            let answer = api.post(&concrete.replace("{session}", &session), &body);
            let status = if answer.status == 200 {
                "200"
            } else {
                "default"
            };
            check("post", path, status, &answer.document());
            if let Some(schema) =
                operations["post"]["requestBody"]["content"]["application/json"].get("schema")
            {
                let faults = faults(&description, schema, &body);
                assert!(faults.is_empty(), "{path}: {faults:#?}");
            }
            documents += 1;
        }
    }
    assert!(documents >= 15, "{documents}");
    let nowhere: Value = api.get("/v1/services/none").document();
    check("get", "/v1/services/{service}", "default", &nowhere);
}
