//! The soak: for minutes or hours everything at once, short and long sessions, bulk, floods, dying and
//! freezing servers, names that lead elsewhere, sockets that vanish, limits of all kinds, reloads good and bad, changes by an operator, abuse of the admin API, a lack of
//! descriptors; and then the question whether everything is back where it was.
//!
//! ```sh
//! BALLAST_SOAK_MINUTES=30 cargo test --release --test soak -- --ignored --nocapture after_everything
//! ```
//!
//! | variable | what | default |
//! |---|---|---|
//! | `BALLAST_SOAK_MINUTES` | how long, after the warm-up of one round of every trouble | 1 |
//! | `BALLAST_SOAK_SEED` | of everything that is left to chance | 1 |
//! | `BALLAST_BINARY` | the daemon | the one that cargo built |
//!
//! It passes when
//!
//! - **every byte** was right, and in every session: what a client gets back is compared as it comes, and a FIN
//!   comes after the last byte or not at all. Where servers are well, no session may fail even visibly, whatever
//!   happens beside it; while the daemon is denied descriptors it may refuse new ones;
//! - **every WARN and ERROR** in the log is on the list of [`explained`], which says what we did to cause it;
//! - **at rest**, with the load gone, sessions, sessions in flight at each backend, clients in queues and pipes are
//!   zero, and descriptors no more than before the first client, threads no more than after the warm-up;
//! - **memory** at rest is at most a tenth and 2 MiB more than after the warm-up: the first rounds make
//!   buffers and tables that stay, and what grows after that is a leak;
//! - SIGTERM ends it with exit code 0, no session closed and no socket left at its path.
//!
//! Where root runs it, it has a network of its own, in which TCP Fast Open is on; for others it takes part as far as
//! `net.ipv4.tcp_fastopen` allows.
//!
//! The curves, a row for every five seconds, are in `target/soak/`: `soak.csv`, `soak.svg`, and `log.txt` with
//! the lines above INFO.
//!
//! Read [`site`] for what runs, [`load`] for who uses it and [`talk`] for how, [`trouble`] for what is done to it, [`watch`] for
//! what is measured. [`flood`] is a measurement of its own.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap is a failed test, and nothing outside can reach into a test"
)]

#[path = "../support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "the soak needs a part of it")]
mod support;

mod curves;
mod explained;
mod flood;
mod load;
mod site;
mod talk;
mod trouble;
mod watch;

use std::env;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use load::Load;
use site::Site;
use support::{Signal, netns};
use trouble::Troubles;
use watch::{Mark, Watch};

/// How often the load goes away, so that what is left can be seen.
const BETWEEN_RESTS: Duration = Duration::from_secs(5 * 60);

/// Growth of memory at rest that is no leak: a share of what there was, and what an allocator may hold back.
const GROWTH_PERCENT: u64 = 10;
const GROWTH_BYTES: u64 = 2 << 20;

#[test]
#[ignore = "minutes to hours: run by hand, see the head of this file"]
fn after_everything_at_once_everything_is_back_where_it_was() {
    if !netns::is_alone() && rustix::process::geteuid().is_root() {
        let body = "after_everything_at_once_everything_is_back_where_it_was";
        let status = netns::alone(body).status().unwrap();
        return assert!(status.success(), "{status}");
    }
    if netns::is_alone() {
        netns::sysctl("net.ipv4.tcp_fastopen", "3");
    }
    let minutes: f64 = from_environment("BALLAST_SOAK_MINUTES", 1.0);
    let seed: u64 = from_environment("BALLAST_SOAK_SEED", 1);
    println!("soak: {minutes} minutes, seed {seed}");
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/soak");
    fs::create_dir_all(&out).unwrap();

    let mut site = Site::start();
    let load = Load::new(seed);
    let watch = Watch::start(&site, &load, &out.join("soak.csv"));
    let mut troubles = Troubles::new(seed);
    let mut rests = vec![watch.rest(&site, "before the first client", None)];

    load.begin(&site);
    troubles.round(&mut site, &load, &watch, None);
    rests.push(watch.rest(&site, "after the warm-up", rests.first()));

    let end = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    while Instant::now() < end {
        load.go_on();
        let next_rest = end.min(Instant::now() + BETWEEN_RESTS);
        while Instant::now() < next_rest {
            troubles.round(&mut site, &load, &watch, Some(next_rest));
        }
        rests.push(watch.rest(&site, "between", rests.first()));
    }
    watch.end();
    let sessions = load.end();
    site.daemon.signal(Signal::TERM);
    let closed = site.daemon.wait_until_stopped();

    let mut wrong = judge(&rests);
    wrong.extend(sessions.wrong());
    if closed > 0 {
        wrong.push(format!("{closed} sessions were left at the stop"));
    }
    let left = site.files.sockets_left();
    if !left.is_empty() {
        wrong.push(format!("sockets were left behind: {left:?}"));
    }
    wrong.extend(explained::account(&site, &out.join("log.txt")));
    curves::draw(&out.join("soak.csv"), &out.join("soak.svg")).unwrap();

    println!("{sessions}");
    for rest in &rests {
        println!("{rest}");
    }
    println!("curves: {}", out.join("soak.svg").display());
    assert!(wrong.is_empty(), "seed {seed}:\n  {}", wrong.join("\n  "));
    println!("soak passed");
}

/// What is not back where it was: the first is from before the load, the second from after the warm-up.
fn judge(rests: &[Mark]) -> Vec<String> {
    let mut wrong = Vec::new();
    for rest in &rests[1..] {
        let busy = [
            ("sessions", rest.sessions),
            ("sessions in flight", rest.in_flight),
            ("clients in queues", rest.waiting),
            ("pipes", rest.pipes),
        ];
        for (what, count) in busy.into_iter().filter(|(_, count)| *count > 0) {
            wrong.push(format!("{}: {count} {what} are left", rest.when));
        }
        for (what, now, once) in [
            ("descriptors", rest.descriptors, rests[0].descriptors),
            // That of the alerts starts with the first of them.
            ("threads", rest.threads, rests[1].threads),
        ] {
            if now > once {
                wrong.push(format!("{}: {now} {what}, once {once}", rest.when));
            }
        }
    }
    let (warm, last) = (&rests[1], &rests[rests.len() - 1]);
    let most = warm.resident + warm.resident * GROWTH_PERCENT / 100 + GROWTH_BYTES;
    if last.resident > most {
        let (last, warm) = (last.resident >> 10, warm.resident >> 10);
        wrong.push(format!("memory: {last} KiB, {warm} KiB after the warm-up"));
    }
    wrong
}

fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    let Ok(text) = env::var(name) else {
        return default;
    };
    text.parse()
        .unwrap_or_else(|_| panic!("{name}: {text:?} is no number"))
}
