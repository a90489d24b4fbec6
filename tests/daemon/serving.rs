//! Who serves when: tiers that stand in for each other, backends that come back slowly, a service
//! with nobody up, and servers that are full.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use crate::support::{
    Backend, Config, Daemon, Peer, Service, Signal, Storm, active_and_standby, ask_name,
    connect_from, eventually, held_back, read_name, steadily, words,
};

fn served_by(address: SocketAddr) -> String {
    ask_name(address).expect("a backend answers")
}

fn all_served_by(address: SocketAddr, name: &str) {
    for _ in 0..20 {
        assert_eq!(served_by(address), name);
    }
}

#[test]
fn a_standby_gets_nobody_until_the_active_one_is_down_and_nobody_once_it_is_back() {
    let (mut active, _standby, service) = active_and_standby();
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "standby");
    all_served_by(address, "active");

    active.refuse();
    let line = daemon.wait_for(0, words::TAKES_OVER, "priority", "1");
    assert_eq!(line.text("service"), "web");
    assert_eq!(line.text("why"), "0 up before it, 1 needed");
    assert_eq!(line.text("eligible"), "1/2");
    all_served_by(address, "standby");

    active.answer();
    let line = daemon.wait_for(0, words::STANDS_DOWN, "priority", "1");
    assert_eq!(line.text("why"), "1 up before it");
    // The table is in force a moment after the line.
    eventually("the active one serves", || {
        (served_by(address) == "active").then_some(())
    });
    all_served_by(address, "active");
}

#[test]
fn no_session_fails_between_a_down_active_and_the_table_with_the_standby() {
    let (mut active, _standby, service) = active_and_standby();
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    for _ in 0..5 {
        let mark = daemon.log().mark();
        eventually("the active one serves", || {
            (served_by(address) == "active").then_some(())
        });
        active.refuse();
        daemon.wait_until_down(mark, "active");
        // Whoever comes after this line meets the old table or the new one, and the standby in both.
        let storm = Storm::start(4, move |_| ask_name(address));
        storm.pass(100);
        let tally = storm.finish();
        tally.assert_flawless();
        assert_eq!(tally.by("active"), 0);
        active.answer();
        daemon.wait_until_up(mark, "active");
    }
}

#[test]
fn equal_priorities_are_all_active() {
    let (mut a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .prioritised("a", a.address(), 5)
        .prioritised("b", b.address(), 5);
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    let both = counts(address, 20);
    assert_eq!(both, BTreeMap::from([("a".into(), 10), ("b".into(), 10)]));
    a.refuse();
    daemon.wait_until_down(0, "a");
    all_served_by(address, "b");
    a.answer();
    daemon.wait_until_up(0, "a");
    eventually("both serve again", || {
        (counts(address, 20).len() == 2).then_some(())
    });
    let tiers = daemon.log().all(0, |line| line.says(words::TAKES_OVER));
    assert!(tiers.is_empty(), "{tiers:?}");
}

/// Who served `count` sessions.
fn counts(address: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        *counts.entry(served_by(address)).or_default() += 1;
    }
    counts
}

#[test]
fn a_primary_that_flaps_gets_nobody_until_it_has_been_up_for_long_enough() {
    let (mut active, _standby, service) = active_and_standby();
    let daemon = Daemon::start(&Config::of(service.key("fail_back", "1h")));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "active");
    active.refuse();
    daemon.wait_for(0, words::TAKES_OVER, "priority", "1");
    let storm = Storm::start(4, move |_| ask_name(address));
    for _ in 0..4 {
        let mark = daemon.log().mark();
        active.answer();
        let line = daemon.wait_for(mark, words::STAYS, "priority", "1");
        assert_eq!(line.text("until"), "they have been up for 1h");
        storm.pass(50);
        active.refuse();
        daemon.wait_until_down(mark, "active");
    }
    let tally = storm.finish();
    tally.assert_flawless();
    assert_eq!(tally.by("active"), 0);
    let tiers = daemon.log().all(0, |line| line.says(words::TAKES_OVER));
    assert_eq!(tiers.len(), 1, "{tiers:?}");
}

#[test]
fn a_primary_that_has_been_up_for_long_enough_serves_again() {
    let (mut active, _standby, service) = active_and_standby();
    let config = Config::of(service.key("fail_back", "700ms"));
    let daemon = held_back(&config, &mut active);
    let address = daemon.address("web");
    let line = daemon.wait_for(0, words::STANDS_DOWN, "priority", "1");
    assert_eq!(line.text("why"), "1 up before it for 700ms");
    eventually("the active one serves", || {
        (served_by(address) == "active").then_some(())
    });
}

#[test]
fn with_manual_fail_back_a_reload_moves_traffic_back() {
    let (mut active, _standby, service) = active_and_standby();
    let config = Config::of(service.key("fail_back", "manual"));
    let daemon = held_back(&config, &mut active);
    let address = daemon.address("web");
    all_served_by(address, "standby");
    let mark = daemon.log().mark();
    daemon.reload(&config);
    daemon.wait_for(mark, words::STANDS_DOWN, "priority", "1");
    all_served_by(address, "active");
}

#[test]
fn with_manual_fail_back_the_failure_of_the_standby_moves_traffic_back() {
    let (mut active, mut standby, service) = active_and_standby();
    let config = Config::of(service.key("fail_back", "manual"));
    let daemon = held_back(&config, &mut active);
    let address = daemon.address("web");
    let mark = daemon.log().mark();
    standby.refuse();
    daemon.wait_until_down(mark, "standby");
    all_served_by(address, "active");
    daemon.wait_for(mark, words::STANDS_DOWN, "priority", "1");
    standby.answer();
    daemon.wait_until_up(mark, "standby");
    all_served_by(address, "active");
}

#[test]
fn a_tier_joins_while_fewer_than_min_up_are_up() {
    let mut backends: Vec<_> = ["a", "b", "c", "d"].map(Backend::named).into();
    let mut service = Service::new("web").quick_health().key("min_up", "60%");
    for (backend, name) in backends.iter().zip(["a", "b", "c"]) {
        service = service.prioritised(name, backend.address(), 0);
    }
    service = service.prioritised("d", backends[3].address(), 1);
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    let mark = daemon.log().mark();
    backends[0].refuse();
    daemon.wait_until_down(mark, "a");
    // Two of three are 60 %, rounded up. The table without `a` may come a moment after the line.
    assert_eq!(steadily(LONG_ENOUGH, "who serves", || names(address)), "bc");
    backends[1].refuse();
    let line = daemon.wait_for(mark, words::TAKES_OVER, "priority", "1");
    assert_eq!(line.text("why"), "1 up before it, 2 needed");
    eventually("d joins", || (names(address) == "cd").then_some(()));
}

/// What has not changed for so long does not change any more.
const LONG_ENOUGH: Duration = Duration::from_millis(100);

/// The names of those who serve.
fn names(address: SocketAddr) -> String {
    counts(address, 12).into_keys().collect()
}

#[test]
fn a_backend_that_comes_back_starts_with_a_tenth_and_nobody_does_at_the_start() {
    for strategy in ["round-robin", "weighted"] {
        let (a, mut b) = (Backend::named("a"), Backend::named("b"));
        let service = Service::new("web")
            .strategy(strategy)
            .quick_health()
            .key("slow_start", "3h")
            .backend("a", a.address())
            .backend("b", b.address());
        let daemon = Daemon::start(&Config::of(service));
        let address = daemon.address("web");
        daemon.wait_until_up(0, "a");
        daemon.wait_until_up(0, "b");
        let even = BTreeMap::from([("a".into(), 10), ("b".into(), 10)]);
        assert_eq!(counts(address, 20), even);

        b.refuse();
        let mark = daemon.log().mark();
        daemon.wait_until_down(mark, "b");
        b.answer();
        daemon.wait_until_up(mark, "b");
        eventually("b serves again", || {
            (served_by(address) == "b").then_some(())
        });
        let few = BTreeMap::from([("a".into(), 20), ("b".into(), 2)]);
        assert_eq!(counts(address, 22), few);
        daemon.signal(Signal::USR1);
        let line = daemon.wait_for(mark, words::BACKEND, "backend", "b");
        assert_eq!(line.text("seat"), "serves");
        assert_eq!(line.text("portion"), "10%");
    }
}

#[test]
fn a_backend_that_comes_back_has_its_full_share_in_the_end() {
    let (a, mut b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .key("slow_start", "1s")
        .backend("a", a.address())
        .backend("b", b.address());
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "b");
    b.refuse();
    let mark = daemon.log().mark();
    daemon.wait_until_down(mark, "b");
    b.answer();
    daemon.wait_until_up(mark, "b");
    let even = BTreeMap::from([("a".into(), 10), ("b".into(), 10)]);
    eventually("b has its full share", || {
        (counts(address, 20) == even).then_some(())
    });
}

#[test]
fn with_nobody_up_every_backend_is_used_if_the_operator_says_so() {
    let (mut a, mut b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .health("rise", 1000)
        .key("when_all_down", "use-all")
        .prioritised("a", a.address(), 0)
        .prioritised("b", b.address(), 1);
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "a");
    daemon.wait_until_up(0, "b");
    a.refuse();
    b.refuse();
    daemon.wait_for(0, words::ALL_USED, "service", "web");
    // They are back, and their checks will not say so for long.
    a.answer();
    b.answer();
    // It is said right before it is so.
    eventually("somebody serves", || ask_name(address).ok());
    eventually("both are used", || (names(address) == "ab").then_some(()));
}

#[test]
fn a_source_whose_server_is_full_spills_over_and_comes_home_again() {
    let backends: Vec<_> = ["a", "b", "c", "d"].map(Backend::named).into();
    let mut service = Service::new("web")
        .strategy("source-hash")
        .key("max_load", 1.25);
    for (backend, name) in backends.iter().zip(["a", "b", "c", "d"]) {
        service = service.backend(name, backend.address());
    }
    let daemon = Daemon::start(&Config::of(service).log_every_session());
    let address = daemon.address("web");
    let source = IpAddr::V4(Ipv4Addr::new(127, 9, 1, 1));
    let ask = || {
        let mut stream = connect_from(source, address).expect("the daemon listens");
        let name = read_name(&mut stream).expect("a backend greets");
        (name, stream)
    };
    let held: Vec<_> = (0..40).map(|_| ask()).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, _) in &held {
        *counts.entry(name).or_default() += 1;
    }
    // Nobody was full when the first one came.
    let home = held[0].0.clone();
    // 1.25 times the even ten, rounded up.
    assert!(counts.values().all(|count| *count <= 13), "{counts:?}");
    assert_eq!(counts[home.as_str()], 13, "{counts:?}");
    for (_, mut stream) in held {
        stream.half_close();
        stream.end();
    }
    daemon.wait_for_sessions(0, 40);
    eventually("it is at home", || (ask().0 == home).then_some(()));
}
