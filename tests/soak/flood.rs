//! A measurement: what a flood of one service costs the sessions of another, and how soon it is over.
//!
//! ```sh
//! cargo test --release --test soak -- --ignored --nocapture what_a_flood_costs
//! ```
//!
//! | variable | what | default |
//! |---|---|---|
//! | `BALLAST_FLOOD_RATE` | how many connections a second are tried | 20000 |
//! | `BALLAST_FLOOD_ROUNDS` | how often everybody is flooded | 5 |
//! | `BALLAST_FLOOD_SECONDS` | how long each time | 3 |
//! | `BALLAST_FLOOD_TARGET` | which of the rows below is wanted, if not all: `elsewhere`, `limited`, `unlimited` | |
//!
//! Half of them come from a thousand sources, the other half each from another one; besides, slow clients from
//! fifty sources hold hundreds of connections by a byte now and then. The generator and the flooded service's
//! backend are a process of their own that runs when nobody else on its core wants to ([how](generator)). So they take
//! little from the daemon and the measured clients, as if they were elsewhere; but what the kernel does for a connect on
//! loopback it does at once, in the name of whoever asks, and nobody comes in between.
//!
//! The flood is met in three ways: by somebody else on the same machine, which is what the generator and the kernel
//! cost these two cores without any doing of Ballast's; by a service with `[service.limits]`; and by one without.
//! They take turns, in an order that rotates and each time after a while of quiet, because a machine that others use as
//! well is not the same from one minute to the next: what counts is the median of what was found in each round, held
//! against all the quiet of that round, with the least and the most.
//! How clients of the flooded service itself fare who come now and then, each from a source of its own, is in the
//! last column: how many are served within a second, and how soon. What answers them is the flooded backend,
//! which runs when nobody else wants to.

mod generator;

use std::env;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ballast::api::View;
use socket2::{Domain, Socket, Type};

use self::generator::Flood;
use crate::support::proc::cpu_ticks;
use crate::support::{Backend, Config, Daemon, Service, connect, eventually, read_name};

/// Threads of measured clients, and the pause of each between two sessions.
const CLIENTS: u8 = 2;
const PAUSE: Duration = Duration::from_millis(3);

/// The same of those who want to be served by the flooded service, how long they wait to be, and for how long
/// they would gladly.
const REGULAR_CLIENTS: u8 = 4;
const REGULAR_PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(3);
const GLADLY: Duration = Duration::from_secs(1);

/// What the last flood may take to be over, and the quiet before the next.
const AFTER: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(2);

#[test]
#[ignore = "a measurement: run by hand on an idle machine, see the head of this file"]
fn what_a_flood_costs_the_sessions_of_another_service() {
    let rounds: u32 = crate::from_environment("BALLAST_FLOOD_ROUNDS", 5);
    let seconds: f64 = crate::from_environment("BALLAST_FLOOD_SECONDS", 3.0);
    let wanted = env::var("BALLAST_FLOOD_TARGET").ok();
    let targets = [Target::Elsewhere, Target::Limited, Target::Unlimited]
        .into_iter()
        .filter(|target| wanted.as_ref().is_none_or(|it| *it == target.key()))
        .collect::<Vec<_>>();
    let mut site = Site::start();
    let mut seen = Vec::new();
    thread::sleep(AFTER);
    for round in 0..rounds as usize {
        let order = targets.iter().cycle().skip(round).take(targets.len());
        let floods = order.map(|&target| (target, site.flood(target, seconds)));
        seen.push(floods.collect::<Vec<_>>());
    }
    let samples = site.clients.end();
    let failed = samples.iter().filter(|it| !it.well).count();
    println!("\n{} sessions, {failed} failed\n", samples.len());
    println!(
        "| | connects/s | accepted/s | refused/s | quiet p50 · p99 | flooded p50 · p99 | times | others back within | gone within | CPU of the daemon | its own: served, p50 · p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for target in targets {
        let mut rows = Vec::new();
        for round in &seen {
            let quiet = round.iter().map(|(_, it)| it.quiet(&samples));
            let quiet = quiet.collect::<Vec<_>>().concat();
            let of_it = round.iter().filter(|it| it.0 == target);
            rows.extend(of_it.map(|(_, it)| it.row(&quiet, &samples)));
        }
        println!("| {} | {} |", target.title(), row(&rows));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The backend itself.
    Elsewhere,
    Limited,
    Unlimited,
}

impl Target {
    /// Of its service, where it is one.
    fn key(self) -> &'static str {
        match self {
            Self::Elsewhere => "elsewhere",
            Self::Limited => "limited",
            Self::Unlimited => "unlimited",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Elsewhere => "somebody else is flooded",
            Self::Limited => "a service with limits",
            Self::Unlimited => "a service without",
        }
    }
}

/// Everybody who takes part.
struct Site {
    flood: Flood,
    daemon: Daemon,
    clients: Clients,
    _steady: Backend,
}

impl Site {
    fn start() -> Self {
        let steady = Backend::named("steady");
        let flood = Flood::start();
        let flooded = |target: Target| {
            Service::new(target.key())
                .health("interval", "1s")
                .backend("sink", flood.sink)
        };
        let limited = flooded(Target::Limited)
            .limits("max_connections", 1000)
            .limits("accept_rate", "5000/s")
            .limits("max_per_source", 5)
            .limits("rate_per_source", "5/s")
            .timeout("idle", "2s");
        let config = Config::new()
            .admin("listen", "127.0.0.1:0")
            .log("sessions", "off")
            .service(Service::new("steady").backend("steady", steady.address()))
            .service(limited)
            .service(flooded(Target::Unlimited));
        let daemon = Daemon::start(&config);
        let steady_at = daemon.address("steady");
        let clients = Clients::start(CLIENTS, PAUSE, move |_, _| echoed(steady_at));
        Self {
            flood,
            daemon,
            clients,
            _steady: steady,
        }
    }

    /// Quiet, then a flood, then how long it takes to be over.
    fn flood(&mut self, target: Target, seconds: f64) -> Seen {
        // Where somebody else is flooded, its own clients come by a service all the same.
        let service = match target {
            Target::Elsewhere => Target::Unlimited.key(),
            Target::Limited | Target::Unlimited => target.key(),
        };
        let address = self.daemon.address(service);
        let regulars = Clients::start(REGULAR_CLIENTS, REGULAR_PAUSE, move |thread, turn| {
            greeted(Ipv4Addr::new(127, 199, thread, turn), address)
        });
        let quiet = Instant::now();
        thread::sleep(QUIET);
        let before = self.count(service);
        let (ticks, began) = (cpu_ticks(self.daemon.pid()), Instant::now());
        let flooded = match target {
            Target::Elsewhere => self.flood.sink,
            Target::Limited | Target::Unlimited => address,
        };
        let tried = self.flood.run(flooded, seconds);
        let ended = Instant::now();
        let ticks = cpu_ticks(self.daemon.pid()) - ticks;
        let after = self.count(service);
        // Whom the flood kept out is served again, and nothing is left of those who flooded.
        let mut client = connect(address).expect("it listens");
        client.write_all(b"?").expect("it is served");
        client.read_exact(&mut [0]).expect("it is served");
        drop(client);
        let api = self.daemon.api();
        eventually("nothing is left of the flood", || {
            let view: View = api.get("/v1/view").good();
            (view.process.sessions <= u64::from(CLIENTS + REGULAR_CLIENTS)).then_some(())
        });
        let cleared = ended.elapsed();
        let regulars = regulars.end();
        thread::sleep(AFTER.saturating_sub(ended.elapsed()));
        Seen {
            quiet,
            began,
            ended,
            tried,
            ticks,
            accepted: after[0] - before[0],
            refused: after[1] - before[1],
            cleared,
            regulars: within(&regulars, began, ended),
        }
    }

    /// Clients of a service so far: those who were accepted, and those of them who were refused.
    fn count(&self, service: &str) -> [u64; 2] {
        let view: View = self.daemon.api().get("/v1/view").good();
        let service = view.services.iter().find(|it| it.name == service);
        let service = service.expect("it is in the file");
        let accepted = service.listeners.iter().map(|it| it.accepted_total);
        let refused = service.refusals.iter().map(|it| it.refused_total);
        [accepted.sum(), refused.sum()]
    }
}

/// One flood.
struct Seen {
    quiet: Instant,
    began: Instant,
    ended: Instant,
    tried: u64,
    ticks: u64,
    accepted: u64,
    refused: u64,
    /// How long until whom the flood kept out was served, and nothing was left of it.
    cleared: Duration,
    regulars: Vec<Sample>,
}

/// What is told of one.
struct Row {
    tried: f64,
    accepted: f64,
    refused: f64,
    quiet: [f64; 2],
    flooded: [f64; 2],
    times: f64,
    /// From when on a second of sessions was as it should be, in milliseconds after the flood, …
    back: f64,
    /// … and when the flood had left nothing behind.
    gone: f64,
    cpu: f64,
    served: f64,
    own: [f64; 2],
}

impl Seen {
    /// Those of the other service's sessions that were before it.
    fn quiet(&self, samples: &[Sample]) -> Vec<Sample> {
        within(samples, self.quiet, self.began)
    }

    /// `samples` are the other service's sessions, and `quiet` those while nobody was flooded.
    fn row(&self, quiet: &[Sample], samples: &[Sample]) -> Row {
        let of = |from: Instant, to: Instant| within(samples, from, to);
        let busy = of(self.began, self.ended);
        let (least, most) = (quantile(quiet, 0.99), quantile(&busy, 0.99));
        let bound = least * 2;
        let step = Duration::from_millis(50);
        let calm = (0..).map(|steps| step * steps).find(|&after| {
            let from = self.ended + after;
            after > AFTER || quantile(&of(from, from + Duration::from_secs(1)), 0.99) <= bound
        });
        let back = calm.unwrap_or(AFTER);
        let well = |it: &&Sample| it.well && it.took <= GLADLY;
        let served = self.regulars.iter().filter(well).copied();
        let served = served.collect::<Vec<_>>();
        let seconds = (self.ended - self.began).as_secs_f64();
        let times = |samples: &[Sample]| [0.5, 0.99].map(|it| milliseconds(quantile(samples, it)));
        Row {
            tried: self.tried as f64 / seconds,
            accepted: self.accepted as f64 / seconds,
            refused: self.refused as f64 / seconds,
            quiet: times(quiet),
            flooded: times(&busy),
            times: most.as_secs_f64() / least.as_secs_f64(),
            back: milliseconds(back),
            gone: milliseconds(self.cleared),
            cpu: self.ticks as f64 / seconds,
            served: served.len() as f64 * 100.0 / self.regulars.len().max(1) as f64,
            own: times(&served),
        }
    }
}

/// The median of each column; of what counts, the least and the most as well.
fn row(rows: &[Row]) -> String {
    let sorted = |of: &dyn Fn(&Row) -> f64| {
        let mut all = rows.iter().map(of).collect::<Vec<_>>();
        all.sort_unstable_by(f64::total_cmp);
        all
    };
    let median = |of: &dyn Fn(&Row) -> f64| sorted(of)[rows.len() / 2];
    let most = |of: &dyn Fn(&Row) -> f64| sorted(of)[rows.len() - 1];
    let times = sorted(&|it| it.times);
    format!(
        "{:.0} | {:.0} | {:.0} | {:.2} · {:.2} ms | {:.2} · {:.2} ms | {:.2} ({:.2}–{:.2}) | {:.0} ms (at most {:.0}) | {:.0} ms (at most {:.0}) | {:.0} % of a core | {:.1} %, {:.2} · {:.1} ms",
        median(&|it| it.tried),
        median(&|it| it.accepted),
        median(&|it| it.refused),
        median(&|it| it.quiet[0]),
        median(&|it| it.quiet[1]),
        median(&|it| it.flooded[0]),
        median(&|it| it.flooded[1]),
        times[rows.len() / 2],
        times[0],
        times[rows.len() - 1],
        median(&|it| it.back),
        most(&|it| it.back),
        median(&|it| it.gone),
        most(&|it| it.gone),
        median(&|it| it.cpu),
        median(&|it| it.served),
        median(&|it| it.own[0]),
        median(&|it| it.own[1]),
    )
}

/// One session of a measured client.
#[derive(Clone, Copy)]
struct Sample {
    began: Instant,
    took: Duration,
    well: bool,
}

/// The sessions that began then.
fn within(samples: &[Sample], from: Instant, to: Instant) -> Vec<Sample> {
    let within = |it: &&Sample| it.began >= from && it.began < to;
    samples.iter().filter(within).copied().collect()
}

fn quantile(samples: &[Sample], quantile: f64) -> Duration {
    let mut all: Vec<_> = samples.iter().map(|it| it.took).collect();
    all.sort_unstable();
    let last = all.len().checked_sub(1);
    let index = last.map(|last| (last as f64 * quantile).round() as usize);
    index.map_or(Duration::ZERO, |index| all[index])
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Who is measured: sessions, one after the other.
struct Clients {
    over: Arc<AtomicBool>,
    samples: Arc<Mutex<Vec<Sample>>>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Clients {
    /// Each of `threads` has sessions with a `pause` between them; `session` is told which thread it is of, and
    /// a number that is another one each time for a while.
    fn start(
        threads: u8,
        pause: Duration,
        session: impl Fn(u8, u8) -> io::Result<bool> + Clone + Send + 'static,
    ) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let samples = Arc::<Mutex<Vec<Sample>>>::default();
        let threads = (0..threads).map(|thread| {
            let (over, samples) = (Arc::clone(&over), Arc::clone(&samples));
            let session = session.clone();
            thread::spawn(move || {
                for turn in (1..=250).cycle() {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = Instant::now();
                    let well = session(thread, turn).unwrap_or(false);
                    let took = began.elapsed();
                    samples.lock().unwrap().push(Sample { began, took, well });
                    thread::sleep(pause);
                }
            })
        });
        Self {
            threads: threads.collect(),
            over,
            samples,
        }
    }

    fn end(self) -> Vec<Sample> {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("a client does not panic");
        }
        std::mem::take(&mut *self.samples.lock().unwrap())
    }
}

/// One whole session: connect, greeting, 64 bytes there and back, a FIN each way.
fn echoed(address: SocketAddr) -> io::Result<bool> {
    let mut stream = connect(address)?;
    let name = read_name(&mut stream)?;
    let request: [u8; 64] = std::array::from_fn(|_| fastrand::u8(..));
    let mut reply = [0; 64];
    stream.write_all(&request)?;
    stream.read_exact(&mut reply)?;
    stream.shutdown(Shutdown::Write)?;
    Ok(stream.read(&mut [0])? == 0 && name == "steady" && reply == request)
}

/// A session of the flooded service, as far as it takes to know that it is served; then it is reset, because the
/// flooded backend ends none.
fn greeted(source: Ipv4Addr, address: SocketAddr) -> io::Result<bool> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_linger(Some(Duration::ZERO))?;
    socket.bind(&SocketAddr::new(source.into(), 0).into())?;
    socket.connect_timeout(&address.into(), PATIENCE)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0];
    TcpStream::from(socket).read_exact(&mut greeting)?;
    Ok(greeting == *b"!")
}
