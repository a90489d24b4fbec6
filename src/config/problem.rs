//! What is wrong with a file, and the report of all of it. How a report looks is
//! [`render`](super::render)'s business.

use std::path::{Path, PathBuf};

use super::socket::Demand;
use super::source::{Place, Source, Span};

/// Whether a problem keeps the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but it is hardly what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Whether it keeps the file from being used.
    pub severity: Severity,
    /// What is wrong, with the offending value; a lowercase fragment.
    pub message: String,
    /// The bytes of the source that it is about; `None` when it is about the whole file.
    pub span: Option<Span>,
    /// Written beside the caret: what is allowed, or what is missing.
    pub label: Option<String>,
    /// Context, such as where the first of two twins is.
    pub note: Option<String>,
    /// What to write instead.
    pub help: Option<String>,
    /// Where it is; filled in for the problems that a report shows.
    pub place: Option<Place>,
    /// Whether it is about something that is not there: after a syntax error it may well be there.
    pub(super) absence: bool,
}

impl Problem {
    pub(super) fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            message: message.into(),
            span: None,
            label: None,
            note: None,
            help: None,
            place: None,
            absence: false,
        }
    }

    pub(super) fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    pub(super) fn at(mut self, span: Span) -> Self {
        self.span = Some(span);
        self
    }

    /// At the header of a section, if that is written.
    pub(super) fn under(self, header: Option<Span>) -> Self {
        Self {
            span: header,
            ..self
        }
    }

    pub(super) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(label.into());
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn absent(mut self) -> Self {
        self.absence = true;
        self
    }
}

/// Collects problems. Bounded: beyond [`Problems::MOST_KEPT`] of a severity they are only counted,
/// so that a wrong file of megabytes does not become a report of gigabytes.
#[derive(Debug, Default)]
pub(super) struct Problems {
    kept: Vec<Problem>,
    errors: usize,
    warnings: usize,
    needs: Vec<(Need, Span)>,
    demands: Vec<(Demand, Span)>,
}

/// Something outside a file that it counts on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// One that can be started.
    Program(PathBuf),
    /// One that can be written to.
    Directory(PathBuf),
    /// One that can be read once it is there.
    Later(PathBuf),
    /// One that can be read and has a token in it: who is let in.
    Token(PathBuf),
    /// The same of a token that is sent: nobody who is served needs it.
    Secret(PathBuf),
    /// A socket that can be made.
    Socket(PathBuf),
    /// One that a daemon becomes.
    Account {
        /// By name or number.
        user: String,
        /// The same; `None` is the user's own.
        group: Option<String>,
    },
}

impl Need {
    /// Where it is, if it is a file.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Account { .. } => None,
            Self::Program(path)
            | Self::Directory(path)
            | Self::Later(path)
            | Self::Token(path)
            | Self::Secret(path)
            | Self::Socket(path) => Some(path),
        }
    }

    /// The same, whose relative path begins in `directory`.
    pub(super) fn within(mut self, directory: &Path) -> Self {
        match &mut self {
            Self::Program(path)
            | Self::Directory(path)
            | Self::Later(path)
            | Self::Token(path)
            | Self::Secret(path)
            | Self::Socket(path) => *path = directory.join(&*path),
            Self::Account { .. } => {}
        }
        self
    }
}

/// What is in the way of a need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lack {
    /// It may be better when it is needed: a warning.
    Now(String),
    /// It works, and is better otherwise: a warning.
    Unwise {
        /// What is unwise about it.
        message: String,
        /// What to do about it.
        help: String,
    },
    /// It will be no better: an error.
    Barred {
        /// What is in the way.
        message: String,
        /// What to do about it.
        help: String,
    },
}

impl Problems {
    pub(super) const MOST_KEPT: usize = 1000;

    /// Notes that what is written at `span` counts on something.
    pub(super) fn need(&mut self, need: Need, span: Span) {
        // No more than there are paths in the file, whose size is bounded.
        self.needs.push((need, span));
    }

    /// Notes that what is written at `span` is for the kernel to grant.
    pub(super) fn demand(&mut self, demand: Demand, span: Span) {
        if self.demands.len() < Self::MOST_KEPT {
            self.demands.push((demand, span));
        }
    }

    /// What the kernel is to be asked for.
    pub(super) fn take_demands(&mut self) -> Vec<(Demand, Span)> {
        std::mem::take(&mut self.demands)
    }

    /// Adds a problem for each need that `lacks` something, and gives all of them back.
    pub(super) fn tell_needs(&mut self, lacks: impl Fn(&Need) -> Option<Lack>) -> Vec<Need> {
        let needs = std::mem::take(&mut self.needs);
        for (need, span) in &needs {
            match lacks(need) {
                Some(Lack::Now(lack)) => {
                    let label = match need {
                        Need::Program(_) => "it could not be started now",
                        Need::Directory(_) => "nothing could be saved there now",
                        Need::Later(_) | Need::Token(_) | Need::Secret(_) => {
                            "it could not be read now"
                        }
                        Need::Socket(_) => "it could not be made now",
                        Need::Account { .. } => "nobody could become it now",
                    };
                    self.add(Problem::warning(lack).at(span.clone()).label(label));
                }
                Some(Lack::Unwise { message, help }) => {
                    self.add(Problem::warning(message).at(span.clone()).help(help));
                }
                Some(Lack::Barred { message, help }) => {
                    self.add(Problem::error(message).at(span.clone()).help(help));
                }
                None => {}
            }
        }
        needs.into_iter().map(|(need, _)| need).collect()
    }

    pub(super) fn add(&mut self, problem: Problem) {
        let count = match problem.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= Self::MOST_KEPT {
            self.kept.push(problem);
        }
    }

    pub(super) fn errors(&self) -> usize {
        self.errors
    }

    /// Drops what `unwanted` says is the echo of another problem.
    pub(super) fn discard(&mut self, unwanted: impl Fn(&Problem) -> bool) {
        for problem in self.kept.extract_if(.., |problem| unwanted(problem)) {
            match problem.severity {
                Severity::Error => self.errors -= 1,
                Severity::Warning => self.warnings -= 1,
            }
        }
    }

    /// Everything of `other` too.
    pub(super) fn append(&mut self, other: Self) {
        let errors = self.errors + other.errors;
        let warnings = self.warnings + other.warnings;
        for problem in other.kept {
            self.add(problem);
        }
        (self.errors, self.warnings) = (errors, warnings);
    }

    /// The report: in the order of the file, errors before warnings where not all of them fit.
    pub(super) fn report(self, origin: &str, source: &Source<'_>) -> Report {
        let Self {
            kept: mut shown,
            errors,
            warnings,
            needs: _,
            demands: _,
        } = self;
        shown.sort_by_key(|problem| (problem.severity == Severity::Warning, position(problem)));
        shown.truncate(Report::MOST_SHOWN);
        shown.sort_by_key(position);
        for problem in &mut shown {
            problem.place = problem.span.as_ref().map(|span| source.place(span));
        }
        Report {
            origin: origin.to_owned(),
            problems: shown,
            errors,
            warnings,
        }
    }
}

fn position(problem: &Problem) -> usize {
    problem.span.as_ref().map_or(0, |span| span.start)
}

/// What is wrong with one file, ready to be shown. Empty when nothing is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub(super) origin: String,
    pub(super) problems: Vec<Problem>,
    pub(super) errors: usize,
    pub(super) warnings: usize,
}

impl Report {
    /// The most problems that a report shows; the others are counted.
    pub const MOST_SHOWN: usize = 50;

    /// A report of one problem with the whole file.
    pub(super) fn of(origin: &str, problem: Problem) -> Self {
        let mut problems = Problems::default();
        problems.add(problem);
        problems.report(origin, &Source::new(""))
    }

    /// One more, which is about no place in the file.
    pub(super) fn warn(&mut self, problem: Problem) {
        self.warnings += 1;
        if self.problems.len() < Self::MOST_SHOWN {
            self.problems.insert(0, problem);
        }
    }

    pub(super) fn into_warnings(mut self) -> Self {
        for problem in &mut self.problems {
            problem.severity = Severity::Warning;
        }
        self.warnings += std::mem::take(&mut self.errors);
        self
    }

    /// The file, as it was named.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// How many errors there are, shown or not.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// How many problems are not shown.
    pub fn unshown(&self) -> usize {
        (self.errors + self.warnings).saturating_sub(self.problems.len())
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.errors + self.warnings == 0
    }
}

/// A value as it may stand in a one-line message: bounded, without line breaks or control characters.
pub(super) fn shown(value: &str) -> String {
    let mut text: String = value
        .chars()
        .take(MOST_OF_A_VALUE)
        .flat_map(char::escape_debug)
        .collect();
    if value.chars().nth(MOST_OF_A_VALUE).is_some() {
        text.push('…');
    }
    text
}

const MOST_OF_A_VALUE: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_shown_before_warnings_when_not_all_fit() {
        let mut problems = Problems::default();
        for at in 0..200 {
            problems.add(Problem::warning("w").at(at..at));
        }
        problems.add(Problem::error("e").at(300..301));
        let report = problems.report("f", &Source::new(&"x".repeat(400)));
        assert_eq!(report.problems.len(), Report::MOST_SHOWN);
        assert_eq!(report.problems.last().unwrap().message, "e");
        assert_eq!(report.unshown(), 151);
    }

    #[test]
    fn a_flood_is_counted_but_not_kept() {
        let mut problems = Problems::default();
        for _ in 0..Problems::MOST_KEPT * 3 {
            problems.add(Problem::error("e"));
        }
        assert_eq!(problems.kept.len(), Problems::MOST_KEPT);
        assert_eq!(
            problems.report("f", &Source::new("")).errors(),
            Problems::MOST_KEPT * 3
        );
    }

    #[test]
    fn a_shown_value_is_one_bounded_line() {
        assert_eq!(shown("a\nb\0"), "a\\nb\\0");
        assert!(shown(&"x".repeat(1000)).chars().count() <= MOST_OF_A_VALUE + 1);
    }
}
