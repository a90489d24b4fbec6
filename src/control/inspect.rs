//! How everything stands, written down for operators. Reads what control holds and changes nothing;
//! a look at ten thousand backends takes a few milliseconds.

mod counted;

pub(super) use self::counted::refusals;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::cases::Cases;
use super::prepare::List;
use super::running::Running;
use super::services::{Member, Serving};
use super::targets::Target;
use crate::api;
use crate::config::{Config, Occasion};
use crate::health::{self, AdminView, Agent, Duty, FailBack, Seat, State, Totals};
use crate::model::{LedgerSum, Portion};
use crate::net::BoundListener;

/// One moment, by both clocks: what is measured by the one is told by the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) now: Instant,
    wall: SystemTime,
}

impl Clock {
    /// Now.
    pub(super) fn now() -> Self {
        Self {
            now: Instant::now(),
            wall: SystemTime::now(),
        }
    }

    /// When `at` was, or will be.
    pub(super) fn tell(&self, at: Instant) -> String {
        let then = match at.checked_duration_since(self.now) {
            Some(ahead) => self.wall.checked_add(ahead),
            None => self.wall.checked_sub(self.now - at),
        };
        time(then.unwrap_or(UNIX_EPOCH))
    }

    /// When this was.
    pub(super) fn told(&self) -> String {
        time(self.wall)
    }
}

/// RFC 3339 with milliseconds, in UTC.
pub(super) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_millis(at).to_string()
}

/// Every service of the configuration in force, in its order; then what services have left behind that are not in
/// it any more.
pub(super) fn services(
    running: &Running,
    cases: &Cases,
    clock: &Clock,
) -> (Vec<api::Service>, api::Left) {
    let bound = running.listeners.of(&running.config);
    let mut left = running.left();
    let services = running.config.services.iter();
    let services = services
        .filter_map(|config| {
            let serving = running.services.0.get(&config.name)?;
            let its = bound
                .iter()
                .filter(|(_, way)| *way.service.name() == config.name);
            let sums = its.map(|(bound, way)| (*bound, way.ledger.sum()));
            let mut service = service(serving, sums.collect(), running, cases, clock);
            service.left = left.remove(&config.name).unwrap_or_default();
            service
                .left
                .named
                .sort_unstable_by(|a, b| a.name.cmp(&b.name));
            service.left.named.truncate(MOST_DEPARTED);
            service.traffic.sessions += service.left.sessions;
            Some(service)
        })
        .collect();
    let rest = left
        .into_values()
        .fold(api::Left::default(), |sum, it| api::Left {
            backends: sum.backends + it.backends,
            sessions: sum.sessions + it.sessions,
            named: Vec::new(),
        });
    (services, rest)
}

fn service(
    serving: &Serving,
    listeners: Vec<(&BoundListener, LedgerSum)>,
    running: &Running,
    cases: &Cases,
    clock: &Clock,
) -> api::Service {
    let members = &serving.members;
    let config = members.config();
    // A decision keeps the order of the members, so one pass pairs the two.
    let decision = serving.laid_out.as_ref();
    let mut chosen = decision
        .map(|it| it.serving.as_slice())
        .unwrap_or_default()
        .iter()
        .peekable();
    let regardless = decision.is_some_and(|it| it.regardless);
    let mut backends = Vec::with_capacity(members.configured());
    let mut traffic = api::Traffic::default();
    // Who is meant to serve and may not.
    let mut missing = 0_u32;
    // Who is not: by the file, or by an operator.
    let mut unmeant = 0_u32;
    let mut first = (u32::MAX, 0_usize, 0_usize);
    for (at, member) in members.each().enumerate() {
        let seat = chosen.next_if(|it| it.id == member.id);
        let view = member.view(&running.targets);
        let eligible = view.is_eligible();
        let portion = seat.filter(|_| eligible || regardless).map(|it| it.portion);
        let meant = is_meant(&view);
        missing += u32::from(meant && !eligible);
        unmeant += u32::from(!meant);
        if view.priority < first.0 {
            first = (view.priority, 0, 0);
        }
        if view.priority == first.0 {
            first.1 += 1;
            first.2 += usize::from(eligible);
        }
        let place = decision.and_then(|it| it.seats.get(at).copied());
        let backend = backend(member, &view, (place, portion), running, cases, clock);
        counted::add(&mut traffic, &backend.traffic);
        backends.push(backend);
    }
    let (_, in_first, eligible_in_first) = first;
    let alerted = alerted(serving, &running.config);
    let min_up = count(members.rules().min_up.of(in_first));
    let short = api::Service::shortfall(count(serving.eligible), min_up);
    let is_whole = missing == 0 && eligible_in_first > 0;
    let standing = match serving.eligible {
        0 => api::Standing::Down,
        _ if is_whole && alerted.is_none() && short.is_none() => api::Standing::Ok,
        _ => api::Standing::Degraded,
    };
    let why = why_of_service(standing, (missing, unmeant), serving, eligible_in_first);
    let short = short.filter(|_| standing != api::Standing::Down);
    let not_ready = short.map(|it| format!("not ready: {it}"));
    let whys: Vec<_> = why.into_iter().chain(not_ready).collect();
    let queue = serving.service.queue().sum();
    let gate = members.gate().sum();
    let size = if config
        .backends
        .iter()
        .any(|it| it.max_connections.is_some())
    {
        u64::from(config.queue.size)
    } else {
        0
    };
    api::Service {
        name: config.name.to_string(),
        standing,
        why: match whys.is_empty() {
            true => alerted,
            false => Some(whys.join("; ")),
        },
        strategy: config.strategy.name.to_owned(),
        listeners: listeners
            .iter()
            .map(|(bound, sum)| counted::listener(bound, sum))
            .collect(),
        eligible: count(serving.eligible),
        configured: count(members.configured()),
        min_up,
        full_at: members.gate().is_full().map(|it| it as u64),
        awaits_fail_back: members.rules().fail_back == FailBack::Manual && serving.holds_back(),
        stands_in: serving.stands_in.map(|(priority, since)| api::StandsIn {
            priority,
            since: clock.tell(since),
        }),
        queue: counted::queue(&queue, size),
        traffic,
        // Who has left is known of all services together.
        left: api::Left::default(),
        refusals: counted::refusals(&gate, clock),
        throttling: counted::throttling(&config.admission.limits.caps, &members.throttle().sum()),
        uncounted_sources_total: gate.uncounted,
        unserved: counted::unserved(&listeners, clock),
        failovers_total: serving.failovers.total,
        last_failover_seconds: serving.failovers.last.map(|it| it.as_secs_f64()),
        record: record(&running.memory.service_totals(&config.name, clock.now)),
        backends_file: running.lists.get(&config.name).map(backends_file),
        backends,
    }
}

fn backends_file(list: &List) -> api::BackendsFile {
    api::BackendsFile {
        path: list.path.display().to_string(),
        backends: count(list.backends.len()),
        rejected: list.rejected.map(|at| api::Rejection {
            at: time(at),
            problems: list.problems.to_vec(),
        }),
        missing: list.missing,
    }
}

fn why_of_service(
    standing: api::Standing,
    (missing, unmeant): (u32, u32),
    serving: &Serving,
    eligible_in_first: usize,
) -> Option<String> {
    match standing {
        api::Standing::Ok => None,
        api::Standing::Down => Some(match serving.members.rules().when_all_down {
            health::WhenAllDown::Refuse => "no backend may serve: clients are reset".to_owned(),
            health::WhenAllDown::UseAll => "no backend is up: all are used".to_owned(),
        }),
        api::Standing::Degraded if eligible_in_first == 0 => {
            Some("nobody of the first tier serves".to_owned())
        }
        // Whoever wants an alert of that says so.
        api::Standing::Degraded if missing == 0 => None,
        api::Standing::Degraded => Some(degraded(missing, unmeant, serving.members.configured())),
    }
}

/// That an alert tells of the service as degraded, although nobody may be missing who is meant to serve.
fn alerted(serving: &Serving, config: &Config) -> Option<String> {
    let standing = serving.standing();
    let mut alerts = config.alerts.iter();
    let alert = alerts.find(|it| {
        let tells = it.tells_of(Occasion::Degraded) && it.is_about(&standing.service);
        tells && standing.is_below(it.degraded_below)
    })?;
    let (eligible, configured) = (standing.eligible, standing.configured);
    let (name, percent) = (&alert.name, alert.degraded_below);
    Some(format!(
        "{eligible} of {configured} backends may serve, of which alert {name} tells: fewer than {percent} %"
    ))
}

/// How many are missing, and how many besides them do not serve because nobody wants them to.
fn degraded(missing: u32, unmeant: u32, configured: usize) -> String {
    let besides = match unmeant {
        0 => String::new(),
        1 => ", besides 1 that is not meant to".to_owned(),
        some => format!(", besides {some} that are not meant to"),
    };
    match (missing, configured) {
        (_, 1) => "the only backend does not serve".to_owned(),
        (1, _) => format!("1 of {configured} backends should serve and does not{besides}"),
        _ => format!("{missing} of {configured} backends should serve and do not{besides}"),
    }
}

/// Whether file and operator want it to serve.
fn is_meant(view: &health::Member<'_>) -> bool {
    view.enabled && view.admin.duty == Duty::Serve && view.admin.weight.get() > 0
}

fn backend(
    member: &Member,
    view: &health::Member<'_>,
    (place, portion): (Option<Seat>, Option<Portion>),
    running: &Running,
    cases: &Cases,
    clock: &Clock,
) -> api::Backend {
    let target = member.target.as_ref();
    let known = target.and_then(|id| running.targets.get(id));
    let against = known.map_or(0, Target::against);
    let ejected_until = match view.health.ejected {
        true => cases.ejected_until(&member.id),
        false => None,
    };
    let agent = view.health.agent;
    let address = target.map(|it| it.address.to_string());
    api::Backend {
        name: member.id.name().to_string(),
        address: address.clone(),
        state: match (view.health.state, against) {
            (State::Unknown, _) => api::State::Unknown,
            (State::Up, 0) => api::State::Up,
            (State::Up, _) => api::State::Failing,
            (State::Down, 0) => api::State::Down,
            (State::Down, _) => api::State::Recovering,
        },
        since: known.map(|it| clock.tell(it.turned().unwrap_or(it.since()))),
        serving: portion.is_some(),
        why: why(member, view, known, (place, portion.is_some())),
        weight: view.weight,
        effective_weight_thousandths: portion.map_or(0, |it| it.of_weight(view.weight)),
        priority: view.priority,
        enabled: view.enabled,
        max_connections: member.max_connections.map(|it| it.get()),
        ejected_until: ejected_until.map(|at| clock.tell(at)),
        suspect: known.is_some_and(|it| it.turn().suspect),
        agent: (agent != Agent::default()).then(|| agent.to_string()),
        admin: (view.admin != AdminView::default()).then(|| {
            let said = running.memory.said(&member.id);
            api::Admin {
                duty: view.admin.duty.to_string(),
                weight_percent: view.admin.weight.get(),
                since: said.since.map(time),
                by: said.by.map(|it| it.to_string()),
                deadline: said.until.map(time),
            }
        }),
        check: target.map(|id| {
            let turn = known.map(Target::turn);
            let (probes, failures) = known.map_or((0, 0), Target::probes);
            api::Check {
                kind: id.check.kind.name().to_owned(),
                // Mostly the same, and writing is the most that a look at a backend takes.
                address: match (address, id.probed_at == id.address) {
                    (Some(address), true) => address,
                    _ => id.probed_at.to_string(),
                },
                latency_seconds: known.and_then(|it| Some(it.latency()?.as_secs_f64())),
                usual_latency_seconds: turn
                    .map(|it| it.usual.as_secs_f64())
                    .filter(|usual| *usual > 0.0),
                against,
                needed: known.map_or(0, |it| it.needed(id)),
                last_failure: known.and_then(|it| Some(it.last_failure()?.to_string())),
                not_run: known.and_then(|it| Some(it.not_run()?.to_string())),
                probes_total: probes,
                failures_total: failures,
            }
        }),
        traffic: counted::traffic(&member.load.sum(), member.load.in_flight()),
        record: record(&running.memory.totals(&member.id, clock.now)),
    }
}

/// What keeps a backend from serving, the gravest first, or what speaks against it.
fn why(
    member: &Member,
    view: &health::Member<'_>,
    known: Option<&Target>,
    (place, serving): (Option<Seat>, bool),
) -> Option<String> {
    let failed = || known.and_then(|it| Some(it.last_failure()?.to_string()));
    let because = |what: &str, why: Option<String>| match why {
        Some(why) => format!("{what}: {why}"),
        None => what.to_owned(),
    };
    let not_run = known.and_then(|it| Some(it.not_run()?.to_string()));
    let agent = view.health.agent;
    Some(match () {
        () if !view.resolved => "its name has no address".to_owned(),
        () if !view.enabled => "disabled in the file".to_owned(),
        () if view.admin.duty == Duty::Maintenance => "disabled by an operator".to_owned(),
        () if view.admin.duty == Duty::Drain => "drained by an operator".to_owned(),
        () if not_run.is_some() => because("its check cannot run", not_run),
        () if view.health.state == State::Down => because("its checks fail", failed()),
        () if view.health.ejected => "kept out: its sessions failed".to_owned(),
        () if view.admin.weight.get() == 0 => "given no weight by an operator".to_owned(),
        () if agent.duty != Duty::Serve || agent.weight.get() == 0 => {
            format!("its agent says {agent}")
        }
        () if !serving => {
            why_spared(place, view.priority).unwrap_or_else(|| "stands by".to_owned())
        }
        () if member
            .load
            .cap()
            .is_some_and(|cap| member.load.in_flight() >= cap) =>
        {
            "full: as many sessions as it may have".to_owned()
        }
        () if known.is_some_and(|it| it.against() > 0) => because("a check failed", failed()),
        () if known.is_some_and(|it| it.turn().suspect) => {
            "it answers slower than it used to".to_owned()
        }
        () => return None,
    })
}

/// Why one that might serve is not to, by where the last decision has put it.
pub(super) fn why_spared(place: Option<Seat>, priority: u32) -> Option<String> {
    match place {
        Some(Seat::StandsBy) => Some(format!("tier {priority} stands by: those before it serve")),
        Some(Seat::HeldBack) => {
            Some("is held back: a later tier stands in until it may stand down".to_owned())
        }
        Some(Seat::Serves | Seat::Out) | None => None,
    }
}

fn record(totals: &Totals) -> api::Record {
    api::Record {
        up_seconds: totals.up.as_secs_f64(),
        down_seconds: totals.down.as_secs_f64(),
        set_aside_seconds: totals.set_aside.as_secs_f64(),
        failures: totals.failures,
        recoveries: totals.recoveries,
        flaps: totals.flaps,
        mtbf_seconds: totals.mtbf().map(|it| it.as_secs_f64()),
        mttr_seconds: totals.mttr().map(|it| it.as_secs_f64()),
        availability: totals.availability(),
    }
}

/// A failover that is over.
pub(super) fn failover(failover: &health::Failover, clock: &Clock) -> api::Failover {
    let after = |moment| failover.after(moment).as_secs_f64();
    api::Failover {
        service: failover.backend.service().to_string(),
        backend: failover.backend.name().to_string(),
        address: failover.address.to_string(),
        why: failover.why.to_string(),
        evidence: failover.evidence.as_ref().map(ToString::to_string),
        last_success: failover.last_success.map(|at| clock.tell(at)),
        began: clock.tell(failover.began),
        first_evidence_seconds: after(failover.first_evidence),
        detected_seconds: after(failover.detected),
        moved_seconds: after(failover.moved),
        recovered_seconds: after(failover.recovered),
        sessions_hurt: failover.sessions_hurt,
        sessions_moved: failover.sessions_moved,
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Backends that have left which are told by name, for each service.
const MOST_DEPARTED: usize = 100;

#[cfg(test)]
mod tests {
    use super::degraded;

    #[test]
    fn whoever_counts_those_that_do_not_serve_finds_all_of_them_told() {
        assert_eq!(
            degraded(1, 0, 2),
            "1 of 2 backends should serve and does not"
        );
        assert_eq!(
            degraded(1, 1, 3),
            "1 of 3 backends should serve and does not, besides 1 that is not meant to"
        );
        assert_eq!(
            degraded(2, 2, 5),
            "2 of 5 backends should serve and do not, besides 2 that are not meant to"
        );
    }
}
