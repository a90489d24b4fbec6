//! What a report tells, out of what the daemon has answered.

use std::time::{Duration, SystemTime};

use serde::Serialize;

use super::expect::{at_least, in_series};
use crate::api::{Backend, Event, Events, Failover, Failovers, Record, Rejection, Service, View};
use crate::cli::figures::time;

/// All of it.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// When it was so.
    pub(super) at: String,
    /// Failovers and events are from then on, unless the daemon keeps no more of them: not before it began.
    pub(super) since: String,
    /// The daemon's, which keeps failovers and events of its own lifetime only.
    pub(super) daemon_started: String,
    pub(super) services: Vec<Line>,
    /// That every service works at a time, by what their backends are; `null` where one is not known.
    pub(super) all_predicted_availability: Option<f64>,
    pub(super) failovers: Vec<Failover>,
    /// Those that are warnings or errors.
    pub(super) events: Vec<Event>,
}

/// A service.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) name: String,
    /// So many of its backends must be eligible.
    pub(super) min_up: u32,
    /// How it has been.
    pub(super) record: Record,
    /// How it should have been, if its backends failed independently; `null` where one is not known.
    pub(super) predicted_availability: Option<f64>,
    /// Its list of backends is not what is in its file.
    pub(super) backends_file_rejected: Option<Rejection>,
    pub(super) backends: Vec<Part>,
}

/// A backend.
#[derive(Debug, Serialize)]
pub(super) struct Part {
    pub(super) name: String,
    pub(super) address: Option<String>,
    /// It is to serve, and counts in the prediction.
    pub(super) enabled: bool,
    pub(super) record: Record,
}

impl Report {
    /// What `view` says of all time, and the others of the time up to it.
    pub(super) fn of(view: &View, failovers: &Failovers, events: &Events, since: Duration) -> Self {
        let at = humantime::parse_rfc3339(&view.at).unwrap_or(SystemTime::UNIX_EPOCH);
        let from = at.checked_sub(since).unwrap_or(SystemTime::UNIX_EPOCH);
        // Before that it knows of none.
        let started = humantime::parse_rfc3339(&view.process.started);
        let from = started.map_or(from, |started| from.max(started));
        let is_recent =
            |text: &str| humantime::parse_rfc3339(text).is_ok_and(|moment| moment >= from);
        let services: Vec<Line> = view.services.iter().map(line).collect();
        let all: Option<Vec<f64>> = services
            .iter()
            .map(|it| it.predicted_availability)
            .collect();
        let failovers = failovers.failovers.iter();
        let events = events.events.iter().filter(|it| it.level != "info");
        Self {
            at: view.at.clone(),
            since: humantime::format_rfc3339_seconds(from).to_string(),
            daemon_started: view.process.started.clone(),
            all_predicted_availability: all.map(in_series),
            services,
            failovers: failovers
                .filter(|it| is_recent(&it.began))
                .cloned()
                .collect(),
            events: events.filter(|it| is_recent(&it.at)).cloned().collect(),
        }
    }
}

fn line(service: &Service) -> Line {
    let enabled = service.backends.iter().filter(|it| it.enabled);
    let known: Option<Vec<f64>> = enabled.map(|it| it.record.availability).collect();
    let needed = usize::try_from(service.min_up.max(1)).unwrap_or(usize::MAX);
    let known = known.filter(|parts| !parts.is_empty());
    Line {
        name: service.name.clone(),
        min_up: service.min_up,
        record: service.record.clone(),
        predicted_availability: known.map(|parts| at_least(needed, &parts)),
        backends_file_rejected: service
            .backends_file
            .as_ref()
            .and_then(|it| it.rejected.clone()),
        backends: service.backends.iter().map(part).collect(),
    }
}

fn part(backend: &Backend) -> Part {
    Part {
        name: backend.name.clone(),
        address: backend.address.clone(),
        enabled: backend.enabled,
        record: backend.record.clone(),
    }
}

/// The time that a record is of.
pub(super) fn known(record: &Record) -> Duration {
    Duration::try_from_secs_f64(record.up_seconds + record.down_seconds).unwrap_or_default()
}

/// What is to be known of a service besides figures, in sentences.
pub(super) fn remarks(service: &Line) -> impl Iterator<Item = String> {
    set_aside(service).into_iter().chain(rejected(service))
}

/// `its backends_file has been rejected since …: web.toml:3:1: unknown key`, if it has.
fn rejected(service: &Line) -> Option<String> {
    let Rejection { at, problems } = service.backends_file_rejected.as_ref()?;
    let problems = problems.join("; ");
    Some(format!(
        "its backends_file has been rejected since {at}: {problems}"
    ))
}

/// `an operator had all of them out for 5m: that is no failure`, if one ever had.
fn set_aside(service: &Line) -> Option<String> {
    let time_out =
        Duration::try_from_secs_f64(service.record.set_aside_seconds).unwrap_or_default();
    let who = match service.min_up {
        0 | 1 => "all of them",
        _ => "too many of them",
    };
    let told = || {
        format!(
            "an operator had {who} out for {}: that is no failure",
            time(time_out)
        )
    };
    (!time_out.is_zero()).then(told)
}

/// `99.9712 %`; never rounded up to what it is not.
pub(super) fn percent(share: Option<f64>) -> String {
    match share {
        None => "–".to_owned(),
        Some(share) if share >= 1.0 => "100 %".to_owned(),
        Some(share) => {
            // What a sum of fractions is short of by a hair is not below it.
            let floored = (share * 1e6 + 1e-6).floor() / 1e4;
            format!("{floored:.4} %")
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::api::Process;

    fn record(up: f64, down: f64, failures: u64) -> Record {
        Record {
            up_seconds: up,
            down_seconds: down,
            failures,
            recoveries: failures,
            mtbf_seconds: (failures > 0).then(|| up / failures as f64),
            mttr_seconds: (failures > 0).then(|| down / failures as f64),
            availability: (up + down > 0.0).then(|| up / (up + down)),
            ..Record::default()
        }
    }

    fn backend(name: &str, record: Record) -> Backend {
        Backend {
            name: name.to_owned(),
            address: Some("10.0.0.1:80".to_owned()),
            enabled: true,
            record,
            ..Backend::default()
        }
    }

    pub(in crate::cli::report) fn sample(since: Duration) -> Report {
        let view = View {
            at: "2026-11-21T12:00:00.000Z".to_owned(),
            process: Process {
                started: "2026-11-20T12:00:00.000Z".to_owned(),
                ..Process::default()
            },
            services: vec![Service {
                name: "web".to_owned(),
                min_up: 1,
                record: record(86_390.0, 10.0, 1),
                backends: vec![
                    backend("a<b>", record(900.0, 100.0, 2)),
                    backend("c", record(990.0, 10.0, 1)),
                ],
                ..Service::default()
            }],
        };
        let failover = |began: &str| Failover {
            service: "web".to_owned(),
            backend: "c".to_owned(),
            why: "refused".to_owned(),
            began: began.to_owned(),
            detected_seconds: 0.7,
            moved_seconds: 0.71,
            recovered_seconds: 1.2,
            sessions_moved: 3,
            ..Failover::default()
        };
        let event = |at: &str, level: &str| Event {
            at: at.to_owned(),
            level: level.to_owned(),
            text: format!("{level} & so on"),
            ..Event::default()
        };
        let failovers = Failovers {
            failovers: vec![
                failover("2026-11-20T12:30:00.000Z"),
                failover("2026-11-21T11:30:00.000Z"),
            ],
            ..Failovers::default()
        };
        let events = Events {
            events: vec![
                event("2026-11-20T12:30:00.000Z", "warn"),
                event("2026-11-21T11:30:00.000Z", "warn"),
                event("2026-11-21T11:31:00.000Z", "info"),
            ],
        };
        Report::of(&view, &failovers, &events, since)
    }

    #[test]
    fn a_service_is_predicted_from_its_backends_in_parallel() {
        let report = sample(Duration::from_secs(7200));
        let predicted = report.services[0].predicted_availability.unwrap();
        assert!((predicted - (1.0 - 0.1 * 0.01)).abs() < 1e-9);
        assert_eq!(report.all_predicted_availability, Some(predicted));
    }

    #[test]
    fn since_bounds_failovers_and_events_and_calm_events_are_left_out() {
        let count = |hours: u64| {
            let report = sample(Duration::from_secs(hours * 3600));
            (report.failovers.len(), report.events.len())
        };
        assert_eq!(count(2), (1, 1));
        assert_eq!(count(48), (2, 2));
        assert_eq!(count(0), (0, 0));
        // Longer than there has been a clock, and this daemon.
        let ages = sample(Duration::MAX);
        assert_eq!(
            (ages.failovers.len(), ages.since.as_str()),
            (2, "2026-11-20T12:00:00Z")
        );
    }

    #[test]
    fn what_is_not_known_is_not_predicted_and_who_is_disabled_does_not_count() {
        let mut service = Service {
            min_up: 1,
            backends: vec![
                backend("a", record(1.0, 0.0, 0)),
                backend("b", Record::default()),
            ],
            ..Service::default()
        };
        assert_eq!(line(&service).predicted_availability, None);
        service.backends[1].enabled = false;
        assert_eq!(line(&service).predicted_availability, Some(1.0));
        service.backends.clear();
        assert_eq!(line(&service).predicted_availability, None);
    }

    #[test]
    fn a_share_is_never_rounded_up_to_all() {
        assert_eq!(percent(Some(1.0)), "100 %");
        assert_eq!(percent(Some(0.999_999_99)), "99.9999 %");
        assert_eq!(percent(Some(0.5)), "50.0000 %");
        assert_eq!(percent(None), "–");
    }
}
