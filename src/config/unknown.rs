//! Names that nobody knows: a key, a section, a word of a list; what was probably meant, and where it belongs.
//! What the words of other balancers are here is [`foreign`]'s business.

use std::borrow::{Borrow, Cow};

use toml::Spanned;
use toml::de::DeTable;

use super::foreign;
use super::keys::{Preset, SECTIONS, Section};
use super::problem::{Problem, shown};
use super::value::Fault;

/// `section` knows no `key`; `near` is the one of its own that was probably meant.
pub(super) fn unknown_key(
    section: &Section,
    key: &Spanned<Cow<'_, str>>,
    near: Option<&str>,
) -> Problem {
    let place = match section.header {
        "" => "at the top of the file".to_owned(),
        header => format!("in {header}"),
    };
    let names: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
    let problem = Problem::error(format!("unknown key `{}` {place}", shown(key.get_ref())))
        .at(key.span())
        .label(allowed_words(
            near.filter(|_| foreign::key(key.get_ref()).is_none())
                .map(|it| format!("`{it}`")),
            &names,
        ));
    if let Some(foreign) = foreign::key(key.get_ref()) {
        return problem.help(foreign.help);
    }
    match (near, homes(section, key.get_ref()).as_slice()) {
        (Some(_), _) | (None, []) => problem,
        (None, homes) => {
            let homes = homes.join(" or ");
            problem.help(format!("`{}` belongs in {homes}", key.get_ref()))
        }
    }
}

/// The sections that know `key`, with what it is there: those of the same kin as `section` if there are any.
fn homes(section: &Section, key: &str) -> Vec<String> {
    let kin = |other: &Section| other.path.split('.').next() == section.path.split('.').next();
    let all = SECTIONS.iter().filter(|it| !it.header.is_empty());
    let homes = all.filter_map(|home| {
        let mut known = home.keys.iter().filter(|it| it.preset != Preset::Section);
        let known = known.find(|it| it.name == key)?;
        Some((kin(home), format!("{} ({})", home.header, known.doc)))
    });
    let homes: Vec<_> = homes.collect();
    let has_kin = homes.iter().any(|(is_kin, _)| *is_kin);
    let near = homes.into_iter().filter(|(is_kin, _)| *is_kin || !has_kin);
    near.map(|(_, home)| home).collect()
}

/// What somebody has called an element of a list by its header, as in `[service.web]`.
pub(super) fn called(parts: &DeTable<'_>, section: &Section) -> Option<String> {
    let known = || section.keys.iter().map(|it| it.name);
    let mut names = parts.keys().map(Spanned::get_ref);
    let name = names.find(|it| nearest(it, known()).is_none() && foreign::key(it).is_none())?;
    section.has("name").then(|| shown(name))
}

/// `word` is none of the `allowed`.
pub(super) fn unknown_word(
    key: &str,
    word: &str,
    allowed: impl Iterator<Item = &'static str> + Clone,
) -> Fault {
    let help = foreign::strategy(word).filter(|_| key == "strategy");
    let near = nearest(word, allowed.clone()).filter(|_| help.is_none());
    let list: Vec<String> = allowed.map(|word| format!("\"{word}\"")).collect();
    let fault = Fault::new(format!("unknown {key} \"{}\"", shown(word)))
        .allowed(allowed_words(near.map(|it| format!("\"{it}\"")), &list));
    match help {
        Some(help) => fault.help(help),
        None => fault,
    }
}

/// All that is allowed; what is most likely meant comes first, since a list may be long.
fn allowed_words(near: Option<String>, list: &[impl Borrow<str>]) -> String {
    let all = format!("allowed: {}", list.join(", "));
    match near {
        Some(near) => format!("did you mean {near}? {all}"),
        None => all,
    }
}

/// The candidate that `word` is most likely a slip of.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    // A long text is no slip of a key, and the distance costs the product of the lengths.
    if word.len() > LONGEST_SLIP {
        return None;
    }
    let word = word.to_lowercase().replace('-', "_");
    candidates
        .map(|candidate| {
            let plain = candidate.replace('-', "_");
            (strsim::jaro_winkler(&word, &plain), candidate)
        })
        .filter(|&(likeness, _)| likeness >= LEAST_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

const LONGEST_SLIP: usize = 40;
/// Of Jaro and Winkler's measure: one slip in a word of five or more letters stays above it.
const LEAST_LIKENESS: f64 = 0.82;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    #[test]
    fn a_slip_is_recognised_and_a_stranger_is_not() {
        let meant = |word: &str, section: &'static Section| {
            nearest(word, section.keys.iter().map(|key| key.name))
        };
        assert_eq!(meant("strategey", &keys::SERVICE), Some("strategy"));
        assert_eq!(meant("lisen", &keys::SERVICE), Some("listen"));
        assert_eq!(meant("wieght", &keys::BACKEND), Some("weight"));
        assert_eq!(meant("adress", &keys::BACKEND), Some("address"));
        assert_eq!(meant("services", &keys::ROOT), Some("service"));
        assert_eq!(meant("half-closed", &keys::TIMEOUTS), Some("half_closed"));
        assert_eq!(meant("zzz", &keys::SERVICE), None);
        assert_eq!(meant(&"weight".repeat(1000), &keys::BACKEND), None);
    }
}
