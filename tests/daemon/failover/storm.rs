//! A connect storm over four backends, each of which fails in a way of its own: who is lost, and whether
//! the log says of it what clients have seen. In a network of its own, because one of the ways is that
//! packets are dropped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{AGREES, Timeline, apart, timeline};
use crate::support::netns::{has_run_alone, nft};
use crate::support::{
    Config, Daemon, Failure, Line, ProcessBackend, Service, Storm, connect, read_name, words,
};

const CLIENTS: u64 = 16;
const CONNECT: Duration = Duration::from_millis(500);
const PROBE: Duration = Duration::from_millis(300);
/// What the daemon may take besides what it has to wait for.
const OWN: Duration = Duration::from_millis(100);
/// So often one backend goes and comes in a row.
const FLAPS: usize = 5;

#[test]
fn four_faults_under_a_storm_cost_nobody_who_could_be_moved() {
    if has_run_alone(four_faults_under_a_storm_cost_nobody_who_could_be_moved) {
        return;
    }
    // On a machine that has other things to do, nobody is to be taken for lost who is only late.
    let mut field = Field::new(Duration::from_secs(5));
    for fault in FAULTS {
        fault(&mut field);
    }
}

/// A measurement: how long clients notice, and how far the log is from what they have seen.
#[test]
#[ignore = "a measurement of a minute, which wants an idle machine and a release build"]
fn four_faults_under_a_storm_take_so_long() {
    const ROUNDS: usize = 5;
    if has_run_alone(four_faults_under_a_storm_take_so_long) {
        return;
    }
    // Clients that give up soon come back soon, so that there is always one to see what goes on.
    let mut field = Field::new(Duration::from_millis(100));
    let mut rounds: BTreeMap<_, Vec<Round>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        for fault in FAULTS {
            let round = fault(&mut field);
            rounds.entry(round.backend).or_default().push(round);
        }
    }
    for (backend, rounds) in &rounds {
        let worst = |of: fn(&Round) -> Duration| rounds.iter().map(of).max().unwrap_or_default();
        let sum = |of: fn(&Round) -> u64| rounds.iter().map(of).sum::<u64>();
        println!(
            "{backend}: {} failovers, {} clients lost; sessions hurt {}, moved {}; longest from the first failed connect to the last failed session: {:.1?} by the log, {:.1?} by clients; \
             the two differ by {:.1?} at most",
            rounds.len(),
            sum(|it| it.lost),
            sum(|it| it.line.number("sessions_hurt")),
            sum(|it| it.line.number("sessions_moved")),
            worst(|it| it.total),
            worst(|it| it.felt),
            worst(|it| it.apart),
        );
        assert!(worst(|it| it.apart) <= AGREES, "{backend}: {rounds:?}");
        let most = match *backend {
            "refusing" => OWN,
            "silent" => CONNECT + PROBE + OWN,
            _ => continue,
        };
        assert!(
            worst(|it| it.total.max(it.felt)) < most,
            "{backend}: {rounds:?}"
        );
    }
}

/// One fault, and what became of it.
#[derive(Debug)]
struct Round {
    backend: &'static str,
    line: Arc<Line>,
    /// Clients that were with it when it died, or before it was known to be frozen: no others are lost.
    lost: u64,
    /// From the first connect that had failed to the last session that it had failed, by the log, …
    total: Duration,
    /// … and by clients.
    felt: Duration,
    /// How far the log's timeline is from what clients have seen.
    apart: Duration,
}

type Fault = fn(&mut Field) -> Round;
const FAULTS: [Fault; 4] = [refusing, silent, frozen, flapping];

/// The daemon, its backends, and clients without end.
struct Field {
    daemon: Daemon,
    backends: BTreeMap<&'static str, ProcessBackend>,
    storm: Storm,
    stalled: Stalled,
    /// Clients wait for an answer no longer than they are wont to.
    hasty: Arc<AtomicBool>,
}

/// Clients that were kept waiting for the time of a connect: when each began and ended.
type Stalled = Arc<Mutex<Vec<(Instant, Instant)>>>;

impl Field {
    /// With clients that wait at most so long for a frozen backend.
    fn new(patience: Duration) -> Self {
        let backends: BTreeMap<_, _> = ["flapping", "frozen", "refusing", "silent"]
            .map(|name| (name, ProcessBackend::named(name)))
            .into();
        let expect: toml::Table = toml::from_str("regex = '^[a-z]+\\n'").unwrap();
        let millis = |it: Duration| format!("{}ms", it.as_millis());
        let service = Service::new("web")
            .health("interval", "1s")
            .health("fast_interval", "200ms")
            .health("down_interval", "200ms")
            .health("timeout", millis(PROBE))
            .health("rise", 2)
            .health("fall", 2)
            .health("expect", expect)
            .timeout("connect", &millis(CONNECT))
            .timeout("connect_total", "1s");
        let service = backends.iter().fold(service, |service, (name, backend)| {
            service.backend(name, backend.address())
        });
        let daemon = Daemon::start(&Config::of(service));
        for name in backends.keys() {
            daemon.wait_until_up(0, name);
        }
        let address = daemon.address("web");
        let (stalled, hasty) = (Stalled::default(), Arc::new(AtomicBool::new(false)));
        let (seen, haste) = (Arc::clone(&stalled), Arc::clone(&hasty));
        let storm = Storm::start(CLIENTS, move |number| {
            let started = Instant::now();
            let mut stream = connect(address)?;
            if haste.load(Ordering::Relaxed) {
                // Not all alike, or they would all come back at once.
                let patience = patience.mul_f64(1.0 - 0.1 * (number % 5) as f64);
                stream.set_read_timeout(Some(patience))?;
            }
            let name = read_name(&mut stream);
            if started.elapsed() >= CONNECT {
                seen.lock().unwrap().push((started, Instant::now()));
            }
            name
        });
        storm.pass(200);
        Self {
            daemon,
            backends,
            storm,
            stalled,
            hasty,
        }
    }

    fn backend(&mut self, name: &str) -> &mut ProcessBackend {
        self.backends.get_mut(name).unwrap()
    }

    /// Clients that have failed since `from`.
    fn failed(&self, from: Instant) -> Vec<Failure> {
        let failed = self.storm.so_far().failed;
        failed.into_iter().filter(|it| it.ended >= from).collect()
    }

    /// What the log tells of the failover from `name`.
    fn failover(&self, mark: usize, name: &str) -> Arc<Line> {
        let line = self.daemon.wait_for(mark, words::FAILOVER, "backend", name);
        assert_eq!(line.text("eligible"), "3/4");
        line
    }
}

fn refusing(field: &mut Field) -> Round {
    let mark = field.daemon.log().mark();
    let before = Instant::now();
    let after = field.backend("refusing").kill();
    let line = field.failover(mark, "refusing");
    field.storm.pass(200);
    let round = with_its_clients("refusing", field, line, (before, after));
    field.backend("refusing").start();
    field.daemon.wait_until_up(mark, "refusing");
    round
}

/// The account of a backend that died between `before` and `after`: those that were connected to it are lost
/// with it, and nobody after them.
fn with_its_clients(
    backend: &'static str,
    field: &Field,
    line: Arc<Line>,
    (before, after): (Instant, Instant),
) -> Round {
    let failed = field.failed(before);
    let in_vain: Vec<_> = failed.iter().filter(|it| it.started > after).collect();
    assert!(in_vain.is_empty(), "{in_vain:?}\n{}", line.raw());
    let Timeline {
        began,
        failed: first,
        recovered,
        ..
    } = timeline(&line);
    let last = failed.iter().map(|it| it.ended).max().unwrap_or(after);
    let last = last.max(after);
    // It died between the two.
    let outside = before
        .saturating_duration_since(began)
        .max(began.saturating_duration_since(after));
    Round {
        backend,
        line,
        lost: failed.len() as u64,
        total: recovered.saturating_duration_since(first),
        felt: last.saturating_duration_since(before),
        apart: outside.max(apart(recovered, last)),
    }
}

fn silent(field: &mut Field) -> Round {
    let (mark, before) = (field.daemon.log().mark(), Instant::now());
    field.stalled.lock().unwrap().clear();
    drop_handshakes(field.backend("silent").address());
    let line = field.failover(mark, "silent");
    field.storm.pass(200);
    let failed = field.failed(before);
    assert!(failed.is_empty(), "{failed:?}\n{}", line.raw());
    nft("delete table inet t");
    let times = timeline(&line);
    let stalled = std::mem::take(&mut *field.stalled.lock().unwrap());
    let first = stalled.iter().map(|(began, _)| *began).min().unwrap();
    let last = stalled.iter().map(|(_, ended)| *ended).max().unwrap();
    field.daemon.wait_until_up(mark, "silent");
    Round {
        backend: "silent",
        line,
        lost: 0,
        total: times.recovered.saturating_duration_since(times.failed),
        felt: last - (first + CONNECT),
        apart: apart(times.began, first).max(apart(times.recovered, last)),
    }
}

fn frozen(field: &mut Field) -> Round {
    let mark = field.daemon.log().mark();
    field.hasty.store(true, Ordering::Relaxed);
    let froze = field.backend("frozen").freeze();
    let line = field.failover(mark, "frozen");
    let detected = timeline(&line).detected;
    // Everyone who was given to it has given it up by the time that all clients have been served again.
    field.storm.pass(200 * CLIENTS);
    let failed = field.failed(froze);
    // Only whoever was given to it before it was known to be frozen waits in vain.
    let late: Vec<_> = failed
        .iter()
        .filter(|it| it.started > detected + AGREES)
        .collect();
    assert!(late.is_empty(), "{late:?}\n{}", line.raw());
    field.hasty.store(false, Ordering::Relaxed);
    field.backend("frozen").thaw();
    field.daemon.wait_until_up(mark, "frozen");
    let last = failed.iter().map(|it| it.started).max().unwrap_or(froze);
    Round {
        backend: "frozen",
        line,
        lost: failed.len() as u64,
        total: detected.saturating_duration_since(froze),
        felt: last.saturating_duration_since(froze),
        apart: apart(detected, last),
    }
}

fn flapping(field: &mut Field) -> Round {
    let mark = field.daemon.log().mark();
    let began = Instant::now();
    let mut moments = Vec::new();
    for _ in 0..FLAPS {
        let before = Instant::now();
        moments.push((before, field.backend("flapping").kill()));
        field.storm.pass(100);
        field.backend("flapping").start();
        field.storm.pass(100);
    }
    field.daemon.wait_until_up(mark, "flapping");
    let failed = field.failed(began);
    let in_vain: Vec<_> = failed
        .iter()
        .filter(|it| {
            !moments
                .iter()
                .any(|(from, to)| it.started <= *to && it.ended >= *from)
        })
        .collect();
    assert!(in_vain.is_empty(), "{in_vain:?}");
    let line = field.failover(mark, "flapping");
    let times = timeline(&line);
    // Whichever of its deaths was noticed first.
    let outside = |(before, after): &(Instant, Instant)| {
        before
            .saturating_duration_since(times.began)
            .max(times.began.saturating_duration_since(*after))
    };
    Round {
        backend: "flapping",
        lost: failed.len() as u64,
        total: times.recovered.saturating_duration_since(times.failed),
        felt: Duration::ZERO,
        apart: moments.iter().map(outside).min().unwrap_or_default(),
        line,
    }
}

/// Has the kernel drop every SYN to that address.
fn drop_handshakes(address: SocketAddr) {
    let rules = format!(
        "add table inet t; add chain inet t i {{ type filter hook input priority 0; }}; \
         add rule inet t i ip daddr {} tcp flags syn / syn,ack drop",
        address.ip()
    );
    nft(&rules);
}
