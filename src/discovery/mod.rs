//! Who is behind a name, as far as that can be decided without asking anybody: what an answer changes,
//! what is kept when there is none, and the backends that come of it. Pure; `control` asks.
//!
//! Start with [`Resolution`], what is known of one [`Question`]; [`expand`] makes backends of it.

mod answer;
mod expand;
mod resolution;

pub use answer::{Endpoint, HostReply, Outcome, Record, Reply, Srv};
pub use expand::{expand, origin, question, questions};
pub use resolution::{News, Resolution, Step};

use std::fmt;
use std::sync::Arc;

use crate::config::Family;

/// What a resolver is asked. Backends with the same question share its answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Question {
    /// The addresses of a name.
    Host {
        /// In lower case.
        name: Arc<str>,
        /// The addresses that count.
        family: Family,
    },
    /// The SRV records of a name, and the addresses of their targets.
    Srv {
        /// In lower case.
        name: Arc<str>,
        /// The addresses that count.
        family: Family,
    },
}

impl Question {
    /// The name that it is about.
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Host { name, .. } | Self::Srv { name, .. } => name,
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
