//! The admin API: HTTP over TCP and Unix sockets, for operators and their tools. It runs on the control
//! thread's runtime, knows nothing of sessions and tables, and asks control by [`Request`]s.
//!
//! `routes` is the one table of what can be asked for. `server` takes connections and bounds what they
//! may cost, `guard` decides who may do what, `bind` makes the sockets, `hub` is what connections share,
//! `reply` is how answers look. `read` and `change` answer, `page` is the status page, and `stream` tells
//! events as they happen, which control writes into the `journal`; `openapi` describes it all to programs.

mod bind;
mod change;
mod explain;
mod guard;
mod hub;
mod journal;
mod metrics;
mod openapi;
mod page;
mod plan;
mod read;
mod reply;
mod request;
mod routes;
mod scribe;
mod server;
mod stream;

pub use bind::{BindError, Bound, bind};
pub use journal::Journal;
pub use request::{Denied, Query, Request};
pub(crate) use server::MOST_CONNECTIONS;
pub use server::Server;
