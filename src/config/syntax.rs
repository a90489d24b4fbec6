//! Text → spanned tree, with every syntax error, and what of the tree can still be believed after one.
//!
//! The parser recovers: it skips what it does not understand and goes on. That finds all syntax errors
//! at once, but what it guessed around one would be reported as a second, imaginary problem.

use std::collections::BTreeSet;

use toml::de::DeTable;

use super::problem::{Problem, Problems};
use super::source::{Source, Span};

/// The tree, and how far it goes astray.
#[derive(Debug)]
pub(super) struct Parsed<'a> {
    pub(super) root: DeTable<'a>,
    pub(super) doubt: Doubt,
}

/// Lines on which the tree is a guess, counted from 0.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    lines: BTreeSet<usize>,
    /// Where the sections of broken headers begin and end.
    sections: Vec<(usize, usize)>,
}

impl Doubt {
    /// Whether `problem` may be an echo of a syntax error.
    pub(super) fn covers(&self, problem: &Problem, source: &Source<'_>) -> bool {
        if self.lines.is_empty() {
            return false;
        }
        let Some(span) = &problem.span else {
            return problem.absence;
        };
        let line = source.line_of(span.start);
        let section = self.sections.partition_point(|&(from, _)| from <= line);
        let astray = section
            .checked_sub(1)
            .and_then(|index| self.sections.get(index))
            .is_some_and(|&(_, to)| line < to);
        problem.absence || astray || self.lines.contains(&line)
    }
}

pub(super) fn parse<'a>(source: &Source<'a>, problems: &mut Problems) -> Parsed<'a> {
    let (root, errors) = DeTable::parse_recoverable(source.text());
    let mut doubt = Doubt::default();
    for error in &errors {
        let end = source.text().len();
        let span = source.clamp(&error.span().unwrap_or(end..end));
        let line = source.line_of(span.start);
        // The first error of a line is the mistake; the others are what recovery made of it.
        if doubt.lines.insert(line) {
            problems.add(explained(error.message(), &span, source.line(line), source));
        }
    }
    let broken = doubt.lines.iter().copied();
    for line in broken.filter(|&line| is_header(source.line(line))) {
        // Sections do not nest in the text, so the scans of all of them are one pass over the file.
        let next = (line + 1..source.lines()).find(|&line| is_header(source.line(line)));
        doubt.sections.push((line, next.unwrap_or(source.lines())));
    }
    Parsed {
        root: root.into_inner(),
        doubt,
    }
}

fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn explained(message: &str, span: &Span, line: &str, source: &Source<'_>) -> Problem {
    // The parser puts what it expected behind a comma; that belongs beside the caret.
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let mut problem = match what {
        "duplicate key" => Problem::error(format!(
            "`{}` is written twice",
            super::problem::shown(source.slice(span))
        ))
        .help("keep one of them"),
        _ => Problem::error(format!("not valid TOML: {what}")),
    }
    .at(span.clone());
    if let Some(expected) = expected.filter(|expected| *expected != "nothing") {
        problem = problem.label(format!("expected {expected}"));
    }
    if problem.help.is_none()
        && let Some(help) = unquoted(line)
    {
        problem = problem.help(help);
    }
    problem
}

/// A value that only lacks its quotes, such as `idle = 1h` or `listen = 0.0.0.0:80`.
fn unquoted(line: &str) -> Option<String> {
    let (_, value) = line.split_once('=')?;
    let value = value.split('#').next().unwrap_or(value).trim();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '*' | '/');
    let fits = !value.is_empty() && value.len() <= LONGEST_UNQUOTED && value.chars().all(plain);
    fits.then(|| format!("write \"{value}\" with quotes"))
}

const LONGEST_UNQUOTED: usize = 60;
