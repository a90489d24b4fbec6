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

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;

use crate::support::{Config, End, Pattern, Peer, RELAYS, Service};

/// How many faults there are.
const FAULTS: usize = 38;

/// The tests of each row, as `path::name`, the path being below `tests/` or from `src/` on.
fn rows(map: &str) -> BTreeMap<usize, Vec<&str>> {
    let cells = |line: &str| line.split('|').map(str::trim).count();
    map.lines()
        .filter_map(|line| {
            let number = line.strip_prefix("| ")?.split(' ').next()?.parse().ok()?;
            assert_eq!(cells(line), 6, "{line}");
            let tests = line.rsplit('|').nth(1).unwrap();
            Some((number, tests.split('`').skip(1).step_by(2).collect()))
        })
        .collect()
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
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(root.join("tests/faults.md")).unwrap();
    let rows = rows(&map);
    assert_eq!(rows.len(), FAULTS);
    for (number, tests) in rows {
        assert!((1..=FAULTS).contains(&number), "row {number}");
        assert!(!tests.is_empty(), "row {number} has no test");
        for test in tests {
            let (path, name) = test.split_once("::").unwrap();
            let folder = if path.starts_with("src/") {
                ""
            } else {
                "tests"
            };
            let file = root.join(folder).join(path).with_extension("rs");
            let source = fs::read_to_string(&file)
                .unwrap_or_else(|error| panic!("row {number}, {test}: {error}"));
            assert!(is_run(&source, name), "row {number}: no test {test}");
        }
    }
}

#[test]
fn a_test_that_is_ignored_or_none_counts_for_nothing() {
    let source =
        "#[test]\nfn good() {\n}\n#[test]\n#[ignore = \"slow\"]\nfn slow() {}\nfn none() {}\n";
    let run = ["good", "slow", "none", "absent"].map(|name| is_run(source, name));
    assert_eq!(run, [true, false, false, false]);
    let rows = rows("# x\n\n| # | a | b | c |\n|---|\n| 7 | a | b | `x::y`, `z::w` |\n");
    assert_eq!(rows[&7], ["x::y", "z::w"]);
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
