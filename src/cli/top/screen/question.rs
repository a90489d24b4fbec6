//! A question that covers what is behind it, until it is answered.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Color;
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

use super::canvas::Look;
use crate::cli::figures::{fitted, width};
use crate::cli::top::state::Proposal;

/// In the middle of `area`, as large as its words need.
pub(super) fn ask(buffer: &mut Buffer, area: Rect, proposal: &Proposal, look: Look) {
    let wide = area.width.saturating_sub(4).min(WIDEST);
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
        .title_bottom(match proposal.order {
            Some(_) => " y yes   n no ",
            None => " any key goes back ",
        })
        .render(frame, buffer);
    let inner = Rect {
        x: frame.x + 2,
        y: frame.y + 2,
        width: frame.width - 4,
        height: frame.height.saturating_sub(3),
    };
    body.render(inner, buffer);
}

/// The widest question.
const WIDEST: u16 = 72;
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
