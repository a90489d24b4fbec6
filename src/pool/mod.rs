//! Services and what workers and control share of them: one atomically swapped [`Snapshot`] a
//! service, the cursor, in-flight leases and connection permits.
//!
//! Control is the only writer of snapshots. A worker only loads them. Knows no socket and no task.

mod lease;
mod permits;
mod route;
mod service;

pub use lease::Lease;
pub use permits::{Permit, Permits};
pub use route::{Door, Route};
pub use service::{Service, Snapshot};
