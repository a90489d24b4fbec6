//! What an operator is told of backends and their health: the lines of probes and transitions, the
//! report that SIGUSR1 asks for, and the line of `systemctl status`.

use std::time::{Duration, Instant};

use tokio::task::yield_now;

use super::Supervisor;
use crate::config::written;
use crate::control::Event;
use crate::control::failovers;
use crate::control::probe::TargetId;
use crate::control::services::User;
use crate::control::targets::Target;
use crate::health::{AdminView, Evidence, State, Transition, Turn, Why};
use crate::pool::queue::QueueSum;
use crate::telemetry::millis;

/// Backends that are reported before probes have their turn: a millisecond's worth.
const AT_A_TIME: usize = 32;

impl Supervisor {
    /// On its way up.
    pub(super) fn report_answered(&self, users: &[User], id: &TargetId) {
        let streak = self.running.targets.get(id).map_or(0, Target::against);
        if streak == 0 {
            // It is up.
            return;
        }
        for User { id: backend, .. } in users {
            tracing::debug!(
                service = %backend.service(),
                backend = %backend.name(),
                address = %id.address,
                streak,
                "heartbeat answered"
            );
        }
    }

    pub(super) fn report_missed(&self, users: &[User], id: &TargetId, why: &Why) {
        let streak = self.running.targets.get(id).map_or(0, Target::against);
        if streak == 0 {
            // It is down already.
            return;
        }
        for User { id: backend, .. } in users {
            tracing::debug!(
                service = %backend.service(),
                backend = %backend.name(),
                address = %id.address,
                %why,
                streak,
                "heartbeat missed"
            );
            if self.options.heartbeats {
                self.tell(|| Event::Missed {
                    backend: backend.clone(),
                    cause: why.clone(),
                    streak,
                });
            }
        }
    }

    /// Tells of backends that are as the daemon before this one has left them: nothing changes, but this one's
    /// log and events would not say a word of them.
    pub(super) fn report_still_down(&self, users: &[User], id: &TargetId, why: &Why) {
        let since = self.running.targets.get(id).map(Target::since);
        let after = since.map_or(Duration::ZERO, |it| it.elapsed());
        for User { id: backend, .. } in users {
            let Some(serving) = self.running.services.0.get(backend.service()) else {
                continue;
            };
            let (eligible, configured) = (serving.eligible, serving.members.configured());
            let (service, name, address) = (backend.service(), backend.name(), id.address);
            let (after, of) = (whole_millis(after), format!("{eligible}/{configured}"));
            tracing::warn!(%service, backend = %name, %address, %why, %after, eligible = %of, "backend still down");
            self.tell(|| Event::StillDown {
                backend: backend.clone(),
                cause: why.clone(),
                eligible,
                configured,
            });
        }
    }

    /// Tells of backends that answer slower than they used to, and does nothing about it.
    pub(super) fn report_turn(&self, users: &[User], id: &TargetId, turn: &Turn) {
        for User { id: backend, .. } in users {
            let (service, name, address) = (backend.service(), backend.name(), id.address);
            let (latency_ms, usual_ms) = (millis(turn.latency), millis(turn.usual));
            let phi = turn.phi.round();
            if turn.suspect {
                tracing::warn!(%service, backend = %name, %address, latency_ms, usual_ms, phi, "backend suspect: it answers slower than it used to");
            } else {
                tracing::info!(%service, backend = %name, %address, latency_ms, usual_ms, "backend no longer suspect");
            }
            self.tell(|| Event::Suspect {
                backend: backend.clone(),
                address,
                turn: *turn,
            });
        }
    }

    pub(super) fn report(
        &mut self,
        user: &User,
        id: &TargetId,
        transition: &Transition,
        evidence: Option<&Evidence>,
    ) {
        let backend = &user.id;
        let Some(serving) = self.running.services.0.get_mut(backend.service()) else {
            return;
        };
        serving.revision += 1;
        serving.count(user, &self.running.targets);
        let (eligible, configured) = (serving.eligible, serving.members.configured());
        let ejected = self.running.load(backend).is_some_and(|it| it.is_ejected());
        let (service, name, address) = (backend.service(), backend.name(), id.address);
        let after = whole_millis(transition.after);
        let of = format!("{eligible}/{configured}");
        match &transition.cause {
            Some(why) => {
                let evidence = evidence.map(tracing::field::display);
                tracing::warn!(%service, backend = %name, %address, %why, evidence, %after, eligible = %of, "backend down");
            }
            None => {
                tracing::info!(%service, backend = %name, %address, %after, eligible = %of, "backend up");
            }
        }
        self.tell(|| Event::Transition {
            backend: backend.clone(),
            address,
            from: transition.from,
            to: transition.to,
            cause: transition.cause.clone(),
            after: transition.after,
            ejected,
            eligible,
            configured,
        });
    }

    /// Every backend with its state and its counters, in the log; a few at a time, because probes are
    /// sent by this thread too.
    pub(super) async fn report_everything(&self) {
        let now = Instant::now();
        let (probes, latest) = self.prober.punctuality();
        let (alerts_sent, alerts_failed) = self.alerts.counts();
        tracing::info!(
            sessions = self.workers.sessions(),
            max_connections = self.permits.limit(),
            reloads = self.reloads.applied,
            rejected = self.reloads.rejected,
            probes,
            latest_probe_ms = millis(latest),
            unheard = self.witness.dropped(),
            alerts_sent,
            alerts_failed,
            "report"
        );
        for serving in self.running.services.0.values() {
            let portions = serving.portions();
            for (number, (user, target)) in serving.members.users().enumerate() {
                if number % AT_A_TIME == AT_A_TIME - 1 {
                    yield_now().await;
                }
                let Some(load) = self.running.load(&user.id) else {
                    continue;
                };
                let sum = load.sum();
                let known = self.running.targets.get(target);
                let state = known.map(Target::state);
                let totals = self.running.memory.totals(&user.id, now);
                let admin = self.running.memory.admin(&user.id);
                let admin = (admin != AdminView::default()).then(|| admin.to_string());
                let agent = known.and_then(Target::agent);
                tracing::info!(
                    service = %user.id.service(),
                    backend = %user.id.name(),
                    address = %target.address,
                    state = state.unwrap_or(State::Unknown).word(),
                    enabled = user.enabled,
                    seat = serving.seat(&user).map(tracing::field::display),
                    portion = portions.get(&user.id).map(tracing::field::display),
                    agent = agent.map(tracing::field::display),
                    ejected = load.is_ejected(),
                    sessions = load.in_flight(),
                    max_connections = load.cap(),
                    served = sum.sessions,
                    connect_failures = sum.connect_failures,
                    moved = sum.moved,
                    hurt = sum.hurt,
                    administered = admin,
                    availability = totals.availability().map(percent),
                    up = %seconds(totals.up),
                    down = %seconds(totals.down),
                    failures = totals.failures,
                    flaps = totals.flaps,
                    mtbf = totals.mtbf().map(seconds).map(tracing::field::display),
                    mttr = totals.mttr().map(seconds).map(tracing::field::display),
                    to_backend = sum.to_backend,
                    to_client = sum.to_client,
                    "backend"
                );
            }
        }
        for serving in self.running.services.0.values() {
            let queue = serving.service.queue().sum();
            if queue != QueueSum::default() {
                tracing::info!(
                    service = %serving.service.name(),
                    waiting = queue.waiting,
                    placed = queue.placed,
                    full = queue.full,
                    timed_out = queue.timed_out,
                    left = queue.left,
                    unserved = queue.unserved,
                    "queue"
                );
            }
        }
        self.report_refusals();
        for failover in self.failovers.past() {
            failovers::log(failover, "past failover");
        }
    }

    /// One line for `systemctl status`, when it has changed.
    pub(super) fn tell_status(&mut self) {
        let (services, eligible, configured) = self.running.services.count();
        let plural = |count| if count == 1 { "" } else { "s" };
        let sessions = self.workers.sessions();
        let mut status = format!(
            "{services} service{}, {eligible}/{configured} backends eligible, {sessions} session{}",
            plural(services),
            plural(sessions)
        );
        if self.full {
            status += " (full)";
        }
        if let Some(short_of) = self.short_of {
            status += &format!(", short of {}: new clients wait", short_of.words());
        }
        if !self.options.broken.is_empty() {
            status += ", the configuration is broken: the last good one runs";
        } else if self.reloads.rejection.is_some() {
            status += ", the last reload was rejected: see the log";
        }
        if status != self.status {
            self.notify.status(&status);
            self.status = status;
        }
    }
}

/// `99.987%`
fn percent(share: f64) -> String {
    format!("{:.3}%", share * 100.0)
}

fn whole_millis(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    written(Duration::from_millis(millis))
}

/// Whole seconds.
fn seconds(duration: Duration) -> String {
    written(Duration::from_secs(duration.as_secs()))
}
