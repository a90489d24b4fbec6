//! What Ballast says about itself: the log, and the record of each session. Knows no socket, and decides
//! nothing about anybody.
//!
//! Start with [`Record`], the one line of a session and all that is counted of it; [`Facts`] is what others may
//! know of one that runs. [`logging`] is how any line reaches stderr without ever keeping a worker waiting.

mod blame;
mod duration;
mod facts;
pub(crate) mod lines;
pub mod logging;
mod record;

pub use duration::millis;
pub use facts::Facts;
pub use record::Record;
