//! What an operator asks for while the daemon runs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /v1/services/SERVICE/backends/BACKEND`, or the same without `/BACKEND` for all of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Change {
    /// Takes no new sessions; those that it has go on, for `deadline_seconds` at most if that is given.
    Drain {
        /// What is left then is closed.
        deadline_seconds: Option<f64>,
    },
    /// Takes no new sessions, and nobody is alarmed by what its checks say.
    Disable,
    /// Serves again.
    Enable,
    /// Only so much of its configured weight counts.
    Weight {
        /// 0 to 1000.
        percent: u16,
    },
    /// Goes back to what the file says.
    Reset,
    /// Its sessions are closed with a reset, at the `close_rate` of the service.
    CloseSessions,
}

/// Whom a change concerns.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// Which service.
    pub service: String,
    /// Which of its backends; `None` is all.
    pub backend: Option<String>,
}

/// A change was made, and is on disk where there is a state file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// What was done, for people.
    pub text: String,
    /// Backends that are not as they were.
    pub backends: u32,
    /// Running sessions of the backends concerned.
    pub sessions: u64,
    /// It survives a restart.
    pub durable: bool,
}

/// The `error` of a [`Refused`] at a path that the daemon does not know, because its version has none or no
/// version does.
pub const NOWHERE: &str = "there is nothing at this path";

/// A request was not carried out: the body of every answer of 400 and above.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Refused {
    /// Why, for people.
    pub error: String,
    /// What is allowed or what to do instead.
    pub help: Option<String>,
    /// All that is wrong with a file that was not put in force, as `file:line:column: …`.
    #[serde(default)]
    pub problems: Vec<String>,
}

impl Refused {
    /// For this reason.
    pub fn new(error: impl Into<String>) -> Self {
        Self {
            error: error.into(),
            ..Self::default()
        }
    }

    /// With what is allowed, or what to do instead.
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// `POST /v1/reload`: the file has taken effect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Reloaded {
    /// What has changed, in numbers.
    pub plan: String,
    /// What has changed, by name.
    pub changes: String,
    /// Sessions that go on though `[service.access]`, which has changed, would not let their clients in again.
    #[serde(default)]
    pub sessions_shut_out: u64,
    /// What takes effect after a restart only.
    pub needs_restart: Vec<String>,
    /// How long it took.
    pub took_seconds: f64,
}

/// `GET /v1/build`: what runs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Build {
    /// Of the program.
    pub version: String,
    /// The processor that it was built for.
    pub architecture: String,
    /// `release` or `debug`.
    pub profile: String,
}
