//! A reload costs nobody anything: no session, no handshake, no descriptor; and a rejected one
//! changes nothing.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use crate::support::{
    Backend, Config, Daemon, End, Held, Meeting, Peer, Service, Storm, ask_name, echo_once,
    eventually, fresh_ip, fresh_listen, is_refused, steadily, words,
};

/// Four files that differ in everything that may change live.
fn variants(backends: &[Backend]) -> Vec<Config> {
    let main = fresh_listen();
    let extra = fresh_listen();
    // Each probe holds a descriptor for a while.
    let base = || Service::new("web").listen(&main).health("interval", "1h");
    let [a, b, c, d] = backends else {
        panic!("four backends");
    };
    vec![
        Config::of(
            base()
                .strategy("round-robin")
                .backend("a", a.address())
                .backend("b", b.address())
                .backend("c", c.address()),
        ),
        Config::of(
            base()
                .strategy("weighted")
                .timeout("idle", "10m")
                .timeout("connect", "3s")
                .weighted("a", a.address(), 5)
                .weighted("b", b.address(), 2)
                .weighted("d", d.address(), 1),
        ),
        Config::of(
            base()
                .also_listen(&extra)
                .strategy("least-connections")
                .backend("c", c.address())
                .backend("d", d.address()),
        ),
        Config::of(
            base()
                .strategy("source-hash")
                .health("interval", "2h")
                .health("fall", 4)
                .backend("a", a.address())
                .backend("c", c.address()),
        )
        .service(
            Service::new("other")
                .listen(&extra)
                .health("interval", "1h")
                .strategy("random")
                .backend("b", b.address()),
        ),
    ]
}

#[test]
fn a_thousand_reloads_under_load_cost_no_session_and_no_descriptor() {
    let backends: Vec<_> = ["a", "b", "c", "d"].map(Backend::named).into();
    let variants = variants(&backends);
    let daemon = Daemon::start(&variants[0]);
    let address = daemon.address("web");

    // Two rounds of everything first: what a daemon opens once and keeps is not a leak.
    for config in variants.iter().chain(&variants) {
        daemon.reload(config);
        ask_name(address).unwrap();
    }
    daemon.reload(&variants[0]);
    let quiet = Duration::from_secs(3);
    let before = steadily(quiet, "descriptors settle", || daemon.descriptors());
    let memory_before = daemon.resident_bytes();

    let short = Storm::start(6, move |_| ask_name(address));
    let data = Storm::start(2, move |number| echo_once(address, number, 200_000));
    // Each holds a hundred sessions that live for a while and are used all the time.
    let long: Vec<_> = (0..2)
        .map(|_| thread::spawn(move || keep_sessions(address, 100)))
        .collect();

    let started = Instant::now();
    for round in 1..=1000 {
        daemon.reload(&variants[round % variants.len()]);
        if round % 10 == 0 {
            // A reload takes a millisecond; sessions are to begin and end between them.
            short.pass(30);
        }
    }
    println!("1,000 reloads took {:?}", started.elapsed());
    LONG_SESSIONS_OVER.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut exchanged = 0;
    for thread in long {
        exchanged += thread.join().expect("no long session breaks");
    }
    assert!(exchanged > 1000);
    let short = short.finish();
    short.assert_flawless();
    assert!(short.successes() >= 3000, "{short:?}");
    data.finish().assert_flawless();
    assert!(
        daemon
            .log()
            .all(0, |line| line.says(words::REJECTED))
            .is_empty()
    );

    eventually("the descriptors are back to what they were", || {
        (daemon.descriptors() <= before).then_some(())
    });
    let after = steadily(quiet, "descriptors settle", || daemon.descriptors());
    assert_eq!(after, before, "descriptors");
    let grown = daemon.resident_bytes().saturating_sub(memory_before);
    assert!(grown < 64 << 20, "memory grew by {} KiB", grown >> 10);
}

static LONG_SESSIONS_OVER: std::sync::atomic::AtomicBool =
    std::sync::atomic::AtomicBool::new(false);

/// Holds `count` sessions, sends something through each in turn, replaces the oldest each round.
fn keep_sessions(address: SocketAddr, count: usize) -> u64 {
    let mut held: std::collections::VecDeque<_> = (0..count).map(|_| Held::open(address)).collect();
    let mut exchanged = 0;
    while !LONG_SESSIONS_OVER.load(std::sync::atomic::Ordering::Relaxed) {
        for session in &mut held {
            session.still_works();
            exchanged += 1;
        }
        held.pop_front().expect("sessions are held").part();
        held.push_back(Held::open(address));
    }
    held.into_iter().for_each(Held::part);
    exchanged
}

#[test]
fn sessions_stay_on_a_backend_that_left_the_file() {
    let (leaving, staying) = (Meeting::new(), Backend::named("staying"));
    let service = Service::new("web");
    let daemon = Daemon::start(&Config::of(
        service.clone().backend("leaving", leaving.address()),
    ));
    let address = daemon.address("web");
    let (mut client, mut backend) = leaving.session(address);
    daemon.reload(&Config::of(service.backend("staying", staying.address())));
    assert_eq!(ask_name(address).unwrap(), "staying");
    client.put(b"are you there?");
    backend.get(b"are you there?");
    backend.put(b"yes");
    client.get(b"yes");
    client.half_close();
    backend.half_close();
    assert_eq!(client.end(), crate::support::End::Fin);
    assert_eq!(backend.end(), crate::support::End::Fin);
}

#[test]
fn sessions_of_a_service_that_left_the_file_go_on() {
    let (leaving, staying) = (Meeting::new(), Backend::named("staying"));
    let stays = Service::new("stays").backend("staying", staying.address());
    let daemon = Daemon::start(
        &Config::of(stays.clone())
            .service(Service::new("leaves").backend("leaving", leaving.address())),
    );
    let address = daemon.address("leaves");
    let (mut client, mut backend) = leaving.session(address);
    daemon.reload(&Config::of(stays));
    eventually("the listener closes", || is_refused(address).then_some(()));
    client.put(b"are you there?");
    backend.get(b"are you there?");
}

#[test]
fn the_round_robin_cursor_survives() {
    let backends: Vec<_> = ["a", "b", "c", "d"]
        .map(|name| (name, Backend::named(name)))
        .into();
    let mut service = Service::new("web").strategy("round-robin");
    for (name, backend) in &backends {
        service = service.backend(name, backend.address());
    }
    let daemon = Daemon::start(&Config::of(service.clone()));
    let address = daemon.address("web");
    let mut names = Vec::new();
    for round in 0..8 {
        names.push(ask_name(address).unwrap());
        let idle = format!("{}m", round + 10);
        daemon.reload(&Config::of(service.clone().timeout("idle", &idle)));
    }
    for window in names.windows(4) {
        let mut window = window.to_vec();
        window.sort();
        assert_eq!(window, ["a", "b", "c", "d"], "{names:?}");
    }
}

#[test]
fn health_survives_a_reload() {
    let mut dead = Backend::named("dead");
    let alive = Backend::named("alive");
    let service = Service::new("web")
        .strategy("round-robin")
        .quick_health()
        .backend("dead", dead.address())
        .backend("alive", alive.address());
    let daemon = Daemon::start(&Config::of(service.clone()).log_every_session());
    dead.wait_for_probe();
    dead.refuse();
    daemon.wait_until_down(0, "dead");
    let mark = daemon.log().mark();
    daemon.reload(&Config::of(service.timeout("idle", "10m")).log_every_session());
    for _ in 0..10 {
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "alive");
    }
    let lines = daemon.wait_for_sessions(mark, 10);
    assert!(
        lines.iter().all(|line| line.number("attempts") == 1),
        "a backend known to be down was tried"
    );
    let told_again = daemon
        .log()
        .all(mark, |line| line.says(words::BACKEND_DOWN));
    assert!(told_again.is_empty(), "{told_again:?}");
}

#[test]
fn a_listener_can_be_added_and_removed() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let daemon = Daemon::start(&Config::of(service.clone()));
    let kept = daemon.address("web");
    let mark = daemon.log().mark();
    daemon.reload(&Config::of(service.clone().also_listen(fresh_listen())));
    let added = *daemon
        .addresses_since(mark, "web")
        .iter()
        .find(|address| **address != kept)
        .expect("the new listener is told");
    assert_eq!(ask_name(added).unwrap(), "only");
    assert_eq!(ask_name(kept).unwrap(), "only");
    let mut held = Held::open(added);
    daemon.reload(&Config::of(service));
    eventually("the listener closes", || is_refused(added).then_some(()));
    assert_eq!(ask_name(kept).unwrap(), "only");
    held.still_works();
}

#[test]
fn a_listener_can_move_from_one_service_to_another() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = |name, address, backend: &Backend| {
        Service::new(name)
            .listen(address)
            .backend(name, backend.address())
    };
    let (one, other) = (fixed_address(), fixed_address());
    let straight = Config::of(service("a", one, &a)).service(service("b", other, &b));
    let crossed = Config::of(service("a", other, &a)).service(service("b", one, &b));
    let daemon = Daemon::start(&straight);
    let storm = Storm::start(4, move |_| ask_name(one));
    storm.pass(50);
    for _ in 0..5 {
        daemon.reload(&crossed);
        assert_eq!(ask_name(one).unwrap(), "b");
        assert_eq!(ask_name(other).unwrap(), "a");
        storm.pass(50);
        daemon.reload(&straight);
        assert_eq!(ask_name(one).unwrap(), "a");
        storm.pass(50);
    }
    storm.finish().assert_flawless();
}

/// A free port at an address of its own: between this and the daemon's bind nobody else takes it.
fn fixed_address() -> SocketAddr {
    let probe = TcpListener::bind((fresh_ip(), 0)).unwrap();
    probe.local_addr().unwrap()
}

#[test]
fn a_removed_listener_loses_no_handshake() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let daemon = Daemon::start(&Config::of(service.clone()));
    let current = Arc::new(Mutex::new(daemon.address("web")));
    let target = Arc::clone(&current);
    let clients = Storm::start(8, move |_| {
        let address = *target.lock().unwrap();
        let Ok(stream) = crate::support::connect(address) else {
            // Not connected is no loss; connected and not served is.
            return Ok("refused".to_owned());
        };
        crate::support::name_and_part(stream)
    });
    for _ in 0..5 {
        let mark = daemon.log().mark();
        daemon.reload(&Config::of(service.clone().also_listen(fresh_listen())));
        let added = *daemon.addresses_since(mark, "web").last().unwrap();
        *current.lock().unwrap() = added;
        clients.pass(200);
        daemon.reload(&Config::of(service.clone()));
        eventually("the listener closes", || is_refused(added).then_some(()));
    }
    let tally = clients.finish();
    tally.assert_flawless();
    assert!(tally.by("only") >= 500, "{tally:?}");
}

#[test]
fn a_listener_that_returns_at_once_is_served() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let returning = fixed_address();
    let with = Config::of(service.clone().also_listen(returning));
    let without = Config::of(service);
    let daemon = Daemon::start(&with);
    for _ in 0..5 {
        assert_eq!(ask_name(returning).unwrap(), "only");
        daemon.reload(&without);
        daemon.reload(&with);
    }
    for _ in 0..20 {
        assert_eq!(ask_name(returning).unwrap(), "only");
    }
}

#[test]
fn a_listener_that_returns_while_its_old_self_waits_for_room_is_accepted() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let returning = fixed_address();
    let full = |service| Config::of(service).runtime("max_connections", 1);
    let with = full(service.clone().also_listen(returning));
    let without = full(service);
    let daemon = Daemon::start(&with);
    let held = Held::open(daemon.address("web"));
    // Its handshake is done, so the listener may not close on it; there is no room for it either.
    let queued = crate::support::connect(returning).unwrap();
    daemon.reload(&without);
    daemon.reload(&with);
    held.part();
    assert_eq!(crate::support::name_and_part(queued).unwrap(), "only");
    for _ in 0..20 {
        assert_eq!(ask_name(returning).unwrap(), "only");
    }
}

#[test]
fn who_waits_for_room_where_a_listener_closes_waits_as_long_as_a_drain_takes() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let closing = |drain_timeout: &str| {
        let leaving = fixed_address();
        let full = |service| {
            Config::of(service)
                .runtime("max_connections", 1)
                .runtime("drain_timeout", drain_timeout)
        };
        let daemon = Daemon::start(&full(service.clone().also_listen(leaving)));
        let held = Held::open(daemon.address("web"));
        let queued = crate::support::connect(leaving).unwrap();
        daemon.reload(&full(service.clone()));
        (daemon, held, queued)
    };
    let (_daemon, mut held, mut queued) = closing("1s");
    assert_eq!(queued.end(), End::Reset);
    held.still_works();
    let (_daemon, held, mut queued) = closing("1m");
    // Longer than any other wait on the way.
    assert!(queued.is_silent(Duration::from_secs(7)), "it was reset");
    held.part();
    assert_eq!(crate::support::name_and_part(queued).unwrap(), "only");
}

#[test]
fn a_changed_backlog_keeps_the_listener() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let daemon = Daemon::start(&Config::of(service.clone()));
    let address = daemon.address("web");
    let storm = Storm::start(4, move |_| ask_name(address));
    storm.pass(50);
    for backlog in [1, 16, 1024, 4096] {
        daemon.reload(&Config::of(service.clone().key("backlog", backlog)));
        storm.pass(50);
    }
    // A backlog of 1 may make a client's SYN wait, but it breaks nobody.
    storm.finish().assert_flawless();
}

#[test]
fn a_bad_file_changes_nothing_and_names_its_problems() {
    let backend = Backend::named("only");
    let config = Config::of(Service::new("web").backend("only", backend.address()));
    let daemon = Daemon::start(&config);
    let address = daemon.address("web");
    let mut held = Held::open(address);
    let twisted = config
        .text()
        .replace("address =", "adress =")
        .replace("workers = 2", "workers = \"two\"");
    let line = daemon.reload_rejected(&twisted);
    let problems = line.text("problems");
    assert!(!problems.is_empty(), "{}", line.raw());
    for text in ["", "][", "[[service]]\nname = \"web\"\n", "\u{0}\u{1}\u{2}"] {
        daemon.reload_rejected(text);
    }
    held.still_works();
    assert_eq!(ask_name(address).unwrap(), "only");
    daemon.reload(&config);
}

#[test]
fn a_missing_file_changes_nothing() {
    let backend = Backend::named("only");
    let config = Config::of(Service::new("web").backend("only", backend.address()));
    let daemon = Daemon::start(&config);
    daemon.remove_file();
    let line = daemon.hang_up();
    assert!(line.says(words::REJECTED), "{}", line.raw());
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "only");
    daemon.reload(&config);
}

#[test]
fn an_occupied_port_rolls_the_whole_reload_back() {
    let (old, new) = (Backend::named("old"), Backend::named("new"));
    let service = Service::new("web").health("interval", "1h");
    let daemon = Daemon::start(&Config::of(service.clone().backend("old", old.address())));
    let address = daemon.address("web");
    let occupied = TcpListener::bind((fresh_ip(), 0)).unwrap();
    let free = fixed_address();
    let descriptors = steadily(Duration::from_millis(500), "descriptors settle", || {
        daemon.descriptors()
    });
    let refused = service
        .clone()
        .also_listen(free)
        .also_listen(occupied.local_addr().unwrap())
        .backend("new", new.address());
    let line = daemon.reload_rejected(&Config::of(refused).text());
    assert!(
        line.raw()
            .contains(&occupied.local_addr().unwrap().to_string()),
        "the address is not named: {}",
        line.raw()
    );
    assert_eq!(ask_name(address).unwrap(), "old");
    eventually("the good listener of the bad reload is gone", || {
        is_refused(free).then_some(())
    });
    eventually("its sockets are closed", || {
        (daemon.descriptors() <= descriptors).then_some(())
    });
    // Without SO_REUSEADDR: nobody, not even a socket that does not listen, may hold the port.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&free.into()).expect("the port is free again");
    assert!(matches!(ask_name(address).as_deref(), Ok("old")));
}

#[test]
fn what_needs_a_restart_is_said() {
    let backend = Backend::named("only");
    let config = Config::of(Service::new("web").backend("only", backend.address()));
    let daemon = Daemon::start(&config);
    let mark = daemon.log().mark();
    daemon.reload(&config.clone().runtime("workers", 1));
    daemon
        .log()
        .wait(mark, "that a changed `workers` waits", |line| {
            line.raw().contains("workers") && !line.says(words::RELOADED)
        });
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "only");
}

#[test]
fn timeouts_of_a_reload_hold_for_new_sessions() {
    let meeting = Meeting::new();
    let service = Service::new("web").backend("only", meeting.address());
    let daemon = Daemon::start(&Config::of(service.clone()));
    let address = daemon.address("web");
    daemon.reload(&Config::of(service.timeout("idle", "500ms")));
    let (mut client, _backend) = meeting.session(address);
    assert_eq!(client.end(), crate::support::End::Reset);
}
