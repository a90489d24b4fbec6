//! The terminal as those draw on it who draw: what it understands, and text that stays where it was put.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use crate::cli::condition::Gravity;
use crate::cli::figures::{fitted, width};

/// What the terminal understands.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli::top) struct Look {
    pub(in crate::cli::top) colours: bool,
    /// Rather than ASCII alone.
    pub(in crate::cli::top) unicode: bool,
}

impl Look {
    pub(super) fn style(self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    pub(super) fn of(self, gravity: Gravity) -> Style {
        match gravity {
            Gravity::Wrong => self.style(Color::Red).add_modifier(Modifier::BOLD),
            Gravity::Noted => self.style(Color::Yellow),
            Gravity::Well => self.style(Color::Green),
        }
    }
}

/// Text from there on, and never beyond the area.
pub(super) fn put(buffer: &mut Buffer, area: Rect, x: u16, y: u16, text: &str, style: Style) {
    if x < area.width && y < area.height {
        let room = usize::from(area.width - x);
        buffer.set_stringn(area.x + x, area.y + y, fitted(text, room), room, style);
    }
}

/// A sentence from the left: what does not fit is left out of its end, and that is seen.
pub(super) fn say(buffer: &mut Buffer, area: Rect, y: u16, text: &str, style: Style) {
    if y < area.height && area.width > 0 {
        let room = usize::from(area.width);
        buffer.set_stringn(area.x, area.y + y, text, room, style);
        if width(text) > room {
            let last = area.x + area.width - 1;
            buffer.set_string(last, area.y + y, "…", style);
        }
    }
}
