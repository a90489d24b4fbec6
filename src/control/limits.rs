//! How many sessions the descriptor limit allows.

use super::discovery::MOST_SOCKETS;
use crate::admin;
use crate::config::Config;
use crate::discovery::questions;
use crate::net::relay::MOST_PIPES;
use crate::net::{BoundListener, raise_descriptor_limit, spares_of};

/// Descriptors of the process itself: standard streams, runtimes, timers, signals, the runner's socket,
/// inotify, and files while they are read or written.
const OWN: usize = 64;
/// Descriptors that each worker's reactor holds.
const PER_WORKER: usize = 8;
/// The most probes in flight at a time, however many backends there are.
const MOST_PROBES: usize = 1024;
/// Fewer sessions than this are hardly what anybody wants.
const FEW: usize = 64;
/// The connection of an alert that is on its way, and what its address or its token is read from.
const PER_ALERT: usize = 2;
/// Sockets of an address of the admin endpoint while a reload replaces it.
const PER_ADMIN_ADDRESS: usize = 2;
/// Ends of a pipe.
const PER_PIPE: usize = 2;
/// Sockets of a session.
const PER_SESSION: usize = 2;

/// What the descriptor limit is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Sessions at a time.
    pub(super) max_connections: usize,
    /// Above these, `dry_run` counts them.
    pub(super) dry_connections: Option<usize>,
    /// Probes at a time.
    pub(super) probes: usize,
}

/// How many probes may be in flight, whatever the configuration: a reload may bring any number of
/// backends.
fn probes(descriptors: usize) -> usize {
    MOST_PROBES.min(descriptors / 8).max(1)
}

/// How many descriptors there may be, once the soft limit is raised to the hard one.
pub(super) fn descriptors() -> usize {
    usize::try_from(raise_descriptor_limit()).unwrap_or(usize::MAX)
}

impl Limits {
    /// Tells if the descriptor limit is a nuisance.
    pub(super) fn warn(&self, config: &Config) {
        if self.max_connections < FEW && config.runtime.max_connections.is_none() {
            tracing::warn!(
                max_connections = self.max_connections,
                "the descriptor limit leaves room for few sessions (LimitNOFILE)"
            );
        }
        if !config.runtime.dry_run.max_connections
            && let Some(configured) = config.runtime.max_connections
            && configured.get() as usize > self.max_connections
        {
            tracing::warn!(
                configured,
                max_connections = self.max_connections,
                "max_connections lowered to what the descriptor limit allows (LimitNOFILE)"
            );
        }
    }
}

/// The most sessions for which `descriptors` are enough, whatever `max_connections` says.
pub fn capacity(descriptors: usize, config: &Config, workers: usize) -> usize {
    let listeners: usize = config.services.iter().map(|it| it.listen.len()).sum();
    // Probes of dead backends hold a descriptor until they time out, but they leave most of a
    // small limit to sessions.
    let probes = probes(descriptors);
    let pipes = MOST_PIPES.min(descriptors / 64);
    // Sessions that took these would have names and alerts fail when there is most to do.
    let look_ups = MOST_SOCKETS * usize::from(follows_names(config));
    let alerts = PER_ALERT * config.alerts.len();
    // Who looks into why there is no room for a session has to get in.
    let admin = match config.admin.listen.len() {
        0 => 0,
        addresses => admin::MOST_CONNECTIONS + PER_ADMIN_ADDRESS * addresses,
    };
    // A reload holds the old and the new listeners at once.
    let listening = 2 * listeners * BoundListener::sockets_for(workers);
    let per_worker = PER_WORKER + PER_PIPE * pipes;
    let own = OWN + workers * per_worker + spares_of(descriptors);
    let reserve = own + listening + probes + look_ups + alerts + admin;
    (descriptors.saturating_sub(reserve) / PER_SESSION).max(1)
}

/// `max_connections` as configured, or what so many descriptors leave room for; never more than that.
pub(super) fn limits(descriptors: usize, config: &Config, workers: usize) -> Limits {
    let possible = capacity(descriptors, config, workers);
    let wanted = config
        .runtime
        .max_connections
        .filter(|_| !config.runtime.dry_run.max_connections)
        .map_or(possible, |wanted| wanted.get() as usize);
    Limits {
        max_connections: wanted.min(possible),
        dry_connections: config
            .runtime
            .max_connections
            .filter(|_| config.runtime.dry_run.max_connections)
            .map(|it| it.get() as usize),
        probes: probes(descriptors),
    }
}

/// Whether names are looked up, or may be when a list says so.
fn follows_names(config: &Config) -> bool {
    let mut services = config.services.iter();
    services.any(|it| it.backends_file.is_some() || questions(it.backends.iter()).next().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;

    #[test]
    fn sessions_leave_descriptors_to_look_ups_alerts_and_operators() {
        let most = |address: &str, more: &str| {
            let service = "[[service]]\nname = \"s\"\nlisten = \"127.0.0.1:1\"\n";
            let backend = format!("[[service.backend]]\naddress = \"{address}\"\n");
            let config = compile(&format!("{service}{backend}{more}"), "f");
            limits(1 << 14, &config.unwrap().config, 1).max_connections
        };
        let plain = most("10.0.0.1:80", "");
        let with_a_name = most("db.internal:80", "");
        assert_eq!(plain - with_a_name, MOST_SOCKETS / PER_SESSION);
        let alert = "[[alert]]\nname = \"a\"\non = [\"all-down\"]\nexec = \"/bin/true\"\n";
        let with_an_alert = most("10.0.0.1:80", alert);
        assert_eq!(plain - with_an_alert, PER_ALERT / PER_SESSION);
        let admin = "[admin]\nlisten = \"127.0.0.1:2\"\n";
        let kept = admin::MOST_CONNECTIONS + PER_ADMIN_ADDRESS;
        assert_eq!(plain - most("10.0.0.1:80", admin), kept / PER_SESSION);
    }
}
