//! Redis: `PING` is answered with `PONG`, and `ROLE` names the right one (redis.io/docs, RESP).

use super::dialogue::{Dialogue, Received, Step};
use super::exchange::quoted;
use crate::health::{Redis, Role};

pub(super) struct Pinging<'a> {
    redis: &'a Redis,
    asked: Option<Question>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    Auth,
    Ping,
    Role,
}

impl<'a> Pinging<'a> {
    pub(super) fn new(redis: &'a Redis) -> Self {
        Self { redis, asked: None }
    }

    fn ask(&mut self, question: Question) -> Step {
        self.asked = Some(question);
        Step::Say(match (question, &self.redis.password) {
            (Question::Auth, Some(password)) => {
                let user = self.redis.user.iter().map(String::as_str);
                command(["AUTH"].into_iter().chain(user).chain([password.reveal()]))
            }
            (Question::Ping | Question::Auth, _) => command(["PING"]),
            (Question::Role, _) => command(["ROLE"]),
        })
    }

    fn ping_or_role(&mut self, line: &str) -> Step {
        match line {
            "+PONG" => match self.redis.role {
                Some(_) => self.ask(Question::Role),
                None => Step::alive(),
            },
            // It answers, and only wants a password that nobody has given us.
            _ if line.starts_with("-NOAUTH")
                && self.redis.role.is_none()
                && self.redis.password.is_none() =>
            {
                Step::alive()
            }
            _ => refused(line),
        }
    }
}

impl Dialogue for Pinging<'_> {
    fn next(&mut self, received: &mut Received) -> Step {
        let Some(asked) = self.asked else {
            let first = match self.redis.password {
                Some(_) => Question::Auth,
                None => Question::Ping,
            };
            return self.ask(first);
        };
        // The name of the role is the second line of the first element, itself the second line.
        let wanted = match asked {
            Question::Auth | Question::Ping => 1,
            Question::Role if received.bytes.starts_with(b"-") => 1,
            Question::Role => 3,
        };
        let Some(line) = take_line(&mut received.bytes, wanted) else {
            return Step::Listen;
        };
        match asked {
            Question::Auth if line == "+OK" => self.ask(Question::Ping),
            Question::Auth => Step::dead(&not_let_in(&line)),
            Question::Ping => self.ping_or_role(&line),
            Question::Role => {
                let is = match line.as_str() {
                    "master" => Some(Role::Primary),
                    "slave" | "replica" => Some(Role::Replica),
                    _ => None,
                };
                match is {
                    Some(_) if is == self.redis.role => Step::alive(),
                    Some(_) => Step::dead(&format!("its role is {line}")),
                    None => refused(&line),
                }
            }
        }
    }

    fn lacks(&self, received: &Received) -> Option<String> {
        // What is said to AUTH may quote the password.
        let quotable = self.asked != Some(Question::Auth) && !received.bytes.is_empty();
        quotable.then(|| format!("no whole answer of redis, got {}", quoted(&received.bytes)))
    }
}

/// Why AUTH was refused, by the first word of the answer: servers that do not know the command quote it
/// in the rest, and with it the password.
fn not_let_in(line: &str) -> String {
    let code = line.strip_prefix('-').and_then(|it| it.split(' ').next());
    match code.filter(|it| it.bytes().all(|byte| byte.is_ascii_uppercase())) {
        Some(code) => format!("the server refuses the password: {code}"),
        None => "no answer of redis to AUTH".to_owned(),
    }
}

fn refused(line: &str) -> Step {
    match line.strip_prefix('-') {
        Some(error) => Step::dead(&format!("the server says: {error}")),
        None => Step::dead(&format!("no answer of redis: {}", quoted(line.as_bytes()))),
    }
}

/// The last of the first `count` lines, once they are complete: they are taken, and no byte of what follows.
fn take_line(bytes: &mut Vec<u8>, count: usize) -> Option<String> {
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n').take(count);
    let ends: usize = lines.clone().map(<[u8]>::len).sum();
    // What is behind the last line break is no line yet.
    let line = lines.nth(count - 1).filter(|it| it.ends_with(b"\n"))?;
    let line = String::from_utf8_lossy(line).trim_end().to_owned();
    bytes.drain(..ends);
    Some(line)
}

/// A command as an array of bulk strings.
fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let words: Vec<_> = words.into_iter().collect();
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        out += &format!("${}\r\n{word}\r\n", word.len());
    }
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::dialogue::testing::{rehearse, why};
    use super::*;
    use crate::health::{Secret, Verdict};

    fn of(role: Option<Role>, password: Option<&str>) -> Redis {
        Redis {
            user: None,
            password: password.map(Secret::new),
            role,
        }
    }

    const MASTER: &[u8] = b"+PONG\r\n*3\r\n$6\r\nmaster\r\n:3129659\r\n*0\r\n";
    const SLAVE: &[u8] = b"+PONG\r\n*5\r\n$5\r\nslave\r\n$9\r\n127.0.0.1\r\n:6379\r\n";

    #[test]
    fn a_pong_will_do_where_the_role_does_not_matter() {
        let redis = of(None, None);
        let (said, answer) = rehearse(&mut Pinging::new(&redis), b"+PONG\r\n");
        assert_eq!(said, b"*1\r\n$4\r\nPING\r\n");
        assert_eq!(answer.verdict, Verdict::Alive);
    }

    #[test]
    fn a_server_that_wants_a_password_is_alive_but_its_role_is_unknown() {
        let reply = b"-NOAUTH Authentication required.\r\n";
        assert_eq!(why(&mut Pinging::new(&of(None, None)), reply), None);
        let unknown = why(&mut Pinging::new(&of(Some(Role::Primary), None)), reply);
        assert_eq!(
            unknown.unwrap(),
            "the server says: NOAUTH Authentication required."
        );
    }

    #[test]
    fn a_server_that_loads_is_dead_in_its_own_words() {
        let reply = b"-LOADING Redis is loading the dataset in memory\r\n";
        let loading = why(&mut Pinging::new(&of(None, None)), reply).unwrap();
        assert!(loading.contains("is loading the dataset"), "{loading}");
    }

    #[test]
    fn the_role_must_be_the_one_that_is_wanted() {
        let primary = of(Some(Role::Primary), None);
        let replica = of(Some(Role::Replica), None);
        assert_eq!(why(&mut Pinging::new(&primary), MASTER), None);
        assert_eq!(why(&mut Pinging::new(&replica), SLAVE), None);
        let wrong = why(&mut Pinging::new(&primary), SLAVE).unwrap();
        assert_eq!(wrong, "its role is slave");
        let wrong = why(&mut Pinging::new(&replica), MASTER).unwrap();
        assert_eq!(wrong, "its role is master");
    }

    #[test]
    fn a_password_goes_first() {
        let redis = Redis {
            user: Some("ballast".to_owned()),
            ..of(None, Some("word"))
        };
        let (said, answer) = rehearse(&mut Pinging::new(&redis), b"+OK\r\n+PONG\r\n");
        assert_eq!(
            said,
            b"*3\r\n$4\r\nAUTH\r\n$7\r\nballast\r\n$4\r\nword\r\n*1\r\n$4\r\nPING\r\n"
        );
        assert_eq!(answer.verdict, Verdict::Alive);
    }

    #[test]
    fn a_password_is_not_told_even_when_the_server_does() {
        let redis = of(None, Some("SECRET"));
        for (reply, told) in [
            (
                "-WRONGPASS invalid username-password pair",
                "the server refuses the password: WRONGPASS",
            ),
            (
                "-ERR unknown command 'AUTH', with args beginning with: 'SECRET'",
                "the server refuses the password: ERR",
            ),
            ("-'AUTH SECRET'?", "no answer of redis to AUTH"),
            ("AUTH SECRET", "no answer of redis to AUTH"),
        ] {
            let reply = format!("{reply}\r\n");
            let wrong = why(&mut Pinging::new(&redis), reply.as_bytes()).unwrap();
            assert_eq!(wrong, told, "{reply}");
        }
    }

    #[test]
    fn something_else_than_redis_is_dead() {
        let http = why(&mut Pinging::new(&of(None, None)), b"HTTP/1.1 400 Bad\r\n").unwrap();
        assert_eq!(http, "no answer of redis: \"HTTP/1.1 400 Bad\"");
    }
}
