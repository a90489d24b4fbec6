//! What Ballast tells about itself: log lines. Knows nothing of sockets or of sessions' ways; it is
//! told what happened and writes it down.
//!
//! Start with [`logging`].

pub mod logging;
