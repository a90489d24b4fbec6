//! Many at a time: clients who want nothing, clients beyond every limit, backends that all fail, sessions that
//! all end, reloads that never do.

use std::net::SocketAddr;
use std::time::Duration;

use ballast::api::{State, View};

use super::{at_once, whole_session};
use crate::support::{
    Api, Backend, Config, Daemon, End, Held, Meeting, Peer, RELAYS, Service, Signal, Storm,
    ask_name, connect, connect_unasked, connect_unasked_from, echo_once, eventually, fresh_ip,
    name_and_part, read_name, steadily, words,
};

/// Sizes of short sessions, those around a buffer among them.
const SIZES: [u64; 6] = [0, 1, 1460, 65_535, 65_536, 300_000];

/// Short sessions of all sizes, by each way to relay in turn.
fn storm(daemon: &Daemon, threads: u64) -> Storm {
    let addresses = RELAYS.map(|relay| daemon.address(relay));
    Storm::start(threads, move |number| {
        let pick = |count: usize| usize::try_from(number % count as u64).expect("below the count");
        echo_once(
            addresses[pick(RELAYS.len())],
            number,
            SIZES[pick(SIZES.len())],
        )
    })
}

/// So many backends, and a daemon with all of them behind a service of each way to relay.
fn in_front_of(count: usize) -> (Vec<Backend>, Daemon) {
    let backends: Vec<_> = (0..count).map(|_| Backend::named("one")).collect();
    let daemon = Daemon::start(&Config::of_each_relay(|service| {
        let all = backends.iter().enumerate();
        all.fold(service.quick_health(), |service, (number, backend)| {
            service.backend(&format!("b{number}"), backend.address())
        })
    }));
    (backends, daemon)
}

fn view_when(api: &Api, what: &str, wanted: impl Fn(&View) -> bool) {
    eventually(what, || wanted(&api.get("/v1/view").good()).then_some(()));
}

#[test]
fn clients_that_say_nothing_hold_no_more_than_their_share_and_not_for_long() {
    let backend = Meeting::new();
    let service = |name: &str| {
        Service::new(name)
            .relay(name)
            .limits("max_per_source", 5)
            .timeout("idle", "2s")
            .backend("only", backend.address())
    };
    let config = RELAYS.into_iter().fold(Config::new(), |config, relay| {
        config.service(service(relay))
    });
    let daemon = Daemon::start(&config);
    let pest = fresh_ip();
    for relay in RELAYS {
        let address = daemon.address(relay);
        let knock = || connect_unasked_from(pest.into(), address).unwrap();
        let mut silent: Vec<_> = (0..5).map(|_| knock()).collect();
        let mark = daemon.log().mark();
        // Whichever of them came last was one too many.
        let more: Vec<_> = (0..5).map(|_| knock()).collect();
        eventually("one too many is told", || {
            let told = |line: &crate::support::Line| line.has("cause", words::TOO_MANY);
            (!daemon.log().all(mark, told).is_empty()).then_some(())
        });
        for mut client in more {
            assert_eq!(client.end(), End::Reset);
        }
        whole_session(backend.session(address), 1_000_000);
        for client in &mut silent {
            assert_eq!(client.end(), End::Reset);
        }
        let again = eventually("there is room for the next", || {
            let mut client = knock();
            client
                .is_silent(Duration::from_millis(200))
                .then_some(client)
        });
        drop(again);
    }
    let idle = daemon.log().all(0, |line| line.has("cause", words::IDLE));
    assert!(idle.len() >= 5 * RELAYS.len(), "{} lines", idle.len());
}

#[test]
fn a_flood_beyond_max_connections_keeps_neither_operators_nor_probes_out() {
    let mut backends = [Backend::named("a"), Backend::named("b")];
    let config = Config::of_each_relay(|service| {
        service
            .quick_health()
            .backend("a", backends[0].address())
            .backend("b", backends[1].address())
    });
    let daemon = Daemon::start(
        &config
            .runtime("max_connections", 6)
            .admin("listen", "127.0.0.1:0"),
    );
    let api = daemon.api();
    let held: Vec<_> = RELAYS
        .into_iter()
        .chain(RELAYS)
        .map(|relay| Held::open(daemon.address(relay)))
        .collect();
    // The kernel completes these handshakes; their sessions wait.
    let waiting: Vec<_> = (0..100)
        .map(|n| connect(daemon.address(RELAYS[n % 3])).unwrap())
        .collect();
    daemon.wait_for(0, words::PAUSES, "max_connections", "6");
    assert_eq!(api.get("/healthz").status, 200);
    let state = |view: &View| view.services[0].backends[0].state;
    backends[0].refuse();
    view_when(&api, "a is down", |view| state(view) == State::Down);
    backends[0].answer();
    view_when(&api, "a is up", |view| state(view) == State::Up);
    let ticks = daemon.cpu_ticks_during(Duration::from_secs(1));
    assert!(ticks < 40, "{ticks} of 100 ticks while nobody may come in");
    for mut session in held {
        session.still_works();
        session.part();
    }
    // Whoever is let in first is not known.
    let waiting = waiting.into_iter().enumerate();
    at_once(
        waiting.map(|(n, client)| (n.to_string(), client)),
        |client| {
            name_and_part(client).unwrap();
        },
    );
    let storm = storm(&daemon, 4);
    storm.pass(100);
    storm.finish().assert_flawless();
}

#[test]
fn clients_that_wait_for_a_full_backend_cost_nothing_and_then_get_every_byte() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of_each_relay(|service| {
        service
            .health("interval", "1h")
            .capped("only", backend.address(), 2)
    }));
    let held: Vec<_> = RELAYS
        .into_iter()
        .chain(RELAYS)
        .map(|relay| Held::open(daemon.address(relay)))
        .collect();
    let storm = storm(&daemon, 24);
    let ticks = daemon.cpu_ticks_during(Duration::from_secs(1));
    assert!(ticks < 20, "{ticks} of 100 ticks while all wait");
    assert_eq!(storm.so_far().successes(), 0);
    held.into_iter().for_each(Held::part);
    storm.pass(500);
    storm.finish().assert_flawless();
}

#[test]
fn with_all_backends_down_nothing_spins() {
    let (mut backends, daemon) = in_front_of(4);
    ask_name(daemon.address("copy")).unwrap();
    backends.iter_mut().for_each(Backend::refuse);
    for relay in RELAYS {
        daemon.wait_for(0, words::NOBODY_SERVES, "service", relay);
        for _ in 0..50 {
            let mut client = connect_unasked(daemon.address(relay)).unwrap();
            assert_eq!(client.end(), End::Reset);
        }
    }
    // Twelve checks, each ten times a second.
    let ticks = daemon.cpu_ticks_during(Duration::from_secs(2));
    assert!(ticks < 60, "{ticks} of 200 ticks");
    backends.iter_mut().for_each(Backend::answer);
    for relay in RELAYS {
        eventually("it is served again", || {
            ask_name(daemon.address(relay)).ok()
        });
    }
}

#[test]
fn checks_that_flap_all_at_once_cost_no_running_session() {
    let (mut backends, daemon) = in_front_of(8);
    let mut held: Vec<_> = (0..24)
        .map(|n| Held::open(daemon.address(RELAYS[n % 3])))
        .collect();
    let all_are_up = |mark| {
        for relay in RELAYS {
            daemon.log().wait(mark, "all are up", |line| {
                line.says(words::BACKEND_UP)
                    && line.has("service", relay)
                    && line.has("eligible", "8/8")
            });
        }
    };
    all_are_up(0);
    for _ in 0..3 {
        let mark = daemon.log().mark();
        backends.iter_mut().for_each(Backend::refuse);
        for relay in RELAYS {
            daemon.wait_for(mark, words::NOBODY_SERVES, "service", relay);
        }
        held.iter_mut().for_each(Held::still_works);
        let mark = daemon.log().mark();
        backends.iter_mut().for_each(Backend::answer);
        for relay in RELAYS {
            eventually("it is served again", || {
                echo_once(daemon.address(relay), 1, 100_000).ok()
            });
        }
        held.iter_mut().for_each(Held::still_works);
        all_are_up(mark);
    }
    held.into_iter().for_each(Held::part);
    let storm = storm(&daemon, 4);
    storm.pass(100);
    storm.finish().assert_flawless();
}

#[test]
fn a_backend_is_back_after_as_many_successes_as_rise_says() {
    let mut only = Backend::named("only");
    let service = Service::new("web")
        .health("interval", "200ms")
        .health("fast_interval", "200ms")
        .health("timeout", "1s")
        .health("rise", 4)
        .health("fall", 2)
        .backend("only", only.address());
    let daemon = Daemon::start(&Config::of(service).log("level", "debug"));
    let address = daemon.address("web");
    daemon.wait_until_up(0, "only");
    let mark = daemon.log().mark();
    only.refuse();
    daemon.wait_until_down(mark, "only");
    let mark = daemon.log().mark();
    only.answer();
    let up = daemon.wait_until_up(mark, "only");
    // On a loaded machine one may come too late, and all begins again.
    let answers = daemon.log().all(mark, |line| line.says(words::ANSWERED));
    let streaks: Vec<_> = answers.iter().map(|it| it.number("streak")).collect();
    assert!(streaks.ends_with(&[1, 2, 3]), "{streaks:?}: {}", up.raw());
    eventually("it is served again", || echo_once(address, 1, 100_000).ok());
}

#[test]
fn a_backend_with_thousands_of_sessions_leaves_and_they_stay_until_they_are_done() {
    const SESSIONS: usize = 3000;
    let (leaving, staying) = (Backend::named("leaving"), Backend::named("staying"));
    let services = RELAYS.map(|relay| (relay, Service::new(relay).relay(relay)));
    let with = |name: &str, address: SocketAddr| {
        let add = |config: Config, (_, service): &(&str, Service)| {
            config.service(service.clone().backend(name, address))
        };
        let config = services.iter().fold(Config::new(), add);
        config.runtime("drain_timeout", "1s")
    };
    let mut daemon = Daemon::start(&with("leaving", leaving.address()));
    let address = |n: usize| daemon.address(RELAYS[n % 3]);
    let mut held: Vec<_> = (0..SESSIONS).map(|n| Held::open(address(n))).collect();
    daemon.reload(&with("staying", staying.address()));
    for relay in RELAYS {
        assert_eq!(ask_name(daemon.address(relay)).unwrap(), "staying");
    }
    held.iter_mut().for_each(Held::still_works);
    // A third is done, in the manner of its clients; the others are reset at the deadline of a stop.
    held.drain(..SESSIONS / 3).for_each(Held::part);
    assert_eq!(ask_name(daemon.address("copy")).unwrap(), "staying");
    held.iter_mut().for_each(Held::still_works);
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_until_stopped(), held.len() as u64);
    for mut session in held {
        assert_eq!(session.stream.end(), End::Reset);
    }
}

#[test]
fn sessions_that_come_and_go_leave_nothing_behind() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of_each_relay(|service| {
        service
            .health("interval", "1h")
            // Every source has a place in a table then.
            .limits("max_per_source", 100)
            .backend("only", backend.address())
    }));
    let round = |sessions| {
        let storm = storm(&daemon, 8);
        let rude = Storm::start(2, {
            let addresses = RELAYS.map(|relay| daemon.address(relay));
            move |number| {
                // Each from somewhere else.
                let address = addresses[usize::try_from(number % 3).expect("below 3")];
                let mut client = connect_unasked_from(fresh_ip().into(), address)?;
                read_name(&mut client)?;
                client.put(b"never answered");
                client.reset();
                Ok("rude".to_owned())
            }
        });
        storm.pass(sessions);
        rude.finish().assert_flawless();
        storm.finish().assert_flawless();
        // A worker keeps a pipe that it used for a second or two.
        steadily(Duration::from_secs(3), "descriptors settle", || {
            daemon.descriptors()
        })
    };
    let before = round(1500);
    let memory = daemon.resident_bytes();
    for _ in 0..3 {
        assert_eq!(round(1000), before, "descriptors");
    }
    let grown = daemon.resident_bytes().saturating_sub(memory);
    assert!(grown < 8 << 20, "{} KiB more", grown >> 10);
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    let report = daemon
        .log()
        .wait(mark, "a report", |line| line.says(words::REPORT));
    assert_eq!(report.number("sessions"), 0);
}

#[test]
fn ten_reloads_a_second_cost_no_byte() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let services = RELAYS.map(|relay| Service::new(relay).relay(relay));
    let variant = |strategy: &str, backends: &[(&str, &Backend)]| {
        services.iter().fold(Config::new(), |config, service| {
            let add = |service: Service, (name, it): &(&str, &Backend)| {
                service.backend(name, it.address())
            };
            let service = service.clone().strategy(strategy);
            config.service(backends.iter().fold(service, add))
        })
    };
    let variants = [
        variant("round-robin", &[("a", &a), ("b", &b)]),
        variant("least-connections", &[("b", &b)]),
        variant("source-hash", &[("a", &a)]),
    ];
    let daemon = Daemon::start(&variants[0]);
    let mut held: Vec<_> = (0..12)
        .map(|n| Held::open(daemon.address(RELAYS[n % 3])))
        .collect();
    let storm = storm(&daemon, 8);
    for n in 1..=40 {
        daemon.reload(&variants[n % 3]);
        held.iter_mut().for_each(Held::still_works);
        // The pace is the test.
        std::thread::sleep(Duration::from_millis(100));
    }
    storm.pass(10);
    storm.finish().assert_flawless();
    held.into_iter().for_each(Held::part);
}
