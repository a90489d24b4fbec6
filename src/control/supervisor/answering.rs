//! What the admin API asks, answered.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::oneshot;

use super::Supervisor;
use super::ticking::lacking;
use crate::admin::{Denied, Query, Request};
use crate::api::{self, Sessions};
use crate::control::inspect::{self, Clock, time};
use crate::control::sessions;
use crate::model::BackendId;
use crate::telemetry::logging::Logging;
use crate::worker::Wanted;

impl Supervisor {
    /// Answers one request. Whoever has asked may be gone.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::View(reply) => {
                let began = Instant::now();
                let view = Arc::new(self.view());
                let _ = reply.send((view, began.elapsed()));
            }
            Request::Explain(client, view, services, reply) => {
                let most = self.permits.limit();
                let full = (!self.permits.has_room())
                    .then(|| format!("all {most} sessions of max_connections are in use"));
                let cases = services
                    .into_iter()
                    .filter_map(|at| self.running.case(&view, at, full.as_deref()));
                let cases: Vec<_> = cases.collect();
                // Thousands of picks are made beside control.
                tokio::task::spawn_blocking(move || {
                    let explained = cases.into_iter().map(|case| case.explain(client));
                    let _ = reply.send(explained.collect());
                });
            }
            Request::Change(target, change, by, reply) => {
                self.change(&target, &change, &by, reply);
            }
            Request::FailBack(service, by, reply) => self.fail_back(&service, &by, reply),
            Request::Reload(by, reply) => self.reload_for(&by, reply),
            Request::Failovers(reply) => {
                let clock = Clock::now();
                let past = self.failovers.past();
                let failovers = past.map(|it| inspect::failover(it, &clock)).collect();
                let under_way = self.failovers.under_way().map(|it| api::UnderWay {
                    service: it.service().to_string(),
                    backend: it.name().to_string(),
                });
                let _ = reply.send(api::Failovers {
                    failovers,
                    under_way: under_way.collect(),
                });
            }
            Request::Sessions(query, reply) => self.list_sessions(query, reply),
            Request::CloseSession(id, by, reply) => self.close_session(id, by, reply),
            Request::Configuration(reply) => {
                let _ = reply.send(Arc::clone(&self.text));
            }
            Request::Plan(proposal, reply) => self.begin_plan(proposal, reply),
            Request::Starved(error) => self.shortage.meet(&error),
        }
    }

    fn list_sessions(&self, query: Query, reply: oneshot::Sender<Result<Sessions, Denied>>) {
        let client = query.client.as_deref().map(sessions::address);
        if client == Some(None) {
            let refused = api::Refused::new("`client` is no IP address");
            let _ = reply.send(Err(Denied::Unfit(refused)));
            return;
        }
        let wanted = Wanted {
            marks: query.backend.as_deref().map(|backend| {
                let services = self.running.services.0.keys();
                let named = services
                    .filter(|it| query.service.as_deref().is_none_or(|name| name == &***it));
                let ids = named.map(|service| BackendId::new(Arc::clone(service), backend));
                let marks = ids.map(|id| self.running.loads.marks(&id));
                let mut marks: Vec<_> = marks.flat_map(|it| it.to_vec()).collect();
                marks.sort_unstable();
                marks.into()
            }),
            service: query.service.map(String::into_boxed_str),
            client: client.flatten(),
            kept_out: None,
        };
        let (workers, names) = (self.workers.reach(), self.running.loads.names());
        let part = (query.offset, query.limit);
        tokio::spawn(async move {
            let _ = reply.send(Ok(sessions::page(workers, names, wanted, part).await));
        });
    }

    /// How everything stands.
    fn view(&self) -> api::View {
        let clock = Clock::now();
        let (services, left) = inspect::services(&self.running, &self.cases, &clock);
        api::View {
            at: clock.told(),
            process: api::Process {
                left,
                ..self.process(&clock)
            },
            services,
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
            left: api::Left::default(),
            max_connections: self.permits.limit() as u64,
            short_of: self.shortage.lately().map(|it| lacking(&it)),
            refusals: inspect::refusals(&self.permits.sum(), clock),
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
                last_good: !self.options.broken.is_empty(),
                needs_restart: reloads.needs_restart.clone(),
            },
            reloads: api::Reloads {
                applied: reloads.applied,
                rejected: reloads.rejected,
                last_duration_seconds: reloads.last_took.map(|it| it.as_secs_f64()),
            },
            alerts: api::Alerts {
                sent_total,
                failed_total,
                lost: self.alerts.lost(),
            },
            checks_total,
            checks_late_seconds_total: late.as_secs_f64(),
            log_lines_dropped_total: logging.map_or(0, Logging::dropped),
            failures_unheard_total: self.witness.dropped(),
        }
    }
}
