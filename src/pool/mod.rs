//! Services and what workers and control share of them: one atomically swapped [`Snapshot`] a
//! service, the cursor, in-flight leases, the [`queue`] of those who wait for one, connection permits, the gate that counts clients who are not all let in,
//! the throttle that bytes go through, with a brake for each session, and what sessions tell control of backends that fail.
//!
//! Control is the only writer of snapshots. A worker only loads them. Knows no socket and no task.

mod brake;
mod clock;
mod gate;
mod lease;
mod limiter;
mod permits;
pub mod queue;
mod route;
mod service;
mod throttle;
mod witness;

pub use brake::{Brake, Lane};
pub use gate::{Admission, Counted, Gate, GateSum, Turn};
pub use lease::Lease;
pub use limiter::Limiter;
pub use permits::{Permit, Permits};
pub use queue::Queue;
pub use route::{Destination, Door, Route};
pub use service::{Reserve, Seat, Service, Snapshot};
pub use throttle::{Delays, Throttle, ThrottleSum};
pub use witness::{Testimony, Witness, testimonies};
