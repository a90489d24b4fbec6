//! PostgreSQL: a start-up that leaves nothing in the server's log (PostgreSQL documentation,
//! "Message Flow").
//!
//! Without a user, the server is asked whether it would encrypt by GSSAPI, and left when it has
//! answered. It takes that for a client that did not like the answer, which is no error. (To ask for
//! TLS and leave would be one, where TLS is on.) With a user, the check logs in, or goes as far as the
//! question for a password that it does not have, and leaves by `Terminate`.

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::SCRAM_SHA_256;
use postgres_protocol::message::backend::{DataRowBody, ErrorResponseBody, Message};
use postgres_protocol::message::frontend;

use super::dialogue::{Dialogue, Received, Step};
use super::exchange::quoted;
use super::scram::Scram;
use crate::health::{Postgres, Role, Verdict};

/// `GSSENCRequest`: length and code.
const ASK_FOR_GSSAPI: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
const TERMINATE: &[u8] = b"X\0\0\0\x04";
const IS_REPLICA: &str = "SELECT pg_catalog.pg_is_in_recovery()";
/// How the check shows up in pg_stat_activity.
const NAME: &str = "ballast check";

pub(super) struct StartingUp<'a> {
    postgres: &'a Postgres,
    started: bool,
    scram: Option<Scram<'a>>,
    role: Option<Role>,
}

impl<'a> StartingUp<'a> {
    pub(super) fn new(postgres: &'a Postgres) -> Self {
        Self {
            postgres,
            started: false,
            scram: None,
            role: None,
        }
    }

    fn begin(&self) -> Step {
        let Some(user) = &self.postgres.user else {
            return Step::Say(ASK_FOR_GSSAPI.to_vec());
        };
        let database = self.postgres.database.as_ref().unwrap_or(user);
        say(|out| {
            let parameters = [
                ("user", user.as_str()),
                ("database", database.as_str()),
                ("application_name", NAME),
            ];
            frontend::startup_message(parameters, out)
        })
    }

    fn without_user(&self, received: &Received) -> Step {
        match received.bytes.as_slice() {
            [] | [b'E'] => Step::Listen,
            // Servers before version 12 do not know the question, and say so by a message, whose length
            // begins with zero. One that cannot start a process says so in plain text.
            [b'N' | b'G', ..] | [b'E', 0, ..] => Step::alive(),
            other => Step::dead(&format!("no answer of PostgreSQL: {}", quoted(other))),
        }
    }

    fn hear(&mut self, message: Message) -> Step {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "Message is non-exhaustive, and most of it is nothing to a check"
        )]
        match message {
            Message::AuthenticationCleartextPassword => match &self.postgres.password {
                Some(password) => say_password(password.reveal().as_bytes()),
                None => self.asked_for_password(),
            },
            Message::AuthenticationMd5Password(body) => {
                match (&self.postgres.user, &self.postgres.password) {
                    (Some(user), Some(password)) => {
                        let password = password.reveal().as_bytes();
                        let hash = md5_hash(user.as_bytes(), password, body.salt());
                        say_password(hash.as_bytes())
                    }
                    _ => self.asked_for_password(),
                }
            }
            Message::AuthenticationSasl(body) => {
                let mut mechanisms = body.mechanisms();
                let mut known = false;
                while let Ok(Some(mechanism)) = fallible_next(&mut mechanisms) {
                    known |= mechanism == SCRAM_SHA_256;
                }
                match &self.postgres.password {
                    Some(_) if !known => Step::dead("asks for an unknown way to log in"),
                    Some(password) => {
                        self.scram = Scram::new(password.reveal());
                        match &self.scram {
                            Some(scram) => say(|out| {
                                let first = scram.first();
                                frontend::sasl_initial_response(
                                    SCRAM_SHA_256,
                                    first.as_bytes(),
                                    out,
                                )
                            }),
                            None => Step::dead("cannot be logged in to without random numbers"),
                        }
                    }
                    None => self.asked_for_password(),
                }
            }
            Message::AuthenticationSaslContinue(body) => {
                let scram = self.scram.as_mut();
                match scram.and_then(|it| it.answer(body.data())) {
                    Some(answer) => say(|out| frontend::sasl_response(answer.as_bytes(), out)),
                    None => Step::dead("the log-in went wrong"),
                }
            }
            Message::AuthenticationSaslFinal(body) => {
                let scram = self.scram.as_ref();
                match scram.is_some_and(|it| it.is_proven_by(body.data())) {
                    true => Step::Listen,
                    false => Step::dead("the server does not know the password itself"),
                }
            }
            Message::ReadyForQuery(_) => match (self.postgres.role, self.role) {
                (None, _) => Step::leave(Verdict::Alive, TERMINATE),
                (Some(_), None) => say(|out| frontend::query(IS_REPLICA, out)),
                (Some(wanted), Some(is)) if wanted == is => Step::leave(Verdict::Alive, TERMINATE),
                (Some(_), Some(is)) => {
                    let is = match is {
                        Role::Primary => "primary",
                        Role::Replica => "standby",
                    };
                    leave_dead(&format!("its role is {is}"))
                }
            },
            Message::DataRow(row) => match is_replica(&row) {
                Some(true) => self.learn(Role::Replica),
                Some(false) => self.learn(Role::Primary),
                None => leave_dead("does not tell its role"),
            },
            Message::ErrorResponse(error) => leave_dead(&words_of(&error)),
            Message::AuthenticationGss
            | Message::AuthenticationSspi
            | Message::AuthenticationKerberosV5
            | Message::AuthenticationScmCredential => self.asked_for_password(),
            // Settings, notices, the key for cancelling, the shape of the row.
            _ => Step::Listen,
        }
    }

    fn learn(&mut self, role: Role) -> Step {
        self.role = Some(role);
        Step::Listen
    }

    /// It takes log-ins, and more cannot be seen without a password.
    fn asked_for_password(&self) -> Step {
        match (self.postgres.role, &self.postgres.password) {
            (None, None) => Step::alive(),
            (Some(_), None) => Step::dead("asks for a password"),
            (_, Some(_)) => Step::dead("asks for another way to log in than by password"),
        }
    }
}

impl Dialogue for StartingUp<'_> {
    fn next(&mut self, received: &mut Received) -> Step {
        if !std::mem::replace(&mut self.started, true) {
            return self.begin();
        }
        if self.postgres.user.is_none() {
            return self.without_user(received);
        }
        let mut bytes = BytesMut::from(received.bytes.as_slice());
        let step = loop {
            match Message::parse(&mut bytes) {
                Ok(Some(message)) => match self.hear(message) {
                    Step::Listen => {}
                    step @ (Step::Say(_) | Step::Done(_)) => break step,
                },
                Ok(None) => break Step::Listen,
                Err(_) => {
                    let said = quoted(&received.bytes);
                    break Step::dead(&format!("no answer of PostgreSQL: {said}"));
                }
            }
        };
        received.bytes = bytes.to_vec();
        step
    }
}

fn say(write: impl FnOnce(&mut BytesMut) -> std::io::Result<()>) -> Step {
    let mut out = BytesMut::new();
    match write(&mut out) {
        Ok(()) => Step::Say(out.to_vec()),
        // A NUL within a name, which the configuration does not let through.
        Err(error) => Step::dead(&format!("cannot be asked: {error}")),
    }
}

fn say_password(password: &[u8]) -> Step {
    say(|out| frontend::password_message(password, out))
}

fn leave_dead(words: &str) -> Step {
    Step::leave(Verdict::Dead(crate::health::Why::answer(words)), TERMINATE)
}

/// The one column of the one row, in text.
fn is_replica(row: &DataRowBody) -> Option<bool> {
    let range = fallible_next(&mut row.ranges()).ok()???;
    match row.buffer().get(range)? {
        b"t" => Some(true),
        b"f" => Some(false),
        _ => None,
    }
}

fn words_of(error: &ErrorResponseBody) -> String {
    const MESSAGE: u8 = b'M';
    let mut fields = error.fields();
    while let Ok(Some(field)) = fallible_next(&mut fields) {
        if field.type_() == MESSAGE {
            let words = String::from_utf8_lossy(field.value_bytes());
            return format!("the server says: {words}");
        }
    }
    "the server says that something is wrong".to_owned()
}

fn fallible_next<I: fallible_iterator::FallibleIterator>(
    items: &mut I,
) -> Result<Option<I::Item>, I::Error> {
    items.next()
}

#[cfg(test)]
mod tests {
    use super::super::dialogue::testing::{rehearse, why};
    use super::*;
    use crate::health::Secret;
    use proptest::prelude::*;

    fn user(role: Option<Role>, password: Option<&str>) -> Postgres {
        Postgres {
            user: Some("ballast".to_owned()),
            password: password.map(Secret::new),
            database: None,
            role,
        }
    }

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], length.as_slice(), body].concat()
    }

    fn ok_and_ready() -> Vec<u8> {
        [
            message(b'R', &[0; 4]),
            message(b'S', b"a\0b\0"),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    fn row(answer: &[u8]) -> Vec<u8> {
        let body = [b"\0\x01\0\0\0\x01", answer].concat();
        [
            message(b'D', &body),
            message(b'C', b"SELECT 1\0"),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    #[test]
    fn without_a_user_any_answer_to_the_first_question_will_do() {
        let nobody = Postgres::default();
        for answer in [b"N", b"G"] {
            let (said, answer) = rehearse(&mut StartingUp::new(&nobody), answer);
            assert_eq!(said, ASK_FOR_GSSAPI);
            assert_eq!(answer.verdict, Verdict::Alive);
        }
        let old = message(b'E', b"SFATAL\0Munsupported frontend protocol\0\0");
        assert_eq!(why(&mut StartingUp::new(&nobody), &old), None);
        let full = b"Ecould not fork new process for connection\n\0";
        let full = why(&mut StartingUp::new(&nobody), full).unwrap();
        assert_eq!(full, "no answer of PostgreSQL: \"Ec\"");
        let other = why(&mut StartingUp::new(&nobody), b"HTTP/1.1 400").unwrap();
        assert!(other.starts_with("no answer of PostgreSQL: \"H"), "{other}");
    }

    #[test]
    fn a_log_in_is_left_politely() {
        let user = user(None, None);
        let (said, answer) = rehearse(&mut StartingUp::new(&user), &ok_and_ready());
        assert!(crate::health::contains(
            &said,
            b"user\0ballast\0database\0ballast\0"
        ));
        assert_eq!(
            (answer.verdict, answer.farewell),
            (Verdict::Alive, TERMINATE)
        );
    }

    #[test]
    fn the_question_for_a_password_is_answer_enough_unless_the_role_matters() {
        let question = message(b'R', &[0, 0, 0, 3]);
        assert_eq!(
            why(&mut StartingUp::new(&user(None, None)), &question),
            None
        );
        let unknown = why(
            &mut StartingUp::new(&user(Some(Role::Primary), None)),
            &question,
        );
        assert_eq!(unknown.unwrap(), "asks for a password");
    }

    #[test]
    fn a_password_is_told_the_way_it_is_asked_for() {
        let user = user(None, Some("word"));
        let plain = [message(b'R', &[0, 0, 0, 3]), ok_and_ready()].concat();
        let (said, _) = rehearse(&mut StartingUp::new(&user), &plain);
        assert!(said.ends_with(b"p\0\0\0\x09word\0"), "{said:?}");
        let md5 = [message(b'R', &[0, 0, 0, 5, 1, 2, 3, 4]), ok_and_ready()].concat();
        let (said, answer) = rehearse(&mut StartingUp::new(&user), &md5);
        assert!(crate::health::contains(&said, b"md5"));
        assert_eq!(answer.verdict, Verdict::Alive);
    }

    #[test]
    fn the_role_must_be_the_one_that_is_wanted() {
        for (wanted, says, expected) in [
            (Role::Primary, b"f", None),
            (Role::Primary, b"t", Some("its role is standby")),
            (Role::Replica, b"t", None),
            (Role::Replica, b"f", Some("its role is primary")),
        ] {
            let words = [ok_and_ready(), row(says)].concat();
            let user = user(Some(wanted), None);
            let said = why(&mut StartingUp::new(&user), &words);
            assert_eq!(said.as_deref(), expected);
        }
    }

    #[test]
    fn an_error_is_told_in_the_servers_own_words() {
        let words = message(
            b'E',
            b"SFATAL\0C57P03\0Mthe database system is starting up\0\0",
        );
        let said = why(&mut StartingUp::new(&user(None, None)), &words).unwrap();
        assert_eq!(said, "the server says: the database system is starting up");
    }

    proptest! {
        #[test]
        fn any_reply_is_judged(noise: Vec<u8>, kind: u8, body: Vec<u8>) {
            for role in [None, Some(Role::Primary)] {
                let user = user(role, Some("word"));
                why(&mut StartingUp::new(&user), &noise);
                why(&mut StartingUp::new(&user), &message(kind, &body));
                why(&mut StartingUp::new(&user), &message(b'R', &body));
            }
        }
    }
}
