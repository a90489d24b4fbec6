//! What Ballast says about itself: the log, and the record of each session. Knows no socket.

mod record;

pub use record::Record;
