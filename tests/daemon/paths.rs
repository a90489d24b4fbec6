//! Unix sockets, of clients and of backends: the same promises, where there are no addresses.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use ballast::api;
use socket2::{Domain, SockAddr, Socket, Type};
use tempfile::TempDir;

use crate::support::paths::{at, dial, serve};
use crate::support::{
    Backend, Config, DEADLINE, Daemon, End, Pattern, RELAYS, Server, Service, Signal, ask_name,
    connect, eventually, installed, read_name, run, words,
};

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

#[test]
fn bytes_cross_between_paths_and_addresses_and_each_end_is_passed_on() {
    for relay in RELAYS {
        let place = Place::new();
        let (listen, server) = (place.path("listen"), place.path("server"));
        serve(&server, "path");
        let backend = Backend::named("address");
        let to_path = Service::new("to-path")
            .relay(relay)
            .placed("path", "address", &at(&server));
        let from_path = Service::new("from-path")
            .relay(relay)
            .listen(at(&listen))
            .backend("address", backend.address());
        let both = Service::new("both")
            .relay(relay)
            .listen(at(&place.path("both")))
            .placed("path", "address", &at(&server));
        let daemon = Daemon::start(
            &Config::of(to_path)
                .service(from_path)
                .service(both)
                .log_every_session(),
        );
        let streams = [
            (connect(daemon.address("to-path")).unwrap(), "path"),
            (dial(&listen).unwrap(), "address"),
            (dial(&place.path("both")).unwrap(), "path"),
        ];
        let mark = daemon.log().mark();
        for (seed, (mut stream, name)) in (1..).zip(streams) {
            assert_eq!(read_name(&mut stream).unwrap(), name);
            let pattern = Pattern::new(seed, 8_000_000);
            let mut writer = stream.try_clone().unwrap();
            let sent = pattern.clone();
            let writing = thread::spawn(move || {
                sent.send(&mut writer).unwrap();
                writer.shutdown(Shutdown::Write).unwrap();
            });
            // What is sent back ends after the client has ended.
            assert_eq!(pattern.expect_then_end(&mut stream), End::Fin);
            writing.join().unwrap();
        }
        for line in daemon.wait_for_sessions(mark, 3) {
            assert_eq!(line.text("cause"), words::FINISHED, "{}", line.raw());
            assert_eq!(line.number("to_backend"), 8_000_000);
        }
    }
}

#[test]
fn a_reader_that_pauses_holds_the_writer_up_and_loses_nothing() {
    for relay in RELAYS {
        let place = Place::new();
        let (listen, server) = (place.path("listen"), place.path("server"));
        serve(&server, "path");
        let daemon = Daemon::start(&Config::of(
            Service::new("web").relay(relay).listen(at(&listen)).placed(
                "path",
                "address",
                &at(&server),
            ),
        ));
        let mut stream = dial(&listen).unwrap();
        assert_eq!(read_name(&mut stream).unwrap(), "path");
        // Until nothing on the way takes any more.
        let sent = Pattern::new(9, u64::MAX >> 1).fill(&mut stream);
        stream.set_nonblocking(false).unwrap();
        sent.expect_in(&mut stream, 777);
        assert!(daemon.sessions(0).is_empty());
    }
}

#[test]
fn a_busy_session_meets_a_limit_to_bandwidth_that_is_new() {
    let place = Place::new();
    let (listen, server) = (place.path("listen"), place.path("server"));
    serve(&server, "path");
    let with = |limit: Option<&str>| {
        let service = Service::new("web")
            .listen(at(&listen))
            .timeout("idle", "2s")
            .placed("path", "address", &at(&server));
        let service = match limit {
            Some(limit) => service.limits("to_client", limit),
            None => service,
        };
        Config::of(service).admin("listen", "127.0.0.1:0")
    };
    let daemon = Daemon::start(&with(None));
    let mut stream = dial(&listen).unwrap();
    assert_eq!(read_name(&mut stream).unwrap(), "path");
    // Busy for so long that its first check is behind it.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(3) {
        let mut said = *b"hello";
        stream.write_all(&said).unwrap();
        stream.read_exact(&mut said).unwrap();
    }
    daemon.reload(&with(Some("10KB/s")));
    let bulk = Pattern::new(1, u64::MAX >> 1);
    let (mut writer, sent) = (stream.try_clone().unwrap(), bulk.clone());
    let writing = thread::spawn(move || drop(sent.send(&mut writer)));
    let reading = thread::spawn(move || bulk.receive(&mut stream));
    let api = daemon.api();
    eventually("it is slowed down", || {
        let service = api.get("/v1/services/web").good::<api::Service>();
        let slowed = service.throttling.iter().any(|it| it.slowed_total == 1);
        slowed.then_some(())
    });
    daemon.signal(Signal::KILL);
    reading.join().unwrap();
    writing.join().unwrap();
}

#[test]
fn the_socket_of_a_listener_has_its_mode_and_goes_with_it() {
    let place = Place::new();
    let path = place.path("web");
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let listening = |mode: &str| {
        let service = service.clone().listen(at(&path));
        Config::of(service.socket("mode", mode))
    };
    let mode = || fs::metadata(&path).unwrap().mode() & 0o777;
    let mut daemon = Daemon::start(&listening("0660"));
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    assert_eq!(mode(), 0o660);
    let mut held = dial(&path).unwrap();
    assert_eq!(read_name(&mut held).unwrap(), "only");

    daemon.reload(&listening("0666"));
    eventually("the mode changes", || (mode() == 0o666).then_some(()));
    // Elsewhere, and back before the old socket is closed.
    daemon.reload(&Config::of(service.clone()));
    assert!(!path.exists());
    daemon.reload(&listening("0666"));
    let mut stream = dial(&path).unwrap();
    assert_eq!(read_name(&mut stream).unwrap(), "only");
    // Another daemon does not get it.
    let (_, said) = crate::support::Launch::new().refuse(&listening("0666").text());
    assert!(said.contains("another process"), "{said}");

    // Whoever was served all the while still is.
    held.write_all(b"still\n").unwrap();
    assert_eq!(read_name(&mut held).unwrap(), "still");
    held.shutdown(Shutdown::Both).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    daemon.signal(crate::support::Signal::TERM);
    daemon.wait_until_stopped();
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn a_reload_that_is_rejected_leaves_nothing_at_its_paths_and_has_let_nobody_in() {
    let place = Place::new();
    let backend = Backend::named("only");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let web = || Service::new("web").backend("only", backend.address());
    // A socket beside those that are new, or a sandbox has the directory out of reach.
    let old = at(&place.path("old"));
    let daemon = Daemon::start(&Config::of(web()).admin("listen", old.clone()));
    let paths = [place.path("web"), place.path("admin")];
    let listening = |service: Service| {
        let admin = vec![old.clone(), at(&paths[1])];
        Config::of(service).admin("listen", admin)
    };
    let bad = listening(
        web()
            .listen(at(&paths[0]))
            .also_listen(taken.local_addr().unwrap()),
    );
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        for path in &paths {
            let over = &over;
            scope.spawn(move || {
                let began = Instant::now();
                while !over.load(Ordering::Relaxed) && began.elapsed() < DEADLINE {
                    assert!(UnixStream::connect(path).is_err(), "{}", path.display());
                }
            });
        }
        for _ in 0..20 {
            let line = daemon.reload_rejected(&bad.text());
            assert!(line.text("problems").contains("has it"), "{}", line.raw());
        }
        over.store(true, Ordering::Relaxed);
    });
    // The last rejection is told right before its sockets go.
    eventually("nothing is left but the old socket", || {
        (fs::read_dir(place.0.path()).unwrap().count() == 1).then_some(())
    });
    daemon.reload(&listening(web().listen(at(&paths[0]))));
    assert_eq!(read_name(&mut dial(&paths[0]).unwrap()).unwrap(), "only");
    UnixStream::connect(&paths[1]).unwrap();
}

#[test]
fn a_socket_that_somebody_has_taken_away_is_made_anew_by_a_reload() {
    let place = Place::new();
    let (path, admin) = (place.path("web"), place.path("admin"));
    let backend = Backend::named("only");
    let with = |weight: i64| {
        let service = Service::new("web").listen(at(&path));
        Config::of(service.weighted("only", backend.address(), weight)).admin("listen", at(&admin))
    };
    let mut daemon = Daemon::start(&with(1));
    let mut held = dial(&path).unwrap();
    assert_eq!(read_name(&mut held).unwrap(), "only");
    for lost in [&path, &admin] {
        fs::remove_file(lost).unwrap();
    }
    let mark = daemon.log().mark();
    daemon.reload(&with(2));
    daemon.wait_for(mark, words::MADE_ANEW, "service", "web");
    UnixStream::connect(&admin).unwrap();
    assert_eq!(read_name(&mut dial(&path).unwrap()).unwrap(), "only");

    // What somebody else listens on stays theirs, and the rest of the reload takes effect.
    fs::remove_file(&path).unwrap();
    let theirs = UnixListener::bind(&path).unwrap();
    let mark = daemon.log().mark();
    daemon.reload(&with(3));
    daemon.wait_for(mark, words::TAKES_NOBODY, "listener", &at(&path));
    drop(theirs);
    daemon.reload(&with(4));
    assert_eq!(read_name(&mut dial(&path).unwrap()).unwrap(), "only");

    held.write_all(b"still\n").unwrap();
    assert_eq!(read_name(&mut held).unwrap(), "still");
    held.shutdown(Shutdown::Both).unwrap();
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    assert_eq!(fs::read_dir(place.0.path()).unwrap().count(), 0);
}

#[test]
fn a_socket_that_a_killed_daemon_has_left_is_taken_over() {
    let place = Place::new();
    let path = place.path("web");
    let backend = Backend::named("only");
    let config = Config::of(
        Service::new("web")
            .listen(at(&path))
            .backend("only", backend.address()),
    );
    drop(Daemon::start(&config));
    assert!(path.exists());
    let _daemon = Daemon::start(&config);
    assert_eq!(read_name(&mut dial(&path).unwrap()).unwrap(), "only");
}

#[test]
fn checks_follow_a_backend_that_comes_and_goes_at_its_path() {
    let place = Place::new();
    let path = place.path("server");
    let standby = Backend::named("standby");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .quick_health()
            .placed("server", "address", &at(&path))
            .prioritised("standby", standby.address(), 1),
    ));
    daemon.wait_until_down(0, "server");
    daemon.wait_until_up(0, "standby");
    eventually("the standby serves", || {
        (ask_name(daemon.address("web")).ok()? == "standby").then_some(())
    });
    serve(&path, "server");
    daemon.wait_until_up(0, "server");
    eventually("it serves", || {
        (ask_name(daemon.address("web")).ok()? == "server").then_some(())
    });
    let mark = daemon.log().mark();
    fs::remove_file(&path).unwrap();
    let line = daemon.wait_until_down(mark, "server");
    assert!(line.text("why").contains("refused"), "{}", line.raw());
    assert_eq!(line.text("address"), at(&path));
}

#[test]
fn a_path_with_too_many_waiting_is_tried_again_until_there_is_room() {
    let place = Place::new();
    let path = place.path("full");
    let check = Backend::named("check");
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    let address = SockAddr::unix(&path).unwrap();
    socket.bind(&address).unwrap();
    socket.listen(0).unwrap();
    let listener = UnixListener::from(OwnedFd::from(socket));
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .blind_health()
            .timeout("connect", "8s")
            .placed("full", "address", &at(&path))
            .also_placed("check_address", check.address().to_string()),
    ));
    daemon.wait_until_up(0, "full");
    // The one place in its queue.
    let _waits = UnixStream::connect(&path).unwrap();
    let mut client = connect(daemon.address("web")).unwrap();
    client.write_all(b"x").unwrap();
    listener.accept().unwrap();
    let (mut backend, _) = listener.accept().unwrap();
    let mut byte = [0];
    backend.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn backends_are_told_of_clients_at_paths_by_the_proxy_protocol() {
    let place = Place::new();
    let listen = place.path("listen");
    for (version, wanted) in [
        ("v1", b"PROXY UNKNOWN\r\n!".to_vec()),
        ("v2", {
            let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x31\0\xd8".to_vec();
            header.resize(16 + 108, 0);
            header.extend(listen.as_os_str().as_encoded_bytes());
            header.resize(16 + 216, 0);
            header.push(b'!');
            header
        }),
    ] {
        let length = wanted.len();
        let backend = Backend::serve(move |mut stream: TcpStream| {
            let mut head = vec![0; length];
            // A probe has less to say.
            if stream.read_exact(&mut head).is_ok() {
                let _ = stream.write_all(&head);
            }
        });
        let _daemon = Daemon::start(&Config::of(
            Service::new("web")
                .listen(at(&listen))
                .proxy_protocol("send", version)
                .backend("only", backend.address()),
        ));
        let mut client = dial(&listen).unwrap();
        client.write_all(b"!").unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap();
        assert_eq!(said, wanted, "{version}");
    }
}

#[test]
fn a_proxy_at_a_path_is_believed_only_where_the_file_says_so() {
    let place = Place::new();
    let backend = Backend::named("only");
    let service = |name: &str, from: &[&str]| {
        Service::new(name)
            .listen(at(&place.path(name)))
            .proxy_protocol("accept_from", from.to_vec())
            .backend("only", backend.address())
    };
    let daemon = Daemon::start(
        &Config::of(service("believed", &["unix:", "10.0.0.0/8"]))
            .service(service("not-believed", &["10.0.0.0/8"]))
            .log_every_session(),
    );
    let header = b"PROXY TCP4 203.0.113.7 192.0.2.1 4711 80\r\n";
    let mut client = dial(&place.path("believed")).unwrap();
    client.write_all(header).unwrap();
    assert_eq!(read_name(&mut client).unwrap(), "only");
    drop(client);
    let line = daemon.wait_for(0, words::SESSION, "service", "believed");
    assert_eq!(line.text("client"), "203.0.113.7:4711");
    assert_eq!(line.text("via"), "unix:");
    let mut client = dial(&place.path("not-believed")).unwrap();
    // It may be gone by then.
    let _ = client.write_all(header);
    let mut said = Vec::new();
    let _ = client.read_to_end(&mut said);
    assert!(said.is_empty());
    let line = daemon.wait_for(0, words::SESSION, "service", "not-believed");
    assert_eq!(line.text("phase"), "proxy-header", "{}", line.raw());
}

#[test]
fn clients_without_an_address_are_spread_by_source_hash() {
    let place = Place::new();
    let listen = place.path("listen");
    let backends = ["a", "b"].map(Backend::named);
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .strategy("source-hash")
            .listen(at(&listen))
            .access("deny", vec!["0.0.0.0/0", "::/0"])
            .limits("max_per_source", 1)
            .backend("a", backends[0].address())
            .backend("b", backends[1].address()),
    ));
    for name in ["a", "b"] {
        daemon.wait_until_up(0, name);
    }
    // Rules about addresses are not about them: who may connect is said by the socket's mode.
    let mut streams: Vec<_> = (0..40).map(|_| dial(&listen).unwrap()).collect();
    let names: Vec<_> = streams
        .iter_mut()
        .map(|it| read_name(it).unwrap())
        .collect();
    for name in ["a", "b"] {
        let count = names.iter().filter(|it| *it == name).count();
        assert!((5..=35).contains(&count), "{name}: {count}");
    }
}

#[test]
fn redis_and_nginx_are_served_at_their_paths() {
    if !installed(&[
        "redis-server",
        "redis-cli",
        "redis-benchmark",
        "nginx",
        "curl",
    ]) {
        return;
    }
    let place = Place::new();
    let (redis, nginx) = (Server::redis(), Server::nginx());
    let daemon = Daemon::start(
        &Config::of(
            Service::new("redis")
                .listen(at(&place.path("redis")))
                .health("kind", "redis")
                .health("role", "primary")
                .placed("redis", "address", &at(&redis.socket())),
        )
        .service(
            Service::new("web")
                .health("kind", "http")
                .listen(at(&place.path("web")))
                .placed("nginx", "address", &at(&nginx.socket())),
        ),
    );
    for name in ["redis", "nginx"] {
        daemon.wait_until_up(0, name);
    }
    let socket = place.path("redis");
    let said = run(Command::new("redis-benchmark")
        .arg("-s")
        .arg(&socket)
        .args([
            "-n", "2000", "-c", "20", "-d", "3000", "-q", "-t", "set,get",
        ]));
    assert!(said.contains("GET"), "{said}");
    let said = run(Command::new("redis-cli").arg("-s").arg(&socket).arg("ping"));
    assert_eq!(said.trim(), "PONG");
    let said = run(Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(place.path("web"))
        .arg("http://web/"));
    assert_eq!(said, "a page\n");
}
