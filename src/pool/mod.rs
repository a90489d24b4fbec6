//! Services and what workers and control share of them: one atomically swapped [`Snapshot`] a
//! service, the cursor, in-flight leases, the [`queue`] of those who wait for one, connection permits,
//! and what sessions tell control of backends that fail.
//!
//! Control is the only writer of snapshots. A worker only loads them. Knows no socket and no task.

mod lease;
mod permits;
pub mod queue;
mod route;
mod service;
mod witness;

pub use lease::Lease;
pub use permits::{Permit, Permits};
pub use queue::Queue;
pub use route::{Door, Route, Way};
pub use service::{Reserve, Seat, Service, Snapshot};
pub use witness::{Testimony, Witness, testimonies};
