//! What control tells to whoever watches, and what it is told.

use std::sync::Arc;
use std::time::Duration;

use crate::health::{Failover, State, TierChange, Turn, Why};
use crate::model::{Address, BackendId};

/// Something that happened. Watchers that fall behind miss the oldest.
#[derive(Clone, Debug)]
pub enum Event {
    /// A listener is bound.
    Listening {
        /// Where its clients go.
        service: Arc<str>,
        /// As bound: the port is never 0.
        address: Address,
    },
    /// All is set up.
    Ready(Arc<Picture>),
    /// A probe found a backend dead; it may not be down for that yet. Told to those who asked for
    /// heartbeats only: a rack that dies would push everything else off the bus.
    Missed {
        /// Whom it concerns.
        backend: BackendId,
        /// Why.
        cause: Why,
        /// Failures in a row.
        streak: u32,
    },
    /// A backend changed its state.
    Transition {
        /// Whom it concerns.
        backend: BackendId,
        /// Where it is.
        address: Address,
        /// The state it left: a first verdict is no news, a return is.
        from: State,
        /// The state it entered.
        to: State,
        /// Why, for a backend that went down.
        cause: Option<Why>,
        /// How long it had been in its former state.
        after: Duration,
        /// It is kept out besides, because its sessions failed.
        ejected: bool,
        /// Backends that may serve now.
        eligible: usize,
        /// All backends of the service.
        configured: usize,
    },
    /// A backend that was down before the daemon started is so still: its first probe has failed.
    StillDown {
        /// Whom it concerns.
        backend: BackendId,
        /// Why.
        cause: Why,
        /// Backends that may serve now.
        eligible: usize,
        /// All backends of the service.
        configured: usize,
    },
    /// A backend is kept out for a time because its sessions failed, or returns from that.
    Ejection {
        /// Whom it concerns.
        backend: BackendId,
        /// Where it is.
        address: Address,
        /// How long it is out; `None` when it returns.
        out: Option<Duration>,
        /// What its check says of it.
        state: State,
        /// Backends that may serve now.
        eligible: usize,
        /// All backends of the service.
        configured: usize,
    },
    /// A backend that was serving was taken out, and what that has cost is known.
    Failover(Arc<Failover>),
    /// A tier of backends took over, stood down, or stays although it need not.
    Tier {
        /// Whose tier.
        service: Arc<str>,
        /// What came of it.
        change: TierChange,
        /// The last tier that stands in for those before it since.
        stands_in: Option<u32>,
        /// Backends that may serve now.
        eligible: usize,
        /// All backends of the service.
        configured: usize,
    },
    /// A backend answers its probes slower than it used to, or as usual again. Nothing follows from
    /// it.
    Suspect {
        /// Whom it concerns.
        backend: BackendId,
        /// Where it is.
        address: Address,
        /// How it answers.
        turn: Turn,
    },
    /// A reload took effect: this is how everything stands since.
    Reloaded(Arc<Picture>),
    /// Watchers have missed events: this is how everything stands since.
    Recap(Arc<Picture>),
    /// Backends of a service have come or gone without a reload.
    Membership {
        /// How it stands now.
        standing: Standing,
        /// Those that have gone.
        removed: Arc<[BackendId]>,
    },
    /// A file was rejected: what ran goes on.
    Rejected {
        /// Whose file of backends; `None` is the configuration.
        service: Option<Arc<str>>,
        /// All that is wrong.
        problems: Arc<[String]>,
    },
    /// A file of backends that was rejected is good again.
    Accepted {
        /// Whose.
        service: Arc<str>,
    },
}

/// How everything stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Picture {
    /// Every service.
    pub services: Vec<Standing>,
    /// Every backend that has an address.
    pub backends: Vec<Presence>,
    /// Services in which a tier stands in for those before it, and the last such tier.
    pub standbys: Vec<(Arc<str>, u32)>,
    /// Files that are not what runs, as in [`Event::Rejected`].
    pub rejected: Vec<Option<Arc<str>>>,
}

/// How a backend stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Presence {
    /// Which one.
    pub backend: BackendId,
    /// Where it is.
    pub address: Address,
    /// Its state; down, too, while it is kept out because its sessions failed.
    pub state: State,
    /// How it answers its probes.
    pub turn: Turn,
}

/// How a service stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its name.
    pub service: Arc<str>,
    /// Backends that may serve now.
    pub eligible: usize,
    /// All backends of the service.
    pub configured: usize,
}

impl Standing {
    /// Whether nobody may serve, for whatever reason: a service whose list of backends was emptied is
    /// as down as one whose backends have died.
    pub fn is_down(&self) -> bool {
        self.eligible == 0
    }

    /// Whether fewer than so many percent of its backends may serve.
    pub fn is_below(&self, percent: u8) -> bool {
        self.is_down() || self.eligible * 100 < self.configured * usize::from(percent)
    }
}

/// What control is asked to do from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Read the configuration again (SIGHUP).
    Reload,
    /// Tell every backend's state and counters in the log (SIGUSR1).
    Report,
    /// Stop accepting, drain, end; given again, end at once (SIGTERM, SIGINT).
    Stop,
}
