//! How fast bytes may flow: nobody gets more than the limits allow, everybody gets every byte, and whoever
//! waits is still a session like any other.
//!
//! What is asserted of time is that it is not too short: a busy machine only makes it longer.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use ballast::api;

use crate::support::{
    Config, Daemon, End, Meeting, Pattern, Peer, RELAYS, Service, Signal, abort, eventually, words,
};

const MB: u64 = 1_000_000;
/// What is saved up of two megabytes a second.
const BURST: u64 = 2 * MB / 10;

/// How long `pattern` takes from the one end of a session to the other.
fn move_across(from: &TcpStream, to: &TcpStream, pattern: &Pattern) -> Duration {
    let began = Instant::now();
    let sending = pattern.send_and_half_close(from);
    let mut to = to.try_clone().expect("descriptors");
    assert_eq!(pattern.expect_then_end(&mut to), End::Fin);
    sending.join().unwrap();
    began.elapsed()
}

/// The least time for so many bytes at two megabytes a second, `besides` the burst.
fn least(bytes: u64, besides: u64) -> Duration {
    Duration::from_secs_f64((bytes - BURST - besides) as f64 / (2 * MB) as f64)
}

fn config(meeting: &Meeting, key: &str, value: &str) -> Config {
    Config::of_each_relay(|service| {
        service
            .limits(key, value)
            .backend("only", meeting.address())
    })
    .log_every_session()
}

/// Runs `scene` once for each way to relay, all at a time.
fn each_relay(daemon: &Daemon, scene: impl Fn(&str, SocketAddr) + Sync) {
    thread::scope(|threads| {
        for relay in RELAYS {
            let scene = &scene;
            threads.spawn(move || scene(relay, daemon.address(relay)));
        }
    });
}

#[test]
fn each_session_gets_its_bandwidth_and_no_more_however_it_is_relayed() {
    let meeting = Meeting::new();
    for (key, up) in [
        ("to_backend_per_session", true),
        ("to_client_per_session", false),
    ] {
        let daemon = Daemon::start(&config(&meeting, key, "2MB/s"));
        each_relay(&daemon, |relay, address| {
            let (client, backend) = meeting.session(address);
            let (from, to) = if up {
                (&client, &backend)
            } else {
                (&backend, &client)
            };
            let (slow, fast) = (Pattern::new(1, MB + 77), Pattern::new(2, 8 * MB));
            let took = move_across(from, to, &slow);
            assert!(took >= least(MB, 0), "{key} {relay}: {took:?}");
            move_across(to, from, &fast);
            drop((client, backend));
            let line = daemon.wait_for(0, words::SESSION, "service", relay);
            assert!(line.has("cause", words::FINISHED), "{}", line.raw());
            // The greeting came out of the burst, and the rest waited for all but what is left of it.
            let slowed = line.field("slowed_ms").expect("it was slowed down");
            let slowed: f64 = slowed.parse().unwrap();
            assert!(slowed > 100.0, "{}", line.raw());
        });
    }
}

#[test]
fn sessions_of_a_service_share_its_bandwidth_over_all_workers() {
    let meeting = Meeting::new();
    for (key, up) in [("to_backend", true), ("to_client", false)] {
        let daemon = Daemon::start(&config(&meeting, key, "2MB/s"));
        each_relay(&daemon, |relay, address| {
            let sessions: Vec<_> = (0..5).map(|_| meeting.session(address)).collect();
            let each = 3 * MB / 10;
            let began = Instant::now();
            thread::scope(|threads| {
                for (number, (client, backend)) in (0..).zip(&sessions) {
                    let (from, to) = if up {
                        (client, backend)
                    } else {
                        (backend, client)
                    };
                    let pattern = Pattern::new(number, each);
                    threads.spawn(move || move_across(from, to, &pattern));
                }
            });
            let took = began.elapsed();
            // Each worker may hold a slice.
            let least = least(5 * each, 2 * 10_000);
            assert!(took >= least, "{key} {relay}: {took:?} of {least:?}");
        });
    }
}

#[test]
fn a_session_that_waits_for_its_bandwidth_is_not_idle() {
    let meeting = Meeting::new();
    let config = Config::of(
        Service::new("web")
            .limits("to_client_per_session", "1KB/s")
            .timeout("idle", "300ms")
            .backend("only", meeting.address()),
    )
    .log_every_session();
    let daemon = Daemon::start(&config);
    let (mut client, mut backend) = meeting.session(daemon.address("web"));
    let began = Instant::now();
    // The burst of four kilobytes, and two that wait for a second each.
    let pattern = Pattern::new(1, 6 * 1024);
    pattern.send(&mut backend).unwrap();
    pattern.expect(&mut client);
    assert!(began.elapsed() >= Duration::from_secs(1));
    // Now it is.
    assert_eq!(client.end(), End::Reset);
    let line = daemon.wait_for(0, words::SESSION, "service", "web");
    assert!(line.has("cause", words::IDLE), "{}", line.raw());
}

#[test]
fn what_waits_stays_with_the_sender() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&config(&meeting, "to_backend_per_session", "1MB/s"));
    each_relay(&daemon, |_, address| {
        let (client, mut backend) = meeting.session(address);
        let before = daemon.resident_bytes();
        let bulk = Pattern::new(1, 64 * MB);
        let sent = bulk.progress();
        let mut sender = client.try_clone().unwrap();
        let sending = thread::spawn(move || bulk.send(&mut sender).is_err());
        let mut read = 0;
        let mut buffer = vec![0; 65_536];
        while read < 3 * MB / 2 {
            read += std::io::Read::read(&mut backend, &mut buffer).unwrap() as u64;
        }
        // As much as kernel buffers hold, and a second of bandwidth on a machine that stalls.
        assert!(sent.load(Ordering::Relaxed) < 40 * MB);
        let grown = daemon.resident_bytes().saturating_sub(before);
        assert!(grown < 16 * MB, "{grown} bytes");
        abort(backend);
        assert!(sending.join().unwrap(), "the sender meets the reset");
    });
}

#[test]
fn a_reset_comes_behind_what_has_waited() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&config(&meeting, "to_backend_per_session", "20KB/s"));
    each_relay(&daemon, |relay, address| {
        let (mut client, mut backend) = meeting.session(address);
        let pattern = Pattern::new(1, 20_000);
        pattern.send(&mut client).unwrap();
        // All of it is with the daemon's kernel.
        eventually("it is acknowledged", || {
            (crate::support::unsent(&client) == 0).then_some(())
        });
        abort(client);
        assert_eq!(pattern.expect_then_end(&mut backend), End::Reset);
        let line = daemon.wait_for(0, words::SESSION, "service", relay);
        assert!(line.has("who", "client"), "{}", line.raw());
        assert!(line.has("cause", words::RESET), "{}", line.raw());
    });
}

#[test]
fn what_a_reset_left_behind_is_not_held_back_for_ever() {
    let meeting = Meeting::new();
    for (key, who) in [
        ("to_backend_per_session", "client"),
        ("to_client_per_session", "backend"),
    ] {
        let config = Config::of_each_relay(|service| {
            service
                .limits(key, "1KB/s")
                // Longer than a busy machine takes between two steps of this.
                .timeout("idle", "5s")
                .backend("only", meeting.address())
        })
        .log_every_session();
        let daemon = Daemon::start(&config);
        each_relay(&daemon, |relay, address| {
            let (client, backend) = meeting.session(address);
            let (mut from, mut to) = match who {
                "client" => (client, backend),
                _ => (backend, client),
            };
            // A minute's worth.
            let pattern = Pattern::new(1, 60_000);
            pattern.send(&mut from).unwrap();
            eventually("it is acknowledged", || {
                (crate::support::unsent(&from) == 0).then_some(())
            });
            abort(from);
            let (came, end) = pattern.receive(&mut to);
            assert!(came > 0 && came < 60_000 && end == End::Reset, "{came}");
            let line = daemon.wait_for(0, words::SESSION, "service", relay);
            assert!(line.has("who", who), "{}", line.raw());
            assert!(line.has("cause", words::RESET), "{}", line.raw());
        });
    }
}

#[test]
fn a_reset_ends_a_session_that_waits_for_its_bandwidth_and_whose_backend_takes_nothing() {
    let meeting = Meeting::new();
    let config = Config::of_each_relay(|service| {
        service
            .limits("to_client_per_session", "1KB/s")
            // Longer than a busy machine takes between two steps of this.
            .timeout("idle", "5s")
            .backend("only", meeting.address())
    })
    .log_every_session();
    let daemon = Daemon::start(&config);
    each_relay(&daemon, |relay, address| {
        let (mut client, mut backend) = meeting.session(address);
        let slow = Pattern::new(1, 60_000);
        slow.send(&mut backend).unwrap();
        slow.expect_some(&mut client, 0);
        // Until nothing on the way takes any more, and so nobody would read the reset.
        Pattern::new(2, u64::MAX >> 1).fill(&mut client);
        abort(client);
        let line = daemon.wait_for(0, words::SESSION, "service", relay);
        assert!(line.has("who", "client"), "{}", line.raw());
        assert!(line.has("cause", words::RESET), "{}", line.raw());
    });
}

#[test]
fn a_stop_does_not_wait_for_bytes_that_wait() {
    let meeting = Meeting::new();
    let config = config(&meeting, "to_client_per_session", "1KB/s").runtime("drain_timeout", "0s");
    let mut daemon = Daemon::start(&config);
    let mut sessions = Vec::new();
    for relay in RELAYS {
        let (mut client, mut backend) = meeting.session(daemon.address(relay));
        let pattern = Pattern::new(1, 20_000);
        pattern.send(&mut backend).unwrap();
        pattern.expect_some(&mut client, 0);
        sessions.push((client, backend));
    }
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_until_stopped(), 3);
}

#[test]
fn a_dry_run_slows_nobody_down_and_counts_whom_it_would_have() {
    let meeting = Meeting::new();
    let service = Service::new("web")
        .limits("to_client", "2KB/s")
        .limits("to_client_per_session", "1KB/s")
        .limits("to_backend_per_session", "10KB/s")
        .limits("dry_run", vec!["to_client", "to_client_per_session"])
        .backend("only", meeting.address());
    let daemon = Daemon::start(&Config::of(service).admin("listen", "127.0.0.1:0"));
    let (client, backend) = meeting.session(daemon.address("web"));
    // Would take more than an hour.
    move_across(&backend, &client, &Pattern::new(1, 8 * MB));
    move_across(&client, &backend, &Pattern::new(2, 20_000));
    drop((client, backend));
    let api = daemon.api();
    let caps = eventually("all of it is counted", || {
        let service = api.get("/v1/services/web").good::<api::Service>();
        Some(service.throttling)
            .filter(|it| it.iter().all(|it| it.slowed_total + it.would_be_total == 1))
    });
    let told: Vec<_> = caps
        .iter()
        .map(|it| (&*it.cap, it.bytes_per_second))
        .collect();
    let written = [
        ("to_client", Some(2_000)),
        ("to_backend_per_session", Some(10_000)),
        ("to_client_per_session", Some(1_000)),
    ];
    assert_eq!(told, written);
    // The time of all bytes but for the burst, give or take a slice.
    let [all, up, each] = [&caps[0], &caps[1], &caps[2]];
    for (cap, seconds) in [(all, 3998.0), (each, 7996.0)] {
        let off = (cap.would_be_seconds_total - seconds).abs();
        assert!(off < 10.0 && cap.slowed_seconds_total == 0.0, "{cap:?}");
    }
    assert!(
        up.slowed_seconds_total > 0.0 && up.would_be_seconds_total == 0.0,
        "{up:?}"
    );
    let metrics = api.get("/metrics");
    for sample in [
        "ballast_service_slowed_sessions_total{service=\"web\",cap=\"to_backend_per_session\"} 1",
        "ballast_service_would_be_slowed_sessions_total{service=\"web\",cap=\"to_client\"} 1",
    ] {
        assert!(metrics.text().contains(sample), "{}", metrics.text());
    }
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    let line = daemon.wait_for(mark, words::BANDWIDTH, "service", "web");
    assert!(
        line.text("slowed")
            .starts_with("to_backend_per_session 1 ("),
        "{}",
        line.raw()
    );
    assert!(
        line.text("would_be").starts_with("to_client 1 ("),
        "{}",
        line.raw()
    );
}

#[test]
fn a_reload_gives_running_sessions_their_new_bandwidth() {
    let meeting = Meeting::new();
    let with = |limit: Option<&str>| {
        let mut service = Service::new("web")
            .listen("127.0.0.1:0")
            .timeout("idle", "1s")
            .backend("only", meeting.address());
        if let Some(limit) = limit {
            service = service.limits("to_client", limit);
        }
        Config::of(service)
    };
    let slow = with(Some("10KB/s"));
    let daemon = Daemon::start(&slow);
    let (mut client, backend) = meeting.session(daemon.address("web"));
    // Would take longer than any test waits.
    let pattern = Pattern::new(1, 4 * MB);
    let sending = pattern.send_and_half_close(&backend);
    let read = pattern.expect_some(&mut client, 0);
    let line = daemon.reload(&with(Some("100MB/s")));
    assert!(
        line.text("plan").contains("services +0 -0 ~1"),
        "{}",
        line.raw()
    );
    pattern.expect_rest(&mut client, read, 65_536);
    assert_eq!(client.end(), End::Fin);
    sending.join().unwrap();
    // And one that began without any is slowed down by one that is new.
    daemon.reload(&with(None));
    let (client, backend) = meeting.session(daemon.address("web"));
    daemon.reload(&slow);
    let mut slowed = client.try_clone().unwrap();
    // More than goes anywhere before the limit is noticed.
    let bulk = Pattern::new(2, u64::MAX);
    let sending = send_until_reset(&backend, &bulk);
    let reading = thread::spawn(move || bulk.receive(&mut slowed));
    eventually("it is slowed down", || {
        let mark = daemon.log().mark();
        daemon.signal(Signal::USR1);
        let line = daemon.wait_for(mark, words::BANDWIDTH, "service", "web");
        line.text("slowed")
            .starts_with("to_client 2 (")
            .then_some(())
    });
    daemon.signal(Signal::KILL);
    reading.join().unwrap();
    sending.join().unwrap();
}

/// Sends as much of `pattern` as the other side lives to take.
fn send_until_reset(stream: &TcpStream, pattern: &Pattern) -> thread::JoinHandle<()> {
    let mut stream = stream.try_clone().expect("descriptors");
    let pattern = pattern.clone();
    thread::spawn(move || drop(pattern.send(&mut stream)))
}
