//! System calls that fail: each costs what it must and no more, and no byte is lost in silence.

use std::io::ErrorKind;
use std::time::Duration;

use super::{exchange, send, whole_session};
use crate::support::{
    Backend, Config, Daemon, End, Injection, Meeting, Pattern, Peer, RELAYS, ask_name, connect,
    eventually, installed, steadily, wait_for_error, words,
};

const MIB: u64 = 1024 * 1024;

/// One worker, whose calls can be counted, and probes that are over before anything fails.
fn start(meeting: &Meeting) -> Daemon {
    let daemon = Daemon::start(
        &Config::of_each_relay(|service| {
            service
                .health("interval", "1h")
                .backend("only", meeting.address())
        })
        .runtime("workers", 1)
        .log("level", "debug")
        .log_every_session(),
    );
    for relay in RELAYS {
        daemon.wait_for(0, words::BACKEND_UP, "service", relay);
    }
    daemon
}

#[test]
fn out_of_anything_accepting_rests_is_told_once_and_goes_on() {
    if !installed(&["strace"]) {
        return;
    }
    for shortage in ["EMFILE", "ENFILE", "ENOMEM", "ENOBUFS"] {
        let meeting = Meeting::new();
        let daemon = start(&meeting);
        let mut running = RELAYS.map(|relay| meeting.session(daemon.address(relay)));
        let mark = daemon.log().mark();
        let injection = Injection::start(&daemon, &format!("accept4:error={shortage}"));
        // Their handshakes are the kernel's business.
        let waiting = [(); 3].map(|()| connect(daemon.address("copy")).unwrap());
        injection.wait(1);
        for (client, backend) in &mut running {
            exchange(client, backend, MIB);
        }
        let ticks = daemon.cpu_ticks_during(Duration::from_secs(1));
        assert!(ticks < 30, "{shortage}: {ticks} of 100 ticks");
        injection.wait(2);
        daemon.wait_for(mark, words::RESTS, "level", "WARN");
        let told = daemon.log().all(mark, |line| line.says(words::RESTS));
        assert_eq!(told.len(), 1, "{shortage}: {told:?}");
        drop(injection);
        for client in waiting {
            whole_session(meeting.introduce(client), MIB);
        }
        running
            .into_iter()
            .for_each(|session| whole_session(session, MIB));
    }
}

#[test]
fn a_client_that_is_gone_before_it_is_accepted_costs_the_next_nothing() {
    if !installed(&["strace"]) {
        return;
    }
    let meeting = Meeting::new();
    let daemon = start(&meeting);
    for error in ["ECONNABORTED", "EPROTO", "EINTR", "EPERM", "ENETDOWN"] {
        for relay in RELAYS {
            let what = format!("accept4:error={error}:when=1..3");
            let injection = Injection::start(&daemon, &what);
            let session = meeting.session(daemon.address(relay));
            injection.wait(3);
            drop(injection);
            whole_session(session, 100_000);
        }
    }
    let rested = daemon.log().all(0, |line| line.says(words::RESTS));
    assert!(rested.is_empty(), "{rested:?}");
}

#[test]
fn without_a_descriptor_to_connect_with_one_session_fails_and_others_wait() {
    if !installed(&["strace"]) {
        return;
    }
    for shortage in ["EMFILE", "ENFILE", "ENOMEM"] {
        let meeting = Meeting::new();
        let daemon = start(&meeting);
        let running = RELAYS.map(|relay| meeting.session(daemon.address(relay)));
        let settled = || daemon.descriptors();
        let before = steadily(Duration::from_millis(500), "descriptors settle", settled);
        let mark = daemon.log().mark();
        let injection = Injection::start(&daemon, &format!("socket:error={shortage}"));
        // The reset may be there before the client knows that it is connected.
        match connect(daemon.address("copy")) {
            Ok(mut client) => assert_eq!(client.end(), End::Reset),
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        let line = daemon.wait_for(mark, words::SESSION, "service", "copy");
        assert!(line.has("cause", words::EXHAUSTED), "{}", line.raw());
        assert!(line.has("who", "ballast"), "{}", line.raw());
        let waiting = RELAYS.map(|relay| connect(daemon.address(relay)).unwrap());
        // It is tried again and again whether there is one.
        injection.wait(injection.count() + 2 * RELAYS.len());
        drop(injection);
        for client in waiting {
            whole_session(meeting.introduce(client), MIB);
        }
        daemon.wait_for(mark, words::RESTS, "level", "WARN");
        let told = daemon.log().all(mark, |line| line.says(words::RESTS));
        assert_eq!(told.len(), 1, "{shortage}: {told:?}");
        eventually("what they held is free", || {
            (daemon.descriptors() <= before).then_some(())
        });
        for (relay, session) in RELAYS.into_iter().zip(running) {
            whole_session(session, MIB);
            whole_session(meeting.session(daemon.address(relay)), MIB);
        }
    }
}

#[test]
fn without_a_pipe_bulk_is_copied() {
    if !installed(&["strace"]) {
        return;
    }
    for shortage in ["EMFILE", "ENFILE", "ENOMEM"] {
        let meeting = Meeting::new();
        let daemon = start(&meeting);
        let injection = Injection::start(&daemon, &format!("pipe2:error={shortage}"));
        for relay in ["auto", "splice"] {
            whole_session(meeting.session(daemon.address(relay)), 16 * MIB);
        }
        injection.wait(1);
        drop(injection);
        daemon
            .log()
            .wait(0, "that it has no pipe", |line| line.says(words::NO_PIPE));
        whole_session(meeting.session(daemon.address("splice")), 16 * MIB);
    }
}

#[test]
fn calls_that_are_interrupted_lose_nothing() {
    if !installed(&["strace"]) {
        return;
    }
    let meeting = Meeting::new();
    let daemon = start(&meeting);
    let what = "recvfrom,sendto,splice,accept4:error=EINTR:when=2+3";
    let injection = Injection::start(&daemon, what);
    for relay in RELAYS {
        whole_session(meeting.session(daemon.address(relay)), 4 * MIB);
    }
    injection.wait(10);
}

#[test]
fn a_call_that_fails_in_the_midst_is_a_reset_and_never_a_fin() {
    if !installed(&["strace"]) {
        return;
    }
    let meeting = Meeting::new();
    let daemon = start(&meeting);
    for (relay, what) in [
        ("copy", "recvfrom:error=ENOMEM:when=20"),
        ("copy", "sendto:error=ENOBUFS:when=20"),
        ("auto", "recvfrom:error=ENOMEM:when=2"),
        // Filling a pipe and emptying it take turns.
        ("splice", "splice:error=EIO:when=20"),
        ("splice", "splice:error=EIO:when=21"),
    ] {
        for back in [false, true] {
            let (mut from, mut to) = meeting.session(daemon.address(relay));
            if back {
                std::mem::swap(&mut from, &mut to);
            }
            let injection = Injection::start(&daemon, what);
            let data = Pattern::new(1, 256 * MIB);
            let sending = send(&from, &data);
            let (_, end) = data.receive(&mut to);
            assert_eq!(end, End::Reset, "{relay}: {what}");
            // What it had said already may have been read.
            if sending.join().unwrap().is_ok() {
                wait_for_error(&from);
            }
            drop((injection, from, to));
            // What was left in a pipe reaches nobody else.
            whole_session(meeting.session(daemon.address(relay)), 4 * MIB);
        }
    }
}

#[test]
fn without_a_port_to_connect_from_the_next_backend_is_tried() {
    if !installed(&["strace"]) {
        return;
    }
    let backends = [Backend::named("a"), Backend::named("b")];
    let daemon = Daemon::start(
        &Config::of_each_relay(|service| {
            service
                .health("interval", "1h")
                .backend("a", backends[0].address())
                .backend("b", backends[1].address())
        })
        .runtime("workers", 1)
        .log_every_session(),
    );
    for relay in RELAYS {
        for name in ["a", "b"] {
            daemon.log().wait(0, "both are up", |line| {
                line.says(words::BACKEND_UP)
                    && line.has("service", relay)
                    && line.has("backend", name)
            });
        }
    }
    for relay in RELAYS {
        let mark = daemon.log().mark();
        let injection = Injection::start(&daemon, "connect:error=EADDRNOTAVAIL:when=1");
        ask_name(daemon.address(relay)).unwrap();
        assert_eq!(injection.count(), 1);
        let line = &daemon.wait_for_sessions(mark, 1)[0];
        assert_eq!(line.number("attempts"), 2, "{}", line.raw());
    }
}

#[test]
fn a_panic_within_a_session_resets_that_session_and_no_other() {
    // Sums are checked in such a build only.
    if !cfg!(debug_assertions) || !installed(&["strace"]) {
        return;
    }
    let meeting = Meeting::new();
    let daemon = start(&meeting);
    let mut others = RELAYS.map(|relay| meeting.session(daemon.address(relay)));
    for (client, backend) in &mut others {
        exchange(client, backend, 4 * MIB);
    }
    // A worker keeps a pipe that it used for a second or two.
    let settled = || daemon.descriptors();
    let before = steadily(Duration::from_secs(3), "descriptors settle", settled);
    for relay in RELAYS {
        let mark = daemon.log().mark();
        let (mut client, mut backend) = meeting.session(daemon.address(relay));
        // A kernel that claims to have sent more than there is in the world: counting it overflows.
        let what = "sendto,splice:retval=4611686018427387904";
        let injection = Injection::start(&daemon, what);
        let sending = send(&client, &Pattern::new(1, 64 * MIB));
        assert_eq!(backend.end(), End::Reset);
        sending.join().unwrap().unwrap_err();
        assert!(!client.is_silent(Duration::ZERO));
        drop(injection);
        let line = daemon.wait_for(mark, words::SESSION, "service", relay);
        assert!(line.has("cause", words::PANICKED), "{}", line.raw());
        assert!(line.has("who", "ballast"), "{}", line.raw());
        let told = daemon.log().all(mark, |line| line.says(words::DEFECT));
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].text("thread").starts_with("worker"), "{told:?}");
    }
    eventually("what they held is free", || {
        (daemon.descriptors() <= before).then_some(())
    });
    // The only worker lives, and so do its other sessions.
    for (relay, session) in RELAYS.into_iter().zip(others) {
        whole_session(session, 4 * MIB);
        whole_session(meeting.session(daemon.address(relay)), 4 * MIB);
    }
}
