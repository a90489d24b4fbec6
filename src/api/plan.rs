//! What a reload would do, before it does.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is asked of `POST /v1/plan`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Proposal {
    /// The text of a file that is to take the place of the daemon's; without it, that file is read.
    pub text: Option<String>,
    /// What problems of the text name as the file.
    pub name: Option<String>,
}

/// What `POST /v1/plan` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// What would come of a reload.
    pub outcome: Prospect,
    /// The file of the daemon, whose place the text would take.
    pub path: Option<String>,
    /// What a reload would log as its `plan`.
    pub summary: String,
    /// What it would log as its `changes`, all of them.
    pub changes: Vec<String>,
    /// What of them is other than it was, key by key, as the files are written.
    #[serde(default)]
    pub edits: Vec<Edit>,
    /// Keys outside of services whose new value takes effect at once.
    pub settings: Vec<String>,
    /// What takes effect only after a restart, in words; also where nothing would change because that restart is
    /// awaited already.
    pub needs_restart: Vec<String>,
    /// What keeps the file from taking effect.
    pub problems: Vec<String>,
    /// What is hardly meant the way it is written, or would be lost.
    pub warnings: Vec<String>,
    /// By name.
    pub services: Difference,
    /// By address, whichever service it belongs to.
    pub listeners: Difference,
    /// By service and name, as the file has them.
    pub backends: Difference,
    /// By name.
    pub alerts: Difference,
    /// What it means for each service that is not the same after it.
    pub effects: Vec<Effect>,
    /// Services whose standby tier would stand down, since those before it are back and only an operator was
    /// awaited (`fail_back = "manual"`).
    #[serde(default)]
    pub fails_back: Vec<String>,
    /// A file was rejected since the last reload that took effect, and this one would end that, even
    /// where nothing else changes.
    #[serde(default)]
    pub clears_rejection: bool,
}

/// One key of something that changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Edit {
    /// What changes: `service web`, `backend web/a`; empty outside of services.
    pub of: String,
    /// As the file has it, such as `weight` or `timeouts.idle`.
    pub key: String,
    /// What it says, shortened; what holds without it where it is not written.
    pub before: String,
    /// What it would say.
    pub after: String,
}

/// What would come of a reload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Prospect {
    /// Nothing would change.
    #[default]
    Nothing,
    /// It would take effect; if only by the end of a rejection.
    Changes,
    /// It would be rejected.
    Rejected,
}

/// What would become of things with an identity.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Difference {
    /// Only in the new file.
    pub added: Vec<String>,
    /// Only in what runs.
    pub removed: Vec<String>,
    /// In both, and different.
    pub changed: Vec<String>,
    /// In both, and the same.
    pub kept: u64,
}

/// What a reload means for one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Effect {
    /// Its name.
    pub service: String,
    /// `added`, `changed` or `removed`.
    pub change: String,
    /// Backends that may serve now, and all of them; `null` for one that is added.
    pub eligible_now: Option<u32>,
    /// All of them, now.
    pub configured_now: Option<u32>,
    /// Backends that would be able to serve; `null` for one that is removed.
    pub eligible: Option<u32>,
    /// All that there would be.
    pub configured: Option<u32>,
    /// Sessions that run. None of them is broken: each goes on at the backend that it has.
    pub sessions: u64,
    /// Those of them whose backend would not be there any more, or be elsewhere.
    pub sessions_leaving: u64,
    /// Those of them whose client `[service.access]` would not let in again, where that section changes.
    #[serde(default)]
    pub sessions_shut_out: u64,
    /// Clients of 100 that another server would serve from then on; `null` unless source-hash decides before
    /// and after.
    pub clients_moved_percent: Option<f64>,
    /// Backends that were asked for the first time.
    pub probes: Vec<Probe>,
}

/// How the first check of a backend went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Probe {
    /// Its name.
    pub backend: String,
    /// Where it would be.
    pub address: String,
    /// Whether it passed; `null` when that could not be found out.
    pub alive: Option<bool>,
    /// Why it did not, or why nobody knows.
    pub why: Option<String>,
}
