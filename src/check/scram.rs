//! The client's part of SCRAM-SHA-256, RFC 5802 and RFC 7677, for whoever logs in again and again: what a password
//! comes to takes thousands of rounds of hashing, on the thread that every check shares, so that is remembered.
//! PostgreSQL takes the user from its start-up message and has no names in here.

use std::cell::RefCell;
use std::collections::VecDeque;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// No channel binding, and nobody in whose name.
const HEADER: &str = "n,,";
/// The same, encoded.
const BINDING: &str = "biws";

/// More rounds than this are a server's way to keep us busy; PostgreSQL's default is 4,096.
const MOST_ROUNDS: u32 = 100_000;

/// Of these many servers and passwords what they come to is remembered.
const MOST_KNOWN: usize = 256;

/// A salt that is longer is none.
const MOST_SALT: usize = 1024;

const NONCE: usize = 18;

type Hash = [u8; 32];

/// One log-in.
pub(super) struct Scram<'a> {
    password: &'a str,
    nonce: String,
    /// What the server says at the end, if it knows the password too.
    awaited: Option<Hash>,
}

impl<'a> Scram<'a> {
    /// By this password; `None` where the kernel gives no random bytes.
    pub(super) fn new(password: &'a str) -> Option<Self> {
        let mut nonce = [0; NONCE];
        let filled = getrandom(&mut nonce, GetRandomFlags::empty()).ok()?;
        (filled == NONCE).then(|| Self::with(password, STANDARD.encode(nonce)))
    }

    fn with(password: &'a str, nonce: String) -> Self {
        Self {
            password,
            nonce,
            awaited: None,
        }
    }

    /// What is said first.
    pub(super) fn first(&self) -> String {
        format!("{HEADER}n=,r={}", self.nonce)
    }

    /// What is said to the server's challenge; `None` when it is none.
    pub(super) fn answer(&mut self, challenge: &[u8]) -> Option<String> {
        let challenge = str::from_utf8(challenge).ok()?;
        let mut parts = challenge.split(',');
        let nonce = parts.next()?.strip_prefix("r=")?;
        let salt = parts.next()?.strip_prefix("s=")?;
        let rounds = parts.next()?.strip_prefix("i=")?.parse().ok()?;
        let salt = STANDARD.decode(salt).ok()?;
        let fits = nonce.starts_with(&self.nonce)
            && salt.len() <= MOST_SALT
            && (1..=MOST_ROUNDS).contains(&rounds);
        if !fits {
            return None;
        }
        let keys = keys(self.password, salt, rounds);
        let answer = format!("c={BINDING},r={nonce}");
        let all = format!("n=,r={},{challenge},{answer}", self.nonce);
        let mut proof = sign(&Sha256::digest(keys.client).into(), all.as_bytes());
        for (byte, key) in proof.iter_mut().zip(keys.client) {
            *byte ^= key;
        }
        self.awaited = Some(sign(&keys.server, all.as_bytes()));
        Some(format!("{answer},p={}", STANDARD.encode(proof)))
    }

    /// Whether the server's last words show that it knows the password itself.
    pub(super) fn is_proven_by(&self, last: &[u8]) -> bool {
        let proof = last.strip_prefix(b"v=").map(|it| STANDARD.decode(it));
        match (proof, &self.awaited) {
            (Some(Ok(proof)), Some(awaited)) => proof.ct_eq(awaited).into(),
            (Some(_) | None, _) => false,
        }
    }
}

/// What a password comes to with a salt. Who has these may log in there, as who has the password, which is in
/// the configuration, may.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Keys {
    client: Hash,
    server: Hash,
}

/// A server's question, and what it comes to.
struct Known {
    /// The password is known by its hash.
    password: Hash,
    salt: Vec<u8>,
    rounds: u32,
    keys: Keys,
}

thread_local! {
    /// The latest question last.
    static KNOWN: RefCell<VecDeque<Known>> = const { RefCell::new(VecDeque::new()) };
}

fn keys(password: &str, salt: Vec<u8>, rounds: u32) -> Keys {
    let hash: Hash = Sha256::digest(password).into();
    KNOWN.with_borrow_mut(|known| {
        let is_it = |it: &Known| {
            it.rounds == rounds && it.salt == salt && bool::from(it.password.ct_eq(&hash))
        };
        let at = known.iter().position(is_it);
        let it = at.and_then(|at| known.remove(at)).unwrap_or_else(|| Known {
            password: hash,
            keys: derive(password, &salt, rounds),
            salt,
            rounds,
        });
        let keys = it.keys;
        if known.len() == MOST_KNOWN {
            known.pop_front();
        }
        known.push_back(it);
        keys
    })
}

/// PBKDF2 with one block, and the two keys of it.
fn derive(password: &str, salt: &[u8], rounds: u32) -> Keys {
    // PostgreSQL takes a password that is no text by these rules as it is.
    let prepared = stringprep::saslprep(password);
    let prepared = prepared.as_deref().unwrap_or(password);
    let key = keyed(prepared.as_bytes());
    let next = |words: &[&[u8]]| -> Hash {
        let mut mac = key.clone();
        words.iter().for_each(|it| mac.update(it));
        mac.finalize().into_bytes().into()
    };
    let mut last = next(&[salt, &1u32.to_be_bytes()]);
    let mut salted = last;
    for _ in 1..rounds {
        last = next(&[&last]);
        for (byte, other) in salted.iter_mut().zip(last) {
            *byte ^= other;
        }
    }
    Keys {
        client: sign(&salted, b"Client Key"),
        server: sign(&salted, b"Server Key"),
    }
}

fn sign(key: &Hash, words: &[u8]) -> Hash {
    let mut mac = keyed(key);
    mac.update(words);
    mac.finalize().into_bytes().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("a key of HMAC has any length")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recorded between psql and a server.
    const OURS: &str = "9IZ2O01zb9IgiIZ1WJ/zgpJB";
    const CHALLENGE: &[u8] =
        b"r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx/oIRLs02gGSHcw1KEty3eY,s=fs3IXBy7U7+IvVjZ,i=4096";
    const ANSWER: &str = "c=biws,r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx/oIRLs02gGSHcw1KEty3eY,\
                          p=AmNKosjJzS31NTlQYNs5BTeQjdHdk7lOflDo5re2an8=";
    const LAST: &[u8] = b"v=U+ppxD5XUKtradnv8e2MkeupiA8FU87Sg8CXzXHDAzw=";

    fn known() -> usize {
        KNOWN.with_borrow(VecDeque::len)
    }

    #[test]
    fn a_recorded_log_in_is_repeated_word_for_word_and_the_second_time_from_memory() {
        for _ in 0..2 {
            let mut scram = Scram::with("foobar", OURS.to_owned());
            assert_eq!(scram.first(), format!("n,,n=,r={OURS}"));
            assert!(!scram.is_proven_by(LAST));
            assert_eq!(scram.answer(CHALLENGE).unwrap(), ANSWER);
            assert!(scram.is_proven_by(LAST));
            assert!(!scram.is_proven_by(b"v=AAAA"));
            assert!(!scram.is_proven_by(b"e=invalid-proof"));
            assert_eq!(known(), 1);
        }
        let mut other = Scram::with("fooba", OURS.to_owned());
        assert_ne!(other.answer(CHALLENGE).unwrap(), ANSWER);
        assert_eq!(known(), 2);
        let nonces: Vec<_> = (0..2).map(|_| Scram::new("").unwrap().nonce).collect();
        assert_ne!(nonces[0], nonces[1]);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_in_use_stays() {
        let first = keys("word", vec![0], 1);
        for salt in 0..2 * MOST_KNOWN {
            keys("word", salt.to_be_bytes().to_vec(), 1);
            assert!(keys("word", vec![0], 1) == first);
        }
        assert_eq!(known(), MOST_KNOWN);
        KNOWN.with_borrow_mut(|known| {
            let newest = known.back_mut().unwrap();
            assert_eq!(newest.salt, [0]);
            newest.keys.client = [7; 32];
        });
        // Not worked out again.
        assert_eq!(keys("word", vec![0], 1).client, [7; 32]);
    }

    #[test]
    fn a_challenge_of_somebody_else_or_one_that_keeps_us_busy_is_not_answered() {
        for challenge in [
            "r=other,s=fs3IXBy7U7+IvVjZ,i=4096",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx,s=fs3IXBy7U7+IvVjZ,i=100001",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx,s=fs3IXBy7U7+IvVjZ,i=0",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx,s=?,i=1",
            "r=9IZ2O01zb9IgiIZ1WJ/zgpJBjx",
            "",
        ] {
            let mut scram = Scram::with("foobar", OURS.to_owned());
            assert_eq!(scram.answer(challenge.as_bytes()), None, "{challenge}");
        }
    }
}
