//! `ballast plan`: the answer to what a reload would do, made from the very plan and the very rehearsal of
//! a reload. The daemon's part is to say what it holds; asking backends, laying out tables and playing
//! clients through them happen beside.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use super::prepare::Prepared;
use super::probe::Prober;
use super::rehearsal::{Part, Rehearsal, Scene};
use super::running::Running;
use super::services::Serving;
use super::sessions;
use crate::api;
use crate::config::edits;
use crate::config::plan::Changes;
use crate::config::{Config, Plan, ReloadGuard, ServiceConfig};
use crate::forecast::{Table, Tried, clients};
use crate::health::{FailBack, Finding, Verdict};
use crate::model::{Address, BackendId};
use crate::strategy::{Basis, Candidate};
use crate::worker::{Reach, Wanted};

/// Made-up clients of which some would move.
const CLIENTS: u32 = 10_000;

/// Services of a reload whose sessions are looked through for clients that would not be let in again.
const MOST_LOOKS: usize = 16;

/// Everything that a plan is told from, taken from what runs.
#[derive(Debug)]
pub(super) struct Draft {
    plan: Plan,
    rehearsal: Rehearsal,
    guard: ReloadGuard,
    warnings: Vec<String>,
    problems: Vec<String>,
    /// Services that are not the same after it, and how they are before it.
    before: Vec<Before>,
    /// Whether programs may be run to check what is new.
    runs_programs: bool,
    /// What was so before.
    past: Past,
    /// Services whose standby tier may stand down: to ask for a reload is to ask for that.
    fails_back: Vec<String>,
    /// The file in force, and the one that would be.
    texts: (Arc<str>, Arc<str>),
}

/// What there has been of reloads.
#[derive(Debug)]
pub(super) struct Past {
    /// Whether a file was rejected since the last that took effect.
    pub(super) after_rejection: bool,
    /// What of the configuration in force waits for a restart already.
    pub(super) needs_restart: Vec<String>,
}

impl Past {
    /// Whether a reload would change nothing by `plan`, not even what is told of the configuration.
    fn is_kept_by(&self, plan: &Plan) -> bool {
        plan.is_empty() && !self.after_rejection && plan.needs_restart == self.needs_restart
    }
}

/// A service that runs and would not go on as it is.
#[derive(Debug)]
struct Before {
    service: Arc<str>,
    eligible: usize,
    configured: usize,
    sessions: u64,
    /// Sessions at each place.
    places: Vec<(BackendId, Option<Address>, u32)>,
    /// Sessions whose clients would not be let in again after it, where that is not as before, …
    kept_out: Option<Wanted>,
    /// … and how many they are.
    shut_out: u64,
    /// What its table was made from, where clients are bound to a backend.
    laid_out: Option<(ServiceConfig, Vec<Candidate>)>,
}

impl Running {
    /// Everything that the plan of `prepared` is told from, which `is_own` to the daemon when it was read from its
    /// file; listeners are tried on `workers` sockets. `texts` are the file in force and that one.
    pub(super) fn draft(
        &self,
        prepared: &Prepared,
        workers: usize,
        is_own: bool,
        past: Past,
        texts: (Arc<str>, Arc<str>),
    ) -> Draft {
        let config = &prepared.loaded.config;
        let plan = Plan::between(&self.config, config);
        let gone = plan.services.removed.iter().chain(&plan.services.changed);
        let left = self.left();
        let before = gone.filter_map(|name| {
            let mut before = self.before(name)?;
            // Those at backends that left before go on as well.
            before.sessions += left.get(name).map_or(0, |it| it.sessions);
            before.kept_out = kept_out(&self.config, config, name);
            Some(before)
        });
        let before = before.collect();
        let bind = self.listeners.try_to_bind(config, workers);
        let mut warnings = prepared.loaded.warnings.lines();
        for service in config.services.iter().map(|it| &it.name) {
            let Some(list) = prepared.lists.get(service) else {
                continue;
            };
            let known = self
                .lists
                .get(service)
                .is_some_and(|it| it.path == list.path);
            match list.problems.len() {
                0 => {}
                // What is in a file that is not the daemon's is not for everybody to read.
                count if !is_own && !known => warnings.push(format!(
                    "{} of service `{service}` has {count} problems: see what `ballast check` says",
                    list.path.display()
                )),
                _ => warnings.extend(list.problems.iter().cloned()),
            }
        }
        let fails_back = config.services.iter().filter(|it| {
            let serving = self.services.0.get(&it.name);
            it.serving.fail_back == FailBack::Manual && serving.is_some_and(Serving::holds_back)
        });
        Draft {
            fails_back: fails_back.map(|it| it.name.to_string()).collect(),
            rehearsal: self.rehearse(prepared),
            guard: config.runtime.reload_guard,
            warnings,
            problems: bind.iter().map(ToString::to_string).collect(),
            before,
            plan,
            runs_programs: is_own,
            past,
            texts,
        }
    }

    fn before(&self, service: &Arc<str>) -> Option<Before> {
        let serving = self.services.0.get(service)?;
        let config = serving.members.config();
        let places: Vec<_> = serving
            .members
            .places()
            .map(|(id, address, sessions)| (id.clone(), address, sessions))
            .collect();
        let candidates = || serving.laid_out.as_ref().map(|it| it.serving.clone());
        let bound = config.strategy.goes_by == Basis::Source;
        Some(Before {
            service: Arc::clone(service),
            eligible: serving.eligible,
            configured: serving.members.configured(),
            sessions: places.iter().map(|it| u64::from(it.2)).sum(),
            kept_out: None,
            shut_out: 0,
            places,
            laid_out: bound
                .then(candidates)
                .flatten()
                .map(|it| (config.clone(), it)),
        })
    }
}

impl Draft {
    /// Asks who is new, and tells all of it. `path` is the file of the daemon.
    pub(super) async fn complete(
        mut self,
        prober: Prober,
        workers: Reach,
        path: Option<String>,
    ) -> api::Plan {
        let asked = self.before.iter_mut();
        let asked = asked.filter_map(|it| Some((it.kept_out.take()?, &mut it.shut_out)));
        for (wanted, shut_out) in asked.take(MOST_LOOKS) {
            *shut_out = sessions::count(&workers, wanted).await;
        }
        let services = &self.plan.services;
        let concerned = services
            .added
            .iter()
            .chain(&services.changed)
            .cloned()
            .collect();
        self.rehearsal = self
            .rehearsal
            .ask_of(concerned, prober, self.runs_programs)
            .await;
        let now = Instant::now();
        let told = tokio::task::spawn_blocking(move || self.tell(now, path)).await;
        // A defect; the panic itself is logged.
        told.unwrap_or_else(|_| api::Plan {
            outcome: api::Prospect::Rejected,
            problems: vec!["internal error".to_owned()],
            ..api::Plan::default()
        })
    }

    fn tell(mut self, now: Instant, path: Option<String>) -> api::Plan {
        // By the new file, more may be needed before it.
        let scenes = self.rehearsal.scenes.iter_mut();
        let fails_back: HashSet<_> = scenes
            .filter(|it| self.fails_back.iter().any(|name| **name == *it.config.name))
            .filter_map(|it| it.fails_back(now).then(|| it.config.name.to_string()))
            .collect();
        self.fails_back.retain(|it| fails_back.contains(it));
        let losses = self.rehearsal.losses();
        match self.guard {
            ReloadGuard::Refuse => self.problems.extend(losses.iter().map(|it| refused(it))),
            ReloadGuard::Warn => self.warnings.extend(losses),
            ReloadGuard::Off => {}
        }
        let outcome = match () {
            () if !self.problems.is_empty() => api::Prospect::Rejected,
            () if self.past.is_kept_by(&self.plan) && self.fails_back.is_empty() => {
                api::Prospect::Nothing
            }
            () => api::Prospect::Changes,
        };
        let effects = self.effects(now);
        let Self {
            plan,
            warnings,
            problems,
            past,
            fails_back,
            texts: (before, after),
            ..
        } = self;
        let strings = |all: &[&'static str]| all.iter().map(ToString::to_string).collect();
        api::Plan {
            outcome,
            path,
            summary: plan.to_string(),
            changes: plan.names(),
            edits: edits(&plan, &before, &after),
            settings: strings(&plan.settings),
            services: difference(&plan.services),
            listeners: difference(&plan.listeners),
            backends: difference(&plan.backends),
            alerts: difference(&plan.alerts),
            needs_restart: plan.needs_restart,
            problems,
            warnings,
            effects,
            fails_back,
            clears_rejection: past.after_rejection && outcome == api::Prospect::Changes,
        }
    }

    fn effects(&mut self, now: Instant) -> Vec<api::Effect> {
        let before: HashMap<_, _> = self.before.iter().map(|it| (&*it.service, it)).collect();
        let all = [
            ("added", &self.plan.services.added),
            ("changed", &self.plan.services.changed),
            ("removed", &self.plan.services.removed),
        ];
        let mut scenes: HashMap<_, _> = self
            .rehearsal
            .scenes
            .iter_mut()
            .map(|scene| (Arc::clone(&scene.config.name), scene))
            .collect();
        let mut effects = Vec::new();
        for (change, names) in all {
            for name in names {
                let before = before.get(&**name).copied();
                effects.push(effect(name, change, before, scenes.remove(name), now));
            }
        }
        effects
    }
}

fn effect(
    name: &Arc<str>,
    change: &str,
    before: Option<&Before>,
    scene: Option<&mut Scene>,
    now: Instant,
) -> api::Effect {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let stays: HashSet<_> = scene
        .iter()
        .flat_map(|scene| &scene.parts)
        .map(|part| (&part.id, part.target.as_ref().map(|it| it.address)))
        .collect();
    let leaving = before.map_or(0, |before| {
        let gone = before
            .places
            .iter()
            .filter(|(id, at, _)| !stays.contains(&(id, *at)));
        gone.map(|(.., sessions)| u64::from(*sessions)).sum()
    });
    let mut effect = api::Effect {
        service: name.to_string(),
        change: change.to_owned(),
        eligible_now: before.map(|it| count(it.eligible)),
        configured_now: before.map(|it| count(it.configured)),
        sessions: before.map_or(0, |it| it.sessions),
        sessions_leaving: leaving,
        sessions_shut_out: before.map_or(0, |it| it.shut_out),
        ..api::Effect::default()
    };
    if let Some(scene) = scene {
        effect.eligible = Some(count(scene.eligible()));
        effect.configured = Some(count(scene.parts.len()));
        effect.probes = scene.parts.iter().filter_map(probe).collect();
        effect.clients_moved_percent = before.and_then(|before| moved(before, scene, now));
    }
    effect
}

/// The share of clients that another server would serve.
fn moved(before: &Before, scene: &mut Scene, now: Instant) -> Option<f64> {
    let (config, candidates) = before.laid_out.as_ref()?;
    if scene.config.strategy.goes_by != Basis::Source {
        return None;
    }
    let places: HashMap<_, _> = before.places.iter().map(|(id, at, _)| (id, *at)).collect();
    let old = Table::new(config, candidates, |id| {
        Some(Tried {
            address: (*places.get(id)?)?,
            max_connections: None,
        })
    });
    let decision = scene.decide(now);
    let parts: HashMap<_, &Part> = scene.parts.iter().map(|part| (&part.id, part)).collect();
    let new = Table::new(&scene.config, &decision.serving, |id| {
        let address = parts.get(id)?.target.as_ref()?.address;
        Some(Tried {
            address,
            max_connections: None,
        })
    });
    let clients: Vec<IpAddr> = clients(CLIENTS).collect();
    // Nobody's sessions count: this is where clients are at home.
    let moved = old.moved(&old.play(&clients, 1), &new, &new.play(&clients, 1));
    let percent = moved.moved as f64 / moved.clients as f64 * 100.0;
    Some((percent * 100.0).round() / 100.0)
}

fn probe(part: &Part) -> Option<api::Probe> {
    let found = part.found.as_ref()?;
    let (alive, why) = match found {
        Ok(Finding {
            verdict: Verdict::Alive,
            ..
        }) => (Some(true), None),
        Ok(Finding {
            verdict: Verdict::Dead(why),
            ..
        }) => (Some(false), Some(why.to_string())),
        Err(unsent) => (None, Some(unsent.to_string())),
    };
    Some(api::Probe {
        backend: part.id.name().to_string(),
        address: part
            .target
            .as_ref()
            .map(|it| it.address.to_string())
            .unwrap_or_default(),
        alive,
        why,
    })
}

/// The sessions that go on, service by service, though `new` would not let their clients in again and `old`
/// may have. Each is a look at all sessions of the daemon.
pub(super) fn all_kept_out(old: &Config, new: &Config) -> Vec<Wanted> {
    let services = old.services.iter();
    let all = services.filter_map(|it| kept_out(old, new, &it.name));
    all.take(MOST_LOOKS).collect()
}

/// The same of one service.
fn kept_out(old: &Config, new: &Config, name: &str) -> Option<Wanted> {
    let of = |config: &Config| {
        let service = config.services.iter().find(|it| &*it.name == name)?;
        let access = service.admission.access.as_ref()?;
        (!access.dry_run).then(|| Arc::clone(&access.rules))
    };
    let rules = of(new).filter(|rules| of(old).as_ref() != Some(rules))?;
    Some(Wanted {
        service: Some(name.into()),
        kept_out: Some(rules),
        ..Wanted::default()
    })
}

/// What of that which changes is other than it was.
fn edits(plan: &Plan, before: &str, after: &str) -> Vec<api::Edit> {
    let services = plan
        .services
        .changed
        .iter()
        .map(|it| format!("service {it}"));
    let backends = plan
        .backends
        .changed
        .iter()
        .map(|it| format!("backend {it}"));
    let changed: HashSet<String> = services.chain(backends).collect();
    // What is written otherwise and means the same, such as 60s and 1m, is no change.
    let restarts = plan.needs_restart.iter().map(String::as_str);
    let keys: Vec<&str> = plan.settings.iter().copied().chain(restarts).collect();
    let is_within = |it: &str, key: &str| {
        let rest = it.strip_prefix(key);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let has_changed = |it: &edits::Edit| match &*it.of {
        "" => keys.iter().any(|key| is_within(&it.key, key)),
        of => changed.contains(of),
    };
    edits::between(before, after)
        .into_iter()
        .filter(has_changed)
        .map(|it| api::Edit {
            of: it.of,
            key: it.key,
            before: it.before,
            after: it.after,
        })
        .collect()
}

fn difference<T: ToString>(changes: &Changes<T>) -> api::Difference {
    let strings = |all: &[T]| all.iter().map(T::to_string).collect();
    api::Difference {
        added: strings(&changes.added),
        removed: strings(&changes.removed),
        changed: strings(&changes.changed),
        kept: changes.kept.len() as u64,
    }
}

/// What is said of a loss that is not allowed.
pub(super) fn refused(loss: &str) -> String {
    format!("{loss}; if that is meant, write reload_guard = \"warn\" in [runtime]")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;

    #[test]
    fn what_waits_for_a_restart_is_news_once() {
        let strings = |keys: &[&str]| keys.iter().map(ToString::to_string).collect();
        let is_kept = |after_rejection, awaited: &[&str], needs_restart: &[&str]| {
            let past = Past {
                after_rejection,
                needs_restart: strings(awaited),
            };
            past.is_kept_by(&Plan {
                needs_restart: strings(needs_restart),
                ..Plan::default()
            })
        };
        assert!(is_kept(false, &[], &[]));
        assert!(!is_kept(true, &[], &[]));
        assert!(!is_kept(false, &[], &["log.format"]));
        assert!(is_kept(false, &["log.format"], &["log.format"]));
        // The file says again what runs, and a reload has that known.
        assert!(!is_kept(false, &["log.format"], &[]));
    }

    #[test]
    fn what_is_only_written_otherwise_is_no_edit() {
        let file = |runtime: &str, idle: &str, weight: u32| {
            format!(
                "runtime.drain_timeout = \"{runtime}\"\nlog.level = \"info\"\n\
                 [[service]]\nname = \"web\"\nlisten = \"[::]:80\"\ntimeouts.idle = \"{idle}\"\n\
                 [[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\nweight = {weight}\n"
            )
        };
        let told = |old: &str, new: &str| -> Vec<String> {
            let [was, is] = [old, new].map(|text| compile(text, "f").unwrap().config);
            let edits = edits(&Plan::between(&was, &is), old, new).into_iter();
            edits.map(|it| it.key).collect()
        };
        let old = file("60s", "60s", 1);
        assert_eq!(told(&old, &file("1m", "1m", 1)), [""; 0]);
        assert_eq!(told(&old, &file("1m", "60s", 2)), ["weight"]);
        assert_eq!(told(&old, &file("2m", "1m", 1)), ["runtime.drain_timeout"]);
        let restart = old.replace("log.level = \"info\"", "log.format = \"json\"");
        assert_eq!(told(&old, &restart), ["log.format"]);
    }
}
