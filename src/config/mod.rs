//! The configuration: file as written → checked [`Config`], every problem at once → the plan of a
//! reload. Pure but for reading the file; knows nothing of sockets, and resolves no names.
//!
//! Start with [`compile`], then follow a value: `decode` walks the tree of the file section by section,
//! `service` makes a service of one, `conflicts` looks across services. `keys` is the one table of what
//! may be written, `problem` and `render` are how it is said that something else was, and [`plan`] is
//! what changes from one configuration to the next.

mod address;
mod admin;
mod admission;
mod alert;
mod bandwidth;
mod check;
mod compile;
mod conflicts;
mod decode;
mod differing;
mod discovery;
pub mod edits;
mod foreign;
mod handover;
mod health;
pub mod keys;
mod listed;
mod load;
mod network;
mod passive;
pub mod plan;
mod problem;
mod program;
mod proxy_protocol;
mod redact;
mod render;
mod service;
mod serving;
mod socket;
mod source;
mod syntax;
mod value;
mod waiting;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::admission::{Access, Bandwidth, Cap, Networks, Rate, SourceRules};
use crate::health::{Check, Kind, Passive, Policy, Rules};
use crate::model::{Address, Sources, UnixPath};
use crate::proxy_protocol::Version;
use crate::strategy::{Entry, Parameters};

pub use admin::{AdminAddress, AdminConfig, SocketAccess};
pub use alert::{AlertConfig, AlertTarget, Effort, Flapping, Occasion, Pace, Webhook};
pub use compile::{Loaded, Rejected, compile};
pub(crate) use conflicts::Doors;
pub use discovery::DiscoveryConfig;
pub use handover::{Held, handovers};
pub use listed::{Listed, load_listed};
pub use load::{
    AdminDoors, Seen, admin_doors, compile_in_place_of, load, load_in_place_of, state_file,
};
pub use plan::{ListenerId, Plan, listeners};
pub use problem::{Lack, Need, Problem, Report, Severity};
pub use redact::without_secrets;
pub use socket::{Demand, Denial, Incoming, Keepalive, Outgoing, SocketConfig, Tuning};
pub use source::{Place, Span};
pub(crate) use value::written;

/// A configuration without a problem in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[runtime]`
    pub runtime: RuntimeConfig,
    /// `[log]`
    pub log: LogConfig,
    /// `[discovery]`
    pub discovery: DiscoveryConfig,
    /// `[admin]`
    pub admin: AdminConfig,
    /// `[[service]]`, in the order of the file.
    pub services: Vec<ServiceConfig>,
    /// `[[alert]]`, in the order of the file.
    pub alerts: Vec<AlertConfig>,
}

impl Config {
    /// Whether a service has something that takes CAP_NET_RAW: a mark, or clients as the source.
    pub fn needs_raw_sockets(&self) -> bool {
        let outgoing = self
            .services
            .iter()
            .filter_map(|it| it.socket.outgoing.as_ref());
        let mut egresses = outgoing.filter_map(|it| it.egress.as_ref());
        egresses.any(|it| it.mark.is_some() || it.sources == Sources::Client)
    }

    /// Whether a check or an alert is a program.
    pub fn runs_programs(&self) -> bool {
        let mut checks = self.services.iter().map(|it| &it.check.kind);
        let mut targets = self.alerts.iter().map(|it| &it.target);
        checks.any(|it| matches!(it, Kind::Exec(_)))
            || targets.any(|it| matches!(it, AlertTarget::Exec(_)))
    }

    /// No service, and every setting at its default: what runs before the first file.
    pub fn empty() -> Self {
        Self {
            runtime: RuntimeConfig {
                workers: None,
                max_connections: None,
                accept_rate: None,
                dry_run: DryRun::default(),
                drain_timeout: Duration::ZERO,
                resolve_timeout: Duration::ZERO,
                reload_guard: ReloadGuard::Off,
                state_file: None,
                state_max_age: Duration::ZERO,
                user: None,
                group: None,
                sandbox: Sandbox::Off,
            },
            log: LogConfig {
                level: LogLevel::Info,
                format: LogFormat::Text,
                sessions: SessionLog::Failed,
            },
            discovery: DiscoveryConfig::default(),
            admin: AdminConfig::default(),
            services: Vec::new(),
            alerts: Vec::new(),
        }
    }
}

/// `[runtime]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Worker threads; `None` is one per core. Needs a restart.
    pub workers: Option<NonZeroU32>,
    /// Sessions at a time over all services; `None` derives it from the descriptor limit.
    pub max_connections: Option<NonZeroU32>,
    /// Clients that are accepted in a time over all services, if there is such a limit.
    pub accept_rate: Option<Rate>,
    /// Which of these two only count.
    pub dry_run: DryRun,
    /// How long a stop waits for running sessions.
    pub drain_timeout: Duration,
    /// The most that all name look-ups of a start or a reload may take together.
    pub resolve_timeout: Duration,
    /// What is done with a reload that would leave a service without a backend up.
    pub reload_guard: ReloadGuard,
    /// Where to keep what is known of backends; `None` leaves it to the environment. Needs a restart.
    pub state_file: Option<PathBuf>,
    /// The oldest state file that is used at a start.
    pub state_max_age: Duration,
    /// Whom a daemon that root has started becomes, by name or number. Needs a restart.
    pub user: Option<String>,
    /// The same for its group; `None` is the group of that user. Needs a restart.
    pub group: Option<String>,
    /// What it may still ask of the kernel once it runs. Needs a restart.
    pub sandbox: Sandbox,
}

/// The limits of `[runtime]` that only count whom they would keep waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DryRun {
    /// Then the descriptor limit alone decides.
    pub max_connections: bool,
    /// As many as come are accepted.
    pub accept_rate: bool,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            workers: None,
            max_connections: None,
            accept_rate: None,
            dry_run: DryRun::default(),
            drain_timeout: Duration::from_secs(30),
            resolve_timeout: Duration::from_secs(5),
            reload_guard: ReloadGuard::Refuse,
            state_file: None,
            state_max_age: Duration::from_secs(24 * 60 * 60),
            user: None,
            group: None,
            sandbox: Sandbox::On,
        }
    }
}

/// `runtime.reload_guard`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadGuard {
    /// It is rejected: it is hardly what was meant, and a rejected reload harms nobody.
    Refuse,
    /// It takes effect, and the log says what is lost.
    Warn,
    /// It takes effect.
    Off,
}

/// `runtime.sandbox`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sandbox {
    /// What it does not need fails.
    On,
    /// What would fail is only told to the kernel's log.
    Log,
    /// Everything that its user may do.
    Off,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// The least important level that is written.
    pub level: LogLevel,
    /// How a line looks. Needs a restart.
    pub format: LogFormat,
    /// Which sessions get a line.
    pub sessions: SessionLog,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
            sessions: SessionLog::Failed,
        }
    }
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Only what broke.
    Error,
    /// What deserves an operator's attention.
    Warn,
    /// Transitions, reloads, sessions as `log.sessions` says.
    Info,
    /// Probes that missed, peers that vanished.
    Debug,
    /// Everything.
    Trace,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.sessions`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLog {
    /// Every session.
    All,
    /// Those that did not end with a FIN each way.
    Failed,
    /// None.
    Off,
}

/// One `[[service]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Unique among the services.
    pub name: Arc<str>,
    /// At least one.
    pub listen: Vec<ListenConfig>,
    /// How a backend is picked.
    pub strategy: &'static Entry,
    /// What the strategy is told besides the candidates.
    pub parameters: Parameters,
    /// Handshakes that the kernel holds for us, per listener and worker.
    pub backlog: u32,
    /// How bytes move.
    pub relay: RelayMode,
    /// Further backends that a session tries when a connect fails.
    pub retries: u32,
    /// `[service.timeouts]`
    pub timeouts: Timeouts,
    /// `[service.queue]`
    pub queue: QueueConfig,
    /// `on_down` and `close_rate`
    pub on_down: OnDown,
    /// The longest that a session may live, if there is such a limit.
    pub max_lifetime: Option<Duration>,
    /// `[service.socket]`
    pub socket: SocketConfig,
    /// `[service.access]` and `[service.limits]`
    pub admission: AdmissionConfig,
    /// `[service.proxy_protocol]`
    pub proxy: ProxyConfig,
    /// `[service.health]`: how its backends are checked.
    pub check: Arc<Check>,
    /// `[service.health]`: when, and what counts.
    pub health: Policy,
    /// Which of the backends serve when.
    pub serving: Rules,
    /// `[service.passive]`
    pub passive: Passive,
    /// A list of further backends that another program writes; `load` makes a relative path one
    /// beside the configuration.
    pub backends_file: Option<Arc<Path>>,
    /// In the order of the file; at least one where there is no `backends_file`.
    pub backends: Vec<BackendConfig>,
}

/// `relay` of a service
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayMode {
    /// By copying, and by splicing where a direction proves to be bulk.
    Auto,
    /// By copying only.
    Copy,
    /// By splicing from the first byte, where the kernel lets us.
    Splice,
}

/// One address of `listen`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenConfig {
    /// Where clients connect; port 0 lets the kernel choose.
    pub address: Address,
    /// Whether an IPv6 wildcard takes IPv4 clients too.
    pub dual_stack: bool,
    /// Whether clients may come over several paths at once (Multipath TCP).
    pub mptcp: bool,
}

/// `[service.timeouts]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For one connect to one backend.
    pub connect: Duration,
    /// For all connects of one session together.
    pub connect_total: Duration,
    /// The longest silence of a session open both ways.
    pub idle: Duration,
    /// The longest silence on the surviving direction of a half-closed session.
    pub half_closed: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(4),
            connect_total: Duration::from_secs(10),
            idle: Duration::from_secs(60 * 60),
            half_closed: Duration::from_secs(5 * 60),
        }
    }
}

/// `[service.queue]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// The most clients that wait while every backend is full.
    pub size: u32,
    /// The longest that one of them waits.
    pub timeout: Duration,
}

impl Default for QueueConfig {
    fn default() -> Self {
        Self {
            size: 1024,
            timeout: Duration::from_secs(10),
        }
    }
}

/// What becomes of the sessions of a backend that went down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDown {
    /// They live for as long as they can.
    Keep,
    /// They are reset.
    Close {
        /// So many a second, over all such backends of the service.
        rate: u32,
    },
}

/// `[service.access]` and `[service.limits]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdmissionConfig {
    /// Not everybody may come in.
    pub access: Option<AccessConfig>,
    /// How many may.
    pub limits: LimitsConfig,
}

/// `[service.access]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    /// As written; `None` is that there is no such list.
    allow: Option<Vec<IpNet>>,
    deny: Vec<IpNet>,
    allow_file: Option<PathBuf>,
    deny_file: Option<PathBuf>,
    /// Those who may not come in are only counted.
    pub dry_run: bool,
    /// What all lists together say.
    pub rules: Arc<Access>,
}

/// `[service.limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Sessions at a time.
    pub max_connections: Option<Limited<u32>>,
    /// Clients that are accepted in a time.
    pub accept_rate: Option<Limited<Rate>>,
    /// What each source may do.
    pub source: SourceRules,
    /// The leading bits of an IPv6 address that are one source.
    pub source_ipv6_prefix: u8,
    /// Sources that are counted at a time.
    pub sources: u32,
    /// How fast bytes may flow.
    pub caps: Caps,
}

/// What each [`Cap`] is, if there is one, at its number.
pub type Caps = [Option<Limited<Bandwidth>>; Cap::ALL.len()];

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: None,
            accept_rate: None,
            source: SourceRules::default(),
            source_ipv6_prefix: 64,
            sources: 65_536,
            caps: Caps::default(),
        }
    }
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited<T> {
    /// The most that it lets through.
    pub most: T,
    /// It only counts whom it would keep out.
    pub dry: bool,
}

/// `[service.proxy_protocol]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// Clients come with a header, if anything.
    pub accept: Option<Arc<AcceptHeader>>,
    /// Backends are sent one, if anything.
    pub send: Option<SendHeader>,
}

/// How a PROXY header is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptHeader {
    /// The proxies that may connect, and are believed.
    pub from: Networks,
    /// Whether who comes by a Unix socket is one: `unix:` is in the list.
    pub from_paths: bool,
    /// How long one may take to send it.
    pub timeout: Duration,
}

/// How a PROXY header is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendHeader {
    /// As text or in binary.
    pub version: Version,
    /// Whether it names the connection.
    pub unique_id: bool,
}

/// One `[[service.backend]]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendConfig {
    /// Unique within the service; by default the address as written.
    pub name: Arc<str>,
    /// Where it is.
    pub address: BackendAddress,
    /// 1 to 65,535.
    pub weight: u32,
    /// Its tier, 0 to 255: those of priority 0 serve first.
    pub priority: u32,
    /// The most sessions at a time, if there is such a limit.
    pub max_connections: Option<NonZeroU32>,
    /// `false` sends it no new sessions.
    pub enabled: bool,
    /// Where its check goes, when not to the backend itself.
    pub check_address: Option<Address>,
}

/// `address` of a backend
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// `ip:port` or `[v6]:port`
    Ip(SocketAddr),
    /// `unix:/path`
    Unix(UnixPath),
    /// `name:port`: every address of the name, followed as it changes.
    Name {
        /// The name to look up.
        host: Arc<str>,
        /// The port to connect to.
        port: u16,
        /// The addresses that count.
        family: Family,
    },
    /// `srv`: every address of every target that the records name, with their ports.
    Srv {
        /// The name to look up, such as `_pg._tcp.example.org`.
        name: Arc<str>,
        /// The addresses that count.
        family: Family,
    },
}

/// `family` of a backend
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Family {
    /// IPv4 and IPv6.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl BackendAddress {
    /// Where it is, unless a name has to be asked for that.
    pub fn fixed(&self) -> Option<Address> {
        match self {
            Self::Ip(address) => Some(Address::Inet(*address)),
            Self::Unix(path) => Some(Address::Unix(*path)),
            Self::Name { .. } | Self::Srv { .. } => None,
        }
    }

    /// Whether all of it is IPv4, or all IPv6; `None` where that is open, or neither.
    pub fn is_ipv4(&self) -> Option<bool> {
        match self {
            Self::Ip(address) => Some(address.is_ipv4()),
            Self::Name { family, .. } | Self::Srv { family, .. } => match family {
                Family::Any => None,
                Family::V4 => Some(true),
                Family::V6 => Some(false),
            },
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Unix(path) => Address::Unix(*path).fmt(f),
            Self::Name { host, port, .. } => write!(f, "{host}:{port}"),
            Self::Srv { name, .. } => f.write_str(name),
        }
    }
}
