//! `[service.access]` and `[service.limits]`: who may come in, how many, and how fast their bytes may flow.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::compile::Rejected;
use super::decode::{Table, mistype};
use super::load;
use super::network::{self, networks};
use super::problem::{Need, Problem, Problems, shown};
use super::source::Source;
use super::value::{Fault, MOST_CONNECTIONS};
use super::{AccessConfig, AdmissionConfig, Limited, LimitsConfig, ServiceConfig, bandwidth, keys};
use crate::admission::{Access, Rate, SourceRules};
use crate::model::Address;

/// Both sections of a service.
pub(super) fn read(service: &Table<'_>, problems: &mut Problems) -> AdmissionConfig {
    AdmissionConfig {
        access: access(&service.table("access", &keys::ACCESS, problems), problems),
        limits: limits(&service.table("limits", &keys::LIMITS, problems), problems),
    }
}

fn access(table: &Table<'_>, problems: &mut Problems) -> Option<AccessConfig> {
    let allow = networks(table, "allow", problems);
    let deny = networks(table, "deny", problems);
    let allow_file = table.parsed("allow_file", problems, |text| file("allow_file", text));
    let deny_file = table.parsed("deny_file", problems, |text| file("deny_file", text));
    for (key, file) in [("allow_file", &allow_file), ("deny_file", &deny_file)] {
        if let (Some(file), Some(span)) = (file, table.span_of(key)) {
            problems.need(Need::Later(file.clone()), span);
        }
    }
    let dry_run = table.boolean("dry_run", problems).unwrap_or(false);
    if let (Some([]), Some(span)) = (allow.as_deref(), table.span_of("allow"))
        && allow_file.is_none()
    {
        let problem = network::nobody("allow", "every client would be refused", span);
        problems.add(problem.help("write deny = [\"0.0.0.0/0\", \"::/0\"] if that is meant"));
    }
    if let (Some(allow), Some(deny)) = (&allow, &deny) {
        for (network, span) in deny {
            if allow.iter().any(|(allowed, _)| allowed == network) {
                problems.add(
                    Problem::error(format!("{network} is in `allow` and in `deny`"))
                        .at(span.clone())
                        .label("of networks within each other the smaller one decides; these are the same"),
                );
            }
        }
    }
    let nothing = allow.is_none() && deny.is_none() && allow_file.is_none() && deny_file.is_none();
    if nothing {
        // Under a key that could not be read, nobody knows what was meant.
        let keys = ["allow", "deny", "allow_file", "deny_file"];
        if keys.iter().all(|key| table.lacks(key))
            && let Some(span) = table.span()
        {
            problems.add(
                Problem::warning("`[service.access]` has no effect here")
                    .at(span)
                    .label("it lists nobody, so everybody may come in"),
            );
        }
        return None;
    }
    let of = |list: Vec<(IpNet, _)>| list.into_iter().map(|(network, _)| network).collect();
    let access = AccessConfig {
        allow: allow.map(of),
        deny: deny.map(of).unwrap_or_default(),
        allow_file,
        deny_file,
        dry_run,
        rules: Arc::new(Access::new(None::<[IpNet; 0]>, [])),
    };
    Some(access.with(None, Vec::new()))
}

impl ServiceConfig {
    /// Whether `[service.access]` lets in nobody of those who can reach a listener, once its files are read.
    pub fn shuts_everybody_out(&self) -> bool {
        let Some(access) = self.admission.access.as_ref().filter(|it| !it.dry_run) else {
            return false;
        };
        let listen = &self.listen;
        // Who may come by a path is said by its permissions.
        let Some(families) = families(listen.iter().map(|it| (it.address, it.dual_stack))) else {
            return false;
        };
        let told = self.proxy.accept.is_some();
        let none = |ipv4: bool| access.rules.admits_none(ipv4);
        let [ipv4, ipv6] = families.map(|it| it || told);
        (!ipv4 || none(true)) && (!ipv6 || none(false))
    }
}

/// Whether clients of IPv4, and of IPv6, can reach one of these; `None` when others can, too.
fn families(listen: impl Iterator<Item = (Address, bool)>) -> Option<[bool; 2]> {
    let mut found = [false; 2];
    for (address, dual_stack) in listen {
        let is_ipv4 = address.inet()?.is_ipv4();
        found[0] |= is_ipv4 || dual_stack;
        found[1] |= !is_ipv4;
    }
    Some(found)
}

/// Said of a service that [shuts everybody out](ServiceConfig::shuts_everybody_out).
pub(super) fn shut(service: &str) -> Problem {
    Problem::warning(format!("nobody may come in at service `{service}`"))
        .label("it lets in no address that can reach its listeners")
        .help("list the networks of its clients in `allow`, or write dry_run = true to count only")
}

/// `allow 10.0.0.0/8; deny 9 networks, deny_file /etc/deny (dry run)`
impl fmt::Display for AccessConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        let lists = [
            ("allow", self.allow.as_deref(), &self.allow_file),
            ("deny", Some(&*self.deny), &self.deny_file),
        ];
        for (name, list, file) in lists {
            match list {
                None | Some([]) => {}
                Some(few) if few.len() <= MOST_TOLD => {
                    let few: Vec<_> = few.iter().map(ToString::to_string).collect();
                    parts.push(format!("{name} {}", few.join(", ")));
                }
                Some(many) => parts.push(format!("{name} {} networks", many.len())),
            }
            if let Some(file) = file {
                parts.push(format!("{name}_file {}", file.display()));
            }
        }
        f.write_str(&parts.join("; "))?;
        f.write_str(if self.dry_run { " (dry run)" } else { "" })
    }
}

impl AccessConfig {
    /// What keeps `ip` out, which the rules do not admit.
    pub fn denier(&self, ip: IpAddr) -> String {
        let of = |list: &[IpNet], allows: bool| {
            let those = list.iter().filter(|it| it.contains(&ip));
            those.map(|it| (it.prefix_len(), !allows, *it)).max()
        };
        let allowed = of(self.allow.as_deref().unwrap_or_default(), true);
        let decides = of(&self.deny, false).max(allowed);
        let named = |file: &PathBuf| format!("deny_file {}", file.display());
        match (decides, &self.deny_file) {
            (Some((_, true, network)), _) => format!("deny {network}"),
            // Another entry is more specific, and it can be nowhere else.
            (Some(_), Some(file)) => named(file),
            (None, Some(file)) if self.allow.is_none() && self.allow_file.is_none() => named(file),
            (None, Some(file)) => format!("not in allow, or in {}", named(file)),
            (_, None) => "not in allow".to_owned(),
        }
    }

    /// Whether all that it says is in the file itself.
    pub(super) fn is_whole(&self) -> bool {
        self.allow_file.is_none() && self.deny_file.is_none()
    }

    /// Reads the files, whose paths begin in `beside`.
    ///
    /// # Errors
    /// That one cannot be read, or every problem of its text.
    pub(super) fn complete(&mut self, beside: &Path) -> Result<(), Rejected> {
        if self.is_whole() {
            return Ok(());
        }
        let read = |file: &mut Option<PathBuf>| {
            let Some(path) = file else { return Ok(None) };
            *path = beside.join(&*path);
            load::text(path, Some("an empty file is an empty list"), list).map(Some)
        };
        let allowed = read(&mut self.allow_file)?;
        let denied = read(&mut self.deny_file)?;
        *self = self.clone().with(allowed, denied.unwrap_or_default());
        Ok(())
    }

    /// The rules over what is written here, and in files.
    fn with(self, allowed: Option<Vec<IpNet>>, denied: Vec<IpNet>) -> Self {
        let inline = self.allow.iter().flatten().copied();
        let all = inline.chain(allowed.iter().flatten().copied());
        let has_allowed = self.allow.is_some() || self.allow_file.is_some();
        let denied = self.deny.iter().copied().chain(denied);
        let rules = Access::new(has_allowed.then_some(all), denied);
        Self {
            rules: Arc::new(rules),
            ..self
        }
    }
}

/// A list as a file has it: a network on each line, and words behind a `#`.
fn list(text: &str, origin: &str) -> Result<Vec<IpNet>, Rejected> {
    let source = Source::new(text);
    let mut problems = Problems::default();
    let mut networks = Vec::new();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let words = line.split('#').next().unwrap_or_default();
        let word = words.trim();
        if !word.is_empty() {
            let start = at + (words.len() - words.trim_start().len());
            match network::network("the list", word) {
                Ok(network) => networks.push(network),
                Err(fault) => problems.add(fault.at(start..start + word.len())),
            }
            if problems.errors() >= MOST_PROBLEMS {
                break;
            }
        }
        at += line.len();
    }
    match problems.errors() {
        0 => Ok(networks),
        _ => Err(Rejected::with(problems.report(origin, &source))),
    }
}

/// A path as far as its text tells.
fn file(key: &str, text: &str) -> Result<PathBuf, Fault> {
    if text.is_empty() || text.contains('\0') || text.ends_with('/') {
        return Err(Fault::new(format!("`{key}` does not name a file"))
            .allowed("allowed: a path, relative to the directory of this file or from \"/\""));
    }
    Ok(PathBuf::from(text))
}

fn limits(table: &Table<'_>, problems: &mut Problems) -> LimitsConfig {
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
/// Networks of a list that are told one by one.
const MOST_TOLD: usize = 4;
/// Of one list; whoever has more of them has the wrong file.
const MOST_PROBLEMS: usize = 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::IpAddr;

    use super::*;
    use crate::config::{ServiceConfig, compile, load};

    fn text(sections: &str) -> String {
        format!(
            "[[service]]\nname = \"a\"\nlisten = \"1.1.1.1:1\"\n{sections}\n\
             [[service.backend]]\naddress = \"2.2.2.2:2\"\n"
        )
    }

    fn read(sections: &str) -> (ServiceConfig, String) {
        let mut loaded = compile(&text(sections), "f").unwrap();
        let warnings = loaded.warnings.to_string();
        (loaded.config.services.remove(0), warnings)
    }

    fn wrong(sections: &str) -> String {
        compile(&text(sections), "f").unwrap_err().to_string()
    }

    fn admits(access: &AccessConfig, ip: &str) -> bool {
        access.rules.admits(ip.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn whoever_shuts_everybody_out_is_told() {
        let told = |sections: &str| {
            read(sections)
                .1
                .contains("nobody may come in at service `a`")
        };
        let all = "deny = [\"0.0.0.0/0\", \"::/0\"]";
        assert!(told(&format!("[service.access]\n{all}")));
        assert!(
            told("[service.access]\nallow = \"::1\""),
            "nobody comes from there"
        );
        assert!(!told(&format!("[service.access]\n{all}\ndry_run = true")));
        assert!(!told("[service.access]\ndeny = \"0.0.0.0/1\""));
        let proxied = "[service.access]\nallow = \"::1\"\n[service.proxy_protocol]\naccept_from = \"1.0.0.0/8\"";
        assert!(!told(proxied), "a proxy may name anybody");
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("b.toml");
        fs::write(directory.path().join("nets"), "# nobody yet\n").unwrap();
        fs::write(&file, text("[service.access]\nallow_file = \"nets\"")).unwrap();
        let warnings = load(&file).unwrap().warnings.to_string();
        assert!(
            warnings.contains("nobody may come in at service `a`"),
            "{warnings}"
        );
    }

    #[test]
    fn it_is_known_what_keeps_an_address_out() {
        let denier = |sections: &str, ip: &str| {
            let (service, _) = read(&format!("[service.access]\n{sections}"));
            service
                .admission
                .access
                .unwrap()
                .denier(ip.parse().unwrap())
        };
        let both = "allow = [\"10.0.0.0/8\"]\ndeny = [\"10.1.0.0/16\", \"10.1.2.3\"]";
        assert_eq!(denier(both, "10.1.2.3"), "deny 10.1.2.3/32");
        assert_eq!(denier(both, "10.1.9.9"), "deny 10.1.0.0/16");
        assert_eq!(denier(both, "11.0.0.1"), "not in allow");
        assert_eq!(denier("deny_file = \"x\"", "11.0.0.1"), "deny_file x");
        let listed = "allow = \"10.0.0.0/8\"\ndeny_file = \"x\"";
        assert_eq!(denier(listed, "10.0.0.1"), "deny_file x");
        assert_eq!(
            denier(listed, "11.0.0.1"),
            "not in allow, or in deny_file x"
        );
    }

    #[test]
    fn lists_are_read_and_make_rules() {
        let (service, warnings) = read(
            "[service.access]\nallow = [\"10.0.0.0/8\", \"::1\"]\ndeny = \"10.1.0.0/16\"\ndry_run = true",
        );
        assert_eq!(warnings, "");
        let access = service.admission.access.unwrap();
        assert!(access.dry_run);
        assert!(admits(&access, "10.2.0.1") && admits(&access, "::1"));
        assert!(!admits(&access, "10.1.0.1") && !admits(&access, "11.0.0.1"));
    }

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
            ("[service.access]", "[service.access]"),
            ("[service.access]\ndry_run = true", "[service.access]"),
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
        for (section, key, expected) in [
            ("access", "allow = []", "every client would be refused"),
            ("access", "allow = \"10.0.0.1/8\"", "write \"10.0.0.0/8\""),
            ("access", "allow_file = \"lists/\"", "does not name a file"),
            ("access", "alow = \"::1\"", "did you mean `allow`"),
            ("limits", "max_connections = 0", "allowed: 1 to 10000000"),
            ("limits", "accept_rate = \"500\"", "write \"500/s\""),
            ("limits", "accept_rate = \"0/s\"", "out of range"),
            ("limits", "accept_rate = \"5/d\"", "where \"d\" is no unit"),
            ("limits", "accept_rate = \"5/d\"", "units: /s, /m, /h"),
            ("limits", "accept_rate = \"5/min\"", "write \"5/m\""),
            ("limits", "accept_rate = \"5/S\"", "write \"5/s\""),
            ("limits", "rate_per_source = 50", "a rate such as \"50/s\""),
            ("limits", "rate_per_source = 50", "write \"50/s\""),
            ("limits", "to_client = \"10 MBit\"", "write \"10Mbit/s\""),
            ("limits", "accept_rate = \"-5/s\"", "not a rate"),
            ("limits", "rate_per_source = 5", "not a string"),
            ("limits", "source_ipv6_prefix = 129", "allowed: 1 to 128"),
            ("limits", "dry_run = [\"all\"]", "which is no limit"),
            (
                "limits",
                "dry_run = \"max_per_source\"",
                "a boolean, or a list of limits",
            ),
        ] {
            let wrong = wrong(&format!("[service.{section}]\n{key}"));
            assert!(wrong.contains(expected), "{wrong}");
            assert!(wrong.contains("f:5:"), "{wrong}");
        }
        let both = wrong("[service.access]\nallow = \"10.0.0.0/8\"\ndeny = \"10.0.0.0/8\"");
        assert!(
            both.contains("10.0.0.0/8 is in `allow` and in `deny`"),
            "{both}"
        );
        assert!(both.contains("f:6:8"), "{both}");
    }

    #[test]
    fn lists_in_files_join_those_in_the_file_and_their_problems_have_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ballast.toml");
        let sections =
            "[service.access]\nallow = \"10.0.0.0/8\"\nallow_file = \"a\"\ndeny_file = \"d\"";
        fs::write(&file, text(sections)).unwrap();
        fs::write(
            dir.path().join("a"),
            "# ours\n192.0.2.0/24 # the office\n\n  2001:db8::/32\n",
        )
        .unwrap();
        let rejected = load(&file).unwrap_err().lines().join("\n");
        assert!(rejected.contains("/d: no such file"), "{rejected}");
        fs::write(dir.path().join("d"), "").unwrap();
        let first = load(&file).unwrap().config;
        let access = first.services[0].admission.access.as_ref().unwrap();
        assert!(admits(access, "10.0.0.1") && admits(access, "192.0.2.9"));
        assert!(admits(access, "2001:db8::1") && !admits(access, "192.0.3.1"));
        fs::write(dir.path().join("d"), "192.0.2.9\r\n").unwrap();
        let second = load(&file).unwrap().config;
        assert!(!admits(
            second.services[0].admission.access.as_ref().unwrap(),
            "192.0.2.9"
        ));
        assert_ne!(first, second, "a plan notices");
        fs::write(dir.path().join("d"), "192.0.2.9\n  10.0.0.1/8\n").unwrap();
        let rejected = load(&file).unwrap_err().lines().join("\n");
        assert!(
            rejected.contains("/d:2:3: the list has \"10.0.0.1/8\""),
            "{rejected}"
        );
        fs::write(dir.path().join("d"), "what?\n".repeat(100_000)).unwrap();
        assert!(load(&file).unwrap_err().lines().len() <= MOST_PROBLEMS + 1);
    }

    #[test]
    fn an_allow_list_that_is_empty_lets_nobody_in() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ballast.toml");
        fs::write(&file, text("[service.access]\nallow_file = \"a\"")).unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        let config = load(&file).unwrap().config;
        assert!(!admits(
            config.services[0].admission.access.as_ref().unwrap(),
            "10.0.0.1"
        ));
    }
}
