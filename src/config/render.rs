//! How a report looks: excerpts with carets for people, one line a problem for logs.

use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Level, Origin, Renderer, Snippet};

use super::problem::{Problem, Report, Severity};

impl Report {
    /// Every problem the way rustc shows its own, with a line that sums them up; ends in a newline
    /// unless there is nothing to show. `color` is for terminals.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        }
        .decor_style(DecorStyle::Ascii)
        .term_width(WIDTH);
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&self.render_one(&renderer, problem));
            text.push_str("\n\n");
        }
        if self.unshown() > 0 {
            text.push_str(&format!("… and {} more\n", self.unshown()));
        }
        if !self.is_empty() {
            text.push_str(&format!("{}: {}\n", self.origin, self.summary()));
        }
        text
    }

    /// `file:line:column: message` for each problem, for a log.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .problems
            .iter()
            .map(|problem| {
                let mut line = self.origin.clone();
                if let Some(place) = &problem.place {
                    line.push_str(&format!(":{}:{}", place.line, place.column));
                }
                line.push_str(match problem.severity {
                    Severity::Error => ": ",
                    Severity::Warning => ": warning: ",
                });
                line.push_str(&problem.message);
                let asides = [&problem.label, &problem.note, &problem.help];
                for aside in asides.into_iter().flatten() {
                    line.push_str("; ");
                    line.push_str(aside);
                }
                line
            })
            .collect();
        if self.unshown() > 0 {
            lines.push(format!("{}: … and {} more", self.origin, self.unshown()));
        }
        lines
    }

    /// `2 errors, 1 warning`
    pub fn summary(&self) -> String {
        let count = |number: usize, what: &str| match number {
            0 => None,
            1 => Some(format!("1 {what}")),
            _ => Some(format!("{number} {what}s")),
        };
        let parts = [count(self.errors, "error"), count(self.warnings, "warning")];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        if parts.is_empty() {
            return "no problem".to_owned();
        }
        parts.join(", ")
    }

    fn render_one(&self, renderer: &Renderer, problem: &Problem) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(problem.message.as_str());
        let origin = Origin::path(self.origin.as_str());
        let mut group = match &problem.place {
            None => title.element(origin),
            Some(place) => {
                let mut mark = AnnotationKind::Primary.span(place.mark.clone());
                if let Some(label) = &problem.label {
                    mark = mark.label(label.as_str());
                }
                let snippet = Snippet::source(place.excerpt.as_str())
                    .line_start(place.line)
                    .annotation(mark);
                match place.whole {
                    true => title.element(snippet.path(self.origin.as_str())),
                    // The renderer counts columns from the beginning of what it is shown, so for the
                    // middle of a very long line the place is given instead.
                    false => title
                        .element(origin.line(place.line).char_column(place.column))
                        .element(snippet),
                }
            }
        };
        if let (Some(label), None) = (&problem.label, &problem.place) {
            group = group.element(Level::NOTE.message(label.as_str()));
        }
        if let Some(note) = &problem.note {
            group = group.element(Level::NOTE.message(note.as_str()));
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        let text = renderer.render(&[group]);
        match problem.place {
            Some(_) => text,
            // Without a line number the renderer leaves no margin; it is given the one that every
            // other excerpt has.
            None => text.replace('\n', "\n "),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// Columns of an excerpt; the renderer cuts the line around the mark.
const WIDTH: usize = 140;
