//! How `ballast top` looks, from 80×24 upwards; what does not fit is left out, never wrapped into
//! something else. Draws what [`Top`] says and decides nothing but how far the list is scrolled.
//! [`head`] is above all else, [`list`], [`detail`] and [`events`] are what the middle may show, [`question`]
//! is what may lie over it. [`apart`] is what the list says besides its rows.

mod apart;
mod canvas;
mod detail;
mod events;
mod head;
mod list;
mod question;
#[cfg(test)]
mod tests;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};

pub(super) use self::canvas::Look;
use self::canvas::{put, say};
use super::state::{Pane, Top};
use crate::cli::condition::Gravity;

/// The whole screen.
pub(super) fn draw(frame: &mut Frame<'_>, top: &mut Top, look: Look) {
    let area = frame.area();
    let buffer = frame.buffer_mut();
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let text = format!("too small: {}×{} at least", LEAST.0, LEAST.1);
        put(buffer, area, 0, 0, &text, Style::new());
        return;
    }
    head::head(buffer, area, top, look);
    let inner = Rect {
        y: area.y + head::LINES,
        height: area.height - head::LINES - 1,
        ..area
    };
    match top.pane {
        Pane::List => {
            let strip = events::strip(top, inner.height);
            let [above, below] = split(inner, inner.height - strip);
            list::list(buffer, above, top, look);
            if strip > 0 {
                events::recent(buffer, below, top, look);
            }
        }
        Pane::Detail => detail::detail(buffer, inner, top, look),
        Pane::Events => events::all(buffer, inner, top, look),
        Pane::Help => text(buffer, inner, HELP),
    }
    foot(buffer, area, top, look);
    if let Some(proposal) = &top.proposal {
        question::ask(buffer, area, proposal, look);
    }
}

/// An area in two, one of `lines` above the other.
fn split(area: Rect, lines: u16) -> [Rect; 2] {
    let below = Rect {
        y: area.y + lines,
        height: area.height - lines,
        ..area
    };
    let above = Rect {
        height: lines,
        ..area
    };
    [above, below]
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
        Pane::Events => "q quit  ← back  ? help",
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

fn text(buffer: &mut Buffer, area: Rect, lines: &str) {
    for (y, line) in lines.lines().take(usize::from(area.height)).enumerate() {
        put(buffer, area, 0, y as u16, line, Style::new());
    }
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

/// Less than that shows nothing.
const LEAST: (u16, u16) = (60, 10);

const HELP: &str = "\
Looking
  up, down, PgUp, PgDn, Home, End    select a line (or j, k, Space, g, G)
  Enter                              a backend in detail; a service folds
  s                                  sort: service, state, sessions, new, bytes
  /                                  show only names or states with this text
  w                                  show only what is wrong or noteworthy, and why
  v                                  what has happened, as far as it fits
  Esc                                back: out of the detail, of the filter

Changing the selected backend; each asks first, and says whom it concerns
  d                                  drain: no new sessions, the others run on
  x                                  disable: the same, and nobody is alarmed
  e                                  enable: it serves again
  r                                  reset: back to what the file says
  c                                  close its sessions

  q                                  quit";
