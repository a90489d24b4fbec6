//! Rows in columns of one width, for a terminal and for a file.

use std::fmt::Write as _;

use super::figures::{fitted, width};

/// What a column does with what is narrower than it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// Words begin where the column does.
    Words,
    /// Numbers end where it does.
    Numbers,
}

/// A cell, and how it is coloured.
#[derive(Clone, Debug, Default)]
pub(super) struct Cell {
    text: String,
    colour: &'static str,
}

impl Cell {
    /// The same, in a colour.
    pub(super) fn coloured(self, colour: &'static str) -> Self {
        Self { colour, ..self }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self {
            text: text.into(),
            colour: "",
        }
    }
}

/// Rows that are printed together.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table with these columns.
    pub(super) fn new(columns: &[Column]) -> Self {
        Self {
            columns: columns.to_vec(),
            rows: Vec::new(),
        }
    }

    /// Adds a row; cells beyond the columns are not shown.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let most = self.columns.len();
        self.rows.push(cells.into_iter().take(most).collect());
    }

    /// All of it, at most `columns` wide: the first column gives way.
    pub(super) fn text(&self, columns: usize, colours: bool) -> String {
        let mut widths = vec![0; self.columns.len()];
        for row in &self.rows {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = width(&cell.text).max(*widest);
            }
        }
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        let others: usize = widths.iter().skip(1).sum();
        if let Some(first) = widths.first_mut() {
            *first = (*first).min(columns.saturating_sub(others + gaps).max(NARROWEST));
        }
        let mut out = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, ((cell, column), &wide)) in
                row.iter().zip(&self.columns).zip(&widths).enumerate()
            {
                let text = fitted(&cell.text, wide);
                let blanks = wide - width(&text).min(wide);
                let (before, after) = match column {
                    Column::Words => (0, blanks),
                    Column::Numbers => (blanks, 0),
                };
                let (begin, end) = match colours && !cell.colour.is_empty() && !text.is_empty() {
                    true => (cell.colour, PLAIN),
                    false => ("", ""),
                };
                let gap = if index > 0 { GAP } else { "" };
                // Writing to a string does not fail.
                let _ = write!(line, "{gap}{:before$}{begin}{text}{end}{:after$}", "", "");
            }
            out.push_str(line.trim_end());
            out.push('\n');
        }
        out
    }
}

/// Between columns.
const GAP: &str = "  ";
/// As narrow as the first column may become.
const NARROWEST: usize = 8;

/// Something is wrong.
pub(super) const RED: &str = "\x1b[31m";
/// Something is on its way.
pub(super) const YELLOW: &str = "\x1b[33m";
/// All is well.
pub(super) const GREEN: &str = "\x1b[32m";
/// Of less interest.
pub(super) const DIM: &str = "\x1b[2m";
/// A heading.
pub(super) const BOLD: &str = "\x1b[1m";
/// The end of a colour.
pub(super) const PLAIN: &str = "\x1b[0m";

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[[&str; 3]]) -> Table {
        let mut table = Table::new(&[Column::Words, Column::Numbers, Column::Words]);
        for row in rows {
            table.row(row.iter().map(|&text| text.into()));
        }
        table
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_lines_end_with_a_word() {
        let table = table(&[["NAME", "N", "WHY"], ["a", "100", ""], ["longer", "", "x"]]);
        assert_eq!(
            table.text(80, false),
            "NAME      N  WHY\na       100\nlonger       x\n"
        );
    }

    #[test]
    fn the_first_column_gives_way() {
        let table = table(&[["a-very-long-name-indeed", "100", "refused"]]);
        assert_eq!(table.text(24, false), "a-ver…deed  100  refused\n");
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let mut table = Table::new(&[Column::Words, Column::Numbers]);
        table.row([Cell::from("down").coloured(RED), "1".into()]);
        assert_eq!(table.text(80, true), "\x1b[31mdown\x1b[0m  1\n");
        assert_eq!(table.text(80, false), "down  1\n");
    }
}
