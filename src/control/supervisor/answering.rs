//! What the admin API asks, answered.

use std::sync::Arc;
use std::time::SystemTime;

use super::Supervisor;
use crate::admin::Request;
use crate::api;
use crate::control::inspect::{self, Clock, time};
use crate::telemetry::logging::Logging;

impl Supervisor {
    /// Answers one request. Whoever has asked may be gone.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::View(reply) => {
                let _ = reply.send(Arc::new(self.view()));
            }
            Request::Explain(client, services, reply) => {
                let cases = services.into_iter().filter_map(|it| self.running.case(it));
                let cases: Vec<_> = cases.collect();
                // Thousands of picks are made beside control.
                tokio::task::spawn_blocking(move || {
                    let explained = cases.into_iter().map(|case| case.explain(client));
                    let _ = reply.send(explained.collect());
                });
            }
            Request::Plan(proposal, reply) => self.begin_plan(proposal, reply),
        }
    }

    /// How everything stands.
    fn view(&self) -> api::View {
        let clock = Clock::now();
        api::View {
            at: clock.told(),
            process: self.process(&clock),
            services: inspect::services(&self.running, &self.cases, &clock),
        }
    }

    fn process(&self, clock: &Clock) -> api::Process {
        let workers = self.workers.look().enumerate();
        let workers = workers.map(|(index, look)| api::Worker {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            sessions: look.sessions as u64,
            busy_seconds_total: look.busy.as_secs_f64(),
            accept_errors_total: look.accept_errors,
            pipes: look.pipes as u64,
            pipes_pooled: look.pooled as u64,
        });
        let (sent_total, failed_total) = self.alerts.counts();
        let (checks_total, late) = self.prober.sent();
        let logging = self.options.logging.as_ref();
        let reloads = &self.reloads;
        api::Process {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            // Told by the clock on the wall as it was then, so that it is always the same.
            started: time(self.started.1),
            uptime_seconds: clock.now.duration_since(self.started.0).as_secs_f64(),
            stopping: self.stopping,
            sessions: self.workers.sessions() as u64,
            max_connections: self.permits.limit() as u64,
            workers: workers.collect(),
            configuration: api::Configuration {
                path: self
                    .options
                    .path
                    .as_ref()
                    .map(|it| it.display().to_string()),
                applied: time(reloads.applied_at.unwrap_or(SystemTime::UNIX_EPOCH)),
                generation: self.running.epoch,
                rejected: reloads.rejection.clone(),
            },
            reloads: api::Reloads {
                applied: reloads.applied,
                rejected: reloads.rejected,
                last_duration_seconds: reloads.last_took.map(|it| it.as_secs_f64()),
            },
            alerts: api::Alerts {
                sent_total,
                failed_total,
            },
            checks_total,
            checks_late_seconds_total: late.as_secs_f64(),
            log_lines_dropped_total: logging.map_or(0, Logging::dropped),
            failures_unheard_total: self.witness.dropped(),
        }
    }
}
