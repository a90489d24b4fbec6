//! The control thread: start, signals, reload, probes, drain. The only writer of tables, health and
//! configuration; nothing it does can delay a byte, and nothing slow is done on it.
//!
//! Read [`run`] in `supervisor` first: it starts everything and is the one loop. Then by what you look for:
//!
//! - a configuration takes effect: `prepare` reads it beside the loop, `rehearsal` and `planning` say what it would
//!   come to, `reload` switches, `running` is what is in force, `listening` is the life of a listener, `services` what is held of a service;
//! - health: `probe` asks, `targets` is what is known of each address, `cases` what is held against a backend,
//!   `failovers` what one has cost, `closing` and `evictions` whose sessions end (at the rate of a `token_bucket`);
//! - backends that come and go: `discovery` finds them, `membership` takes them in;
//! - what is told: `inspect`, `explaining` and `sessions` to operators who ask, `journal` to those who read what
//!   happened, `notify` to systemd, `alerts` to the world, from a thread of its own; `memory` keeps it over a restart.

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
mod running;
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
