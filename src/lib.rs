//! Ballast, a layer-4 TCP load balancer: the map of the house.
//!
//! Start with [`session`]: one connection from accept to its log line. Then follow the arrows of the
//! plan below; imports go one way, and `tests/layers.rs` holds it.
//!
//! | room | what it is for |
//! |---|---|
//! | [`model`] | values everyone shares: addresses, a backend with its counters, how a session ended; pure |
//! | [`proxy_protocol`] | the PROXY protocol: by which proxies say for whom they connect; pure |
//! | [`admission`] | who may come in: which networks, and how many of each source; pure |
//! | [`strategy`] | the [`Strategy`](strategy::Strategy) trait, one file per strategy, the registry of names; pure |
//! | [`health`] | the up/down state machine and the roster, the one place that decides who may serve; pure |
//! | [`config`] | the TOML file as written → a checked [`Config`](config::Config), every problem at once → the plan of a reload |
//! | [`api`] | the documents that the daemon and its operators exchange; pure |
//! | [`forecast`] | what clients would meet: sessions played through tables without a socket; pure |
//! | [`discovery`] | who is behind a name: what an answer changes, what holds without one; pure |
//! | [`pool`] | a service and its atomically swapped snapshot, leases, permits, the cursor |
//! | [`telemetry`] | logging, and the record that writes a session's one line |
//! | [`confine`] | what the daemon gives up before it serves: its user, capabilities, calls and files |
//! | [`unix`] | sockets at paths: who may open them, and what a killed daemon has left behind |
//! | [`reactor`] | one thread's event loop: tasks, what descriptors are ready for, timers |
//! | [`net`] | sockets that reset on drop, listeners, connecting, the relay |
//! | [`runner`] | the small process that starts programs for the daemon |
//! | [`check`] | what a probe says to a server, and what its answer means |
//! | [`session`] | one connection from accept to its log line |
//! | [`worker`] | one thread: its reactor, accept loops, sessions, timer wheel, command inbox |
//! | [`admin`] | the HTTP API for operators; asks control by messages |
//! | [`control`] | the supervisor: start, signals, reload, probes, drain |
//! | [`cli`] | one file per subcommand |
//!
//! `model ← proxy_protocol, admission ← strategy, health ← config ← api ← forecast ← discovery ← pool ← telemetry ← confine ← unix ← reactor ← net ← runner ← check ← session ← worker ← admin ← control ← cli`.
//! The pure rooms name no runtime, socket, clock, random source or logger: time, entropy and hashes
//! come in as arguments, so that everything which decides can be tested without a network.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")
)]

pub mod admin;
pub mod admission;
pub mod api;
pub mod check;
pub mod cli;
pub mod config;
pub mod confine;
pub mod control;
pub mod discovery;
pub mod forecast;
#[cfg(test)]
mod fuzzing;
pub mod health;
pub mod model;
pub mod net;
pub mod pool;
pub mod proxy_protocol;
pub mod reactor;
pub mod runner;
pub mod session;
pub mod strategy;
pub mod telemetry;
pub mod unix;
pub mod worker;
