//! The PROXY protocol in both directions: whom a header is taken from, what it changes, what a backend
//! is sent; between Ballast and the proxies that other people wrote.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::support::{
    Backend, Config, DEADLINE, Daemon, End, Line, Meeting, Pattern, Peer, RELAYS, Server, Service,
    connect, connect_from, fresh_ip, installed, read_name, words,
};

/// Takes a header from this host's usual address, and from nobody else.
fn accepting(name: &str) -> Service {
    Service::new(name).proxy_protocol("accept_from", "127.0.0.1/32")
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 443\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The same in binary, with an addition that nobody knows and a name.
fn v2() -> Vec<u8> {
    let addresses = [192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x01, 0xbb];
    let additions = [&[0xee, 0, 3, 1, 2, 3, 5, 0, 4][..], b"id-1"].concat();
    [
        SIGNATURE,
        &[0x21, 0x11, 0, (addresses.len() + additions.len()) as u8],
        &addresses,
        &additions,
    ]
    .concat()
}

/// The line of the only session so far.
fn only_session(daemon: &Daemon) -> Arc<Line> {
    daemon.wait_for_sessions(0, 1).swap_remove(0)
}

/// A connection that is sent as it is written, byte by byte if need be.
fn undelayed(address: SocketAddr) -> TcpStream {
    let stream = connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

#[test]
fn the_client_is_who_the_header_says_and_every_byte_behind_it_is_relayed() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(
        &Config::of_each_relay(|service| {
            service
                .proxy_protocol("accept_from", "127.0.0.1/32")
                .backend("only", meeting.address())
        })
        .log_every_session(),
    );
    let mut sessions = 0;
    for relay in RELAYS {
        for header in [V1.to_vec(), v2()] {
            let mark = daemon.log().mark();
            let mut client = undelayed(daemon.address(relay));
            let proxy = client.local_addr().unwrap();
            client.put(&header);
            let (mut client, mut backend) = meeting.introduce(client);
            let (up, down) = (Pattern::new(1, 300_000), Pattern::new(2, 300_000));
            let sending = {
                let mut client = client.try_clone().unwrap();
                let up = up.clone();
                std::thread::spawn(move || {
                    up.send(&mut client).unwrap();
                    client.half_close();
                })
            };
            up.expect_then_end(&mut backend);
            sending.join().unwrap();
            down.send(&mut backend).unwrap();
            drop(backend);
            assert_eq!(down.expect_then_end(&mut client), End::Fin);
            let lines = daemon.wait_for_sessions(mark, 1);
            let line = &lines[0];
            assert_eq!(line.text("client"), "192.0.2.7:4711");
            assert_eq!(line.text("via"), proxy.to_string());
            // The header is not the backend's business.
            assert_eq!(line.number("to_backend"), 300_008);
            assert!(line.has("cause", words::FINISHED), "{}", line.raw());
            sessions += 1;
        }
    }
    assert_eq!(daemon.sessions(0).len(), sessions);
}

#[test]
fn a_header_may_come_in_any_pieces_and_with_what_follows_it() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        accepting("web").backend("only", backend.address()),
    ));
    let address = daemon.address("web");
    for header in [V1.to_vec(), v2()] {
        for pieces in [1, 2, 3, 7, header.len()] {
            let mut client = undelayed(address);
            for piece in header.chunks(header.len().div_ceil(pieces)) {
                client.put(piece);
            }
            assert_eq!(read_name(&mut client).unwrap(), "only");
            client.put(b"hello");
            client.get(b"hello");
        }
        let mut client = undelayed(address);
        client.put(&[&header[..], b"hello\r\nPROXY"].concat());
        client.half_close();
        client.get(b"only\nhello\r\nPROXY");
        assert_eq!(client.end(), End::Fin);
    }
}

#[test]
fn source_hash_goes_by_the_client_of_the_header() {
    let backends = [
        Backend::named("a"),
        Backend::named("b"),
        Backend::named("c"),
    ];
    let mut service = accepting("web").strategy("source-hash");
    for (name, backend) in ["a", "b", "c"].into_iter().zip(&backends) {
        service = service.backend(name, backend.address());
    }
    let daemon = Daemon::start(&Config::of(service));
    let address = daemon.address("web");
    let ask = |client: u8| {
        let mut stream = connect(address).unwrap();
        let line = format!("PROXY TCP4 192.0.2.{client} 198.51.100.1 1 2\r\n");
        stream.put(line.as_bytes());
        read_name(&mut stream).unwrap()
    };
    let names: Vec<_> = (0..40).map(ask).collect();
    for name in ["a", "b", "c"] {
        assert!(names.iter().any(|it| it == name), "{names:?}");
    }
    assert_eq!(names, (0..40).map(ask).collect::<Vec<_>>());
}

/// How the daemon ends a connection on which `bytes` come, and the line that tells it.
fn refused(bytes: &[u8], finish: bool) -> (End, Arc<Line>) {
    let backend = Backend::named("only");
    let service = accepting("web").proxy_protocol("timeout", "300ms");
    let daemon = Daemon::start(&Config::of(
        service.rare_health().backend("only", backend.address()),
    ));
    backend.wait_for_probe();
    let before = backend.accepted();
    let mut client = connect(daemon.address("web")).unwrap();
    client.put(bytes);
    if finish {
        client.half_close();
    }
    let end = client.end();
    let line = only_session(&daemon);
    assert_eq!(backend.accepted(), before, "nobody was dialled for");
    (end, line)
}

#[test]
fn whoever_sends_no_header_is_reset_and_told_why() {
    let mut summed = v2();
    summed.extend([3, 0, 4, 0, 0, 0, 0]);
    summed[15] += 7;
    for (bytes, finish, who, cause) in [
        (&b""[..], false, "ballast", words::TIMED_OUT),
        (
            V1.split_last().unwrap().1,
            false,
            "ballast",
            words::TIMED_OUT,
        ),
        (&v2()[..20], false, "ballast", words::TIMED_OUT),
        (b"", true, "client", words::BAD_HEADER),
        (
            V1.split_last().unwrap().1,
            true,
            "client",
            words::BAD_HEADER,
        ),
        (b"GET / HTTP/1.1\r\n", false, "ballast", words::BAD_HEADER),
        (
            b"PROXY TCP4 192.0.2.7\r\n",
            false,
            "ballast",
            words::BAD_HEADER,
        ),
        (&summed, false, "ballast", words::BAD_HEADER),
    ] {
        let (end, line) = refused(bytes, finish);
        assert_eq!(end, End::Reset, "{bytes:?}");
        assert!(line.has("phase", "proxy-header"), "{}", line.raw());
        assert!(line.has("who", who), "{}", line.raw());
        assert!(line.has("cause", cause), "{}", line.raw());
    }
}

#[test]
fn a_header_from_anybody_else_is_not_even_read() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        accepting("web").backend("only", backend.address()),
    ));
    let stranger = fresh_ip();
    let mut client = connect_from(stranger.into(), daemon.address("web")).unwrap();
    // It may be reset before it has said anything.
    client.write_all(V1).ok();
    assert_eq!(client.end(), End::Reset);
    let line = only_session(&daemon);
    assert!(line.text("client").starts_with(&stranger.to_string()));
    assert!(line.has("cause", words::UNTRUSTED), "{}", line.raw());
    assert!(line.has("phase", "proxy-header"), "{}", line.raw());
}

#[test]
fn a_proxy_that_connects_for_itself_is_the_client() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(
        &Config::of(accepting("web").backend("only", backend.address())).log_every_session(),
    );
    let local = [SIGNATURE, &[0x20, 0x11, 0, 3, 1, 2, 3]].concat();
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN 1.2.3.4 x\r\n",
        &local,
    ] {
        let mark = daemon.log().mark();
        let mut client = connect(daemon.address("web")).unwrap();
        let own = client.local_addr().unwrap();
        client.put(header);
        client.get(b"only\n");
        client.half_close();
        assert_eq!(client.end(), End::Fin);
        let lines = daemon.wait_for_sessions(mark, 1);
        assert_eq!(lines[0].text("client"), own.to_string());
        assert_eq!(lines[0].field("via"), None);
    }
}

/// A server that tells all that it is sent up to a full stop, of each connection.
fn hearing(at: SocketAddr) -> (Backend, Receiver<Vec<u8>>) {
    let (sender, heard) = channel();
    let backend = Backend::serve_at(at, move |mut stream| {
        let mut all = Vec::new();
        let mut byte = [0];
        while stream.read(&mut byte).is_ok_and(|read| read > 0) {
            all.push(byte[0]);
            if byte[0] == b'.' && all.ends_with(b"over.") {
                stream.write_all(b"heard\n").ok();
                break;
            }
        }
        sender.send(all).ok();
    });
    (backend, heard)
}

/// What a backend hears of a session, its probes passed over.
fn heard(words: &Receiver<Vec<u8>>) -> Vec<u8> {
    loop {
        let said = words.recv_timeout(DEADLINE).unwrap();
        if let Some(said) = said.strip_suffix(b"over.") {
            return said.to_vec();
        }
    }
}

fn own(ip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(ip.into(), 0)
}

/// One session, which says `words` and no more.
fn say(mut client: TcpStream, words: &[u8]) -> (SocketAddr, SocketAddr) {
    client.put(words);
    client.put(b"over.");
    client.get(b"heard\n");
    (client.local_addr().unwrap(), client.peer_addr().unwrap())
}

/// Version 2 as it is sent for a client, without additions.
fn binary(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let octets = |ip| match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (family, length) = if from.is_ipv4() {
        (0x11, 12)
    } else {
        (0x21, 36)
    };
    [
        SIGNATURE,
        &[0x21, family, 0, length],
        &octets(from.ip()),
        &octets(to.ip()),
        &from.port().to_be_bytes(),
        &to.port().to_be_bytes(),
    ]
    .concat()
}

#[test]
fn a_backend_is_told_the_addresses_of_its_client_in_both_families() {
    let (backend, words) = hearing(own(fresh_ip()));
    let service = |name: &str, version: &str| {
        Service::new(name)
            .also_listen("[::1]:0")
            .proxy_protocol("send", version)
            .backend("only", backend.address())
    };
    let daemon = Daemon::start(
        &Config::of(service("v1", "v1"))
            .service(service("v2", "v2"))
            .log_every_session(),
    );
    for address in daemon.addresses_since(0, "v1") {
        let (from, to) = say(connect(address).unwrap(), b"hello ");
        let family = if from.is_ipv4() { 4 } else { 6 };
        let (source, destination) = (from.ip(), to.ip());
        let expected = format!(
            "PROXY TCP{family} {source} {destination} {} {}\r\nhello ",
            from.port(),
            to.port()
        );
        assert_eq!(String::from_utf8(heard(&words)).unwrap(), expected);
    }
    for address in daemon.addresses_since(0, "v2") {
        let (from, to) = say(connect(address).unwrap(), b"hello ");
        assert_eq!(heard(&words), [&binary(from, to)[..], b"hello "].concat());
    }
    // It counts as relayed in no case.
    for line in daemon.wait_for_sessions(0, 4) {
        assert_eq!(line.number("to_backend"), 11, "{}", line.raw());
    }
}

#[test]
fn what_a_proxy_has_said_is_passed_on() {
    let (backend, words) = hearing(own(fresh_ip()));
    let daemon = Daemon::start(
        &Config::of(
            accepting("web")
                .proxy_protocol("send", "v2")
                .proxy_protocol("unique_id", true)
                .backend("only", backend.address()),
        )
        .log_every_session(),
    );
    let mut client = connect(daemon.address("web")).unwrap();
    client.put(&v2());
    say(client, b"");
    let said = heard(&words);
    let to = binary(
        "192.0.2.7:4711".parse().unwrap(),
        "198.51.100.1:443".parse().unwrap(),
    );
    assert_eq!(said[16..28], to[16..28]);
    assert_eq!(said[28..], *b"\x05\0\x04id-1");
    assert_eq!(only_session(&daemon).text("unique_id"), "id-1");
}

#[test]
fn a_name_for_the_connection_is_made_and_logged() {
    let (backend, words) = hearing(own(fresh_ip()));
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .proxy_protocol("send", "v2")
                .proxy_protocol("unique_id", true)
                .backend("only", backend.address()),
        )
        .log_every_session(),
    );
    let names: Vec<_> = (0..2)
        .map(|_| {
            say(connect(daemon.address("web")).unwrap(), b"");
            let said = heard(&words);
            assert_eq!(said[28..31], [5, 0, 32]);
            String::from_utf8(said[31..].to_vec()).unwrap()
        })
        .collect();
    assert_ne!(names[0], names[1]);
    let lines = daemon.wait_for_sessions(0, 2);
    let logged: Vec<_> = lines.iter().map(|line| line.text("unique_id")).collect();
    assert!(
        names.iter().all(|name| logged.contains(name)),
        "{names:?} {logged:?}"
    );
}

#[test]
fn a_backend_that_is_tried_instead_hears_the_header_once() {
    let mut dead = Backend::named("dead");
    let (backend, words) = hearing(own(fresh_ip()));
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .blind_health()
                .proxy_protocol("send", "v1")
                .backend("dead", dead.address())
                .backend("alive", backend.address()),
        )
        .log_every_session(),
    );
    daemon.wait_until_up(0, "dead");
    dead.refuse();
    for _ in 0..4 {
        let (from, to) = say(connect(daemon.address("web")).unwrap(), b"");
        let (source, destination) = (from.ip(), to.ip());
        let expected = format!(
            "PROXY TCP4 {source} {destination} {} {}\r\n",
            from.port(),
            to.port()
        );
        assert_eq!(String::from_utf8(heard(&words)).unwrap(), expected);
    }
    let lines = daemon.wait_for_sessions(0, 4);
    assert!(lines.iter().any(|line| line.number("attempts") == 2));
}

#[test]
fn probes_say_that_nobody_is_behind_them() {
    let (backend, words) = hearing(own(fresh_ip()));
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .quick_health()
            .proxy_protocol("send", "v2")
            .backend("only", backend.address()),
    ));
    daemon.wait_until_up(0, "only");
    let said = words.recv_timeout(DEADLINE).unwrap();
    assert_eq!(said, [SIGNATURE, &[0x20, 0, 0, 0]].concat());
}

#[test]
fn a_reload_changes_whose_header_is_taken_and_what_is_sent() {
    let (backend, words) = hearing(own(fresh_ip()));
    let plain = Service::new("web")
        .listen(own(fresh_ip()))
        .backend("only", backend.address());
    let daemon = Daemon::start(&Config::of(plain.clone()));
    let address = daemon.address("web");
    say(connect(address).unwrap(), b"plain ");
    assert_eq!(heard(&words), b"plain ");
    let line = daemon.reload(&Config::of(
        plain
            .clone()
            .proxy_protocol("accept_from", "127.0.0.1")
            .proxy_protocol("send", "v1"),
    ));
    assert!(
        line.text("plan").contains("services +0 -0 ~1"),
        "{}",
        line.raw()
    );
    let mut client = connect(address).unwrap();
    client.put(V1);
    say(client, b"proxied ");
    assert_eq!(heard(&words), [V1, b"proxied "].concat());
    daemon.reload(&Config::of(plain));
    say(connect(address).unwrap(), b"plain ");
    assert_eq!(heard(&words), b"plain ");
}

/// What a web server answers to a client that is not the one who connects to it.
fn page(mut client: TcpStream) -> String {
    client.put(b"GET /who HTTP/1.0\r\n\r\n");
    let mut page = String::new();
    client.read_to_string(&mut page).unwrap();
    page.lines().last().unwrap_or_default().to_owned()
}

#[test]
fn nginx_and_haproxy_learn_the_client_from_us() {
    if !installed(&["nginx", "haproxy"]) {
        return;
    }
    let servers = [
        Server::nginx_behind_a_proxy(),
        Server::haproxy_behind_a_proxy(),
    ];
    for server in &servers {
        let service = |name: &str, version: &str| {
            Service::new(name)
                .also_listen("[::1]:0")
                .health("kind", "http")
                .health("path", "/who")
                .proxy_protocol("send", version)
                .proxy_protocol("unique_id", version == "v2")
                .backend("only", server.address())
        };
        let config = Config::of(service("v1", "v1")).service(service("v2", "v2"));
        let daemon = Daemon::start(&config);
        for version in ["v1", "v2"] {
            daemon
                .log()
                .wait(0, "its checks bring the header, too", |line| {
                    line.says(words::BACKEND_UP) && line.has("service", version)
                });
            for address in daemon.addresses_since(0, version) {
                let client = connect(address).unwrap();
                let own = client.local_addr().unwrap();
                let expected = format!("{} {}", own.ip(), own.port());
                assert!(page(client).starts_with(&expected), "{expected}");
            }
        }
    }
}

#[test]
fn haproxy_reads_the_name_that_we_give_a_connection() {
    if !installed(&["haproxy"]) {
        return;
    }
    let server = Server::haproxy_behind_a_proxy();
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .proxy_protocol("send", "v2")
                .proxy_protocol("unique_id", true)
                .backend("only", server.address()),
        )
        .log_every_session(),
    );
    let page = page(connect(daemon.address("web")).unwrap());
    let name = only_session(&daemon).text("unique_id");
    assert!(page.ends_with(&name), "{page} {name}");
}

#[test]
fn we_learn_the_client_from_nginx_and_haproxy() {
    if !installed(&["nginx", "haproxy"]) {
        return;
    }
    let backend = Backend::named("only");
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .proxy_protocol("accept_from", "127.0.0.0/8")
                .backend("only", backend.address()),
        )
        .log_every_session(),
    );
    let address = daemon.address("web");
    let proxies = [
        Server::haproxy_in_front_of(address, "send-proxy"),
        Server::haproxy_in_front_of(address, "send-proxy-v2 proxy-v2-options crc32c,unique-id"),
        Server::nginx_in_front_of(address),
    ];
    for proxy in &proxies {
        let source = fresh_ip();
        let mut client = connect_from(source.into(), proxy.address()).unwrap();
        let own = client.local_addr().unwrap().to_string();
        client.get(b"only\n");
        client.put(b"hello");
        client.get(b"hello");
        client.half_close();
        assert_eq!(client.end(), End::Fin);
        let line = daemon.wait_for(0, words::SESSION, "client", &own);
        assert!(line.has("cause", words::FINISHED), "{}", line.raw());
        assert!(line.text("via").starts_with("127."), "{}", line.raw());
    }
}

#[test]
fn two_of_us_in_a_row_pass_a_client_on() {
    let (backend, words) = hearing(own(fresh_ip()));
    let inner = Daemon::start(&Config::of(
        Service::new("inner")
            .proxy_protocol("accept_from", "127.0.0.0/8")
            .proxy_protocol("send", "v2")
            .backend("only", backend.address()),
    ));
    let outer = Daemon::start(&Config::of(
        Service::new("outer")
            .quick_health()
            .proxy_protocol("send", "v1")
            .backend("inner", inner.address("inner")),
    ));
    let (from, to) = say(connect(outer.address("outer")).unwrap(), b"hello ");
    assert_eq!(heard(&words), [&binary(from, to)[..], b"hello "].concat());
    outer.wait_until_up(0, "inner");
}

#[test]
fn many_who_never_send_their_header_hold_nobody_up() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        accepting("web")
            .proxy_protocol("timeout", "1s")
            .backend("only", backend.address()),
    ));
    let address = daemon.address("web");
    let mut slow: Vec<_> = (0..300)
        .map(|number| {
            let mut client = undelayed(address);
            client.put(&V1[..number % V1.len()]);
            client
        })
        .collect();
    for _ in 0..20 {
        let mut client = connect(address).unwrap();
        client.put(V1);
        assert_eq!(read_name(&mut client).unwrap(), "only");
    }
    let ticks = daemon.cpu_ticks_during(Duration::from_millis(500));
    assert!(ticks < 20, "{ticks} of 50 ticks while nothing came");
    for client in &mut slow {
        assert_eq!(client.end(), End::Reset);
    }
}

#[test]
fn check_explains_what_is_wrong() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = Config::of(
        Service::new("web")
            .proxy_protocol("accept_from", "10.0.0.1/8")
            .proxy_protocol("send", "v3")
            .backend("only", SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 1)),
    )
    .text();
    std::fs::write(file.path(), text).unwrap();
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["check", "-c"])
        .arg(file.path())
        .output()
        .unwrap();
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    assert!(!out.status.success(), "{said}");
    assert!(
        said.contains("write \"10.0.0.0/8\", or \"10.0.0.1\""),
        "{said}"
    );
    assert!(said.contains("allowed: \"v1\", \"v2\""), "{said}");
}
