//! What Ballast does when there is nothing to do, and that it does little more for a session.

use std::fmt;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Backend, Config, Daemon, End, Meeting, Pattern, Peer, Service, ask_name, fresh_ip, installed,
    steadily,
};

/// The measurement; a tick is 10 ms.
const WINDOW: Duration = Duration::from_secs(3);

#[test]
fn an_idle_daemon_uses_no_cpu() {
    let backends = [Backend::named("a"), Backend::named("b")];
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .backend("a", backends[0].address())
            .backend("b", backends[1].address()),
    ));
    ask_name(daemon.address("web")).unwrap();
    // Probes go on, which may or may not complete a tick.
    let ticks = daemon.cpu_ticks_during(WINDOW);
    assert!(ticks <= 1, "{ticks} ticks in {WINDOW:?}");
}

#[test]
fn sessions_that_wait_use_no_cpu() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&Config::of(
        Service::new("web").backend("only", meeting.address()),
    ));
    let address = daemon.address("web");
    let _quiet: Vec<_> = (0..50).map(|_| meeting.session(address)).collect();
    let half_closed: Vec<_> = (0..20)
        .map(|number| {
            let (mut client, mut backend) = meeting.session(address);
            if number % 2 == 0 {
                client.half_close();
                assert_eq!(backend.end(), End::Fin);
            } else {
                backend.half_close();
                assert_eq!(client.end(), End::Fin);
            }
            (client, backend)
        })
        .collect();
    // A writer whose reader does not read: blocked, with both directions' buffers full.
    let (client, _backend) = meeting.session(address);
    let stuck = Pattern::new(1, 256 << 20);
    let progress = stuck.progress();
    let mut writing = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || drop(stuck.send(&mut writing)));
    steadily(Duration::from_millis(500), "the writer is stuck", || {
        progress.load(std::sync::atomic::Ordering::Relaxed)
    });
    // And one of those half-closed on top, whose blocked side will see an error only by its poll.
    let ticks = daemon.cpu_ticks_during(WINDOW);
    assert!(ticks <= 3, "{ticks} ticks in {WINDOW:?}");
    drop(half_closed);
    client.shutdown(std::net::Shutdown::Both).unwrap();
    drop(client);
    writer.join().unwrap();
}

#[test]
fn a_session_needs_few_system_calls() {
    if !installed(&["strace"]) {
        return;
    }
    // Outside the range of ephemeral ports, where a session need not ask whom it is connected to.
    let backend = Backend::named_at((fresh_ip(), 8080).into(), "only");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .health("interval", "1h")
            .backend("only", backend.address()),
    ));
    let address = daemon.address("web");
    ask_name(address).unwrap();
    const SESSIONS: u32 = 200;
    let calls = Calls::during(&daemon, SESSIONS, || {
        for _ in 0..SESSIONS {
            ask_name(address).unwrap();
        }
    });
    for unexpected in [
        "getpeername",
        "getsockname",
        "fcntl",
        "ioctl",
        "poll",
        "ppoll",
        "mmap",
        "munmap",
        "clone3",
        "eventfd2",
        "getrandom",
    ] {
        let found = calls.of(|name| name == unexpected);
        assert!(found < 0.1, "{unexpected} in every session:\n{calls}");
    }
    // How often a worker wakes for a session depends on how its packets fall together.
    let waits = calls.of(is_wait);
    let others = calls.of(|name| !is_wait(name));
    assert!(waits <= 8.0, "{waits} waits per session:\n{calls}");
    assert!(others <= 14.5, "{others} other calls per session:\n{calls}");
}

#[test]
fn a_ping_pong_needs_its_data_calls_and_waits_only() {
    if !installed(&["strace"]) {
        return;
    }
    let meeting = Meeting::new();
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .health("interval", "1h")
            .backend("only", meeting.address()),
    ));
    let (mut client, mut server) = meeting.session(daemon.address("web"));
    let mut message = [7; 64];
    let mut exchange = || {
        client.write_all(&message).unwrap();
        server.read_exact(&mut message).unwrap();
        server.write_all(&message).unwrap();
        client.read_exact(&mut message).unwrap();
    };
    // The backend's side turns Nagle's algorithm off before its second send.
    (0..10).for_each(|_| exchange());
    const EXCHANGES: u32 = 1000;
    let calls = Calls::during(&daemon, EXCHANGES, || {
        (0..EXCHANGES).for_each(|_| exchange());
    });
    for data in ["recvfrom", "sendto"] {
        let found = calls.of(|name| name == data);
        assert!((1.99..2.1).contains(&found), "{found} {data}:\n{calls}");
    }
    // The control thread's timers are in it too.
    let others = calls.of(|name| !["recvfrom", "sendto"].contains(&name) && !is_wait(name));
    assert!(others < 0.2, "{others} other calls per exchange:\n{calls}");
}

/// Whether a thread only asks what has happened.
fn is_wait(name: &str) -> bool {
    name.starts_with("epoll_") && name != "epoll_ctl"
}

/// The daemon's system calls while something was done so many times, as strace counts them.
struct Calls {
    table: String,
    times: u32,
}

impl Calls {
    fn during(daemon: &Daemon, times: u32, work: impl FnOnce()) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let table = directory.path().join("table");
        let mut strace = Command::new("strace")
            .args(["-f", "-c", "-o"])
            .arg(&table)
            .args(["-p", &daemon.pid().to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut says = BufReader::new(strace.stderr.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert!(line.contains("attached"), "{line}");
        work();
        kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
        says.read_to_string(&mut line).unwrap();
        strace.wait().unwrap();
        Self {
            table: fs::read_to_string(&table).unwrap(),
            times,
        }
    }

    /// How many of the `wanted` ones there were each time.
    fn of(&self, wanted: impl Fn(&str) -> bool) -> f64 {
        let calls = self.table.lines().filter_map(row);
        calls
            // Without optimisation, std asks of each descriptor that it closes whether it is open.
            .filter(|(name, _)| *name != "total" && !(cfg!(debug_assertions) && *name == "fcntl"))
            .filter(|(name, _)| wanted(name))
            .map(|(_, calls)| calls / f64::from(self.times))
            .sum()
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.table)
    }
}

/// `% time     seconds  usecs/call     calls    errors syscall`
fn row(line: &str) -> Option<(&str, f64)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, _, _, calls, .., name] = fields.as_slice() else {
        return None;
    };
    Some((name, calls.parse().ok()?))
}
