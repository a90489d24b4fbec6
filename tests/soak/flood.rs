//! A measurement: what a flood of one service costs the sessions of another, and how soon it is over.
//!
//! ```sh
//! cargo test --release --test soak -- --ignored --nocapture what_a_flood_costs
//! ```
//!
//! `BALLAST_FLOOD_RATE` is how many connects a second are tried (20000), `BALLAST_FLOOD_SECONDS` how long (8),
//! `BALLAST_FLOOD_TARGET` which of the rows below is wanted, if not all: `elsewhere`, `limited`, `unlimited`. Half
//! of them come from a thousand sources, the other half each from another one; besides, slow clients from
//! fifty sources hold hundreds of connections by a byte now and then. The generator and the flooded service's
//! backend are a process of their own that runs when nobody else on its core wants to (SCHED_IDLE; nice 19 would
//! still be left to finish its slice while others wait for milliseconds). So they take little from the daemon
//! and the measured clients, as if they were elsewhere; but what the kernel does for a connect on loopback it
//! does at once, in the name of whoever asks, and nobody comes in between.
//!
//! The flood is met three times: by somebody else on the same machine, which is what the generator and the kernel
//! cost these two cores without any doing of Ballast's; by a service with `[service.limits]`; and by one without.
//! How clients of the flooded service itself fare who come now and then, each from a source of its own, is in the
//! last column: how many are served within a second, and how soon. What answers them is the flooded backend,
//! which runs when nobody else wants to.

use std::collections::VecDeque;
use std::env;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ballast::api::View;
use fastrand::Rng;
use socket2::{Domain, Socket, Type};

use crate::support::proc::{cpu_ticks, dies_with_its_test};
use crate::support::{
    Backend, Config, Daemon, Service, connect, eventually, fresh_ip, raise_descriptor_limit,
    read_name,
};

/// Threads of measured clients, and the pause of each between two sessions.
const CLIENTS: u8 = 2;
const PAUSE: Duration = Duration::from_millis(3);

/// The same of those who want to be served by the flooded service, how long they wait to be, and for how long
/// they would gladly.
const REGULAR_CLIENTS: u8 = 4;
const REGULAR_PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(3);
const GLADLY: Duration = Duration::from_secs(1);

/// Before the flood, and after it.
const QUIET: Duration = Duration::from_secs(6);
const AFTER: Duration = Duration::from_secs(4);

/// In the environment of the generator's process: where to, how often, how long.
const ROLE: &str = "BALLAST_FLOOD_ROLE";

/// Threads that connect, and connections that each holds before it resets the oldest.
const FLOODERS: u32 = 2;
const HELD: usize = 100;

/// Sources that come again and again.
const REGULARS: u32 = 1000;

/// Slow clients, and their sources.
const SLOW: usize = 500;
const SLOW_SOURCES: usize = 50;

#[test]
#[ignore = "a measurement: run by hand on an idle machine, see the head of this file"]
fn what_a_flood_costs_the_sessions_of_another_service() {
    println!(
        "| | connects/s | accepted/s | refused/s | quiet p50 · p99 | flooded p50 · p99 | times | failed | back within | CPU of the daemon | its own: served, p50 · p99 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    let wanted = env::var("BALLAST_FLOOD_TARGET").ok();
    for target in [Target::Elsewhere, Target::Limited, Target::Unlimited] {
        let name = format!("{target:?}").to_lowercase();
        if wanted.as_ref().is_none_or(|wanted| *wanted == name) {
            measure(target);
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// The backend itself.
    Elsewhere,
    Limited,
    Unlimited,
}

/// One session of a measured client.
#[derive(Clone, Copy)]
struct Sample {
    began: Instant,
    took: Duration,
    well: bool,
}

fn measure(target: Target) {
    let steady = Backend::named("steady");
    let mut flood = Flood::start();
    let mut flooded = Service::new("flooded")
        .health("interval", "1s")
        .backend("sink", flood.sink);
    if target == Target::Limited {
        flooded = flooded
            .limits("max_connections", 1000)
            .limits("accept_rate", "5000/s")
            .limits("max_per_source", 5)
            .limits("rate_per_source", "5/s")
            .timeout("idle", "2s");
    }
    let config = Config::new()
        .admin("listen", "127.0.0.1:0")
        .log("sessions", "off")
        .service(Service::new("steady").backend("steady", steady.address()))
        .service(flooded);
    let daemon = Daemon::start(&config);
    let (steady_at, flooded_at) = (daemon.address("steady"), daemon.address("flooded"));
    let clients = Clients::start(CLIENTS, PAUSE, move |_, _| echoed(steady_at));
    let regulars = Clients::start(REGULAR_CLIENTS, REGULAR_PAUSE, move |thread, turn| {
        greeted(Ipv4Addr::new(127, 199, thread, turn), flooded_at)
    });
    thread::sleep(QUIET);
    let (ticks, began) = (cpu_ticks(daemon.pid()), Instant::now());
    let tried = flood.run(match target {
        Target::Elsewhere => flood.sink,
        Target::Limited | Target::Unlimited => flooded_at,
    });
    let ended = Instant::now();
    let ticks = cpu_ticks(daemon.pid()) - ticks;
    let view: View = daemon.api().get("/v1/view").good();
    let flooded = view.services.iter().find(|it| it.name == "flooded");
    let flooded = flooded.expect("it is in the file");
    let accepted: u64 = flooded.listeners.iter().map(|it| it.accepted_total).sum();
    let refused: u64 = flooded.refusals.iter().map(|it| it.refused_total).sum();
    // Whom the flood kept out is served again, and nothing is left of those who flooded.
    let api = daemon.api();
    let mut client = connect(flooded_at).expect("it listens");
    client.write_all(b"?").expect("it is served");
    client.read_exact(&mut [0]).expect("it is served");
    drop(client);
    eventually("nothing is left of the flood", || {
        let view: View = api.get("/v1/view").good();
        (view.process.sessions <= u64::from(CLIENTS + REGULAR_CLIENTS)).then_some(())
    });
    let cleared = ended.elapsed();
    thread::sleep(AFTER.saturating_sub(cleared));
    let samples = clients.end();
    let regulars = within(&regulars.end(), began, ended);
    let served = |it: &&Sample| it.well && it.took <= GLADLY;
    let served = regulars.iter().filter(served).copied().collect::<Vec<_>>();

    let of = |from: Instant, to: Instant| within(&samples, from, to);
    let quiet = of(
        began.checked_sub(QUIET).unwrap() + Duration::from_secs(1),
        began,
    );
    let busy = of(began, ended);
    let (least, most) = (quantile(&quiet, 0.99), quantile(&busy, 0.99));
    let bound = least * 2;
    // From when on a second of sessions is as it should be.
    let step = Duration::from_millis(50);
    let calm = (0..).map(|steps| step * steps).find(|&after| {
        let from = ended + after;
        after > AFTER || quantile(&of(from, from + Duration::from_secs(1)), 0.99) <= bound
    });
    let back = calm.unwrap_or(AFTER).max(cleared);
    let lost = samples.iter().filter(|it| !it.well).count();
    let seconds = (ended - began).as_secs_f64();
    println!(
        "| {} | {:.0} | {:.0} | {:.0} | {} · {} | {} · {} | {:.2} | {lost} of {} | {} | {:.0} % of a core | {:.1} %, {} · {} |",
        match target {
            Target::Elsewhere => "somebody else is flooded",
            Target::Limited => "a service with limits",
            Target::Unlimited => "a service without",
        },
        tried as f64 / seconds,
        accepted as f64 / seconds,
        refused as f64 / seconds,
        milliseconds(quantile(&quiet, 0.5)),
        milliseconds(least),
        milliseconds(quantile(&busy, 0.5)),
        milliseconds(most),
        most.as_secs_f64() / least.as_secs_f64(),
        samples.len(),
        milliseconds(back),
        ticks as f64 / seconds,
        served.len() as f64 * 100.0 / regulars.len().max(1) as f64,
        milliseconds(quantile(&served, 0.5)),
        milliseconds(quantile(&served, 0.99)),
    );
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

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1e3)
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

/// The generator's process.
struct Flood {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    sink: SocketAddr,
}

impl Flood {
    fn start() -> Self {
        raise_descriptor_limit();
        let mut command = Command::new("chrt");
        let mut child = dies_with_its_test(&mut command)
            .args(["--idle", "0"])
            .arg(env::current_exe().expect("this binary has a path"))
            .args([
                "--exact",
                "flood::flood_process",
                "--ignored",
                "--nocapture",
            ])
            .env(ROLE, "flood")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("chrt is in util-linux");
        let input = child.stdin.take().expect("a pipe");
        let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
        let sink = said(&mut output, "sink at ").parse().expect("an address");
        Self {
            child,
            input,
            output,
            sink,
        }
    }

    /// Floods `target` and tells, when that is over, how many connects were tried.
    fn run(&mut self, target: SocketAddr) -> u64 {
        writeln!(self.input, "{target}").expect("it listens");
        let tried = said(&mut self.output, "flooded ");
        tried.parse().expect("a number")
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The rest of the first line that begins like this.
fn said(output: &mut impl BufRead, beginning: &str) -> String {
    output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.strip_prefix(beginning)?.to_owned()))
        .expect("it says so")
}

#[test]
#[ignore = "not a test: what a flood comes from"]
fn flood_process() {
    if env::var(ROLE).is_err() {
        return;
    }
    raise_descriptor_limit();
    let sink = TcpListener::bind((fresh_ip(), 0)).unwrap();
    // The test harness may have left its own words on the line.
    println!("\nsink at {}", sink.local_addr().unwrap());
    thread::spawn(move || swallow(&sink));
    let rate: f64 = crate::from_environment("BALLAST_FLOOD_RATE", 20_000.0);
    let seconds: f64 = crate::from_environment("BALLAST_FLOOD_SECONDS", 8.0);
    for line in io::stdin().lines().map_while(Result::ok) {
        let target: SocketAddr = line.parse().unwrap();
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        let tried = AtomicU64::new(0);
        thread::scope(|threads| {
            threads.spawn(|| hold_slowly(target, until));
            for number in 0..FLOODERS {
                let tried = &tried;
                threads.spawn(move || {
                    let rate = rate / f64::from(FLOODERS);
                    tried.fetch_add(storm(target, until, rate, number), Ordering::Relaxed);
                });
            }
        });
        println!("flooded {}", tried.into_inner());
        io::stdout().flush().unwrap();
    }
}

/// The flooded backend: greets, and holds the latest.
fn swallow(sink: &TcpListener) {
    const KEPT: usize = 4000;
    let mut kept = VecDeque::new();
    while let Ok((mut stream, _)) = sink.accept() {
        // Whoever it was may be gone.
        stream.write_all(b"!").ok();
        kept.push_back(stream);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}

/// Connects at `rate`, and resets each connection a while later.
fn storm(target: SocketAddr, until: Instant, rate: f64, number: u32) -> u64 {
    let mut rng = Rng::with_seed(number.into());
    let mut held = VecDeque::new();
    let mut tried = 0;
    let began = Instant::now();
    while Instant::now() < until {
        let due = (began.elapsed().as_secs_f64() * rate) as u64;
        while tried < due {
            let source = if tried % 2 == 0 {
                let regular = rng.u32(..REGULARS);
                Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(127, 240, 0, 1)) + regular)
            } else {
                Ipv4Addr::new(127, rng.u8(200..240), rng.u8(..), rng.u8(1..255))
            };
            tried += 1;
            held.extend(begin(source, target));
            if held.len() > HELD {
                held.pop_front();
            }
            if tried % 64 == 0 && Instant::now() >= until {
                break;
            }
        }
        thread::sleep(Duration::from_micros(200));
    }
    tried
}

/// A connection that is about to be, and is reset when it is dropped.
fn begin(source: Ipv4Addr, target: SocketAddr) -> Option<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.set_linger(Some(Duration::ZERO)).ok()?;
    socket
        .bind(&SocketAddr::new(source.into(), 0).into())
        .ok()?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => None,
        _ => Some(socket),
    }
}

/// Slowloris: connections that say a byte now and then, and are opened again when they are cut.
fn hold_slowly(target: SocketAddr, until: Instant) {
    const BEAT: Duration = Duration::from_millis(250);
    let mut slow: Vec<Option<TcpStream>> = (0..SLOW).map(|_| None).collect();
    while Instant::now() < until {
        for (index, place) in slow.iter_mut().enumerate() {
            let lives = place.as_mut().is_some_and(|it| match it.write(b"x") {
                Ok(_) => true,
                Err(error) => error.kind() == ErrorKind::WouldBlock,
            });
            if !lives {
                let host = u8::try_from(index % SLOW_SOURCES).expect("fifty") + 1;
                let opened = begin(Ipv4Addr::new(127, 250, 0, host), target);
                *place = opened.map(Socket::into);
            }
        }
        thread::sleep(BEAT);
    }
}
