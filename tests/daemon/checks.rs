//! Every kind of check against the real thing: what it takes for well, what it does not, after how
//! many probes that counts, and what it leaves behind.

use std::cell::RefCell;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, kill_process};

use crate::support::{
    Backend, Config, Daemon, Launch, Line, READY, Server, Service, Signal, ask_name, eventually,
    installed, words,
};

mod databases;

const RISE: usize = 3;
const FALL: usize = 4;

/// A service with one backend, probed often, by a check of this kind.
fn checked(kind: &str, address: SocketAddr) -> Service {
    Service::new("checked")
        .health("kind", kind)
        .health("interval", "100ms")
        .health("fast_interval", "50ms")
        .health("timeout", "1s")
        .health("rise", i64::try_from(RISE).unwrap())
        .health("fall", i64::try_from(FALL).unwrap())
        .backend("only", address)
}

fn start(service: Service) -> Daemon {
    Daemon::start(&Config::of(service).log("level", "debug"))
}

/// What the daemon has said of the backend's probes since `mark`.
fn verdicts(daemon: &Daemon, mark: usize, backend: &str) -> Vec<Arc<Line>> {
    let told = [
        words::MISSED,
        words::ANSWERED,
        words::BACKEND_UP,
        words::BACKEND_DOWN,
    ];
    daemon.log().all(mark, |line| {
        line.has("backend", backend) && told.iter().any(|message| line.says(message))
    })
}

/// That the backend's first `transition` since `mark` came with exactly the probe that completed the run:
/// so many `step`s are `needed`.
fn assert_counted(
    daemon: &Daemon,
    mark: usize,
    backend: &str,
    (transition, step, needed): (&str, &str, usize),
) {
    let lines = verdicts(daemon, mark, backend);
    let end = lines.iter().position(|line| line.says(transition));
    let before = &lines[..end.expect("it was waited for")];
    let streaks: Vec<u64> = before
        .iter()
        .filter(|line| line.says(step))
        .map(|line| line.number("streak"))
        .collect();
    let needed = u64::try_from(needed).unwrap();
    let expected: Vec<u64> = (1..needed).collect();
    let from = streaks.len().saturating_sub(expected.len());
    assert_eq!(streaks[from..], expected, "{lines:?}");
    assert!(streaks.iter().all(|&streak| streak < needed), "{lines:?}");
}

/// up → failing → down, at the expected number of probes; why.
fn assert_goes_down(daemon: &Daemon, backend: &str, fail: impl FnOnce()) -> String {
    let mark = daemon.log().mark();
    fail();
    let down = daemon.wait_until_down(mark, backend);
    let counts = (words::BACKEND_DOWN, words::MISSED, FALL);
    assert_counted(daemon, mark, backend, counts);
    down.text("why").to_owned()
}

/// down → recovering → up, at the expected number of probes.
fn assert_comes_up(daemon: &Daemon, backend: &str, heal: impl FnOnce()) {
    let mark = daemon.log().mark();
    heal();
    daemon.wait_until_up(mark, backend);
    let counts = (words::BACKEND_UP, words::ANSWERED, RISE);
    assert_counted(daemon, mark, backend, counts);
}

/// up → failing → down → recovering → up, each at the expected number of probes; why it went down.
fn there_and_back(daemon: &Daemon, fail: impl FnOnce(), heal: impl FnOnce()) -> String {
    daemon.wait_until_up(0, "only");
    let why = assert_goes_down(daemon, "only", fail);
    assert_comes_up(daemon, "only", heal);
    why
}

/// The same, with a server that is stopped in its tracks: its kernel goes on answering connects.
fn frozen_and_back(service: Service, server: &Server) {
    let daemon = start(service);
    let why = there_and_back(&daemon, || server.freeze(), || server.thaw());
    assert!(why.starts_with("connected, but timed out"), "{why}");
}

#[test]
fn send_and_expect_see_a_frozen_server() {
    if !installed(&["redis-server"]) {
        return;
    }
    let server = Server::redis();
    let service = checked("tcp", server.address());
    let expect: toml::Table = toml::from_str("regex = '^\\+PONG'").unwrap();
    let service = service.health("send", "PING\r\n").health("expect", expect);
    frozen_and_back(service, &server);
}

#[test]
fn what_is_sent_and_expected_is_text_bytes_or_a_pattern() {
    if !installed(&["redis-server", "redis-cli"]) {
        return;
    }
    let server = Server::redis();
    // Without the password that it wants then, an answer comes and is another one.
    let want = |password: &str| server.redis_command(&["config", "set", "requirepass", password]);
    let forget = || {
        let own = ["-a", "word", "--no-auth-warning"];
        server.redis_command(&[own.as_slice(), &["config", "set", "requirepass", ""]].concat());
    };
    for (exchange, expected) in [
        ("send = \"PING\\r\\n\"\nexpect = 'PONG'", "\"PONG\""),
        (
            "send = { hex = '50 49 4e 47 0d 0a' }\nexpect = { hex = '2b504f4e470d0a' }",
            "\"+PONG\\r\\n\"",
        ),
        (
            "send = \"PING\\n\"\nexpect = { regex = '^.PO+NG' }",
            "/^.PO+NG/",
        ),
    ] {
        let exchange: toml::Table = toml::from_str(exchange).unwrap();
        let service = checked("tcp", server.address()).health("timeout", "300ms");
        let service = exchange
            .into_iter()
            .fold(service, |service, (key, value)| service.health(&key, value));
        let daemon = start(service);
        let why = there_and_back(&daemon, || want("word"), forget);
        let told = format!("connected, but timed out: expected {expected}, got \"-NOAUTH ");
        assert!(why.starts_with(&told), "{why}");
    }
}

#[test]
fn a_plain_connect_follows_a_server_that_dies_and_is_started_again() {
    if !installed(&["redis-server"]) {
        return;
    }
    let server = RefCell::new(Server::redis());
    let daemon = start(checked("tcp", server.borrow().address()));
    let why = there_and_back(
        &daemon,
        || {
            server.borrow_mut().kill();
        },
        || server.borrow_mut().start_again(),
    );
    assert_eq!(why, words::REFUSED);
}

#[test]
fn a_plain_connect_does_not_see_a_frozen_server() {
    if !installed(&["redis-server"]) {
        return;
    }
    let server = Server::redis();
    let daemon = start(checked("tcp", server.address()));
    daemon.wait_until_up(0, "only");
    server.freeze();
    let mark = daemon.log().mark();
    let_probes_pass(&daemon, 20);
    assert!(
        verdicts(&daemon, mark, "only").is_empty(),
        "its kernel answers"
    );
    server.thaw();
}

#[test]
fn http_follows_status_and_body() {
    if !installed(&["nginx"]) {
        return;
    }
    let server = Server::nginx();
    let ready = server.directory().join(READY);
    fs::write(&ready, "").unwrap();
    let daemon = start(
        checked("http", server.address())
            .health("path", "/ready")
            .health("status", "200")
            .health("body", "all well"),
    );
    let why = there_and_back(
        &daemon,
        || fs::remove_file(&ready).unwrap(),
        || fs::write(&ready, "").unwrap(),
    );
    assert_eq!(why, "status 503 Service Temporarily Unavailable");
}

/// Asks for a report.
fn report(daemon: &Daemon) -> Arc<Line> {
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    daemon
        .log()
        .wait(mark, words::REPORT, |line| line.says(words::REPORT))
}

/// Waits until so many probes have passed.
fn let_probes_pass(daemon: &Daemon, count: u64) {
    let mut sent = 0;
    eventually("probes are sent", || {
        sent += report(daemon).number("probes");
        (sent >= count).then_some(())
    });
}

#[test]
fn a_handshake_sees_a_frozen_tls_server() {
    if !installed(&["openssl"]) {
        return;
    }
    let server = Server::tls(365);
    frozen_and_back(checked("tls", server.address()), &server);
}

#[test]
fn a_certificate_that_cannot_be_read_takes_nobody_out() {
    if !installed(&["openssl"]) {
        return;
    }
    let server = Server::tls_of_old();
    let daemon = start(checked("tls", server.address()));
    daemon.wait_until_up(0, "only");
}

#[test]
fn a_certificate_that_expires_soon_is_warned_of_and_takes_nobody_out() {
    if !installed(&["openssl"]) {
        return;
    }
    let (soon, later) = (Server::tls(7), Server::tls(30));
    let daemon = start(checked("tls", soon.address()).backend("later", later.address()));
    daemon.wait_until_up(0, "only");
    daemon.wait_until_up(0, "later");
    let warning = daemon.wait_for(0, words::EXPIRES, "backend", "only");
    assert!(
        warning.text("left").starts_with("6days"),
        "{}",
        warning.raw()
    );
    let_probes_pass(&daemon, 10);
    let warnings = daemon.log().all(0, |line| line.says(words::EXPIRES));
    assert_eq!(warnings.len(), 1, "{warnings:?}");
}

/// A script in a directory of its own.
struct Script {
    directory: tempfile::TempDir,
}

impl Script {
    fn new(body: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("check");
        fs::write(
            &path,
            format!("#!/bin/sh\ncd \"$(dirname \"$0\")\"\n{body}\n"),
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { directory }
    }

    fn command(&self) -> Vec<String> {
        let path = self.directory.path().join("check");
        vec![path.to_str().unwrap().to_owned(), "argument".to_owned()]
    }

    fn file(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }
}

#[test]
fn a_program_decides_by_its_exit_code() {
    let server = Backend::named("only");
    let script = Script::new(
        "echo \"$1 $BALLAST_ADDRESS $BALLAST_HOST $BALLAST_PORT\" > given
         test -e well || { echo 'not well'; exit 7; }",
    );
    fs::write(script.file("well"), "").unwrap();
    let daemon = start(checked("exec", server.address()).health("command", script.command()));
    let why = there_and_back(
        &daemon,
        || fs::remove_file(script.file("well")).unwrap(),
        || fs::write(script.file("well"), "").unwrap(),
    );
    assert_eq!(why, "exit code 7: not well");
    let (address, ip) = (server.address(), server.address().ip());
    assert_eq!(
        fs::read_to_string(script.file("given")).unwrap().trim(),
        format!("argument {address} {ip} {}", address.port())
    );
}

#[test]
fn a_program_that_takes_too_long_is_killed_with_all_it_has_started() {
    let server = Backend::named("only");
    let script = Script::new("sleep 1000 & echo $! >> started; wait");
    let service = checked("exec", server.address()).health("command", script.command());
    let daemon = start(service.health("timeout", "300ms"));
    let down = daemon.wait_until_down(0, "only");
    assert_eq!(down.text("why"), words::TIMED_OUT);
    drop(daemon);
    // The runner ends with the daemon, and so does what it runs.
    eventually("nothing is left running", || {
        let started = fs::read_to_string(script.file("started")).unwrap();
        let is_gone = |pid: &str| match fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        started.lines().all(is_gone).then_some(())
    });
}

#[test]
fn a_program_that_is_not_there_is_warned_of_and_shown_and_takes_nobody_out() {
    let server = Backend::named("only");
    let command = vec!["/no/such/check".to_owned()];
    let service = checked("exec", server.address()).health("command", command);
    let config = Config::of(service).log("level", "debug");
    let daemon = Daemon::start(&config.admin("listen", "127.0.0.1:0"));
    let warning = daemon.wait_for(0, words::NOT_RUN, "backend", "only");
    assert!(warning.text("why").contains("/no/such/check"));
    assert_eq!(ask_name(daemon.address("checked")).unwrap(), "only");
    let_probes_pass(&daemon, 10);
    assert!(verdicts(&daemon, 0, "only").is_empty());
    let warnings = daemon.log().all(0, |line| {
        line.says(words::NOT_RUN) && line.has("level", "WARN")
    });
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let shown = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["status", "--no-rates", "--admin"])
        .arg(daemon.api().address().to_string())
        .output()
        .unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    let wrong = shown.lines().skip_while(|it| !it.contains("WRONG"));
    let told = wrong.collect::<Vec<_>>().join("\n");
    assert!(told.contains("checked/only"), "{shown}");
    assert!(
        told.contains("its check cannot run: /no/such/check: "),
        "{shown}"
    );
}

#[test]
fn a_program_that_is_given_too_much_is_not_run_and_others_are() {
    let (server, other) = (Backend::named("only"), Backend::named("other"));
    let much = vec!["/bin/true".to_owned(), "x".repeat(1 << 20)];
    let script = Script::new("test -e well");
    let second = Service::new("second")
        .health("kind", "exec")
        .health("interval", "100ms")
        .health("command", script.command())
        .backend("other", other.address());
    let first = checked("exec", server.address()).health("command", much);
    let daemon = Daemon::start(&Config::of(first).service(second));
    let warning = daemon.wait_for(0, words::NOT_RUN, "backend", "only");
    assert!(warning.text("why").ends_with("larger than 1 MiB"));
    daemon.wait_until_down(0, "other");
    let mark = daemon.log().mark();
    fs::write(script.file("well"), "").unwrap();
    daemon.wait_until_up(mark, "other");
}

/// An agent that says what it was told last; after nothing, it keeps who asks waiting.
fn agent(line: &Arc<Mutex<String>>) -> Backend {
    let line = Arc::clone(line);
    Backend::serve(move |mut stream| {
        let line = line.lock().unwrap().clone();
        // A probe may have left already.
        stream.write_all(line.as_bytes()).ok();
        if line.is_empty() {
            stream.read_exact(&mut [0]).ok();
        }
    })
}

#[test]
fn an_agent_takes_its_server_out_and_brings_it_back() {
    let server = Backend::named("only");
    let line = Arc::new(Mutex::new("up\n".to_owned()));
    let agent = agent(&line);
    let say = |words: &str| words.clone_into(&mut line.lock().unwrap());
    let service = checked("agent", server.address()).check_address("only", agent.address());
    let daemon = start(service);
    let why = there_and_back(&daemon, || say("down # too hot\n"), || say("up 50%\n"));
    assert_eq!(why, "the agent says down: too hot");
}

#[test]
fn an_agent_says_what_share_its_server_gets_and_drains_it() {
    let (hot, cool) = (Backend::named("only"), Backend::named("cool"));
    let lines = ["up\n", "up\n"].map(|line| Arc::new(Mutex::new(line.to_owned())));
    let agents = lines.each_ref().map(agent);
    let service = checked("agent", hot.address())
        .strategy("weighted")
        .backend("cool", cool.address())
        .check_address("only", agents[0].address())
        .check_address("cool", agents[1].address());
    let daemon = start(service);
    daemon.wait_until_up(0, "only");
    daemon.wait_until_up(0, "cool");
    let address = daemon.address("checked");
    let share = || {
        let names: Vec<_> = (0..30).map(|_| ask_name(address).unwrap()).collect();
        names.iter().filter(|name| *name == "only").count()
    };
    eventually("both take turns", || (share() == 15).then_some(()));
    for (asks, gets) in [("50%\n", 10), ("maint\n", 0), ("up 100%\n", 15)] {
        asks.clone_into(&mut lines[0].lock().unwrap());
        eventually(asks, || (share() == gets).then_some(()));
    }
    "drain\n".clone_into(&mut lines[0].lock().unwrap());
    eventually("the draining one gets nothing new", || {
        (share() == 0).then_some(())
    });
    "ready\n".clone_into(&mut lines[0].lock().unwrap());
    eventually("both take turns again", || (share() == 15).then_some(()));
}

#[test]
fn an_agent_that_changes_its_wish_with_its_state_is_counted_once() {
    let (hot, cool) = (Backend::named("only"), Backend::named("cool"));
    let lines = ["75%\n", "up\n"].map(|line| Arc::new(Mutex::new(line.to_owned())));
    let agents = lines.each_ref().map(agent);
    // Each line is a verdict, so that one probe brings both.
    let service = checked("agent", hot.address())
        .health("rise", 1)
        .health("fall", 1)
        .health("timeout", "5s")
        .backend("cool", cool.address())
        .check_address("only", agents[0].address())
        .check_address("cool", agents[1].address());
    let daemon = start(service);
    daemon.wait_until_up(0, "only");
    daemon.wait_until_up(0, "cool");
    let say = |words: &str| {
        let mark = daemon.log().mark();
        words.clone_into(&mut lines[0].lock().unwrap());
        mark
    };
    let eligible_when_down = |mark| daemon.wait_until_down(mark, "only").text("eligible");
    let eligible_when_up = |mark| daemon.wait_until_up(mark, "only").text("eligible");
    assert_eq!(eligible_when_down(say("down\n")), "1/2");
    assert_eq!(eligible_when_up(say("up 50%\n")), "2/2");
    say("drain\n");
    eventually("it is out", || {
        let mark = daemon.log().mark();
        daemon.signal(Signal::USR1);
        let line = daemon.wait_for(mark, words::BACKEND, "backend", "only");
        line.has("seat", "out").then_some(())
    });
    assert_eq!(eligible_when_down(say("down\n")), "1/2");
    assert_eq!(eligible_when_up(say("75%\n")), "2/2");
}

#[test]
fn a_reload_that_changes_the_check_forgets_no_wish_of_an_agent() {
    let (hot, cool) = (Backend::named("only"), Backend::named("cool"));
    let lines = ["drain\n", "up\n"].map(|line| Arc::new(Mutex::new(line.to_owned())));
    let agents = lines.each_ref().map(agent);
    let service = checked("agent", hot.address())
        .backend("cool", cool.address())
        .check_address("only", agents[0].address())
        .check_address("cool", agents[1].address());
    let daemon = start(service.clone());
    daemon.wait_until_up(0, "only");
    let address = daemon.address("checked");
    let asked = || (0..10).map(|_| ask_name(address).unwrap());
    eventually("it drains", || {
        asked().all(|name| name == "cool").then_some(())
    });
    lines[0].lock().unwrap().clear();
    let service = service.health("timeout", "900ms");
    daemon.reload(&Config::of(service).log("level", "debug"));
    assert!(asked().all(|name| name == "cool"));
}

#[test]
fn a_check_may_go_to_another_port() {
    let server = Backend::named("only");
    let port = server.address().port();
    // The same address, where nothing but health is told.
    let health = Backend::serve_at(SocketAddr::new(server.address().ip(), 0), |mut stream| {
        stream.write_all(b"well\n").ok();
    });
    assert_ne!(health.address().port(), port);
    let health = RefCell::new(health);
    let service = checked("tcp", server.address())
        .health("port", i64::from(health.borrow().address().port()))
        .health("expect", "well");
    let daemon = start(service);
    assert_eq!(ask_name(daemon.address("checked")).unwrap(), "only");
    let why = there_and_back(
        &daemon,
        || health.borrow_mut().refuse(),
        || health.borrow_mut().answer(),
    );
    assert_eq!(why, words::REFUSED);
}

#[test]
fn backends_shared_by_services_with_the_same_check_are_probed_once() {
    let probed = Backend::named("shared");
    let service = |name: &str| {
        Service::new(name)
            .health("interval", "100ms")
            .backend("only", probed.address())
    };
    let config = Config::new().service(service("a")).service(service("b"));
    let daemon = Daemon::start(&config.log("level", "debug"));
    for name in ["a", "b"] {
        daemon.wait_for(0, words::BACKEND_UP, "service", name);
    }
    // Exactly as many connections as probes, give or take the ones under way.
    let mut sent = 0;
    eventually("probes are sent", || {
        sent += report(&daemon).number("probes");
        (sent >= 20).then_some(())
    });
    let accepted = probed.accepted();
    assert!(accepted < 30, "{accepted} connections for {sent} probes");
}

#[test]
fn a_probe_may_say_that_nobody_is_behind_it_by_the_proxy_protocol() {
    for (version, header) in [
        ("v1", b"PROXY UNKNOWN\r\n".as_slice()),
        ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let server = Backend::serve(move |mut stream| {
            let mut seen = vec![0; header.len()];
            let read = std::io::Read::read_exact(&mut stream, &mut seen);
            if read.is_ok() && seen == header {
                stream.write_all(b"welcome\n").ok();
            }
        });
        let daemon = start(
            checked("tcp", server.address())
                .health("proxy_protocol", version)
                .health("expect", "welcome"),
        );
        daemon.wait_until_up(0, "only");
    }
}

#[test]
fn a_server_that_speaks_first_is_left_with_a_fin() {
    let (sender, endings) = std::sync::mpsc::channel();
    let server = Backend::serve(move |mut stream| {
        // More than a small probe would ever read on its way.
        stream.write_all(&[b'x'; 10_000]).ok();
        let end = std::io::Read::read(&mut stream, &mut [0; 16]);
        sender.send(end.map_err(|error| error.kind())).ok();
    });
    let daemon = start(checked("tcp", server.address()));
    daemon.wait_until_up(0, "only");
    for _ in 0..10 {
        let end = endings.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(end, Ok(0), "a FIN");
    }
    drop(daemon);
}

#[test]
fn without_its_runner_the_daemon_goes_on_and_starts_another_one() {
    let server = Backend::named("only");
    let script = Script::new("test -e well");
    fs::write(script.file("well"), "").unwrap();
    let daemon = Launch::new().start(&Config::of(
        checked("exec", server.address()).health("command", script.command()),
    ));
    daemon.wait_until_up(0, "only");
    let keeper = first_child(daemon.pid());
    // Twice: the one that comes back is kept like the first.
    for _ in 0..2 {
        let mark = daemon.log().mark();
        let runner = first_child(keeper).try_into().unwrap();
        kill_process(Pid::from_raw(runner).unwrap(), Signal::KILL).unwrap();
        daemon.log().wait(mark, words::RUNNER_GONE, |line| {
            line.says(words::RUNNER_GONE)
        });
        assert_eq!(ask_name(daemon.address("checked")).unwrap(), "only");
        let back = daemon.log().wait(mark, words::RUNNER_BACK, |line| {
            line.says(words::RUNNER_BACK)
        });
        assert!(back.text("status").contains("SIGKILL"), "{}", back.raw());
    }
    let mark = daemon.log().mark();
    fs::remove_file(script.file("well")).unwrap();
    daemon.wait_until_down(mark, "only");
}

/// The process that `parent` started first, of those that it still has.
fn first_child(parent: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    children.split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn without_the_keeper_too_it_goes_on_and_says_that_only_a_restart_helps() {
    let server = Backend::named("only");
    let script = Script::new("true");
    let service = checked("exec", server.address()).health("command", script.command());
    let daemon = start(service);
    daemon.wait_until_up(0, "only");
    let keeper = first_child(daemon.pid());
    let runner = first_child(keeper);
    let mark = daemon.log().mark();
    for process in [keeper, runner] {
        let process = Pid::from_raw(process.try_into().unwrap()).unwrap();
        kill_process(process, Signal::KILL).unwrap();
    }
    let told = daemon.log().wait(mark, words::RUNNER_NOT_BACK, |line| {
        line.says(words::RUNNER_NOT_BACK) && line.text("error").contains("restart")
    });
    assert!(
        told.text("error").contains("keeper is gone"),
        "{}",
        told.raw()
    );
    assert_eq!(ask_name(daemon.address("checked")).unwrap(), "only");
}

#[test]
fn an_answer_that_never_becomes_the_expected_one_is_told_as_it_came() {
    let server = Backend::serve(|mut stream| {
        stream.write_all(b"-ERR \x01 not\r\n").ok();
        // Held open: nobody knows whether there is more to come.
        std::io::Read::read(&mut stream, &mut [0; 16]).ok();
    });
    let service = checked("tcp", server.address()).health("expect", "+PONG");
    let daemon = Daemon::start(&Config::of(service));
    let down = daemon.wait_until_down(0, "only");
    assert_eq!(
        down.text("why"),
        "connected, but timed out: expected \"+PONG\", got \"-ERR \\x01 not\\r\\n\""
    );
}

/// A measurement, for `benches/README.md`: what thousands of checks cost, and whether they keep time.
#[test]
#[ignore = "a measurement of half a minute, which wants an idle machine and a release build"]
fn five_thousand_backends_cost_so_much() {
    const BACKENDS: u16 = 5000;
    const PAUSE: Duration = Duration::from_secs(20);
    // One listener is at all their addresses, and closes what it accepts. Not at an ephemeral port,
    // which no service is at.
    let port = 10_007;
    let listener = TcpListener::bind(("0.0.0.0", port)).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    let service = (0..BACKENDS).fold(Service::new("many"), |service, number| {
        let [high, low] = number.to_be_bytes();
        let address = SocketAddr::from(([127, 200, high, low], port));
        service.backend(&format!("b-{number}"), address)
    });
    let daemon = Daemon::start(&Config::of(service.health("interval", "2s")));
    eventually("each has its first verdict", || {
        let up = daemon.log().all(0, |line| line.says(words::BACKEND_UP));
        (up.len() == usize::from(BACKENDS)).then_some(())
    });
    report(&daemon);
    let ticks = daemon.cpu_ticks_during(PAUSE);
    let line = report(&daemon);
    let percent = f64::from(u32::try_from(ticks).unwrap()) / PAUSE.as_secs_f64();
    let latest: f64 = line.text("latest_probe_ms").parse().unwrap();
    let probes = line.number("probes");
    println!(
        "{BACKENDS} backends, {probes} probes in {PAUSE:?}: {percent:.1} % of a core, \
         the latest probe {latest:.1} ms late, {} MiB resident",
        daemon.resident_bytes() >> 20
    );
}
