//! A reload in steps: prepared beside the loop, staged on it, built beside it, applied on it. What
//! each step does is `prepare`'s, `reload`'s and `services`' business.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

use super::{Supervisor, operating};
use crate::admin::{Bound, Denied};
use crate::api::{self, Refused, Reloaded};
use crate::config::plan::Changes;
use crate::config::{Limited, Plan, ReloadGuard};
use crate::control::discovery::Answers;
use crate::control::event::Event;
use crate::control::inspect::time;
use crate::control::journal;
use crate::control::limits::{descriptors, limits};
use crate::control::planning::{all_kept_out, refused};
use crate::control::prepare::{Prepared, prepare};
use crate::control::rehearsal::Rehearsal;
use crate::control::reload::Staged;
use crate::control::services::{Blueprint, Built};
use crate::control::sessions;
use crate::model::BackendId;
use crate::net::BindError;
use crate::telemetry::millis;

/// What a reload is doing beside the loop.
pub(super) enum Reload {
    None,
    Preparing(Instant, JoinHandle<Result<Box<Prepared>, Vec<String>>>),
    Rehearsing(Instant, Box<Prepared>, JoinHandle<Rehearsal>),
    Building(Instant, Box<Staging>, JoinHandle<Outcome>),
}

/// Who waits for the outcome of a reload. No more than there are connections to the admin API.
#[derive(Debug, Default)]
pub(super) struct Awaiting {
    /// Of the one that is under way.
    this: Vec<Waiting>,
    /// Of the one after it.
    next: Vec<Waiting>,
}

type Waiting = oneshot::Sender<Result<Reloaded, Denied>>;

/// What it has done.
pub(super) enum Step {
    Prepared(Instant, Result<Box<Prepared>, Vec<String>>),
    Rehearsed(Instant, Box<Prepared>, Result<Rehearsal, JoinError>),
    Built(Instant, Box<Staging>, Result<Outcome, JoinError>),
}

/// Its tables, and how many sessions go on whose clients would not be let in again.
type Outcome = (Vec<Built>, u64);

/// What waits for its tables, with the sockets that the admin API gets by it.
type Staging = (Staged, Vec<Bound>);

impl Reload {
    /// The next step, once it is done. Cancel safe: nothing is taken out before it is.
    pub(super) async fn next(&mut self) -> Step {
        match self {
            Reload::None => std::future::pending().await,
            Reload::Preparing(started, task) => {
                let prepared = task.await.unwrap_or_else(|_| Err(vec![DEFECT.into()]));
                let started = *started;
                *self = Reload::None;
                Step::Prepared(started, prepared)
            }
            Reload::Rehearsing(_, _, task) => {
                let rehearsed = task.await;
                match std::mem::replace(self, Reload::None) {
                    Reload::Rehearsing(started, prepared, _) => {
                        Step::Rehearsed(started, prepared, rehearsed)
                    }
                    // It was just that, and nobody else has seen it since.
                    Reload::None | Reload::Preparing(..) | Reload::Building(..) => {
                        std::future::pending().await
                    }
                }
            }
            Reload::Building(_, _, task) => {
                let built = task.await;
                match std::mem::replace(self, Reload::None) {
                    Reload::Building(started, staged, _) => Step::Built(started, staged, built),
                    // It was just that, and nobody else has seen it since.
                    Reload::None | Reload::Preparing(..) | Reload::Rehearsing(..) => {
                        std::future::pending().await
                    }
                }
            }
        }
    }
}

/// Said beside the panic that the log has told of.
const DEFECT: &str = "internal error";

impl Supervisor {
    /// Reloads for an operator who waits for the outcome.
    pub(super) fn reload_for(&mut self, by: &str, reply: Waiting) {
        let busy = |error: &str| Err(Denied::Busy(Refused::new(error)));
        if self.stopping {
            let _ = reply.send(busy(operating::STOPPING));
        } else if self.options.path.is_none() {
            let _ = reply.send(busy("this daemon has no configuration file"));
        } else {
            tracing::info!(change = "reload", by, "changed by an operator");
            operating::note(&self.journal, (None, None), "a reload is asked for", by);
            // One that is under way may have read the file before it was changed.
            match matches!(self.reload, Reload::None) {
                true => self.awaiting.this.push(reply),
                false => self.awaiting.next.push(reply),
            }
            self.begin_reload();
        }
    }

    /// No reload comes to an end any more: one that is not applied yet takes its new listeners with it.
    pub(super) fn give_up_reload(&mut self) {
        self.reload = Reload::None;
        let Awaiting { this, next } = std::mem::take(&mut self.awaiting);
        for reply in this.into_iter().chain(next) {
            let _ = reply.send(Err(Denied::Busy(Refused::new(operating::STOPPING))));
        }
    }

    pub(super) fn begin_reload(&mut self) {
        let Some(path) = &self.options.path else {
            tracing::warn!("reload ignored: this daemon has no configuration file");
            return;
        };
        if !matches!(self.reload, Reload::None) {
            self.again = true;
            return;
        }
        self.notify.reloading();
        let known = self.known();
        let task = tokio::spawn(prepare(Arc::clone(path), known));
        self.reload = Reload::Preparing(Instant::now(), task);
    }

    pub(super) fn continue_reload(&mut self, step: Step) {
        match step {
            Step::Prepared(_, Err(problems)) => self.reject(&problems),
            Step::Prepared(started, Ok(prepared)) => self.guard_reload(started, prepared),
            Step::Rehearsed(_, _, Err(_)) => self.reject(&[DEFECT.into()]),
            Step::Rehearsed(started, prepared, Ok(rehearsal)) => {
                self.judge_reload(started, prepared, &rehearsal);
            }
            Step::Built(_, _, Err(_)) => {
                self.reject(&[DEFECT.into()]);
                self.discover(Answers::new());
            }
            Step::Built(started, staging, Ok((built, shut_out))) => {
                let (staged, endpoints) = *staging;
                let plan = Plan::between(&self.running.config, staged.config());
                let changes = few(plan.names());
                // Before what comes of it, such as a standby that takes over. The log tells it after that, since its
                // line says how long all of it has taken.
                self.journal.write(journal::reloaded(&changes));
                self.apply(staged, built, endpoints);
                self.reloads.applied += 1;
                self.reloads.last_took = Some(started.elapsed());
                self.reloads.needs_restart = plan.needs_restart.clone();
                self.options.broken.clear();
                tracing::info!(
                    %plan,
                    changes,
                    shut_out = (shut_out > 0).then_some(shut_out),
                    took_ms = millis(started.elapsed()),
                    reloads = self.reloads.applied,
                    "reloaded"
                );
                for what in &plan.needs_restart {
                    tracing::warn!(%what, "takes effect after a restart only");
                }
                self.tell_watchers(|| Event::Reloaded(self.picture()));
                self.end_reload(&Ok(Reloaded {
                    plan: plan.to_string(),
                    changes,
                    sessions_shut_out: shut_out,
                    needs_restart: plan.needs_restart,
                    took_seconds: started.elapsed().as_secs_f64(),
                }));
            }
        }
    }

    /// Has those asked on whom it depends whether a service is left without anybody.
    fn guard_reload(&mut self, started: Instant, prepared: Box<Prepared>) {
        if prepared.loaded.config.runtime.reload_guard == ReloadGuard::Off {
            return self.stage_reload(started, *prepared);
        }
        let rehearsal = self.running.rehearse_doubtful(&prepared);
        if !rehearsal.is_in_doubt() {
            return self.judge_reload(started, prepared, &rehearsal);
        }
        let task = tokio::spawn(rehearsal.clear_doubts(self.prober.clone()));
        self.reload = Reload::Rehearsing(started, prepared, task);
    }

    fn judge_reload(&mut self, started: Instant, prepared: Box<Prepared>, rehearsal: &Rehearsal) {
        let losses = rehearsal.losses();
        match prepared.loaded.config.runtime.reload_guard {
            ReloadGuard::Refuse if !losses.is_empty() => {
                let problems: Vec<_> = losses.iter().map(|loss| refused(loss)).collect();
                return self.reject(&problems);
            }
            ReloadGuard::Warn => {
                for loss in &losses {
                    tracing::warn!("{loss}");
                }
            }
            ReloadGuard::Refuse | ReloadGuard::Off => {}
        }
        self.stage_reload(started, *prepared);
    }

    fn stage_reload(&mut self, started: Instant, mut prepared: Prepared) {
        let warnings = prepared.loaded.warnings.lines();
        let endpoints = match prepared.take_endpoints() {
            Ok(endpoints) => endpoints,
            Err(errors) => {
                let problems: Vec<_> = errors.iter().map(ToString::to_string).collect();
                return self.reject(&problems);
            }
        };
        let kept_out = all_kept_out(&self.running.config, &prepared.loaded.config);
        match self.running.stage(prepared, self.workers.count()) {
            Err(errors) => {
                let problems: Vec<_> = errors.iter().map(BindError::to_string).collect();
                self.reject(&problems);
            }
            Ok((staged, blueprints)) => {
                for warning in warnings {
                    tracing::warn!("{warning}");
                }
                let staging = Box::new((staged, endpoints));
                let (building, workers) = (build(blueprints), self.workers.reach());
                let task = tokio::spawn(async move {
                    let mut shut_out = 0;
                    for wanted in kept_out {
                        shut_out += sessions::count(&workers, wanted).await;
                    }
                    match building.await {
                        Ok(built) => (built, shut_out),
                        Err(error) => std::panic::resume_unwind(error.into_panic()),
                    }
                });
                self.reload = Reload::Building(started, staging, task);
            }
        }
    }

    fn reject(&mut self, problems: &[String]) {
        self.reloads.rejected += 1;
        self.reloads.rejection = Some(rejection(problems));
        tracing::error!(
            problems = problems.join("; "),
            rejected = self.reloads.rejected,
            "reload rejected: the running configuration stays"
        );
        self.tell(|| Event::Rejected {
            service: None,
            problems: problems.into(),
        });
        self.end_reload(&Err(Denied::Unfit(Refused {
            problems: problems.to_vec(),
            ..Refused::new("the reload was rejected: the running configuration stays")
        })));
    }

    fn end_reload(&mut self, outcome: &Result<Reloaded, Denied>) {
        for waiting in self.awaiting.this.drain(..) {
            let _ = waiting.send(outcome.clone());
        }
        self.notify.ready();
        self.tell_status();
        if std::mem::take(&mut self.again) {
            self.awaiting.this = std::mem::take(&mut self.awaiting.next);
            self.begin_reload();
        }
    }

    pub(super) fn apply(&mut self, mut staged: Staged, built: Vec<Built>, endpoints: Vec<Bound>) {
        let (answers, asker) = staged.take_findings();
        self.running.memory.keep(staged.text());
        self.text = Arc::clone(staged.text());
        for backend in staged.unresolved() {
            tracing::warn!(
                service = %backend.service(),
                backend = %backend.name(),
                "name does not resolve: the backend is down"
            );
        }
        self.cases.review(&staged, &self.running.loads);
        self.running
            .apply(staged, built, &self.workers, &self.prober, &self.closed);
        self.admin.apply(&self.running.config.admin, endpoints);
        self.reloads.applied_at = Some(SystemTime::now());
        self.reloads.rejection = None;
        self.close_sessions();
        let limits = limits(descriptors(), &self.running.config, self.workers.count());
        limits.warn(&self.running.config);
        self.permits.set_limit(limits.max_connections);
        self.permits.set_dry_limit(limits.dry_connections);
        let runtime = &self.running.config.runtime;
        self.permits
            .set_rate(runtime.accept_rate.map(|most| Limited {
                most,
                dry: runtime.dry_run.accept_rate,
            }));
        if let Some(logging) = &self.options.logging {
            logging.set_level(self.running.config.log.level);
        }
        let options = &mut self.options;
        self.alerts
            .configure(&self.running.config.alerts, || options.watch());
        let stale = self.reconsider_all();
        self.failovers.reloaded(&stale);
        self.tell_rejected_lists();
        self.discovery.ask_by(asker);
        self.discover(answers);
    }
}

/// Why a configuration is not in force since now.
pub(super) fn rejection(problems: &[String]) -> api::Rejection {
    api::Rejection {
        at: time(SystemTime::now()),
        problems: problems.to_vec(),
    }
}

/// Lays out tables beside the loop.
pub(super) fn build(blueprints: Vec<Blueprint>) -> JoinHandle<Vec<Built>> {
    tokio::task::spawn_blocking(|| blueprints.into_iter().map(Blueprint::build).collect())
}

/// The most names that the line of a reload tells.
const MOST_NAMES: usize = 20;

/// Backends that were added, removed and changed, by name.
pub(super) fn names_of(backends: &Changes<BackendId>) -> String {
    few(backends.names("backend").collect())
}

fn few(mut names: Vec<String>) -> String {
    let more = names.len().saturating_sub(MOST_NAMES);
    names.truncate(MOST_NAMES);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    names.join(", ")
}
