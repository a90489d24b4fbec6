//! How a server is checked: what a probe says to it and what it must answer. Only the description;
//! the room `check` carries it out.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use crate::model::{Address, Egress};
use crate::proxy_protocol::Version;

/// One way to check, as an operator chose it. Backends at the same address with an equal check, in
/// whatever services, are probed once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Check {
    /// What is said, and what must be answered.
    pub kind: Kind,
    /// Another port than the backend's.
    pub port: Option<u16>,
    /// The header of a connection that nobody is behind goes in front of everything else, for a server
    /// that expects the PROXY protocol.
    pub proxy: Option<Version>,
    /// How probes leave this host, where that is not left to the kernel: as sessions do.
    pub egress: Option<Arc<Egress>>,
}

impl Check {
    /// Where a probe of the backend at `address` goes.
    pub fn destination(&self, mut address: Address) -> Address {
        if let (Address::Inet(address), Some(port)) = (&mut address, self.port) {
            address.set_port(port);
        }
        address
    }
}

/// What is said, and what must be answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A connect is answered, and what was sent as it should be.
    Tcp(Exchange),
    /// A request is answered with a status of these.
    Http(Http),
    /// `PING` is answered, and `ROLE` as it should be.
    Redis(Redis),
    /// A start-up is answered.
    Postgres(Postgres),
    /// A greeting comes, and a log-in is answered.
    Mysql(Mysql),
    /// A handshake completes.
    Tls(Tls),
    /// A program says so by its exit code.
    Exec(Program),
    /// An agent on the server says so, and what share it wants.
    Agent(Exchange),
}

impl Kind {
    /// As it is written in a file.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tcp(_) => "tcp",
            Self::Http(_) => "http",
            Self::Redis(_) => "redis",
            Self::Postgres(_) => "postgres",
            Self::Mysql(_) => "mysql",
            Self::Tls(_) => "tls",
            Self::Exec(_) => "exec",
            Self::Agent(_) => "agent",
        }
    }
}

impl Default for Kind {
    fn default() -> Self {
        Self::Tcp(Exchange::default())
    }
}

/// Bytes for bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exchange {
    /// Sent at once; may be nothing.
    pub send: Vec<u8>,
    /// What must be in the answer, if there must be one.
    pub expect: Option<Expect>,
}

impl Exchange {
    /// Whether nothing is said and nothing expected: a connect is all.
    pub fn is_empty(&self) -> bool {
        self.send.is_empty() && self.expect.is_none()
    }
}

/// What must be in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Expect {
    /// These bytes, anywhere.
    Bytes(Vec<u8>),
    /// A match, anywhere.
    Pattern(Pattern),
}

impl Expect {
    /// What tells whether an answer has it. Made anew for each probe: a compiled pattern is large,
    /// and no part of an identity.
    pub fn test(&self) -> impl Fn(&[u8]) -> bool + Send + use<> {
        let (bytes, regex) = match self {
            Self::Bytes(bytes) => (bytes.clone(), None),
            Self::Pattern(pattern) => (Vec::new(), pattern.compile().ok()),
        };
        move |answer| match &regex {
            Some(regex) => regex.is_match(answer),
            None => contains(answer, &bytes),
        }
    }
}

/// Whether `part` is somewhere in `whole`.
pub fn contains(whole: &[u8], part: &[u8]) -> bool {
    part.is_empty() || whole.windows(part.len()).any(|window| window == part)
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Self::Pattern(Pattern(text)) => write!(f, "/{text}/"),
        }
    }
}

/// A regular expression over bytes, which is known to compile.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(String);

impl Pattern {
    /// The largest compiled form, in bytes.
    const MOST: usize = 1 << 20;

    /// Tries `text`, in the syntax of the regex crate; classes such as `\w` are ASCII's.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn new(text: &str) -> Result<Self, String> {
        let pattern = Self(text.to_owned());
        match pattern.compile() {
            Ok(_) => Ok(pattern),
            Err(error) => {
                let words = error.to_string();
                let last = words.lines().last().unwrap_or_default();
                Err(last.trim_start_matches("error: ").to_owned())
            }
        }
    }

    fn compile(&self) -> Result<Regex, regex::Error> {
        RegexBuilder::new(&self.0)
            .unicode(false)
            .size_limit(Self::MOST)
            .build()
    }
}

/// One request, and the answers that will do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Http {
    /// `GET`, `HEAD`, `OPTIONS`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The `Host` header; without it, the address that is probed.
    pub host: Option<String>,
    /// The statuses that will do.
    pub status: StatusSet,
    /// What must be in the body.
    pub body: Option<Vec<u8>>,
}

/// Some HTTP statuses.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatusSet(Vec<RangeInclusive<u16>>);

impl Default for StatusSet {
    /// Success and redirection.
    fn default() -> Self {
        Self(vec![200..=399])
    }
}

impl StatusSet {
    /// Reads `200-299, 301`; `None` when that is no list of statuses.
    pub fn parse(text: &str) -> Option<Self> {
        let status = |text: &str| {
            let number = text.trim().parse::<u16>().ok();
            number.filter(|number| (100..=599).contains(number))
        };
        let range = |text: &str| match text.split_once('-') {
            Some((from, to)) => {
                let range = status(from)?..=status(to)?;
                (!range.is_empty()).then_some(range)
            }
            None => status(text).map(|status| status..=status),
        };
        text.split(',').map(range).collect::<Option<_>>().map(Self)
    }

    /// Whether `status` is one of them.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// Who answers for its data, and who copies it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Takes writes: redis' master, PostgreSQL's primary.
    Primary,
    /// Follows one: redis' slave, PostgreSQL's standby.
    Replica,
}

/// A password, which is in no log and no message.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    /// Keeps `password`.
    pub fn new(password: impl Into<String>) -> Self {
        Self(password.into())
    }

    /// For the server, and for nobody else.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// `PING`, and `ROLE` if that matters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Redis {
    /// Who logs in, where there are users (ACL).
    pub user: Option<String>,
    /// For `AUTH`.
    pub password: Option<Secret>,
    /// What the server must be.
    pub role: Option<Role>,
}

/// A start-up that leaves no trace in the log; a log-in where `user` is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Postgres {
    /// Who logs in.
    pub user: Option<String>,
    /// With which password.
    pub password: Option<Secret>,
    /// Into which database; the user's name without it.
    pub database: Option<String>,
    /// What the server must be.
    pub role: Option<Role>,
}

/// A log-in without a password.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Mysql {
    /// Who logs in, or tries to.
    pub user: String,
}

/// A handshake, whatever the certificate.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tls {
    /// Asked for by SNI; without it, none is.
    pub server_name: Option<String>,
    /// A certificate that expires within this time deserves a warning.
    pub expires_within: Duration,
}

/// A program and its arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Program {
    /// Its absolute path.
    pub path: String,
    /// Its arguments.
    pub args: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_statuses_is_a_list_of_numbers_and_ranges() {
        let set = StatusSet::parse("200-299, 301").unwrap();
        for (status, is_in) in [
            (199, false),
            (200, true),
            (299, true),
            (300, false),
            (301, true),
        ] {
            assert_eq!(set.contains(status), is_in, "{status}");
        }
        for wrong in ["", "2xx", "299-200", "200,", "99", "600", "200-", "200 301"] {
            assert_eq!(StatusSet::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_expectation_is_met_anywhere_in_the_answer() {
        let bytes = Expect::Bytes(b"+PONG".to_vec()).test();
        assert!(bytes(b"...+PONG\r\n"));
        assert!(!bytes(b"+PON"));
        let pattern = Expect::Pattern(Pattern::new(r"^\+PONG|\xff\d+").unwrap()).test();
        assert!(pattern(b"+PONG\r\n"));
        assert!(pattern(b"\xfe\xff42"));
        assert!(!pattern(b" +PONG"));
    }

    #[test]
    fn a_bad_pattern_is_explained_in_one_line() {
        assert_eq!(Pattern::new("a(b").unwrap_err(), "unclosed group");
        assert!(Pattern::new("(a{1000}){1000}{1000}").is_err(), "too large");
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", Secret::new("hunter2")).contains("hunter2"));
    }
}
