//! One backend, and all that is known of it.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};

use super::canvas::{Look, put};
use super::{events, split};
use crate::api::{Backend, Event, Service, State};
use crate::cli::condition::{Condition, since_when};
use crate::cli::figures::{ago, grouped, of, rate, scaled, time};
use crate::cli::findings::{deadline, said_by};
use crate::cli::status::{availability, milliseconds};
use crate::cli::top::history::{What, numbers, sparkline};
use crate::cli::top::rows::Key;
use crate::cli::top::state::Top;

/// Draws it, as far as there is room.
pub(super) fn detail(buffer: &mut Buffer, area: Rect, top: &Top, look: Look) {
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
    let its = |event: &&Event| {
        event.service.as_ref() == Some(&service.name)
            && event.backend.as_ref() == Some(&backend.name)
    };
    y += 1;
    if y + 1 < area.height && top.events.iter().any(|event| its(&event)) {
        let bold = Style::new().add_modifier(Modifier::BOLD);
        put(buffer, area, 0, y, "LATELY", bold);
        let [_, rest] = split(area, y + 1);
        events::latest(buffer, rest, top.events.iter().filter(its), &top.view, look);
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
            backend.told_weight(),
            backend.priority,
            service.strategy
        ),
    ));
    if let Some(admin) = &backend.admin {
        let text = match admin.weight_percent {
            100 => admin.duty.clone(),
            percent => format!("{}, {percent}% of its weight", admin.duty),
        };
        facts.push((
            "operator",
            format!("{text}{}; r goes back to the file", said_by(admin, now)),
        ));
        facts.extend(deadline(backend, now).map(|it| ("deadline", it)));
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
        // Of one that is well it is history, and would read as though it was not.
        let is_well = [State::Up, State::Unknown].contains(&backend.state);
        if let Some(failure) = check.last_failure.as_ref().filter(|_| !is_well) {
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

/// Columns of a label in the detail.
const LABEL: u16 = 10;
