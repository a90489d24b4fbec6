//! How a server is checked: the keys of `[service.health]` that depend on its `kind`.

use std::time::Duration;

use rustls::pki_types::ServerName;
use toml::Spanned;
use toml::de::DeValue;

use super::SendHeader;
use super::decode::{Table, mistype};
use super::keys::{CHECK_KEYS, KINDS};
use super::problem::{Problem, Problems, shown};
use super::program::program;
use super::value::{Fault, LONGEST};
use crate::health::{
    Check, Exchange, Expect, Http, Kind, Mysql, Pattern, Postgres, Program, Redis, Role, Secret,
    StatusSet, Tls,
};
use crate::proxy_protocol::Version;

/// The check that the section describes; `sent` is the PROXY header that sessions send.
pub(super) fn check(table: &Table<'_>, sent: Option<SendHeader>, problems: &mut Problems) -> Check {
    let words: Vec<_> = KINDS.iter().map(|word| (*word, *word)).collect();
    let word = match table.get("kind") {
        None => Some(DEFAULT_KIND),
        Some(_) => table.choice("kind", &words, problems),
    };
    if let Some(word) = word {
        strangers(table, word, problems);
    }
    // Of a kind that is none, nothing more can be said.
    let word = word.unwrap_or(DEFAULT_KIND);
    let kind = kind(table, word, problems);
    let port = table.integer("port", &(1..=65_535), problems);
    let proxy = match table.get("proxy_protocol") {
        Some(_) => table.choice("proxy_protocol", HEADERS, problems).flatten(),
        // What sessions need there probes need, unless they go to another server, or start a program.
        None if port.is_none() && has_header(word) => sent.map(|sent| sent.version),
        None => None,
    };
    Check {
        kind,
        port: port.and_then(|port| u16::try_from(port).ok()),
        proxy,
        egress: None,
    }
}

/// Whether a PROXY header may go in front of a check of that kind.
fn has_header(kind: &str) -> bool {
    let mut keys = CHECK_KEYS.iter();
    keys.any(|(key, kinds)| *key == "proxy_protocol" && kinds.contains(&kind))
}

/// Keys that belong to another kind: whoever writes them means something that would not happen.
fn strangers(table: &Table<'_>, kind: &str, problems: &mut Problems) {
    for (key, kinds) in CHECK_KEYS {
        if let Some(span) = table.span_of(key)
            && !kinds.contains(&kind)
        {
            let its: Vec<_> = kinds.iter().map(|kind| format!("\"{kind}\"")).collect();
            let its = its.join(", ");
            problems.add(
                Problem::error(format!(
                    "`{key}` has no meaning for a check of kind \"{kind}\""
                ))
                .at(span)
                .label(format!("only for kind = {its}"))
                .help(match kinds {
                    [one] => format!("write kind = \"{one}\", or take `{key}` out"),
                    _ => format!("write one of kind = {its}, or take `{key}` out"),
                }),
            );
        }
    }
}

fn kind(table: &Table<'_>, kind: &str, problems: &mut Problems) -> Kind {
    match kind {
        "http" => Kind::Http(http(table, problems)),
        "redis" => Kind::Redis(redis(table, problems)),
        "postgres" => Kind::Postgres(postgres(table, problems)),
        "mysql" => Kind::Mysql(Mysql {
            user: word(table, "user", problems).unwrap_or_else(|| NOBODY.to_owned()),
        }),
        "tls" => Kind::Tls(Tls {
            server_name: table.parsed("server_name", problems, server_name),
            expires_within: table
                .duration("expires_within", &(Duration::ZERO..=LONGEST), problems)
                .unwrap_or(FORTNIGHT),
        }),
        "exec" => Kind::Exec(command(table, problems)),
        "agent" => Kind::Agent(Exchange {
            send: bytes(table, "send", problems).unwrap_or_default(),
            expect: None,
        }),
        _ => Kind::Tcp(Exchange {
            send: bytes(table, "send", problems).unwrap_or_default(),
            expect: expect(table, problems),
        }),
    }
}

fn http(table: &Table<'_>, problems: &mut Problems) -> Http {
    Http {
        method: table
            .parsed("method", problems, method)
            .unwrap_or_else(|| "GET".to_owned()),
        path: table
            .parsed("path", problems, path)
            .unwrap_or_else(|| "/".to_owned()),
        host: table.parsed("host", problems, |text| {
            printable("host", text, |byte| byte.is_ascii_graphic())
        }),
        status: table.parsed("status", problems, status).unwrap_or_default(),
        body: word(table, "body", problems).map(String::into_bytes),
    }
}

fn redis(table: &Table<'_>, problems: &mut Problems) -> Redis {
    let redis = Redis {
        user: word(table, "user", problems),
        password: word(table, "password", problems).map(Secret::new),
        role: table.choice("role", ROLES, problems),
    };
    if let (Some(_), None, Some(span)) = (&redis.user, &redis.password, table.span_of("user")) {
        problems.add(
            Problem::error("a `user` of redis needs a `password`")
                .at(span)
                .label("AUTH takes both")
                .help("write password = \"…\" beside it"),
        );
    }
    redis
}

fn postgres(table: &Table<'_>, problems: &mut Problems) -> Postgres {
    let postgres = Postgres {
        user: word(table, "user", problems),
        password: word(table, "password", problems).map(Secret::new),
        database: word(table, "database", problems),
        role: table.choice("role", ROLES, problems),
    };
    if table.lacks("user") {
        for key in ["password", "database", "role"] {
            if let Some(span) = table.span_of(key) {
                problems.add(
                    Problem::error(format!("`{key}` needs a `user`"))
                        .at(span)
                        .label("without one, the check does not log in")
                        .help("write user = \"…\" beside it"),
                );
            }
        }
    }
    postgres
}

fn command(table: &Table<'_>, problems: &mut Problems) -> Program {
    if table.lacks("command") {
        let mut problem = Problem::error("a check of kind \"exec\" needs a command").absent();
        problem.span = table.span_of("kind").or_else(|| table.span());
        problems.add(problem.help(format!("write {COMMAND}")));
    }
    // Of one that is none, the problem is told.
    program(table, "command", problems).unwrap_or_default()
}

/// A string that is not empty and has no NUL in it, which would end it early on the wire.
fn word(table: &Table<'_>, key: &'static str, problems: &mut Problems) -> Option<String> {
    table.parsed(key, problems, |text| match text {
        "" => Err(Fault::new(format!("`{key}` is empty"))),
        _ if text.contains('\0') => Err(Fault::new(format!("`{key}` contains a NUL"))),
        _ => Ok(text.to_owned()),
    })
}

/// `"text"` or `{ hex = "0d 0a" }`.
fn bytes(table: &Table<'_>, key: &'static str, problems: &mut Problems) -> Option<Vec<u8>> {
    let value = table.get(key)?;
    let expected = "a string or { hex = \"…\" }";
    let read = match (value.get_ref().as_str(), only_entry(value)) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (_, Some(("hex", text))) => hex(text),
        _ => {
            problems.add(mistype(key, value, expected));
            return None;
        }
    };
    accepted(key, value, read, problems)
}

/// `"text"`, `{ hex = "0d 0a" }` or `{ regex = "^220 " }`.
fn expect(table: &Table<'_>, problems: &mut Problems) -> Option<Expect> {
    let value = table.get("expect")?;
    match only_entry(value) {
        Some(("regex", text)) => Pattern::new(text)
            .map(Expect::Pattern)
            .map_err(|why| {
                let message = format!("`expect` is no regular expression: {why}");
                problems.add(Problem::error(message).at(value.span()));
            })
            .ok(),
        Some(("hex", _)) => bytes(table, "expect", problems).map(Expect::Bytes),
        _ if value.get_ref().is_str() => bytes(table, "expect", problems).map(Expect::Bytes),
        _ => {
            let expected = "a string, { hex = \"…\" } or { regex = \"…\" }";
            problems.add(mistype("expect", value, expected));
            None
        }
    }
}

fn accepted(
    key: &str,
    value: &Spanned<DeValue<'_>>,
    read: Result<Vec<u8>, Fault>,
    problems: &mut Problems,
) -> Option<Vec<u8>> {
    let read = read.and_then(|bytes| match bytes.len() {
        1..=MOST_BYTES => Ok(bytes),
        0 => Err(Fault::new(format!("`{key}` is empty"))
            .help(format!("take `{key}` out if nothing is meant"))),
        _ => Err(Fault::new(format!(
            "`{key}` is longer than {MOST_BYTES} bytes"
        ))),
    });
    read.map_err(|fault| problems.add(fault.at(value.span())))
        .ok()
}

/// The name and the text of an inline table with one string in it.
fn only_entry<'t>(value: &'t Spanned<DeValue<'t>>) -> Option<(&'t str, &'t str)> {
    let entries = value.get_ref().as_table()?;
    let mut entries = entries.iter();
    match (entries.next(), entries.next()) {
        (Some((name, value)), None) => Some((name.get_ref(), value.get_ref().as_str()?)),
        _ => None,
    }
}

/// Pairs of digits, with or without spaces between them.
fn hex(text: &str) -> Result<Vec<u8>, Fault> {
    let wrong = || {
        Fault::new(format!("\"{}\" is not hexadecimal", shown(text)))
            .allowed("allowed: pairs of hexadecimal digits, such as \"50 49 4e 47\"")
    };
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let (pairs, odd) = digits.as_chunks::<2>();
    if !odd.is_empty() {
        return Err(wrong());
    }
    let digit = |byte: u8| char::from(byte).to_digit(16);
    pairs
        .iter()
        .map(|&[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok())
        .collect::<Option<_>>()
        .ok_or_else(wrong)
}

fn method(text: &str) -> Result<String, Fault> {
    printable("method", text, |byte| byte.is_ascii_uppercase())
        .map_err(|fault| fault.allowed("allowed: upper-case letters, such as \"GET\" or \"HEAD\""))
}

fn path(text: &str) -> Result<String, Fault> {
    let path = printable("path", text, |byte| byte.is_ascii_graphic())?;
    match path.starts_with('/') || path == "*" {
        true => Ok(path),
        false => Err(Fault::new(format!("`path` is \"{}\"", shown(text)))
            .allowed("a path begins with \"/\"")),
    }
}

/// Only such bytes, and at least one: what goes into the head of a request must not break it.
fn printable(key: &str, text: &str, fits: impl Fn(u8) -> bool) -> Result<String, Fault> {
    match !text.is_empty() && text.len() <= MOST_BYTES && text.bytes().all(fits) {
        true => Ok(text.to_owned()),
        false => Err(Fault::new(format!("`{key}` is \"{}\"", shown(text)))
            .allowed("allowed: printable ASCII without spaces")),
    }
}

fn status(text: &str) -> Result<StatusSet, Fault> {
    StatusSet::parse(text).ok_or_else(|| {
        Fault::new(format!("`status` is \"{}\"", shown(text)))
            .allowed("allowed: statuses and ranges from 100 to 599, such as \"200-299, 301\"")
    })
}

fn server_name(text: &str) -> Result<String, Fault> {
    match ServerName::try_from(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(
            Fault::new(format!("\"{}\" is not a host name", shown(text)))
                .allowed("allowed: the name that clients ask for, such as \"www.example.org\""),
        ),
    }
}

/// A check whose role is given in any of the usual words.
const ROLES: &[(&str, Role)] = &[
    ("primary", Role::Primary),
    ("replica", Role::Replica),
    ("master", Role::Primary),
    ("standby", Role::Replica),
];
const HEADERS: &[(&str, Option<Version>)] = &[
    ("v1", Some(Version::V1)),
    ("v2", Some(Version::V2)),
    ("off", None),
];
const DEFAULT_KIND: &str = "tcp";
/// Who logs in to MySQL when nobody else is named.
const NOBODY: &str = "ballast";
const FORTNIGHT: Duration = Duration::from_secs(14 * 24 * 60 * 60);
const COMMAND: &str = "command = [\"/usr/local/bin/check\", \"…\"]";
/// The longest text to be sent, expected or asked for.
const MOST_BYTES: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, compile};
    use proptest::prelude::*;

    fn file(health: &str) -> String {
        format!(
            "[[service]]\nname = \"a\"\nlisten = \"[::]:80\"\n[service.health]\n{health}\n\
             [[service.backend]]\naddress = \"192.0.2.1:80\"\n"
        )
    }

    fn kind(health: &str) -> Kind {
        let Config { services, .. } = compile(&file(health), "f")
            .unwrap_or_else(|wrong| panic!("{wrong}"))
            .config;
        services[0].check.kind.clone()
    }

    fn faults(health: &str) -> String {
        let wrong = compile(&file(health), "f").expect_err(health);
        wrong.lines().join("\n")
    }

    #[test]
    fn bytes_are_text_or_hexadecimal_and_an_expectation_may_be_a_pattern() {
        let Kind::Tcp(exchange) = kind("send = \"PING\\r\\n\"\nexpect = { hex = \"2b 504f\" }")
        else {
            panic!("tcp");
        };
        assert_eq!(exchange.send, b"PING\r\n");
        assert_eq!(exchange.expect, Some(Expect::Bytes(b"+PO".to_vec())));
        let Kind::Tcp(exchange) = kind("expect = { regex = '^220 ' }") else {
            panic!("tcp");
        };
        let pattern = Pattern::new("^220 ").unwrap();
        assert_eq!(exchange.expect, Some(Expect::Pattern(pattern)));
    }

    #[test]
    fn what_would_not_happen_is_an_error() {
        for (health, told) in [
            (
                "path = \"/\"",
                "`path` has no meaning for a check of kind \"tcp\"",
            ),
            ("path = \"/\"", "write kind = \"http\", or take `path` out"),
            (
                "kind = \"redis\"\nexpect = \"x\"",
                "only for kind = \"tcp\"",
            ),
            ("kind = \"exec\"", "needs a command"),
            ("kind = \"exec\"\ncommand = []", "names no program"),
            ("kind = \"exec\"\ncommand = \"check\"", "no absolute path"),
            (
                "kind = \"exec\"\ncommand = \"/a\"\nproxy_protocol = \"v2\"",
                "has no meaning",
            ),
            (
                "kind = \"postgres\"\nrole = \"primary\"",
                "`role` needs a `user`",
            ),
            ("kind = \"redis\"\nuser = \"a\"", "needs a `password`"),
            (
                "kind = \"redis\"\nrole = \"boss\"",
                "allowed: \"primary\", \"replica\"",
            ),
            ("kind = \"htp\"", "did you mean \"http\"?"),
            ("send = { hex = \"0\" }", "is not hexadecimal"),
            ("send = { hex = \"zz\" }", "is not hexadecimal"),
            ("send = { regex = \"x\" }", "a string or { hex"),
            ("send = \"\"", "`send` is empty"),
            (
                "expect = { regex = \"(\" }",
                "no regular expression: unclosed group",
            ),
            (
                "kind = \"http\"\npath = \"ready\"",
                "a path begins with \"/\"",
            ),
            (
                "kind = \"http\"\npath = \"/a b\"",
                "printable ASCII without spaces",
            ),
            (
                "kind = \"http\"\nhost = \"a\\r\\nX: y\"",
                "printable ASCII without spaces",
            ),
            ("kind = \"http\"\nmethod = \"get\"", "upper-case letters"),
            (
                "kind = \"http\"\nstatus = \"2xx\"",
                "such as \"200-299, 301\"",
            ),
            (
                "kind = \"tls\"\nserver_name = \"a b\"",
                "is not a host name",
            ),
            (
                "kind = \"mysql\"\nuser = \"a\\u0000b\"",
                "`user` contains a NUL",
            ),
        ] {
            let faults = faults(health);
            assert!(faults.contains(told), "{health}:\n{faults}");
        }
    }

    #[test]
    fn a_fast_interval_that_is_none_is_warned_of() {
        let loaded = compile(&file("interval = \"1s\"\nfast_interval = \"2s\""), "f").unwrap();
        let warnings = loaded.warnings.lines().join("\n");
        assert!(warnings.contains("later, not sooner"), "{warnings}");
    }

    #[test]
    fn a_check_goes_elsewhere_only_to_an_address() {
        let text = file("") + "check_address = \"web.example.org:81\"\n";
        let wrong = compile(&text, "f").unwrap_err().lines().join("\n");
        assert!(
            wrong.contains("write port = 81 in [service.health]"),
            "{wrong}"
        );
    }

    proptest! {
        #[test]
        fn hexadecimal_reads_back(bytes: Vec<u8>) {
            let text: String = bytes.iter().map(|byte| format!("{byte:02X} ")).collect();
            prop_assert_eq!(hex(&text).unwrap(), bytes);
        }
    }
}
