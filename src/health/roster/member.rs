//! What the roster is told of each backend, by whom: the file, the operator, its checks, its sessions.

use std::fmt;

use crate::health::State;
use crate::model::BackendId;

/// A backend with what the file says of it, and what is known about it now.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// Who it is.
    pub id: &'a BackendId,
    /// Configured weight.
    pub weight: u32,
    /// Its tier: those of priority 0 serve first.
    pub priority: u32,
    /// `enabled` in the file.
    pub enabled: bool,
    /// Whether its name has an address.
    pub resolved: bool,
    /// What an operator has said since.
    pub admin: AdminView,
    /// What its checks and its sessions say.
    pub health: HealthView,
}

/// What an operator says of a backend while the daemon runs. Belongs to the backend's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdminView {
    /// Whether it may take new sessions.
    pub duty: Duty,
    /// Of its configured weight.
    pub weight: Percent,
}

/// `drain 50%`
impl fmt::Display for AdminView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}%", self.duty, self.weight.get())
    }
}

/// What checks and sessions say of a backend. Belongs to its address and check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthView {
    /// What its probes say.
    pub state: State,
    /// Taken out by the evidence of real sessions.
    pub ejected: bool,
    /// What it says of itself.
    pub agent: Agent,
}

impl HealthView {
    /// A backend of which nothing is known but its probes.
    pub fn of(state: State) -> Self {
        Self {
            state,
            ejected: false,
            agent: Agent::default(),
        }
    }
}

/// What a backend says of itself, through an agent check. That it is up or down is a verdict like
/// any other, and not in here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Agent {
    /// Whether it wants new sessions.
    pub duty: Duty,
    /// Of its configured weight.
    pub weight: Percent,
}

impl fmt::Display for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}%", self.duty, self.weight.get())
    }
}

/// Whether a backend may take new sessions, apart from whether it could.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Duty {
    /// It may.
    #[default]
    Serve,
    /// It may not; the sessions that it has go on.
    Drain,
    /// It is being worked on: what it does meanwhile is nobody's concern.
    Maintenance,
}

impl fmt::Display for Duty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Duty::Serve => "serve",
            Duty::Drain => "drain",
            Duty::Maintenance => "maintenance",
        })
    }
}

/// A part of the configured weight, 0 to [`Percent::MOST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Percent(u16);

impl Percent {
    /// As configured.
    pub const FULL: Self = Self(100);
    /// Ten times the configured weight.
    pub const MOST: u16 = 1000;

    /// That many percent, cut off at [`Percent::MOST`].
    pub fn new(percent: u16) -> Self {
        Self(percent.min(Self::MOST))
    }

    /// The number before the sign.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for Percent {
    fn default() -> Self {
        Self::FULL
    }
}

impl Member<'_> {
    /// Whether everybody whose word counts lets it serve, and it can be reached: all but its health.
    /// A weight of nothing is a wish to be left alone.
    pub fn is_allowed(&self) -> bool {
        self.enabled
            && self.resolved
            && self.admin.duty == Duty::Serve
            && self.health.agent.duty == Duty::Serve
            && self.admin.weight.get() > 0
            && self.health.agent.weight.get() > 0
    }

    /// Whether it may serve: eligible = allowed ∧ not down ∧ not ejected. Unknown counts as up, so
    /// that a start does not refuse clients until the first probe.
    pub fn is_eligible(&self) -> bool {
        self.is_allowed() && self.health.state != State::Down && !self.health.ejected
    }
}
