//! The contenders: how each proxy is found, configured at its best, started and reloaded. One file per
//! proxy; a new one is a file with a `find` function and its line in [`find`]. Knows no test.

mod ballast;
mod envoy;
mod haproxy;
mod nginx;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::process::Signal;

/// The name under which sessions without a proxy are reported.
pub(crate) const DIRECT: &str = "direct";

/// The name of the proxy whose ratios to all others are reported.
pub(crate) const BALLAST: &str = ballast::NAME;
/// The same of another build, if there is one.
pub(crate) const OTHER: &str = ballast::OTHER;

/// One proxy in one set-up.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) program: PathBuf,
    /// The configuration's file name.
    pub(crate) file: &'static str,
    pub(crate) render: fn(&Plan) -> String,
    /// The arguments, given the directory, the configuration's path and the workers.
    pub(crate) arguments: fn(&Path, &Path, usize) -> Vec<OsString>,
    /// The signal that has the configuration read again; `None` when there is no such thing.
    pub(crate) reload: Option<Signal>,
}

/// What a configuration is rendered from.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) services: Vec<ServicePlan>,
    pub(crate) workers: usize,
    /// What one process may open.
    pub(crate) descriptors: u64,
    pub(crate) directory: PathBuf,
    /// Between two checks of one backend.
    pub(crate) check_interval: Duration,
    /// Where Ballast's admin port listens, in the tests that are about it.
    pub(crate) admin: Option<SocketAddr>,
}

impl Plan {
    /// Descriptors left for sessions once listeners, checks, logs and event queues have theirs.
    fn descriptors_for_sessions(&self) -> u64 {
        const RESERVE: u64 = 500;
        let listeners = self.services.len() * self.workers;
        let checks: usize = self
            .services
            .iter()
            .map(|service| service.backends.len())
            .sum();
        self.descriptors
            .saturating_sub((listeners + checks) as u64 + RESERVE)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct ServicePlan {
    pub(crate) listen: SocketAddr,
    pub(crate) backends: Vec<SocketAddr>,
}

/// The name of a proxy that is not here, and the reason.
pub(crate) type Missing = (&'static str, String);

/// All set-ups known here: those present, and those missing.
pub(crate) fn find() -> (Vec<Peer>, Vec<Missing>) {
    let mut present = Vec::new();
    let mut missing = Vec::new();
    for (name, found) in [
        (ballast::NAME, ballast::find()),
        (haproxy::NAME, haproxy::find()),
        (nginx::NAME, nginx::find()),
        (envoy::NAME, envoy::find()),
    ] {
        match found {
            Ok(peers) => present.extend(peers),
            Err(reason) => missing.push((name, reason)),
        }
    }
    (present, missing)
}

/// The first executable of that name on PATH, or where distributions put daemons.
fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let daemons = ["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(daemons)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

/// Standard output and error of `program`, or nothing when it cannot be run.
fn output(program: &Path, arguments: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        return String::new();
    };
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{out}{error}")
}
