//! The control thread: start, signals, reload, probes, drain. The only writer of tables, health and
//! configuration; nothing it does can delay a byte, and nothing slow is done on it.
//!
//! Read [`run`] in `supervisor` first: it starts everything and is the one loop. `reload` is how a
//! configuration takes effect, the first one included; `targets` is what is known of each address;
//! `probe` asks them; `prepare` does beside the loop what may take time; `discovery` finds backends that
//! come and go between reloads, and `membership` takes them in; `alerts` tells the world, from a
//! thread of its own.

mod alerts;
mod cases;
mod closing;
mod discovery;
mod event;
mod evictions;
mod explaining;
mod failovers;
mod inspect;
mod journal;
mod limits;
mod listening;
mod membership;
mod memory;
pub mod notify;
mod planning;
mod prepare;
mod probe;
mod rehearsal;
mod reload;
mod services;
mod sessions;
mod signals;
mod supervisor;
mod targets;
mod token_bucket;

pub use event::{Event, Order, Picture, Presence, Standing};
pub use limits::capacity;
pub use memory::{STATE_FILE, last_good};
pub use signals::orders;
pub use supervisor::{Options, StartError, Stopped, run};
