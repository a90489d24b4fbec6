//! What an exposition of a made-up view says.

use std::collections::BTreeSet;

use super::*;
use crate::api::{Backend, Check, Ended, Histogram, Listener, Process, Service, State, Worker};

fn view(backends: usize) -> Arc<View> {
    let backend = |number: usize| Backend {
        name: format!("app-{number}"),
        state: State::Up,
        serving: true,
        weight: 2,
        effective_weight_thousandths: 1_500,
        check: Some(Check {
            latency_seconds: Some(0.002),
            usual_latency_seconds: Some(0.0015),
            probes_total: 10,
            failures_total: 1,
            ..Check::default()
        }),
        record: crate::api::Record {
            availability: Some(0.999),
            ..crate::api::Record::default()
        },
        max_connections: Some(100),
        ..Backend::default()
    };
    let ended = |who: &str, phase: &str, cause: &str, total| Ended {
        who: who.to_owned(),
        phase: phase.to_owned(),
        cause: cause.to_owned(),
        total,
    };
    let histogram = Histogram {
        bounds_seconds: vec![0.0001, 1.0],
        counts: vec![3, 4, 5],
        total_seconds: 60.5,
    };
    let mut process = Process {
        version: "1.2.3".to_owned(),
        started: "2026-11-21T11:59:00.000Z".to_owned(),
        workers: vec![Worker::default()],
        ..Process::default()
    };
    process.configuration.applied = "2026-11-21T12:00:00.000Z".to_owned();
    process.reloads.last_duration_seconds = Some(0.001);
    Arc::new(View {
        at: "2026-11-21T12:01:00.000Z".to_owned(),
        process,
        services: vec![Service {
            name: "a \"quoted\\ name\"".to_owned(),
            listeners: vec![Listener {
                address: "127.0.0.1:80".to_owned(),
                endings: vec![
                    ended("client", "relay", "finished", 100),
                    ended("ballast", "accept", "no-backend", 2),
                    ended("ballast", "queue", "no-backend", 3),
                    ended("ballast", "queue", "queue-full", 1),
                    ended("ballast", "queue", "stopped", 1),
                    ended("ballast", "relay", "idle", 1),
                    ended("client", "queue", "reset", 1),
                ],
                connect: histogram.clone(),
                duration: histogram.clone(),
                queue: histogram,
                ..Listener::default()
            }],
            last_failover_seconds: Some(0.3),
            backends: (0..backends).map(backend).collect(),
            ..Service::default()
        }],
    })
}

fn text(backends: usize, format: Format) -> String {
    let descriptors = Descriptors {
        open: 10,
        limit: Some(1024),
    };
    exposition(view(backends), descriptors, format).unwrap()
}

#[test]
fn both_formats_tell_the_same_samples() {
    let samples = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect()
    };
    let open_metrics = text(2, Format::OpenMetrics);
    let prometheus = text(2, Format::Prometheus);
    assert_eq!(samples(&open_metrics), samples(&prometheus));
    assert!(open_metrics.ends_with("\n# EOF\n"));
    assert!(!prometheus.contains("# EOF") && !prometheus.contains("# UNIT"));
}

#[test]
fn samples_carry_their_labels_and_units() {
    let text = text(1, Format::Prometheus);
    let service = "service=\"a \\\"quoted\\\\ name\\\"\"";
    for expected in [
        "# TYPE ballast_backend_transferred_bytes_total counter".to_owned(),
        "ballast_build_info{version=\"1.2.3\"} 1".to_owned(),
        format!("ballast_backend_effective_weight{{{service},backend=\"app-0\"}} 1.5"),
        format!("ballast_backend_checks_total{{{service},backend=\"app-0\",outcome=\"passed\"}} 9"),
        format!(
            "ballast_listener_connect_duration_seconds_bucket{{le=\"+Inf\",{service},listener=\"127.0.0.1:80\"}} 12"
        ),
        format!(
            "ballast_listener_connect_duration_seconds_bucket{{le=\"0.0001\",{service},listener=\"127.0.0.1:80\"}} 3"
        ),
    ] {
        assert!(
            text.lines().any(|line| line == expected),
            "{expected}\n{text}"
        );
    }
}

#[test]
fn times_are_seconds_since_the_epoch() {
    let text = text(1, Format::Prometheus);
    let of = |name: &str| -> f64 {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(name));
        lines.next().unwrap().trim().parse().unwrap()
    };
    assert_eq!(
        of("ballast_configuration_applied_time_seconds "),
        1_795_262_400.0
    );
    assert_eq!(of("ballast_start_time_seconds "), 1_795_262_340.0);
}

#[test]
fn only_whom_ballast_turned_away_before_it_tried_a_backend_was_rejected() {
    let text = text(1, Format::Prometheus);
    let rejections: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("ballast_listener_rejections_total{"))
        .filter_map(|line| line.split_once("reason="))
        .map(|(_, reason)| reason)
        .collect();
    let expected = ["no-backend\"} 5", "queue-full\"} 1", "queue-timeout\"} 0"];
    assert_eq!(rejections, expected.map(|it| format!("\"{it}")));
}

#[test]
fn no_sample_is_told_twice_and_every_family_has_a_help() {
    let text = text(2, Format::Prometheus);
    let mut seen = BTreeSet::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (sample, _) = line.rsplit_once(' ').unwrap();
        assert!(seen.insert(sample), "{sample}");
    }
    let of = |comment: &str| -> BTreeSet<String> {
        let told = text.lines().filter_map(|line| line.strip_prefix(comment));
        told.map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(of("# HELP "), of("# TYPE "));
    assert!(of("# HELP ").iter().all(|it| it.starts_with("ballast_")));
    assert!(!text.contains('\r'));
}

/// Not a test of speed: it prints what ten thousand backends take.
#[test]
#[ignore = "prints a measurement"]
fn ten_thousand_backends() {
    let view = view(10_000);
    let descriptors = Descriptors::default();
    for format in [Format::OpenMetrics, Format::Prometheus] {
        let began = Instant::now();
        let text = exposition(Arc::clone(&view), descriptors, format).unwrap();
        let (took, lines) = (began.elapsed(), text.lines().count());
        println!("{format:?}: {lines} lines, {} bytes, {took:?}", text.len());
    }
}
