//! Who may come in. Decides only; the session asks.

mod networks;

pub use networks::Networks;
