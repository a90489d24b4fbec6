//! Files that cannot be read or are enormous, and requests that are no requests: bytes cross all the while.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use super::exchange;
use crate::support::{
    Backend, Config, Daemon, Held, Launch, Meeting, RELAYS, Service, Storm, Stranger, echo_once,
    words,
};

#[test]
fn a_file_that_cannot_be_read_changes_nothing() {
    let Some(user) = Stranger::new() else {
        return;
    };
    let backend = Backend::named("only");
    let config = Config::of_each_relay(|service| service.backend("only", backend.address()));
    let daemon = Launch::new().run_as(user).start(&config);
    let mut held = RELAYS.map(|relay| Held::open(daemon.address(relay)));
    let file = daemon.beside("ballast.toml");
    let away = daemon.beside("away");
    let still_serves = |held: &mut [Held]| {
        held.iter_mut().for_each(Held::still_works);
        for relay in RELAYS {
            echo_once(daemon.address(relay), 1, 300_000).unwrap();
        }
    };
    fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).unwrap();
    let line = daemon.hang_up();
    assert!(line.says(words::REJECTED), "{}", line.raw());
    let said = line.text("problems").to_lowercase();
    assert!(said.contains("permission denied"), "{}", line.raw());
    still_serves(&mut held);
    fs::rename(&file, &away).unwrap();
    fs::create_dir(&file).unwrap();
    let line = daemon.hang_up();
    assert!(line.says(words::REJECTED), "{}", line.raw());
    still_serves(&mut held);
    fs::remove_dir(&file).unwrap();
    fs::set_permissions(&away, fs::Permissions::from_mode(0o644)).unwrap();
    fs::rename(&away, &file).unwrap();
    daemon.reload(&config);
    still_serves(&mut held);
}

#[test]
fn ten_thousand_backends_in_a_file_of_a_megabyte_are_served_promptly() {
    let backends = ["a", "b", "c", "d"].map(Backend::named);
    let crowd = |service: Service, prefix: &str| {
        (0..10_000).fold(service, |service, n| {
            let name = format!("{prefix}-{n:05}-{}", "x".repeat(40));
            service.backend(&name, backends[n % backends.len()].address())
        })
    };
    let service = Service::new("web").strategy("least-connections");
    let config = Config::of(crowd(service.clone(), "one"));
    assert!(config.text().len() > 1 << 20, "{}", config.text().len());
    let daemon = Daemon::start(&config);
    let address = daemon.address("web");
    let storm = Storm::start(4, move |seed| echo_once(address, seed, 10_000));
    storm.pass(50);
    daemon.reload(&Config::of(crowd(service, "other")));
    storm.pass(50);
    // Each of these waits has the deadline of all waits.
    storm.finish().assert_flawless();
}

#[test]
fn requests_that_are_none_are_closed_and_cost_no_byte() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(
        &Config::of_each_relay(|service| service.backend("only", meeting.address()))
            .admin("listen", "127.0.0.1:0"),
    );
    let api = daemon.api();
    let before = daemon.resident_bytes();
    let mut sessions = RELAYS.map(|relay| meeting.session(daemon.address(relay)));
    let huge = format!(
        "GET /v1/view HTTP/1.1\r\nX: {}\r\n\r\n",
        "x".repeat(4 << 20)
    );
    let lines = "X: y\r\n".repeat(100_000);
    let many = format!("GET /v1/view HTTP/1.1\r\n{lines}\r\n");
    let body = "POST /v1/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99999999999\r\n\r\n";
    let bodies = [body.as_bytes(), &[b'x'; 4 << 20]].concat();
    for request in [
        huge.as_bytes(),
        many.as_bytes(),
        &bodies,
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"\0\0\0\0\0\0\0\0\0\0\0\0\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        let mut stream = api.connect().unwrap();
        // It may be closed before it has said all; then no answer can be read, either.
        stream.write_all(request).ok();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        let start = String::from_utf8_lossy(&answer[..answer.len().min(12)]).into_owned();
        assert!(
            start.is_empty() || start.starts_with("HTTP/1.1 4"),
            "{start}"
        );
        for (client, backend) in &mut sessions {
            exchange(client, backend, 300_000);
        }
        assert_eq!(api.get("/healthz").status, 200);
    }
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 16 << 20, "{} KiB more", grown >> 10);
}
