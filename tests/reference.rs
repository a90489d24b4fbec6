//! Holds `config/ballast.toml` complete and true: each key it shows is accepted and shown with its real
//! default, and each key that is accepted is shown.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::sync::Arc;

use ballast::config::keys::{CHECK_KEYS, KINDS, Preset, SECTIONS, Section};
use ballast::config::{Config, compile};

const REFERENCE: &str = include_str!("../config/ballast.toml");

fn config(text: &str) -> Config {
    let loaded = compile(text, "config/ballast.toml").unwrap_or_else(|wrong| panic!("{wrong}"));
    loaded.config
}

/// A line of the reference that is code, commented out or not.
struct Shown<'a> {
    section: &'static Section,
    key: &'a str,
    value: &'a str,
    commented: bool,
}

/// `name = …`, as opposed to a sentence.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (key, value) = line.split_once(" = ")?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!key.is_empty() && key.chars().all(plain)).then_some((key, value))
}

fn header(line: &str) -> Option<&'static Section> {
    let known = |section: &&&Section| !section.header.is_empty() && section.header == line;
    SECTIONS.iter().find(known).copied()
}

/// The line as it would be if it were not commented out, when it is code.
fn code(line: &str) -> &str {
    let inside = line.strip_prefix("# ").unwrap_or(line);
    match assignment(inside).is_some() || header(inside).is_some() {
        true => inside,
        false => line,
    }
}

fn shown() -> Vec<Shown<'static>> {
    let mut section = SECTIONS[0];
    let mut all = Vec::new();
    for line in REFERENCE.lines() {
        let inside = code(line);
        section = header(inside).unwrap_or(section);
        if let Some((key, value)) = assignment(inside) {
            all.push(Shown {
                section,
                key,
                value,
                commented: inside != line,
            });
        }
    }
    all
}

#[test]
fn it_is_a_working_file_without_a_warning() {
    let loaded = compile(REFERENCE, "config/ballast.toml").unwrap();
    assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
}

#[test]
fn every_key_that_is_accepted_is_shown() {
    let shown: BTreeSet<(&str, &str)> =
        shown().iter().map(|it| (it.section.path, it.key)).collect();
    for section in SECTIONS {
        for key in section
            .keys
            .iter()
            .filter(|key| key.preset != Preset::Section)
        {
            let name = (section.path, key.name);
            assert!(shown.contains(&name), "{name:?} is not shown");
        }
        let header = |line: &str| code(line) == section.header;
        assert!(REFERENCE.lines().any(header) || section.header.is_empty());
    }
}

#[test]
fn every_key_that_is_shown_is_accepted_and_every_default_is_in_the_table() {
    for Shown {
        section,
        key,
        value,
        commented,
    } in shown()
    {
        let known = section.keys.iter().find(|known| known.name == key);
        let known = known.unwrap_or_else(|| panic!("{} has no key {key}", section.path));
        match known.preset {
            Preset::Is(preset) => {
                assert!(commented, "{key} is at its default and not commented out");
                assert_eq!(value, preset, "{} {key}", section.path);
            }
            Preset::Off => assert!(commented, "{key} is off by default"),
            Preset::Required | Preset::Derived(_) | Preset::Section => {}
        }
    }
}

#[test]
fn every_key_that_is_mistyped_is_refused_with_the_one_that_is_meant() {
    let lines: Vec<_> = REFERENCE.lines().collect();
    let mut section = SECTIONS[0];
    for (at, line) in lines.iter().enumerate() {
        section = header(code(line)).unwrap_or(section);
        let Some((key, value)) = assignment(code(line)) else {
            continue;
        };
        let mistyped = format!("{key}x = {value}");
        let of_section = |line: &str| header(code(line)).is_some_and(|it| it.path == section.path);
        let text: Vec<_> = lines
            .iter()
            .enumerate()
            .map(|(n, line)| match () {
                () if n == at => mistyped.as_str(),
                () if of_section(line) => code(line),
                () => line,
            })
            .collect();
        let wrong = compile(&text.join("\n"), "b.toml").expect_err(&mistyped);
        let told = wrong.to_string();
        assert!(told.contains(&format!("unknown key `{key}x`")), "{told}");
        assert!(told.contains(&format!("b.toml:{}:", at + 1)), "{told}");
    }
}

/// The lines, each with the kinds of check that have the key which it assigns, if only some have it.
fn lines() -> impl Iterator<Item = (&'static str, Option<&'static [&'static str]>)> {
    let mut section = SECTIONS[0];
    REFERENCE.lines().map(move |line| {
        section = header(code(line)).unwrap_or(section);
        let key = assignment(code(line)).filter(|_| section.path == "service.health");
        let found = key.and_then(|(key, _)| CHECK_KEYS.iter().find(|(known, _)| *known == key));
        (line, found.map(|(_, kinds)| *kinds))
    })
}

#[test]
fn each_kind_of_check_takes_the_keys_that_are_shown_for_it() {
    for kind in KINDS {
        let mut text = String::new();
        for (line, kinds) in lines() {
            let written = match (line, kinds) {
                ("# kind = \"tcp\"", _) => format!("kind = \"{kind}\""),
                (_, Some(kinds)) if kinds.contains(kind) => code(line).to_owned(),
                _ => line.to_owned(),
            };
            text += &written;
            text.push('\n');
        }
        let loaded = compile(&text, kind).unwrap_or_else(|wrong| panic!("{wrong}"));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
    }
}

#[test]
fn taking_the_comment_marks_away_changes_nothing_but_what_has_no_fixed_default() {
    let mut bare = String::new();
    for (line, kinds) in lines() {
        // A backend has an address or a srv, and the address is what the file has.
        let either = assignment(code(line)).is_some_and(|(key, _)| key == "srv");
        bare += match either || kinds.is_some() {
            true => line,
            false => code(line),
        };
        bare.push('\n');
    }
    let mut all = config(&bare);
    let some = config(REFERENCE);
    assert_ne!(all, some);
    assert_eq!(all.runtime.workers.take().unwrap().get(), 2);
    assert_eq!(all.runtime.max_connections.take().unwrap().get(), 9000);
    let check = Arc::make_mut(&mut all.services[0].check);
    assert_eq!(check.port.take(), Some(8081));
    let address = Arc::make_mut(&mut all.services[0].backends)[0]
        .check_address
        .take();
    assert_eq!(address, Some("10.0.0.11:8081".parse().unwrap()));
    let alerts: Vec<_> = all.alerts.drain(..).map(|alert| alert.name).collect();
    assert_eq!(alerts, ["chat".into(), "pager".into()]);
    assert_eq!(all.discovery.resolvers.split_off(0).len(), 1);
    assert!(all.services[0].backends_file.take().is_some());
    let web = &mut all.services[0];
    assert_eq!(web.parameters.max_load.take(), Some(1250));
    assert_eq!(web.max_lifetime.take().unwrap().as_secs(), 12 * 3600);
    assert_eq!(all.runtime.accept_rate.take().unwrap().count(), 20_000);
    let web = &mut all.services[0];
    assert!(web.admission.access.take().is_some());
    let limits = std::mem::take(&mut web.admission.limits);
    assert_eq!(limits.max_connections.unwrap().most, 5000);
    assert_eq!(limits.accept_rate.unwrap().most.count(), 500);
    assert_eq!(limits.source.most.unwrap().get(), 100);
    assert_eq!(limits.source.rate.unwrap().count(), 50);
    let proxy = &mut web.proxy;
    assert_eq!(proxy.accept.take().unwrap().timeout.as_secs(), 3);
    assert!(!proxy.send.take().unwrap().unique_id);
    // What is sent to backends goes in front of their checks, too.
    let check = Arc::make_mut(&mut web.check);
    assert!(check.proxy.take().is_none());
    // They leave as sessions do.
    assert_eq!(check.egress.take().unwrap().mark, Some(1));
    let socket = std::mem::take(&mut web.socket);
    assert_eq!(socket.access.owner.as_deref(), Some("www-data"));
    assert!(socket.outgoing.is_some() && socket.incoming.defer_accept.is_some());
    assert_eq!(socket.incoming.tuning.keepalive, None);
    let first = &mut Arc::make_mut(&mut web.backends)[0];
    assert_eq!(first.max_connections.take().unwrap().get(), 200);
    assert!(all.runtime.state_file.take().is_some());
    let runtime = &mut all.runtime;
    let user = (runtime.user.take(), runtime.group.take());
    assert_eq!(user, (Some("ballast".into()), Some("ballast".into())));
    let admin = &mut all.admin;
    assert_eq!(admin.listen.drain(..).count(), 2);
    let owner = (admin.access.owner.take(), admin.access.group.take());
    assert_eq!(owner, (Some("ballast".into()), Some("operators".into())));
    assert!(admin.token_file.take().is_some());
    assert_eq!(all, some);
}
