//! Which keys say something else in the text of a new file, and what: `plan` knows which things change, and
//! here is what of them. A text as it is written is compared, so `60s` and `1m` are different words for the
//! same; whoever tells of them tells of what has changed.

use std::collections::HashMap;

use toml::{Table, Value};

use super::keys::{Preset, SECTIONS};
use super::redact::without_secrets;
use crate::model::one_line;

/// One key, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// `service web`, `backend web/a`; empty outside of services.
    pub of: String,
    /// As the file has it: `weight`, `timeouts.idle`, `runtime.drain_timeout`.
    pub key: String,
    /// What it says, as short as it is: `30s`, `12 values`; what holds without it where that is known.
    pub before: String,
    /// What it says after.
    pub after: String,
}

/// What `new` says otherwise of what is in `old`, too; nothing of secrets, nor of alerts, which hold some.
/// What only one of them has is no edit.
pub fn between(old: &str, new: &str) -> Vec<Edit> {
    let read = |text: &str| without_secrets(text).parse::<Table>();
    let (Ok(old), Ok(new)) = (read(old), read(new)) else {
        // Both have taken effect, or could.
        return Vec::new();
    };
    let mut edits = Vec::new();
    walk(("", ""), &old, &new, &["service", "alert"], &mut edits);
    for (service, was, is) in twins(&old, &new, "service") {
        let of = format!("service {service}");
        walk((&of, ""), was, is, &["backend", "name"], &mut edits);
        for (backend, was, is) in twins(was, is, "backend") {
            let of = format!("backend {service}/{backend}");
            walk((&of, ""), was, is, &["name"], &mut edits);
        }
    }
    edits
}

/// The tables of an array that are in both, by name.
fn twins<'a>(
    old: &'a Table,
    new: &'a Table,
    key: &str,
) -> impl Iterator<Item = (&'a str, &'a Table, &'a Table)> {
    let all = |table: &'a Table| {
        let tables = table.get(key).and_then(Value::as_array);
        tables
            .into_iter()
            .flatten()
            .filter_map(|it| Some((name(it.as_table()?)?, it.as_table()?)))
    };
    let before: HashMap<&str, &Table> = all(old).collect();
    all(new).filter_map(move |(name, is)| Some((name, *before.get(name)?, is)))
}

/// A backend without a name is called by its address.
fn name(table: &Table) -> Option<&str> {
    let name = table.get("name").or_else(|| table.get("address"))?;
    name.as_str()
}

fn walk(
    (of, path): (&str, &str),
    old: &Table,
    new: &Table,
    skipped: &[&str],
    edits: &mut Vec<Edit>,
) {
    let nothing = Table::new();
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    for key in new.keys().chain(gone) {
        let (was, is) = (old.get(key), new.get(key));
        if was == is || skipped.contains(&&**key) {
            continue;
        }
        let path = match path {
            "" => key.clone(),
            path => format!("{path}.{key}"),
        };
        let section = |value: Option<&Value>| value.is_none_or(Value::is_table);
        match section(was) && section(is) {
            true => {
                let was = was.and_then(Value::as_table).unwrap_or(&nothing);
                let is = is.and_then(Value::as_table).unwrap_or(&nothing);
                walk((of, &path), was, is, &[], edits);
            }
            false => {
                // Where it listens is what to look at before a reload.
                let longest = match path.ends_with("listen") {
                    true => LONGEST_OF_ADDRESSES,
                    false => LONGEST,
                };
                let shown = |value: &Value| shown(value, longest);
                let said = |value: Option<&Value>| value.map_or_else(|| preset(of, &path), shown);
                edits.push(Edit {
                    of: of.to_owned(),
                    before: said(was),
                    after: said(is),
                    key: path,
                });
            }
        }
    }
}

/// A value, as short as it is read with ease: `longest` characters at most.
fn shown(value: &Value, longest: usize) -> String {
    let text = match value {
        Value::String(text) if !text.is_empty() => text.clone(),
        Value::Array(values) => {
            let text = value.to_string();
            if text.chars().count() > longest {
                return format!("{} values", values.len());
            }
            text
        }
        Value::String(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Boolean(_)
        | Value::Datetime(_)
        | Value::Table(_) => value.to_string(),
    };
    one_line(&text, longest)
}

/// What holds while a key is not written.
fn preset(of: &str, path: &str) -> String {
    let whole = match of.split_once(' ') {
        Some(("backend", _)) => format!("service.backend.{path}"),
        Some((_, _)) => format!("service.{path}"),
        None => path.to_owned(),
    };
    let (section, name) = whole.rsplit_once('.').unwrap_or(("", &whole));
    let mut all = SECTIONS.iter().filter(|it| it.path == section);
    let key = all.find_map(|it| it.keys.iter().find(|key| key.name == name));
    match key.map(|key| key.preset) {
        Some(Preset::Is(value)) => {
            let bare = value.strip_prefix('"').and_then(|it| it.strip_suffix('"'));
            format!("{} (default)", bare.unwrap_or(value))
        }
        Some(Preset::Derived(words)) => format!("default ({words})"),
        Some(Preset::Required | Preset::Off | Preset::Section) | None => "nothing".to_owned(),
    }
}

/// Characters of a value, …
const LONGEST: usize = 40;
/// … and of addresses to listen at.
const LONGEST_OF_ADDRESSES: usize = 400;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(old: &str, new: &str) -> Vec<String> {
        let line = |it: Edit| format!("{}: {}: {} → {}", it.of, it.key, it.before, it.after);
        between(old, new).into_iter().map(line).collect()
    }

    #[test]
    fn each_key_is_told_with_what_it_said_and_what_it_says() {
        let old = "[runtime]\ndrain_timeout = \"30s\"\n\
            [[service]]\nname = \"web\"\nlisten = \"[::]:1\"\n\
            access.deny = [\"9.0.0.0/8\"]\n\
            [[service.backend]]\nname = \"a\"\naddress = \"2.2.2.2:2\"\n\
            [[service.backend]]\naddress = \"2.2.2.2:3\"\nweight = 3\n\
            [[service.backend]]\naddress = \"2.2.2.2:4\"\n";
        let new = "[runtime]\ndrain_timeout = \"1m\"\n\
            [[service]]\nname = \"web\"\nlisten = [\"[::]:1\", \"[::]:2\"]\n\
            timeouts.idle = \"9s\"\n\
            access.deny = [\"9.0.0.0/8\", \"10.0.0.0/8\", \"11.0.0.0/8\", \"12.0.0.0/8\"]\n\
            [[service.backend]]\nname = \"a\"\naddress = \"2.2.2.2:2\"\nweight = 2\n\
            [[service.backend]]\naddress = \"2.2.2.2:3\"\nenabled = false\n\
            [[service.backend]]\naddress = \"2.2.2.2:5\"\n";
        assert_eq!(
            told(old, new),
            [
                ": runtime.drain_timeout: 30s → 1m",
                "service web: access.deny: [\"9.0.0.0/8\"] → 4 values",
                "service web: listen: [::]:1 → [\"[::]:1\", \"[::]:2\"]",
                "service web: timeouts.idle: 1h (default) → 9s",
                "backend web/a: weight: 1 (default) → 2",
                "backend web/2.2.2.2:3: enabled: true (default) → false",
                "backend web/2.2.2.2:3: weight: 3 → 1 (default)",
            ]
        );
        assert_eq!(told(new, new), [""; 0]);
        assert_eq!(told(new, "not = toml = at all"), [""; 0]);
    }

    #[test]
    fn addresses_to_listen_at_are_told_one_by_one() {
        let file = |port: u16| {
            let socket = "unix:/run/ballast/admin.sock";
            format!("[admin]\nlisten = [\"{socket}\", \"192.0.2.10:{port}\", \"[::1]:{port}\"]\n")
        };
        let line = |port: u16| file(port).replace("[admin]\nlisten = ", "");
        let (was, is) = (line(1), line(2));
        let wanted = format!(": admin.listen: {} → {}", was.trim_end(), is.trim_end());
        assert_eq!(told(&file(1), &file(2)), [wanted]);
    }

    #[test]
    fn no_secret_is_told() {
        let file = |secret: &str| {
            format!(
                "[[service]]\nname = \"web\"\nlisten = \"[::]:1\"\nhealth.password = \"{secret}\"\n\
                 [[alert]]\nname = \"ops\"\nwebhook = \"https://a.example/{secret}\"\n"
            )
        };
        assert_eq!(told(&file("one"), &file("two")), [""; 0]);
    }
}
