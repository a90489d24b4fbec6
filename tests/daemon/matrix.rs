//! The faults that Ballast is to survive: `tests/faults.md` says which they are, what is expected, and
//! which tests hold it; this file holds that map complete. Below it are the tests that belong to no other
//! file: over wires that ill-treat what they carry, with calls that fail on demand, and in crowds.

mod calls;
mod closing;
mod crowds;
mod files;
mod headers;
mod hosts;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;

use crate::support::{Config, End, Pattern, Peer, RELAYS, Service};

/// How many faults there are.
const FAULTS: usize = 38;

/// What the map says of a fault.
struct Row<'a> {
    /// Who race, where two do.
    race: &'a str,
    /// As `path::name`, the path being below `tests/` or from `src/` on.
    tests: Vec<&'a str>,
}

fn rows(map: &str) -> BTreeMap<usize, Row<'_>> {
    map.lines()
        .filter_map(|line| {
            let number = line.strip_prefix("| ")?.split(' ').next()?.parse().ok()?;
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let [_, _, _, _, race, tests, _] = cells[..] else {
                panic!("{line}");
            };
            let tests = tests.split('`').skip(1).step_by(2).collect();
            Some((number, Row { race, tests }))
        })
        .collect()
}

/// Of this checkout.
fn map() -> String {
    fs::read_to_string(root().join("tests/faults.md")).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether a test of that name is in `source`, and is run.
fn is_run(source: &str, name: &str) -> bool {
    let head = format!("fn {name}()");
    let mut attributes = Vec::new();
    for line in source.lines().map(str::trim) {
        if line.starts_with("#[") {
            attributes.push(line);
        } else if line.starts_with(&head) {
            return attributes.contains(&"#[test]")
                && !attributes.iter().any(|it| it.starts_with("#[ignore"));
        } else {
            attributes.clear();
        }
    }
    false
}

#[test]
fn every_fault_has_a_test_that_is_run() {
    let map = map();
    let rows = rows(&map);
    assert_eq!(rows.len(), FAULTS);
    for (number, Row { tests, .. }) in rows {
        assert!((1..=FAULTS).contains(&number), "row {number}");
        assert!(!tests.is_empty(), "row {number} has no test");
        for test in tests {
            let (path, name) = test.split_once("::").unwrap();
            let folder = if path.starts_with("src/") {
                ""
            } else {
                "tests"
            };
            let file = root().join(folder).join(path).with_extension("rs");
            let source = fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("row {number}, {test}: {error}"));
            assert!(is_run(&source, name), "row {number}: no test {test}");
        }
    }
}

#[test]
fn whatever_races_is_what_can_be_run_many_times_in_a_row() {
    let map = map();
    let mut racy = BTreeSet::new();
    for (number, Row { race, tests }) in rows(&map) {
        if race.is_empty() {
            continue;
        }
        assert!(race.contains(" and "), "row {number}: it takes two to race");
        for test in tests {
            let inside = test.strip_prefix("daemon/");
            let inside = inside.unwrap_or_else(|| panic!("row {number}: {test} is run once"));
            racy.insert(inside.replace('/', "::"));
        }
    }
    let told = Command::new(root().join("tests/run"))
        .args(["--racy", "0"])
        .output();
    let told = String::from_utf8(told.unwrap().stdout).unwrap();
    let told: BTreeSet<_> = told.lines().map(str::to_owned).collect();
    assert!(!racy.is_empty());
    assert_eq!(told, racy);
}

#[test]
fn a_test_that_is_ignored_or_none_counts_for_nothing() {
    let source =
        "#[test]\nfn good() {\n}\n#[test]\n#[ignore = \"slow\"]\nfn slow() {}\nfn none() {}\n";
    let run = ["good", "slow", "none", "absent"].map(|name| is_run(source, name));
    assert_eq!(run, [true, false, false, false]);
    let rows = rows("# x\n\n| # | a |\n|---|\n| 7 | a | b | c and d | `x::y`, `z::w` |\n");
    assert_eq!(rows[&7].race, "c and d");
    assert_eq!(rows[&7].tests, ["x::y", "z::w"]);
}

/// One service for each way to relay, each with a backend of its own.
fn each_backend(backends: [SocketAddr; 3], shape: impl Fn(Service) -> Service) -> Config {
    let named = RELAYS.into_iter().zip(backends);
    named.fold(Config::new(), |config, (relay, backend)| {
        let service = Service::new(relay).relay(relay).backend("only", backend);
        config.service(shape(service))
    })
}

/// Runs `scene` for each way to relay, all at a time so that none makes the others wait.
fn at_once<T: Send>(things: impl IntoIterator<Item = (String, T)>, scene: impl Fn(T) + Sync) {
    let scene = &scene;
    thread::scope(|threads| {
        for (name, thing) in things {
            thread::Builder::new()
                .name(name)
                .spawn_scoped(threads, move || scene(thing))
                .expect("a thread");
        }
    });
}

/// A thread that sends `pattern` and then a FIN.
fn send(stream: &TcpStream, pattern: &Pattern) -> thread::JoinHandle<io::Result<()>> {
    let mut stream = stream.try_clone().expect("descriptors");
    let pattern = pattern.clone();
    thread::spawn(move || {
        pattern.send(&mut stream)?;
        stream.shutdown(Shutdown::Write)
    })
}

/// As much each way, and the session goes on.
fn exchange(client: &mut TcpStream, backend: &mut TcpStream, length: u64) {
    let (up, down) = (
        Pattern::new(length, length),
        Pattern::new(length + 1, length),
    );
    let sender = |stream: &TcpStream| stream.try_clone().expect("descriptors");
    let (mut from_client, mut from_backend) = (sender(client), sender(backend));
    thread::scope(|threads| {
        threads.spawn(|| up.send(&mut from_client).expect("the connection stands"));
        threads.spawn(|| down.send(&mut from_backend).expect("the connection stands"));
        threads.spawn(|| up.expect(backend));
        down.expect(client);
    });
}

/// As much each way, and then a FIN each way.
fn whole_session((mut client, mut backend): (TcpStream, TcpStream), length: u64) {
    exchange(&mut client, &mut backend, length);
    client.half_close();
    assert_eq!(backend.end(), End::Fin);
    backend.half_close();
    assert_eq!(client.end(), End::Fin);
}
