//! What Ballast says about itself: the log, and the record of each session. Knows no socket.
//!
//! [`logging`] is how any line reaches stderr without ever keeping a worker waiting; [`Record`] is
//! the one line of a session.

mod blame;
mod clock;
mod facts;
pub(crate) mod lines;
pub mod logging;
mod record;

pub use clock::{instant, millis, moment};
pub use facts::Facts;
pub use record::Record;
