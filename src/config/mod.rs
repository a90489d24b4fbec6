//! The configuration: file as written → checked [`Config`], every problem at once → the plan of a
//! reload. Pure but for reading the file; knows nothing of sockets, and resolves no names.
//!
//! Start with [`compile`], then follow a value: `decode` walks the tree of the file, each section has a
//! file of its own that says what comes of it and reads it (`runtime`, `service`, `backend`, `alert`, …), and
//! `conflicts` looks across services. `keys` is the one table of what may be written, `unknown` what was
//! meant by anything else, `problem` and `render` are how that is said, and [`plan`] is what changes from one
//! configuration to the next.

mod access;
mod address;
mod admin;
mod alert;
mod backend;
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
mod limits;
mod listed;
mod listen;
mod load;
mod network;
mod passive;
pub mod plan;
mod problem;
mod program;
mod proxy_protocol;
mod redact;
mod render;
mod runtime;
mod service;
mod serving;
mod socket;
mod source;
mod syntax;
#[cfg(test)]
mod testing;
mod token;
mod unknown;
mod value;
mod waiting;

use std::time::Duration;

use crate::health::Kind;
use crate::model::Sources;

pub use access::AccessConfig;
pub use admin::{AdminAddress, AdminConfig, SocketAccess};
pub use alert::{AlertConfig, AlertTarget, Effort, Flapping, Occasion, Pace, Webhook};
pub use backend::{BackendAddress, BackendConfig, Family};
pub use bandwidth::Caps;
pub use compile::{Loaded, Rejected, compile};
pub(crate) use conflicts::Doors;
pub use discovery::DiscoveryConfig;
pub use handover::{Held, handovers};
pub use limits::{Limited, LimitsConfig};
pub use listed::{Listed, load_listed};
pub use listen::ListenConfig;
pub use load::{
    AdminDoors, Seen, admin_doors, compile_in_place_of, load, load_again, load_in_place_of,
    state_file,
};
pub use plan::{ListenerId, Plan, listeners};
pub use problem::{Lack, Need, Problem, Report, Severity};
pub use proxy_protocol::{AcceptHeader, ProxyConfig, SendHeader};
pub use redact::without_secrets;
pub use runtime::{
    DryRun, LogConfig, LogFormat, LogLevel, ReloadGuard, RuntimeConfig, Sandbox, SessionLog,
};
pub use service::{AdmissionConfig, RelayMode, ServiceConfig, Timeouts};
pub use socket::{Demand, Denial, Incoming, Keepalive, Outgoing, SocketConfig, Tuning};
pub use source::{Place, Span};
pub use token::{NoToken, token};
pub(crate) use value::written;
pub use waiting::{OnDown, QueueConfig};

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

    /// No service, and nothing that would be waited for or kept from anybody: what runs before the first
    /// file.
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
            log: LogConfig::default(),
            discovery: DiscoveryConfig::default(),
            admin: AdminConfig::default(),
            services: Vec::new(),
            alerts: Vec::new(),
        }
    }
}
