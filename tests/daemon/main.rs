//! Whole-daemon tests: the real binary between real sockets. One file per promise; one binary,
//! because linking a dozen costs more than running them.
#![allow(
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a failed unwrap is a failed test, and nothing outside can reach into a test"
)]

#[path = "../support/mod.rs"]
mod support;

mod admin;
mod admission;
mod alert_programs;
mod alerts;
mod bandwidth;
mod checks;
mod commands;
mod discovery;
mod doctor;
mod endings;
mod explaining;
mod failover;
mod health;
mod idle;
mod interop;
mod lifetime;
mod limits;
mod listening;
mod log_fields;
mod matrix;
mod memory;
mod metrics;
mod notify;
mod on_down;
mod operators;
mod page;
mod passive;
mod paths;
mod planning;
mod printing;
mod privileges;
mod proxy_protocol;
mod queue;
mod records;
mod relay;
mod reload;
mod reload_guard;
mod report;
mod retry;
mod serving;
mod sessions;
mod sockets;
mod splice;
mod stop;
mod strategies;
mod top;
