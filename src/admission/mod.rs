//! Who may come in: which networks, how many clients, and how many of each source; and how fast the bytes of
//! those who did may flow. Pure, with the time as an argument: the session asks, and [`pool`](crate::pool) holds
//! what workers share.
//!
//! [`Access`] is about networks, [`Sources`] about how many of each source, [`Rate`] about how often, [`Bandwidth`]
//! about bytes; a [`Rule`] is the name of whichever has turned a client away.

mod access;
mod bandwidth;
mod networks;
mod rate;
mod rule;
mod sources;
mod thrift;

pub use access::Access;
pub use bandwidth::{Bandwidth, Cap, Toward};
pub use networks::Networks;
pub use rate::Rate;
pub use rule::Rule;
pub use sources::{Entered, Foreseen, Source, SourceRules, Sources};
pub use thrift::Thrift;
