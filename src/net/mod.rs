//! Sockets: those that reset on drop, listeners, connecting, the relay, and the registry that wakes
//! sessions when their time comes. Picks nobody and counts nobody: where to connect, and for how long to
//! wait, is said by the session.
//!
//! Start with [`Socket`], whose drop is a reset; then [`connect`] and [`relay`], in the order of a session.
//! [`BoundListener`] is where clients come from, [`Registry`] how sessions are woken and ended.

mod accept;
mod connect;
mod deliver;
mod grant;
mod header;
mod listener;
mod options;
mod registry;
pub mod relay;
mod shortage;
mod socket;
mod spares;
mod sys;

pub use accept::{Accepted, Listener, Unregistered};
pub use connect::{Connecting, Dialer, FULL, connect, may_connect_to_itself, to_path};
use deliver::{STALLED, deliver};
pub use grant::granted;
pub use header::{Unheard, hear};
pub use listener::{BindError, BoundListener, Claim, Remains};
pub use options::of_probe;
pub use registry::{Event, Registry, Ticket};
pub use shortage::{Reserve, Shortage};
pub use socket::{Arrival, Socket};
pub use spares::spares_of;
pub use sys::{clock_is_synchronised, raise_descriptor_limit, reset_everything};
