//! What clients would meet: sessions played through the very tables that would serve them, without a
//! socket. `ballast simulate`, the plan of a reload and `ballast explain` are made of it, so that none of
//! them can say anything else than what happens. Pure: who is up comes in as an argument.
//!
//! [`Table`] is a strategy with backends of its own, on which nobody else's sessions count; [`clients`] are
//! made up, always the same ones.

mod clients;
mod table;

pub use clients::{clients, entropy};
pub use table::{Moved, Table, Tried};
