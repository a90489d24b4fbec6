//! What there is: settings and counters of the kernel, the files that the configuration names, a daemon
//! that runs with it. Changes and judges nothing; what cannot be read is absent. Addresses alone are not only looked at:
//! each that nobody is known to have is bound for a moment.

mod listening;
mod process;

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime};

use super::access::{Node, Want, Who};
use crate::api::View;
use crate::cli::client::{Address, Client, Failure, Reach, file_of};
use crate::cli::eyes;
use crate::cli::rates::Rates;
use crate::cli::status::VIEW;
use crate::config::{self, AlertTarget, Config};
use crate::confine::{kernel_has_landlock, unmet};
use crate::health::Kind;
use crate::net::clock_is_synchronised;

pub(super) use listening::{Refusal, Why};
pub(super) use process::Daemon;

/// All that is known.
#[derive(Debug)]
pub(super) struct Facts {
    /// The configuration file, and what it says unless it cannot be used.
    pub(super) path: PathBuf,
    pub(super) config: Result<Config, String>,
    /// What keeps a daemon from using it once it is the user that it becomes.
    pub(super) refusal: Option<String>,
    /// The daemon that runs with this file.
    pub(super) daemon: Option<Daemon>,
    /// The process that has said of itself that it runs with this file, which /proc need not show.
    pub(super) answered: Option<u32>,
    /// New sessions a second of each service to each address, if the daemon says so.
    pub(super) rates: BTreeMap<(String, SocketAddr), f64>,
    /// Whose rights count: the daemon's, or those it would have.
    pub(super) who: Who,
    /// Descriptors that one process may have.
    pub(super) descriptors: u64,
    pub(super) cores: usize,
    pub(super) kernel: Kernel,
    pub(super) meters: Meters,
    pub(super) clock: Clock,
    pub(super) files: Vec<Item>,
    /// Addresses that a daemon could not listen on; not known while one runs that does not say where it does.
    pub(super) refusals: Option<Vec<Refusal>>,
    pub(super) lockable: Lockable,
}

/// What of a sandbox the kernel has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lockable {
    /// Filters of system calls.
    pub(super) seccomp: bool,
    /// Rules about files.
    pub(super) landlock: bool,
}

/// Kernel settings as written, by the name that sysctl(8) knows.
#[derive(Debug, Default)]
pub(super) struct Kernel(pub(super) BTreeMap<&'static str, String>);

/// What the kernel counts.
#[derive(Debug, Default)]
pub(super) struct Meters {
    /// Memory that programs can have without swapping.
    pub(super) available_bytes: Option<u64>,
    /// Sockets in TIME_WAIT.
    pub(super) time_wait: Option<u64>,
    /// Handshakes that were complete and found no room in a backlog, since the machine has started.
    pub(super) listen_overflows: Option<u64>,
}

#[derive(Debug)]
pub(super) struct Clock {
    /// Whether somebody keeps it right; `None` where the kernel does not tell.
    pub(super) synchronised: Option<bool>,
    pub(super) now: SystemTime,
    /// No clock that is right is before this: something was made then.
    pub(super) not_before: Option<SystemTime>,
}

/// A file that the daemon needs.
#[derive(Debug)]
pub(super) struct Item {
    /// For people: `the token of alert pager`.
    pub(super) what: String,
    pub(super) path: PathBuf,
    pub(super) want: Want,
    /// Nobody else is to read it.
    pub(super) secret: bool,
    /// It may not be there yet.
    pub(super) optional: bool,
    /// From `/` to the file itself, or why that is not known.
    pub(super) chain: Result<Vec<Node>, String>,
}

impl Kernel {
    fn read() -> Self {
        let setting = |name: &&'static str| {
            let path = format!("/proc/sys/{}", name.replace('.', "/"));
            let value = fs::read_to_string(path).ok()?;
            Some((*name, value.trim().to_owned()))
        };
        Self(SETTINGS.iter().filter_map(setting).collect())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

const SETTINGS: &[&str] = &[
    "fs.file-max",
    "fs.nr_open",
    "fs.pipe-max-size",
    "fs.pipe-user-pages-hard",
    "fs.pipe-user-pages-soft",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_congestion_control",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_migrate_req",
    "net.ipv4.tcp_tw_reuse",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
];

impl Meters {
    fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self {
            available_bytes: kibibytes(&text("/proc/meminfo"), "MemAvailable:"),
            time_wait: word_after(&text("/proc/net/sockstat"), "TCP:", "tw"),
            listen_overflows: counter(&text("/proc/net/netstat"), "TcpExt:", "ListenOverflows"),
        }
    }
}

/// `MemAvailable:   23104164 kB`
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let number: u64 = line.split_whitespace().next()?.parse().ok()?;
    number.checked_mul(1024)
}

/// `TCP: inuse 2 orphan 0 tw 10256`
fn word_after(text: &str, line: &str, word: &str) -> Option<u64> {
    let rest = text.lines().find_map(|it| it.strip_prefix(line))?;
    let mut words = rest.split_whitespace();
    words.find(|it| *it == word)?;
    words.next()?.parse().ok()
}

/// A line of names, then a line of numbers.
fn counter(text: &str, line: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|it| it.strip_prefix(line));
    let at = lines.next()?.split_whitespace().position(|it| it == name)?;
    lines.next()?.split_whitespace().nth(at)?.parse().ok()
}

impl Facts {
    /// Everything about this machine, the file, and the daemon where one answers; that takes a second.
    pub(super) fn read(reach: &Reach) -> Self {
        let watched = watched(reach);
        let asked = watched.as_ref().map(|it| (&it.client, &it.after));
        let path = file_of(reach, asked);
        let path = path.as_path();
        let loaded = config::load_in_place_of(path, path, &unmet);
        let refusal = loaded
            .as_ref()
            .ok()
            .and_then(|it| eyes::refusal(path, it, false));
        let config = loaded
            .map(|loaded| loaded.config)
            .map_err(|rejected| rejected.render(false).trim_end().to_owned());
        let daemon = Daemon::find(path);
        let own = watched.as_ref().ok();
        let own = own.filter(|it| it.runs_with(path, daemon.as_ref()));
        let refusals = match (own, &daemon) {
            (Some(own), _) => Some(own.listens_at()),
            (None, None) => Some(Vec::new()),
            (None, Some(_)) => None,
        };
        let runs = own.is_some();
        let refusals = config
            .as_ref()
            .ok()
            .zip(refusals)
            .map(|(config, ours)| listening::refusals(config, runs, &ours));
        let who = match &daemon {
            Some(daemon) => daemon.who.clone(),
            None => {
                let runtime = config.as_ref().ok().map(|it| &it.runtime);
                process::would_run_as(runtime.and_then(|it| it.user.as_deref()))
            }
        };
        let made = std::env::current_exe().and_then(|it| it.metadata()?.modified());
        let state = state_directory(config.as_ref().ok(), daemon.as_ref());
        Self {
            path: path.to_owned(),
            descriptors: daemon
                .as_ref()
                .and_then(|it| it.descriptors)
                .unwrap_or_else(process::own_descriptors),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            answered: own.map(|it| it.after.process.pid),
            // A daemon without an admin API is judged by what /proc says.
            rates: watched.map_or_else(|_| BTreeMap::new(), |it| rates(&it.before, &it.after)),
            kernel: Kernel::read(),
            meters: Meters::read(),
            clock: Clock {
                synchronised: clock_is_synchronised(),
                now: SystemTime::now(),
                not_before: made.ok(),
            },
            lockable: Lockable {
                seccomp: Path::new("/proc/sys/kernel/seccomp/actions_avail").exists(),
                landlock: kernel_has_landlock(),
            },
            files: files(path, config.as_ref().ok(), state),
            refusals,
            config,
            refusal,
            daemon,
            who,
        }
    }
}

/// What the daemon says, twice.
struct Watched {
    client: Client,
    before: View,
    after: View,
}

fn watched(reach: &Reach) -> Result<Watched, Failure> {
    let client = Client::find(reach)?;
    let before = client.get(VIEW)?;
    thread::sleep(WATCHED);
    let after = client.get(VIEW)?;
    Ok(Watched {
        client,
        before,
        after,
    })
}

impl Watched {
    /// Whether it is the daemon of the file at `path`, which is `found` in /proc unless that hides it.
    fn runs_with(&self, path: &Path, found: Option<&Daemon>) -> bool {
        let process = &self.after.process;
        if !self.client.answered().is_some_and(Address::is_here) {
            return false;
        }
        if let Some(found) = found {
            return found.pid == process.pid;
        }
        let Some(told) = process.configuration.path.as_deref().map(Path::new) else {
            return false;
        };
        match told.is_absolute() {
            true => told.canonicalize().ok() == path.canonicalize().ok(),
            // From where it was started is not to be seen.
            false => told.file_name() == path.file_name(),
        }
    }

    /// Where it lets clients in.
    fn listens_at(&self) -> Vec<SocketAddr> {
        let services = self.after.services.iter();
        let all = services.flat_map(|it| &it.listeners);
        // Others are paths.
        all.filter_map(|it| it.address.parse().ok()).collect()
    }
}

fn rates(before: &View, after: &View) -> BTreeMap<(String, SocketAddr), f64> {
    let rates = Rates::between(before, after);
    let mut by_address = BTreeMap::new();
    for service in &after.services {
        for backend in &service.backends {
            let address = backend.address.as_ref().and_then(|it| it.parse().ok());
            let rate = rates.of(&service.name, Some(&backend.name));
            if let (Some(address), Some(rate)) = (address, rate) {
                let place = (service.name.clone(), address);
                *by_address.entry(place).or_default() += rate.sessions;
            }
        }
    }
    by_address
}

/// How long sessions are counted for their rate.
const WATCHED: Duration = Duration::from_secs(1);

fn state_directory(config: Option<&Config>, daemon: Option<&Daemon>) -> Option<PathBuf> {
    let configured = config.and_then(|it| it.runtime.state_file.as_deref());
    match configured {
        Some(file) => file.parent().map(Path::to_owned),
        None => daemon?.state_directory.clone(),
    }
}

/// Every file that the daemon needs by this configuration.
fn files(path: &Path, config: Option<&Config>, state: Option<PathBuf>) -> Vec<Item> {
    let mut items = Vec::new();
    let mut add = |what: String, path: &Path, want, secret, optional| {
        items.push(Item {
            what,
            path: path.to_owned(),
            want,
            secret,
            optional,
            chain: chain(path).map_err(|error| error.to_string()),
        });
    };
    let secret = config.is_some_and(holds_secrets);
    add("the configuration".into(), path, Want::Read, secret, false);
    if let Some(state) = state {
        add(
            "the state directory".into(),
            &state,
            Want::Write,
            false,
            false,
        );
    }
    if let Some(token) = config.and_then(|config| config.admin.token_file.as_ref()) {
        let what = "the token of [admin]".to_owned();
        add(what, token, Want::Read, true, false);
    }
    for service in config.iter().flat_map(|config| &config.services) {
        if let Some(file) = &service.backends_file {
            let what = format!("the backends of service {}", service.name);
            add(what, file, Want::Read, false, true);
        }
        if let Kind::Exec(program) = &service.check.kind {
            let what = format!("the check of service {}", service.name);
            add(what, Path::new(&program.path), Want::Run, false, false);
        }
    }
    for alert in config.iter().flat_map(|config| &config.alerts) {
        match &alert.target {
            AlertTarget::Webhook(webhook) => {
                if let Some(token) = &webhook.token_file {
                    let what = format!("the token of alert {}", alert.name);
                    add(what, token, Want::Read, true, false);
                }
            }
            AlertTarget::Exec(program) => {
                let what = format!("the program of alert {}", alert.name);
                add(what, Path::new(&program.path), Want::Run, false, false);
            }
        }
    }
    items
}

/// Whether somebody who reads the file learns a password.
fn holds_secrets(config: &Config) -> bool {
    let in_checks = config.services.iter().any(|it| match &it.check.kind {
        Kind::Redis(redis) => redis.password.is_some(),
        Kind::Postgres(postgres) => postgres.password.is_some(),
        Kind::Tcp(_)
        | Kind::Http(_)
        | Kind::Mysql(_)
        | Kind::Tls(_)
        | Kind::Exec(_)
        | Kind::Agent(_) => false,
    });
    let in_alerts = config.alerts.iter().any(|alert| match &alert.target {
        AlertTarget::Webhook(webhook) => !webhook.headers.is_empty(),
        AlertTarget::Exec(_) => false,
    });
    in_checks || in_alerts
}

/// What `path` is in the end, and every directory on the way there.
fn chain(path: &Path) -> std::io::Result<Vec<Node>> {
    let real = path.canonicalize()?;
    let mut nodes = Vec::new();
    for step in real.ancestors() {
        let metadata = step.metadata()?;
        nodes.push(Node {
            path: step.to_owned(),
            mode: metadata.mode(),
            uid: metadata.uid(),
            gid: metadata.gid(),
        });
    }
    nodes.reverse();
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_counts_is_found_by_name() {
        assert_eq!(kibibytes("A: 1 kB\nB:   7 kB\n", "B:"), Some(7 * 1024));
        assert_eq!(kibibytes("", "B:"), None);
        let sockets = "sockets: used 21\nTCP: inuse 2 orphan 0 tw 10256 alloc 2\nUDP: inuse 0";
        assert_eq!(word_after(sockets, "TCP:", "tw"), Some(10256));
        assert_eq!(word_after(sockets, "UDP:", "tw"), None);
        let counters = "TcpExt: A B C\nTcpExt: 1 2 3\nIpExt: A\nIpExt: 9\n";
        assert_eq!(counter(counters, "TcpExt:", "B"), Some(2));
        assert_eq!(counter(counters, "IpExt:", "B"), None);
    }

    #[test]
    fn this_machine_has_most_of_it() {
        let kernel = Kernel::read();
        assert!(kernel.number("net.core.somaxconn").is_some());
        assert!(Meters::read().available_bytes.is_some());
    }

    #[test]
    fn the_way_to_a_file_begins_at_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("f");
        fs::write(&file, "").unwrap();
        let chain = chain(&file).unwrap();
        assert_eq!(chain[0].path, Path::new("/"));
        let last = chain.last().unwrap();
        assert!(last.is_regular() && !last.is_directory());
    }
}
