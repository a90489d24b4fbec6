//! What systemd is told: ready, reloading, stopping, the status line, the watchdog.
//!
//! The messages and the watchdog's variables are `sd-notify`'s; the sending is here, because the
//! crate knows no abstract sockets and would wait without bound for a manager that does not read.
//! Outside systemd every call does nothing. Must not know what the daemon does.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::{debug, warn};

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Notify {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    failed: AtomicBool,
}

impl Notify {
    /// Finds the manager by `NOTIFY_SOCKET`, and its watchdog by `WATCHDOG_USEC` and
    /// `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let manager = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let watchdog = sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero());
        Self::new(manager.as_deref(), watchdog)
    }

    fn new(manager: Option<&OsStr>, watchdog: Option<Duration>) -> Self {
        let manager = manager.and_then(|name| {
            connect(name)
                .inspect_err(|error| {
                    warn!(socket = %name.display(), %error, "cannot talk to the service manager");
                })
                .ok()
        });
        Self {
            watchdog: watchdog.filter(|_| manager.is_some()),
            manager,
            failed: AtomicBool::new(false),
        }
    }

    /// Everything listens; also sent when a reload is over, rejected or not.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// A reload begins. Carries the monotonic time, without which systemd 253 and later takes
    /// the reload for failed.
    pub fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => self.failed(&error),
        }
    }

    /// The stop begins.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// The line that `systemctl status` shows.
    pub fn status(&self, status: &str) {
        // A line break would begin another variable of the protocol.
        let line = status.replace(char::is_control, " ");
        self.send(&[NotifyState::Status(&line)]);
    }

    /// How long the manager waits for a [`pet`](Self::pet) before it kills the daemon, if it
    /// watches at all; sd_watchdog_enabled(3) advises to pet twice in that time.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The daemon is alive.
    pub fn pet(&self) {
        if self.watchdog.is_some() {
            self.send(&[NotifyState::Watchdog]);
        }
    }

    /// Sends one datagram with all of `states`, or none of them.
    fn send(&self, states: &[NotifyState<'_>]) {
        let Some((socket, manager)) = &self.manager else {
            return;
        };
        let message: String = states.iter().map(|state| format!("{state}\n")).collect();
        match socket.send_to_addr(message.as_bytes(), manager) {
            Ok(_) => self.failed.store(false, Ordering::Relaxed),
            Err(error) => self.failed(&error),
        }
    }

    /// Tells the first failure of a row; a manager that is gone is not worth a line each second.
    fn failed(&self, error: &io::Error) {
        if self.failed.swap(true, Ordering::Relaxed) {
            debug!(%error, "service manager not notified");
        } else {
            warn!(%error, "service manager not notified");
        }
    }
}

/// A socket to talk from and the address to talk to. Not connected, so that a manager that
/// binds its socket anew is found again.
fn connect(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        // vsock, which a manager outside a virtual machine uses, or nonsense.
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, address))
}

/// The longest that one message waits for a busy manager to make room.
const PATIENCE: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    /// What the manager reads next.
    fn heard(manager: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    fn patient(manager: UnixDatagram) -> UnixDatagram {
        manager
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        manager
    }

    #[test]
    fn the_manager_hears_every_step_of_a_life() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let manager = patient(UnixDatagram::bind(&path).unwrap());
        let notify = Notify::new(Some(path.as_os_str()), Some(Duration::from_secs(10)));
        notify.ready();
        assert_eq!(heard(&manager), "READY=1\n");
        notify.status("3 services,\n11/12 backends eligible");
        assert_eq!(
            heard(&manager),
            "STATUS=3 services, 11/12 backends eligible\n"
        );
        notify.pet();
        assert_eq!(heard(&manager), "WATCHDOG=1\n");
        notify.reloading();
        let reloading = heard(&manager);
        let usec = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .and_then(|rest| rest.strip_suffix('\n'))
            .unwrap();
        assert!(usec.parse::<u64>().unwrap() > 0);
        notify.stopping();
        assert_eq!(heard(&manager), "STOPPING=1\n");
    }

    #[test]
    fn an_abstract_socket_is_heard_too() {
        let name = format!("ballast-notify-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let manager = patient(UnixDatagram::bind_addr(&address).unwrap());
        Notify::new(Some(OsStr::new(&format!("@{name}"))), None).ready();
        assert_eq!(heard(&manager), "READY=1\n");
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notify = Notify::new(None, Some(Duration::from_secs(10)));
        assert_eq!(notify.watchdog(), None);
        notify.ready();
        notify.pet();
    }

    #[test]
    fn a_socket_of_another_kind_or_a_dead_manager_is_survived() {
        for name in ["vsock:2:1234", "relative", "/nonexistent/notify", "/"] {
            let notify = Notify::new(Some(OsStr::new(name)), None);
            notify.ready();
            notify.stopping();
        }
    }

    #[test]
    fn a_manager_that_binds_anew_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let first = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(Some(path.as_os_str()), None);
        drop(first);
        notify.ready();
        std::fs::remove_file(&path).unwrap();
        let second = patient(UnixDatagram::bind(&path).unwrap());
        notify.ready();
        assert_eq!(heard(&second), "READY=1\n");
    }

    #[test]
    fn a_manager_that_does_not_read_costs_a_bounded_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let _deaf = UnixDatagram::bind(&path).unwrap();
        let notify = Notify::new(Some(path.as_os_str()), None);
        let started = Instant::now();
        while !notify.failed.load(Ordering::Relaxed) {
            notify.ready();
            assert!(started.elapsed() < Duration::from_secs(60), "never filled");
        }
    }
}
