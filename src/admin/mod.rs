//! The admin API: HTTP over TCP and Unix sockets, for operators and their tools. It runs on the control
//! thread's runtime, knows nothing of sessions and tables, and asks control by [`Request`]s.
//!
//! `routes` is the one table of what can be asked for. `server` takes connections and bounds what they
//! may cost, `guard` decides who may do what, `bind` makes the sockets, `hub` is what connections share,
//! `reply` is how answers look, `page` is the status page.

mod bind;
mod explain;
mod guard;
mod hub;
mod metrics;
mod page;
mod plan;
mod read;
mod reply;
mod request;
mod routes;
mod server;

pub use bind::{BindError, Bound, bind};
pub use request::Request;
pub use server::Server;
