//! One thing that happened, as it stands in a message.
//!
//! The names of the fields are a promise to whoever wrote a receiver; they are documented in
//! config/alerts/message.md, and a change that breaks one raises the message's version.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde::{Serialize, Serializer};

use crate::config::Occasion;
use crate::model::Address;
use crate::telemetry;

/// One thing that happened, as it stands in a message.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Notice {
    #[serde(serialize_with = "name")]
    pub(super) event: Occasion,
    pub(super) status: Status,
    /// Since 1970.
    #[serde(serialize_with = "rfc3339")]
    pub(super) time: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) service: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) backend: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) address: Option<Address>,
    #[serde(flatten)]
    pub(super) details: Details,
}

/// Whether something is wrong, or is right again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Firing,
    Resolved,
}

/// How grave it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    /// As in a message.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Status {
    pub(super) fn firing(fires: bool) -> Self {
        if fires { Self::Firing } else { Self::Resolved }
    }

    /// As in a message.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// What an occasion has to say besides whom it concerns.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub(super) enum Details {
    Down {
        why: String,
        #[serde(
            rename = "after_ms",
            serialize_with = "some_millis",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Duration>,
        eligible: usize,
        configured: usize,
    },
    Up {
        #[serde(
            rename = "after_ms",
            serialize_with = "some_millis",
            skip_serializing_if = "Option::is_none"
        )]
        after: Option<Duration>,
        eligible: usize,
        configured: usize,
    },
    Degraded {
        eligible: usize,
        configured: usize,
        below_percent: u8,
    },
    AllDown {
        configured: usize,
    },
    Standby {
        /// The last tier that stands in, while one does.
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<u32>,
        eligible: usize,
        configured: usize,
    },
    /// What was wrong is so no more: whom it concerned is not there any longer.
    Gone {
        why: &'static str,
    },
    Flapping {
        transitions: u32,
        #[serde(rename = "within_ms", serialize_with = "millis")]
        within: Duration,
    },
    Reload {
        problems: Vec<String>,
    },
    Failover {
        why: String,
        /// Since 1970.
        #[serde(serialize_with = "rfc3339")]
        began: Duration,
        #[serde(rename = "detected_ms", serialize_with = "exact_millis")]
        detected: Duration,
        #[serde(rename = "moved_ms", serialize_with = "exact_millis")]
        moved: Duration,
        #[serde(rename = "total_ms", serialize_with = "exact_millis")]
        total: Duration,
        sessions_hurt: u64,
        sessions_moved: u64,
        eligible: usize,
        configured: usize,
    },
    Suspect {
        #[serde(rename = "latency_ms", serialize_with = "exact_millis")]
        latency: Duration,
        #[serde(rename = "usual_ms", serialize_with = "exact_millis")]
        usual: Duration,
        phi: f64,
    },
}

impl Notice {
    pub(super) fn severity(&self) -> Severity {
        match (self.event, self.status) {
            (_, Status::Resolved) | (Occasion::Suspect | Occasion::BackendUp, _) => Severity::Info,
            (Occasion::AllDown, _) => Severity::Critical,
            (
                Occasion::Degraded
                | Occasion::BackendDown
                | Occasion::Standby
                | Occasion::Flapping
                | Occasion::ReloadFailed
                | Occasion::Failover,
                _,
            ) => Severity::Warning,
        }
    }

    /// What a later notice about the same says instead.
    pub(super) fn subject(&self) -> (Occasion, Option<&str>, Option<&str>) {
        let event = if self.event == Occasion::BackendUp {
            Occasion::BackendDown
        } else {
            self.event
        };
        (event, self.service.as_deref(), self.backend.as_deref())
    }

    pub(super) fn is_gone(&self) -> bool {
        matches!(self.details, Details::Gone { .. })
    }

    /// How many backends of how many were eligible.
    pub(super) fn share(&self) -> Option<(usize, usize)> {
        match self.details {
            Details::Down {
                eligible,
                configured,
                ..
            }
            | Details::Up {
                eligible,
                configured,
                ..
            }
            | Details::Degraded {
                eligible,
                configured,
                ..
            }
            | Details::Standby {
                eligible,
                configured,
                ..
            }
            | Details::Failover {
                eligible,
                configured,
                ..
            } => Some((eligible, configured)),
            Details::AllDown { .. }
            | Details::Gone { .. }
            | Details::Flapping { .. }
            | Details::Reload { .. }
            | Details::Suspect { .. } => None,
        }
    }
}

fn name<S: Serializer>(occasion: &Occasion, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(occasion.name())
}

fn millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// With microseconds.
fn exact_millis<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(telemetry::millis(*duration))
}

fn some_millis<S: Serializer>(
    duration: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => millis(duration, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn rfc3339<S: Serializer>(
    since_1970: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_millis(UNIX_EPOCH + *since_1970))
}
