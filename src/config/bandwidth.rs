//! How fast bytes may flow: the part of `[service.limits]` that is about bandwidth.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::decode::Table;
use super::limits::Limited;
use super::problem::{Problem, Problems, shown};
use super::value::Fault;
use crate::admission::{Bandwidth, Cap, Toward};

/// What each [`Cap`] is, if there is one, at its number.
pub type Caps = [Option<Limited<Bandwidth>>; Cap::ALL.len()];

/// The caps of a service, of which `is_dry` tells those that only count.
pub(super) fn caps(
    table: &Table<'_>,
    is_dry: impl Fn(&str) -> bool,
    problems: &mut Problems,
) -> Caps {
    let caps = Cap::ALL.map(|cap| {
        let key = cap.name();
        let most = table.parsed(key, problems, |text| bandwidth(key, text))?;
        let dry = is_dry(key);
        Some(Limited { most, dry })
    });
    for toward in [Toward::Backend, Toward::Client] {
        let (all, each) = (Cap::of_all(toward), Cap::of_each(toward));
        if let (Some(of_all), Some(of_each)) = (caps[all as usize], caps[each as usize])
            && of_each.most >= of_all.most
            && let Some(span) = table.span_of(each.name())
        {
            problems.add(
                Problem::warning(format!("`{each}` has no effect here"))
                    .at(span)
                    .label(format!(
                        "all sessions together have no more than `{all}`, {}",
                        of_all.most
                    )),
            );
        }
    }
    caps
}

/// A bandwidth such as `"10MB/s"`.
fn bandwidth(key: &str, text: &str) -> Result<Bandwidth, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("`{key}` is \"{}\", {why}", shown(text))).allowed(
            "allowed: \"1KB/s\" to \"100GB/s\"; units: B/s, KB/s, MB/s, GB/s, KiB/s, MiB/s, GiB/s, Kbit/s, Mbit/s, Gbit/s",
        )
    };
    let bare = text.trim();
    let digits = bare.len()
        - bare
            .trim_start_matches(|it: char| it.is_ascii_digit())
            .len();
    let (number, unit) = bare.split_at(digits);
    if number.is_empty() {
        return Err(wrong("which is not a bandwidth"));
    }
    let unit = unit.trim_start();
    let Some((_, eighths)) = UNITS.iter().find(|(name, _)| *name == unit) else {
        let fault = match unit {
            "" => wrong("which has no unit"),
            _ => wrong(&format!("where \"{}\" is no unit", shown(unit))),
        };
        let meant = unit.trim_end_matches("/s").trim_end_matches("ps");
        return Err(match meant {
            "" => fault.help(format!("write \"{number}B/s\" for bytes a second")),
            "b" | "B" => fault.help(format!("write \"{number}B/s\" for bytes a second")),
            "k" | "K" | "M" | "m" | "G" | "g" | "kb" | "Kb" | "kB" | "KB" | "Mb" | "MB" | "mb"
            | "Gb" | "GB" | "gb" => {
                let size = meant[..1].to_ascii_uppercase();
                fault.help(format!(
                    "write \"{number}{size}B/s\" for bytes, \"{number}{size}bit/s\" for bits"
                ))
            }
            _ => match nearest(unit) {
                Some(near) => fault.help(format!("write \"{number}{near}\"")),
                None => fault,
            },
        });
    };
    let bytes = number.parse::<u64>().ok();
    let bytes = bytes.and_then(|it| Some(it.checked_mul(*eighths)? / 8));
    let bytes = bytes.filter(|it| BANDWIDTHS.contains(it));
    let bytes = bytes.and_then(NonZeroU64::new);
    bytes
        .map(Bandwidth::new)
        .ok_or_else(|| wrong("which is out of range"))
}

/// The unit of [`UNITS`] that is written otherwise: `MBit`, `mbit/s`, `mibps`.
fn nearest(unit: &str) -> Option<&'static str> {
    let plain = |it: &str| {
        let lower = it.to_ascii_lowercase();
        let bare = lower.trim_end_matches("/s").trim_end_matches("ps");
        bare.replace("bits", "bit")
    };
    let wanted = plain(unit);
    let mut names = UNITS.iter().map(|(name, _)| *name);
    names.find(|name| plain(name) == wanted)
}

/// How many eighths of a byte each unit is.
const UNITS: [(&str, u64); 10] = [
    ("B/s", 8),
    ("KB/s", 8_000),
    ("MB/s", 8_000_000),
    ("GB/s", 8_000_000_000),
    ("KiB/s", 8 << 10),
    ("MiB/s", 8 << 20),
    ("GiB/s", 8 << 30),
    ("Kbit/s", 1_000),
    ("Mbit/s", 1_000_000),
    ("Gbit/s", 1_000_000_000),
];
const BANDWIDTHS: RangeInclusive<u64> = 1_000..=100_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidths_are_read_in_bytes_and_in_bits() {
        for (text, bytes) in [
            ("1000B/s", 1_000),
            ("1KB/s", 1_000),
            ("10 MB/s", 10_000_000),
            (" 2GB/s ", 2_000_000_000),
            ("1KiB/s", 1_024),
            ("3MiB/s", 3 << 20),
            ("1GiB/s", 1 << 30),
            ("8Kbit/s", 1_000),
            ("100Mbit/s", 12_500_000),
            ("800Gbit/s", 100_000_000_000),
        ] {
            assert_eq!(bandwidth("to_client", text).unwrap().bytes(), bytes);
        }
    }

    #[test]
    fn mistakes_have_a_way_out() {
        let fault = |text| bandwidth("to_client", text).unwrap_err();
        for (text, help) in [
            ("1000000", "write \"1000000B/s\" for bytes a second"),
            ("10M", "write \"10MB/s\" for bytes, \"10Mbit/s\" for bits"),
            (
                "10Mbps",
                "write \"10MB/s\" for bytes, \"10Mbit/s\" for bits",
            ),
            (
                "10 kb/s",
                "write \"10KB/s\" for bytes, \"10Kbit/s\" for bits",
            ),
            ("10 MBit", "write \"10Mbit/s\""),
            ("100mbit/s", "write \"100Mbit/s\""),
            ("3mib", "write \"3MiB/s\""),
            ("5b/s", "write \"5B/s\" for bytes a second"),
        ] {
            assert_eq!(fault(text).help.unwrap(), help);
        }
        for text in ["", "fast", "-1MB/s", "1.5MB/s", "MB/s", "10MB/h"] {
            let allowed = fault(text).allowed.unwrap();
            assert!(allowed.contains("\"1KB/s\" to \"100GB/s\""), "{text}");
        }
        for text in [
            "0MB/s",
            "999B/s",
            "101GB/s",
            "99999999999999999999GB/s",
            "18446744073709551615GB/s",
        ] {
            assert!(fault(text).message.contains("out of range"), "{text}");
        }
    }
}
