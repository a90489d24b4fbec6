//! What whole-daemon tests are made of. The daemon under test is the real binary, reached only the
//! way an operator and a client reach it: its file, its signals, its log, its sockets, `/proc`.
//!
//! Everything runs on threads and blocking sockets, so that no test shares a runtime, and with it a
//! bug, with the daemon. Every wait has the same generous deadline ([`patience`]); no test sleeps to
//! let something happen. Every server has an address of 127.0.0.0/8 to itself ([`address`]).
//!
//! Start with [`daemon`], then [`backend`] and [`peer`].

mod address;
mod api;
mod backend;
mod browser;
mod chaos;
mod command;
mod config;
mod daemon;
mod dns;
mod injection;
mod log;
pub mod netns;
pub mod paths;
mod patience;
mod pattern;
mod peer;
mod pipe_hog;
pub mod proc;
mod process_backend;
mod programs;
mod receiver;
mod schema;
mod servers;
mod standby;
mod storm;
pub mod words;

pub use address::{fresh_ip, fresh_listen};
pub use api::{Api, read_head};
pub use backend::{Backend, BlackHole, Meeting};
pub use browser::Browser;
pub use chaos::{Chaos, Fault};
pub use command::{Said, ballast, binary};
pub use config::{Alert, Config, RELAYS, Service};
pub use daemon::{Daemon, Launch, Signal};
pub use dns::Dns;
pub use injection::Injection;
pub use log::Line;
pub use patience::{DEADLINE, eventually, steadily};
pub use pattern::Pattern;
pub use peer::{
    End, Held, Peer, abort, ask_name, connect, connect_fast, connect_from, connect_unasked,
    connect_unasked_from, echo_once, is_refused, name_and_part, read_name, unsent, wait_for_error,
    with_receive_buffer,
};
pub use pipe_hog::{PipeHog, Stranger};
pub use proc::{peak_bytes, raise_descriptor_limit, sockets};
pub use process_backend::ProcessBackend;
pub use programs::{installed, postgres_program};
pub use receiver::{Received, Receiver, Reply};
pub use schema::faults;
pub use servers::{READY, Server, psql, run};
pub use standby::{active_and_standby, held_back};
pub use storm::{Failure, Storm};
