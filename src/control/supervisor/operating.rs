//! What operators ask for while the daemon runs: carried out at once, said in the log, and answered when
//! it is on disk.

mod order;
mod wording;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio::time::timeout;

use self::order::{Order, no_service};
use self::wording::{share, whom};
use super::Supervisor;
use crate::admin::{Denied, Journal};
use crate::api::{self, Change, Changed, Refused, Target};
use crate::config::OnDown;
use crate::control::Event;
use crate::control::journal;
use crate::control::memory::Said;
use crate::control::services::Serving;
use crate::control::sessions;
use crate::health::{Duty, FailBack};
use crate::model::BackendId;

/// Who is told what has come of a change.
pub(super) type Reply = oneshot::Sender<Result<Changed, Denied>>;

/// What has come of an order so far.
struct Done {
    /// It counts for every backend from the same moment on.
    now: Instant,
    wall: SystemTime,
    /// Backends that are not as they were.
    backends: u32,
    /// Running sessions of those that it concerns.
    sessions: u64,
    /// A drain has no deadline any more.
    unbound: bool,
    /// What those do that a weight does not bring back.
    aside: Vec<Duty>,
}

impl Supervisor {
    /// Makes a change that `by` asks for, and has `reply` told once it is on disk.
    pub(super) fn change(&mut self, target: &Target, change: &Change, by: &Arc<str>, reply: Reply) {
        let changed = self.carry_out(target, change, by);
        self.answer_when_saved(changed, reply);
    }

    /// Has the tiers of `service` that stand in and need not stand down.
    pub(super) fn fail_back(&mut self, service: &str, by: &str, reply: Reply) {
        let failed_back = self.carry_out_fail_back(service, by);
        self.answer_when_saved(failed_back, reply);
    }

    /// Closes the session of that name, and tells whether there was one.
    pub(super) fn close_session(&self, id: String, by: Arc<str>, reply: oneshot::Sender<bool>) {
        let (workers, journal) = (self.workers.reach(), Arc::clone(&self.journal));
        tokio::spawn(async move {
            let closed = sessions::close(workers, &id).await;
            if closed {
                tracing::info!(change = "close session", session = id, %by, "changed by an operator");
                let text = format!("session {id} is closed");
                note(&journal, (None, None), &text, &by);
            }
            let _ = reply.send(closed);
        });
    }

    /// Whoever made a change may rely on it when the answer has come.
    fn answer_when_saved(&mut self, changed: Result<Changed, Denied>, reply: Reply) {
        let changed = match changed {
            Ok(changed) => changed,
            Err(denied) => {
                let _ = reply.send(Err(denied));
                return;
            }
        };
        let saved = self.running.save();
        tokio::spawn(async move {
            let durable = timeout(PATIENCE, saved).await.is_ok_and(|it| it.is_ok());
            let _ = reply.send(Ok(Changed { durable, ..changed }));
        });
    }

    fn carry_out(
        &mut self,
        target: &Target,
        change: &Change,
        by: &Arc<str>,
    ) -> Result<Changed, Denied> {
        self.goes_on()?;
        let order = Order::new(change)?;
        let (service, backend) = (&*target.service, target.backend.as_deref());
        let services = &self.running.services.0;
        let known = services.get_key_value(service);
        let (service, serving) = known.ok_or_else(|| no_service(service, services.keys()))?;
        let service = Arc::clone(service);
        // Sessions go on at backends that have left, and somebody may want to close them.
        let departed = self.running.left().remove(&service).unwrap_or_default();
        let concerned = order.concerns(serving, backend, &departed.named)?;
        let mut done = Done {
            now: Instant::now(),
            wall: SystemTime::now(),
            backends: 0,
            sessions: 0,
            unbound: false,
            aside: Vec::new(),
        };
        for id in &concerned {
            let load = self.running.load(id);
            done.sessions += load.map_or(0, |it| u64::from(it.in_flight()));
            if order != Order::Close {
                self.say(id, order, by, &mut done);
            } else if self.close(id, done.now) > 0 {
                done.backends += 1;
            }
        }
        let whom = whom(&service, backend, concerned.len());
        let changed = |text| Changed {
            text,
            backends: done.backends,
            sessions: done.sessions,
            durable: false,
        };
        if done.backends == 0 {
            // Nothing has happened, so there is nothing to log.
            return Ok(changed(format!("{whom}: {}", order.already())));
        }
        let besides = if done.unbound {
            ", and its deadline is removed"
        } else {
            ""
        };
        let text = format!("{whom}: {}{besides}", order.name());
        // Before what comes of it, such as a standby that takes over. The log tells it after that, since its
        // line says how many may serve then.
        note(&self.journal, (Some(&service), backend), &text, by);
        self.administered(&service);
        let (eligible, configured) = self.standing_of(&service);
        tracing::info!(
            %service,
            backend,
            change = order.name(),
            %by,
            sessions = done.sessions,
            eligible = %format_args!("{eligible}/{configured}"),
            "changed by an operator"
        );
        let came = order.came(&done.aside, concerned.len());
        let serving = self.running.services.0.get(&service);
        let serving = serving.map_or(0, |it| it.serving(&self.running.targets));
        let share = share(serving, eligible, configured);
        let leaves = order.leaves(done.sessions);
        Ok(changed(format!("{whom} {came}: {leaves}, {share}")))
    }

    /// Has an order said of one backend from now on, and its drain be over when that is due.
    fn say(&mut self, id: &BackendId, order: Order, by: &Arc<str>, done: &mut Done) {
        let was = self.running.memory.admin(id);
        let is = order.says(was);
        let had = self.evictions.deadline(id);
        let due = match order {
            Order::Weight(_) => {
                if is.duty != Duty::Serve {
                    done.aside.push(is.duty);
                }
                had
            }
            Order::Drain(time) => time.map(|it| done.now + it),
            Order::Disable | Order::Enable | Order::Reset | Order::Close => None,
        };
        if was != is || had != due {
            done.backends += 1;
            done.unbound |= is.duty == Duty::Drain && had.is_some() && due.is_none();
            // A backend that drains goes on to do so since then.
            let before = self.running.memory.said(id).since;
            let stays = was.duty == is.duty && is.duty != Duty::Serve;
            let left = due.map(|it| it.saturating_duration_since(done.now));
            let said = Said {
                since: before.filter(|_| stays).or(Some(done.wall)),
                by: Some(Arc::clone(by)),
                until: left.and_then(|it| done.wall.checked_add(it)),
            };
            self.running.memory.set_admin(id, is, said);
        }
        match is.duty {
            Duty::Drain => self.evictions.set_deadline(id, due),
            Duty::Serve | Duty::Maintenance => self.evictions.relent(id),
        }
    }

    fn carry_out_fail_back(&mut self, service: &str, by: &str) -> Result<Changed, Denied> {
        self.goes_on()?;
        let services = &mut self.running.services.0;
        let Some(serving) = services.get_mut(service) else {
            return Err(no_service(service, services.keys()));
        };
        if serving.members.rules().fail_back == FailBack::Immediate {
            let error = "standby tiers of this service stand down by themselves";
            let help = "there is something to ask for with fail_back = \"manual\" or a time";
            return Err(Denied::Unfit(Refused::new(error).with_help(help)));
        }
        serving.roster.fail_back();
        let name: Arc<str> = service.into();
        let text = format!("{service}: standby tiers that are not needed stand down");
        tracing::info!(%service, change = "fail back", by, "changed by an operator");
        note(&self.journal, (Some(&name), None), &text, by);
        self.reconsider(&name);
        Ok(Changed {
            text,
            ..Changed::default()
        })
    }

    /// Has what operators say of the backends of `service` take effect.
    fn administered(&mut self, service: &Arc<str>) {
        let running = &mut self.running;
        let Some(serving) = running.services.0.get_mut(service) else {
            return;
        };
        serving.members.heed(&running.memory);
        let was = serving.eligible;
        serving.eligible = serving.members.count_all(&running.targets);
        let standing = (was != serving.eligible).then(|| serving.standing());
        self.close_sessions_of(service);
        self.reconsider(service);
        if let Some(standing) = standing {
            let removed = Arc::default();
            // Those who read the journal are told what the operator has done.
            self.tell_watchers(|| Event::Membership { standing, removed });
        }
    }

    /// Nothing is changed of a daemon that stops.
    fn goes_on(&self) -> Result<(), Denied> {
        match self.stopping {
            true => Err(Denied::Busy(Refused::new(STOPPING))),
            false => Ok(()),
        }
    }

    fn standing_of(&self, service: &Arc<str>) -> (usize, usize) {
        let serving = self.running.services.0.get(service);
        serving.map_or((0, 0), |it| (it.eligible, it.members.configured()))
    }

    /// Closes what is due by now of the sessions that operators have closed.
    pub(super) fn evict(&mut self) {
        let now = Instant::now();
        for backend in self.evictions.take_due(now) {
            if self.running.memory.admin(&backend).duty != Duty::Drain {
                continue;
            }
            let left = self.close(&backend, now);
            if left > 0 {
                let what = match left {
                    1 => "1 session left is closed".to_owned(),
                    _ => format!("{left} sessions left are closed"),
                };
                let text = format!("the drain of {backend} is over: {what}");
                let note = journal::note("drained", "warn", Some(backend.service()), text);
                self.journal.write(api::Event {
                    backend: Some(backend.name().to_string()),
                    ..note
                });
            }
        }
        self.evictions.step(&self.workers, now);
    }

    /// Begins to close the sessions that a backend has, and tells how many these are.
    fn close(&mut self, backend: &BackendId, now: Instant) -> u32 {
        let Some(load) = self.running.load(backend).cloned() else {
            return 0;
        };
        let sessions = load.in_flight();
        if sessions > 0 {
            let serving = self.running.services.0.get(backend.service());
            let rate = serving.map_or(CLOSE_RATE, close_rate);
            let marks = self.running.loads.marks(backend);
            self.evictions.begin(backend, (&load, marks), rate, now);
        }
        sessions
    }
}

/// Has the journal tell what an operator has done, and to which service and backend of it.
pub(super) fn note(
    journal: &Journal,
    (service, backend): (Option<&Arc<str>>, Option<&str>),
    text: &str,
    by: &str,
) {
    let note = journal::note("changed", "info", service, format!("{text}, by {by}"));
    journal.write(api::Event {
        backend: backend.map(str::to_owned),
        ..note
    });
}

/// Sessions a second that are closed.
fn close_rate(serving: &Serving) -> u32 {
    match serving.members.config().on_down {
        OnDown::Close { rate } => rate,
        OnDown::Keep => CLOSE_RATE,
    }
}

/// What whoever asks for a change is told then.
pub(super) const STOPPING: &str = "the daemon is stopping";
/// How long the answer to a change waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// Sessions a second that are closed where the file does not say how many.
const CLOSE_RATE: u32 = 500;
