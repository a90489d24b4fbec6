//! Every metric there is, in five tables: of the process, of each worker, service, listener and backend.
//! A line of a table is a name, what it is for, and where its value comes from.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::DescriptorEncoder;

use super::Descriptors;
use super::rows::{Family, Value, counter, gauge, histogram, in_bytes, in_seconds};
use crate::api::{Admin, Backend, Ended, Listener, Service, State, View, Worker};

/// What is looked at for one scrape.
#[derive(Debug)]
pub(super) struct Scraped {
    pub(super) view: Arc<View>,
    pub(super) descriptors: Descriptors,
}

/// Writes everything.
pub(super) fn encode(scraped: &Scraped, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    for family in PROCESS {
        family.encode(encoder, |rows| (family.read)(scraped, rows))?;
    }
    for family in WORKERS {
        family.encode(encoder, |rows| {
            for worker in &scraped.view.process.workers {
                let index = worker.index.to_string();
                rows.of(&[("worker", &index)], |rows| (family.read)(worker, rows))?;
            }
            Ok(())
        })?;
    }
    let services = || scraped.view.services.iter();
    for family in SERVICES {
        family.encode(encoder, |rows| {
            services().try_for_each(|service| {
                let labels = [("service", service.name.as_str())];
                rows.of(&labels, |rows| (family.read)(service, rows))
            })
        })?;
    }
    for family in LISTENERS {
        family.encode(encoder, |rows| {
            let each = services().flat_map(|it| it.listeners.iter().map(move |its| (it, its)));
            each.into_iter().try_for_each(|(service, listener)| {
                let labels = [
                    ("service", service.name.as_str()),
                    ("listener", listener.address.as_str()),
                ];
                rows.of(&labels, |rows| (family.read)(listener, rows))
            })
        })?;
    }
    for family in BACKENDS {
        family.encode(encoder, |rows| {
            let each = services().flat_map(|it| it.backends.iter().map(move |its| (it, its)));
            each.into_iter().try_for_each(|(service, backend)| {
                let labels = [
                    ("service", service.name.as_str()),
                    ("backend", backend.name.as_str()),
                ];
                rows.of(&labels, |rows| (family.read)(backend, rows))
            })
        })?;
    }
    Ok(())
}

const PROCESS: &[Family<Scraped>] = &[
    gauge(
        "ballast_build_info",
        "The program that runs; always 1",
        |it, rows| rows.labelled(&[("version", &it.view.process.version)], Value::Whole(1)),
    ),
    in_seconds(gauge(
        "ballast_start_time",
        "When the daemon was ready, since the epoch",
        |it, rows| rows.maybe(seconds_since_epoch(&it.view.process.started)),
    )),
    gauge(
        "ballast_stopping",
        "Whether the daemon drains and takes no new sessions",
        |it, rows| rows.flag(it.view.process.stopping),
    ),
    gauge("ballast_sessions", "Running sessions", |it, rows| {
        rows.whole(it.view.process.sessions)
    }),
    gauge(
        "ballast_max_connections",
        "The most sessions there may be",
        |it, rows| rows.whole(it.view.process.max_connections),
    ),
    counter(
        "ballast_would_be_refused",
        "Clients that would have waited to be accepted but for dry_run in [runtime], by rule",
        |it, rows| {
            it.view.process.refusals.iter().try_for_each(|its| {
                rows.labelled(&[("rule", &its.rule)], Value::Whole(its.would_be_total))
            })
        },
    ),
    gauge(
        "ballast_open_descriptors",
        "File descriptors that are open",
        |it, rows| rows.whole(it.descriptors.open),
    ),
    gauge(
        "ballast_max_descriptors",
        "The most file descriptors that may be open",
        |it, rows| match it.descriptors.limit {
            Some(limit) => rows.whole(limit),
            None => rows.real(f64::INFINITY),
        },
    ),
    counter(
        "ballast_reloads",
        "Reloads by what became of them",
        |it, rows| {
            let reloads = &it.view.process.reloads;
            rows.labelled(&[("outcome", "applied")], Value::Whole(reloads.applied))?;
            rows.labelled(&[("outcome", "rejected")], Value::Whole(reloads.rejected))
        },
    ),
    in_seconds(gauge(
        "ballast_last_reload_duration",
        "How long the last reload needed that took effect",
        |it, rows| rows.maybe(it.view.process.reloads.last_duration_seconds),
    )),
    gauge(
        "ballast_configuration_generation",
        "Configurations that have taken effect",
        |it, rows| rows.whole(it.view.process.configuration.generation),
    ),
    in_seconds(gauge(
        "ballast_configuration_applied_time",
        "When the configuration in force took effect, since the epoch",
        |it, rows| rows.maybe(seconds_since_epoch(&it.view.process.configuration.applied)),
    )),
    gauge(
        "ballast_configuration_rejected",
        "Whether the file was rejected since: what runs is not what is in it",
        |it, rows| rows.flag(it.view.process.configuration.rejected.is_some()),
    ),
    counter(
        "ballast_alerts",
        "Alerts by what became of them",
        |it, rows| {
            let alerts = &it.view.process.alerts;
            rows.labelled(&[("outcome", "sent")], Value::Whole(alerts.sent_total))?;
            rows.labelled(&[("outcome", "failed")], Value::Whole(alerts.failed_total))
        },
    ),
    counter(
        "ballast_checks",
        "Checks that were sent, of all backends",
        |it, rows| rows.whole(it.view.process.checks_total),
    ),
    in_seconds(counter(
        "ballast_checks_late",
        "How much later than they were due checks were sent, together",
        |it, rows| rows.real(it.view.process.checks_late_seconds_total),
    )),
    counter(
        "ballast_log_lines_dropped",
        "Log lines that were not written because whoever reads them was too slow, or gone",
        |it, rows| rows.whole(it.view.process.log_lines_dropped_total),
    ),
    counter(
        "ballast_failures_unheard",
        "Failures of sessions that passive health had no time to hear of",
        |it, rows| rows.whole(it.view.process.failures_unheard_total),
    ),
];

const WORKERS: &[Family<Worker>] = &[
    gauge(
        "ballast_worker_sessions",
        "Running sessions of a worker",
        |it, rows| rows.whole(it.sessions),
    ),
    in_seconds(counter(
        "ballast_worker_busy",
        "How long a worker was at work; its rate is the busy ratio",
        |it, rows| rows.real(it.busy_seconds_total),
    )),
    counter(
        "ballast_worker_accept_errors",
        "Times that a worker could not accept because process or machine was out of something",
        |it, rows| rows.whole(it.accept_errors_total),
    ),
    gauge(
        "ballast_worker_pipes",
        "Pipes that a worker holds for splicing, as of the last second",
        |it, rows| {
            let used = it.pipes.saturating_sub(it.pipes_pooled);
            rows.labelled(&[("state", "in-use")], Value::Whole(used))?;
            rows.labelled(&[("state", "pooled")], Value::Whole(it.pipes_pooled))
        },
    ),
];

const SERVICES: &[Family<Service>] = &[
    gauge(
        "ballast_service_eligible_backends",
        "Backends that may serve",
        |it, rows| rows.whole(it.eligible.into()),
    ),
    gauge(
        "ballast_service_configured_backends",
        "All backends",
        |it, rows| rows.whole(it.configured.into()),
    ),
    gauge(
        "ballast_service_backends_file_rejected",
        "Whether the backends_file has vanished or was rejected: its last good list stays",
        |it, rows| match &it.backends_file {
            Some(file) => rows.flag(file.rejected.is_some()),
            None => Ok(()),
        },
    ),
    gauge(
        "ballast_service_min_up_backends",
        "As many backends must be eligible for the service to be ready",
        |it, rows| rows.whole(it.min_up.into()),
    ),
    gauge(
        "ballast_service_queue_waiting",
        "Clients that wait for a place at a backend",
        |it, rows| rows.whole(it.queue.waiting),
    ),
    gauge(
        "ballast_service_queue_size",
        "The most clients that may wait; 0 is no queue",
        |it, rows| rows.whole(it.queue.size),
    ),
    counter(
        "ballast_service_queue_exits",
        "Clients that have left the queue, by how",
        |it, rows| {
            let queue = &it.queue;
            for (outcome, total) in [
                ("placed", queue.placed_total),
                ("full", queue.full_total),
                ("timed-out", queue.timed_out_total),
                ("left", queue.left_total),
                ("unserved", queue.unserved_total),
            ] {
                rows.labelled(&[("outcome", outcome)], Value::Whole(total))?;
            }
            Ok(())
        },
    ),
    counter(
        "ballast_service_refused",
        "Clients that were not let in, by rule",
        |it, rows| {
            it.refusals.iter().try_for_each(|its| {
                rows.labelled(&[("rule", &its.rule)], Value::Whole(its.refused_total))
            })
        },
    ),
    counter(
        "ballast_service_would_be_refused",
        "Clients that would not have been let in but for dry_run, by rule",
        |it, rows| {
            it.refusals.iter().try_for_each(|its| {
                rows.labelled(&[("rule", &its.rule)], Value::Whole(its.would_be_total))
            })
        },
    ),
    counter(
        "ballast_service_slowed_sessions",
        "Sessions whose bytes have waited because of a limit on bandwidth, by limit",
        |it, rows| {
            it.throttling.iter().try_for_each(|its| {
                rows.labelled(&[("cap", &its.cap)], Value::Whole(its.slowed_total))
            })
        },
    ),
    in_seconds(counter(
        "ballast_service_slowed",
        "How long the bytes of all sessions have waited because of a limit on bandwidth, by limit",
        |it, rows| {
            it.throttling.iter().try_for_each(|its| {
                rows.labelled(&[("cap", &its.cap)], Value::Real(its.slowed_seconds_total))
            })
        },
    )),
    counter(
        "ballast_service_would_be_slowed_sessions",
        "Sessions whose bytes would have waited but for dry_run, by limit",
        |it, rows| {
            it.throttling.iter().try_for_each(|its| {
                rows.labelled(&[("cap", &its.cap)], Value::Whole(its.would_be_total))
            })
        },
    ),
    in_seconds(counter(
        "ballast_service_would_be_slowed",
        "How long the bytes of all sessions would have waited but for dry_run, by limit",
        |it, rows| {
            it.throttling.iter().try_for_each(|its| {
                rows.labelled(
                    &[("cap", &its.cap)],
                    Value::Real(its.would_be_seconds_total),
                )
            })
        },
    )),
    counter(
        "ballast_service_uncounted_sources",
        "Clients whose source had no place in the table that counts sources",
        |it, rows| rows.whole(it.uncounted_sources_total),
    ),
    counter(
        "ballast_service_failovers",
        "Failovers that are over",
        |it, rows| rows.whole(it.failovers_total),
    ),
    in_seconds(gauge(
        "ballast_service_last_failover",
        "How long the last failover took, until no session could be on its way to the lost backend",
        |it, rows| rows.maybe(it.last_failover_seconds),
    )),
];

const LISTENERS: &[Family<Listener>] = &[
    gauge(
        "ballast_listener_sessions",
        "Running sessions",
        |it, rows| rows.whole(it.sessions),
    ),
    counter(
        "ballast_listener_sessions_accepted",
        "Sessions that were accepted",
        |it, rows| rows.whole(it.accepted_total),
    ),
    counter(
        "ballast_listener_handshakes_dropped",
        "Times that the kernel has dropped a handshake because too many clients waited to be accepted, or the listener was closing",
        |it, rows| rows.whole(it.dropped_total),
    ),
    counter(
        "ballast_listener_sessions_ended",
        "Sessions that are over, by who ended them, in which phase, and why",
        |it, rows| {
            for ended in &it.endings {
                let labels = [
                    ("who", ended.who.as_str()),
                    ("phase", ended.phase.as_str()),
                    ("cause", ended.cause.as_str()),
                ];
                rows.labelled(&labels, Value::Whole(ended.total))?;
            }
            Ok(())
        },
    ),
    counter(
        "ballast_listener_rejections",
        "Clients that Ballast turned away before it tried a backend, by reason",
        |it, rows| {
            // What has not happened yet is told too: a rate needs a value from before.
            let mut rejections = vec![("no-backend", 0), ("queue-full", 0), ("queue-timeout", 0)];
            for ended in it.endings.iter().filter(|it| is_rejection(it)) {
                match rejections.iter_mut().find(|(it, _)| *it == ended.cause) {
                    Some((_, total)) => *total += ended.total,
                    None => rejections.push((&ended.cause, ended.total)),
                }
            }
            for (reason, total) in rejections {
                rows.labelled(&[("reason", reason)], Value::Whole(total))?;
            }
            Ok(())
        },
    ),
    counter(
        "ballast_listener_retries",
        "Further backends that were tried after a connect had failed",
        |it, rows| rows.whole(it.retries_total),
    ),
    counter(
        "ballast_listener_ports_exhausted",
        "Times that a source address had no port left for a connection to a backend",
        |it, rows| rows.whole(it.ports_exhausted_total),
    ),
    histogram(
        "ballast_listener_connect_duration",
        "How long backends took to accept a session, waiting for a place not counted",
        |it, rows| rows.histogram(&it.connect),
    ),
    histogram(
        "ballast_listener_session_duration",
        "How long the sessions lasted that are over",
        |it, rows| rows.histogram(&it.duration),
    ),
    histogram(
        "ballast_listener_queue_duration",
        "How long clients waited for a place at a backend, those that got none included",
        |it, rows| rows.histogram(&it.queue),
    ),
];

const BACKENDS: &[Family<Backend>] = &[
    gauge(
        "ballast_backend_up",
        "Whether the checks of a backend say that it is up",
        |it, rows| rows.flag(matches!(it.state, State::Up | State::Failing)),
    ),
    gauge(
        "ballast_backend_state",
        "The state that a backend is in; always 1, absent for the others",
        |it, rows| {
            let state = match it.state {
                State::Unknown => "unknown",
                State::Up => "up",
                State::Failing => "failing",
                State::Down => "down",
                State::Recovering => "recovering",
            };
            rows.labelled(&[("state", state)], Value::Whole(1))
        },
    ),
    gauge(
        "ballast_backend_serving",
        "Whether new sessions go to a backend",
        |it, rows| rows.flag(it.serving),
    ),
    gauge(
        "ballast_backend_wanted",
        "Whether the file and operators want a backend to serve",
        |it, rows| {
            let kept_out = |it: &Admin| it.duty != "serve" || it.weight_percent == 0;
            rows.flag(it.enabled && !it.admin.as_ref().is_some_and(kept_out))
        },
    ),
    gauge(
        "ballast_backend_ejected",
        "Whether a backend is kept out because its sessions failed",
        |it, rows| rows.flag(it.ejected_until.is_some()),
    ),
    gauge(
        "ballast_backend_suspect",
        "Whether a backend answers its checks slower than it used to",
        |it, rows| rows.flag(it.suspect),
    ),
    gauge(
        "ballast_backend_weight",
        "The configured weight of a backend",
        |it, rows| rows.whole(it.weight.into()),
    ),
    gauge(
        "ballast_backend_effective_weight",
        "What counts of the weight now; 0 when the backend does not serve",
        |it, rows| rows.real(it.effective_weight_thousandths as f64 / 1e3),
    ),
    gauge(
        "ballast_backend_max_connections",
        "The most sessions of a backend at a time, where there is such a limit",
        |it, rows| rows.maybe(it.max_connections.map(f64::from)),
    ),
    gauge(
        "ballast_backend_sessions_current",
        "Running sessions of a backend, those that are being connected included",
        |it, rows| rows.whole(it.traffic.sessions),
    ),
    counter(
        "ballast_backend_sessions",
        "Sessions that have connected to a backend",
        |it, rows| rows.whole(it.traffic.sessions_total),
    ),
    counter(
        "ballast_backend_sessions_ended",
        "Connected sessions that are over: finished, or broken by whom",
        |it, rows| {
            let traffic = &it.traffic;
            for (ending, total) in [
                ("finished", traffic.sessions_finished_total),
                ("client", traffic.broken_by_client_total),
                ("backend", traffic.broken_by_backend_total),
                ("ballast", traffic.broken_by_ballast_total),
            ] {
                rows.labelled(&[("ending", ending)], Value::Whole(total))?;
            }
            Ok(())
        },
    ),
    counter(
        "ballast_backend_connect_failures",
        "Connects to a backend that failed",
        |it, rows| rows.whole(it.traffic.connect_failures_total),
    ),
    counter(
        "ballast_backend_sessions_moved",
        "Sessions that a backend failed and another one took",
        |it, rows| rows.whole(it.traffic.sessions_moved_total),
    ),
    counter(
        "ballast_backend_sessions_hurt",
        "Sessions that a backend failed and that were lost",
        |it, rows| rows.whole(it.traffic.sessions_hurt_total),
    ),
    in_seconds(counter(
        "ballast_backend_connect",
        "What connecting took, of all sessions that connected to a backend together",
        |it, rows| rows.real(it.traffic.connect_seconds_total),
    )),
    in_seconds(counter(
        "ballast_backend_session",
        "How long the sessions of a backend lasted that are over, together",
        |it, rows| rows.real(it.traffic.session_seconds_total),
    )),
    in_bytes(counter(
        "ballast_backend_transferred",
        "Bytes by direction; of each running session, up to 64 KiB are not counted yet",
        |it, rows| {
            let traffic = &it.traffic;
            for (direction, total) in [
                ("to_backend", traffic.to_backend_bytes_total),
                ("to_client", traffic.to_client_bytes_total),
            ] {
                rows.labelled(&[("direction", direction)], Value::Whole(total))?;
            }
            Ok(())
        },
    )),
    counter(
        "ballast_backend_checks",
        "Checks of a backend that came to a verdict, by outcome",
        |it, rows| {
            let Some(check) = &it.check else {
                return Ok(());
            };
            let passed = check.probes_total.saturating_sub(check.failures_total);
            rows.labelled(&[("outcome", "passed")], Value::Whole(passed))?;
            rows.labelled(&[("outcome", "failed")], Value::Whole(check.failures_total))
        },
    ),
    in_seconds(gauge(
        "ballast_backend_check_duration",
        "How long the last check took that was answered",
        |it, rows| rows.maybe(it.check.as_ref().and_then(|it| it.latency_seconds)),
    )),
    in_seconds(gauge(
        "ballast_backend_usual_check_duration",
        "How long a check usually takes, by a slow moving average",
        |it, rows| rows.maybe(it.check.as_ref().and_then(|it| it.usual_latency_seconds)),
    )),
    gauge(
        "ballast_backend_availability_ratio",
        "How available a backend has been since it is known, 0 to 1",
        |it, rows| rows.maybe(it.record.availability),
    ),
    in_seconds(counter(
        "ballast_backend_uptime",
        "How long a backend was up",
        |it, rows| rows.real(it.record.up_seconds),
    )),
    in_seconds(counter(
        "ballast_backend_downtime",
        "How long a backend was down",
        |it, rows| rows.real(it.record.down_seconds),
    )),
    counter(
        "ballast_backend_failures",
        "Times that a backend went down",
        |it, rows| rows.whole(it.record.failures),
    ),
    counter(
        "ballast_backend_recoveries",
        "Times that a backend came back",
        |it, rows| rows.whole(it.record.recoveries),
    ),
    counter(
        "ballast_backend_flaps",
        "Failures that followed a return within a minute",
        |it, rows| rows.whole(it.record.flaps),
    ),
];

/// Whether Ballast itself turned these clients away, before it tried a backend.
fn is_rejection(ended: &Ended) -> bool {
    let too_far = ["connect", "relay", "drain"];
    let not_meant = ["stopped", "panicked"];
    ended.who == "ballast"
        && !too_far.contains(&ended.phase.as_str())
        && !not_meant.contains(&ended.cause.as_str())
}

/// When a time of the view was.
fn seconds_since_epoch(told: &str) -> Option<f64> {
    let at = humantime::parse_rfc3339(told).ok()?;
    let since = at.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(since.as_secs_f64())
}
