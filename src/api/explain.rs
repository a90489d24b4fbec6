//! Which backend a client gets, and why.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/explain?client=IP&service=NAME`
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explanation {
    /// When this was so.
    pub at: String,
    /// Whose.
    pub client: String,
    /// Every service, or the one that was asked for.
    pub services: Vec<Explained>,
}

/// What becomes of the client at one service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    /// Its name.
    pub service: String,
    /// The name of its strategy.
    pub strategy: String,
    /// The address as the strategy looks at it: an IPv6 client is its network.
    pub seen_as: String,
    /// Who gets the client if it is the next to connect; `null` when nobody does.
    pub backend: Option<String>,
    /// Where that is.
    pub address: Option<String>,
    /// Whether every connection of this client goes there until something changes.
    pub always: bool,
    /// The rule that it is reset by, as it is called in the file and in the log; `null` when it is let in.
    #[serde(default)]
    pub refused_by: Option<String>,
    /// Why it is that one, or why it is nobody.
    pub why: String,
    /// What else decides over the client.
    pub notes: Vec<String>,
    /// Every backend, in the order of the file.
    pub backends: Vec<Chance>,
}

/// How one backend stands to the client.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Chance {
    /// Its name, unique in its service.
    pub backend: String,
    /// Where it is; `null` while its name leads nowhere.
    pub address: Option<String>,
    /// How many of a hundred next connections it would get, as the load is now.
    pub percent: f64,
    /// Why it gets the client, or why not.
    pub why: String,
}
