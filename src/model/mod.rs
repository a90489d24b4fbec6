//! Values that every room shares. Pure: knows no socket, clock, random source or logger.
//!
//! [`ClientAddr`] is who connects, [`Backend`] is who answers, [`Ending`] says how a session was over,
//! [`Ledger`] counts that.

mod address;
mod backend;
mod egress;
mod ending;
mod histogram;
mod in_order;
mod ledger;
mod line;
mod map;
mod meter;
mod place;
mod portion;
mod shortage;
mod tally;

pub use address::ClientAddr;
pub use backend::{Backend, BackendId, DownFlag, Freed, Load};
pub use egress::{Egress, Sources};
pub use ending::{Cause, Ending, Phase, Who};
pub use histogram::{Histogram, HistogramSum};
pub use in_order::InOrder;
pub use ledger::{Ledger, LedgerSum, Page};
pub use line::{counted, one_line};
pub use map::{Map, Set};
pub use meter::Meter;
pub use place::{Address, NoAddress, UnixPath};
pub use portion::Portion;
pub use shortage::tells_of_a_shortage;
pub use tally::{Moment, Tally, TallySum};
