//! How `ballast top` looks, from 80×24 upwards; what does not fit is left out, never wrapped into
//! something else. Draws what [`Top`] says and decides nothing but how far the list is scrolled.
//! [`list`], [`detail`] and [`events`] are what the middle may show; here is what is around it.

mod canvas;
mod detail;
mod events;
mod list;

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Clear, Paragraph, Widget, Wrap};

pub(super) use self::canvas::Look;
use self::canvas::{put, say};
use super::history::{Sample, sparkline};
use super::rows::Sort;
use super::state::{Pane, Proposal, Top};
use crate::api::View;
use crate::cli::condition::Gravity;
use crate::cli::figures::{fitted, grouped, of, rate, time, width};
use crate::cli::findings::headlines;

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
        ask(buffer, area, proposal, look);
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
    let all = top.findings.iter();
    let wrong = all.filter(|it| it.gravity == Gravity::Wrong).count();
    if wrong == 0 {
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
    let told = headlines(&top.findings, MOST_TOLD).join(" · ");
    let text = format!("{wrong} wrong: {told}");
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

fn text(buffer: &mut Buffer, area: Rect, lines: &str) {
    for (y, line) in lines.lines().take(usize::from(area.height)).enumerate() {
        put(buffer, area, 0, y as u16, line, Style::new());
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

/// Findings that are told above the list: what fits a line is cut there.
const MOST_TOLD: usize = 5;
/// Lines above the list.
const HEAD: u16 = 3;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Admin, Backend, Event, Process, Service, Standing, State, Traffic};
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
                why: Some("1 of 2 backends should serve and does not".into()),
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
            lines[1].starts_with("   50 new/s     0 turned away/s") && lines[1].ends_with("██"),
            "{lines:#?}"
        );
        // The cause comes first.
        let wrong = "2 wrong: web/app-2: down for 2m 12s: its checks fail: refused · web: 1 of";
        assert!(lines[2].starts_with(wrong), "{lines:#?}");
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
    fn what_is_wrong_is_shown_with_why_and_what_an_operator_has_said_besides() {
        let mut top = top();
        let mut view = top.view.take().unwrap();
        let mut disabled = backend("app-3", State::Up, 0);
        disabled.admin = Some(Admin {
            duty: "maintenance".into(),
            weight_percent: 100,
            since: Some("2026-11-21T11:58:00.000Z".into()),
            by: Some("uid 0".into()),
            ..Admin::default()
        });
        disabled.why = Some("disabled by an operator".into());
        disabled.serving = false;
        view.services[0].backends.push(disabled);
        top.take(Input::View(Ok(view)));
        press(&mut top, KeyCode::Char('w'));
        let lines = drawn(&mut top, (110, 24), LOOK);
        let rows: Vec<_> = lines[3..7]
            .iter()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert_eq!(
            rows,
            [
                "SERVICE STATE SINCE SESS WHY",
                "▾ web 1/2 serve 80 1 of 2 backends should serve and does not",
                "app-2 down 2m 12s 40 its checks fail: refused",
                "app-3 disabled 2m 2s 40 disabled by an operator (uid 0)",
            ],
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
    fn what_is_not_done_is_told_whole_on_a_small_terminal() {
        let mut top = top();
        let why = format!(
            "this takes a token\n  {}",
            "and some words ".repeat(8) + "at its end"
        );
        top.take(Input::Done(Err(why)));
        let screen = drawn(&mut top, (60, 16), LOOK).join("\n");
        for part in [
            "Nothing was done",
            "this takes a token",
            "its end",
            "any key goes back",
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

    fn happened(second: u64, name: &str, level: &str, text: &str) -> Event {
        Event {
            at: format!("2026-11-21T11:59:{second:02}.000Z"),
            level: level.into(),
            service: Some("web".into()),
            backend: Some(name.into()),
            text: format!("web/{name}: {text}"),
            ..Event::default()
        }
    }

    #[test]
    fn the_last_events_stand_below_the_list_and_all_that_fit_behind_a_key() {
        let mut top = top();
        let number = |number: u64| happened(number, "app-1", "info", &format!("event {number}"));
        let mut events: Vec<_> = (0..30).map(number).collect();
        events.push(happened(50, "app-2", "warn", "backend is down"));
        top.take(Input::Events(events));
        let lines = drawn(&mut top, (80, 24), LOOK);
        assert_eq!(lines[19], "LATELY (v shows more)", "{lines:#?}");
        assert_eq!(lines[20], "    12s ago  web/app-2: backend is down");
        assert_eq!(lines[22], "    34s ago  web/app-1: event 28");
        // Where there is hardly room for the list there is none for anything else.
        let small = drawn(&mut top, (80, 18), LOOK).join("\n");
        assert!(!small.contains("LATELY"), "{small}");
        press(&mut top, KeyCode::End);
        press(&mut top, KeyCode::Enter);
        let detail = drawn(&mut top, (80, 24), LOOK).join("\n");
        assert!(
            detail.contains("is down") && !detail.contains("event"),
            "{detail}"
        );
        press(&mut top, KeyCode::Char('v'));
        let lines = drawn(&mut top, (80, 24), LOOK);
        assert_eq!(lines[3], "EVENTS, the latest first");
        assert_eq!(lines[4], "    12s ago  web/app-2: backend is down");
        assert_eq!(lines[22], "    50s ago  web/app-1: event 12", "{lines:#?}");
    }

    #[test]
    fn a_drain_tells_who_ordered_it_and_when_it_is_over() {
        let mut one = backend("app-1", State::Up, 0);
        one.admin = Some(Admin {
            duty: "drain".into(),
            weight_percent: 100,
            since: Some("2026-11-21T11:59:41.000Z".into()),
            by: Some("uid 0".into()),
            deadline: Some("2026-11-21T12:05:01.000Z".into()),
        });
        let mut top = top();
        top.take(Input::View(Ok(Box::new(view(1, vec![one])))));
        press(&mut top, KeyCode::End);
        press(&mut top, KeyCode::Enter);
        let screen = drawn(&mut top, (80, 24), LOOK).join("\n");
        let lines = "\
operator  drain 20s ago by uid 0; r goes back to the file
deadline  what is left is closed in 5m";
        assert!(screen.contains(lines), "{screen}");
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
