//! Who may come in: which networks, how many clients, and how many of each source. Decides only, with the
//! time as an argument; the session asks, and [`pool`](crate::pool) holds what workers share.

mod access;
mod networks;
mod rate;
mod rule;
mod sources;

pub use access::Access;
pub use networks::Networks;
pub use rate::Rate;
pub use rule::Rule;
pub use sources::{Entered, Source, SourceRules, Sources};
