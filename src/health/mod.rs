//! Up or down, and who may serve. Pure: verdicts and the time come in, transitions and rosters go
//! out; who probes, and what is done about a transition, is `control`'s business.

mod check;
mod finding;
mod roster;
mod state;

pub use check::{Check, Kind};
pub use finding::{Finding, Verdict, Why};
pub use roster::{
    AdminView, Agent, Duty, FailBack, HealthView, Member, MinUp, Percent, Rules, WhenAllDown,
    roster,
};
pub use state::{Health, Policy, State, Transition};
