//! `[service.access]`: who may come in.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipnet::IpNet;

use super::ServiceConfig;
use super::compile::Rejected;
use super::decode::Table;
use super::load;
use super::network::{self, networks};
use super::problem::{Need, Problem, Problems};
use super::source::Source;
use super::value;
use crate::admission::Access;
use crate::model::Address;

/// `[service.access]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessConfig {
    /// As written; `None` is that there is no such list.
    allow: Option<Vec<IpNet>>,
    deny: Vec<IpNet>,
    allow_file: Option<PathBuf>,
    deny_file: Option<PathBuf>,
    /// Those who may not come in are only counted.
    pub dry_run: bool,
    /// What all lists together say.
    pub rules: Arc<Access>,
}

pub(super) fn read(table: &Table<'_>, problems: &mut Problems) -> Option<AccessConfig> {
    let allow = networks(table, "allow", problems);
    let deny = networks(table, "deny", problems);
    let allow_file = table.parsed("allow_file", problems, |text| {
        value::file("allow_file", text)
    });
    let deny_file = table.parsed("deny_file", problems, |text| value::file("deny_file", text));
    for (key, file) in [("allow_file", &allow_file), ("deny_file", &deny_file)] {
        if let (Some(file), Some(span)) = (file, table.span_of(key)) {
            problems.need(Need::Later(file.clone()), span);
        }
    }
    let dry_run = table.boolean("dry_run", problems).unwrap_or(false);
    if let (Some([]), Some(span)) = (allow.as_deref(), table.span_of("allow"))
        && allow_file.is_none()
    {
        let problem = network::nobody("allow", span);
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

/// Networks of a list that are told one by one.
const MOST_TOLD: usize = 4;
/// Of one list; whoever has more of them has the wrong file.
const MOST_PROBLEMS: usize = 20;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::load;
    use crate::config::testing::{read, text, wrong};

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
    fn a_section_that_lists_nobody_is_said_to_have_no_effect() {
        for sections in ["[service.access]", "[service.access]\ndry_run = true"] {
            let (_, warnings) = read(sections);
            assert!(
                warnings.contains("`[service.access]` has no effect"),
                "{warnings}"
            );
        }
    }

    #[test]
    fn mistakes_have_a_place_and_a_way_out() {
        for (key, expected) in [
            ("allow = []", "every client would be refused"),
            ("allow = \"10.0.0.1/8\"", "write \"10.0.0.0/8\""),
            ("allow_file = \"lists/\"", "does not name a file"),
            ("alow = \"::1\"", "did you mean `allow`"),
        ] {
            let wrong = wrong(&format!("[service.access]\n{key}"));
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
