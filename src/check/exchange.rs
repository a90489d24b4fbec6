//! Bytes for bytes: what is sent, and what must be in the answer.

use super::dialogue::{Dialogue, Received, Step};
use crate::health::{Exchange, Expect, contains};

/// What of an unexpected answer is told.
const MOST_QUOTED: usize = 60;
/// An answer that has not met the expectation within this many bytes will not.
const MOST_ANSWER: usize = 16 * 1024;

type Test = dyn Fn(&[u8]) -> bool + Send;

pub(super) struct Speaking<'a> {
    exchange: &'a Exchange,
    said: bool,
    test: Box<Test>,
}

impl<'a> Speaking<'a> {
    pub(super) fn new(exchange: &'a Exchange) -> Self {
        Self {
            exchange,
            said: false,
            test: match &exchange.expect {
                Some(expect) => Box::new(expect.test()),
                None => Box::new(|_| true),
            },
        }
    }
}

impl Speaking<'_> {
    fn unmet(&self, expect: &Expect, received: &Received) -> String {
        let sent = &self.exchange.send;
        let got = match !sent.trim_ascii().is_empty() && contains(&received.bytes, sent) {
            // It may be a secret, which is not for the log.
            true => "what was sent".to_owned(),
            false => quoted(&received.bytes),
        };
        format!("expected {expect}, got {got}")
    }
}

impl Dialogue for Speaking<'_> {
    fn next(&mut self, received: &mut Received) -> Step {
        if !std::mem::replace(&mut self.said, true) && !self.exchange.send.is_empty() {
            return Step::Say(self.exchange.send.clone());
        }
        let Some(expect) = &self.exchange.expect else {
            return Step::alive();
        };
        if (self.test)(&received.bytes) {
            Step::alive()
        } else if received.ended || received.bytes.len() >= MOST_ANSWER {
            Step::dead(&self.unmet(expect, received))
        } else {
            Step::Listen
        }
    }

    fn lacks(&self, received: &Received) -> Option<String> {
        let expect = self.exchange.expect.as_ref()?;
        Some(self.unmet(expect, received))
    }
}

/// The beginning of what a server said, in quotes; or that it said nothing.
pub(super) fn quoted(bytes: &[u8]) -> String {
    match bytes {
        [] => "nothing".to_owned(),
        _ => {
            let shown = &bytes[..bytes.len().min(MOST_QUOTED)];
            let more = if shown.len() < bytes.len() { "…" } else { "" };
            format!("\"{}{more}\"", shown.escape_ascii())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::dialogue::testing::{rehearse, why};
    use super::*;
    use crate::health::{Pattern, Verdict};

    fn exchange(send: &str, expect: Option<Expect>) -> Exchange {
        Exchange {
            send: send.into(),
            expect,
        }
    }

    #[test]
    fn what_is_sent_comes_first_and_what_is_expected_may_come_in_pieces() {
        let exchange = exchange("PING\r\n", Some(Expect::Bytes(b"+PONG".into())));
        let (said, answer) = rehearse(&mut Speaking::new(&exchange), b"noise +PONG\r\n");
        assert_eq!(said, b"PING\r\n");
        assert_eq!(answer.verdict, Verdict::Alive);
    }

    #[test]
    fn a_server_that_speaks_first_need_not_be_spoken_to() {
        let exchange = exchange("", Some(Expect::Pattern(Pattern::new("^220 ").unwrap())));
        assert_eq!(why(&mut Speaking::new(&exchange), b"220 mail\r\n"), None);
        assert_eq!(
            why(&mut Speaking::new(&exchange), b"554 no\r\n").unwrap(),
            "expected /^220 /, got \"554 no\\r\\n\""
        );
    }

    #[test]
    fn silence_and_endless_talk_are_told_apart() {
        let exchange = exchange("x", Some(Expect::Bytes(b"y".into())));
        let silent = why(&mut Speaking::new(&exchange), b"").unwrap();
        assert_eq!(silent, "expected \"y\", got nothing");
        let talk = vec![b'z'; MOST_ANSWER + 1];
        let endless = why(&mut Speaking::new(&exchange), &talk).unwrap();
        assert!(endless.contains("zzz…\""), "{endless}");
    }

    #[test]
    fn an_echo_is_not_quoted() {
        let exchange = exchange("AUTH SECRET\r\n", Some(Expect::Bytes(b"+OK".into())));
        let echo = why(&mut Speaking::new(&exchange), b"? AUTH SECRET\r\n").unwrap();
        assert_eq!(echo, "expected \"+OK\", got what was sent");
    }

    #[test]
    fn with_nothing_expected_the_sending_is_enough() {
        assert_eq!(why(&mut Speaking::new(&exchange("x", None)), b""), None);
    }
}
