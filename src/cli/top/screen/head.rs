//! The three lines above all else: how the daemon does, and what is wrong.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::canvas::{Look, put, say};
use crate::api::View;
use crate::cli::condition::Gravity;
use crate::cli::figures::{fitted, grouped, of, rate, time, width};
use crate::cli::findings::{headlines, share};
use crate::cli::top::history::{numbers, sparkline};
use crate::cli::top::rows::Sort;
use crate::cli::top::state::Top;

/// Draws them: two that say how the daemon does, and one of what is wrong.
pub(super) fn head(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let Some(view) = &top.view else {
        let first = format!("ballast at {}", top.address);
        put(buffer, area, 0, 0, &first, bold);
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
    pace(buffer, area, top, look);
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

/// How fast things happen, in a line.
fn pace(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
    let now = top
        .history
        .whole()
        .next_back()
        .copied()
        .unwrap_or_default()
        .rate;
    let (new, lost) = (rate(now.sessions), rate(now.turned_away));
    let alarm = match now.turned_away > 0.0 {
        true => look.of(Gravity::Wrong),
        false => Style::new(),
    };
    let mut at = 0;
    for (part, style) in [
        (format!("{new:>5} new/s "), Style::new()),
        (format!("{lost:>5} turned away/s "), alarm),
        (
            format!(
                "{:>5} B/s in {:>5} B/s out ",
                rate(now.to_backend),
                rate(now.to_client)
            ),
            Style::new(),
        ),
    ] {
        put(buffer, area, at as u16, 1, &part, style);
        at += width(&part);
    }
    let line = sparkline(
        &numbers(top.history.whole(), |it| it.rate.sessions),
        usize::from(area.width) - at,
        look.unicode,
    );
    put(buffer, area, at as u16, 1, &line, look.style(Color::Cyan));
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
    let all = top.findings.iter();
    let wrong = all.filter(|it| it.gravity == Gravity::Wrong).count();
    if wrong == 0 {
        let text = format!(
            "All is well: {}, {}",
            of(view.services.len() as u64, "service"),
            share(view.services.iter())
        );
        return (text, look.of(Gravity::Well));
    }
    let told = headlines(&top.findings, MOST_TOLD).join(" · ");
    let text = format!("{wrong} wrong: {told}");
    (text, look.of(Gravity::Wrong))
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

/// How many they are.
pub(super) const LINES: u16 = 3;
/// Findings that are told above the list: what fits a line is cut there.
const MOST_TOLD: usize = 5;
