//! What a flood comes from: a process of its own, which floods whom it is told to, and is the flooded service's
//! backend.
//!
//! It is to run when nobody else on its core wants to. SCHED_IDLE alone does not see to that: the fair scheduler of
//! newer kernels lets whoever has had more than its share wait for a thread that has had less, however little that
//! weighs, and for a whole tick then: 4 ms where there are 250 of them a second, which is more than the p99 to be
//! measured. So every thread yields after each connection, which gives up what it is owed.

use std::collections::VecDeque;
use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use socket2::{Domain, Socket, Type};

use crate::support::proc::dies_with_its_test;
use crate::support::{fresh_ip, raise_descriptor_limit};

/// In the environment of the generator's process.
const ROLE: &str = "BALLAST_FLOOD_ROLE";

/// Threads that connect, and connections that each holds before it resets the oldest.
const FLOODERS: u32 = 2;
const HELD: usize = 100;

/// Sources that come again and again.
const REGULARS: u32 = 1000;

/// Slow clients, and their sources.
const SLOW: usize = 500;
const SLOW_SOURCES: usize = 50;

/// What sched(7) calls the policy of those who run when nobody else wants to.
const SCHED_IDLE: &str = "5";

/// The generator's process.
pub struct Flood {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where the flooded backend is.
    pub sink: SocketAddr,
}

impl Flood {
    pub fn start() -> Self {
        raise_descriptor_limit();
        let mut command = Command::new("chrt");
        let mut child = dies_with_its_test(&mut command)
            .args(["--idle", "0"])
            .arg(env::current_exe().expect("this binary has a path"))
            .args([
                "--exact",
                "flood::generator::flood_process",
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
        // Otherwise it is measured how the generator and everybody else share the cores.
        assert_eq!(policy(child.id()), SCHED_IDLE, "what runs is left over");
        Self {
            child,
            input,
            output,
            sink,
        }
    }

    /// Floods `target` for so many `seconds` and tells, when that is over, how many connects were tried.
    pub fn run(&mut self, target: SocketAddr, seconds: f64) -> u64 {
        writeln!(self.input, "{target} {seconds}").expect("it listens");
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

/// By which the kernel lets a process run.
fn policy(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    // The second field is the name in parentheses, which may itself hold spaces; this is the 41st.
    let (_, rest) = stat.rsplit_once(')').expect("stat names the program");
    let field = rest.split_whitespace().nth(38);
    field.expect("proc_pid_stat(5)").to_owned()
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
    for line in io::stdin().lines().map_while(Result::ok) {
        let (target, seconds) = line.split_once(' ').unwrap();
        let target: SocketAddr = target.parse().unwrap();
        let until = Instant::now() + Duration::from_secs_f64(seconds.parse().unwrap());
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
        thread::yield_now();
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
            thread::yield_now();
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
            thread::yield_now();
        }
        thread::sleep(BEAT);
    }
}
