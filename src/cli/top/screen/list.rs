//! The list: a line for each service and each backend, and how far it is scrolled.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::apart::{Line, apart};
use super::canvas::{Look, put};
use crate::cli::condition::{Condition, since_when};
use crate::cli::figures::{ago, count, fitted, rate, time, width};
use crate::cli::findings::{Finding, reason};
use crate::cli::top::history::{numbers, sparkline};
use crate::cli::top::rows::{Row, Sort};
use crate::cli::top::state::Top;

/// Draws it, and tells `top` how far it is scrolled.
pub(super) fn list(buffer: &mut Buffer, area: Rect, top: &mut Top, look: Look) {
    let rows = top.rows();
    let mut names = names(&rows, top, look);
    let widest = |names: &[String]| names.iter().map(|name| width(name)).max().unwrap_or(0);
    if widest(&names) > Columns::most(area) {
        leave_out_what_all_share(&rows, &mut names);
    }
    let columns = Columns::of(area, widest(&names));
    let heading = columns.line(
        match top.sort {
            Sort::File => "SERVICE",
            Sort::State | Sort::Sessions | Sort::New | Sort::Bytes => "BACKEND",
        },
        match top.filter.only_wrong {
            true => ["STATE", "SINCE", "SESS", "", "", ""],
            false => ["STATE", "SINCE", "SESS", "NEW/s", "IN/s", "OUT/s"],
        },
        "",
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, area, 0, 0, &heading, bold);
    if top.filter.only_wrong {
        put(buffer, area, columns.reason(), 0, "WHY", bold);
    }
    let count = rows.len();
    let room = usize::from(area.height - 1);
    let apart = apart(top, room / 2);
    let is_empty = count + apart.len() == 0;
    for (line, one) in apart.iter().enumerate() {
        draw_apart(buffer, area, line as u16 + 1, one, columns, look);
    }
    let above = apart.len();
    let page = room - above;
    let selected = rows.iter().position(|row| Some(row.key()) == top.selected);
    let first = scrolled(top.first, selected.unwrap_or(0), count, page);
    let seen = rows.iter().zip(&names).skip(first).take(page);
    for (line, (row, name)) in seen.enumerate() {
        let one = Rect {
            y: area.y + (above + line) as u16 + 1,
            height: 1,
            ..area
        };
        draw_row(buffer, one, (row, name), top, columns, look);
        if top.filter.only_wrong {
            draw_reason(buffer, one, row, &top.findings, columns);
        }
        if Some(first + line) == selected {
            buffer.set_style(one, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if is_empty {
        let text = match (&top.view, top.filter.only_wrong) {
            (None, _) => "",
            (Some(_), true) => "nothing is wrong; w shows everything",
            (Some(_), false) => "nothing is called so; Esc shows everything",
        };
        put(buffer, area, 0, 1, text, Style::new());
    }
    drop(rows);
    top.first = first;
    top.page = page;
}

fn draw_row(
    buffer: &mut Buffer,
    area: Rect,
    (row, name): (&Row<'_>, &str),
    top: &Top,
    columns: Columns,
    look: Look,
) {
    let key = row.key();
    let now = top.view.as_ref().map_or("", |view| &*view.at);
    let (state, since) = match row.backend {
        None => {
            let short = format!("{}/{}", row.service.serving(), row.service.configured);
            let long = format!("{short} serve");
            let state = if width(&long) <= WIDTHS[0] {
                long
            } else {
                short
            };
            (state, String::new())
        }
        Some(backend) => {
            let since = since_when(backend).and_then(|since| ago(since, now));
            let state = Condition::of(backend).word().to_owned();
            (state, since.map_or_else(String::new, time))
        }
    };
    let figures = row
        .rate
        .filter(|_| !top.filter.only_wrong)
        .map(|now| [now.sessions, now.to_backend, now.to_client].map(rate));
    let [new, to_backend, to_client] = figures.unwrap_or_else(|| ["", "", ""].map(str::to_owned));
    let sessions = count(row.sessions());
    let trend = sparkline(
        &numbers(top.history.of(&key), |it| it.rate.sessions),
        columns.trend,
        look.unicode,
    );
    let line = columns.line(
        name,
        [&state, &since, &sessions, &new, &to_backend, &to_client],
        "",
    );
    let style = match row.backend {
        None => Style::new().add_modifier(Modifier::BOLD),
        Some(_) => Style::new(),
    };
    put(buffer, area, 0, 0, &line, style);
    let at = columns.name as u16 + 1;
    put(
        buffer,
        area,
        at,
        0,
        &fitted(&state, WIDTHS[0]),
        look.of(row.gravity()),
    );
    if !top.filter.only_wrong {
        let at = area.width - columns.trend as u16;
        put(buffer, area, at, 0, &trend, look.style(Color::Cyan));
    }
}

/// What has no row: in the place of figures there are words.
fn draw_apart(
    buffer: &mut Buffer,
    area: Rect,
    line: u16,
    apart: &Line<'_>,
    columns: Columns,
    look: Look,
) {
    let subject = fitted(apart.subject, columns.name);
    let bold = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, area, 0, line, &subject, bold);
    let at = columns.name as u16 + 1;
    let room = usize::from(area.width.saturating_sub(at));
    let text = fitted(apart.text, room);
    put(buffer, area, at, line, &text, look.of(apart.gravity));
}

/// Why a line is there when only what is wrong is: in place of the figures and the trend.
fn draw_reason(
    buffer: &mut Buffer,
    area: Rect,
    row: &Row<'_>,
    findings: &[Finding],
    columns: Columns,
) {
    let why = match row.backend {
        Some(backend) => reason(backend),
        None => {
            let own = findings.iter().filter(|it| it.subject == row.service.name);
            let gists: Vec<_> = own.filter_map(Finding::gist).collect();
            Some(gists.join(" · "))
        }
    };
    let at = columns.reason();
    let room = usize::from(area.width.saturating_sub(at));
    let why = fitted(&why.unwrap_or_default(), room);
    put(buffer, area, at, 0, &why, Style::new());
}

/// Where the columns are.
#[derive(Clone, Copy, Debug)]
struct Columns {
    name: usize,
    trend: usize,
}

impl Columns {
    /// Names as wide as `widest` have all the room there is but for a short trend.
    fn of(area: Rect, widest: usize) -> Self {
        let spare = Self::spare(area);
        let name = widest.clamp(spare / 2, Self::most(area).max(spare / 2));
        Self {
            name,
            trend: spare - name,
        }
    }

    /// The widest that names may be.
    fn most(area: Rect) -> usize {
        Self::spare(area).saturating_sub(SHORTEST_TREND)
    }

    /// Where the reason begins: behind STATE, SINCE and SESS.
    fn reason(self) -> u16 {
        let before: usize = WIDTHS.iter().take(3).map(|wide| wide + 1).sum();
        (self.name + before + 2) as u16
    }

    fn spare(area: Rect) -> usize {
        let fixed: usize = WIDTHS.iter().map(|wide| wide + 1).sum();
        usize::from(area.width).saturating_sub(fixed + 1)
    }

    /// One line: what is a number stands right.
    fn line(self, name: &str, cells: [&str; 6], trend: &str) -> String {
        let padded = |text: &str, columns: usize| {
            let text = fitted(text, columns);
            let blanks = columns - width(&text).min(columns);
            (text, " ".repeat(blanks))
        };
        let (text, blanks) = padded(name, self.name);
        let mut line = text + &blanks;
        for (index, (cell, wide)) in cells.into_iter().zip(WIDTHS).enumerate() {
            let (text, blanks) = padded(cell, wide);
            line.push(' ');
            line += &match index {
                0 => text + &blanks,
                _ => blanks + &text,
            };
        }
        format!("{line} {trend}")
    }
}

/// What the lines are called.
fn names(rows: &[Row<'_>], top: &Top, look: Look) -> Vec<String> {
    let name = |row: &Row<'_>| match (row.backend, top.sort) {
        (None, _) => {
            let is_folded = top.filter.folded.contains(&row.service.name);
            let mark = match (is_folded, look.unicode) {
                (true, true) => "▸",
                (false, true) => "▾",
                (true, false) => "+",
                (false, false) => "-",
            };
            format!("{mark} {}", row.service.name)
        }
        (Some(backend), Sort::File) => format!("{INDENT}{}", backend.name),
        (Some(backend), Sort::State | Sort::Sessions | Sort::New | Sort::Bytes) => {
            format!("{}/{}", row.service.name, backend.name)
        }
    };
    rows.iter().map(name).collect()
}

/// Names that do not fit are told apart by what they do not share: an ellipsis stands for the words that all
/// backends begin or end with.
fn leave_out_what_all_share(rows: &[Row<'_>], names: &mut [String]) {
    let is_backend: Vec<bool> = rows.iter().map(|row| row.backend.is_some()).collect();
    let backends = names.iter().zip(&is_backend).filter(|(_, is_one)| **is_one);
    let all: Vec<&str> = backends.map(|(name, _)| name.trim_start()).collect();
    let (start, end) = shared(&all);
    if all.len() < 2 || start + end == 0 {
        return;
    }
    let mark = |bytes: usize| if bytes > 0 { "…" } else { "" };
    for (name, _) in names
        .iter_mut()
        .zip(is_backend)
        .filter(|(_, is_one)| *is_one)
    {
        let bare = name.trim_start();
        let indent = &name[..name.len() - bare.len()];
        if let Some(middle) = bare.get(start..bare.len().saturating_sub(end)) {
            *name = format!("{indent}{}{middle}{}", mark(start), mark(end));
        }
    }
}

/// Bytes of the words that all of these begin with, and end with.
fn shared(names: &[&str]) -> (usize, usize) {
    let Some((first, others)) = names.split_first() else {
        return (0, 0);
    };
    let begins = |text: &&str| others.iter().all(|it| it.starts_with(text));
    let ends = |text: &&str| others.iter().all(|it| it.ends_with(text));
    // Behind a break, or in front of one, so that no number is cut.
    let breaks = || first.char_indices().filter(|(_, it)| !it.is_alphanumeric());
    let mut starts = breaks().map(|(at, it)| &first[..at + it.len_utf8()]);
    let start = std::iter::from_fn(|| starts.next().filter(|it| begins(it))).last();
    let start = start.map_or(0, str::len);
    let mut tails = breaks().map(|(at, _)| &first[at..]);
    let end = tails.find(|it| ends(it)).map_or(0, str::len);
    let shortest = names.iter().map(|it| it.len()).min().unwrap_or(0);
    match start + end < shortest {
        true => (start, end),
        false => (start, 0),
    }
}

/// The first line to show, so that the selected one is seen and no more moves than must.
fn scrolled(first: usize, selected: usize, count: usize, page: usize) -> usize {
    let first = first.min(selected).min(count.saturating_sub(page));
    match selected >= first + page {
        true => selected + 1 - page,
        false => first,
    }
}

/// STATE, SINCE, SESS, NEW/s, IN/s, OUT/s
const WIDTHS: [usize; 6] = [10, 7, 6, 5, 5, 5];
/// In front of a backend below its service.
const INDENT: &str = "    ";
/// As short as a trend becomes for the sake of names.
const SHORTEST_TREND: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_names_share_is_whole_words() {
        assert_eq!(
            shared(&["eu-001.rack1.lan:80", "eu-002.rack2.lan:80"]),
            (3, 7)
        );
        assert_eq!(shared(&["app-10", "app-11"]), (4, 0));
        assert_eq!(shared(&["app", "app"]), (0, 0));
        assert_eq!(shared(&["a-b", "a-b"]), (2, 0));
        assert_eq!(shared(&[]), (0, 0));
    }

    #[test]
    fn scrolling_moves_no_more_than_it_must() {
        assert_eq!(scrolled(0, 5, 100, 10), 0);
        assert_eq!(scrolled(0, 12, 100, 10), 3);
        assert_eq!(scrolled(3, 11, 100, 10), 3);
        assert_eq!(scrolled(50, 4, 100, 10), 4);
        assert_eq!(scrolled(95, 99, 100, 10), 90);
        assert_eq!(scrolled(5, 0, 3, 10), 0);
    }
}
