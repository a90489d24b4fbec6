//! At its limits Ballast waits and recovers; it neither spins nor forgets.

use std::io::{Read, Write};
use std::process::Command;
use std::thread;
use std::time::Duration;

use ballast::api;
use serde_json::json;

use crate::support::{
    Api, Backend, Config, Daemon, End, Held, Launch, Peer, RELAYS, Service, ask_name, connect,
    eventually, read_name, steadily, words,
};

/// Long enough to see a session that should not start.
const PAUSE: Duration = Duration::from_millis(300);

#[test]
fn above_max_connections_accepting_pauses_and_resumes_with_each_end() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(
        &Config::of(Service::new("web").backend("only", backend.address()))
            .runtime("max_connections", 4),
    );
    let address = daemon.address("web");
    let mut held: Vec<_> = (0..4).map(|_| Held::open(address)).collect();
    // The kernel completes these handshakes; their sessions wait.
    let mut waiting: Vec<_> = (0..3).map(|_| connect(address).unwrap()).collect();
    for client in &mut waiting {
        assert!(client.is_silent(PAUSE), "a fifth session started");
    }
    for _ in 0..3 {
        held.pop().expect("four are held").part();
        let served = eventually("a waiting client is served", || {
            waiting
                .iter_mut()
                .position(|client| !client.is_silent(Duration::ZERO))
        });
        let mut stream = waiting.swap_remove(served);
        let name = read_name(&mut stream).unwrap();
        held.insert(0, Held { stream, name });
        for client in &mut waiting {
            assert!(
                client.is_silent(PAUSE / 3),
                "one session ended, two started"
            );
        }
    }
    for session in &mut held {
        session.still_works();
    }
    held.clear();
    for _ in 0..20 {
        ask_name(address).unwrap();
    }
}

#[test]
fn clients_that_left_while_accepting_paused_reach_no_backend() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .health("interval", "1h")
                .backend("only", backend.address()),
        )
        .runtime("max_connections", 1),
    );
    let address = daemon.address("web");
    let held = Held::open(address);
    for _ in 0..10 {
        let client = connect(address).unwrap();
        client.reset();
    }
    held.part();
    let before = backend.accepted();
    ask_name(address).unwrap();
    ask_name(address).unwrap();
    // Each listener and worker may have one accept under way that was too early to know.
    let wasted = backend.accepted() - before - 2;
    assert!(
        wasted <= 3,
        "{wasted} of 10 vanished clients cost a connection"
    );
}

#[test]
fn clients_that_left_while_it_was_too_soon_for_them_take_no_turn() {
    let backend = Backend::named("only");
    let service = Service::new("web")
        .limits("accept_rate", "1/s")
        .backend("only", backend.address());
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    ask_name(address).unwrap();
    // At a second for each, nobody would live to see the last of them taken.
    for _ in 0..60 {
        connect(address).unwrap().reset();
    }
    ask_name(address).unwrap();
}

#[test]
fn a_client_that_said_all_while_accepting_paused_is_answered() {
    let backend = Backend::serve(|mut stream| {
        // A probe may be gone by now.
        if stream.write_all(b"only\n").is_ok() {
            let (read, end) = End::read(&mut stream);
            if end == End::Fin {
                stream.put(format!("you sent {read}").as_bytes());
            }
        }
    });
    let daemon = Daemon::start(
        &Config::of_each_relay(|service| service.backend("only", backend.address()))
            .runtime("max_connections", 1),
    );
    for relay in RELAYS {
        let address = daemon.address(relay);
        let held = Held::open(address);
        let mut waiting: Vec<_> = (0..4)
            .map(|bytes| {
                let mut client = connect(address).unwrap();
                client.put(&b"four"[..bytes]);
                client.half_close();
                client
            })
            .collect();
        drop(held);
        for (bytes, client) in waiting.iter_mut().enumerate() {
            client.get(format!("only\nyou sent {bytes}").as_bytes());
            assert_eq!(client.end(), End::Fin, "relay = {relay}");
        }
    }
}

#[test]
fn reaching_max_connections_is_said_once_and_its_end_too() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(
        &Config::of(Service::new("web").backend("only", backend.address()))
            .runtime("max_connections", 2),
    );
    let address = daemon.address("web");
    let told = |message| daemon.log().all(0, |line| line.says(message)).len();
    let held = [(); 2].map(|()| Held::open(address));
    // Clients that come and wait are no news.
    let waiting: Vec<_> = (0..5).map(|_| connect(address).unwrap()).collect();
    let line = daemon.wait_for(0, words::PAUSES, "max_connections", "2");
    assert!(line.has("level", "WARN"), "{}", line.raw());
    // Longer than the daemon takes to look again.
    let pauses = steadily(
        Duration::from_millis(1500),
        "it said that it pauses",
        || told(words::PAUSES),
    );
    assert_eq!((pauses, told(words::GOES_ON)), (1, 0));
    drop(held);
    drop(waiting);
    daemon.wait_for(0, words::GOES_ON, "max_connections", "2");
    assert_eq!((told(words::PAUSES), told(words::GOES_ON)), (1, 1));
}

#[test]
fn out_of_descriptors_it_waits_without_spinning_and_recovers() {
    let backend = Backend::named("only");
    let daemon = Launch::new().after("ulimit -n 64").start(
        &Config::of(Service::new("web").backend("only", backend.address()))
            .runtime("max_connections", 1000),
    );
    let address = daemon.address("web");
    assert_eq!(ask_name(address).unwrap(), "only");
    let mark = daemon.log().mark();
    let flood: Vec<_> = (0..200).map(|_| connect(address).unwrap()).collect();
    let ticks = daemon.cpu_ticks_during(Duration::from_secs(2));
    assert!(ticks < 40, "{ticks} of 200 ticks while it could do nothing");
    let lines = daemon.log().all(mark, |_| true).len();
    assert!(lines < 400, "{lines} lines about one shortage");
    drop(flood);
    eventually("it serves again", || ask_name(address).ok());
    for _ in 0..20 {
        assert_eq!(ask_name(address).unwrap(), "only");
    }
}

#[test]
fn whoever_would_be_taken_with_the_last_descriptor_waits_for_two() {
    let backend = Backend::named("only");
    let service = Service::new("web").health("interval", "1h");
    let daemon = Daemon::start(
        &Config::of(service.backend("only", backend.address()))
            .runtime("workers", 1)
            .log_every_session(),
    );
    let address = daemon.address("web");
    daemon.wait_until_up(0, "only");
    let mut held = Held::open(address);
    let settled = || daemon.descriptors();
    steadily(Duration::from_millis(500), "descriptors settle", settled);
    let mark = daemon.log().mark();
    let limit = daemon.leave_descriptors(1);
    // The reset may be there before the client knows that it is connected.
    if let Ok(mut first) = connect(address) {
        assert_eq!(first.end(), End::Reset);
    }
    let line = &daemon.wait_for_sessions(mark, 1)[0];
    assert!(line.has("cause", words::EXHAUSTED), "{}", line.raw());
    let mut waiting: Vec<_> = (0..5).map(|_| connect(address).unwrap()).collect();
    let ticks = daemon.cpu_ticks_during(Duration::from_secs(1));
    assert!(ticks < 30, "{ticks} of 100 ticks while it could do nothing");
    for client in &mut waiting {
        assert!(client.is_silent(Duration::ZERO), "neither served nor reset");
    }
    held.still_works();
    daemon.allow_descriptors(limit);
    for mut client in waiting {
        assert_eq!(read_name(&mut client).unwrap(), "only");
    }
    daemon.wait_for(mark, words::RESTS, "level", "WARN");
    let told = daemon.log().all(mark, |line| line.says(words::RESTS));
    assert_eq!(told.len(), 1, "{told:?}");
}

/// What `ballast status` says, and how it ends.
fn status(door: &str) -> (Option<i32>, String) {
    let status = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["status", "--admin", door])
        .output();
    let status = status.unwrap();
    (
        status.status.code(),
        String::from_utf8(status.stdout).unwrap(),
    )
}

#[test]
fn a_shortage_is_told_to_whoever_asks_until_it_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let door = format!("unix:{}", socket.display());
    let backend = Backend::named("only");
    let service = Service::new("web").health("interval", "1h");
    let config = Config::of(service.backend("only", backend.address())).runtime("workers", 1);
    let daemon = Daemon::start(&config.admin("listen", door.clone()));
    daemon.wait_until_up(0, "only");
    let api = Api::unix(&socket);
    assert_eq!(api.get("/readyz").text(), "ready\n");
    let settled = || daemon.descriptors();
    steadily(Duration::from_millis(500), "descriptors settle", settled);
    let limit = daemon.leave_descriptors(1);
    // Whoever is taken with the last one cannot be served.
    if let Ok(mut first) = connect(daemon.address("web")) {
        assert_eq!(first.end(), End::Reset);
    }
    let waiting = connect(daemon.address("web")).unwrap();
    let ready = api.get("/readyz");
    assert_eq!(ready.status, 200);
    assert_eq!(
        ready.text(),
        "ready\nshort of descriptors: new clients wait\n"
    );
    let (code, told) = status(&door);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("short of descriptors") && told.contains("LimitNOFILE"),
        "{told}"
    );
    let events = |wanted: &str| {
        let events: api::Events = api.get("/v1/events").good();
        let mut of = events.events.iter().filter(|it| it.kind == wanted);
        of.next().map(|it| it.text.clone())
    };
    eventually("its begin is an event", || events("short"));
    daemon.allow_descriptors(limit);
    drop(waiting);
    eventually("its end is an event", || events("enough"));
    assert_eq!(api.get("/readyz").text(), "ready\n");
    assert!(!status(&door).1.contains("LimitNOFILE"));
    // Both are said by the one who told the events.
    for message in [words::RESTS, words::RESTS_NO_MORE] {
        let told = daemon.log().all(0, |line| line.says(message));
        let short_of: Vec<_> = told.iter().map(|it| it.text("short_of")).collect();
        assert_eq!(short_of, ["descriptors"], "{message}: {told:?}");
    }
}

#[test]
fn operators_are_served_while_sessions_hold_every_descriptor() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let state = directory.path().join("state.json");
    let door = format!("unix:{}", socket.display());
    let backends = [Backend::named("a"), Backend::named("b")];
    let service = Service::new("web")
        .backend("a", backends[0].address())
        .backend("b", backends[1].address());
    let config = Config::of(service.clone())
        .runtime("state_file", state.to_str().unwrap())
        .admin("listen", door.clone());
    let daemon = Daemon::start(&config);
    for backend in ["a", "b"] {
        daemon.wait_until_up(0, backend);
    }
    let address = daemon.address("web");
    let mut held: Vec<_> = (0..3).map(|_| Held::open(address)).collect();
    let settled = || daemon.descriptors();
    let before = steadily(Duration::from_millis(500), "descriptors settle", settled);
    let limit = daemon.leave_descriptors(2);
    let mut last = eventually("somebody takes the last two", || {
        let mut client = connect(address).ok()?;
        let name = read_name(&mut client).ok()?;
        Some(Held {
            stream: client,
            name,
        })
    });
    let mut waiting: Vec<_> = (0..20).map(|_| connect(address).unwrap()).collect();
    daemon.wait_for(0, words::RESTS, "short_of", "descriptors");
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let (code, told) = status(&door);
                assert_eq!(code, Some(1), "{told}");
                assert!(told.contains("short of descriptors"), "{told}");
            });
        }
    });
    // What an operator says is on disk before it is answered.
    let drain = json!({ "do": "drain" });
    let answer = Api::unix(&socket).post("/v1/services/web/backends/a", &drain);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let saved = || std::fs::read_to_string(&state).unwrap();
    assert!(saved().contains("drain"), "{}", saved());
    // Checks go on.
    let mark = daemon.log().mark();
    drop(backends);
    daemon.wait_until_down(mark, "b");
    for client in &mut waiting {
        assert!(client.is_silent(Duration::ZERO), "neither served nor reset");
    }
    // A reload raises the limit, as far as it may be raised.
    let instead = Backend::named("c");
    daemon.reload(
        &Config::of(service.backend("c", instead.address()))
            .runtime("state_file", state.to_str().unwrap())
            .admin("listen", door.clone()),
    );
    for mut client in waiting {
        assert_eq!(read_name(&mut client).unwrap(), "c");
    }
    for session in held.iter_mut().chain([&mut last]) {
        session.still_works();
    }
    drop((held, last));
    daemon.allow_descriptors(limit);
    eventually("control keeps its descriptors again", || {
        (daemon.descriptors() == before - 6).then_some(())
    });
}

#[test]
fn a_flood_over_tcp_keeps_operators_out_at_the_path_no_more_than_sessions_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let state = directory.path().join("state.json");
    let door = format!("unix:{}", socket.display());
    let listen = toml::Value::from(vec!["127.0.0.1:0".to_owned(), door.clone()]);
    let backend = Backend::named("only");
    let config = Config::of(Service::new("web").backend("only", backend.address()))
        .runtime("state_file", state.to_str().unwrap())
        .admin("listen", listen);
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "only");
    let tcp = daemon.api();
    let settled = || daemon.descriptors();
    steadily(Duration::from_millis(500), "descriptors settle", settled);
    let limit = daemon.leave_descriptors(1);
    let _waiting: Vec<_> = (0..8).map(|_| connect(daemon.address("web"))).collect();
    daemon.wait_for(0, words::RESTS, "short_of", "descriptors");
    // As many as may follow events, none of whom makes room …
    let follow = b"GET /v1/events/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let follows = |_| {
        let mut stream = tcp.connect().unwrap();
        stream.write_all(follow).unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        stream
    };
    let _followers: Vec<_> = (0..16).map(follows).collect();
    // … and more than all that may come besides.
    let _crowd: Vec<_> = (0..64).map(|_| tcp.connect().unwrap()).collect();
    thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                let (code, told) = status(&door);
                assert_eq!(code, Some(1), "{told}");
                assert!(told.contains("short of descriptors"), "{told}");
            });
        }
    });
    let drain = json!({ "do": "drain" });
    let answer = Api::unix(&socket).post("/v1/services/web/backends/only", &drain);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let saved = std::fs::read_to_string(&state).unwrap();
    assert!(saved.contains("drain"), "{saved}");
    daemon.allow_descriptors(limit);
}

#[test]
fn whoever_was_taken_with_a_descriptor_in_reserve_keeps_it_whatever_it_waits_for() {
    let backend = Backend::named("only");
    let proxied = |name: &str| {
        Service::new(name)
            .health("interval", "1h")
            .proxy_protocol("accept_from", "127.0.0.1/32")
            .proxy_protocol("timeout", "1m")
            .backend("only", backend.address())
    };
    let config = Config::of(proxied("one")).service(proxied("two"));
    let daemon = Daemon::start(&config.runtime("workers", 2).log_every_session());
    for service in ["one", "two"] {
        daemon.wait_for(0, words::BACKEND_UP, "service", service);
    }
    let addresses = ["one", "two"].map(|service| daemon.address(service));
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
    let settled = || daemon.descriptors();
    steadily(Duration::from_millis(500), "descriptors settle", settled);
    let mark = daemon.log().mark();
    let limit = daemon.leave_descriptors(3);
    let three = daemon.leave_descriptors(1);
    let mut first = connect(addresses[0]).unwrap();
    first.put(header);
    assert_eq!(first.end(), End::Reset);
    daemon.wait_for(mark, words::RESTS, "level", "WARN");
    let mut waiting: Vec<_> = (0..10)
        .map(|client| connect(addresses[client % 2]).unwrap())
        .collect();
    // Those that are kept for control are let go of.
    let before = steadily(Duration::from_millis(500), "descriptors settle", settled);
    daemon.allow_descriptors(three);
    eventually("somebody is taken", || {
        (daemon.descriptors() >= before + 2).then_some(())
    });
    // They come through both listeners, to both workers; what is left is enough to take one more, and not to serve it.
    for client in &mut waiting {
        assert!(client.is_silent(PAUSE / 10), "nobody has said who it is");
        client.put(header);
    }
    let served = eventually("whoever was taken is served", || {
        (waiting.iter_mut()).position(|client| !client.is_silent(Duration::ZERO))
    });
    let mut served = waiting.swap_remove(served);
    assert_eq!(read_name(&mut served).unwrap(), "only");
    for client in &mut waiting {
        assert!(client.is_silent(PAUSE / 10), "neither served nor reset");
    }
    daemon.allow_descriptors(limit);
    for mut client in waiting {
        assert_eq!(read_name(&mut client).unwrap(), "only");
    }
    let told = daemon.log().all(mark, |line| line.says(words::RESTS));
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn thousands_of_sessions_at_once_all_work() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .strategy("least-connections")
            .backend("a", backends[0].address())
            .backend("b", backends[1].address()),
    ));
    let address = daemon.address("web");
    let mut held: Vec<_> = (0..2000).map(|_| Held::open(address)).collect();
    for session in &mut held {
        session.still_works();
    }
    let on_a = held.iter().filter(|session| session.name == "a").count();
    assert_eq!(on_a, 1000);
    held.into_iter().for_each(Held::part);
}
