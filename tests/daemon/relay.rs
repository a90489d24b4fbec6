//! Bytes arrive in order, unmodified and complete, whatever the pace of either side.

use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::support::{
    Backend, Config, Daemon, End, Meeting, Pattern, Peer, RELAYS, Service, Storm, ask_name,
    echo_once, steadily, with_receive_buffer,
};

const MIB: u64 = 1024 * 1024;

fn behind(meeting: &Meeting) -> Daemon {
    Daemon::start(&Config::of_each_relay(|service| {
        service.backend("only", meeting.address())
    }))
}

/// Runs `scene` once for each way to relay, all at a time so that none makes the others wait.
fn each_relay(meeting: &Meeting, scene: impl Fn(SocketAddr) + Sync) {
    let daemon = behind(meeting);
    let (daemon, scene) = (&daemon, &scene);
    thread::scope(|threads| {
        for relay in RELAYS {
            thread::Builder::new()
                .name(format!("relay = {relay}"))
                .spawn_scoped(threads, move || scene(daemon.address(relay)))
                .expect("a thread");
        }
    });
}

#[test]
fn a_client_that_half_closes_still_gets_its_reply() {
    let meeting = Meeting::new();
    each_relay(&meeting, |address| {
        let (mut client, mut backend) = meeting.session(address);
        client.put(b"a question");
        client.half_close();
        backend.get(b"a question");
        assert_eq!(backend.end(), End::Fin);
        let reply = Pattern::new(1, 3 * MIB);
        let sending = reply.send_and_half_close(&backend);
        assert_eq!(reply.expect_then_end(&mut client), End::Fin);
        sending.join().unwrap();
    });
}

#[test]
fn a_backend_that_half_closes_still_gets_the_rest() {
    let meeting = Meeting::new();
    each_relay(&meeting, |address| {
        let (mut client, mut backend) = meeting.session(address);
        backend.put(b"no more from me");
        backend.half_close();
        client.get(b"no more from me");
        assert_eq!(client.end(), End::Fin);
        let rest = Pattern::new(2, 3 * MIB);
        let sending = rest.send_and_half_close(&client);
        assert_eq!(rest.expect_then_end(&mut backend), End::Fin);
        sending.join().unwrap();
    });
}

#[test]
fn a_fin_behind_buffered_data_comes_after_the_last_byte() {
    let meeting = Meeting::with_receive_buffer(4096);
    each_relay(&meeting, |address| {
        let narrow = with_receive_buffer(4096, address).unwrap();
        let (client, backend) = meeting.introduce(narrow);
        let ways = [(3, &client, &backend), (13, &backend, &client)];
        thread::scope(|threads| {
            for (seed, from, to) in ways {
                let data = Pattern::new(seed, 2 * MIB);
                let sending = data.send_and_half_close(from);
                let mut to = to.try_clone().expect("descriptors");
                threads.spawn(move || {
                    data.expect_in(&mut to, 1000);
                    assert_eq!(to.end(), End::Fin);
                    sending.join().unwrap();
                });
            }
        });
    });
}

fn stalled_readers(relay: &str, length: u64) {
    let meeting = Meeting::new();
    let daemon = behind(&meeting);
    let (mut client, mut backend) = meeting.session(daemon.address(relay));
    let before = daemon.resident_bytes();
    let up = Pattern::new(4, length);
    let down = Pattern::new(5, length);
    let sending = [
        up.send_and_half_close(&client),
        down.send_and_half_close(&backend),
    ];
    // Nobody reads: both senders come to a stand, held back by nothing but full buffers.
    let (sent_up, sent_down) = (up.progress(), down.progress());
    let stand = steadily(Duration::from_secs(1), "both senders stand still", || {
        (
            sent_up.load(Ordering::Relaxed),
            sent_down.load(Ordering::Relaxed),
        )
    });
    assert!(stand.0 < length && stand.1 < length, "{stand:?}");
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB more for one session", grown / MIB);
    let reading = thread::spawn(move || up.expect_then_end(&mut backend));
    assert_eq!(down.expect_then_end(&mut client), End::Fin);
    assert_eq!(reading.join().unwrap(), End::Fin);
    for sender in sending {
        sender.join().unwrap();
    }
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB more for one session", grown / MIB);
}

#[test]
fn stalled_readers_meet_bounded_memory_and_then_get_256_mib_each_way() {
    stalled_readers("auto", 256 * MIB);
}

#[test]
fn stalled_readers_meet_bounded_memory_by_copy_and_by_splice() {
    for relay in ["copy", "splice"] {
        stalled_readers(relay, 100 * MIB);
    }
}

/// Both ways at once, a byte at a time.
fn one_byte_reads(client: TcpStream, backend: TcpStream, length: u64) {
    let up = Pattern::new(6, length);
    let down = Pattern::new(7, length);
    let sending = [
        up.send_and_half_close(&client),
        down.send_and_half_close(&backend),
    ];
    let reading = [(client, down), (backend, up)].map(|(mut stream, pattern)| {
        thread::spawn(move || {
            pattern.expect_in(&mut stream, 1);
            assert_eq!(stream.end(), End::Fin);
        })
    });
    for thread in sending.into_iter().chain(reading) {
        thread.join().unwrap();
    }
}

#[test]
fn one_byte_reads_get_every_byte() {
    let meeting = Meeting::new();
    each_relay(&meeting, |address| {
        let (client, backend) = meeting.session(address);
        one_byte_reads(client, backend, 300_000);
    });
}

#[test]
fn the_smallest_windows_let_every_byte_through() {
    let meeting = Meeting::with_receive_buffer(1);
    each_relay(&meeting, |address| {
        let tiny = with_receive_buffer(1, address).unwrap();
        let (client, backend) = meeting.introduce(tiny);
        // The kernel itself moves no more than a few kilobytes a second through such windows.
        one_byte_reads(client, backend, 6_000);
    });
}

#[test]
fn many_sessions_of_all_sizes_keep_their_bytes_apart() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let daemon = Daemon::start(&Config::of_each_relay(|service| {
        service
            .backend("a", backends[0].address())
            .backend("b", backends[1].address())
    }));
    let addresses = RELAYS.map(|relay| daemon.address(relay));
    let sizes = [0, 1, 100, 1460, 16_384, 65_535, 65_536, 65_537];
    let storm = Storm::start(16, move |number| {
        let size = sizes[usize::try_from(number % 8).expect("below 8")];
        let address = addresses[usize::try_from(number % 3).expect("below 3")];
        echo_once(address, number, size)
    });
    storm.pass(2000);
    storm.finish().assert_flawless();
}

#[test]
fn a_backend_that_speaks_first_is_heard() {
    let backend = Backend::serve(|mut stream| {
        // A probe may be gone by now.
        drop(stream.write_all(b"220 mail.example.org ready\r\n"));
    });
    let daemon = Daemon::start(&Config::of(
        Service::new("mail").backend("only", backend.address()),
    ));
    for _ in 0..20 {
        let mut client = crate::support::connect(daemon.address("mail")).unwrap();
        client.get(b"220 mail.example.org ready\r\n");
        assert_eq!(client.end(), End::Fin);
    }
}

#[test]
fn bytes_behind_an_urgent_one_arrive() {
    let meeting = Meeting::new();
    each_relay(&meeting, |address| {
        let (mut client, mut backend) = meeting.session(address);
        client.put(b"before ");
        SockRef::from(&client).send_out_of_band(b"!").unwrap();
        client.put(b" after");
        backend.get(b"before ! after");
        backend.put(b"and back ");
        SockRef::from(&backend).send_out_of_band(b"?").unwrap();
        backend.put(b" after");
        client.get(b"and back ? after");
    });
}

/// Everything but the reader's part is over before the first byte is read.
fn urgent_byte_between(before: u64, after: u64) {
    let meeting = Meeting::new();
    each_relay(&meeting, |address| {
        for swapped in [false, true] {
            let (mut near, mut far) = meeting.session(address);
            if swapped {
                std::mem::swap(&mut near, &mut far);
            }
            let before = Pattern::new(8, before);
            let after = Pattern::new(9, after);
            let (first, second) = (before.clone(), after.clone());
            let sending = thread::spawn(move || {
                first.send(&mut near).expect("the connection stands");
                SockRef::from(&near).send_out_of_band(b"!").unwrap();
                second.send(&mut near).expect("the connection stands");
                near.half_close();
                near
            });
            let (first, second) = (before.progress(), after.progress());
            steadily(
                Duration::from_millis(200),
                "the sender stands still or is done",
                || {
                    (
                        first.load(Ordering::Relaxed),
                        second.load(Ordering::Relaxed),
                    )
                },
            );
            before.expect(&mut far);
            far.get(b"!");
            assert_eq!(after.expect_then_end(&mut far), End::Fin);
            let mut near = sending.join().unwrap();
            far.put(b"and back");
            far.half_close();
            near.get(b"and back");
            assert_eq!(near.end(), End::Fin);
        }
    });
}

#[test]
fn an_urgent_byte_within_little_data_ends_nothing() {
    urgent_byte_between(10, 20);
    urgent_byte_between(50_000, 50_000);
}

#[test]
fn an_urgent_byte_within_bulk_ends_nothing() {
    urgent_byte_between(3 * MIB, 3 * MIB);
}

#[test]
fn an_urgent_byte_right_before_the_fin_is_delivered() {
    urgent_byte_between(300_000, 0);
}

#[test]
fn a_reader_that_stalls_again_and_again_gets_every_byte() {
    let meeting = Meeting::new();
    each_relay(&meeting, |address| {
        let (client, mut backend) = meeting.session(address);
        let data = Pattern::new(10, 64 * MIB);
        let sending = data.send_and_half_close(&client);
        let (mut read, sent) = (0, data.clone().progress());
        for part in 1..=3 {
            // Full buffers, Ballast's own included.
            steadily(
                Duration::from_millis(200),
                "the sender stands still",
                || sent.load(Ordering::Relaxed),
            );
            while read < part * 8 * MIB {
                read = data.expect_some(&mut backend, read);
            }
        }
        data.expect_rest(&mut backend, read, 256 * 1024);
        assert_eq!(backend.end(), End::Fin);
        sending.join().unwrap();
    });
}

#[test]
fn ipv6_clients_reach_ipv4_and_ipv6_backends() {
    let six = Backend::named_at(SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), 0), "six");
    let four = Backend::named("four");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .listen("[::1]:0")
            .strategy("round-robin")
            .backend("six", six.address())
            .backend("four", four.address()),
    ));
    let mut names = [(); 2].map(|()| ask_name(daemon.address("web")).unwrap());
    names.sort();
    assert_eq!(names, ["four", "six"]);
}

#[test]
fn one_service_serves_on_all_its_listeners() {
    let only = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .also_listen(crate::support::fresh_listen())
            .also_listen("[::1]:0")
            .backend("only", only.address()),
    ));
    let addresses = daemon.addresses_since(0, "web");
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        assert_eq!(ask_name(address).unwrap(), "only");
    }
}
