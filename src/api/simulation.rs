//! What clients would meet under a file that need not run anywhere.

use serde::{Deserialize, Serialize};

/// `ballast simulate --json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Simulation {
    /// Sessions that each service was given, one a client.
    pub clients: u64,
    /// How many of them run at a time; each lasts until so many others have begun.
    pub at_once: u64,
    /// Backends that were said to be missing.
    pub without: Vec<String>,
    /// Every service, in the order of the file.
    pub services: Vec<Shares>,
}

/// Who gets how much of one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Shares {
    /// Its name.
    pub service: String,
    /// The name of its strategy.
    pub strategy: String,
    /// What the figures rest on, for people.
    pub basis: String,
    /// Every backend, in the order of the file.
    pub backends: Vec<Share>,
    /// Clients that found everybody full, or nobody.
    pub unserved: u64,
    /// The same without the missing backends.
    pub unserved_without: Option<u64>,
    /// So many of them at a time would wait for a place instead while all are full, …
    pub queue_size: u32,
    /// … for so long at most: nobody knows here how many get one by then.
    pub queue_timeout_seconds: f64,
    /// Clients that another backend serves without the missing ones; `null` where the strategy binds no client
    /// to a backend, or nobody is missing.
    pub moved: Option<u64>,
    /// Those of them whose backend is not missing.
    pub moved_needlessly: Option<u64>,
}

/// What one backend gets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Its name, unique in its service.
    pub backend: String,
    /// As in the file.
    pub weight: u32,
    /// Its tier, 0 first.
    pub priority: u32,
    /// `serves`, `stands by`, `held back` or `out`.
    pub seat: String,
    /// How many it serves.
    pub clients: u64,
    /// Of all clients.
    pub percent: f64,
    /// What its weight entitles it to.
    pub ideal_percent: f64,
    /// The same three without the missing backends.
    pub without: Option<Without>,
}

/// What one backend gets when others are missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Without {
    /// As in [`Share`].
    pub seat: String,
    /// How many it serves.
    pub clients: u64,
    /// Of all clients.
    pub percent: f64,
    /// What its weight entitles it to.
    pub ideal_percent: f64,
}
