//! `[service.limits]`: how many may come in, and how fast their bytes may flow.

use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::bandwidth::{self, Caps};
use super::decode::{Table, mistype};
use super::problem::{Problem, Problems, shown};
use super::value::{Fault, MOST_CONNECTIONS};
use crate::admission::{Rate, SourceRules};

/// `[service.limits]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Sessions at a time.
    pub max_connections: Option<Limited<u32>>,
    /// Clients that are accepted in a time.
    pub accept_rate: Option<Limited<Rate>>,
    /// What each source may do.
    pub source: SourceRules,
    /// The leading bits of an IPv6 address that are one source.
    pub source_ipv6_prefix: u8,
    /// Sources that are counted at a time.
    pub sources: u32,
    /// How fast bytes may flow.
    pub caps: Caps,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_connections: None,
            accept_rate: None,
            source: SourceRules::default(),
            source_ipv6_prefix: 64,
            sources: 65_536,
            caps: Caps::default(),
        }
    }
}

/// A limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limited<T> {
    /// The most that it lets through.
    pub most: T,
    /// It only counts whom it would keep out.
    pub dry: bool,
}

pub(super) fn read(table: &Table<'_>, problems: &mut Problems) -> LimitsConfig {
    let preset = LimitsConfig::default();
    let max_connections = table.integer("max_connections", &(1..=MOST_CONNECTIONS), problems);
    let accept_rate = table.parsed("accept_rate", problems, |text| rate("accept_rate", text));
    let most = table.integer("max_per_source", &(1..=MOST_CONNECTIONS), problems);
    let per_source = table.parsed("rate_per_source", problems, |text| {
        rate("rate_per_source", text)
    });
    let dry = dry_rules(table, &RULES, problems);
    let is_dry = |rule: &str| dry.contains(&rule);
    let by_source = ["max_per_source", "rate_per_source"];
    for key in ["source_ipv6_prefix", "sources"] {
        if by_source.iter().all(|rule| table.lacks(rule))
            && let Some(span) = table.span_of(key)
        {
            problems.add(
                Problem::warning(format!("`{key}` has no effect here"))
                    .at(span)
                    .label("no limit of this service goes by the source of a client")
                    .help("write max_per_source or rate_per_source"),
            );
        }
    }
    LimitsConfig {
        max_connections: max_connections.map(|most| Limited {
            most,
            dry: is_dry("max_connections"),
        }),
        accept_rate: accept_rate.map(|most| Limited {
            most,
            dry: is_dry("accept_rate"),
        }),
        source: SourceRules {
            most: most.and_then(NonZeroU32::new),
            rate: per_source,
            most_is_dry: is_dry("max_per_source"),
            rate_is_dry: is_dry("rate_per_source"),
        },
        source_ipv6_prefix: table
            .integer("source_ipv6_prefix", &(1..=128), problems)
            .and_then(|prefix| u8::try_from(prefix).ok())
            .unwrap_or(preset.source_ipv6_prefix),
        sources: table
            .integer("sources", &SOURCES, problems)
            .unwrap_or(preset.sources),
        caps: bandwidth::caps(table, is_dry, problems),
    }
}

/// Those of `rules` that only count: all of the section, or those that are named.
pub(super) fn dry_rules(
    table: &Table<'_>,
    rules: &[&'static str],
    problems: &mut Problems,
) -> Vec<&'static str> {
    let Some(value) = table.get("dry_run") else {
        return Vec::new();
    };
    if let Some(all) = value.get_ref().as_bool() {
        return if all { rules.to_vec() } else { Vec::new() };
    }
    if !value.get_ref().is_array() {
        let problem = mistype("dry_run", value, "a boolean, or a list of limits");
        problems.add(problem.label(format!(
            "allowed: true, false, or some of {}",
            quoted(rules)
        )));
        return Vec::new();
    }
    let mut dry = Vec::new();
    for (text, span) in table.texts("dry_run", problems).unwrap_or_default() {
        let Some(rule) = rules.iter().find(|rule| **rule == text) else {
            let fault = Fault::new(format!(
                "`dry_run` has \"{}\", which is no limit",
                shown(text)
            ))
            .allowed(format!("allowed: {}", quoted(rules)));
            problems.add(fault.at(span));
            continue;
        };
        if table.lacks(rule) {
            problems.add(
                Problem::warning(format!("`{rule}` in `dry_run` has no effect here"))
                    .at(span)
                    .label("there is no such limit here"),
            );
        }
        dry.push(*rule);
    }
    dry
}

fn quoted(rules: &[&str]) -> String {
    let quoted: Vec<_> = rules.iter().map(|rule| format!("\"{rule}\"")).collect();
    quoted.join(", ")
}

/// A rate such as `"500/s"`.
pub(super) fn rate(key: &str, text: &str) -> Result<Rate, Fault> {
    let wrong = |why: &str| {
        Fault::new(format!("`{key}` is \"{}\", {why}", shown(text))).allowed(
            "allowed: a rate such as \"50/s\", from \"1/h\" to \"1000000/s\"; units: /s, /m, /h",
        )
    };
    let Some((count, unit)) = text.split_once('/') else {
        let bare = text.trim();
        let fault = wrong("which has no unit");
        return Err(match bare.parse::<u32>() {
            Ok(count) => fault.help(format!("write \"{count}/s\" for so many a second")),
            Err(_) => wrong("which is not a rate"),
        });
    };
    let per = match unit.trim() {
        "s" => Duration::from_secs(1),
        "m" => Duration::from_secs(60),
        "h" => Duration::from_secs(60 * 60),
        other => {
            let fault = wrong(&format!("where \"{}\" is no unit", shown(other)));
            let meant = other.to_ascii_lowercase();
            let near = ["second", "minute", "hour"]
                .into_iter()
                .find(|unit| !meant.is_empty() && meant.starts_with(&unit[..1]));
            return Err(match near {
                Some(unit) => fault.help(format!("write \"{}/{}\"", shown(count), &unit[..1])),
                None => fault.help("the longest unit is the hour: \"1/h\""),
            });
        }
    };
    let digits = count.trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("which is not a rate"));
    }
    let count = digits.parse().ok().filter(|count| RATES.contains(count));
    let count = count.and_then(NonZeroU32::new);
    count
        .map(|count| Rate::new(count, per))
        .ok_or_else(|| wrong("which is out of range"))
}

const RULES: [&str; 8] = [
    "max_connections",
    "accept_rate",
    "max_per_source",
    "rate_per_source",
    "to_backend",
    "to_client",
    "to_backend_per_session",
    "to_client_per_session",
];
const RATES: RangeInclusive<u32> = 1..=1_000_000;
/// From 32 KiB to half a gigabyte of memory.
const SOURCES: RangeInclusive<u32> = 1024..=16_777_216;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::AdmissionConfig;
    use crate::config::testing::{read, wrong};

    #[test]
    fn limits_are_read() {
        let (service, warnings) = read(
            "[service.limits]\nmax_connections = 7\naccept_rate = \"500/s\"\nmax_per_source = 3\n\
             rate_per_source = \"10/m\"\nsource_ipv6_prefix = 48\nsources = 2048\n\
             dry_run = [\"max_per_source\", \"accept_rate\"]",
        );
        assert_eq!(warnings, "");
        let limits = service.admission.limits;
        assert_eq!(
            limits.max_connections,
            Some(Limited {
                most: 7,
                dry: false
            })
        );
        assert_eq!(
            limits.accept_rate,
            Some(Limited {
                most: Rate::a_second(500),
                dry: true
            })
        );
        assert_eq!(limits.source.most, NonZeroU32::new(3));
        assert_eq!(limits.source.rate.unwrap().per().as_secs(), 60);
        assert!(limits.source.most_is_dry && !limits.source.rate_is_dry);
        assert_eq!((limits.source_ipv6_prefix, limits.sources), (48, 2048));
        let (service, _) = read("[service.limits]\nmax_connections = 7\ndry_run = true");
        assert!(service.admission.limits.max_connections.unwrap().dry);
        assert_eq!(read("").0.admission, AdmissionConfig::default());
    }

    #[test]
    fn what_has_no_effect_is_said_to_have_none() {
        for (sections, key) in [
            ("[service.limits]\nsources = 2048", "sources"),
            (
                "[service.limits]\nsource_ipv6_prefix = 48\nmax_connections = 1",
                "source_ipv6_prefix",
            ),
            (
                "[service.limits]\ndry_run = [\"accept_rate\"]",
                "accept_rate",
            ),
        ] {
            let (_, warnings) = read(sections);
            assert!(
                warnings.contains(key) && warnings.contains("no effect"),
                "{warnings}"
            );
        }
    }

    #[test]
    fn mistakes_have_a_place_and_a_way_out() {
        for (key, expected) in [
            ("max_connections = 0", "allowed: 1 to 10000000"),
            ("accept_rate = \"500\"", "write \"500/s\""),
            ("accept_rate = \"0/s\"", "out of range"),
            ("accept_rate = \"5/d\"", "where \"d\" is no unit"),
            ("accept_rate = \"5/d\"", "units: /s, /m, /h"),
            ("accept_rate = \"5/min\"", "write \"5/m\""),
            ("accept_rate = \"5/S\"", "write \"5/s\""),
            ("rate_per_source = 50", "a rate such as \"50/s\""),
            ("rate_per_source = 50", "write \"50/s\""),
            ("to_client = \"10 MBit\"", "write \"10Mbit/s\""),
            ("accept_rate = \"-5/s\"", "not a rate"),
            ("rate_per_source = 5", "not a string"),
            ("source_ipv6_prefix = 129", "allowed: 1 to 128"),
            ("dry_run = [\"all\"]", "which is no limit"),
            (
                "dry_run = \"max_per_source\"",
                "a boolean, or a list of limits",
            ),
        ] {
            let wrong = wrong(&format!("[service.limits]\n{key}"));
            assert!(wrong.contains(expected), "{wrong}");
            assert!(wrong.contains("f:5:"), "{wrong}");
        }
    }
}
