//! Who uses the site: threads that open one session after the other, each in its own way, and compare every
//! byte that comes back. Knows what may fail and what may not.

use std::collections::BTreeMap;
use std::fmt;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::site::{
    Door, FLOODED, FRAGILE, LISTED, MORTAL, NAMED, PATHED, PROXIED, QUEUED, REHEARSED, SHAPED,
    STABLE, Site,
};
use crate::talk::{Failure, Reading, echo, exchange, open, part, quit};

/// Besides [`STABLE`], the services whose servers are well.
const WELL: [&str; 5] = [LISTED, SHAPED, PATHED, NAMED, REHEARSED];

/// Sessions that each thread of holders has open.
const HELD: usize = 40;

/// Failures that are told one by one.
const TOLD: usize = 50;

/// Threads, by what they do. Between two sessions each pauses, so that all of them and the daemon leave a part
/// of a core to others.
const CREWS: [(Crew, usize); 8] = [
    (Crew::Visitor, 6),
    (Crew::Mover, 2),
    (Crew::Holder, 2),
    (Crew::Waiter, 14),
    (Crew::Proxy, 1),
    (Crew::Loose(FRAGILE), 3),
    (Crew::Loose(MORTAL), 2),
    (Crew::Loose(FLOODED), 1),
];

#[derive(Clone, Copy)]
enum Crew {
    /// Short sessions of all shapes where servers are well.
    Visitor,
    /// Megabytes.
    Mover,
    /// Sessions that live for seconds to minutes.
    Holder,
    /// More of them than there are places.
    Waiter,
    Proxy,
    /// Where servers fail.
    Loose(&'static str),
}

/// The load; it rests until [`Load::begin`].
#[derive(Clone)]
pub struct Load {
    shared: Arc<Shared>,
    seed: u64,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

struct Shared {
    shift: Mutex<Shift>,
    turn: Condvar,
    tally: Mutex<Tally>,
    /// Odd while the daemon is denied descriptors.
    starved: AtomicU64,
}

#[derive(Default)]
struct Shift {
    phase: Phase,
    /// Threads that are in a session.
    busy: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Resting,
    Working,
    Over,
}

/// What came of all sessions.
#[derive(Default)]
pub struct Tally {
    served: BTreeMap<&'static str, u64>,
    /// Failed as they may.
    excused: BTreeMap<&'static str, u64>,
    bytes: u64,
    wrong: Vec<String>,
    wrong_total: u64,
    /// Of short sessions where servers are well, since they were last taken.
    latencies: Vec<Duration>,
}

/// What was counted in an interval.
pub struct Interval {
    pub served: u64,
    pub excused: u64,
    pub bytes: u64,
    pub latencies: Vec<Duration>,
}

impl Load {
    pub fn new(seed: u64) -> Self {
        let shared = Shared {
            shift: Mutex::default(),
            turn: Condvar::new(),
            tally: Mutex::default(),
            starved: AtomicU64::new(0),
        };
        Self {
            shared: Arc::new(shared),
            seed,
            threads: Arc::default(),
        }
    }

    /// Starts the threads.
    pub fn begin(&self, site: &Site) {
        let services = [QUEUED, PROXIED, FRAGILE, MORTAL, FLOODED];
        let doors: BTreeMap<_, _> = (STABLE.into_iter().chain(WELL).chain(services))
            .map(|service| (service, site.door(service)))
            .collect();
        let doors = Arc::new(doors);
        let mut threads = lock(&self.threads);
        for (crew, count) in CREWS {
            for _ in 0..count {
                let number = threads.len() as u64;
                let member = Member {
                    shared: Arc::clone(&self.shared),
                    doors: Arc::clone(&doors),
                    rng: Rng::with_seed(self.seed.wrapping_mul(1000) + number),
                };
                threads.push(thread::spawn(move || member.work(crew)));
            }
        }
        drop(threads);
        self.go_on();
    }

    pub fn go_on(&self) {
        self.enter(Phase::Working);
    }

    /// Returns when the last session is over.
    pub fn rest(&self) {
        self.enter(Phase::Resting);
        let shift = lock(&self.shared.shift);
        let resting = self.shared.turn.wait_while(shift, |it| it.busy > 0);
        drop(resting.unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the threads.
    pub fn end(&self) -> Tally {
        self.enter(Phase::Over);
        for thread in lock(&self.threads).drain(..) {
            if thread.join().is_err() {
                lock(&self.shared.tally).wrong_is("a client panicked".to_owned());
            }
        }
        std::mem::take(&mut lock(&self.shared.tally))
    }

    /// For as long as `act` runs, new sessions may be refused everywhere.
    pub fn excuse(&self, act: impl FnOnce()) {
        self.shared.starved.fetch_add(1, Ordering::SeqCst);
        act();
        self.shared.starved.fetch_add(1, Ordering::SeqCst);
    }

    /// What was counted since the last look; `before` is what was served and excused by then.
    pub fn interval(&self, before: &mut (u64, u64, u64)) -> Interval {
        let mut tally = lock(&self.shared.tally);
        let total = |counts: &BTreeMap<_, u64>| counts.values().sum::<u64>();
        let now = (total(&tally.served), total(&tally.excused), tally.bytes);
        let was = std::mem::replace(before, now);
        let mut latencies = std::mem::take(&mut tally.latencies);
        latencies.sort_unstable();
        Interval {
            served: now.0 - was.0,
            excused: now.1 - was.1,
            bytes: now.2 - was.2,
            latencies,
        }
    }

    fn enter(&self, phase: Phase) {
        lock(&self.shared.shift).phase = phase;
        self.shared.turn.notify_all();
    }
}

impl Tally {
    /// What should not have happened.
    pub fn wrong(&self) -> Vec<String> {
        let mut wrong = self.wrong.clone();
        if self.wrong_total > TOLD as u64 {
            wrong.push(format!("{} failed sessions in all", self.wrong_total));
        }
        wrong
    }

    fn served(&mut self, service: &'static str, bytes: u64) {
        *self.served.entry(service).or_default() += 1;
        self.bytes += bytes;
    }

    fn wrong_is(&mut self, what: String) {
        self.wrong_total += 1;
        if self.wrong.len() < TOLD {
            println!("wrong: {what}");
            self.wrong.push(what);
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} {:>10}  sessions of", "served", "excused")?;
        for (service, served) in &self.served {
            let excused = self.excused.get(service).copied().unwrap_or_default();
            writeln!(f, "{served:>10} {excused:>10}  {service}")?;
        }
        write!(f, "{:>10} MiB compared", self.bytes >> 20)
    }
}

/// One thread.
struct Member {
    shared: Arc<Shared>,
    doors: Arc<BTreeMap<&'static str, Door>>,
    rng: Rng,
}

impl Member {
    fn work(mut self, crew: Crew) {
        let mut held = Vec::new();
        while self.clock_in() {
            while self.is_working() {
                self.step(crew, &mut held);
                let most = match crew {
                    Crew::Holder => 40,
                    Crew::Visitor => 60,
                    Crew::Proxy | Crew::Loose(_) => 100,
                    Crew::Waiter => 600,
                    Crew::Mover => 2500,
                };
                let pause = Duration::from_millis(self.rng.u64(1..most));
                self.pause(pause);
            }
            for one in held.drain(..) {
                self.part_from(one);
            }
            lock(&self.shared.shift).busy -= 1;
            self.shared.turn.notify_all();
        }
    }

    /// Waits while the load rests; `false` once it is over.
    fn clock_in(&self) -> bool {
        let resting = |shift: &mut Shift| shift.phase == Phase::Resting;
        let shift = lock(&self.shared.shift);
        let mut shift =
            (self.shared.turn.wait_while(shift, resting)).unwrap_or_else(PoisonError::into_inner);
        let working = shift.phase == Phase::Working;
        shift.busy += usize::from(working);
        working
    }

    fn is_working(&self) -> bool {
        lock(&self.shared.shift).phase == Phase::Working
    }

    fn pause(&self, pause: Duration) {
        let working = |shift: &mut Shift| shift.phase == Phase::Working;
        let shift = lock(&self.shared.shift);
        drop(self.shared.turn.wait_timeout_while(shift, pause, working));
    }

    fn step(&mut self, crew: Crew, held: &mut Vec<Held>) {
        match crew {
            Crew::Visitor => self.visit(),
            Crew::Holder => self.hold(held),
            Crew::Mover => {
                let (service, length) = (self.any_well(), self.rng.u64(4 << 20..24 << 20));
                self.one(service, |rng, stream| {
                    echo(rng, stream, length, Reading::Whole)
                });
            }
            Crew::Waiter => {
                self.one(QUEUED, |rng, stream| {
                    exchange(rng, stream)?;
                    thread::sleep(Duration::from_millis(rng.u64(20..120)));
                    exchange(rng, stream)?;
                    part(stream)
                });
            }
            Crew::Proxy => {
                self.one(PROXIED, |rng, stream| {
                    let length = rng.u64(1..100_000);
                    echo(rng, stream, length, Reading::Whole)
                });
            }
            Crew::Loose(service) => {
                self.one(service, |rng, stream| {
                    exchange(rng, stream)?;
                    thread::sleep(Duration::from_millis(rng.u64(0..60)));
                    let length = rng.u64(1..100_000);
                    echo(rng, stream, length, Reading::Whole)
                });
            }
        }
    }

    fn any_stable(&mut self) -> &'static str {
        STABLE[self.rng.usize(..STABLE.len())]
    }

    /// Half of them stable.
    fn any_well(&mut self) -> &'static str {
        match self.rng.bool() {
            true => self.any_stable(),
            false => WELL[self.rng.usize(..WELL.len())],
        }
    }

    /// One short session in one of many shapes.
    fn visit(&mut self) {
        let service = self.any_well();
        let shape = self.rng.u8(..100);
        let began = Instant::now();
        let served = self.one(service, |rng, stream| match shape {
            0..80 => {
                let length = rng.u64(1..4096);
                echo(rng, stream, length, Reading::Whole)
            }
            80..92 => {
                let length = rng.u64(4096..512 << 10);
                echo(rng, stream, length, Reading::Whole)
            }
            92..96 => {
                let length = rng.u64(1..128 << 10);
                echo(rng, stream, length, Reading::Slow)
            }
            _ => quit(rng, stream),
        });
        if served && shape < 80 && STABLE.contains(&service) {
            lock(&self.shared.tally).latencies.push(began.elapsed());
        }
    }

    /// Opens a session that stays, or uses or ends one that has.
    fn hold(&mut self, held: &mut Vec<Held>) {
        if held.len() < HELD {
            let (service, began) = (self.any_well(), Instant::now());
            let starved = self.shared.starved.load(Ordering::SeqCst);
            match open(service, &self.doors[service], &mut self.rng) {
                Ok(stream) => held.push(Held {
                    service,
                    stream,
                    until: began + Duration::from_secs_f64(self.rng.f64() * self.rng.f64() * 600.0),
                }),
                Err(failure) => self.failed(service, starved, failure),
            }
            return;
        }
        let index = self.rng.usize(..held.len());
        if held[index].until <= Instant::now() {
            let one = held.swap_remove(index);
            return self.part_from(one);
        }
        // A running session needs no further descriptor: nothing excuses its end.
        if let Err(failure) = exchange(&mut self.rng, &mut held[index].stream) {
            let one = held.swap_remove(index);
            lock(&self.shared.tally).wrong_is(format!("held at {}: {failure}", one.service));
        }
    }

    fn part_from(&self, mut held: Held) {
        let outcome = part(&mut held.stream);
        let mut tally = lock(&self.shared.tally);
        match outcome {
            Ok(moved) => tally.served(held.service, moved),
            Err(failure) => tally.wrong_is(format!("held at {}: {failure}", held.service)),
        }
    }

    /// One session from its connect to its end.
    fn one(
        &mut self,
        service: &'static str,
        talk: impl FnOnce(&mut Rng, &mut TcpStream) -> Result<u64, Failure>,
    ) -> bool {
        let starved = self.shared.starved.load(Ordering::SeqCst);
        let opened = open(service, &self.doors[service], &mut self.rng);
        let outcome = opened.and_then(|mut stream| talk(&mut self.rng, &mut stream));
        let served = outcome.is_ok();
        match outcome {
            Ok(moved) => lock(&self.shared.tally).served(service, moved),
            Err(failure) => self.failed(service, starved, failure),
        }
        served
    }

    /// A session that began when `starved` was counted has failed.
    fn failed(&self, service: &'static str, starved: u64, failure: Failure) {
        let now = self.shared.starved.load(Ordering::SeqCst);
        let denied = starved % 2 == 1 || now != starved;
        let excused = match &failure {
            Failure::Broken(_) => denied || [FRAGILE, MORTAL, FLOODED].contains(&service),
            // The kernel of a server that was killed says so, and Ballast passes it on.
            // A session that breaks off at a path cannot be told from one that ends.
            Failure::Early(_) => service == MORTAL || denied && service == PATHED,
            Failure::Wrong(_) => false,
        };
        let mut tally = lock(&self.shared.tally);
        if excused {
            *tally.excused.entry(service).or_default() += 1;
        } else {
            tally.wrong_is(format!("{service}: {failure}"));
        }
    }
}

struct Held {
    service: &'static str,
    stream: TcpStream,
    until: Instant,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
