//! Version 1: one line of text (section 2.1 of the specification).

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::{Header, Malformed, Origin, Progress};

/// What each begins with.
pub(super) const SIGNATURE: &[u8] = b"PROXY ";
/// `PROXY UNKNOWN`, and the end of the line.
pub(super) const SHORTEST: usize = 15;
/// The worst case that the specification counts, the end of the line included.
const LONGEST: usize = 107;

pub(super) fn encode(header: &Header) -> Vec<u8> {
    match header.origin {
        // It has no word for a path.
        Origin::Itself | Origin::Path(_) => b"PROXY UNKNOWN\r\n".to_vec(),
        Origin::Client {
            source,
            destination,
        } => format!(
            "PROXY TCP{} {} {} {} {}\r\n",
            if source.is_ipv4() { 4 } else { 6 },
            source.ip(),
            destination.ip(),
            source.port(),
            destination.port()
        )
        .into_bytes(),
    }
}

pub(super) fn decode(bytes: &[u8]) -> Result<Progress, Malformed> {
    let line = &bytes[..bytes.len().min(LONGEST)];
    let Some(end) = line.iter().position(|&byte| byte == b'\n') else {
        return match bytes.len() {
            LONGEST.. => Err(Malformed::TooLong),
            // Where there is a byte more, it may be the last.
            length => Ok(Progress::Partial(SHORTEST.max(length + 1))),
        };
    };
    let line = line[..end].strip_suffix(b"\r").ok_or(Malformed::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let origin = origin(line).ok_or(Malformed::Line)?;
    let header = Header {
        origin,
        unique_id: None,
    };
    Ok(Progress::Whole(header, end + 1))
}

fn origin(line: &str) -> Option<Origin> {
    let mut words = line.split(' ').skip(1);
    let family = words.next()?;
    if family == "UNKNOWN" {
        // Whatever else is said is to be ignored.
        return Some(Origin::Itself);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (source, destination): (IpAddr, IpAddr) = match family {
        "TCP4" => (
            ip::<std::net::Ipv4Addr>(source)?,
            ip::<std::net::Ipv4Addr>(destination)?,
        ),
        "TCP6" => (
            ip::<std::net::Ipv6Addr>(source)?,
            ip::<std::net::Ipv6Addr>(destination)?,
        ),
        _ => return None,
    };
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    words.next().is_none().then_some(Origin::Client {
        source: SocketAddr::new(source, from),
        destination: SocketAddr::new(destination, to),
    })
}

fn ip<T: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    text.parse::<T>().ok().map(Into::into)
}

/// Digits only, and no zero in front of others.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let canonical = text == "0" || !text.starts_with('0');
    text.parse().ok().filter(|_| plain && canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(line: &[u8]) -> Header {
        match decode(line) {
            Ok(Progress::Whole(header, length)) => {
                assert_eq!(length, line.len());
                header
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_lines_of_the_specification_are_read() {
        let client = |source: &str, destination: &str| Origin::Client {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        };
        assert_eq!(
            whole(b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n").origin,
            client("255.255.255.255:65535", "255.255.255.255:65535")
        );
        assert_eq!(
            whole(b"PROXY TCP6 ffff:f::ffff ::1 65535 0\r\n").origin,
            client("[ffff:f::ffff]:65535", "[::1]:0")
        );
        for line in [
            &b"PROXY UNKNOWN\r\n"[..],
            b"PROXY UNKNOWN ffff:f ffff:f 65535 65535\r\n",
            b"PROXY UNKNOWN whatever \xc3\xa9\r\n",
        ] {
            assert_eq!(whole(line), Header::LOCAL);
        }
    }

    #[test]
    fn what_is_no_such_line_is_refused() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
            "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 65536\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.256 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
            "PROXY TCP4\t1.1.1.1 2.2.2.2 1 2\r\n",
            "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\r\n",
        ] {
            assert_eq!(decode(line.as_bytes()), Err(Malformed::Line), "{line:?}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up_where_the_specification_says() {
        let line = [b"PROXY UNKNOWN ".as_slice(), &[b'x'; 200]].concat();
        assert_eq!(decode(&line[..106]), Ok(Progress::Partial(107)));
        assert_eq!(decode(&line[..107]), Err(Malformed::TooLong));
        let late = [&line[..106], b"\r\n"].concat();
        assert_eq!(decode(&late), Err(Malformed::TooLong));
        let last = [&line[..105], b"\r\n"].concat();
        assert_eq!(whole(&last), Header::LOCAL);
    }
}
