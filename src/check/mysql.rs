//! MySQL and MariaDB: the greeting, a log-in without a password, and a quit.
//!
//! To leave after the greeting would count as a broken handshake, and after `max_connect_errors` of
//! them the server blocks the whole host. A log-in that is refused does not count, and neither does one
//! that succeeds and quits. (MySQL Internals, "Connection Phase"; the manual on `host_cache`.)

use super::dialogue::{Dialogue, Received, Step};
use super::exchange::quoted;
use crate::health::{Mysql, Verdict, Why};

const CLIENT_LONG_PASSWORD: u32 = 0x1;
const CLIENT_PROTOCOL_41: u32 = 0x200;
const CLIENT_SECURE_CONNECTION: u32 = 0x8000;
const CLIENT_PLUGIN_AUTH: u32 = 0x8_0000;
/// utf8_general_ci, which every version knows.
const UTF8: u8 = 33;
/// What the server may send us at most; we send nothing large.
const MOST_PACKET: u32 = 1 << 16;
/// `COM_QUIT`, as the first packet of a command.
const QUIT: &[u8] = b"\x01\0\0\0\x01";
/// Answers to a log-in, by their first byte.
const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// `ER_CON_COUNT_ERROR` to `ER_HOST_NOT_PRIVILEGED`: what a server says that takes nobody, or not us.
const TOO_MANY_CONNECTIONS: u16 = 1040;
const OUT_OF_MEMORY: [u16; 2] = [1037, 1041];
const SHUTTING_DOWN: u16 = 1053;
const HOST_BLOCKED: u16 = 1129;
const HOST_NOT_ALLOWED: u16 = 1130;
/// Rounds of a log-in; three is more than any plugin needs without a password.
const MOST_ROUNDS: u8 = 4;

pub(super) struct LoggingIn<'a> {
    mysql: &'a Mysql,
    rounds: u8,
}

impl<'a> LoggingIn<'a> {
    pub(super) fn new(mysql: &'a Mysql) -> Self {
        Self { mysql, rounds: 0 }
    }

    fn answer(&mut self, sequence: u8, packet: &[u8]) -> Step {
        let first = packet.first().copied();
        if first == Some(ERROR) {
            return error(packet, self.rounds > 0);
        }
        self.rounds += 1;
        match first {
            _ if self.rounds == 1 => match packet.first() {
                Some(10) => Step::Say(self.log_in(sequence)),
                _ => Step::dead(&format!("no greeting of MySQL: {}", quoted(packet))),
            },
            Some(OK) => Step::leave(Verdict::Alive, QUIT),
            // Whatever it asks for, a user without a password has nothing to tell.
            Some(SWITCH | MORE) if self.rounds <= MOST_ROUNDS => {
                // What MORE carries may be good news that nothing needs to be said to.
                match packet {
                    [MORE, 3] => Step::Listen,
                    _ => Step::Say(framed(sequence.wrapping_add(1), &[])),
                }
            }
            _ => Step::dead(&format!("no answer of MySQL: {}", quoted(packet))),
        }
    }

    /// HandshakeResponse41 with an empty answer to the challenge.
    fn log_in(&self, sequence: u8) -> Vec<u8> {
        let capabilities = CLIENT_LONG_PASSWORD
            | CLIENT_PROTOCOL_41
            | CLIENT_SECURE_CONNECTION
            | CLIENT_PLUGIN_AUTH;
        let mut body = Vec::new();
        body.extend(capabilities.to_le_bytes());
        body.extend(MOST_PACKET.to_le_bytes());
        body.push(UTF8);
        body.extend([0; 23]);
        body.extend(self.mysql.user.as_bytes());
        body.push(0);
        body.push(0);
        body.extend(b"mysql_native_password\0");
        framed(sequence.wrapping_add(1), &body)
    }
}

impl Dialogue for LoggingIn<'_> {
    fn next(&mut self, received: &mut Received) -> Step {
        loop {
            let Some((&[a, b, c, sequence], rest)) = received.bytes.split_first_chunk() else {
                return Step::Listen;
            };
            let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
            let Some(packet) = rest.get(..length) else {
                return Step::Listen;
            };
            let packet = packet.to_vec();
            received.bytes.drain(..4 + length);
            match self.answer(sequence, &packet) {
                Step::Listen => {}
                step @ (Step::Say(_) | Step::Done(_)) => return step,
            }
        }
    }
}

/// An error packet: a server that refuses our log-in lives, one that refuses everybody does not.
fn error(packet: &[u8], logging_in: bool) -> Step {
    let code = match packet {
        [_, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    let words = packet.get(3..).unwrap_or_default();
    let words = match words {
        // `#` and a state of five characters, once the protocol is agreed upon.
        [b'#', _, _, _, _, _, words @ ..] => words,
        words => words,
    };
    let refuses_all = [
        TOO_MANY_CONNECTIONS,
        SHUTTING_DOWN,
        HOST_BLOCKED,
        HOST_NOT_ALLOWED,
    ];
    if logging_in && !refuses_all.contains(&code) && !OUT_OF_MEMORY.contains(&code) {
        return Step::alive();
    }
    let words = format!(
        "the server says: {} ({code})",
        String::from_utf8_lossy(words)
    );
    Step::leave(Verdict::Dead(Why::answer(&words)), b"")
}

fn framed(sequence: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(0).to_le_bytes();
    let mut packet = vec![length[0], length[1], length[2], sequence];
    packet.extend(body);
    packet
}

#[cfg(test)]
mod tests {
    use super::super::dialogue::testing::{rehearse, why};
    use super::*;
    use proptest::prelude::*;

    fn user() -> Mysql {
        Mysql {
            user: "ballast".to_owned(),
        }
    }

    fn greeting() -> Vec<u8> {
        framed(0, b"\x0a10.11.6-MariaDB\0 and the challenge")
    }

    fn after_greeting(packets: &[Vec<u8>]) -> Vec<u8> {
        [greeting()]
            .iter()
            .chain(packets)
            .flatten()
            .copied()
            .collect()
    }

    fn refusal(sequence: u8, code: u16, words: &str) -> Vec<u8> {
        let mut body = vec![ERROR];
        body.extend(code.to_le_bytes());
        body.extend(words.as_bytes());
        framed(sequence, &body)
    }

    #[test]
    fn a_log_in_follows_the_greeting_and_a_quit_the_log_in() {
        let mysql = user();
        let words = after_greeting(&[framed(2, b"\0\0\0\x02\0\0\0")]);
        let (said, answer) = rehearse(&mut LoggingIn::new(&mysql), &words);
        assert_eq!(said[3], 1, "the second packet");
        assert_eq!(usize::from(said[0]), said.len() - 4);
        assert!(crate::health::contains(&said, b"\0ballast\0"));
        assert_eq!((answer.verdict, answer.farewell), (Verdict::Alive, QUIT));
    }

    #[test]
    fn a_refused_log_in_is_an_answer() {
        let words = after_greeting(&[refusal(2, 1045, "#28000Access denied")]);
        assert_eq!(why(&mut LoggingIn::new(&user()), &words), None);
    }

    #[test]
    fn another_way_to_log_in_is_gone_along_with() {
        let words = after_greeting(&[
            framed(2, b"\xfecaching_sha2_password\0challenge"),
            framed(4, b"\x01\x03"),
            framed(5, b"\0\0\0\x02\0\0\0"),
        ]);
        let mysql = user();
        let (said, answer) = rehearse(&mut LoggingIn::new(&mysql), &words);
        assert_eq!(answer.verdict, Verdict::Alive);
        assert!(said.ends_with(b"\0\0\0\x03"), "an empty answer");
    }

    #[test]
    fn a_server_that_takes_nobody_is_dead_in_its_own_words() {
        let full = refusal(0, TOO_MANY_CONNECTIONS, "Too many connections");
        let said = why(&mut LoggingIn::new(&user()), &full).unwrap();
        assert_eq!(said, "the server says: Too many connections (1040)");
        let late = after_greeting(&[refusal(2, TOO_MANY_CONNECTIONS, "#08004Too many")]);
        let said = why(&mut LoggingIn::new(&user()), &late).unwrap();
        assert_eq!(said, "the server says: Too many (1040)");
        let blocked = refusal(0, HOST_BLOCKED, "Host is blocked");
        assert!(why(&mut LoggingIn::new(&user()), &blocked).is_some());
    }

    #[test]
    fn something_else_than_mysql_is_dead() {
        let other = why(&mut LoggingIn::new(&user()), b"\x04\0\0\0SSH-and-more").unwrap();
        assert_eq!(other, "no greeting of MySQL: \"SSH-\"");
    }

    proptest! {
        #[test]
        fn any_reply_is_judged(packets in prop::collection::vec(any::<Vec<u8>>(), 0..8)) {
            let words = packets.iter().flat_map(|packet| framed(0, packet)).collect::<Vec<_>>();
            why(&mut LoggingIn::new(&user()), &words);
            let greeted = [greeting(), words].concat();
            why(&mut LoggingIn::new(&user()), &greeted);
        }
    }
}
