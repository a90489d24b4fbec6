//! The real thing behind Ballast: servers and load generators that other people wrote.

use std::io::{self, Read, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{
    Config, Daemon, Server, Service, Storm, connect, installed, postgres_program, run,
};

/// Ten reloads a second, each a real change, until the guard is dropped.
fn reload_while<T>(daemon: &Daemon, configs: &[Config], body: impl FnOnce() -> T) -> (T, usize) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let reloads = scope.spawn(|| {
            let mut count = 0;
            while !over.load(Ordering::Relaxed) {
                daemon.reload(&configs[count % configs.len()]);
                count += 1;
                // The pace of the task, not a wait for anything.
                thread::sleep(Duration::from_millis(100));
            }
            count
        });
        let ended = EndReloads(&over);
        let result = body();
        drop(ended);
        (result, reloads.join().expect("every reload is accepted"))
    })
}

/// Also when the body panics: the scope waits for the thread.
struct EndReloads<'a>(&'a AtomicBool);

impl Drop for EndReloads<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The service with two backends, in two versions.
fn two_versions(service: &Service, servers: &[Server; 2]) -> [Config; 2] {
    let [a, b] = servers;
    [
        Config::of(
            service
                .clone()
                .strategy("round-robin")
                .backend("a", a.address())
                .backend("b", b.address()),
        ),
        Config::of(
            service
                .clone()
                .strategy("weighted")
                .timeout("idle", "10m")
                .weighted("a", a.address(), 3)
                .weighted("b", b.address(), 2),
        ),
    ]
}

#[test]
fn redis_benchmark_meets_no_error_while_reloads_arrive_ten_times_a_second() {
    if !installed(&["redis-server", "redis-benchmark"]) {
        return;
    }
    let servers = [Server::redis(), Server::redis()];
    let versions = two_versions(&Service::new("redis"), &servers);
    let daemon = Daemon::start(&versions[0]);
    let address = daemon.address("redis");
    let benchmark = |arguments: &[&str]| {
        let said = run(Command::new("redis-benchmark")
            .args(["-h", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .args(["-c", "50", "-q"])
            .args(arguments));
        assert!(!said.to_lowercase().contains("error"), "{said}");
        assert!(said.contains("requests per second"), "{said}");
    };
    let ((), reloads) = reload_while(&daemon, &versions, || {
        benchmark(&["-n", "100000", "-t", "ping_mbulk,set,get"]);
        benchmark(&["-n", "100000", "-t", "get", "-P", "16", "-d", "4000"]);
        // A connection for each request.
        benchmark(&["-n", "5000", "-t", "ping_mbulk", "-k", "0"]);
    });
    assert!(reloads >= 10, "only {reloads} reloads");
}

/// One command over a connection of its own.
fn redis_ping(address: std::net::SocketAddr) -> io::Result<String> {
    let mut stream = connect(address)?;
    stream.write_all(b"PING\r\n")?;
    let mut answer = [0; 7];
    stream.read_exact(&mut answer)?;
    if &answer == b"+PONG\r\n" {
        Ok("pong".to_owned())
    } else {
        Err(io::Error::other("no PONG"))
    }
}

#[test]
fn killing_one_of_two_redis_servers_costs_no_later_connection() {
    if !installed(&["redis-server"]) {
        return;
    }
    let mut servers = [Server::redis(), Server::redis()];
    let [config, _] = two_versions(&Service::new("redis"), &servers);
    let daemon = Daemon::start(&config);
    let address = daemon.address("redis");
    let storm = Storm::start(16, move |_| redis_ping(address));
    storm.pass(1000);
    let mark = daemon.log().mark();
    let before = Instant::now();
    let after = servers[0].kill();
    storm.pass(1000);
    daemon.wait_until_down(mark, "a");
    storm.pass(1000);
    let tally = storm.finish();
    let failed = tally.assert_only_in_flight(&[(before, after)]);
    assert!(failed <= 16, "{tally:?}");
}

#[test]
fn pgbench_meets_no_error() {
    if !installed(&["initdb", "postgres", "pgbench", "setpriv"]) {
        return;
    }
    let server = Server::postgres();
    let service = Service::new("sql").backend("only", server.address());
    let configs = [
        Config::of(service.clone()),
        Config::of(service.timeout("half_closed", "1m")),
    ];
    let daemon = Daemon::start(&configs[0]);
    let address = daemon.address("sql");
    let bench = |arguments: &[&str]| {
        run(Command::new(postgres_program("pgbench"))
            .args(["-h", &address.ip().to_string()])
            .args(["-p", &address.port().to_string()])
            .args(["-U", "postgres"])
            .args(arguments)
            .arg("postgres"))
    };
    bench(&["--initialize", "--scale=1", "--quiet"]);
    let ((), reloads) = reload_while(&daemon, &configs, || {
        for arguments in [
            // Long sessions, short transactions.
            ["--client=10", "--jobs=2", "--time=4"].as_slice(),
            // A session for each transaction.
            &["--client=10", "--jobs=2", "--time=3", "--connect"],
        ] {
            let said = bench(arguments);
            assert!(!said.contains("error"), "{said}");
            let failed = said
                .lines()
                .find(|line| line.starts_with("number of failed transactions"));
            assert!(failed.is_none_or(|line| line.contains(": 0 ")), "{said}");
        }
    });
    assert!(reloads >= 10, "only {reloads} reloads");
}

#[test]
fn wrk_against_nginx_meets_no_error() {
    if !installed(&["nginx", "wrk"]) {
        return;
    }
    let servers = [Server::nginx(), Server::nginx()];
    let versions = two_versions(&Service::new("web"), &servers);
    let daemon = Daemon::start(&versions[0]);
    let url = format!("http://{}/", daemon.address("web"));
    let ((), reloads) = reload_while(&daemon, &versions, || {
        for header in ["Connection: keep-alive", "Connection: close"] {
            let said = run(Command::new("wrk")
                .args(["--threads", "2", "--connections", "50", "--duration", "3s"])
                .args(["--header", header])
                .arg(&url));
            assert!(said.contains("Requests/sec"), "{said}");
            assert!(!said.contains("Socket errors"), "{said}");
            assert!(!said.contains("Non-2xx"), "{said}");
        }
    });
    assert!(reloads >= 10, "only {reloads} reloads");
}

/// Sends `argv[3]` mails, a connection for each, and waits for every greeting and reply.
const SEND_MAILS: &str = r#"
import smtplib, sys
for number in range(int(sys.argv[3])):
    with smtplib.SMTP(sys.argv[1], int(sys.argv[2]), timeout=30) as server:
        body = f"Subject: mail {number}\r\n\r\n" + "a line of text\r\n" * 1000
        refused = server.sendmail("a@example.org", ["b@example.org"], body)
        assert not refused, refused
print("sent all")
"#;

#[test]
fn a_mail_server_that_speaks_first_takes_every_mail() {
    let importable = Command::new("/usr/bin/python3")
        .args(["-c", "import aiosmtpd"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !importable && !installed(&["the Debian package python3-aiosmtpd"]) {
        return;
    }
    let servers = [Server::smtp(), Server::smtp()];
    let versions = two_versions(&Service::new("mail"), &servers);
    let daemon = Daemon::start(&versions[0]);
    let address = daemon.address("mail");
    let ((), _) = reload_while(&daemon, &versions, || {
        let said = run(Command::new("/usr/bin/python3")
            .args(["-c", SEND_MAILS])
            .args([address.ip().to_string(), address.port().to_string()])
            .arg("100"));
        assert!(said.contains("sent all"), "{said}");
    });
}
