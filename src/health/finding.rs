//! What one probe found: the verdict, and what else the server told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Agent;
use crate::model::{Cause, one_line};

/// Whether the server passed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It answered as it should.
    Alive,
    /// It did not, and why.
    Dead(Why),
}

/// Why a probe found a server dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// What the network said.
    Network(Cause),
    /// What was wrong with the answer, in words for an operator.
    Answer(Arc<str>),
}

impl Why {
    /// The longest text of an answer that is kept, in characters.
    const MOST_WORDS: usize = 160;

    /// What was wrong with an answer. `words` may quote the server, so they are cut short, and what
    /// could not be printed on one line is replaced.
    pub fn answer(words: &str) -> Self {
        Self::Answer(one_line(words, Self::MOST_WORDS).into())
    }
}

impl From<Cause> for Why {
    fn from(cause: Cause) -> Self {
        Self::Network(cause)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(cause) => cause.fmt(f),
            Self::Answer(words) => f.write_str(words),
        }
    }
}

/// Everything that one probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the server passed.
    pub verdict: Verdict,
    /// From the start of the connect to the verdict.
    pub took: Duration,
    /// What the server's agent asks for, where an agent was asked.
    pub agent: Option<Agent>,
    /// Until when the server's certificate is good, in seconds since 1970, where one was shown.
    pub expires: Option<i64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_kept_to_one_short_line() {
        let why = Why::answer("two\r\nlines\x1b[31m");
        assert_eq!(why.to_string(), "two  lines [31m");
        let long = Why::answer(&"ü".repeat(1000)).to_string();
        assert_eq!(long.chars().count(), Why::MOST_WORDS + 1);
        assert!(long.ends_with('…'));
    }
}
