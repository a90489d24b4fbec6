//! A report as a page of its own: nothing is loaded, nothing runs.

use std::fmt::Write as _;

use super::document::{Line, Report, known, percent, remarks};
use super::text::{moment, of_seconds};
use crate::api::{Failover, Record};
use crate::cli::figures::{tenths, time};

/// The whole page.
pub(super) fn of_all(report: &Report) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>Availability, {at}</title><style>{STYLE}</style></head><body>\n\
         <h1>Availability</h1>\n<p class=\"soft\">{at}. Records are of the time that Ballast has watched; \
         failovers and events are of this daemon only, which has run since {started}.</p>\n",
        at = escaped(&moment(&report.at)),
        started = escaped(&moment(&report.daemon_started)),
    );
    for service in &report.services {
        page += &block(service);
    }
    if report.services.len() > 1 {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "<p>All services at a time, in series: <b>{}</b> predicted.</p>",
            percent(report.all_predicted_availability)
        );
    }
    page += &failovers(report);
    if !report.events.is_empty() {
        page += "<h2>Warnings and errors</h2>\n<ul>\n";
        for event in &report.events {
            let at = escaped(&moment(&event.at));
            let _ = writeln!(page, "<li><time>{at}</time> {}</li>", escaped(&event.text));
        }
        page += "</ul>\n";
    }
    page + "</body></html>\n"
}

fn block(service: &Line) -> String {
    let mut block = format!(
        "<h2>{}</h2>\n<p class=\"soft\">{} of {} backends must be up.</p>\n<table><thead><tr><th></th>\
         <th>Available</th><th>Known</th><th>Failures</th><th>Flaps</th><th>MTBF</th><th>MTTR</th></tr></thead>\n<tbody>\n",
        escaped(&service.name),
        service.min_up,
        service.backends.len()
    );
    block += &row("measured", &service.record);
    let _ = writeln!(
        block,
        "<tr><th>predicted</th><td>{}</td><td colspan=\"5\"></td></tr>",
        percent(service.predicted_availability)
    );
    for backend in &service.backends {
        let note = if backend.enabled { "" } else { " (disabled)" };
        block += &row(&format!("{}{note}", backend.name), &backend.record);
    }
    block += "</tbody></table>\n";
    for remark in remarks(service) {
        // Writing to a string cannot fail.
        let _ = writeln!(block, "<p>{}.</p>", escaped(&remark));
    }
    block
}

fn row(name: &str, record: &Record) -> String {
    format!(
        "<tr><th>{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
        escaped(name),
        percent(record.availability),
        time(known(record)),
        record.failures,
        record.flaps,
        of_seconds(record.mtbf_seconds),
        of_seconds(record.mttr_seconds)
    )
}

/// Each drawn on one scale beside its figures.
fn failovers(report: &Report) -> String {
    let mut text = format!(
        "<h2>Failovers since {}</h2>\n",
        escaped(&moment(&report.since))
    );
    if report.failovers.is_empty() {
        return text + "<p>None.</p>\n";
    }
    text += "<table><thead><tr><th>Backend</th><th>Began</th><th>Course</th><th>t1</th><th>t2</th><th>t3</th>\
             <th>Moved</th><th>Lost</th><th>Why</th></tr></thead>\n<tbody>\n";
    let longest = report.failovers.iter().map(|it| it.recovered_seconds);
    let longest = longest.fold(0.001, f64::max);
    for it in &report.failovers {
        let _ = writeln!(
            text,
            "<tr><th>{}/{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escaped(&it.service),
            escaped(&it.backend),
            escaped(&moment(&it.began)),
            course(it, longest),
            tenths(it.detected_seconds),
            tenths(it.moved_seconds),
            tenths(it.recovered_seconds),
            it.sessions_moved,
            it.sessions_hurt,
            escaped(&it.why)
        );
    }
    text + "</tbody></table>\n"
}

fn course(failover: &Failover, longest: f64) -> String {
    let at = |seconds: f64| (seconds / longest * WIDTH).clamp(0.0, WIDTH);
    let marks = [
        0.0,
        failover.detected_seconds,
        failover.moved_seconds,
        failover.recovered_seconds,
    ]
    .map(at);
    let parts = ["t1", "t2", "t3"].iter().zip(marks.windows(2)).map(|(class, ends)| {
        let (from, to) = (ends[0], ends[1]);
        let width = (to - from).max(0.0);
        format!("<rect class=\"{class}\" x=\"{from:.1}\" y=\"3\" width=\"{width:.1}\" height=\"8\"/>")
    });
    format!(
        "<svg width=\"{WIDTH}\" height=\"14\" aria-hidden=\"true\">{}</svg>",
        parts.collect::<String>()
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

const WIDTH: f64 = 200.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;\
color:#23282c;background:#fff}h1{font-size:1.6rem}h2{font-size:1.1rem;margin:2rem 0 .3rem}.soft{color:#5f676d}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:.35rem .7rem;\
border-bottom:1px solid #e4e1da;text-align:right;white-space:nowrap}th:first-child,td:last-child{text-align:left}\
thead th{font-weight:500;color:#5f676d}tbody th{font-weight:500}.t1{fill:#b9822b}.t2{fill:#7d6aa8}.t3{fill:#4a7c94}\
@media(prefers-color-scheme:dark){body{background:#15181a;color:#e3e6e8}th,td{border-color:#2e3438}\
.soft,thead th{color:#9aa4ab}}@media print{body{margin:0}}";

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::report::document::tests::sample;

    #[test]
    fn names_cannot_become_markup_and_nothing_is_loaded() {
        let page = of_all(&sample(Duration::from_secs(48 * 3600)));
        assert!(page.contains("<th>a&lt;b&gt;</th>") && page.contains("warn &amp; so on"));
        for foreign in ["http:", "https:", "<script", "src=", "a<b>"] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("99.9000 %") && page.contains("<td>1200.0 ms</td>"));
    }
}
