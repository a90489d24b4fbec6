//! How `ballast top` looks, from 80×24 upwards; what does not fit is left out, never wrapped into
//! something else. Draws what [`Top`] says and decides nothing but how far the list is scrolled.

use std::time::Duration;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

use super::history::{Sample, sparkline};
use super::rows::{Key, Row, Sort};
use super::state::{Pane, Proposal, Top};
use crate::api::{Backend, Service, View};
use crate::cli::condition::{Condition, Finding, Gravity, findings, since_when};
use crate::cli::figures::{ago, count, fitted, grouped, of, rate, scaled, time, width};
use crate::cli::status::{availability, milliseconds, weight};

/// What the terminal understands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) colours: bool,
    /// Rather than ASCII alone.
    pub(super) unicode: bool,
}

impl Look {
    fn style(self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    fn of(self, gravity: Gravity) -> Style {
        match gravity {
            Gravity::Wrong => self.style(Color::Red).add_modifier(Modifier::BOLD),
            Gravity::Noted => self.style(Color::Yellow),
            Gravity::Well => self.style(Color::Green),
        }
    }
}

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top, look: Look) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("too small: {}×{} at least", LEAST.0, LEAST.1);
        put(buffer, area, 0, 0, &text, Style::new());
        return;
    }
    head(buffer, area, top, look);
    let inner = Rect {
        y: area.y + HEAD,
        height: area.height - HEAD - 1,
        ..area
    };
    match top.pane {
        Pane::List => list(buffer, inner, top, look),
        Pane::Detail => detail(buffer, inner, top, look),
        Pane::Help => text(buffer, inner, HELP),
    }
    foot(buffer, area, top, look);
    if let Some(proposal) = &top.proposal {
        ask(buffer, area, proposal, look);
    }
}

/// Two lines that say how the daemon does, and one of what is wrong.
fn head(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let Some(view) = &top.view else {
        put(
            buffer,
            area,
            0,
            0,
            &format!("ballast at {}", top.address),
            bold,
        );
        let (text, style) = match &top.trouble {
            Some(why) => (why.replace("\n  ", "; "), look.of(Gravity::Wrong)),
            None => ("asking …".into(), Style::new()),
        };
        say(buffer, area, 2, &text, style);
        return;
    };
    let process = &view.process;
    let first = format!(
        "ballast {} · up {} · {} of {} sessions",
        process.version,
        time(top.uptime()),
        grouped(process.sessions),
        grouped(process.max_connections)
    );
    put(buffer, area, 0, 0, &first, bold);
    let right = fitted(
        &top.address,
        usize::from(area.width).saturating_sub(width(&first) + 2),
    );
    let at = area.width - width(&right) as u16;
    put(buffer, area, at, 0, &right, look.style(Color::DarkGray));
    let now = top
        .history
        .whole()
        .next_back()
        .copied()
        .unwrap_or_default()
        .rate;
    let second = format!(
        "{:>5} new/s {:>5} failed/s {:>5} B/s in {:>5} B/s out ",
        rate(now.sessions),
        rate(now.failures),
        rate(now.to_backend),
        rate(now.to_client)
    );
    put(buffer, area, 0, 1, &second, Style::new());
    let at = width(&second);
    let line = sparkline(
        &numbers(top.history.whole(), |it| it.rate.sessions),
        usize::from(area.width) - at,
        look.unicode,
    );
    put(buffer, area, at as u16, 1, &line, look.style(Color::Cyan));
    let (text, style) = state(view, top, look);
    let chosen = match top.trouble {
        Some(_) => String::new(),
        None => chosen(top),
    };
    let at = area.width - width(&chosen).min(usize::from(area.width / 2)) as u16;
    let before = Rect {
        width: at.saturating_sub(u16::from(!chosen.is_empty())),
        ..area
    };
    say(buffer, before, 2, &text, style);
    put(buffer, area, at, 2, &chosen, look.style(Color::Cyan));
}

/// What is wrong, in a line.
fn state(view: &View, top: &Top, look: Look) -> (String, Style) {
    if let Some(why) = &top.trouble {
        // Only the first line: the rest is advice for who has just called.
        let why = why.lines().next().unwrap_or_default();
        // Where it should be stands above, and there is but one line.
        let why = why.replace(&format!(" at {}", top.address), "");
        let at = view.at.get(11..19).unwrap_or(&view.at);
        let text = format!("{why}; this was at {at}Z");
        return (text, look.of(Gravity::Wrong));
    }
    let all = findings(view);
    let wrong: Vec<_> = all
        .iter()
        .filter(|it| it.gravity == Gravity::Wrong)
        .collect();
    if wrong.is_empty() {
        let eligible: u64 = view.services.iter().map(|it| u64::from(it.eligible)).sum();
        let configured: u64 = view
            .services
            .iter()
            .map(|it| u64::from(it.configured))
            .sum();
        let text = format!(
            "All is well: {}, {} of {} backends serve",
            of(view.services.len() as u64, "service"),
            grouped(eligible),
            grouped(configured)
        );
        return (text, look.of(Gravity::Well));
    }
    let line = |it: &Finding| Some(format!("{}: {}", it.subject, it.gist()?));
    let told: Vec<_> = wrong
        .iter()
        .take(MOST_TOLD)
        .filter_map(|it| line(it))
        .collect();
    let text = format!("{} wrong: {}", wrong.len(), told.join(" · "));
    (text, look.of(Gravity::Wrong))
}

/// What the keys do, or what is typed, or what came of a key.
fn foot(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
    let y = area.height - 1;
    let reversed = Style::new().add_modifier(Modifier::REVERSED);
    let keys = match top.pane {
        Pane::List => {
            "q quit  ↑↓ select  ⏎ open  s sort  / filter  w wrong  d drain  e enable  ? help"
        }
        Pane::Detail => "q quit  ← back  d drain  x disable  e enable  r reset  c close sessions",
        Pane::Help => "any key goes back",
    };
    let (text, style) = match &top.note {
        _ if top.is_typing => (
            format!("filter: {}_   ⏎ keep  Esc drop", top.filter.text),
            Style::new(),
        ),
        Some(note) if note.is_bad => (note.text.clone(), look.of(Gravity::Wrong)),
        Some(note) => (note.text.clone(), look.of(Gravity::Well)),
        None => {
            let filled = format!("{keys:<wide$}", wide = usize::from(area.width));
            (filled, reversed)
        }
    };
    say(buffer, area, y, &plain(&text, look), style);
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

fn list(buffer: &mut Buffer, area: Rect, top: &mut Top, look: Look) {
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
        ["STATE", "SINCE", "SESS", "NEW/s", "IN/s", "OUT/s"],
        "",
    );
    let bold = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, area, 0, 0, &heading, bold);
    let count = rows.len();
    let page = usize::from(area.height - 1);
    let selected = rows.iter().position(|row| Some(row.key()) == top.selected);
    let first = scrolled(top.first, selected.unwrap_or(0), count, page);
    let seen = rows.iter().zip(&names).skip(first).take(page);
    for (line, (row, name)) in seen.enumerate() {
        let one = Rect {
            y: area.y + line as u16 + 1,
            height: 1,
            ..area
        };
        draw_row(buffer, one, (row, name), top, columns, look);
        if Some(first + line) == selected {
            buffer.set_style(one, Style::new().add_modifier(Modifier::REVERSED));
        }
    }
    if count == 0 {
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

/// What is other than usual: sort and filter.
fn chosen(top: &Top) -> String {
    let mut parts = Vec::new();
    if top.filter.only_wrong {
        parts.push("wrong".to_owned());
    }
    if !top.filter.text.is_empty() {
        parts.push(format!("/{}", top.filter.text));
    }
    if top.sort != Sort::File {
        parts.push(format!("by {}", top.sort.word()));
    }
    parts.join(" ")
}

/// The first line to show, so that the selected one is seen and no more moves than must.
fn scrolled(first: usize, selected: usize, count: usize, page: usize) -> usize {
    let first = first.min(selected).min(count.saturating_sub(page));
    match selected >= first + page {
        true => selected + 1 - page,
        false => first,
    }
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
            let short = format!("{}/{}", row.service.eligible, row.service.configured);
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
    let at = area.width - columns.trend as u16;
    put(buffer, area, at, 0, &trend, look.style(Color::Cyan));
}

/// One backend, and all that is known of it.
fn detail(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
    let (Some((service, backend)), Some(view)) = (top.backend(), &top.view) else {
        return put(buffer, area, 0, 0, "it has gone; ← goes back", Style::new());
    };
    let condition = Condition::of(backend);
    let title = format!("{}/{}", service.name, backend.name);
    put(
        buffer,
        area,
        0,
        0,
        &title,
        Style::new().add_modifier(Modifier::BOLD),
    );
    let mut y = 1;
    for (label, value) in facts(service, backend, &view.at) {
        if y >= area.height {
            return;
        }
        put(buffer, area, 0, y, label, look.style(Color::DarkGray));
        let style = match label {
            "state" => look.of(condition.gravity()),
            _ => Style::new(),
        };
        let inner = Rect {
            x: area.x + LABEL,
            width: area.width - LABEL,
            ..area
        };
        put(buffer, inner, 0, y, &value, style);
        y += 1;
    }
    let key = Key::backend(&service.name, &backend.name);
    let graphs: [(&str, What); 4] = [
        ("new/s", |it| it.rate.sessions),
        ("sessions", |it| it.sessions as f64),
        ("B/s in", |it| it.rate.to_backend),
        ("B/s out", |it| it.rate.to_client),
    ];
    for (label, what) in graphs {
        if y >= area.height {
            return;
        }
        let numbers = numbers(top.history.of(&key), what);
        let latest = numbers.last().map_or_else(String::new, |&it| rate(it));
        put(buffer, area, 0, y, label, look.style(Color::DarkGray));
        let inner = Rect {
            x: area.x + LABEL,
            width: area.width - LABEL,
            ..area
        };
        put(buffer, inner, 0, y, &format!("{latest:>5}"), Style::new());
        let line = sparkline(&numbers, usize::from(inner.width) - 6, look.unicode);
        put(buffer, inner, 6, y, &line, look.style(Color::Cyan));
        y += 1;
    }
}

fn facts(service: &Service, backend: &Backend, now: &str) -> Vec<(&'static str, String)> {
    let seconds = |seconds: f64| time(Duration::try_from_secs_f64(seconds).unwrap_or_default());
    let since = since_when(backend).and_then(|since| ago(since, now));
    let since = since.map_or_else(String::new, |past| format!(" for {}", time(past)));
    let mut facts = vec![("state", format!("{}{since}", Condition::of(backend).word()))];
    facts.extend(backend.why.clone().map(|why| ("why", why)));
    facts.push((
        "address",
        backend.address.clone().unwrap_or_else(|| "none".into()),
    ));
    facts.push((
        "weight",
        format!(
            "{} · tier {} · {}",
            weight(backend),
            backend.priority,
            service.strategy
        ),
    ));
    if let Some(admin) = &backend.admin {
        let text = format!(
            "{}, {}% of its weight; r goes back to the file",
            admin.duty, admin.weight_percent
        );
        facts.push(("operator", text));
    }
    facts.extend(backend.agent.clone().map(|agent| ("agent", agent)));
    let traffic = &backend.traffic;
    let most = backend.max_connections.map_or_else(String::new, |most| {
        format!(" of at most {}", grouped(most.into()))
    });
    facts.push((
        "running",
        format!(
            "{}{most} · {} served",
            of(traffic.sessions, "session"),
            grouped(traffic.sessions_total)
        ),
    ));
    facts.push((
        "cost",
        format!(
            "{} lost · {} moved elsewhere · {} failed",
            of(traffic.sessions_hurt_total, "session"),
            grouped(traffic.sessions_moved_total),
            of(traffic.connect_failures_total, "connect")
        ),
    ));
    facts.push((
        "bytes",
        format!(
            "{} in, {} out",
            scaled(traffic.to_backend_bytes_total as f64),
            scaled(traffic.to_client_bytes_total as f64)
        ),
    ));
    if let Some(check) = &backend.check {
        let latency = check
            .latency_seconds
            .map_or_else(String::new, |it| format!(" · {}", milliseconds(it)));
        let usual = check
            .usual_latency_seconds
            .map_or_else(String::new, |it| format!(", usually {}", milliseconds(it)));
        facts.push((
            "check",
            format!("{} at {}{latency}{usual}", check.kind, check.address),
        ));
        let mut verdicts = format!(
            "{} made, {} failed",
            grouped(check.probes_total),
            grouped(check.failures_total)
        );
        if check.against > 0 {
            verdicts += &format!(" · {} of {} against its state", check.against, check.needed);
        }
        if let Some(failure) = &check.last_failure {
            verdicts += &format!(" · last: {failure}");
        }
        facts.push(("checks", verdicts));
    }
    let record = &backend.record;
    let mean = |label: &str, it: Option<f64>| {
        it.map_or_else(String::new, |it| format!(" · {label} {}", seconds(it)))
    };
    facts.push((
        "record",
        format!(
            "{} available · {}, {}{}{}",
            availability(backend),
            of(record.failures, "failure"),
            of(record.flaps, "flap"),
            mean("MTBF", record.mtbf_seconds),
            mean("MTTR", record.mttr_seconds)
        ),
    ));
    facts
}

/// A question that covers what is behind it.
fn ask(buffer: &mut Buffer, area: Rect, proposal: &Proposal, look: Look) {
    let wide = area.width.saturating_sub(4).min(BOX);
    let lines: Vec<Line<'_>> = proposal.outlook.lines().map(Line::from).collect();
    let body = Paragraph::new(lines).wrap(Wrap { trim: false });
    let inside = usize::from(wide.saturating_sub(4).max(1));
    let wrapped: usize = proposal
        .outlook
        .lines()
        .map(|line| width(line).div_ceil(inside).max(1) + 1)
        .sum();
    let high = (wrapped as u16 + 4).min(area.height);
    let frame = Rect {
        x: area.x + (area.width - wide) / 2,
        y: area.y + (area.height - high) / 2,
        width: wide,
        height: high,
    };
    Clear.render(frame, buffer);
    let border = match look.unicode {
        true => ratatui::symbols::border::PLAIN,
        false => ASCII_BORDER,
    };
    Block::bordered()
        .border_set(border)
        .border_style(look.style(Color::Yellow))
        .title(format!(
            " {} ",
            fitted(&proposal.title, usize::from(wide) - 4)
        ))
        .title_bottom(" y yes   n no ")
        .render(frame, buffer);
    let inner = Rect {
        x: frame.x + 2,
        y: frame.y + 2,
        width: frame.width - 4,
        height: frame.height.saturating_sub(3),
    };
    body.render(inner, buffer);
}

fn text(buffer: &mut Buffer, area: Rect, lines: &str) {
    for (y, line) in lines.lines().take(usize::from(area.height)).enumerate() {
        put(buffer, area, 0, y as u16, line, Style::new());
    }
}

/// Text from there on, and never beyond the area.
fn put(buffer: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) {
    if x < area.width && y < area.height {
        let room = usize::from(area.width - x);
        buffer.set_stringn(area.x + x, area.y + y, fitted(text, room), room, style);
    }
}

/// A sentence from the left: what does not fit is left out of its end.
fn say(buffer: &mut Buffer, area: Rect, y: u16, text: &str, style: Style) {
    if y < area.height {
        buffer.set_stringn(area.x, area.y + y, text, usize::from(area.width), style);
    }
}

fn numbers<'a>(samples: impl Iterator<Item = &'a Sample>, what: What) -> Vec<f64> {
    samples.map(what).collect()
}

/// Without arrows where there are none.
fn plain(text: &str, look: Look) -> String {
    match look.unicode {
        true => text.to_owned(),
        false => text
            .replace("↑↓", "up/down")
            .replace('⏎', "Enter")
            .replace('←', "left"),
    }
}

/// A number of a second.
type What = fn(&Sample) -> f64;

/// STATE, SINCE, SESS, NEW/s, IN/s, OUT/s
const WIDTHS: [usize; 6] = [10, 7, 6, 5, 5, 5];
/// In front of a backend below its service.
const INDENT: &str = "    ";
/// As short as a trend becomes for the sake of names.
const SHORTEST_TREND: usize = 8;
/// Findings that are told above the list: what fits a line is cut there.
const MOST_TOLD: usize = 5;
/// Lines above the list.
const HEAD: u16 = 3;
/// Columns of a label in the detail.
const LABEL: u16 = 10;
/// The widest question.
const BOX: u16 = 72;
/// Less than that shows nothing.
const LEAST: (u16, u16) = (60, 10);
const ASCII_BORDER: ratatui::symbols::border::Set<'_> = ratatui::symbols::border::Set {
    top_left: "+",
    top_right: "+",
    bottom_left: "+",
    bottom_right: "+",
    vertical_left: "|",
    vertical_right: "|",
    horizontal_top: "-",
    horizontal_bottom: "-",
};

const HELP: &str = "\
Looking
  up, down, PgUp, PgDn, Home, End    select a line (or j, k, Space, g, G)
  Enter                              a backend in detail; a service folds
  s                                  sort: service, state, sessions, new, bytes
  /                                  show only names or states with this text
  w                                  show only what is wrong or noteworthy
  Esc                                back: out of the detail, of the filter

Changing the selected backend; each asks first, and says whom it concerns
  d                                  drain: no new sessions, the others run on
  x                                  disable: the same, and nobody is alarmed
  e                                  enable: it serves again
  r                                  reset: back to what the file says
  c                                  close its sessions

  q                                  quit";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Process, Standing, State, Traffic};
    use crate::cli::top::state::Input;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

    const LOOK: Look = Look {
        colours: false,
        unicode: true,
    };

    fn backend(name: &str, state: State, total: u64) -> Backend {
        Backend {
            name: name.into(),
            address: Some("10.0.0.1:80".into()),
            state,
            since: Some("2026-11-21T11:57:50.000Z".into()),
            serving: state == State::Up,
            why: (state == State::Down).then(|| "its checks fail: refused".into()),
            weight: 1,
            effective_weight_thousandths: 1000,
            enabled: true,
            traffic: Traffic {
                sessions: 40,
                sessions_total: total,
                ..Traffic::default()
            },
            ..Backend::default()
        }
    }

    fn view(second: u64, backends: Vec<Backend>) -> View {
        let total = backends.iter().map(|it| it.traffic.sessions_total).sum();
        View {
            at: format!("2026-11-21T12:00:0{second}.000Z"),
            process: Process {
                version: "0.1.0".into(),
                uptime_seconds: 273_600.0,
                sessions: 80,
                max_connections: 9000,
                ..Process::default()
            },
            services: vec![Service {
                name: "web".into(),
                standing: Standing::Degraded,
                why: Some("1 of 2 backends does not serve".into()),
                eligible: 1,
                configured: backends.len() as u32,
                strategy: "round-robin".into(),
                traffic: Traffic {
                    sessions: 80,
                    sessions_total: total,
                    ..Traffic::default()
                },
                backends,
                ..Service::default()
            }],
        }
    }

    fn top() -> Top {
        let mut top = Top::new("127.0.0.1:9900".into());
        for second in 0..3 {
            let backends = vec![
                backend("app-1", State::Up, second * 50),
                backend("app-2", State::Down, 0),
            ];
            top.take(Input::View(Ok(Box::new(view(second, backends)))));
        }
        top
    }

    fn press(top: &mut Top, code: KeyCode) {
        top.take(Input::Key(KeyEvent::new(code, KeyModifiers::NONE)));
    }

    fn drawn(top: &mut Top, (columns, lines): (u16, u16), look: Look) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| draw(frame, top, look)).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let area = buffer.area;
        (0..area.height)
            .map(|y| {
                let line: String = (0..area.width).map(|x| buffer[(x, y)].symbol()).collect();
                line.trim_end().to_owned()
            })
            .collect()
    }

    #[test]
    fn the_list_shows_what_is_wrong_and_how_everything_does() {
        let lines = drawn(&mut top(), (80, 24), LOOK);
        assert!(
            lines[0].starts_with("ballast 0.1.0 · up 3d 4h · 80 of 9,000 sessions"),
            "{lines:#?}"
        );
        assert!(lines[0].ends_with("127.0.0.1:9900"), "{lines:#?}");
        assert!(
            lines[1].starts_with("   50 new/s     0 failed/s") && lines[1].ends_with("██"),
            "{lines:#?}"
        );
        let wrong = "2 wrong: web: 1 of 2 backends does not serve · web/app-2";
        assert!(lines[2].starts_with(&wrong[..40]), "{lines:#?}");
        assert_eq!(
            lines[3],
            "SERVICE           STATE        SINCE   SESS NEW/s  IN/s OUT/s"
        );
        assert!(
            lines[4].starts_with("▾ web             1/2 serve              80    50     0     0"),
            "{lines:#?}"
        );
        assert!(
            lines[5].starts_with("    app-1         up          2m 12s     40    50     0     0"),
            "{lines:#?}"
        );
        assert!(lines[5].ends_with("██"), "{lines:#?}");
        assert_eq!(
            lines[6],
            "    app-2         down        2m 12s     40     0     0     0"
        );
        assert!(
            lines[23].starts_with("q quit  ↑↓ select") && lines[23].ends_with("? help"),
            "{lines:#?}"
        );
    }

    #[test]
    fn a_question_says_what_will_happen_before_it_does() {
        let mut top = top();
        press(&mut top, KeyCode::Down);
        press(&mut top, KeyCode::Char('d'));
        let screen = drawn(&mut top, (80, 24), LOOK).join("\n");
        for part in [
            "Drain web/app-1?",
            "40 sessions are running there; they run to their end.",
            "NOBODY WOULD BE LEFT",
            "y yes   n no",
        ] {
            assert!(screen.contains(part), "{part}\n{screen}");
        }
    }

    #[test]
    fn the_detail_has_the_reason_and_the_record() {
        let mut top = top();
        press(&mut top, KeyCode::End);
        press(&mut top, KeyCode::Enter);
        let screen = drawn(&mut top, (80, 24), LOOK).join("\n");
        for part in [
            "web/app-2",
            "state     down for 2m 12s",
            "why       its checks fail: refused",
            "address   10.0.0.1:80",
            "0 sessions lost · 0 moved elsewhere",
        ] {
            assert!(screen.contains(part), "{part}\n{screen}");
        }
    }

    #[test]
    fn two_hundred_backends_scroll_and_long_names_keep_their_ends() {
        let mut top = Top::new("unix:/run/ballast/a-directory-with-a-long-name/admin.sock".into());
        let name = |number| format!("a-backend-that-somebody-has-named-at-length-{number:03}");
        let backends: Vec<_> = (0..200)
            .map(|number| backend(&name(number), State::Up, 0))
            .collect();
        top.take(Input::View(Ok(Box::new(view(1, backends)))));
        let lines = drawn(&mut top, (80, 24), LOOK);
        let shows = |lines: &[String], name: &str| {
            let starts = |line: &String| line.starts_with(&format!("    …{name} "));
            assert!(lines.iter().any(starts), "{name}\n{lines:#?}");
        };
        shows(&lines, "000");
        press(&mut top, KeyCode::End);
        let lines = drawn(&mut top, (80, 24), LOOK);
        shows(&lines[22..], "199");
        press(&mut top, KeyCode::PageUp);
        shows(&drawn(&mut top, (80, 24), LOOK), "180");
    }

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
    fn any_size_and_any_terminal_will_do() {
        for size in [(1, 1), (20, 5), (60, 10), (80, 24), (250, 80)] {
            for look in [
                LOOK,
                Look {
                    colours: true,
                    unicode: false,
                },
            ] {
                let mut top = top();
                for key in [
                    KeyCode::Down,
                    KeyCode::Char('d'),
                    KeyCode::Char('n'),
                    KeyCode::Enter,
                    KeyCode::Char('?'),
                ] {
                    drawn(&mut top, size, look);
                    press(&mut top, key);
                }
                let lines = drawn(&mut top, size, look);
                assert_eq!(lines.len(), usize::from(size.1));
            }
        }
        let plain = Look {
            colours: false,
            unicode: false,
        };
        let screen = drawn(&mut top(), (80, 24), plain);
        assert!(
            screen[4].starts_with("- web") && screen[23].contains("Enter open"),
            "{screen:#?}"
        );
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

    #[test]
    fn a_daemon_that_is_gone_leaves_the_last_view_and_says_so() {
        let mut top = top();
        top.take(Input::View(Err(
            "cannot reach the daemon at 127.0.0.1:9900: connection refused\n  is it running?"
                .into(),
        )));
        let lines = drawn(&mut top, (80, 24), LOOK);
        assert!(
            lines[2].starts_with("cannot reach the daemon"),
            "{lines:#?}"
        );
        assert!(lines[5].contains("app-1"), "{lines:#?}");
    }
}
