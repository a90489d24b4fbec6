//! Integrity over bad wires: one between the client and Ballast, then one between Ballast and the backend;
//! faults on the way there, then on the way back; by each way to relay.

use std::io;
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::{at_once, each_backend, send};
use crate::support::{
    Chaos, Config, Daemon, End, Fault, Meeting, Pattern, Peer, RELAYS, Service, steadily, words,
};

const KIB: u64 = 1024;
/// The bytes that tell which end of a session belongs to which.
const TOKEN: u64 = 8;
/// Where a wire breaks, well within the stream.
const BREAK: u64 = 300_000;
/// More than all buffers on the way hold.
const ENDLESS: u64 = 64 * 1024 * KIB;

/// A session over a wire.
struct Scene<'a> {
    wire: &'a Chaos,
    /// It is between the client and Ballast.
    before: bool,
    client: TcpStream,
    backend: TcpStream,
}

impl Scene<'_> {
    /// Who sends and who receives, if the faults are on the way there, or else on the way back.
    fn ends(self, there: bool) -> (TcpStream, TcpStream) {
        if there {
            (self.client, self.backend)
        } else {
            (self.backend, self.client)
        }
    }
}

/// Sessions of each way to relay over wires with these faults, before Ballast and then behind it.
fn each_place(
    [there, back]: [&[Fault]; 2],
    shape: impl Fn(Service) -> Service,
    scene: impl Fn(Scene<'_>) + Sync,
) {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&Config::of_each_relay(|service| {
        shape(service.backend("only", meeting.address()))
    }));
    let before = RELAYS.map(|relay| Chaos::before(daemon.address(relay), there, back));
    let behind = RELAYS.map(|_| Chaos::before(meeting.address(), there, back));
    let second = Daemon::start(&each_backend(behind.each_ref().map(Chaos::address), &shape));
    let front = RELAYS.iter().zip(&before).map(|(relay, wire)| {
        let name = format!("{relay}, a wire before Ballast");
        (name, (wire, true, wire.address()))
    });
    let rear = RELAYS.iter().zip(&behind).map(|(relay, wire)| {
        let name = format!("{relay}, a wire behind Ballast");
        (name, (wire, false, second.address(relay)))
    });
    at_once(front.chain(rear), |(wire, before, address)| {
        let (client, backend) = meeting.session(address);
        scene(Scene {
            wire,
            before,
            client,
            backend,
        });
    });
}

/// Both ways at once over a wire that is slow in some manner.
fn all_arrives(faults: &[Fault], length: u64) {
    each_place(
        [faults, faults],
        |service| service,
        |Scene {
             mut client,
             mut backend,
             ..
         }| {
            let (up, down) = (Pattern::new(1, length), Pattern::new(2, length));
            let sending = [send(&client, &up), send(&backend, &down)];
            assert_eq!(up.expect_then_end(&mut backend), End::Fin);
            assert_eq!(down.expect_then_end(&mut client), End::Fin);
            for sender in sending {
                sender.join().unwrap().unwrap();
            }
        },
    );
}

const SLICES: Fault = Fault::Slice {
    most: 1000,
    pause: Duration::from_micros(100),
};
const DELAY: Fault = Fault::Delay {
    by: Duration::from_millis(20),
    jitter: Duration::from_millis(20),
};
const CAP: Fault = Fault::Cap {
    bytes_per_second: 1000 * KIB,
};
const SLOW_CLOSE: Fault = Fault::SlowClose {
    by: Duration::from_millis(300),
};

#[test]
fn every_byte_arrives_over_a_wire_that_slices() {
    all_arrives(&[SLICES], 300 * KIB);
    // A byte at a time.
    let pause = Duration::from_micros(20);
    all_arrives(&[Fault::Slice { most: 1, pause }], 5 * KIB);
}

#[test]
fn every_byte_arrives_over_a_wire_that_delays() {
    all_arrives(&[DELAY], 2000 * KIB);
}

#[test]
fn every_byte_arrives_over_a_narrow_wire() {
    all_arrives(&[CAP], 500 * KIB);
}

#[test]
fn every_byte_arrives_over_a_wire_that_is_slow_to_close() {
    all_arrives(&[SLOW_CLOSE], 300 * KIB);
}

#[test]
fn every_byte_arrives_over_a_wire_with_every_fault_of_pace() {
    all_arrives(&[SLICES, DELAY, CAP, SLOW_CLOSE], 200 * KIB);
}

/// A wire with this fault after [`BREAK`] bytes one way, and nothing wrong with the other.
fn each_break(
    fault: fn(u64) -> Fault,
    shape: impl Fn(Service) -> Service,
    scene: impl Fn(Scene<'_>, bool) + Sync,
) {
    let (there, back) = ([fault(TOKEN + BREAK)], [fault(BREAK)]);
    each_place([&there, &[]], &shape, |it| scene(it, true));
    each_place([&[], &back], &shape, |it| scene(it, false));
}

#[test]
fn a_wire_that_resets_after_so_many_bytes_leaves_all_of_them_and_a_reset() {
    each_break(
        Fault::ResetAfter,
        |service| service,
        |scene, there| {
            let (mut from, mut to) = scene.ends(there);
            let data = Pattern::new(3, ENDLESS);
            let sending = send(&from, &data);
            assert_eq!(data.receive(&mut to), (BREAK, End::Reset));
            assert!(sending.join().unwrap().is_err());
            // The error that ended the sending was the reset.
            assert_eq!(End::read(&mut from).0, 0);
        },
    );
}

#[test]
fn a_wire_that_resets_while_both_send_leaves_the_start_of_each_stream_and_no_fin() {
    each_break(
        Fault::ResetAfter,
        |service| service,
        |mut scene, _| {
            let (up, down) = (Pattern::new(4, ENDLESS), Pattern::new(5, ENDLESS));
            let sending = [send(&scene.client, &up), send(&scene.backend, &down)];
            let ends = thread::scope(|threads| {
                let client = threads.spawn(|| down.receive(&mut scene.client).1);
                let backend = up.receive(&mut scene.backend).1;
                [client.join().unwrap(), backend]
            });
            for (sender, end) in sending.into_iter().zip(ends) {
                // The kernel tells of a reset once, whoever asks first.
                let error = sender.join().unwrap().unwrap_err();
                let reset = error.kind() == io::ErrorKind::ConnectionReset;
                assert!(reset != (end == End::Reset), "{error}, {end:?}");
            }
        },
    );
}

#[test]
fn a_wire_that_closes_after_so_many_bytes_leaves_all_of_them() {
    each_break(
        Fault::CloseAfter,
        |service| service,
        |scene, there| {
            let (from, mut to) = scene.ends(there);
            let data = Pattern::new(6, ENDLESS);
            let sending = send(&from, &data);
            assert_eq!(data.receive(&mut to), (BREAK, End::Fin));
            // Whoever closes with bytes unread has reset.
            drop(to);
            assert!(sending.join().unwrap().is_err());
        },
    );
}

#[test]
fn a_wire_that_half_closes_leaves_the_other_way_open() {
    each_break(
        Fault::HalfCloseAfter,
        |service| service,
        |scene, there| {
            let (mut from, mut to) = scene.ends(there);
            let data = Pattern::new(7, BREAK + 1000);
            let sending = send(&from, &data);
            assert_eq!(data.receive(&mut to), (BREAK, End::Fin));
            sending.join().unwrap().unwrap();
            let back = Pattern::new(8, 3000 * KIB);
            let answering = send(&to, &back);
            assert_eq!(back.expect_then_end(&mut from), End::Fin);
            answering.join().unwrap().unwrap();
        },
    );
}

#[test]
fn a_wire_that_swallows_costs_the_session_after_its_idle_timeout() {
    each_break(
        Fault::SwallowAfter,
        |service| service.timeout("idle", "1s"),
        |scene, there| {
            // Who is right behind such a wire hears nothing any more, not even the end.
            let cut_off = scene.before != there;
            let (mut from, mut to) = scene.ends(there);
            let data = Pattern::new(9, BREAK + 10);
            data.send(&mut from).unwrap();
            if cut_off {
                Pattern::new(9, BREAK).expect(&mut to);
                assert_eq!(from.end(), End::Reset);
                assert!(to.is_silent(Duration::from_millis(300)));
            } else {
                assert_eq!(data.receive(&mut to), (BREAK, End::Reset));
                assert_eq!(from.end(), End::Reset);
            }
        },
    );
}

#[test]
fn a_wire_that_stalls_holds_the_sender_back_and_loses_nothing() {
    for there in [true, false] {
        each_place(
            [&[], &[]],
            |service| service,
            |scene| {
                let wire = scene.wire;
                let (from, mut to) = scene.ends(there);
                let data = Pattern::new(10, ENDLESS);
                wire.stall();
                let progress = data.progress();
                let sending = send(&from, &data);
                let stand = steadily(Duration::from_millis(300), "the sender stands", || {
                    progress.load(Ordering::Relaxed)
                });
                assert!(stand < ENDLESS, "buffers without an end");
                wire.go_on();
                assert_eq!(data.expect_then_end(&mut to), End::Fin);
                sending.join().unwrap().unwrap();
            },
        );
    }
}

#[test]
fn a_session_that_a_wire_has_reset_is_told_as_that() {
    let meeting = Meeting::new();
    let wires = RELAYS.map(|_| Chaos::before(meeting.address(), &[], &[Fault::ResetAfter(1000)]));
    let backends = wires.each_ref().map(Chaos::address);
    let daemon = Daemon::start(&each_backend(backends, |service| service));
    for relay in RELAYS {
        let (mut client, backend) = meeting.session(daemon.address(relay));
        let data = Pattern::new(11, 2000);
        data.send(&mut backend.try_clone().unwrap()).unwrap();
        assert_eq!(data.receive(&mut client), (1000, End::Reset));
        let line = daemon.wait_for(0, words::SESSION, "service", relay);
        assert!(line.has("who", "backend"), "{}", line.raw());
        assert!(line.has("cause", words::RESET), "{}", line.raw());
        assert_eq!(line.number("to_client"), 1000);
    }
}
