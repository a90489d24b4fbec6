//! The state machine of one (address, check).

use std::time::{Duration, Instant};

use crate::model::Cause;

/// When a backend is probed and when its state changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// Between the starts of two probes, ±10 % at each.
    pub interval: Duration,
    /// A probe without an answer by then has failed.
    pub timeout: Duration,
    /// Successes in a row that bring a down backend up.
    pub rise: u32,
    /// Failures in a row that take an up backend down.
    pub fall: u32,
}

/// What one probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The backend answered.
    Alive,
    /// It did not, and why.
    Dead(Cause),
}

/// Whether a backend answers, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No verdict yet; counts as eligible.
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// A change of state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The state it left.
    pub from: State,
    /// The state it entered.
    pub to: State,
    /// How long it had been in `from`.
    pub after: Duration,
    /// Why, for a transition to [`State::Down`].
    pub cause: Option<Cause>,
}

/// What is known about one (address, check).
#[derive(Clone, Debug)]
pub struct Health {
    state: State,
    since: Instant,
    against: u32,
}

impl Health {
    /// Nothing known since `now`.
    pub fn new(now: Instant) -> Self {
        Self {
            state: State::Unknown,
            since: now,
            against: 0,
        }
    }

    /// The state of the last transition.
    pub fn state(&self) -> State {
        self.state
    }

    /// When the state was entered.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Verdicts in a row that speak against the state.
    pub fn against(&self) -> u32 {
        self.against
    }

    /// Takes a verdict in, and tells the transition that it completes. The first verdict decides at
    /// once; afterwards `rise` successes or `fall` failures in a row do.
    pub fn observe(
        &mut self,
        verdict: Verdict,
        policy: &Policy,
        now: Instant,
    ) -> Option<Transition> {
        let (to, cause) = match verdict {
            Verdict::Alive => (State::Up, None),
            Verdict::Dead(cause) => (State::Down, Some(cause)),
        };
        let needed = match (self.state, to) {
            (State::Unknown, _) => 1,
            (_, State::Up) => policy.rise,
            (_, State::Down | State::Unknown) => policy.fall,
        };
        if self.state == to {
            self.against = 0;
            return None;
        }
        self.against += 1;
        if self.against < needed {
            return None;
        }
        let transition = Transition {
            from: self.state,
            to,
            after: now.saturating_duration_since(self.since),
            cause,
        };
        *self = Self {
            state: to,
            since: now,
            against: 0,
        };
        Some(transition)
    }
}
