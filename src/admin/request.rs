//! What control is asked, and how it answers.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::api::{
    Change, Changed, Explained, Failovers, Plan, Proposal, Refused, Reloaded, Sessions, Target,
    View,
};

/// A question or an order to control. Whoever has asked may be gone when it is answered.
#[derive(Debug)]
pub enum Request {
    /// How everything stands, and how long control needed to tell.
    View(oneshot::Sender<(Arc<View>, Duration)>),
    /// Who gets a client of the services at these places of a view.
    Explain(
        IpAddr,
        Arc<View>,
        Vec<usize>,
        oneshot::Sender<Vec<Explained>>,
    ),
    /// What a reload would do.
    Plan(Proposal, oneshot::Sender<Result<Plan, Refused>>),
    /// A change of backends, and by whom. Answered once it is on disk.
    Change(
        Target,
        Change,
        Arc<str>,
        oneshot::Sender<Result<Changed, Denied>>,
    ),
    /// Has the standby tiers of a service stand down, and by whom.
    FailBack(String, Arc<str>, oneshot::Sender<Result<Changed, Denied>>),
    /// Read the file again, and by whom that is asked. Answered once it has taken effect, or has not.
    Reload(Arc<str>, oneshot::Sender<Result<Reloaded, Denied>>),
    /// Those that are over.
    Failovers(oneshot::Sender<Failovers>),
    /// Some of the running sessions.
    Sessions(Query, oneshot::Sender<Result<Sessions, Denied>>),
    /// Closes the session of that name, and by whom; whether there was one.
    CloseSession(String, Arc<str>, oneshot::Sender<bool>),
    /// The text of the configuration in force, as it is in the file.
    Configuration(oneshot::Sender<Arc<str>>),
    /// Nobody can be taken in to ask anything. Not answered.
    Starved(io::Error),
}

/// Which sessions are asked for; all that is given has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The name of their service.
    pub service: Option<String>,
    /// The name of their backend.
    pub backend: Option<String>,
    /// The address of their client.
    pub client: Option<String>,
    /// So many of the oldest are passed over, …
    pub offset: usize,
    /// … and so many of the next are told of.
    pub limit: usize,
}

/// Why control does not do what it is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Denied {
    /// There is no such thing.
    Unknown(Refused),
    /// It cannot be done, or does not make sense.
    Unfit(Refused),
    /// Not now.
    Busy(Refused),
}
