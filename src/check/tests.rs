//! What no server should say, said to every dialogue. The first byte of an input is whom it is said to.

use super::agent::Asking;
use super::certificate;
use super::dialogue::testing::rehearse_in;
use super::dialogue::{Answer, Dialogue};
use super::exchange::Speaking;
use super::http::Requesting;
use super::mysql::LoggingIn;
use super::postgres::StartingUp;
use super::redis::Pinging;
use crate::fuzzing::Hunt;
use crate::health::{
    Exchange, Expect, Http, Mysql, Pattern, Postgres, Redis, Role, Secret, StatusSet, Verdict,
};

const KINDS: u8 = 11;

/// Says `words` to the dialogue of that number, so many bytes at a time.
fn say(kind: u8, words: &[u8], at_once: usize) -> Answer {
    let http = |body: Option<&str>| Http {
        method: "GET".to_owned(),
        path: "/".to_owned(),
        host: None,
        status: StatusSet::parse("200-399").unwrap(),
        body: body.map(Into::into),
    };
    let postgres = |role, password: Option<&str>| Postgres {
        user: Some("ballast".to_owned()),
        password: password.map(Secret::new),
        database: None,
        role,
    };
    let redis = |role, password: Option<&str>| Redis {
        user: None,
        password: password.map(Secret::new),
        role,
    };
    let exchange = |expect| Exchange {
        send: b"hello".to_vec(),
        expect: Some(expect),
    };
    let address = "192.0.2.1:80".parse().unwrap();
    let to = |dialogue: &mut dyn Dialogue| rehearse_in(dialogue, words, at_once).1;
    match kind % KINDS {
        0 => to(&mut Asking::new(b"")),
        1 => to(&mut Requesting::new(&http(None), address)),
        2 => to(&mut Requesting::new(&http(Some("ready")), address)),
        3 => to(&mut Pinging::new(&redis(None, None))),
        4 => to(&mut Pinging::new(&redis(Some(Role::Primary), Some("word")))),
        5 => to(&mut StartingUp::new(&Postgres::default())),
        6 => to(&mut StartingUp::new(&postgres(None, Some("word")))),
        7 => to(&mut StartingUp::new(&postgres(Some(Role::Primary), None))),
        8 => to(&mut LoggingIn::new(&Mysql {
            user: "ballast".to_owned(),
        })),
        9 => to(&mut Speaking::new(&exchange(Expect::Bytes(
            b"PONG".to_vec(),
        )))),
        _ => {
            let pattern = Pattern::new("^2[0-9]{2} .*ok").unwrap();
            to(&mut Speaking::new(&exchange(Expect::Pattern(pattern))))
        }
    }
}

/// A message of PostgreSQL.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[kind], length.as_slice(), body].concat()
}

/// What servers say who are well, or ill in their own words.
fn examples() -> Vec<Vec<u8>> {
    let ready = [message(b'R', &[0; 4]), message(b'Z', b"I")].concat();
    let primary = [
        ready.clone(),
        message(b'D', b"\0\x01\0\0\0\x01f"),
        message(b'C', b"SELECT 1\0"),
        message(b'Z', b"I"),
    ];
    let scram = message(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0");
    let challenge = message(b'R', b"\0\0\0\x0br=abc,s=QSXCR+Q6sek8bf92,i=4096");
    let greeting = b"\x5b\0\0\0\x0a8.0.36\0\x01\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0abcdefghijkl\0mysql_native_password\0";
    [
        (0, b"up 75% drain # a word\r\n".to_vec()),
        (
            1,
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec(),
        ),
        (
            2,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nready\r\n0\r\n\r\n"
                .to_vec(),
        ),
        (2, b"HTTP/1.0 200 OK\r\n\r\nit is ready".to_vec()),
        (3, b"+PONG\r\n".to_vec()),
        (
            4,
            b"+OK\r\n+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n".to_vec(),
        ),
        (5, b"N".to_vec()),
        (6, [scram, challenge].concat()),
        (6, [message(b'R', b"\0\0\0\x05salt"), ready].concat()),
        (7, primary.concat()),
        (7, message(b'E', b"SFATAL\0C57P03\0Mstarting up\0\0")),
        (
            8,
            [greeting.as_slice(), b"\x07\0\0\x02\0\0\0\x02\0\0\0"].concat(),
        ),
        (8, b"\x17\0\0\x00\xff\x15\x04Host is not allowed".to_vec()),
        (9, b"+PONG\r\n".to_vec()),
        (10, b"220 all ok".to_vec()),
    ]
    .map(|(kind, words)| [&[kind], words.as_slice()].concat())
    .into()
}

#[test]
fn hunted() {
    let hunt = Hunt {
        target: "replies",
        cases: 1500,
        seeds: examples(),
        words: &[
            b"HTTP/1.1 200 OK\r\n",
            b"Content-Length: 18446744073709551615\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\n\r\n",
            b"+PONG\r\n",
            b"+OK\r\n",
            b"-NOAUTH \r\n",
            b"-LOADING \r\n",
            b"*3\r\n",
            b"$6\r\nmaster\r\n",
            b"$-1\r\n",
            b"$9223372036854775807\r\n",
            b"R\0\0\0\x08\0\0\0\0",
            b"R\0\0\0\x08\0\0\0\x03",
            b"R\0\0\0\x0c\0\0\0\x05salt",
            b"Z\0\0\0\x05I",
            b"E\0\0\0\x04",
            b"\xff\xff\xff\xff",
            b"\x80\0\0\0",
            b"\0\0\0",
            b"\xfe",
            b"r=,s=,i=",
            b"i=4294967295",
            b"up",
            b"75%",
            b"maint",
        ],
    };
    hunt.run(|bytes| {
        let Some((&kind, words)) = bytes.split_first() else {
            return "nothing".to_owned();
        };
        // More than the conversation would take in without an end.
        let words = &words[..words.len().min(4096)];
        let answer = say(kind, words, usize::MAX);
        let slowly = say(kind, words, 1);
        let alive = |answer: &Answer| answer.verdict == Verdict::Alive;
        assert_eq!(alive(&answer), alive(&slowly), "{answer:?}, {slowly:?}");
        assert_eq!(answer.agent, slowly.agent, "{answer:?}, {slowly:?}");
        match answer.verdict {
            Verdict::Alive => format!("{} alive {:?}", (b'a' + kind % KINDS) as char, answer.agent),
            Verdict::Dead(why) => {
                // Without what the server said, which may have quotation marks of its own.
                let why = why.to_string();
                let (why, rest) = why.split_once('"').unwrap_or((&why, ""));
                let more = rest.rsplit_once('"').map_or("", |(_, more)| more);
                format!("{} {why}{more}", (b'a' + kind % KINDS) as char)
            }
        }
    });
}

#[test]
fn certificates_hunted() {
    let good = b"\x30\x2e\x30\x2c\xa0\x03\x02\x01\x02\x02\x01\x01\x30\x00\x30\x00\x30\x1e\
        \x17\x0d250101000000Z\x17\x0d261231235959Z";
    let hunt = Hunt {
        target: "certificates",
        cases: 2000,
        seeds: vec![good.to_vec()],
        words: &[
            b"\x30\x84\xff\xff\xff\xff",
            b"\x30\x80",
            b"\x18\x0f99991231235959Z",
            b"\x17\x0d",
            b"\xa0\x03",
            b"\x02\x01",
            b"0230",
        ],
    };
    hunt.run(|bytes| match certificate::expiry(bytes) {
        Some(_) => "a time".to_owned(),
        None => "none".to_owned(),
    });
}
