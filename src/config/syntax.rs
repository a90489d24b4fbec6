//! Text → spanned tree, with every syntax error, and what of the tree can still be believed after one.
//!
//! The parser recovers: it skips what it does not understand and goes on. That finds many syntax errors
//! at once, but what it guessed around one would be reported as a second, imaginary problem.

use std::collections::BTreeSet;
use std::ops::Range;

use toml::de::{DeTable, Error};

use super::decode::is_single;
use super::keys::SECTIONS;
use super::problem::{Problem, Problems, Severity};
use super::source::{Source, Span};

/// What cannot be believed of the tree of a file with syntax errors.
#[derive(Debug, Default)]
pub(super) struct Doubt {
    /// Lines with an error, counted from 0.
    broken: BTreeSet<usize>,
}

impl Doubt {
    /// Whether `problem` may be an echo of a syntax error: what seems to be missing, or to have no effect, may be
    /// so because of what could not be read.
    pub(super) fn covers(&self, problem: &Problem, source: &Source<'_>) -> bool {
        let echo = |span: &Span| self.broken.contains(&source.line_of(span.start));
        let shaky = problem.absence || problem.severity == Severity::Warning;
        !self.broken.is_empty() && (shaky || problem.span.as_ref().is_some_and(echo))
    }
}

/// Reports the syntax `errors` of `source`, and returns the text without the lines that have any, byte
/// for byte in its place.
///
/// The parser gives up on the rest of a file after some errors, so it is shown the mended text until it
/// finds no more; what it says about lines that only make sense beside a blanked one is not reported.
pub(super) fn mend(
    source: &Source<'_>,
    mut errors: Vec<Error>,
    problems: &mut Problems,
) -> (String, Doubt) {
    let mut doubt = Doubt::default();
    let mut text = source.text().as_bytes().to_vec();
    let mut mended = source.text().to_owned();
    let rounds = match source.text().len() {
        0..=LARGE => MOST_ROUNDS,
        _ => MOST_ROUNDS_OF_LARGE,
    };
    for round in 0..rounds {
        let mut blanked = false;
        let mut blank = |lines: Range<usize>| {
            let bytes = source.line_span(lines.start).start..source.line_span(lines.end - 1).end;
            for byte in text[bytes].iter_mut().filter(|byte| **byte != b'\n') {
                *byte = b' ';
            }
            blanked = true;
        };
        errors.sort_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
        for error in &errors {
            let end = source.text().len();
            let span = source.clamp(&error.span().unwrap_or(end..end));
            let number = source.line_of(span.start);
            // The first error of a line is the mistake; the others are what recovery made of it.
            if !doubt.broken.insert(number) {
                continue;
            }
            let line = source.line(number);
            if let Some((from, bracket)) = unclosed(error.message(), &span, number, source) {
                doubt.broken.insert(from);
                problems.add(
                    Problem::error("not valid TOML: this bracket is not closed")
                        .at(bracket)
                        .label("or a comma is missing after one of its elements"),
                );
                // All that follows was read as its inside; the next round reads it afresh.
                if from < number {
                    doubt.broken.remove(&number);
                }
                blank(from..number.max(from + 1));
                break;
            }
            if error.message().starts_with(DUPLICATE)
                && let Some((list, strays)) = strays(line, number, source)
            {
                // The mistake is up there, and this header is as it should be.
                doubt.broken.remove(&number);
                for stray in strays {
                    doubt.broken.insert(stray);
                    problems.add(misplaced(stray, list, source));
                    let path = header(source.line(stray)).unwrap_or_default();
                    blank(stray..end_of_section(source, stray, path));
                }
                break;
            }
            if error.message().starts_with(DUPLICATE)
                && let Some((list, singles)) = singles(line, source)
            {
                problems.add(several(list, &singles, source));
                for single in singles {
                    doubt.broken.insert(single);
                    blank(single..end_of_section(source, single, list));
                }
                break;
            }
            if round == 0 || stands_alone(line) {
                problems.add(explained(error.message(), &span, line, source));
            }
            // A table that is there twice is merged, which is harmless. After a header that cannot be
            // read nobody knows where its keys belong, nor those of its sub-sections.
            match header(line) {
                Some(_) if error.message().starts_with(DUPLICATE) => {}
                Some(path) => {
                    blank(number..end_of_section(source, number, path));
                    break;
                }
                None => blank(number..number + 1),
            }
        }
        let flood = doubt.broken.len() > MOST_BROKEN;
        // Whole lines of UTF-8 became ASCII, so it is UTF-8 still.
        mended = String::from_utf8(std::mem::take(&mut text)).unwrap_or_default();
        if !blanked || flood || round + 1 == rounds {
            break;
        }
        errors = DeTable::parse_recoverable(&mended).1;
        text = mended.clone().into_bytes();
    }
    (mended, doubt)
}

/// The list of sections that begins with `line`, by its number, and the lines of headers before it that name a part
/// of one, such as `[service.health]` before the first `[[service]]`, or `[service]`: the parser takes that for a
/// single section, and every one of the list for another of that name.
fn strays<'l>(line: &'l str, number: usize, source: &Source<'_>) -> Option<(&'l str, Vec<usize>)> {
    let list = header(line).filter(|_| is_list(line))?;
    let mut strays = Vec::new();
    for before in 0..number {
        match header(source.line(before)).and_then(|path| path.strip_prefix(list)) {
            Some("") if is_list(source.line(before)) => return None,
            Some("") => {
                // What comes after it is below it.
                strays.push(before);
                break;
            }
            Some(rest) if rest.starts_with('.') => strays.push(before),
            Some(_) | None => {}
        }
    }
    (!strays.is_empty()).then_some((list, strays))
}

/// The list of sections that `line` names with one pair of brackets, by its number, and every line of the file that
/// does: each is meant to be a further one.
fn singles<'l>(line: &'l str, source: &Source<'_>) -> Option<(&'l str, Vec<usize>)> {
    let list = header(line)?;
    SECTIONS
        .iter()
        .find(|it| it.path == list && is_list(it.header))?;
    let is_one = |line: &str| header(line) == Some(list) && !is_list(line);
    let all = (0..source.lines()).filter(|&it| is_one(source.line(it)));
    is_one(line).then(|| (list, all.collect()))
}

/// The problem of all of them: at the first, since they are one mistake.
fn several(list: &str, singles: &[usize], source: &Source<'_>) -> Problem {
    let (&first, others) = singles.split_first().unwrap_or((&0, &[]));
    let problem = is_single(list, &format!("[[{list}]]"), whole_line(first, source));
    let mut numbers: Vec<String> = others.iter().map(|it| (it + 1).to_string()).collect();
    let lines = match numbers.len() {
        0 => return problem,
        1 => "line",
        _ => "lines",
    };
    if numbers.len() > MOST_LINES_TOLD {
        numbers.truncate(MOST_LINES_TOLD);
        numbers.push("…".to_owned());
    }
    problem.help(format!(
        "write [[{list}]] here and in {lines} {}, since there may be several",
        numbers.join(", ")
    ))
}

/// What is written in that line.
fn whole_line(number: usize, source: &Source<'_>) -> Span {
    let line = source.line(number);
    let start = source.line_span(number).start + (line.len() - line.trim_start().len());
    start..start + line.trim().len()
}

/// Whether the header that `line` is begins with two brackets.
fn is_list(line: &str) -> bool {
    line.trim_start().starts_with("[[")
}

/// The problem of one of them.
fn misplaced(stray: usize, list: &str, source: &Source<'_>) -> Problem {
    let at = whole_line(stray, source);
    if header(source.line(stray)) == Some(list) {
        return is_single(list, &format!("[[{list}]]"), at);
    }
    Problem::error(format!("this section stands before the first [[{list}]]"))
        .at(at)
        .label("nobody can say whose it is")
        .help(format!("put it below the [[{list}]] that it is meant for"))
}

/// The line and the place of the bracket that is not closed, if that is what `message` comes down to:
/// the parser notices at a later statement, which it takes for an element.
fn unclosed(
    message: &str,
    span: &Span,
    number: usize,
    source: &Source<'_>,
) -> Option<(usize, Span)> {
    let inside = [
        "missing comma between",
        "missing key for inline",
        "unexpected `=` in",
    ];
    let before = source.slice(&(source.line_span(number).start..span.start));
    let as_value = message.starts_with("string values must be quoted") && !before.contains('=');
    let later = (as_value || inside.iter().any(|text| message.starts_with(text)))
        && stands_alone(source.line(number));
    let at_once = message.starts_with("unclosed array,") || message.starts_with("unclosed inline");
    if !later && !at_once {
        return None;
    }
    let last = if later {
        number.checked_sub(1)?
    } else {
        number
    };
    let first = last.saturating_sub(MOST_LINES_OF_A_VALUE);
    (first..=last).rev().find_map(|number| {
        let line = source.line(number);
        let (_, value) = line.split_once('=').filter(|_| stands_alone(line))?;
        let value = value.trim_start();
        let at = source.line_span(number).start + (line.len() - value.len());
        value
            .starts_with(['[', '{'])
            .then_some((number, at..at + 1))
    })
}

/// Whether a line is a statement of its own, rather than the inside of an array or a long string.
fn stands_alone(line: &str) -> bool {
    let line = line.trim_start();
    let rest = line.trim_start_matches(is_key);
    let assignment = rest.len() < line.len() && rest.trim_start().starts_with('=');
    let header = line.trim_start_matches('[');
    assignment || header.len() < line.len() && header.starts_with(is_key)
}

/// The parser's word for a key or a table that is there already.
const DUPLICATE: &str = "duplicate key";
/// Lines over which an opening bracket is looked for.
const MOST_LINES_OF_A_VALUE: usize = 1000;
/// Lines that are told of beside the first.
const MOST_LINES_TOLD: usize = 10;
/// Rounds of mending; each finds what the one before it hid.
const MOST_ROUNDS: usize = 32;
/// Rounds for a file larger than [`LARGE`], whose parsing takes its time.
const MOST_ROUNDS_OF_LARGE: usize = 1;
/// Bytes that are parsed in no time.
const LARGE: usize = 1 << 20;
/// With more broken lines than this the file is something else than a configuration with slips.
const MOST_BROKEN: usize = 200;

/// The path in the header that `line` is, or seems meant to be.
fn header(line: &str) -> Option<&str> {
    let path = line.trim_start().strip_prefix('[')?;
    let path = path.trim_start_matches(['[', ' ', '\t']);
    let end = path.find(|c: char| !is_key(c)).unwrap_or(path.len());
    Some(&path[..end])
}

/// The line after the section whose header on line `number` names `path`, and after its sub-sections.
fn end_of_section(source: &Source<'_>, number: usize, path: &str) -> usize {
    let mut after = number + 1..source.lines();
    let known = SECTIONS
        .iter()
        .any(|it| !path.is_empty() && it.path == path);
    let next = after.find(|&line| {
        header(source.line(line)).is_some_and(|other| match known {
            true => !other
                .strip_prefix(path)
                .is_some_and(|rest| rest.starts_with('.')),
            false => !other.contains('.'),
        })
    });
    next.unwrap_or(source.lines())
}

fn is_key(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.')
}

fn explained(message: &str, span: &Span, line: &str, source: &Source<'_>) -> Problem {
    // The parser puts what it expected behind a comma; that belongs beside the caret.
    let (what, expected) = match message.split_once(", expected ") {
        Some((what, expected)) => (what, Some(expected)),
        None => (message, None),
    };
    let mut problem = match what {
        DUPLICATE => Problem::error(format!(
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
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '-' | '_' | '*' | '/');
    let fits = !value.is_empty() && value.len() <= LONGEST_UNQUOTED && value.chars().all(plain);
    fits.then(|| format!("write \"{value}\" with quotes"))
}

const LONGEST_UNQUOTED: usize = 60;
