//! How a session ends: a FIN stands for every byte delivered, everything else is a RST on both sides.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Backend, Config, Daemon, End, Line, Meeting, Pattern, Peer, RELAYS, Service, abort,
    connect_unasked, eventually, steadily, unsent, wait_for_error, words,
};

const DATA: u64 = 3 * 1024 * 1024;
/// More than all buffers on the way hold.
const ENDLESS: u64 = 256 * 1024 * 1024;
/// Loaded machines are slow; what waits for a timeout is slower.
const PROMPT: Duration = Duration::from_secs(10);

fn behind(meeting: &Meeting, shape: impl Fn(Service) -> Service) -> Daemon {
    Daemon::start(&Config::of_each_relay(|service| {
        shape(service.backend("only", meeting.address()))
    }))
}

/// Every test of a reset runs once each way: what is named `near` resets, `far` is told. Each way to
/// relay has a thread, so that none makes the others wait.
fn each_way(daemon: &Daemon, meeting: &Meeting, scene: impl Fn(TcpStream, TcpStream) + Sync) {
    let both = &|relay| {
        let (client, backend) = meeting.session(daemon.address(relay));
        scene(client, backend);
        let (client, backend) = meeting.session(daemon.address(relay));
        scene(backend, client);
    };
    thread::scope(|threads| {
        for relay in RELAYS {
            thread::Builder::new()
                .name(format!("relay = {relay}"))
                .spawn_scoped(threads, move || both(relay))
                .expect("a thread");
        }
    });
}

#[test]
fn a_reset_behind_data_arrives_after_all_of_it() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |mut near, mut far| {
        let data = Pattern::new(1, DATA);
        let sent = data.clone();
        let sending = thread::spawn(move || {
            sent.send(&mut near).unwrap();
            near.reset();
        });
        assert_eq!(data.expect_then_end(&mut far), End::Reset);
        sending.join().unwrap();
    });
}

#[test]
fn a_reset_behind_data_waits_for_a_slow_reader() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |mut near, mut far| {
        let data = Pattern::new(2, DATA);
        let sent = data.clone();
        let sending = thread::spawn(move || {
            sent.send(&mut near).unwrap();
            near.reset();
        });
        // Once the sender stands still, all the data that fits is inside Ballast.
        let progress = data.progress();
        steadily(
            Duration::from_millis(200),
            "the sender stands still",
            || progress.load(Ordering::Relaxed),
        );
        data.expect_in(&mut far, 2000);
        assert_eq!(far.end(), End::Reset);
        sending.join().unwrap();
    });
}

#[test]
fn a_reset_behind_full_buffers_arrives_after_all_of_them() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |mut near, mut far| {
        let sent = Pattern::new(5, ENDLESS).fill(&mut near);
        // The far side makes just enough room for all to be inside Ballast, its pipe included.
        let mut read = 0;
        while unsent(&near) > 0 {
            read = sent.expect_some(&mut far, read);
        }
        near.reset();
        sent.expect_rest(&mut far, read, 64 * 1024);
        assert_eq!(far.end(), End::Reset);
    });
}

#[test]
fn a_backend_that_answers_and_resets_at_once_is_heard_every_time() {
    // The one probe comes before: a reset would be its verdict.
    let sorry = Arc::new(AtomicBool::new(false));
    let inside = Arc::clone(&sorry);
    let backend = Backend::serve(move |mut stream| {
        if inside.load(Ordering::Relaxed) {
            stream.put(b"sorry\n");
            stream.reset();
        }
    });
    let daemon = Daemon::start(&Config::of_each_relay(|service| {
        service
            .health("interval", "1h")
            .backend("only", backend.address())
    }));
    for relay in RELAYS {
        daemon.wait_for(0, words::BACKEND_UP, "service", relay);
    }
    sorry.store(true, Ordering::Relaxed);
    for _ in 0..100 {
        for relay in RELAYS {
            let mut client = connect_unasked(daemon.address(relay)).unwrap();
            assert_eq!(End::read(&mut client), (6, End::Reset), "relay = {relay}");
        }
    }
}

/// A client resets while its backend is stalled behind full buffers; then the backend resets as well.
/// Gives the session's line to `told` and holds that its descriptors are free at once.
fn both_reset_behind_full_buffers(told: impl Fn(&Line)) {
    let meeting = Meeting::new();
    let daemon = Daemon::start(
        &Config::of_each_relay(|service| service.backend("only", meeting.address()))
            .runtime("workers", 1),
    );
    let settled = |what: &str| steadily(Duration::from_millis(500), what, || daemon.descriptors());
    let mut witness = meeting.session(daemon.address("auto"));
    for relay in RELAYS {
        let before = settled("descriptors between the sessions");
        let mark = daemon.log().mark();
        let (mut client, backend) = meeting.session(daemon.address(relay));
        Pattern::new(6, ENDLESS).fill(&mut client);
        abort(client);
        // The only worker has seen that once it has served others twice since.
        for _ in 0..2 {
            witness.0.put(b"seen?");
            witness.1.get(b"seen?");
        }
        abort(backend);
        let since = Instant::now();
        let line = daemon.wait_for(mark, words::SESSION, "service", relay);
        assert!(line.has("cause", words::RESET), "{}", line.raw());
        told(&line);
        eventually("its descriptors are free", || {
            (daemon.descriptors() <= before).then_some(())
        });
        assert!(since.elapsed() < PROMPT, "relay = {relay}");
    }
}

#[test]
fn a_session_that_both_sides_reset_behind_full_buffers_is_over_at_once() {
    both_reset_behind_full_buffers(|_| ());
}

#[test]
fn a_session_that_both_sides_reset_is_told_as_reset_by_the_first() {
    both_reset_behind_full_buffers(|line| assert!(line.has("who", "client"), "{}", line.raw()));
}

#[test]
fn a_reset_without_data_arrives() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |near, mut far| {
        near.reset();
        assert_eq!(far.end(), End::Reset);
    });
}

#[test]
fn a_reset_after_a_fin_arrives() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |near, mut far| {
        near.half_close();
        assert_eq!(far.end(), End::Fin);
        near.reset();
        wait_for_error(&far);
    });
}

#[test]
fn a_reset_right_behind_data_and_fin_arrives_after_the_data() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |mut near, mut far| {
        let data = Pattern::new(3, DATA);
        let sent = data.clone();
        let sending = thread::spawn(move || {
            sent.send(&mut near).unwrap();
            near.half_close();
            near.reset();
        });
        data.expect(&mut far);
        // Whether the FIN overtakes the reset is chance; that the reset comes is not.
        if far.end() == End::Fin {
            wait_for_error(&far);
        }
        sending.join().unwrap();
    });
}

#[test]
fn a_reset_arrives_while_the_other_side_is_half_closed() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |mut near, mut far| {
        far.half_close();
        assert_eq!(near.end(), End::Fin);
        near.put(b"the last words");
        far.get(b"the last words");
        near.reset();
        assert_eq!(far.end(), End::Reset);
    });
}

#[test]
fn a_peer_that_closes_with_unread_data_resets_and_the_other_side_sees_it() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    each_way(&daemon, &meeting, |near, mut far| {
        far.put(b"never read");
        eventually("the bytes are at the near side", || {
            let waiting = near.peek(&mut [0; 16]).unwrap();
            (waiting == 10).then_some(())
        });
        drop(near);
        assert_eq!(far.end(), End::Reset);
    });
}

#[test]
fn a_reset_by_a_peer_is_told_in_the_session_line() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service);
    let (client, mut backend) = meeting.session(daemon.address("auto"));
    client.reset();
    assert_eq!(backend.end(), End::Reset);
    let line = daemon.wait_for(0, words::SESSION, "who", "client");
    assert!(line.has("cause", words::RESET), "{}", line.raw());
    assert!(line.has("phase", "relay"), "{}", line.raw());

    let mark = daemon.log().mark();
    let (mut client, backend) = meeting.session(daemon.address("auto"));
    backend.reset();
    assert_eq!(client.end(), End::Reset);
    let line = daemon.wait_for(mark, words::SESSION, "who", "backend");
    assert!(line.has("cause", words::RESET), "{}", line.raw());
}

#[test]
fn an_idle_session_is_reset_on_both_sides() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("idle", "500ms"));
    let (mut client, mut backend) = meeting.session(daemon.address("auto"));
    client.put(b"something moved");
    backend.get(b"something moved");
    assert_eq!(client.end(), End::Reset);
    assert_eq!(backend.end(), End::Reset);
    let line = daemon.wait_for(0, words::SESSION, "cause", words::IDLE);
    assert!(line.has("who", "ballast"), "{}", line.raw());
}

#[test]
fn traffic_one_way_keeps_a_session_from_idling_out() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("idle", "2s"));
    let (mut client, mut backend) = meeting.session(daemon.address("auto"));
    for _ in 0..18 {
        // The pace is the test: 4.5 s, each pause well below the timeout.
        thread::sleep(Duration::from_millis(250));
        backend.put(b"tick");
        client.get(b"tick");
    }
    client.put(b"still here");
    backend.get(b"still here");
}

#[test]
fn a_half_closed_session_is_reset_once_the_other_direction_is_silent() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("half_closed", "500ms"));
    each_way(&daemon, &meeting, |mut near, mut far| {
        near.half_close();
        assert_eq!(far.end(), End::Fin);
        assert_eq!(near.end(), End::Reset);
        wait_for_error(&far);
    });
    let line = daemon.wait_for(0, words::SESSION, "cause", words::HALF_CLOSED);
    assert!(line.has("who", "ballast"), "{}", line.raw());
}

#[test]
fn traffic_keeps_a_half_closed_session_alive() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("half_closed", "2s"));
    each_way(&daemon, &meeting, |mut near, mut far| {
        near.half_close();
        assert_eq!(far.end(), End::Fin);
        for _ in 0..16 {
            // The pace is the test: 4 s, each pause well below the timeout.
            thread::sleep(Duration::from_millis(250));
            far.put(b"tick");
            near.get(b"tick");
        }
        far.half_close();
        assert_eq!(near.end(), End::Fin);
    });
}

#[test]
fn an_idle_timeout_with_undelivered_data_is_a_reset_and_never_a_fin() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("idle", "1s"));
    let (client, mut backend) = meeting.session(daemon.address("auto"));
    // More than all buffers on the way hold: the backend does not read, so nothing moves any more.
    let writing = thread::spawn(move || {
        let mut client = client;
        let error = Pattern::new(4, ENDLESS)
            .send(&mut client)
            .expect_err("nobody reads");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
    writing.join().unwrap();
    let (_, end) = End::read(&mut backend);
    assert_eq!(end, End::Reset);
}

#[test]
fn ended_sessions_leave_no_descriptor() {
    let meeting = Meeting::new();
    // Each probe holds a descriptor for a while.
    let daemon = behind(&meeting, |service| service.health("interval", "1h"));
    each_way(&daemon, &meeting, |near, mut far| {
        near.reset();
        assert_eq!(far.end(), End::Reset);
    });
    // A worker keeps a pipe that it used for a second or two.
    let settled = Duration::from_secs(3);
    let before = steadily(settled, "descriptors after the first sessions", || {
        daemon.descriptors()
    });
    for _ in 0..20 {
        each_way(&daemon, &meeting, |near, mut far| {
            near.reset();
            assert_eq!(far.end(), End::Reset);
        });
        each_way(&daemon, &meeting, |near, mut far| {
            near.half_close();
            assert_eq!(far.end(), End::Fin);
            far.half_close();
        });
        each_way(&daemon, &meeting, |near, mut far| {
            near.half_close();
            assert_eq!(far.end(), End::Fin);
            near.reset();
            wait_for_error(&far);
        });
    }
    eventually("the descriptors are back to what they were", || {
        (daemon.descriptors() <= before).then_some(())
    });
}
