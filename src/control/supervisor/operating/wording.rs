//! What was done for an operator, in words. Pure.

use super::order::Order;
use crate::config::written;
use crate::health::Duty;
use crate::model::counted;

impl Order {
    /// What was done, as in `web/app-1: drain`.
    pub(super) fn name(self) -> String {
        match self {
            Self::Drain(None) => "drain".to_owned(),
            Self::Drain(Some(time)) => format!("drain within {}", written(time)),
            Self::Disable => "disable".to_owned(),
            Self::Enable => "enable".to_owned(),
            Self::Weight(percent) => format!("weight {}%", percent.get()),
            Self::Reset => "reset".to_owned(),
            Self::Close => "close sessions".to_owned(),
        }
    }

    /// What is said when there is nothing to be done.
    pub(super) fn already(self) -> String {
        match self {
            Self::Drain(_) => "already drained".to_owned(),
            Self::Disable => "already disabled".to_owned(),
            Self::Enable => "already enabled".to_owned(),
            Self::Weight(percent) => format!("already at {}% of its weight", percent.get()),
            Self::Reset => "already what the file says".to_owned(),
            Self::Close => "no sessions to close".to_owned(),
        }
    }

    /// What a backend does now; of `all` that are concerned, these are kept `aside` as before.
    pub(super) fn came(self, aside: &[Duty], all: usize) -> String {
        let stays = match aside {
            [] => "",
            [Duty::Drain] if all == 1 => " and stays drained",
            [_] if all == 1 => " and stays disabled",
            _ => "; who is drained or disabled stays so",
        };
        match self {
            Self::Drain(_) => "drains".to_owned(),
            Self::Disable => "is disabled".to_owned(),
            Self::Enable => "is enabled".to_owned(),
            Self::Weight(percent) => format!("has {}% of its weight{stays}", percent.get()),
            Self::Reset => "is as the file says".to_owned(),
            Self::Close => "has its sessions closed".to_owned(),
        }
    }

    /// What becomes of the `sessions` that run there.
    pub(super) fn leaves(self, sessions: u64) -> String {
        match (self, sessions) {
            (Self::Drain(Some(time)), 0) => {
                let time = written(time);
                format!("no session runs there, and the deadline is in {time}")
            }
            (_, 0) => "no session runs there".to_owned(),
            (Self::Close, some) => counted(some, "session"),
            (Self::Drain(Some(time)), some) => {
                let (some, time) = (counted(some, "session"), written(time));
                format!("{some}, closed unless over within {time}")
            }
            (_, 1) => "1 session goes on".to_owned(),
            (_, some) => format!("{some} sessions go on"),
        }
    }
}

/// Which backends were concerned: the one that was named, or all of the service.
pub(super) fn whom(service: &str, backend: Option<&str>, concerned: usize) -> String {
    match backend {
        Some(backend) => format!("{service}/{backend}"),
        None if concerned == 1 => format!("the backend of {service}"),
        None => format!("each of the {concerned} backends of {service}"),
    }
}

/// `2 of 4 backends serve, 1 stands by`
pub(super) fn share(serving: usize, eligible: usize, configured: usize) -> String {
    let serve = if serving == 1 { "serves" } else { "serve" };
    let serve = format!("{serving} of {configured} backends {serve}");
    match eligible.saturating_sub(serving) {
        0 => serve,
        1 => format!("{serve}, 1 stands by"),
        some => format!("{serve}, {some} stand by"),
    }
}
