//! What has happened.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `GET /v1/events`, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Events {
    /// Those that are kept and were asked for.
    pub events: Vec<Event>,
}

/// Something that happened.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Counts from 1 since the start of the daemon, without a gap: one that is missing was dropped.
    pub id: u64,
    /// When.
    pub at: String,
    /// What: `backend-down`, `backend-up`, `ejected`, `returned`, `failover`, `tier`, `suspect`,
    /// `settled`, `reloaded`, `rejected`, `accepted`, `membership`, `changed`, `listening`, `ready`, `stopping`;
    /// `unserved` when no backend of a service may serve and `served` when one may again; `full` when
    /// accepting pauses at `max_connections` and `room` when it goes on; `short` when clients have to wait
    /// because descriptors or memory are lacking and `enough` when they need not any more; `drained` when the deadline of a
    /// drain is over and what is left is closed.
    pub kind: String,
    /// `info`, `warn` or `error`.
    pub level: String,
    /// Which service it concerns.
    pub service: Option<String>,
    /// Which of its backends.
    pub backend: Option<String>,
    /// One line for people.
    pub text: String,
}

/// `GET /v1/failovers`, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failovers {
    /// Those that are kept and were asked for.
    pub failovers: Vec<Failover>,
    /// Those that are not over: what they cost is still being measured.
    #[serde(default)]
    pub under_way: Vec<UnderWay>,
}

/// A failover that is not over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct UnderWay {
    /// Which service it concerns.
    pub service: String,
    /// Who is taken out.
    pub backend: String,
}

/// A backend that was serving was taken out, and what that has cost.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failover {
    /// Which service it concerns.
    pub service: String,
    /// Who was taken out.
    pub backend: String,
    /// Where it is.
    pub address: String,
    /// Why.
    pub why: String,
    /// What sessions had met, if that is what took it out.
    pub evidence: Option<String>,
    /// When a session last connected to it before.
    pub last_success: Option<String>,
    /// When the first thing went wrong.
    pub began: String,
    /// When Ballast first had evidence of it, since `began`.
    pub first_evidence_seconds: f64,
    /// When it was decided that the backend is down (t1), since `began`.
    pub detected_seconds: f64,
    /// When no new session went there (t2), since `began`.
    pub moved_seconds: f64,
    /// When no session could be on its way there any more (t3), since `began`: the failover time.
    pub recovered_seconds: f64,
    /// Sessions that were lost.
    pub sessions_hurt: u64,
    /// Sessions that another backend took.
    pub sessions_moved: u64,
}
