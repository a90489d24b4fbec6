//! Running sessions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/sessions`, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Sessions {
    /// One page of those that were asked for.
    pub sessions: Vec<Session>,
    /// How many match in all.
    pub total: u64,
    /// `offset` of the next page, if there is one.
    pub next: Option<u64>,
}

/// A running session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Session {
    /// Names it to who closes it.
    pub id: String,
    /// Who connected.
    pub client: String,
    /// Where the client came in.
    pub listener: String,
    /// Where it leads.
    pub service: String,
    /// Who serves it, once it is known.
    pub backend: Option<String>,
    /// `queue`, `connect` or `relay`.
    pub phase: String,
    /// Since it was accepted.
    pub age_seconds: f64,
    /// Since a byte or a FIN last moved; until one has, since it began to be relayed.
    pub idle_seconds: f64,
    /// Written to the backend so far, …
    pub to_backend_bytes: u64,
    /// … and to the client.
    pub to_client_bytes: u64,
    /// Which worker it lives on.
    pub worker: u32,
}
