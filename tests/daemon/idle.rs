//! What Ballast does when there is nothing to do, and that it does little more for a session.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{
    Backend, Config, Daemon, End, Meeting, Pattern, Peer, Service, ask_name, installed, steadily,
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
    let backend = Backend::named("only");
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .health("interval", "1h")
            .backend("only", backend.address()),
    ));
    let address = daemon.address("web");
    ask_name(address).unwrap();
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
    let sessions = 200;
    for _ in 0..sessions {
        ask_name(address).unwrap();
    }
    kill_process(Pid::from_child(&strace), Signal::INT).unwrap();
    says.read_to_string(&mut line).unwrap();
    strace.wait().unwrap();

    let table = fs::read_to_string(&table).unwrap();
    println!("{table}");
    let calls: Vec<(&str, f64)> = table.lines().filter_map(row).collect();
    let total: f64 = calls
        .iter()
        .filter(|(name, _)| *name != "total")
        .map(|(_, calls)| calls / f64::from(sessions))
        .sum();
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
        let found = calls.iter().find(|(name, _)| *name == unexpected);
        assert!(
            found.is_none_or(|(_, calls)| calls / f64::from(sessions) < 0.1),
            "{unexpected} in every session:\n{table}"
        );
    }
    assert!(total <= 20.0, "{total} system calls per session:\n{table}");
}

/// `% time     seconds  usecs/call     calls    errors syscall`
fn row(line: &str) -> Option<(&str, f64)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let [_, _, _, calls, .., name] = fields.as_slice() else {
        return None;
    };
    Some((name, calls.parse().ok()?))
}
