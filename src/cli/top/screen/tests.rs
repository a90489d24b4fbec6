//! Screens of a made-up daemon.

use super::*;
use crate::api::{
    Admin, Backend, Event, Process, Rejection, Service, Standing, State, Traffic, View,
};
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
fn what_is_wrong_with_the_daemon_and_the_file_is_shown_where_only_that_is() {
    let mut top = top();
    let mut view = top.view.take().unwrap();
    let process = &mut view.process;
    process.max_connections = 80;
    process.configuration.path = Some("/etc/b.toml".into());
    process.configuration.rejected = Some(Rejection {
        at: "2026-11-21T11:58:00.000Z".into(),
        problems: vec!["b.toml:1:1: error: unknown key".into()],
    });
    top.take(Input::View(Ok(view.clone())));
    let words = |top: &mut Top, lines: std::ops::Range<usize>| -> Vec<_> {
        let all = drawn(top, (110, 24), LOOK);
        let word = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        all[lines].iter().map(word).collect()
    };
    assert!(
        !words(&mut top, 0..24)
            .iter()
            .any(|it| it.starts_with("daemon"))
    );
    press(&mut top, KeyCode::Char('w'));
    let told = [
        "daemon all 80 sessions of max_connections are in use: new clients wait",
        "configuration /etc/b.toml was rejected 2m 2s ago: what runs is not what is in it",
        "b.toml:1:1: error: unknown key",
    ];
    assert_eq!(words(&mut top, 4..7), told);
    assert!(words(&mut top, 7..8)[0].starts_with("▾ web 1/2 serve"));
    // Services have no rows where backends are sorted.
    press(&mut top, KeyCode::Char('s'));
    let lines = words(&mut top, 4..10);
    assert_eq!(lines[..3], told);
    assert_eq!(lines[3], "web 1 of 2 backends should serve and does not");
    assert!(
        lines.iter().any(|it| it.starts_with("web/app-2 down")),
        "{lines:#?}"
    );
    // With nothing else wrong they are all there is.
    view.services.clear();
    top.take(Input::View(Ok(view)));
    assert_eq!(words(&mut top, 4..8)[..3], told);
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
        "cannot reach the daemon at 127.0.0.1:9900: connection refused\n  is it running?".into(),
    )));
    let lines = drawn(&mut top, (80, 24), LOOK);
    assert!(
        lines[2].starts_with("cannot reach the daemon"),
        "{lines:#?}"
    );
    assert!(lines[5].contains("app-1"), "{lines:#?}");
}
