//! The text of a configuration file: where its lines begin, and what to show of them. Knows nothing
//! of TOML. Next: [`problem`](super::problem), which is what a place is computed for.

use std::ops::Range;

/// Bytes of the source, half open.
pub type Span = Range<usize>;

/// Where a problem is, in the terms of an operator's editor, with the line as it is written there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// The line, or the part of a very long one around the mark.
    pub excerpt: String,
    /// What to underline: bytes of `excerpt`.
    pub mark: Span,
    /// Whether `excerpt` begins where the line does.
    pub whole: bool,
}

/// A text with an index of its lines, so that a place costs a binary search and not a scan.
#[derive(Debug)]
pub(super) struct Source<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Source<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|&(_, byte)| byte == b'\n');
        Self {
            text,
            starts: std::iter::once(0)
                .chain(ends.map(|(at, _)| at + 1))
                .collect(),
        }
    }

    pub(super) fn text(&self) -> &'a str {
        self.text
    }

    /// The text of `span`, empty where the span is not of this source.
    pub(super) fn slice(&self, span: &Span) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The line that holds the byte at `offset`, counted from 0.
    pub(super) fn line_of(&self, offset: usize) -> usize {
        self.starts
            .partition_point(|&start| start <= offset)
            .saturating_sub(1)
    }

    pub(super) fn lines(&self) -> usize {
        self.starts.len()
    }

    /// A line without its line break; `line` is counted from 0.
    pub(super) fn line(&self, line: usize) -> &'a str {
        self.text
            .get(self.line_span(line))
            .unwrap_or_default()
            .trim_end_matches(['\n', '\r'])
    }

    /// A line with its line break; `line` is counted from 0.
    pub(super) fn line_span(&self, line: usize) -> Span {
        let start = self.starts.get(line).copied().unwrap_or(self.text.len());
        let end = self
            .starts
            .get(line + 1)
            .copied()
            .unwrap_or(self.text.len());
        start..end
    }

    /// `span` cut to the text and widened to whole characters, whatever a parser reported.
    pub(super) fn clamp(&self, span: &Span) -> Span {
        let mut start = span.start.min(self.text.len());
        let mut end = span.end.clamp(start, self.text.len());
        while !self.text.is_char_boundary(start) {
            start -= 1;
        }
        while !self.text.is_char_boundary(end) {
            end += 1;
        }
        start..end
    }

    pub(super) fn place(&self, span: &Span) -> Place {
        let span = self.clamp(span);
        let line = self.line_of(span.start);
        let start = self.line_span(line).start;
        let text = self.line(line);
        // A span may reach over several lines, or begin at a line break: the mark stays on the line.
        let from = (span.start - start).min(text.len());
        let to = (span.end - start).clamp(from, text.len());
        let column = text[..from].chars().count();
        let (excerpt, mark, whole) = window(text, from..to);
        Place {
            line: line + 1,
            column: column + 1,
            excerpt,
            mark,
            whole,
        }
    }
}

/// The part of a line around `mark` that is worth keeping, the mark within it, and whether it begins
/// where the line does.
fn window(line: &str, mark: Span) -> (String, Span, bool) {
    if line.len() <= LONGEST_WHOLE {
        return (line.to_owned(), mark, true);
    }
    let before = line[..mark.start]
        .char_indices()
        .rev()
        .nth(MOST_BEFORE)
        .map_or(0, |(at, _)| at);
    let (start, lead) = match before {
        0 => (0, ""),
        at => (at, ELLIPSIS),
    };
    let rest = &line[start..];
    let end = rest
        .char_indices()
        .nth(MOST_SHOWN)
        .map_or(line.len(), |(at, _)| start + at);
    let tail = if end < line.len() { ELLIPSIS } else { "" };
    let shift = |at: usize| at.min(end) - start + lead.len();
    (
        format!("{lead}{}{tail}", &line[start..end]),
        shift(mark.start)..shift(mark.end),
        start == 0,
    )
}

/// Bytes of a line that the renderer may be given as a whole: it cuts to the width of a terminal, but
/// takes its time with a line of a megabyte.
const LONGEST_WHOLE: usize = 2000;
/// Characters of a longer line that are shown before a mark.
const MOST_BEFORE: usize = 60;
/// Characters of a longer line that are shown at all.
const MOST_SHOWN: usize = 120;
const ELLIPSIS: &str = "…";

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_place_is_counted_in_lines_and_characters() {
        let source = Source::new("a = 1\r\n# é = x\n");
        let place = source.place(&(12..13));
        assert_eq!((place.line, place.column), (2, 5));
        assert_eq!(place.excerpt, "# é = x");
        assert_eq!(&place.excerpt[place.mark], "=");
    }

    #[test]
    fn the_end_of_the_text_has_a_place() {
        let source = Source::new("a = 1");
        assert_eq!(source.place(&(5..5)).column, 6);
        assert_eq!(Source::new("").place(&(0..0)).line, 1);
    }

    #[test]
    fn a_very_long_line_is_shown_around_the_mark() {
        let text = format!("key = \"{}!{}\"", "é".repeat(5000), "y".repeat(5000));
        let at = text.find('!').unwrap();
        let place = Source::new(&text).place(&(at..at + 1));
        assert_eq!(&place.excerpt[place.mark], "!");
        assert!(place.excerpt.chars().count() <= MOST_SHOWN + 2);
        assert_eq!(place.column, 7 + 5000 + 1);
    }

    proptest! {
        #[test]
        fn any_span_of_any_text_has_a_place_inside_its_line(
            text in "\\PC{0,40}(\r?\n\\PC{0,300}){0,4}", start in 0_usize..900, len in 0_usize..900,
        ) {
            let place = Source::new(&text).place(&(start..start + len));
            prop_assert!(place.excerpt.get(place.mark.clone()).is_some());
            prop_assert!(place.line <= text.lines().count().max(1) + 1);
        }
    }
}
