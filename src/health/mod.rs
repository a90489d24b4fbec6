//! Up or down, and who may serve. Pure: verdicts and the time come in, transitions and rosters go
//! out; who probes, and what is done about a transition, is `control`'s business.
//!
//! Start with [`Health`], the state machine of one server, and [`Roster`], the one place that decides who may
//! serve. [`Check`] is what a probe says and expects; [`Suspicion`] and [`Ejection`] are what failed sessions lead
//! to, [`Failover`] and [`Availability`] what is told of it afterwards.

mod availability;
mod check;
mod ejection;
mod failover;
mod finding;
mod passive;
mod roster;
mod state;
mod trend;

pub use availability::{Availability, Course, Totals};
pub use check::{
    Check, Exchange, Expect, Http, Kind, Mysql, Pattern, Postgres, Program, Redis, Role, Secret,
    StatusSet, Tls, contains,
};
pub use ejection::{Ejection, Spared, may_remove};
pub use failover::{Failover, Started};
pub use finding::{Finding, Verdict, Why};
pub use passive::{Evidence, Failure, Passive, Suspicion, Symptom};
pub use roster::{
    AdminView, Agent, Decision, Duty, FailBack, HealthView, Member, MinUp, Percent, Roster, Rules,
    Seat, StandDown, TierChange, WhenAllDown, absences,
};
pub use state::{Health, Policy, State, Transition};
pub use trend::{Trend, Turn};
