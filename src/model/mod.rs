//! Values that every room shares. Pure: knows no socket, clock, random source or logger.
//!
//! [`ClientAddr`] is who connects, [`Backend`] is who answers, [`Ending`] says how a session was over.

mod address;
mod backend;
mod ending;
mod line;
mod portion;

pub use address::ClientAddr;
pub use backend::{Backend, BackendId, DownFlag, Freed, Load, Moment, Tally, TallySum};
pub use ending::{Cause, Ending, Phase, Who};
pub use line::one_line;
pub use portion::Portion;
