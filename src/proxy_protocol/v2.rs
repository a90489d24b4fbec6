//! Version 2: binary, with additions of any kind behind the addresses (section 2.2 of the specification).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc, Table};

use super::{Header, LONGEST, Malformed, Origin, Progress, UniqueId};

/// What each begins with.
pub(super) const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, version and command, family and protocol, and the length of what follows.
const FIXED: usize = 16;

const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
const UNSPECIFIED: u8 = 0x00;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;
const STREAM_OF_UNIX: u8 = 0x31;
/// Bytes of a path, with a NUL behind it.
const PATH: usize = 108;
/// Families and protocols up to these exist: UNIX and datagrams.
const LAST_FAMILY: u8 = 3;
const LAST_PROTOCOL: u8 = 2;

/// Additions begin with their kind and a length of two bytes.
const LEAD: usize = 3;
const CHECKSUM: u8 = 0x03;
const UNIQUE_ID: u8 = 0x05;

/// CRC32c, RFC 4960, appendix B.
const CRC: Crc<u32, Table<1>> = Crc::<u32, Table<1>>::new(&CRC_32_ISCSI);

pub(super) fn encode(header: &Header) -> Vec<u8> {
    let mut body = Vec::new();
    let (command, family) = match header.origin {
        Origin::Itself => (LOCAL, UNSPECIFIED),
        Origin::Client {
            source,
            destination,
        } => {
            let family = match (source.ip(), destination.ip()) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => {
                    body.extend(source.octets());
                    body.extend(destination.octets());
                    TCP_OVER_IPV4
                }
                (source, destination) => {
                    body.extend(wide(source).octets());
                    body.extend(wide(destination).octets());
                    TCP_OVER_IPV6
                }
            };
            body.extend(source.port().to_be_bytes());
            body.extend(destination.port().to_be_bytes());
            (PROXY, family)
        }
        Origin::Path(path) => {
            // The client's own socket has no path.
            body.resize(2 * PATH, 0);
            let bytes = path.as_bytes();
            body[PATH..][..bytes.len()].copy_from_slice(bytes);
            (PROXY, STREAM_OF_UNIX)
        }
    };
    if let (PROXY, Some(id)) = (command, &header.unique_id) {
        body.push(UNIQUE_ID);
        body.extend((id.bytes().len() as u16).to_be_bytes());
        body.extend(id.bytes());
    }
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([command, family]);
    bytes.extend((body.len() as u16).to_be_bytes());
    bytes.extend(body);
    bytes
}

fn wide(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Progress, Malformed> {
    // Whoever speaks another version may mean another length, too.
    let command = bytes.get(SIGNATURE.len()).copied();
    if command.is_some_and(|command| command != LOCAL && command != PROXY) {
        return Err(Malformed::Unknown);
    }
    let Some(fixed) = bytes.first_chunk::<FIXED>() else {
        return Ok(Progress::Partial(FIXED));
    };
    let [.., command, family, high, low] = *fixed;
    if family >> 4 > LAST_FAMILY || family & 0xf > LAST_PROTOCOL {
        return Err(Malformed::Unknown);
    }
    let length = FIXED + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST {
        return Err(Malformed::TooLong);
    }
    let Some(header) = bytes.get(..length) else {
        return Ok(Progress::Partial(length));
    };
    let body = &header[FIXED..];
    let (origin, additions) = match (command, family) {
        (PROXY, TCP_OVER_IPV4) => client::<4, Ipv4Addr>(body)?,
        (PROXY, TCP_OVER_IPV6) => client::<16, Ipv6Addr>(body)?,
        // For itself, or for somebody who did not come by TCP: what is said of them is passed over.
        _ => (Origin::Itself, &[][..]),
    };
    let unique_id = walk(header, additions)?;
    Ok(Progress::Whole(Header { origin, unique_id }, length))
}

/// Two addresses and two ports, and what is behind them.
fn client<const N: usize, T: From<[u8; N]> + Into<IpAddr>>(
    body: &[u8],
) -> Result<(Origin, &[u8]), Malformed> {
    let parts = || {
        let (source, rest) = body.split_first_chunk::<N>()?;
        let (destination, rest) = rest.split_first_chunk::<N>()?;
        let (from, rest) = rest.split_first_chunk::<2>()?;
        let (to, rest) = rest.split_first_chunk::<2>()?;
        let address = |ip: &[u8; N], port: &[u8; 2]| {
            SocketAddr::new(T::from(*ip).into(), u16::from_be_bytes(*port))
        };
        let origin = Origin::Client {
            source: address(source, from),
            destination: address(destination, to),
        };
        Some((origin, rest))
    };
    parts().ok_or(Malformed::Length)
}

/// Looks at each of the `additions`, with which `header` ends, and finds the name of the connection.
fn walk(header: &[u8], mut additions: &[u8]) -> Result<Option<UniqueId>, Malformed> {
    let mut name = None;
    while !additions.is_empty() {
        let (&[kind, high, low], rest) = additions
            .split_first_chunk::<LEAD>()
            .ok_or(Malformed::Length)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, rest) = rest.split_at_checked(length).ok_or(Malformed::Length)?;
        match kind {
            CHECKSUM => {
                let at = header.len() - rest.len() - length;
                check(header, at, value)?;
            }
            UNIQUE_ID => name = Some(UniqueId::new(value).ok_or(Malformed::Length)?),
            _ => {}
        }
        additions = rest;
    }
    Ok(name)
}

/// The checksum, at `at`, is that of the whole header with zeros in its place.
fn check(header: &[u8], at: usize, sum: &[u8]) -> Result<(), Malformed> {
    let sum: [u8; 4] = sum.try_into().map_err(|_| Malformed::Length)?;
    let mut digest = CRC.digest();
    digest.update(&header[..at]);
    digest.update(&[0; 4]);
    digest.update(&header[at + 4..]);
    match digest.finalize() == u32::from_be_bytes(sum) {
        true => Ok(()),
        false => Err(Malformed::Checksum),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A header with this command, family and body.
    fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, body].concat()
    }

    fn addition(kind: u8, value: &[u8]) -> Vec<u8> {
        let length = (value.len() as u16).to_be_bytes();
        [&[kind][..], &length, value].concat()
    }

    /// From 1.2.3.4 to 5.6.7.8.
    const ADDRESSES: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];

    fn with(additions: &[u8]) -> Vec<u8> {
        header(PROXY, TCP_OVER_IPV4, &[ADDRESSES, additions].concat())
    }

    fn read(bytes: &[u8]) -> Result<Header, Malformed> {
        match decode(bytes)? {
            Progress::Whole(header, length) => {
                assert_eq!(length, bytes.len());
                Ok(header)
            }
            Progress::Partial(needed) => panic!("{needed} of {}", bytes.len()),
        }
    }

    /// `bytes` with a right checksum at its end.
    fn summed(additions: &[u8]) -> Vec<u8> {
        let mut bytes = with(&[additions, &addition(CHECKSUM, &[0; 4])].concat());
        let sum = CRC.checksum(&bytes).to_be_bytes();
        let at = bytes.len() - sum.len();
        bytes[at..].copy_from_slice(&sum);
        bytes
    }

    #[test]
    fn addresses_and_additions_are_read() {
        let expected = Header::client(
            "1.2.3.4:80".parse().unwrap(),
            "5.6.7.8:443".parse().unwrap(),
        );
        assert_eq!(read(&with(&[])), Ok(expected.clone()));
        // ALPN, a few bytes of nothing, a kind that nobody knows, and a name.
        let additions = [
            addition(0x01, b"h2"),
            addition(0x04, &[0; 9]),
            addition(0xee, b""),
            addition(UNIQUE_ID, b"id-1"),
        ];
        let named = expected.named(UniqueId::new(b"id-1"));
        assert_eq!(read(&with(&additions.concat())), Ok(named));
    }

    #[test]
    fn a_connection_for_nobody_or_not_by_tcp_is_taken_as_it_is() {
        for bytes in [
            header(LOCAL, 0, b""),
            header(LOCAL, TCP_OVER_IPV4, &[0xff; 50]),
            header(PROXY, 0, b""),
            header(PROXY, 0, &[1, 2, 3]),
            header(PROXY, 0x12, ADDRESSES),
            header(PROXY, 0x31, &[0; 216]),
        ] {
            assert_eq!(read(&bytes), Ok(Header::LOCAL), "{bytes:?}");
        }
    }

    #[test]
    fn what_does_not_exist_is_refused() {
        for (command, family) in [
            (0x11, 0x11),
            (0x22, 0x11),
            (0x30, 0),
            (PROXY, 0x41),
            (PROXY, 0x13),
        ] {
            let bytes = header(command, family, ADDRESSES);
            assert_eq!(decode(&bytes), Err(Malformed::Unknown), "{bytes:?}");
        }
    }

    #[test]
    fn lengths_must_agree() {
        for bytes in [
            header(PROXY, TCP_OVER_IPV4, &ADDRESSES[1..]),
            header(PROXY, TCP_OVER_IPV6, ADDRESSES),
            with(&[0x04]),
            with(&[0x04, 0, 2, 0]),
            with(&addition(CHECKSUM, &[0; 3])),
            with(&addition(UNIQUE_ID, b"")),
            with(&addition(UNIQUE_ID, &[0; 129])),
        ] {
            assert_eq!(decode(&bytes), Err(Malformed::Length), "{bytes:?}");
        }
        let long = header(PROXY, TCP_OVER_IPV4, &[0; LONGEST]);
        assert_eq!(decode(&long[..FIXED]), Err(Malformed::TooLong));
    }

    #[test]
    fn the_checksum_is_that_of_rfc_4960() {
        assert_eq!(CRC.checksum(b"123456789"), 0xe306_9283);
        assert!(read(&summed(&[])).is_ok());
    }

    proptest! {
        #[test]
        fn a_byte_that_was_changed_is_noticed_where_there_is_a_checksum(
            name in prop::collection::vec(any::<u8>(), 1..40), at in 0_usize..60, by in 1_u8..,
        ) {
            let mut bytes = summed(&addition(UNIQUE_ID, &name));
            prop_assert!(read(&bytes).is_ok());
            // Neither what a header is told by nor its lengths, and not the kind of the checksum.
            let at = FIXED + at % ADDRESSES.len();
            bytes[at] ^= by;
            prop_assert_eq!(decode(&bytes), Err(Malformed::Checksum));
        }
    }
}
