//! Who gets how many sessions, under each strategy, through the whole daemon.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;

use crate::support::{
    Backend, Config, Daemon, Held, Peer, Service, ask_name, connect_from, read_name,
};

/// Backends of these names, and a service over them with these weights.
fn service(strategy: &str, members: &[(&str, i64)]) -> (Vec<Backend>, Service) {
    let backends: Vec<_> = members
        .iter()
        .map(|(name, _)| Backend::named(name))
        .collect();
    let mut service = Service::new("web").strategy(strategy);
    for ((name, weight), backend) in members.iter().zip(&backends) {
        service = if *weight == 1 {
            service.backend(name, backend.address())
        } else {
            service.weighted(name, backend.address(), *weight)
        };
    }
    (backends, service)
}

/// Who served each of `count` sessions, one after the other.
fn sequence(address: SocketAddr, count: usize) -> Vec<String> {
    (0..count)
        .map(|_| ask_name(address).expect("a backend answers"))
        .collect()
}

fn counts<'a>(names: impl IntoIterator<Item = &'a String>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.as_str()).or_default() += 1;
    }
    counts
}

/// Holds that any `window` consecutive sessions of `names` are shared out exactly as `shares` say.
fn assert_every_window(names: &[String], shares: &[(&str, usize)]) {
    let window = shares.iter().map(|(_, share)| share).sum();
    let wanted: BTreeMap<_, _> = shares.iter().copied().collect();
    for (at, names) in names.windows(window).enumerate() {
        assert_eq!(counts(names), wanted, "in the window at {at}: {names:?}");
    }
}

#[test]
fn round_robin_gives_every_backend_its_turn() {
    let (_backends, service) = service("round-robin", &[("a", 1), ("b", 1), ("c", 1)]);
    let daemon = Daemon::start(&Config::of(service));
    let names = sequence(daemon.address("web"), 30);
    assert_every_window(&names, &[("a", 1), ("b", 1), ("c", 1)]);
}

#[test]
fn round_robin_is_exact_over_all_workers_and_concurrent_clients() {
    let (_backends, service) = service("round-robin", &[("a", 1), ("b", 1), ("c", 1)]);
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    let clients: Vec<_> = (0..8)
        .map(|_| thread::spawn(move || sequence(address, 30)))
        .collect();
    let names: Vec<_> = clients
        .into_iter()
        .flat_map(|client| client.join().unwrap())
        .collect();
    assert_eq!(
        counts(&names),
        BTreeMap::from([("a", 80), ("b", 80), ("c", 80)])
    );
}

#[test]
fn weighted_is_exact_over_any_window_and_evenly_interleaved() {
    let (_backends, service) = service("weighted", &[("a", 5), ("b", 1), ("c", 1)]);
    let daemon = Daemon::start(&Config::of(service));
    let names = sequence(daemon.address("web"), 42);
    assert_every_window(&names, &[("a", 5), ("b", 1), ("c", 1)]);
    let in_a_row = names
        .windows(5)
        .any(|five| five.iter().all(|name| name == "a"));
    assert!(!in_a_row, "five in a row: {names:?}");
}

#[test]
fn least_connections_levels_held_sessions_by_weight() {
    let (_backends, service) = service("least-connections", &[("a", 3), ("b", 1)]);
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    let held: Vec<_> = (0..40).map(|_| Held::open(address)).collect();
    let names: Vec<_> = held.iter().map(|held| held.name.clone()).collect();
    assert_eq!(counts(&names), BTreeMap::from([("a", 30), ("b", 10)]));
}

#[test]
fn least_connections_fills_the_backend_whose_sessions_left() {
    let (_backends, service) = service("least-connections", &[("a", 1), ("b", 1), ("c", 1)]);
    let daemon = Daemon::start(&Config::of(service).log_every_session());
    let address = daemon.address("web");
    let held: Vec<_> = (0..30).map(|_| Held::open(address)).collect();
    let names: Vec<_> = held.iter().map(|held| held.name.clone()).collect();
    assert_eq!(
        counts(&names),
        BTreeMap::from([("a", 10), ("b", 10), ("c", 10)])
    );

    let (leaving, _staying): (Vec<_>, Vec<_>) = held.into_iter().partition(|held| held.name == "b");
    leaving.into_iter().for_each(Held::part);
    daemon.wait_for_sessions(0, 10);

    let next: Vec<_> = (0..10).map(|_| Held::open(address)).collect();
    let names: Vec<_> = next.iter().map(|held| held.name.clone()).collect();
    assert_eq!(counts(&names), BTreeMap::from([("b", 10)]));
}

/// Who serves each of 200 sources.
fn by_source(address: SocketAddr) -> BTreeMap<IpAddr, String> {
    (1..=200)
        .map(|last| {
            let source = IpAddr::V4(Ipv4Addr::new(127, 9, 0, last));
            let mut stream = connect_from(source, address).expect("the daemon listens");
            let name = read_name(&mut stream).expect("a backend greets");
            stream.half_close();
            stream.end();
            (source, name)
        })
        .collect()
}

#[test]
fn source_hash_sends_a_source_to_the_same_backend_also_after_a_restart() {
    let (_backends, service) = service("source-hash", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    let config = Config::of(service);
    let first = {
        let daemon = Daemon::start(&config);
        let first = by_source(daemon.address("web"));
        assert_eq!(by_source(daemon.address("web")), first);
        first
    };
    let counts = counts(first.values());
    assert_eq!(counts.len(), 4, "{counts:?}");
    assert!(
        counts.values().all(|&count| count > 20),
        "very uneven: {counts:?}"
    );
    let daemon = Daemon::start(&config);
    assert_eq!(by_source(daemon.address("web")), first);
}

#[test]
fn source_hash_moves_little_more_than_the_sources_of_a_lost_backend() {
    let (mut backends, service) = service("source-hash", &[("a", 1), ("b", 1), ("c", 1), ("d", 1)]);
    let daemon = Daemon::start(&Config::of(service.quick_health()));
    let before = by_source(daemon.address("web"));
    backends[1].refuse();
    daemon.wait_until_down(0, "b");
    let after = by_source(daemon.address("web"));
    let moved = before
        .iter()
        .filter(|(source, name)| *name != "b" && after[*source] != **name)
        .count();
    assert!(!after.values().any(|name| name == "b"));
    assert!(moved <= 8, "{moved} of 200 sources moved for nothing");
}

#[test]
fn random_is_roughly_even() {
    let (_backends, service) = service("random", &[("a", 1), ("b", 1), ("c", 1)]);
    let daemon = Daemon::start(&Config::of(service));
    let names = sequence(daemon.address("web"), 600);
    let counts = counts(&names);
    assert_eq!(counts.len(), 3, "{counts:?}");
    // Seven standard deviations.
    assert!(
        counts.values().all(|count| (120..=280).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn random_follows_the_load() {
    let (_backends, service) = service("random", &[("a", 1), ("b", 1)]);
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    let held: Vec<_> = (0..40).map(|_| Held::open(address)).collect();
    let names: Vec<_> = held.iter().map(|held| held.name.clone()).collect();
    let counts = counts(&names);
    // Two choices among two backends are both of them: never more than a draw apart.
    assert!(
        counts.values().all(|count| (15..=25).contains(count)),
        "{counts:?}"
    );
}

#[test]
fn the_share_of_a_dead_backend_spreads_by_weight() {
    let (mut backends, service) = service("weighted", &[("a", 4), ("b", 2), ("c", 1)]);
    let daemon = Daemon::start(&Config::of(service.quick_health()));
    let address = daemon.address("web");
    backends[0].refuse();
    daemon.wait_until_down(0, "a");
    // The down flag acts before the table without the backend is built; these sessions pass both.
    sequence(address, 20);
    let names = sequence(address, 30);
    assert_every_window(&names, &[("b", 2), ("c", 1)]);
}

#[test]
fn weights_change_with_a_reload() {
    let (backends, service) = service("weighted", &[("a", 1), ("b", 1)]);
    let daemon = Daemon::start(&Config::of(service.clone()));
    let address = daemon.address("web");
    assert_every_window(&sequence(address, 10), &[("a", 1), ("b", 1)]);
    let mut heavier = Config::new();
    let mut next = service.clone().without_backends();
    next = next
        .weighted("a", backends[0].address(), 3)
        .weighted("b", backends[1].address(), 1);
    heavier = heavier.service(next);
    daemon.reload(&heavier);
    assert_every_window(&sequence(address, 20), &[("a", 3), ("b", 1)]);
}

#[test]
fn strategy_changes_with_a_reload() {
    let (_backends, service) = service("round-robin", &[("a", 1), ("b", 1), ("c", 1)]);
    let daemon = Daemon::start(&Config::of(service.clone()));
    let address = daemon.address("web");
    assert_eq!(counts(&sequence(address, 9)).len(), 3);
    daemon.reload(&Config::of(service.strategy("source-hash")));
    assert_eq!(counts(&sequence(address, 9)).len(), 1);
}
