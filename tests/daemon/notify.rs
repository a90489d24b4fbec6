//! The service manager is told: ready, reloading, stopping, alive.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::{Backend, Config, DEADLINE, Launch, Service, Signal, words};

/// The socket that a service manager would listen on.
struct Manager {
    socket: UnixDatagram,
    directory: TempDir,
}

impl Manager {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, directory }
    }

    fn launch(&self) -> Launch {
        Launch::new().env("NOTIFY_SOCKET", self.directory.path().join("notify"))
    }

    /// Receives messages until one has a line that `wanted` accepts; that message, in lines.
    fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let deadline = Instant::now() + DEADLINE;
        let mut buffer = [0; 4096];
        while Instant::now() < deadline {
            let Ok(length) = self.socket.recv(&mut buffer) else {
                break;
            };
            let lines: Vec<_> = String::from_utf8_lossy(&buffer[..length])
                .lines()
                .map(str::to_owned)
                .collect();
            if lines.iter().any(|line| wanted(line)) {
                return lines;
            }
        }
        panic!("the service manager was not told {what}");
    }

    fn wait_for(&self, line: &str) -> Vec<String> {
        self.wait(line, |told| told == line)
    }
}

fn config(backend: &Backend) -> Config {
    Config::of(Service::new("web").backend("only", backend.address()))
}

#[test]
fn start_reload_and_stop_are_told() {
    let manager = Manager::new();
    let backend = Backend::named("only");
    let config = config(&backend);
    let mut daemon = manager.launch().start(&config);
    manager.wait_for("READY=1");
    for good in [true, false] {
        if good {
            daemon.reload(&config);
        } else {
            daemon.reload_rejected("nonsense");
        }
        let lines = manager.wait_for("RELOADING=1");
        let stamp = lines
            .iter()
            .find_map(|line| line.strip_prefix("MONOTONIC_USEC="))
            .expect("RELOADING comes with its time");
        assert!(stamp.parse::<u64>().is_ok(), "{stamp}");
        manager.wait_for("READY=1");
    }
    daemon.signal(Signal::TERM);
    manager.wait_for("STOPPING=1");
    daemon.wait_until_stopped();
}

#[test]
fn the_status_counts_services_backends_and_sessions() {
    let manager = Manager::new();
    let backend = Backend::named("only");
    let _daemon = manager.launch().start(&config(&backend));
    let status = manager.wait("a status", |line| line.starts_with("STATUS="));
    let status = status
        .iter()
        .find(|line| line.starts_with("STATUS="))
        .unwrap();
    assert!(status.contains("service"), "{status}");
    assert!(status.contains("backend"), "{status}");
}

#[test]
fn the_watchdog_is_fed_when_asked_for() {
    let manager = Manager::new();
    let backend = Backend::named("only");
    let daemon = manager
        .launch()
        .env("WATCHDOG_USEC", Path::new("1000000"))
        .after("WATCHDOG_PID=$$; export WATCHDOG_PID")
        .start(&config(&backend));
    let mut last = Instant::now();
    for beat in 0..5 {
        manager.wait_for("WATCHDOG=1");
        let pause = last.elapsed();
        assert!(
            beat == 0 || pause < Duration::from_secs(1),
            "{pause:?} between two beats"
        );
        last = Instant::now();
    }
    drop(daemon);
}

#[test]
fn no_watchdog_is_fed_that_belongs_to_another_process() {
    let manager = Manager::new();
    let backend = Backend::named("only");
    let mut daemon = manager
        .launch()
        .env("WATCHDOG_USEC", Path::new("200000"))
        .env("WATCHDOG_PID", Path::new("1"))
        .start(&config(&backend));
    manager.wait_for("READY=1");
    // The pause is the measurement: five periods.
    std::thread::sleep(Duration::from_secs(1));
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    manager.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while let Ok(length) = manager.socket.recv(&mut buffer) {
        let told = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(!told.contains("WATCHDOG=1"), "{told}");
    }
}

#[test]
fn without_a_service_manager_all_goes_on() {
    let backend = Backend::named("only");
    let mut daemon = Launch::new()
        .env("NOTIFY_SOCKET", Path::new("/nonexistent/notify"))
        .start(&config(&backend));
    daemon.reload(&config(&backend));
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    let complaints = daemon.log().all(0, |line| line.says(words::REJECTED));
    assert!(complaints.is_empty());
}
