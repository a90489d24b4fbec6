//! A walk over the spanned tree of a file, one section at a time: what is there is read, what is wrong
//! is collected, and the walk goes on. Knows types and ranges; what a value *means* is decided in
//! [`compile`](super::compile).

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::foreign;
use super::keys::Section;
use super::problem::{Problem, Problems, shown};
use super::source::Span;
use super::unknown::{called, nearest, unknown_key, unknown_word};
use super::value::{self, Fault};

/// One section as it is written, or as it is not.
#[derive(Debug)]
pub(super) struct Table<'t> {
    section: &'static Section,
    entries: Option<&'t DeTable<'t>>,
    span: Option<Span>,
    /// Keys that an unknown key was probably meant to be: not to be called missing as well.
    mistyped: Vec<&'static str>,
}

impl<'t> Table<'t> {
    /// The section over `entries`, whose unknown keys are reported at once.
    pub(super) fn open(
        section: &'static Section,
        entries: &'t DeTable<'t>,
        span: Option<Span>,
        problems: &mut Problems,
    ) -> Self {
        let mut mistyped = Vec::new();
        for key in entries.keys().filter(|key| !section.has(key.get_ref())) {
            let foreign = foreign::key(key.get_ref());
            let near = match foreign {
                Some(foreign) => section
                    .keys
                    .iter()
                    .map(|it| it.name)
                    .find(|it| *it == foreign.key),
                None => nearest(key.get_ref(), section.keys.iter().map(|key| key.name)),
            };
            mistyped.extend(near);
            problems.add(unknown_key(section, key, near));
        }
        Self {
            section,
            entries: Some(entries),
            span,
            mistyped,
        }
    }

    /// The section when it is not written: every key has its default.
    fn absent(section: &'static Section) -> Self {
        Self {
            section,
            entries: None,
            span: None,
            mistyped: Vec::new(),
        }
    }

    /// Where the section's header is.
    pub(super) fn span(&self) -> Option<Span> {
        self.span.clone()
    }

    /// A problem for what the section needs and has not.
    pub(super) fn missing(&self, message: impl Into<String>) -> Problem {
        Problem::error(message).absent().under(self.span())
    }

    /// The value of `key` as it is written.
    pub(super) fn get(&self, key: &'static str) -> Option<&'t Spanned<DeValue<'t>>> {
        debug_assert!(self.section.has(key), "{key} is not in the table of keys");
        self.entries?.get(key)
    }

    /// Where the value of `key` is.
    pub(super) fn span_of(&self, key: &'static str) -> Option<Span> {
        self.get(key).map(Spanned::span)
    }

    /// Whether `key` is neither there nor there under a mistyped name.
    pub(super) fn lacks(&self, key: &'static str) -> bool {
        self.get(key).is_none() && !self.mistyped.contains(&key)
    }

    pub(super) fn integer(
        &self,
        key: &'static str,
        allowed: &RangeInclusive<u32>,
        problems: &mut Problems,
    ) -> Option<u32> {
        let value = self.get(key)?;
        let range = format!("allowed: {} to {}", allowed.start(), allowed.end());
        let Some(integer) = value.get_ref().as_integer() else {
            let mut problem = mistype(key, value, "an integer").label(range);
            let text = value.get_ref().as_str().map(str::trim);
            if let Some(number) = text.and_then(|text| text.parse::<u32>().ok()) {
                problem = problem.help(format!("write {number} without quotes"));
            }
            problems.add(problem);
            return None;
        };
        let digits = integer.as_str().replace('_', "");
        let number = i128::from_str_radix(&digits, integer.radix()).ok();
        let fitting = number
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| allowed.contains(number));
        if fitting.is_none() {
            let written = integer.to_string();
            let message = format!("`{key}` is {}, which is out of range", shown(&written));
            problems.add(Problem::error(message).at(value.span()).label(range));
        }
        fitting
    }

    pub(super) fn boolean(&self, key: &'static str, problems: &mut Problems) -> Option<bool> {
        let value = self.get(key)?;
        let boolean = value.get_ref().as_bool();
        if boolean.is_none() {
            let mut problem = mistype(key, value, "a boolean").label("allowed: true or false");
            if let Some(text @ ("true" | "false")) = value.get_ref().as_str() {
                problem = problem.help(format!("write {text} without quotes"));
            }
            problems.add(problem);
        }
        boolean
    }

    /// A string that `read` makes a value of.
    pub(super) fn parsed<T>(
        &self,
        key: &'static str,
        problems: &mut Problems,
        read: impl FnOnce(&'t str) -> Result<T, Fault>,
    ) -> Option<T> {
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            problems.add(unquoted(key, value, read));
            return None;
        };
        read(text)
            .map_err(|fault| problems.add(fault.at(value.span())))
            .ok()
    }

    /// A string, or a list of strings, each with its place.
    pub(super) fn texts(
        &self,
        key: &'static str,
        problems: &mut Problems,
    ) -> Option<Vec<(&'t str, Span)>> {
        let value = self.get(key)?;
        let items = match value.get_ref().as_array() {
            Some(items) => items.iter().collect(),
            None => vec![value],
        };
        let read: Vec<_> = items
            .into_iter()
            .map(|item| {
                let text = item.get_ref().as_str();
                if text.is_none() {
                    problems.add(mistype(key, item, "a string, or a list of them"));
                }
                Some((text?, item.span()))
            })
            .collect();
        read.into_iter().collect()
    }

    pub(super) fn duration(
        &self,
        key: &'static str,
        allowed: &RangeInclusive<Duration>,
        problems: &mut Problems,
    ) -> Option<Duration> {
        let value = self.get(key)?;
        let Some(text) = value.get_ref().as_str() else {
            let help = match value.get_ref().as_integer() {
                Some(number) => format!("write \"{}s\" for seconds", shown(&number.to_string())),
                None => "write it like \"500ms\", \"2s\", \"1h30m\"".to_owned(),
            };
            problems.add(
                mistype(key, value, "a duration in quotes")
                    .label(format!("allowed: {}", value::span_of(allowed)))
                    .help(help),
            );
            return None;
        };
        value::duration(key, text, allowed)
            .map_err(|fault| problems.add(fault.at(value.span())))
            .ok()
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &self,
        key: &'static str,
        choices: &[(&'static str, T)],
        problems: &mut Problems,
    ) -> Option<T> {
        self.parsed(key, problems, |text| {
            let found = choices.iter().find(|(word, _)| *word == text);
            found
                .map(|&(_, choice)| choice)
                .ok_or_else(|| unknown_word(key, text, choices.iter().map(|&(word, _)| word)))
        })
    }

    /// The sub-section `key`, absent when it is not written or not a table.
    pub(super) fn table(
        &self,
        key: &'static str,
        section: &'static Section,
        problems: &mut Problems,
    ) -> Table<'t> {
        let Some(value) = self.get(key) else {
            return Table::absent(section);
        };
        match value.get_ref().as_table() {
            Some(entries) => Table::open(section, entries, Some(value.span()), problems),
            None => {
                let problem = mistype(key, value, "a section");
                problems.add(problem.help(format!("write {}", section.header)));
                Table::absent(section)
            }
        }
    }

    /// The sub-sections `[[key]]`, in the order of the file.
    pub(super) fn tables(
        &self,
        key: &'static str,
        section: &'static Section,
        problems: &mut Problems,
    ) -> Vec<Table<'t>> {
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let header = section.header;
        if let Some(single) = value.get_ref().as_table() {
            if are_parts(single) {
                // Below a mistyped header they are as they should be.
                if !self.mistyped.contains(&key) {
                    let problem = Problem::error(format!("this section stands in no {header}"));
                    let help = match called(single, section) {
                        Some(name) => format!("write {header}, and below it name = \"{name}\""),
                        None => format!("write {header} above it"),
                    };
                    problems.add(problem.at(value.span()).help(help));
                }
                return Vec::new();
            }
            // Read all the same, so that its own problems are reported along with its header.
            problems.add(is_single(key, header, value.span()));
            return vec![Table::open(section, single, Some(value.span()), problems)];
        }
        let Some(items) = value.get_ref().as_array() else {
            problems.add(mistype(key, value, "a list of sections").help(format!("write {header}")));
            return Vec::new();
        };
        let mut tables = Vec::with_capacity(items.len());
        for item in items.iter() {
            match item.get_ref().as_table() {
                Some(entries) => {
                    tables.push(Table::open(section, entries, Some(item.span()), problems));
                }
                None => problems
                    .add(mistype(key, item, "a section").help(format!("write {header} for each"))),
            }
        }
        tables
    }
}

/// Whether nothing is in it but sections, whose headers name it and are all that there is of it.
fn are_parts(table: &DeTable<'_>) -> bool {
    let is_section = |value: &Spanned<DeValue<'_>>| match value.get_ref() {
        DeValue::Table(_) => true,
        DeValue::Array(items) => items.iter().any(|it| it.get_ref().is_table()),
        DeValue::String(_)
        | DeValue::Integer(_)
        | DeValue::Float(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_) => false,
    };
    !table.is_empty() && table.values().all(is_section)
}

/// `[key]` where a list of sections is meant.
pub(super) fn is_single(key: &str, header: &str, at: Span) -> Problem {
    Problem::error(format!("`{key}` is a single section"))
        .at(at)
        .label("one pair of brackets is not enough")
        .help(format!("write {header}, since there may be several"))
}

/// `key` holds something else than a string that `read` makes a value of: what `read` says of it shows one.
fn unquoted<'t, T>(
    key: &str,
    value: &'t Spanned<DeValue<'t>>,
    read: impl FnOnce(&'t str) -> Result<T, Fault>,
) -> Problem {
    let problem = mistype(key, value, "a string");
    let number = match value.get_ref() {
        DeValue::Integer(number) => Some(number.as_str()),
        DeValue::Float(number) => Some(number.as_str()),
        DeValue::String(_)
        | DeValue::Boolean(_)
        | DeValue::Datetime(_)
        | DeValue::Array(_)
        | DeValue::Table(_) => None,
    };
    match (read(number.unwrap_or_default()), number) {
        (Err(fault), _) => Problem {
            label: fault.allowed.or(problem.label),
            help: fault.help.or(problem.help),
            ..problem
        },
        (Ok(_), Some(number)) => problem.help(format!("write \"{}\" in quotes", shown(number))),
        (Ok(_), None) => problem,
    }
}

/// `key` holds something else than `wanted`.
pub(super) fn mistype(key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) -> Problem {
    let found = match value.get_ref() {
        DeValue::String(text) => format!("the string \"{}\"", shown(text)),
        DeValue::Integer(number) => format!("the integer {}", shown(&number.to_string())),
        DeValue::Float(number) => format!("the float {}", shown(number.as_str())),
        DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
        DeValue::Datetime(date) => format!("the date {date}"),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    };
    Problem::error(format!("`{key}` is {found}, not {wanted}"))
        .at(value.span())
        .label(format!("expected {wanted}"))
}
