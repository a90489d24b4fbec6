//! How a session ends: a FIN stands for every byte delivered, everything else is a RST on both sides.

use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::support::{
    Config, Daemon, End, Meeting, Pattern, Peer, Service, eventually, steadily, wait_for_error,
    words,
};

const DATA: u64 = 3 * 1024 * 1024;

fn behind(meeting: &Meeting, shape: impl Fn(Service) -> Service) -> Daemon {
    Daemon::start(&Config::of(shape(
        Service::new("web").backend("only", meeting.address()),
    )))
}

/// Every test of a reset runs once each way: what is named `near` resets, `far` is told.
fn each_way(daemon: &Daemon, meeting: &Meeting, scene: impl Fn(TcpStream, TcpStream)) {
    let (client, backend) = meeting.session(daemon.address("web"));
    scene(client, backend);
    let (client, backend) = meeting.session(daemon.address("web"));
    scene(backend, client);
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
    let (client, mut backend) = meeting.session(daemon.address("web"));
    client.reset();
    assert_eq!(backend.end(), End::Reset);
    let line = daemon.wait_for(0, words::SESSION, "who", "client");
    assert!(line.has("cause", words::RESET), "{}", line.raw());
    assert!(line.has("phase", "relay"), "{}", line.raw());

    let mark = daemon.log().mark();
    let (mut client, backend) = meeting.session(daemon.address("web"));
    backend.reset();
    assert_eq!(client.end(), End::Reset);
    let line = daemon.wait_for(mark, words::SESSION, "who", "backend");
    assert!(line.has("cause", words::RESET), "{}", line.raw());
}

#[test]
fn an_idle_session_is_reset_on_both_sides() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("idle", "500ms"));
    let (mut client, mut backend) = meeting.session(daemon.address("web"));
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
    let (mut client, mut backend) = meeting.session(daemon.address("web"));
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
    let (client, mut backend) = meeting.session(daemon.address("web"));
    // More than all buffers on the way hold: the backend does not read, so nothing moves any more.
    let writing = thread::spawn(move || {
        let mut client = client;
        let error = Pattern::new(4, 256 * 1024 * 1024)
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
    let daemon = behind(&meeting, |service| service);
    let settled = |what: &str| steadily(Duration::from_millis(500), what, || daemon.descriptors());
    each_way(&daemon, &meeting, |near, mut far| {
        near.reset();
        assert_eq!(far.end(), End::Reset);
    });
    let before = settled("descriptors after the first sessions");
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
    let after = settled("descriptors after many");
    assert!(after <= before, "{before} descriptors became {after}");
}
