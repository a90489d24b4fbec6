//! A report for a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use super::document::{Line, Report, known, percent, remarks};
use crate::api::Record;
use crate::cli::events::{failover_row, failover_table};
use crate::cli::figures::{of, time, width, wrapped};
use crate::cli::table::{Cell, Column, Table};

pub(super) fn of_seconds(seconds: Option<f64>) -> String {
    let time_of = |seconds| Duration::try_from_secs_f64(seconds).map(time);
    seconds
        .and_then(|it| time_of(it).ok())
        .unwrap_or_else(|| "–".to_owned())
}

/// The whole text, at most [`COLUMNS`] wide where names allow.
pub(super) fn of_all(report: &Report) -> String {
    let mut text = format!("Availability, {}\n", report.at);
    for service in &report.services {
        text += &block(service);
    }
    if report.services.len() > 1 {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "\nAll services at a time, in series: {} predicted",
            percent(report.all_predicted_availability)
        );
    }
    text += &failovers(report);
    text += &events(report);
    text += "\nRecords are of the time that Ballast has watched (KNOWN), whatever --since says; failovers and\n\
             events are of this daemon only, which has run since ";
    let _ = writeln!(text, "{}.", report.daemon_started);
    text
}

fn block(service: &Line) -> String {
    let mut table = Table::new(&[
        Column::Words,
        Column::Numbers,
        Column::Numbers,
        Column::Numbers,
        Column::Numbers,
        Column::Numbers,
        Column::Numbers,
    ]);
    table.row(
        [
            "",
            "AVAILABLE",
            "KNOWN",
            "FAILURES",
            "FLAPS",
            "MTBF",
            "MTTR",
        ]
        .map(Cell::from),
    );
    table.row(row("measured", &service.record));
    table.row([
        "predicted".into(),
        percent(service.predicted_availability).into(),
    ]);
    for backend in &service.backends {
        let name = match backend.enabled {
            true => format!("  {}", backend.name),
            false => format!("  {} (disabled)", backend.name),
        };
        table.row(row(&name, &backend.record));
    }
    let (needed, all) = (service.min_up, service.backends.len());
    let mut block = format!(
        "\n{}: {needed} of {all} backends must be up\n{}",
        service.name,
        table.text(COLUMNS, false)
    );
    for remark in remarks(service) {
        for line in wrapped(&remark, COLUMNS - 2) {
            let _ = writeln!(block, "  {line}");
        }
    }
    block
}

fn row(name: &str, record: &Record) -> [Cell; 7] {
    [
        name.into(),
        percent(record.availability).into(),
        time(known(record)).into(),
        record.failures.to_string().into(),
        record.flaps.to_string().into(),
        of_seconds(record.mtbf_seconds).into(),
        of_seconds(record.mttr_seconds).into(),
    ]
}

fn failovers(report: &Report) -> String {
    let count = report.failovers.len() as u64;
    let mut text = format!("\n{} since {}\n", of(count, "failover"), report.since);
    if report.failovers.is_empty() {
        return text;
    }
    let mut table = failover_table();
    for it in &report.failovers {
        table.row(failover_row(it));
    }
    text += &table.text(COLUMNS, false);
    text
}

fn events(report: &Report) -> String {
    let count = report.events.len();
    if count == 0 {
        return String::new();
    }
    let mut text = format!("\n{} or errors\n", of(count as u64, "warning"));
    for event in report.events.iter().skip(count.saturating_sub(MOST_EVENTS)) {
        let time = moment(&event.at);
        let hanging = " ".repeat(width(&time));
        let lines = wrapped(&event.text, COLUMNS - width(&time) - 2);
        for (index, line) in lines.iter().enumerate() {
            let before = if index == 0 { &time } else { &hanging };
            let _ = writeln!(text, "{before}  {line}");
        }
    }
    if count > MOST_EVENTS {
        let _ = writeln!(text, "… the last {MOST_EVENTS}; all of them: --format json");
    }
    text
}

/// `2026-11-21 11:30:00`, in UTC as it came.
pub(super) fn moment(text: &str) -> String {
    let seconds = text.split('.').next().unwrap_or(text);
    seconds.trim_end_matches('Z').replace('T', " ")
}

const COLUMNS: usize = 100;
/// More are for programs to read.
const MOST_EVENTS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Rejection;
    use crate::cli::report::document::tests::sample;

    #[test]
    fn it_says_measured_beside_predicted_and_fits_a_terminal() {
        let text = of_all(&sample(Duration::from_secs(48 * 3600)));
        for part in [
            "web: 1 of 2 backends must be up\n",
            "99.9884 %",
            "predicted  99.9000 %",
            "  a<b>",
            "90.0000 %",
            "2 failovers since 2026-11-20T12:00:00Z\n",
            "web/c    2026-11-21 11:30:00Z  700.0 ms  710.0 ms  1200.0 ms      3     0  refused",
            "2 warnings or errors\n",
            "has run since 2026-11-20T12:00:00.000Z.\n",
        ] {
            assert!(text.contains(part), "{part:?} not in\n{text}");
        }
        for line in text.lines() {
            assert!(line.chars().count() <= COLUMNS, "{line}");
        }
    }

    #[test]
    fn a_list_that_is_not_in_force_is_told_beside_the_figures() {
        let mut report = sample(Duration::ZERO);
        report.services[0].backends_file_rejected = Some(Rejection {
            at: "2026-11-21T11:30:00.000Z".into(),
            problems: vec!["web.toml:3:1: unknown key".into()],
        });
        let told = "\n  its backends_file has been rejected since 2026-11-21T11:30:00.000Z: \
                    web.toml:3:1: unknown key\n";
        let text = of_all(&report);
        assert!(text.contains(told), "{text}");
    }

    #[test]
    fn nothing_to_tell_is_told() {
        let text = of_all(&sample(Duration::ZERO));
        assert!(
            text.contains("\n0 failovers since 2026-11-21T12:00:00Z\n"),
            "{text}"
        );
        assert!(!text.contains("warnings"), "{text}");
    }
}
