//! What operators ask for while the daemon runs: carried out at once, said in the log, and answered when
//! it is on disk.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Supervisor;
use crate::admin::Denied;
use crate::api::{self, Change, Changed, Refused, Target};
use crate::config::{OnDown, written};
use crate::control::Event;
use crate::control::event::Standing;
use crate::control::journal;
use crate::control::memory::Said;
use crate::control::services::Serving;
use crate::control::sessions;
use crate::health::{AdminView, Duty, FailBack, Percent};
use crate::model::{BackendId, counted};

/// Who is told what has come of a change.
pub(super) type Reply = oneshot::Sender<Result<Changed, Denied>>;

/// A change that can be made.
#[derive(Clone, Copy, Debug)]
enum Order {
    /// What is said of the backend from now on, and when its drain is over.
    Say(
        fn(AdminView, Percent) -> AdminView,
        Percent,
        Option<Duration>,
    ),
    /// Its sessions are closed.
    Close,
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
                let text = said_by(&format!("session {id} is closed"), &by);
                journal.write(journal::note("changed", "info", None, text));
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
        if self.stopping {
            return Err(Denied::Busy(refused("the daemon is stopping", None)));
        }
        let order = order(change)?;
        let service: Arc<str> = target.service.as_str().into();
        let serving = self.running.services.0.get(&service);
        let serving =
            serving.ok_or_else(|| no_service(&service, self.running.services.0.keys()))?;
        let concerned = concerned(serving, target.backend.as_deref())?;
        if let (Change::Enable, Some(backend)) = (change, &target.backend)
            && serving
                .members
                .each()
                .any(|it| !it.enabled && it.id == concerned[0])
        {
            let error = format!("`{backend}` is disabled in the file");
            let help = "write enabled = true, and reload";
            return Err(Denied::Unfit(refused(&error, Some(help))));
        }
        let rate = close_rate(serving);
        let now = Instant::now();
        let (wall, mut unbound) = (SystemTime::now(), false);
        let (mut backends, mut sessions) = (0, 0);
        // Those that a weight does not bring back.
        let mut aside = Vec::new();
        for id in &concerned {
            let load = self.running.load(id).cloned();
            sessions += load.as_ref().map_or(0, |it| u64::from(it.in_flight()));
            match order {
                Order::Say(say, weight, deadline) => {
                    let was = self.running.memory.admin(id);
                    let is = say(was, weight);
                    if matches!(change, Change::Weight { .. }) && is.duty != Duty::Serve {
                        aside.push(is.duty);
                    }
                    let had = self.evictions.deadline(id);
                    let due = match change {
                        Change::Weight { .. } => had,
                        Change::Drain { .. }
                        | Change::Disable
                        | Change::Enable
                        | Change::Reset
                        | Change::CloseSessions => deadline.map(|it| now + it),
                    };
                    if was != is || had != due {
                        backends += 1;
                        unbound |= is.duty == Duty::Drain && had.is_some() && due.is_none();
                        // A backend that drains goes on to do so since then.
                        let before = self.running.memory.said(id).since;
                        let stays = was.duty == is.duty && is.duty != Duty::Serve;
                        let said = Said {
                            since: before.filter(|_| stays).or(Some(wall)),
                            by: Some(Arc::clone(by)),
                            until: due
                                .and_then(|it| wall.checked_add(it.saturating_duration_since(now))),
                        };
                        self.running.memory.set_admin(id, is, said);
                    }
                    match is.duty {
                        Duty::Drain => self.evictions.set_deadline(id, due),
                        Duty::Serve | Duty::Maintenance => self.evictions.relent(id),
                    }
                }
                Order::Close => {
                    if let Some(load) = load.filter(|it| it.in_flight() > 0) {
                        backends += 1;
                        let marks = self.running.loads.marks(id);
                        self.evictions.begin(id, (&load, marks), rate, now);
                    }
                }
            }
        }
        let whom = match &target.backend {
            Some(backend) => format!("{service}/{backend}"),
            None if concerned.len() == 1 => format!("the backend of {service}"),
            None => format!("each of the {} backends of {service}", concerned.len()),
        };
        if backends == 0 {
            // Nothing has happened, so there is nothing to log.
            return Ok(Changed {
                text: format!("{whom}: {}", already(change)),
                backends,
                sessions,
                durable: false,
            });
        }
        let besides = if unbound {
            ", and its deadline is removed"
        } else {
            ""
        };
        let text = format!("{whom}: {}{besides}", told(change));
        // Before what comes of it, such as a standby that takes over. The log tells it after that, since its
        // line says how many may serve then.
        self.note(&service, target.backend.as_deref(), &said_by(&text, by));
        self.administered(&service);
        let (eligible, configured) = self.standing_of(&service);
        tracing::info!(
            %service,
            backend = target.backend.as_deref(),
            change = told(change),
            %by,
            sessions,
            eligible = %format_args!("{eligible}/{configured}"),
            "changed by an operator"
        );
        Ok(Changed {
            text: came_of(
                &format!("{whom} {}", came(change, &aside, concerned.len())),
                change,
                sessions,
                (eligible, configured),
            ),
            backends,
            sessions,
            durable: false,
        })
    }

    fn carry_out_fail_back(&mut self, service: &str, by: &str) -> Result<Changed, Denied> {
        if self.stopping {
            return Err(Denied::Busy(refused("the daemon is stopping", None)));
        }
        let name: Arc<str> = service.into();
        if !self.running.services.0.contains_key(&name) {
            return Err(no_service(service, self.running.services.0.keys()));
        }
        if let Some(serving) = self.running.services.0.get_mut(&name) {
            if serving.members.rules().fail_back == FailBack::Immediate {
                let error = "standby tiers of this service stand down by themselves";
                let help = "there is something to ask for with fail_back = \"manual\" or a time";
                return Err(Denied::Unfit(refused(error, Some(help))));
            }
            serving.roster.fail_back();
        }
        let text = format!("{service}: standby tiers that are not needed stand down");
        tracing::info!(%service, change = "fail back", by, "changed by an operator");
        self.note(&name, None, &said_by(&text, by));
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
        let standing = (was != serving.eligible).then(|| Standing {
            service: Arc::clone(service),
            eligible: serving.eligible,
            configured: serving.members.configured(),
        });
        self.close_sessions_of(service);
        self.reconsider(service);
        if let Some(standing) = standing {
            let removed = Arc::default();
            // Those who read the journal are told what the operator has done.
            self.tell_watchers(Event::Membership { standing, removed });
        }
    }

    /// Has the journal tell what an operator has done.
    fn note(&self, service: &Arc<str>, backend: Option<&str>, text: &str) {
        let note = journal::note("changed", "info", Some(service), text.to_owned());
        self.journal.write(api::Event {
            backend: backend.map(str::to_owned),
            ..note
        });
    }

    fn standing_of(&self, service: &Arc<str>) -> (usize, usize) {
        let serving = self.running.services.0.get(service);
        serving.map_or((0, 0), |it| (it.eligible, it.members.configured()))
    }

    /// Closes what is due by now of the sessions that operators have closed.
    pub(super) fn evict(&mut self) {
        let now = Instant::now();
        for backend in self.evictions.take_due(now) {
            let drains = self.running.memory.admin(&backend).duty == Duty::Drain;
            let load = self.running.load(&backend).cloned();
            if let Some(load) = load.filter(|it| drains && it.in_flight() > 0) {
                let serving = self.running.services.0.get(backend.service());
                let rate = serving.map_or(CLOSE_RATE, close_rate);
                let marks = self.running.loads.marks(&backend);
                let left = load.in_flight();
                let text =
                    format!("the drain of {backend} is over: {left} sessions left are closed");
                let note = journal::note("drained", "warn", Some(backend.service()), text);
                self.journal.write(api::Event {
                    backend: Some(backend.name().to_string()),
                    ..note
                });
                self.evictions.begin(&backend, (&load, marks), rate, now);
            }
        }
        self.evictions.step(&self.workers, now);
    }
}

fn order(change: &Change) -> Result<Order, Denied> {
    let duty = |say| Order::Say(say, Percent::FULL, None);
    Ok(match change {
        Change::Drain { deadline_seconds } => {
            let deadline = deadline_seconds.map(deadline).transpose()?;
            let say = |was: AdminView, _| AdminView {
                duty: Duty::Drain,
                ..was
            };
            Order::Say(say, Percent::FULL, deadline)
        }
        Change::Disable => duty(|was, _| AdminView {
            duty: Duty::Maintenance,
            ..was
        }),
        Change::Enable => duty(|was, _| AdminView {
            duty: Duty::Serve,
            ..was
        }),
        Change::Weight { percent } if *percent > Percent::MOST => {
            let error = format!("{percent} percent is too much");
            let help = format!("allowed: 0 to {}", Percent::MOST);
            return Err(Denied::Unfit(refused(&error, Some(&help))));
        }
        Change::Weight { percent } => {
            let say = |was: AdminView, weight| AdminView { weight, ..was };
            Order::Say(say, Percent::new(*percent), None)
        }
        Change::Reset => duty(|_, _| AdminView::default()),
        Change::CloseSessions => Order::Close,
    })
}

fn deadline(seconds: f64) -> Result<Duration, Denied> {
    let time = Duration::try_from_secs_f64(seconds).ok();
    time.filter(|time| *time <= LONGEST_DRAIN).ok_or_else(|| {
        let help = format!("allowed: 0 to {}", LONGEST_DRAIN.as_secs());
        Denied::Unfit(refused("this is no time to drain in", Some(&help)))
    })
}

/// Which backends of a service are meant.
fn concerned(serving: &Serving, backend: Option<&str>) -> Result<Vec<BackendId>, Denied> {
    let all = || serving.members.each().map(|it| &it.id);
    let is_meant = |id: &&BackendId| backend.is_none_or(|name| **id.name() == *name);
    let concerned: Vec<_> = all().filter(is_meant).cloned().collect();
    match (concerned.is_empty(), backend) {
        (true, Some(name)) => {
            let error = format!(
                "service `{}` has no backend `{name}`",
                serving.service.name()
            );
            let names: Vec<_> = all()
                .take(MOST_NAMES)
                .map(|id| id.name().to_string())
                .collect();
            let help = format!("it has {}", names.join(", "));
            Err(Denied::Unknown(refused(&error, Some(&help))))
        }
        (true, None) => Err(Denied::Unfit(refused("this service has no backends", None))),
        (false, _) => Ok(concerned),
    }
}

fn no_service<'s>(name: &str, known: impl Iterator<Item = &'s Arc<str>>) -> Denied {
    let mut names: Vec<_> = known.map(ToString::to_string).collect();
    names.sort();
    names.truncate(MOST_NAMES);
    let help = format!("there is {}", names.join(", "));
    Denied::Unknown(refused(
        &format!("there is no service `{name}`"),
        Some(&help),
    ))
}

fn refused(error: &str, help: Option<&str>) -> Refused {
    Refused {
        error: error.to_owned(),
        help: help.map(str::to_owned),
        problems: Vec::new(),
    }
}

/// Sessions a second that are closed.
fn close_rate(serving: &Serving) -> u32 {
    match serving.members.config().on_down {
        OnDown::Close { rate } => rate,
        OnDown::Keep => CLOSE_RATE,
    }
}

/// What was done, in words.
fn told(change: &Change) -> String {
    match change {
        Change::Drain {
            deadline_seconds: None,
        } => "drain".to_owned(),
        Change::Drain {
            deadline_seconds: Some(seconds),
        } => {
            let time = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            format!("drain within {}", written(time))
        }
        Change::Disable => "disable".to_owned(),
        Change::Enable => "enable".to_owned(),
        Change::Weight { percent } => format!("weight {percent}%"),
        Change::Reset => "reset".to_owned(),
        Change::CloseSessions => "close sessions".to_owned(),
    }
}

/// `web/app-1: drain, by uid 0`
pub(super) fn said_by(text: &str, by: &str) -> String {
    format!("{text}, by {by}")
}

/// What is said of a change that there is nothing to be done for.
fn already(change: &Change) -> String {
    match change {
        Change::Drain { .. } => "already drained".to_owned(),
        Change::Disable => "already disabled".to_owned(),
        Change::Enable => "already enabled".to_owned(),
        Change::Weight { percent } => format!("already at {percent}% of its weight"),
        Change::Reset => "already what the file says".to_owned(),
        Change::CloseSessions => "no sessions to close".to_owned(),
    }
}

/// What a backend is now; of `all` that are concerned, these are kept `aside` as before.
fn came(change: &Change, aside: &[Duty], all: usize) -> String {
    let stays = match aside {
        [] => "",
        [Duty::Drain] if all == 1 => " and stays drained",
        [_] if all == 1 => " and stays disabled",
        _ => "; who is drained or disabled stays so",
    };
    match change {
        Change::Drain { .. } => "drains".to_owned(),
        Change::Disable => "is disabled".to_owned(),
        Change::Enable => "is enabled".to_owned(),
        Change::Weight { percent } => format!("has {percent}% of its weight{stays}"),
        Change::Reset => "is as the file says".to_owned(),
        Change::CloseSessions => "has its sessions closed".to_owned(),
    }
}

/// What came of it, in a sentence that begins with what they are.
fn came_of(they_are: &str, change: &Change, sessions: u64, standing: (usize, usize)) -> String {
    let running = match (change, sessions) {
        (
            Change::Drain {
                deadline_seconds: Some(seconds),
            },
            0,
        ) => {
            let time = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            format!(
                "no session runs there, and the deadline is in {}",
                written(time)
            )
        }
        (_, 0) => "no session runs there".to_owned(),
        (Change::CloseSessions, some) => counted(some, "session"),
        (
            Change::Drain {
                deadline_seconds: Some(seconds),
            },
            some,
        ) => {
            let time = Duration::try_from_secs_f64(*seconds).unwrap_or_default();
            let some = counted(some, "session");
            format!("{some}, closed unless over within {}", written(time))
        }
        (_, 1) => "1 session goes on".to_owned(),
        (_, some) => format!("{some} sessions go on"),
    };
    let (eligible, configured) = standing;
    let serve = if eligible == 1 { "serves" } else { "serve" };
    format!("{they_are}: {running}, {eligible} of {configured} backends {serve}")
}

/// How long the answer to a change waits for the disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// Sessions a second that are closed where the file does not say how many.
const CLOSE_RATE: u32 = 500;
/// Whoever drains for longer does not mean it.
const LONGEST_DRAIN: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Names that a refusal lists.
const MOST_NAMES: usize = 20;
