//! Until when a certificate is good: the one field of X.509 that a check reads (RFC 5280, section
//! 4.1; DER as in X.690). Anything else about it is not a balancer's business.

/// `notAfter` of a certificate in DER, in seconds since 1970; `None` when it is no certificate.
pub(super) fn expiry(certificate: &[u8]) -> Option<i64> {
    let (mut certificate, _) = value(certificate, SEQUENCE)?;
    let (mut fields, _) = take(&mut certificate, SEQUENCE)?;
    // The version is there unless it is the first one.
    if fields.first() == Some(&VERSION) {
        take(&mut fields, VERSION)?;
    }
    take(&mut fields, INTEGER)?;
    take(&mut fields, SEQUENCE)?;
    take(&mut fields, SEQUENCE)?;
    let (mut validity, _) = take(&mut fields, SEQUENCE)?;
    any(&mut validity)?;
    let (tag, time) = any(&mut validity)?;
    seconds(tag, std::str::from_utf8(time).ok()?)
}

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// A length of this many bytes is longer than any certificate.
const MOST_OF_A_LENGTH: usize = 4;

/// The content of the element at the front, which must have this tag, and what follows it.
fn value(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, content, rest) = element(bytes)?;
    (found == tag).then_some((content, rest))
}

/// The same, moving on behind it.
fn take<'a>(bytes: &mut &'a [u8], tag: u8) -> Option<(&'a [u8], ())> {
    let (content, rest) = value(bytes, tag)?;
    *bytes = rest;
    Some((content, ()))
}

/// The tag and the content of whatever is at the front, moving on behind it.
fn any<'a>(bytes: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (tag, content, rest) = element(bytes)?;
    *bytes = rest;
    Some((tag, content))
}

fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..0x80 => (usize::from(first), rest),
        _ => {
            let count = usize::from(first & 0x7f);
            if count > MOST_OF_A_LENGTH {
                return None;
            }
            let (digits, rest) = rest.split_at_checked(count)?;
            let length = digits
                .iter()
                .fold(0_usize, |sum, &digit| sum << 8 | usize::from(digit));
            (length, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ`, as RFC 5280 wants them.
fn seconds(tag: u8, text: &str) -> Option<i64> {
    let digits = text.strip_suffix('Z')?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let (year, rest) = digits.split_at(2);
            let year = year.parse::<i64>().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        (GENERALIZED_TIME, 14) => {
            let (year, rest) = digits.split_at(4);
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let part = |index: usize| rest[2 * index..2 * index + 2].parse::<i64>().ok();
    let (month, day) = (part(0)?, part(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let days = days_since_1970(year, month, day);
    Some(((days * 24 + part(2)?) * 60 + part(3)?) * 60 + part(4)?)
}

/// Of the Gregorian calendar (H. Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_of_both_kinds_are_read() {
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(UTC_TIME, "500101000000Z"), Some(-631_152_000));
        assert_eq!(
            seconds(GENERALIZED_TIME, "20000229120000Z"),
            Some(951_825_600)
        );
        assert_eq!(
            seconds(GENERALIZED_TIME, "99991231235959Z"),
            Some(253_402_300_799)
        );
        for wrong in ["", "Z", "700101000000", "701301000000Z", "70010100000xZ"] {
            assert_eq!(seconds(UTC_TIME, wrong), None, "{wrong}");
        }
    }

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len();
        let length = match u8::try_from(length) {
            Ok(short @ 0..0x80) => vec![short],
            _ => {
                let [.., high, low] = length.to_be_bytes();
                vec![0x82, high, low]
            }
        };
        [[tag].as_slice(), &length, content].concat()
    }

    fn certificate(versioned: bool, not_after: &[u8]) -> Vec<u8> {
        let version = if versioned {
            der(VERSION, &der(INTEGER, &[2]))
        } else {
            Vec::new()
        };
        let validity = [der(UTC_TIME, b"200101000000Z"), not_after.to_vec()].concat();
        let fields = [
            version,
            der(INTEGER, &[7; 20]),
            der(SEQUENCE, b""),
            der(SEQUENCE, &[0; 200]),
            der(SEQUENCE, &validity),
            der(SEQUENCE, &[1; 300]),
        ]
        .concat();
        der(SEQUENCE, &[der(SEQUENCE, &fields), vec![5, 0]].concat())
    }

    #[test]
    fn the_end_of_the_validity_is_found_with_and_without_a_version() {
        for versioned in [false, true] {
            let utc = certificate(versioned, &der(UTC_TIME, b"300101000000Z"));
            assert_eq!(expiry(&utc), Some(1_893_456_000));
            let late = certificate(versioned, &der(GENERALIZED_TIME, b"20600101000000Z"));
            assert_eq!(expiry(&late), Some(2_840_140_800));
        }
    }

    proptest! {
        #[test]
        fn noise_and_damage_are_no_panic(noise: Vec<u8>, at: prop::sample::Index, byte: u8, cut: prop::sample::Index) {
            expiry(&noise);
            let mut damaged = certificate(true, &der(UTC_TIME, b"300101000000Z"));
            let at = at.index(damaged.len());
            damaged[at] = byte;
            expiry(&damaged);
            expiry(&damaged[..cut.index(damaged.len())]);
        }
    }
}
