//! What others say, made fit for a line of the log.

/// The beginning of a foreign `text`, at most so many characters of it, as one line that can be printed.
pub fn one_line(text: &str, most: usize) -> String {
    let is_blank = |c: char| c.is_whitespace() || c.is_control();
    let mut rest = text.trim_matches(is_blank).chars();
    let kept = rest.by_ref().take(most);
    let mut line: String = kept.map(|c| if c.is_control() { ' ' } else { c }).collect();
    if rest.next().is_some() {
        line.push('…');
    }
    line
}

/// `1 session`, `3 sessions`
pub fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_short_and_has_nothing_in_it_that_a_terminal_obeys() {
        assert_eq!(one_line(" two\r\nlines\x1b[31m\n", 100), "two  lines [31m");
        assert_eq!(one_line("üüü", 2), "üü…");
        assert_eq!(one_line("üü\u{85}ü", 4), "üü ü");
        assert_eq!(one_line("\n", 4), "");
    }
}
