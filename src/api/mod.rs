//! What the daemon and those who operate it say to each other: the documents under `/v1`. Pure, and
//! nothing but shapes: who fills them in and who reads them are `control`, `admin` and `cli`.
//!
//! [`View`] is how everything stands at one moment; metrics, the status page and the commands are all
//! made from it, so that they never contradict each other. [`Change`] is what an operator asks for.
//!
//! Times are RFC 3339 with milliseconds, in UTC. Numbers are in base units, which their names end with.
//! Fields are only ever added; whoever reads them passes over those that it does not know.

mod change;
mod event;
mod explain;
mod plan;
mod session;
mod simulation;
mod view;

pub use change::{Build, Change, Changed, NOWHERE, Refused, Reloaded, Target};
pub use event::{Event, Events, Failover, Failovers, UnderWay};
pub use explain::{Chance, Explained, Explanation};
pub use plan::{Difference, Edit, Effect, Plan, Probe, Proposal, Prospect};
pub use session::{Session, Sessions};
pub use simulation::{Share, Shares, Simulation, Without};
pub use view::{
    Admin, Alerts, Backend, BackendsFile, Check, Configuration, Count, Departed, Ended, Histogram,
    Left, Listener, LostAlert, Process, Queue, Record, Refusals, Rejection, Reloads, Service,
    ShortOf, Standing, StandsIn, State, Throttling, Traffic, Unserved, View, Worker,
};
