//! What has happened lately: the latest first, as in `ballast status`.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::canvas::{Look, put, say};
use crate::api::{Event, View};
use crate::cli::condition::Gravity;
use crate::cli::figures::{ago, time};
use crate::cli::top::state::Top;

/// Lines below the list that tell of events, their heading among them; none on a small terminal, which
/// has hardly room for the list.
pub(super) fn strip(top: &Top, height: u16) -> u16 {
    match top.events.len() {
        0 => 0,
        _ if height < LEAST => 0,
        some => (some as u16).min((height / SHARE).min(MOST)) + 1,
    }
}

/// Draws a heading and the latest of them.
pub(super) fn recent(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, area, 0, 0, "LATELY (v shows more)", bold);
    latest(buffer, body(area), top.events.iter(), &top.view, look);
}

/// Draws as many as there is room for.
pub(super) fn all(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
    let bold = Style::new().add_modifier(Modifier::BOLD);
    put(buffer, area, 0, 0, "EVENTS, the latest first", bold);
    if top.events.is_empty() {
        put(buffer, area, 0, 1, "nothing yet", Style::new());
    }
    latest(buffer, body(area), top.events.iter(), &top.view, look);
}

/// Draws the last of `events` that there is room for.
pub(super) fn latest<'e>(
    buffer: &mut Buffer,
    area: Rect,
    events: impl DoubleEndedIterator<Item = &'e Event>,
    view: &Option<Box<View>>,
    look: Look,
) {
    let now = view.as_ref().map_or("", |view| &*view.at);
    let last = events.rev().take(usize::from(area.height));
    for (y, event) in last.enumerate() {
        let past = ago(&event.at, now).map_or_else(String::new, time);
        put(
            buffer,
            area,
            0,
            y as u16,
            &format!("{past:>7} ago"),
            look.style(Color::DarkGray),
        );
        let style = match &*event.level {
            "error" => look.of(Gravity::Wrong),
            "warn" => look.of(Gravity::Noted),
            _ => Style::new(),
        };
        say(buffer, right_of(area, AGE), y as u16, &event.text, style);
    }
}

/// All but the heading.
fn body(area: Rect) -> Rect {
    let heading = area.height.min(1);
    Rect {
        y: area.y + heading,
        height: area.height - heading,
        ..area
    }
}

fn right_of(area: Rect, columns: u16) -> Rect {
    let columns = columns.min(area.width);
    Rect {
        x: area.x + columns,
        width: area.width - columns,
        ..area
    }
}

/// Lines that the list must have before events are shown below it, …
const LEAST: u16 = 16;
/// … the part of them that events are given, …
const SHARE: u16 = 6;
/// … and the most.
const MOST: u16 = 8;
/// Columns of when it was.
const AGE: u16 = 13;
