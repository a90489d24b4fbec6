//! Sockets as operators ask for them: where connections to backends come from, and how TCP behaves on either
//! side. What was set is read back from the daemon's own sockets, or seen on the wire.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::support::netns::{Host, has_run_alone, ip, lose, nft, sysctl};
use crate::support::{
    Api, Backend, Config, Daemon, End, Launch, Meeting, Pattern, RELAYS, Service, ask_name,
    ballast, connect, connect_fast, connect_from, eventually, fresh_ip, name_and_part, read_name,
    run, sockets, words,
};

const RENO: &[u8] = b"reno\0";

/// The daemon's end of a connection whose other end is `stream`.
fn facing(daemon: &Daemon, stream: &TcpStream) -> Socket {
    let (own, peer) = (stream.peer_addr().unwrap(), stream.local_addr().unwrap());
    eventually("the daemon has that connection", || {
        sockets(daemon.pid())
            .into_iter()
            .find(|socket| (local(socket), remote(socket)) == (Some(own), Some(peer)))
    })
}

fn local(socket: &Socket) -> Option<SocketAddr> {
    socket.local_addr().ok()?.as_socket()
}

fn remote(socket: &Socket) -> Option<SocketAddr> {
    socket.peer_addr().ok()?.as_socket()
}

fn assert_keepalive(socket: &Socket, idle: u64, interval: u64, count: u32) {
    assert!(socket.keepalive().unwrap());
    assert_eq!(socket.tcp_keepalive_time().unwrap().as_secs(), idle);
    assert_eq!(socket.tcp_keepalive_interval().unwrap().as_secs(), interval);
    assert_eq!(socket.tcp_keepalive_retries().unwrap(), count);
}

#[test]
fn what_a_file_says_is_on_the_sockets_of_both_sides_and_a_reload_changes_those_to_come() {
    let meeting = Meeting::new();
    let service = Service::new("web")
        .rare_health()
        .backend("only", meeting.address());
    let tuned = service
        .clone()
        .socket("keepalive_idle", "7s")
        .socket("keepalive_interval", "3s")
        .socket("keepalive_count", 4)
        .socket("user_timeout", "33s")
        .socket("congestion", "reno")
        .socket("mss", 1000);
    let daemon = Daemon::start(&Config::of(tuned));
    let address = daemon.address("web");
    let (client, backend) = meeting.session(address);
    let sides = [facing(&daemon, &client), facing(&daemon, &backend)];
    for socket in &sides {
        assert_keepalive(socket, 7, 3, 4);
        let timeout = socket.tcp_user_timeout().unwrap();
        assert_eq!(timeout, Some(Duration::from_secs(33)));
        assert!(socket.tcp_congestion().unwrap().starts_with(RENO));
        let mss = socket.tcp_mss().unwrap();
        assert!((500..=1000).contains(&mss), "{mss}");
    }

    // The listener stays, and so do its clients.
    daemon.reload(&Config::of(service.listen(address)));
    for socket in &sides {
        assert_keepalive(socket, 7, 3, 4);
    }
    let (client, backend) = meeting.session(address);
    let side = facing(&daemon, &client);
    assert_keepalive(&side, 60, 10, 6);
    assert_eq!(side.tcp_user_timeout().unwrap(), None);
    assert!(!side.tcp_congestion().unwrap().starts_with(RENO));
    assert!(side.tcp_mss().unwrap() > 1000);
    let side = facing(&daemon, &backend);
    assert_eq!(side.tcp_user_timeout().unwrap(), None);
    assert!(!side.tcp_congestion().unwrap().starts_with(RENO));
    assert!(side.tcp_mss().unwrap() > 1000);
}

#[test]
fn what_the_kernel_denies_is_refused_at_check_at_the_start_and_at_a_reload() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let daemon = Daemon::start(&Config::of(service.clone()));
    let service = service.listen(daemon.address("web"));
    for (key, value, why) in [
        ("congestion", "nosuch", "there is no congestion control"),
        ("source", "192.0.2.1", "no interface of this host"),
        ("interface", "nosuch0", "none of that name"),
        ("listen_interface", "nosuch0", "none of that name"),
    ] {
        let text = Config::of(service.clone().socket(key, value)).text();
        let line = daemon.reload_rejected(&text);
        assert!(line.text("problems").contains(why), "{}", line.raw());
        let said = ballast(&daemon.beside("ballast.toml"), &["check"]);
        said.exits_with(1);
        assert!(said.stderr.contains(why), "{}", said.stderr);
        assert!(said.stderr.contains(key), "{}", said.stderr);
        let (status, said) = Launch::new().refuse(&text);
        assert_eq!(status.code(), Some(1));
        assert!(said.contains(why), "{said}");
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "only");
    }
}

#[test]
fn connections_come_from_the_sources_of_the_pool_and_so_do_probes() {
    let meeting = Meeting::new();
    let pool: Vec<IpAddr> = (0..3).map(|_| fresh_ip().into()).collect();
    let written: Vec<_> = pool.iter().map(ToString::to_string).collect();
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .quick_health()
            .socket("source", written)
            .backend("only", meeting.address()),
    ));
    daemon.wait_until_up(0, "only");
    let mut seen = HashSet::new();
    eventually("every source is used", || {
        let (_client, backend) = meeting.session(daemon.address("web"));
        let source = backend.peer_addr().unwrap().ip();
        assert!(pool.contains(&source), "{source}");
        seen.insert(source);
        (seen.len() == pool.len()).then_some(())
    });
}

#[test]
fn a_client_that_says_nothing_is_not_accepted_while_accepting_is_deferred() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(
        &Config::of(
            Service::new("web")
                .socket("defer_accept", "30s")
                .backend("only", backend.address()),
        )
        .log_every_session(),
    );
    let address = daemon.address("web");
    let silent = connect(address).unwrap();
    let mut speaking = connect(address).unwrap();
    speaking.write_all(b"x").unwrap();
    assert_eq!(read_name(&mut speaking).unwrap(), "only");
    drop(speaking);
    let line = daemon.wait_for_sessions(0, 1);
    let silent = silent.local_addr().unwrap().to_string();
    assert!(!line[0].has("client", &silent), "{}", line[0].raw());
}

#[test]
fn clients_come_by_multipath_tcp_and_by_plain_tcp() {
    for relay in RELAYS {
        let meeting = Meeting::new();
        let daemon = Daemon::start(&Config::of(
            Service::new("web")
                .relay(relay)
                .socket("mptcp", true)
                .backend("only", meeting.address()),
        ));
        let address = daemon.address("web");
        for protocol in [Protocol::MPTCP, Protocol::TCP] {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(protocol)).unwrap();
            socket.connect(&address.into()).unwrap();
            let (mut client, mut backend) = meeting.introduce(socket.into());
            let port = client.local_addr().unwrap().port().to_string();
            let shown = run(std::process::Command::new("ss").args([
                "-Htni",
                "state",
                "established",
                "dport",
                "=",
                &format!(":{port}"),
            ]));
            let is_multipath = shown.contains("tcp-ulp-mptcp");
            assert_eq!(is_multipath, protocol == Protocol::MPTCP, "{shown}");
            let (there, back) = (Pattern::new(1, 3_000_000), Pattern::new(2, 3_000_000));
            std::thread::scope(|scope| {
                let mut writer = client.try_clone().unwrap();
                scope.spawn(move || {
                    there.send(&mut writer).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let expected = Pattern::new(1, 3_000_000);
                scope.spawn(move || {
                    assert_eq!(expected.expect_then_end(&mut backend), End::Fin);
                    back.send(&mut backend).unwrap();
                });
                let expected = Pattern::new(2, 3_000_000);
                assert_eq!(expected.expect_then_end(&mut client), End::Fin);
            });
        }
        // A session that breaks off is seen to have.
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::MPTCP)).unwrap();
        socket.connect(&address.into()).unwrap();
        let (mut client, backend) = meeting.introduce(socket.into());
        crate::support::abort(backend);
        assert!(client.read(&mut [0]).is_err());
    }
}

/// Row 15 of the faults.
#[test]
fn port_exhaustion_tries_the_next_source_then_the_next_backend() {
    if has_run_alone(port_exhaustion_tries_the_next_source_then_the_next_backend) {
        return;
    }
    // Over TCP, asking would take one of the few ports.
    let directory = tempfile::tempdir().unwrap();
    let admin = directory.path().join("admin");
    let check = Backend::named("check");
    let backends = [Meeting::new(), Meeting::new()];
    let pool = [fresh_ip(), fresh_ip()];
    let mut service = Service::new("web")
        .rare_health()
        .socket("source", pool.map(|it| it.to_string()).to_vec());
    for (name, backend) in ["a", "b"].into_iter().zip(&backends) {
        service = service
            .backend(name, backend.address())
            .check_address(name, check.address());
    }
    let config = Config::of(service)
        .admin("listen", format!("unix:{}", admin.display()))
        .log_every_session();
    let daemon = Daemon::start(&config);
    for name in ["a", "b"] {
        daemon.wait_until_up(0, name);
    }
    let api = Api::unix(&admin);
    let exhausted = || {
        let text = api.get("/metrics").text().to_owned();
        let mut lines = text.lines();
        let line = lines.find(|it| it.starts_with("ballast_listener_ports_exhausted_total"));
        let value = line.and_then(|it| it.rsplit(' ').next()?.parse::<u64>().ok());
        value.unwrap_or_else(|| panic!("{text}"))
    };
    assert_eq!(exhausted(), 0);
    // Two ports for each source and backend: eight sessions in all. Clients have ports of their own.
    sysctl("net.ipv4.ip_local_port_range", "40000 40001");
    let address = daemon.address("web");
    let client = |number: u8| {
        let source = SocketAddr::from((Ipv4Addr::new(127, 200, 0, number), 50_000));
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&address.into()).unwrap();
        TcpStream::from(socket)
    };
    let served = || {
        let all = sockets(daemon.pid()).into_iter();
        all.filter(|socket| {
            let is_it = |it: &Meeting| Some(it.address()) == remote(socket);
            backends.iter().any(is_it)
        })
        .collect::<Vec<_>>()
    };
    let mut open: Vec<TcpStream> = Vec::new();
    for number in 1..=8 {
        open.push(client(number));
        // One after the other: of two at once, one may find the last port in the other's hands.
        eventually("the session is served", || {
            (served().len() == usize::from(number)).then_some(())
        });
    }
    let mark = daemon.log().mark();
    let mut unserved = client(9);
    assert!(unserved.read(&mut [0]).is_err());
    let line = daemon
        .log()
        .wait(mark, words::SESSION, |line| line.says(words::SESSION));
    assert!(line.text("cause").contains("ports"), "{}", line.raw());
    assert_eq!(line.text("who"), "ballast");
    assert_eq!(line.number("attempts"), 2);
    // Two sources of two backends each.
    eventually("it is counted", || (exhausted() >= 4).then_some(()));
    // Nobody of the eight noticed, and who goes makes room.
    let sources: HashSet<_> = served().iter().map(|it| local(it).unwrap().ip()).collect();
    assert_eq!(sources, pool.map(IpAddr::from).into());
    let gone = open.pop().unwrap();
    let mark = daemon.log().mark();
    crate::support::abort(gone);
    daemon
        .log()
        .wait(mark, words::SESSION, |line| line.says(words::SESSION));
    // Its line may come before its port is free again.
    eventually("its connection is closed", || {
        (served().len() == 7).then_some(())
    });
    let mark = daemon.log().mark();
    let late = client(10);
    eventually("the new session is served", || {
        (served().len() == 8).then_some(())
    });
    assert!(daemon.sessions(mark).is_empty());
    drop((late, open));
}

/// Row 35 of the faults.
#[test]
fn a_vanished_host_is_reaped_by_keepalive_or_by_the_user_timeout() {
    if has_run_alone(a_vanished_host_is_reaped_by_keepalive_or_by_the_user_timeout) {
        return;
    }
    let silent = Meeting::new();
    let spoken_to = Meeting::new();
    let others = Meeting::new();
    let service = |name: &str, meeting: &Meeting| {
        Service::new(name)
            .blind_health()
            .backend("only", meeting.address())
    };
    let keepalive = |service: Service| {
        service
            .socket("keepalive_idle", "1s")
            .socket("keepalive_interval", "1s")
            .socket("keepalive_count", 2)
    };
    let config = Config::of(keepalive(service("silent", &silent)))
        .service(service("spoken-to", &spoken_to).socket("user_timeout", "1s"))
        .service(keepalive(service("client", &others)))
        .log_every_session();
    let daemon = Daemon::start(&config);
    let (mut client, _backend) = silent.session(daemon.address("silent"));
    let (mut speaker, _other_backend) = spoken_to.session(daemon.address("spoken-to"));
    let source = IpAddr::from(fresh_ip());
    let lost = connect_from(source, daemon.address("client")).unwrap();
    let (_lost, mut left) = others.introduce(lost);
    let mark = daemon.log().mark();
    lose(silent.address().ip());
    nft(&format!(
        "add rule inet lost i ip daddr {0} drop; add rule inet lost i ip saddr {0} drop; \
         add rule inet lost i ip daddr {1} drop; add rule inet lost i ip saddr {1} drop",
        spoken_to.address().ip(),
        source
    ));
    speaker.write_all(b"hello?").unwrap();
    // Each is reset, rather than left hanging or told a clean end.
    for stream in [&mut client, &mut speaker, &mut left] {
        assert!(stream.read(&mut [0]).is_err());
    }
    for (service, who) in [
        ("silent", "backend"),
        ("spoken-to", "backend"),
        ("client", "client"),
    ] {
        let line = daemon.wait_for(mark, words::SESSION, "service", service);
        assert_eq!(line.text("who"), who, "{}", line.raw());
        assert_eq!(line.text("cause"), words::TIMED_OUT, "{}", line.raw());
    }
}

#[test]
fn backends_see_the_client_itself_as_the_source_under_the_documented_rules() {
    if has_run_alone(backends_see_the_client_itself_as_the_source_under_the_documented_rules) {
        return;
    }
    let clients = Host::beyond("clients", "10.78.0.1", "10.78.0.2");
    let servers = Host::beyond("servers", "10.77.0.1", "10.77.0.2");
    sysctl("net.ipv4.ip_forward", "1");
    // As the README has them.
    nft("add table ip ballast; \
         add chain ip ballast divert { type filter hook prerouting priority mangle; }; \
         add rule ip ballast divert meta l4proto tcp socket transparent 1 meta mark set 1 accept");
    ip("rule add fwmark 1 lookup 100");
    ip("route add local default dev lo table 100");
    let backend = servers.within(|| {
        let address = "10.77.0.2:8080".parse().unwrap();
        Backend::serve_at(address, |mut stream: TcpStream| {
            let from = stream.peer_addr().map(|it| it.ip().to_string());
            // A probe leaves before it is greeted.
            let _ = stream.write_all(format!("{}\n", from.unwrap_or_default()).as_bytes());
            let _ = std::io::copy(&mut stream.try_clone().unwrap(), &mut stream);
        })
    });
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .quick_health()
            .listen("10.78.0.1:80")
            .socket("source", "client")
            .backend("only", backend.address()),
    ));
    daemon.wait_until_up(0, "only");
    let address = daemon.address("web");
    let seen = clients.within(move || name_and_part(connect(address).unwrap()).unwrap());
    assert_eq!(seen, "10.78.0.2");
}

#[test]
fn packets_to_backends_are_marked_and_leave_by_their_interface() {
    if has_run_alone(packets_to_backends_are_marked_and_leave_by_their_interface) {
        return;
    }
    // Two ways to one address: by the one with the mark there is somebody.
    let servers = Host::beyond("there", "10.77.0.1", "10.77.0.2");
    let _nobody = Host::beyond("nowhere", "10.79.0.1", "10.79.0.2");
    ip("route replace 10.80.0.1/32 via 10.79.0.2");
    ip("rule add fwmark 7 lookup 107");
    ip("route add 10.80.0.1/32 via 10.77.0.2 table 107");
    let backend = servers.within(|| {
        ip("addr add 10.80.0.1/32 dev lo");
        Backend::named_at("10.80.0.1:8080".parse().unwrap(), "marked")
    });
    let by_interface =
        servers.within(|| Backend::named_at("10.77.0.2:8080".parse().unwrap(), "by-interface"));
    let config = Config::of(
        Service::new("web")
            .quick_health()
            .socket("mark", 7)
            .backend("marked", backend.address()),
    )
    .service(
        Service::new("device")
            .quick_health()
            .socket("interface", "there")
            .socket("listen_interface", "lo")
            .backend("by-interface", by_interface.address()),
    );
    let daemon = Daemon::start(&config);
    for name in ["marked", "by-interface"] {
        daemon.wait_until_up(0, name);
    }
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "marked");
    let mut stream = connect(daemon.address("device")).unwrap();
    assert_eq!(read_name(&mut stream).unwrap(), "by-interface");
    let to_backend = sockets(daemon.pid())
        .into_iter()
        .find(|socket| remote(socket) == Some(by_interface.address()))
        .unwrap();
    assert_eq!(to_backend.device().unwrap().unwrap(), b"there");
    let to_client = facing(&daemon, &stream);
    assert_eq!(to_client.device().unwrap().unwrap(), b"lo");
    drop(stream);

    // Elsewhere nobody answers, for sessions and for probes.
    let mark = daemon.log().mark();
    daemon.reload(
        &Config::of(
            Service::new("web")
                .listen(daemon.address("web"))
                .quick_health()
                .socket("interface", "nowhere")
                .backend("marked", backend.address()),
        )
        .runtime("reload_guard", "off"),
    );
    daemon.wait_until_down(mark, "marked");
}

#[test]
fn an_interface_of_a_listener_stays_until_a_restart_and_its_other_options_change() {
    let backend = Backend::named("only");
    let service = Service::new("web").quick_health();
    let service = service.backend("only", backend.address());
    let bound = service.clone().socket("listen_interface", "lo");
    let daemon = Daemon::start(&Config::of(bound));
    let address = daemon.address("web");
    let mark = daemon.log().mark();
    daemon.reload(&Config::of(service.socket("keepalive_idle", "7s")));
    daemon.log().wait(mark, "what takes a restart", |line| {
        line.says("takes effect after a restart only")
            && line.text("what").starts_with("listen_interface of ")
    });
    let mut stream = connect(address).unwrap();
    assert_eq!(read_name(&mut stream).unwrap(), "only");
    let to_client = facing(&daemon, &stream);
    assert_eq!(to_client.device().unwrap().unwrap(), b"lo");
    assert_eq!(
        to_client.tcp_keepalive_time().unwrap(),
        Duration::from_secs(7)
    );
}

#[test]
fn a_syn_brings_the_first_bytes_of_clients_and_takes_them_on_to_backends() {
    if has_run_alone(a_syn_brings_the_first_bytes_of_clients_and_takes_them_on_to_backends) {
        return;
    }
    let text = |service: Service| {
        Config::of(
            service
                .socket("fast_open", "both")
                .socket("defer_accept", "5s"),
        )
        .text()
    };
    // The switch of the kernel is off for what is accepted.
    sysctl("net.ipv4.tcp_fastopen", "1");
    let nowhere = Service::new("web").backend("only", "127.0.0.1:1".parse().unwrap());
    let (_, said) = Launch::new().refuse(&text(nowhere));
    assert!(said.contains("net.ipv4.tcp_fastopen is 1"), "{said}");
    sysctl("net.ipv4.tcp_fastopen", "3");

    let backend = Backend::named("only");
    let inner = Daemon::start(&Config::of(
        Service::new("inner")
            .socket("fast_open", "clients")
            .backend("only", backend.address()),
    ));
    let daemon = Launch::new().start_text(&text(
        Service::new("web").backend("inner", inner.address("inner")),
    ));
    let address = daemon.address("web");
    // The first of each asks for a cookie; the later ones have it.
    for _ in 0..3 {
        let (mut client, sent) = connect_fast(address, b"hello ").unwrap();
        assert_eq!(sent, 6);
        client.write_all(b"world").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).unwrap();
        assert_eq!(said, "only\nhello world");
    }
    // Two of the client's, two of the daemon's, each accepted as such.
    assert_eq!(fast_opens(), (4, 4));
    let inside = inner.sessions(0);
    assert!(inside.is_empty(), "{inside:?}");
}

/// Connects whose first bytes were acknowledged with the SYN, made and accepted in this network.
fn fast_opens() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/net/netstat").unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let pairs = names.split(' ').zip(values.split(' '));
    let count = |name: &str| {
        let (_, value) = pairs.clone().find(|(it, _)| *it == name).unwrap();
        value.parse::<u64>().unwrap()
    };
    (count("TCPFastOpenActive"), count("TCPFastOpenPassive"))
}

#[test]
fn bytes_that_come_and_go_in_a_syn_count_towards_the_bandwidth() {
    const LENGTH: u64 = 300_000;
    /// Less the burst, at a megabyte a second.
    const LEAST: Duration = Duration::from_millis(200);
    if has_run_alone(bytes_that_come_and_go_in_a_syn_count_towards_the_bandwidth) {
        return;
    }
    sysctl("net.ipv4.tcp_fastopen", "3");
    let backend = Backend::named("only");
    let inner = Daemon::start(&Config::of(
        Service::new("inner")
            .socket("fast_open", "clients")
            .backend("only", backend.address()),
    ));
    let of_each = Config::of_each_relay(|service| {
        service
            .socket("fast_open", "both")
            .limits("to_backend_per_session", "1MB/s")
            .backend("inner", inner.address("inner"))
    });
    let daemon = Daemon::start(&of_each.log_every_session());
    for relay in RELAYS {
        let (address, mark) = (daemon.address(relay), daemon.log().mark());
        for seed in 1..=3 {
            let pattern = Pattern::new(seed, LENGTH);
            let began = Instant::now();
            let (mut client, first) = connect_fast(address, pattern.piece(0, 40_000)).unwrap();
            let (mut writer, sent) = (client.try_clone().unwrap(), pattern.clone());
            let writing = thread::spawn(move || {
                let mut offset = first as u64;
                while offset < LENGTH {
                    offset += sent.send_some(&mut writer, offset, 64 << 10).unwrap();
                }
                writer.shutdown(Shutdown::Write).unwrap();
            });
            assert_eq!(read_name(&mut client).unwrap(), "only");
            assert_eq!(pattern.expect_then_end(&mut client), End::Fin);
            writing.join().unwrap();
            let took = began.elapsed();
            assert!(took >= LEAST, "{relay}: {took:?}");
        }
        for line in daemon.wait_for_sessions(mark, 3) {
            assert!(line.has("cause", words::FINISHED), "{}", line.raw());
            assert_eq!(line.number("to_backend"), LENGTH);
            assert!(line.field("slowed_ms").is_some(), "{}", line.raw());
        }
    }
    // The first of each asked for a cookie.
    let (made, accepted) = fast_opens();
    assert!(made >= 12 && accepted >= 12, "{made} {accepted}");
}
