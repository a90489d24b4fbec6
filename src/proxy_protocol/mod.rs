//! The PROXY protocol, versions 1 and 2: the few bytes in front of a connection by which a proxy says for
//! whom it made it. Bytes to [`Header`] and back; who may send one, and when, is decided elsewhere.
//!
//! Follows <https://www.haproxy.org/download/3.2/doc/proxy-protocol.txt>. [`decode`] takes whatever has
//! come so far and says how much more it needs, so that nothing behind a header is ever read with it.

mod v1;
mod v2;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;

use crate::model::UnixPath;

/// The longest header that is taken. The specification lets one of version 2 have 64 KiB, which nobody
/// sends: the longest in use carry a certificate.
pub const LONGEST: usize = 16 * 1024;

/// How a header is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// One line of text.
    V1,
    /// Binary.
    V2,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// For whom the connection was made.
    pub origin: Origin,
    /// What the proxy calls it. Only version 2 can say so, and only beside a client.
    pub unique_id: Option<UniqueId>,
}

/// For whom a proxy made a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// For itself, as for a health check, or for somebody that it cannot tell of: the ends of the
    /// connection are what they seem.
    Itself,
    /// For a client, of which both addresses are of one family.
    Client {
        /// From where it connected, …
        source: SocketAddr,
        /// … and where to.
        destination: SocketAddr,
    },
    /// For a client without an address, which connected to this path. Only ever sent: who sends it is
    /// taken to connect for itself.
    Path(UnixPath),
}

/// A name for a connection, 1 to 128 bytes; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueId(Arc<[u8]>);

/// What has come so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A header, and its length: what follows is not part of it.
    Whole(Header, usize),
    /// The beginning of one that has at least so many bytes.
    Partial(usize),
}

/// Bytes that are no header, and never will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Malformed {
    /// They begin like something else.
    #[error("no PROXY header")]
    Absent,
    /// Longer than any that is taken.
    #[error("PROXY header too long")]
    TooLong,
    /// A version, command, family or protocol that does not exist.
    #[error("unknown version, command or family in the PROXY header")]
    Unknown,
    /// A line that is not made as the specification wants it.
    #[error("bad line in the PROXY header")]
    Line,
    /// Lengths that contradict each other.
    #[error("bad length in the PROXY header")]
    Length,
    /// The checksum is not that of the bytes.
    #[error("bad checksum in the PROXY header")]
    Checksum,
}

impl Header {
    /// The header of a connection that nobody is behind.
    pub const LOCAL: Self = Self {
        origin: Origin::Itself,
        unique_id: None,
    };

    /// The header of a connection for the client at `source`, which connected to `destination`. Where
    /// one of them is IPv4 and the other is not, both are told as IPv6.
    pub fn client(source: SocketAddr, destination: SocketAddr) -> Self {
        let (source, destination) = (canonical(source), canonical(destination));
        let (source, destination) = match source.is_ipv4() == destination.is_ipv4() {
            true => (source, destination),
            false => (mapped(source), mapped(destination)),
        };
        Self {
            origin: Origin::Client {
                source,
                destination,
            },
            unique_id: None,
        }
    }

    /// The header of a connection for a client that came by the Unix socket at `path`.
    pub fn at_path(path: UnixPath) -> Self {
        Self {
            origin: Origin::Path(path),
            unique_id: None,
        }
    }

    /// The header with a name for the connection.
    pub fn named(self, unique_id: Option<UniqueId>) -> Self {
        Self { unique_id, ..self }
    }

    /// As it is sent. Version 1 leaves the name out.
    pub fn encode(&self, version: Version) -> Vec<u8> {
        match version {
            Version::V1 => v1::encode(self),
            Version::V2 => v2::encode(self),
        }
    }
}

/// Reads the header that `bytes` begin with.
///
/// # Errors
/// As soon as it is certain that they begin with none.
pub fn decode(bytes: &[u8]) -> Result<Progress, Malformed> {
    if bytes.is_empty() {
        Ok(Progress::Partial(v1::SHORTEST))
    } else if begins(bytes, v2::SIGNATURE) {
        v2::decode(bytes)
    } else if begins(bytes, v1::SIGNATURE) {
        v1::decode(bytes)
    } else {
        Err(Malformed::Absent)
    }
}

/// Whether `bytes` begin with `signature`, or may once there are more of them.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(one, two)| one == two)
}

impl UniqueId {
    /// The longest that the specification allows.
    pub const LONGEST: usize = 128;

    /// These bytes as a name, if they can be one.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (1..=Self::LONGEST)
            .contains(&bytes.len())
            .then(|| Self(bytes.into()))
    }

    /// A name out of 128 random bits, as text that logs and other programs can carry.
    pub fn of_chance(bits: u128) -> Self {
        Self(format!("{bits:032x}").as_bytes().into())
    }

    /// As it is sent.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// As text, whatever the bytes are.
impl fmt::Display for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_ascii().fmt(f)
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), address.port())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn addresses() -> impl Strategy<Value = Origin> {
        let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(one, two)| (one.into(), two.into()));
        let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(one, two)| (one.into(), two.into()));
        let ips = prop_oneof![v4, v6];
        let client =
            (ips, any::<(u16, u16)>()).prop_map(|((one, two), ports): ((IpAddr, _), _)| {
                Origin::Client {
                    source: SocketAddr::new(one, ports.0),
                    destination: SocketAddr::new(two, ports.1),
                }
            });
        prop_oneof![1 => Just(Origin::Itself), 9 => client]
    }

    fn headers() -> impl Strategy<Value = (Header, Version)> {
        let id = prop::option::of(prop::collection::vec(any::<u8>(), 1..=UniqueId::LONGEST));
        let version = prop_oneof![Just(Version::V1), Just(Version::V2)];
        (addresses(), id, version).prop_map(|(origin, id, version)| {
            let may_have_id = origin != Origin::Itself && version == Version::V2;
            let id = id.filter(|_| may_have_id);
            let unique_id = id.and_then(|id| UniqueId::new(&id));
            (Header { origin, unique_id }, version)
        })
    }

    /// Headers of all kinds.
    fn examples() -> Vec<Vec<u8>> {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap();
        let pairs = [
            ("192.0.2.1:4711", "198.51.100.2:443"),
            ("[2001:db8::1]:4711", "[2001:db8::2]:443"),
        ];
        pairs
            .iter()
            .map(|(from, to)| Header::client(address(from), address(to)))
            .flat_map(|it| [it.clone().named(Some(UniqueId::of_chance(7))), it])
            .flat_map(|it| [it.encode(Version::V1), it.encode(Version::V2)])
            .collect()
    }

    #[test]
    fn hunted() {
        let hunt = crate::fuzzing::Hunt {
            target: "proxy",
            cases: 5000,
            seeds: examples(),
            words: &[
                v1::SIGNATURE,
                v2::SIGNATURE,
                b"PROXY UNKNOWN\r\n",
                b"TCP4 ",
                b"TCP6 ",
                b"255.255.255.255 ",
                b"::ffff:1.2.3.4 ",
                b"65535",
                b"\r\n",
                b"\x20\x00\x00\x00",
                b"\x21\x11\x00\x0c",
                b"\x21\x21\x00\x24",
                b"\x21\x31\x00\xd8",
                b"\x03\x00\x04",
                b"\x05\x00\x08",
                b"\x20\x00\x05",
                b"\xff\xff",
            ],
        };
        hunt.run(|bytes| {
            // However it comes in: as much at a time as is asked for says what all of it says.
            let all = decode(bytes);
            let mut length = 0;
            let piecemeal = loop {
                match decode(&bytes[..length]) {
                    Ok(Progress::Partial(needed)) => {
                        assert!(length < needed && needed <= LONGEST, "{needed} at {length}");
                        if length == bytes.len() {
                            break Ok(Progress::Partial(needed));
                        }
                        length = needed.min(bytes.len());
                    }
                    said => break said,
                }
            };
            assert_eq!(piecemeal.is_err(), all.is_err(), "{piecemeal:?}, {all:?}");
            match all {
                Ok(Progress::Whole(header, length)) => {
                    assert!(length <= bytes.len());
                    let again = header.encode(Version::V2);
                    let back = Progress::Whole(header.clone(), again.len());
                    assert_eq!(decode(&again), Ok(back));
                    assert_eq!(piecemeal, Ok(Progress::Whole(header.clone(), length)));
                    format!("{:?}", header.origin).replace(|it: char| it.is_ascii_hexdigit(), "")
                }
                Ok(Progress::Partial(_)) => "partial".to_owned(),
                Err(malformed) => malformed.to_string(),
            }
        });
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_and_what_follows_is_left_alone(
            (header, version) in headers(),
            rest in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut bytes = header.encode(version);
            let length = bytes.len();
            bytes.extend(rest);
            prop_assert_eq!(decode(&bytes), Ok(Progress::Whole(header, length)));
        }

        #[test]
        fn every_beginning_of_a_header_asks_for_more_and_never_for_too_much(
            (header, version) in headers(),
        ) {
            let bytes = header.encode(version);
            for length in 0..bytes.len() {
                let progress = decode(&bytes[..length]);
                let Ok(Progress::Partial(needed)) = progress else {
                    return Err(TestCaseError::fail(format!("{progress:?} at {length}")));
                };
                prop_assert!(length < needed && needed <= bytes.len());
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_read_beyond_them(
            lead in prop::sample::select(vec![
                &b""[..], v1::SIGNATURE, v2::SIGNATURE, b"PROXY TCP4 1.2.3.4 ",
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x20", b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x30",
            ]),
            rest in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let bytes = [lead, &rest].concat();
            match decode(&bytes) {
                Ok(Progress::Whole(_, length)) => prop_assert!(length <= bytes.len()),
                Ok(Progress::Partial(needed)) => {
                    prop_assert!(bytes.len() < needed && needed <= LONGEST);
                }
                Err(_) => {}
            }
        }

        #[test]
        fn a_changed_byte_never_makes_it_panic(
            (header, version) in headers(), at in any::<prop::sample::Index>(), to in any::<u8>(),
        ) {
            let mut bytes = header.encode(version);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn other_protocols_are_told_by_their_first_byte_that_differs() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x03\x01",
            b"\r\nx",
            b"PROXX",
            b"P ",
        ] {
            assert_eq!(decode(bytes), Err(Malformed::Absent), "{bytes:?}");
        }
        for bytes in [&b""[..], b"P", b"PROXY", b"\r", b"\r\n\r\n\0\r\nQUIT"] {
            assert!(
                matches!(decode(bytes), Ok(Progress::Partial(_))),
                "{bytes:?}"
            );
        }
    }

    #[test]
    fn addresses_of_two_families_are_told_as_ipv6() {
        let header = Header::client(
            "192.0.2.1:1".parse().unwrap(),
            "[2001:db8::1]:2".parse().unwrap(),
        );
        let line = header.encode(Version::V1);
        assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
        let mapped = "[::ffff:192.0.2.1]:1".parse().unwrap();
        let header = Header::client(mapped, "192.0.2.2:2".parse().unwrap());
        let line = header.encode(Version::V1);
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n");
    }

    #[test]
    fn a_name_is_text_wherever_it_is_told() {
        assert_eq!(UniqueId::of_chance(0xabc).bytes().len(), 32);
        assert_eq!(UniqueId::new(b"a\n\xff").unwrap().to_string(), "a\\n\\xff");
        assert_eq!(UniqueId::new(b""), None);
        assert_eq!(UniqueId::new(&[0; 129]), None);
    }
}
