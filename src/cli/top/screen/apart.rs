//! What is to be known and has no row in the list of what is wrong: of the daemon, of its configuration, and of
//! services where only backends have rows.

use crate::cli::condition::Gravity;
use crate::cli::findings::Finding;
use crate::cli::top::rows::Sort;
use crate::cli::top::state::Top;

/// A line without figures.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// In front of its first line alone.
    pub(super) subject: &'a str,
    pub(super) text: &'a str,
    pub(super) gravity: Gravity,
}

/// The first so many lines of it, if only what is wrong is shown.
pub(super) fn apart<'a>(top: &'a Top, most: usize) -> Vec<Line<'a>> {
    let Some(view) = &top.view else {
        return Vec::new();
    };
    if !top.filter.only_wrong || !top.filter.text.is_empty() {
        return Vec::new();
    }
    let is_a_service = |name: &str| view.services.iter().any(|it| it.name == name);
    let has_no_row = |it: &&Finding| {
        it.is_of_the_daemon() || (top.sort != Sort::File && is_a_service(&it.subject))
    };
    let lines = |finding: &'a Finding| {
        let subjects = std::iter::once(&*finding.subject).chain(std::iter::repeat(""));
        let lines = finding.lines.iter().zip(subjects);
        lines.map(|(text, subject)| Line {
            subject,
            text,
            gravity: finding.gravity,
        })
    };
    top.findings
        .iter()
        .filter(has_no_row)
        .flat_map(lines)
        .take(most)
        .collect()
}
