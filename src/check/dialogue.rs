//! A conversation with a server, apart from the socket that carries it: what has come in goes in,
//! what is to be said comes out. One file per protocol; none of them knows a socket or a clock.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::health::{Agent, Verdict, Why};
use crate::model::Cause;

/// What a server may say before it must have come to the point.
pub(super) const MOST_RECEIVED: usize = 64 * 1024;

/// Room for one read.
const AT_A_TIME: usize = 4096;

/// One protocol's part of a check.
pub(super) trait Dialogue: Send {
    /// What to do next. Takes out of `received` what it has understood; called again when there is
    /// more, and after it has said something.
    fn next(&mut self, received: &mut Received) -> Step;

    /// What it waits for and what it has instead, in words for an operator; asked when time is over.
    /// `None` where there is nothing to quote, or where it might be a secret.
    fn lacks(&self, _received: &Received) -> Option<String> {
        None
    }
}

/// What the server has said and nobody has understood yet.
#[derive(Debug, Default)]
pub(super) struct Received {
    pub(super) bytes: Vec<u8>,
    /// It will say no more.
    pub(super) ended: bool,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Wait for more.
    Listen,
    /// Say this.
    Say(Vec<u8>),
    /// That was all.
    Done(Answer),
}

/// What it came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) verdict: Verdict,
    pub(super) agent: Option<Agent>,
    /// What the protocol says to leave politely.
    pub(super) farewell: &'static [u8],
}

impl Step {
    pub(super) fn alive() -> Self {
        Self::leave(Verdict::Alive, b"")
    }

    pub(super) fn dead(words: &str) -> Self {
        Self::leave(Verdict::Dead(Why::answer(words)), b"")
    }

    pub(super) fn leave(verdict: Verdict, farewell: &'static [u8]) -> Self {
        Self::Done(Answer {
            verdict,
            agent: None,
            farewell,
        })
    }
}

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self {
            verdict,
            agent: None,
            farewell: b"",
        }
    }
}

/// Holds the conversation over `stream`; `received` is what is not understood yet, for whoever gives
/// the conversation up.
pub(super) async fn converse(
    dialogue: &mut dyn Dialogue,
    received: &mut Received,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Answer {
    loop {
        match dialogue.next(received) {
            Step::Done(answer) => return answer,
            Step::Say(words) => {
                if let Err(error) = stream.write_all(&words).await {
                    return Verdict::Dead(Cause::from_io(&error).into()).into();
                }
            }
            Step::Listen if received.ended => {
                let why = Why::answer("closed before it had answered");
                return Verdict::Dead(why).into();
            }
            Step::Listen if received.bytes.len() >= MOST_RECEIVED => {
                let why = Why::answer("said much, and not what was expected");
                return Verdict::Dead(why).into();
            }
            Step::Listen => {
                received.bytes.reserve(AT_A_TIME);
                match stream.read_buf(&mut received.bytes).await {
                    Ok(0) => received.ended = true,
                    Ok(_) => {}
                    Err(error) => return Verdict::Dead(Cause::from_io(&error).into()).into(),
                }
            }
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    //! A dialogue with a server whose every word is known beforehand.

    use super::*;

    /// What the dialogue says, and what it came to, when the server says `words` and closes.
    pub(crate) fn rehearse(dialogue: &mut dyn Dialogue, words: &[u8]) -> (Vec<u8>, Answer) {
        rehearse_in(dialogue, words, 1)
    }

    /// The same, when so many bytes come at a time.
    pub(crate) fn rehearse_in(
        dialogue: &mut dyn Dialogue,
        words: &[u8],
        at_once: usize,
    ) -> (Vec<u8>, Answer) {
        let mut said = Vec::new();
        let mut received = Received::default();
        let mut rest = words.chunks(at_once);
        loop {
            match dialogue.next(&mut received) {
                Step::Done(answer) => return (said, answer),
                Step::Say(words) => said.extend(words),
                Step::Listen => match rest.next() {
                    Some(bytes) => received.bytes.extend(bytes),
                    None if received.ended => {
                        let why = Why::answer("closed before it had answered");
                        return (said, Verdict::Dead(why).into());
                    }
                    None => received.ended = true,
                },
            }
        }
    }

    /// The same, for who only wants to know the reason.
    pub(crate) fn why(dialogue: &mut dyn Dialogue, words: &[u8]) -> Option<String> {
        match rehearse(dialogue, words).1.verdict {
            Verdict::Alive => None,
            Verdict::Dead(why) => Some(why.to_string()),
        }
    }
}
