//! PROXY headers that nobody should believe, and one that comes a byte at a time.

use std::io::Write;
use std::time::Duration;

use super::{at_once, exchange};
use crate::support::{
    Chaos, Config, Daemon, End, Fault, Meeting, Peer, RELAYS, connect, eventually, words,
};

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const ADDRESSES: &[u8] = &[192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];

/// A header of version 2 that claims to be as long as it is.
fn v2(command: u8, family: u8, body: &[&[u8]]) -> Vec<u8> {
    let body = body.concat();
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [SIGNATURE, &[command, family], &length, &body].concat()
}

/// Headers that are none, whatever may follow.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let long = |end: &str| format!("PROXY TCP6 {}{end}", "1".repeat(96)).into_bytes();
    let claims = |length: [u8; 2], body: &[u8]| [SIGNATURE, &[0x21, 0x11], &length, body].concat();
    vec![
        ("107 bytes without an end", long("")),
        ("an end behind 107 bytes", long("1\r\n")),
        ("200 bytes", [&b"PROXY TCP4 "[..], &[b'1'; 189]].concat()),
        (
            "another end of line",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n\n".to_vec(),
        ),
        ("nothing but an end", b"PROXY \r\nxxxxxxxxxxxxxxxx".to_vec()),
        (
            "no room for the addresses",
            v2(0x21, 0x11, &[&ADDRESSES[..11]]),
        ),
        ("no room for longer addresses", v2(0x21, 0x21, &[ADDRESSES])),
        ("no addresses", v2(0x21, 0x11, &[])),
        (
            "an addition beyond the end",
            v2(0x21, 0x11, &[ADDRESSES, &[0xee, 0, 9, 1]]),
        ),
        ("half an addition", v2(0x21, 0x11, &[ADDRESSES, &[0xee, 0]])),
        (
            "an addition of 65,535 bytes",
            v2(0x21, 0x11, &[ADDRESSES, &[0xee, 255, 255]]),
        ),
        (
            "a wrong checksum",
            v2(0x21, 0x11, &[ADDRESSES, &[3, 0, 4, 1, 2, 3, 4]]),
        ),
        ("an unknown family", v2(0x21, 0x41, &[ADDRESSES])),
        ("an unknown protocol", v2(0x21, 0x13, &[ADDRESSES])),
        ("an unknown version", v2(0x31, 0x11, &[ADDRESSES])),
        ("an unknown command", v2(0x22, 0x11, &[ADDRESSES])),
        ("65,535 bytes", claims([255, 255], ADDRESSES)),
        (
            "65,535 bytes, and all of them",
            claims([255, 255], &[0; 65_535]),
        ),
    ]
}

fn accepting(meeting: &Meeting) -> Daemon {
    Daemon::start(
        &Config::of_each_relay(|service| {
            service
                .proxy_protocol("accept_from", "127.0.0.0/8")
                // What is wrong is wrong at once; no test waits for this.
                .proxy_protocol("timeout", "1m")
                .health("interval", "1h")
                .backend("only", meeting.address())
        })
        .log_every_session(),
    )
}

#[test]
fn a_malformed_header_is_refused_at_once_and_nobody_is_dialled() {
    let meeting = Meeting::new();
    let daemon = accepting(&meeting);
    for relay in RELAYS {
        daemon.wait_for(0, words::BACKEND_UP, "service", relay);
    }
    // Not every line of many refusals is written; of a few it is.
    for (n, (name, header)) in malformed().into_iter().enumerate() {
        let relay = RELAYS[n % RELAYS.len()];
        let mark = daemon.log().mark();
        let mut client = connect(daemon.address(relay)).unwrap();
        // It may be reset before it has said all.
        client.write_all(&header).ok();
        let (read, end) = End::read(&mut client);
        assert_eq!((read, end), (0, End::Reset), "{name}");
        let line = daemon.wait_for(mark, words::SESSION, "service", relay);
        assert!(
            line.has("cause", words::BAD_HEADER),
            "{name}: {}",
            line.raw()
        );
        assert!(line.has("phase", "proxy-header"), "{name}: {}", line.raw());
        assert_eq!(line.field("backend"), None, "{name}: {}", line.raw());
    }
    for relay in RELAYS {
        let mut client = connect(daemon.address(relay)).unwrap();
        client.put(V1);
        let (mut client, mut backend) = meeting.introduce(client);
        exchange(&mut client, &mut backend, 300_000);
    }
}

#[test]
fn many_who_claim_the_longest_header_cost_no_memory() {
    let meeting = Meeting::new();
    let daemon = accepting(&meeting);
    let address = daemon.address("copy");
    let descriptors = daemon.descriptors();
    let before = daemon.resident_bytes();
    // The longest that is waited for: 16 KiB, all of which is looked at and none of which is kept.
    let length = 16 * 1024 - 16_u16;
    let header = [SIGNATURE, &[0x21, 0x11], &length.to_be_bytes(), ADDRESSES].concat();
    let crowd: Vec<_> = (0..500)
        .map(|_| {
            let mut client = connect(address).unwrap();
            client.put(&header);
            client.put(&[0xee; 16_000]);
            client
        })
        .collect();
    let mut client = connect(address).unwrap();
    client.put(V1);
    let (mut client, mut backend) = meeting.introduce(client);
    exchange(&mut client, &mut backend, 300_000);
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 6 << 20, "{} KiB more for 500", grown >> 10);
    drop((crowd, client, backend));
    eventually("they are gone", || {
        (daemon.descriptors() <= descriptors).then_some(())
    });
}

#[test]
fn a_header_that_comes_a_byte_at_a_time_is_heard_and_every_byte_behind_it_arrives() {
    let meeting = Meeting::new();
    let daemon = accepting(&meeting);
    let pause = Duration::from_micros(200);
    let slices = [Fault::Slice { most: 1, pause }];
    let wires = RELAYS.map(|relay| {
        let wire = Chaos::before(daemon.address(relay), &slices, &[]);
        (relay.to_owned(), wire)
    });
    at_once(wires, |wire| {
        for header in [V1.to_vec(), v2(0x21, 0x11, &[ADDRESSES, &[0xee, 0, 1, 7]])] {
            let mut client = connect(wire.address()).unwrap();
            client.put(&header);
            let (mut client, mut backend) = meeting.introduce(client);
            exchange(&mut client, &mut backend, 3000);
            client.half_close();
            assert_eq!(backend.end(), End::Fin);
            backend.half_close();
            assert_eq!(client.end(), End::Fin);
        }
    });
    let lines = daemon.wait_for_sessions(0, 2 * RELAYS.len());
    for line in lines {
        assert_eq!(line.text("client"), "192.0.2.7:4711");
        assert!(line.has("cause", words::FINISHED), "{}", line.raw());
    }
}
