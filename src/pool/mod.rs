//! Services, and what workers and control share of them. Control is the only writer of snapshots, a worker
//! only loads them. Knows no socket and no task.
//!
//! Start with [`Service`]: one atomically swapped [`Snapshot`], the cursor, and the pick that ends in a [`Lease`],
//! the in-flight count of a backend. A [`Route`] leads to it from a listener, a [`Permit`] is one of
//! `max_connections`, the [`queue`] is for those who find no place. [`Gate`] counts clients who are not all let in,
//! [`Throttle`] and [`Brake`] slow their bytes down, and a [`Witness`] tells control of backends that fail.

mod brake;
mod clock;
mod gate;
mod lease;
mod limiter;
mod permits;
pub mod queue;
mod route;
mod service;
#[cfg(test)]
mod testing;
mod throttle;
mod witness;

pub use brake::{Brake, Lane};
pub use clock::{instant, moment};
pub use gate::{Admission, Counted, Gate, GateSum, Turn};
pub use lease::Lease;
pub use limiter::Limiter;
pub use permits::{Permit, Permits};
pub use queue::Queue;
pub use route::{Destination, Door, Route};
pub use service::{Placement, Reserve, Service, Snapshot};
pub use throttle::{Delays, Throttle, ThrottleSum};
pub use witness::{Testimony, Witness, testimonies};
