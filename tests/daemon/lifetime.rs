//! Sessions that Ballast ends because they have lived long enough.

use std::io::{Read, Write};
use std::time::Duration;

use crate::support::{
    Backend, Config, Daemon, End, Meeting, Peer, RELAYS, Service, connect, words,
};

#[test]
fn a_session_that_has_lived_long_enough_is_reset_on_both_sides() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&Config::of_each_relay(|service| {
        service
            .max_lifetime("1s")
            .backend("only", meeting.address())
    }));
    for relay in RELAYS {
        let (mut client, mut backend) = meeting.session(daemon.address(relay));
        assert_eq!(client.end(), End::Reset, "relay = {relay}");
        assert_eq!(backend.end(), End::Reset, "relay = {relay}");
        let line = daemon.wait_for(0, words::SESSION, "service", relay);
        assert!(line.has("cause", words::LIFETIME), "{}", line.raw());
        assert!(line.has("who", "ballast") && line.has("phase", "relay"));
        // Drawn between 80 % and all of it.
        let lived: f64 = line.text("duration_ms").parse().unwrap();
        assert!(lived >= 800.0, "{lived} ms");
    }
}

#[test]
fn a_session_that_never_rests_ends_with_its_lifetime_too() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .max_lifetime("1s")
            .backend("only", backend.address()),
    ));
    let mut client = connect(daemon.address("web")).unwrap();
    let mut chunk = [7; 1024];
    // A write or a read fails, whichever meets the reset.
    while client.write_all(&chunk).is_ok() && client.read_exact(&mut chunk).is_ok() {}
    daemon.wait_for(0, words::SESSION, "cause", words::LIFETIME);
}

#[test]
fn sessions_without_a_limit_outlive_those_with_one() {
    let meeting = Meeting::new();
    let service = |name| Service::new(name).backend("only", meeting.address());
    let limited = service("limited").max_lifetime("1s");
    let daemon = Daemon::start(&Config::of(limited).service(service("free")));
    let (mut client, mut backend) = meeting.session(daemon.address("free"));
    let (mut short, _held) = meeting.session(daemon.address("limited"));
    assert_eq!(short.end(), End::Reset);
    client.put(b"still there?");
    backend.get(b"still there?");
    assert!(client.is_silent(Duration::ZERO));
}
