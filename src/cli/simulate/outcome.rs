//! The sessions played, and who got how many of them.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use crate::api::{Share, Shares, Without};
use crate::cli::figures::grouped;
use crate::config::ServiceConfig;
use crate::forecast::{Table, Tried};
use crate::health::{Decision, HealthView, Member, Roster, State};
use crate::model::{Address, BackendId};
use crate::strategy::Basis;

/// What the backends of a service get of these clients, and what when some are `missing`.
pub(super) fn shares(
    service: &ServiceConfig,
    missing: Option<&HashSet<Arc<str>>>,
    clients: &[IpAddr],
    at_once: usize,
) -> Shares {
    let all = Outcome::of(service, &HashSet::new(), clients, at_once);
    let fewer = missing.map(|missing| Outcome::of(service, missing, clients, at_once));
    let binds = service.strategy.goes_by == Basis::Source;
    let moved = fewer.as_ref().filter(|_| binds);
    let moved = moved.map(|fewer| all.table.moved(&all.played, &fewer.table, &fewer.played));
    let backends = service
        .backends
        .iter()
        .enumerate()
        .map(|(at, backend)| Share {
            backend: backend.name.to_string(),
            weight: backend.weight,
            priority: backend.priority,
            seat: all.seat(at),
            clients: all.counts[at],
            percent: percent(all.counts[at] as f64, clients.len() as f64),
            ideal_percent: all.ideal(at),
            without: fewer.as_ref().map(|fewer| Without {
                seat: fewer.seat(at),
                clients: fewer.counts[at],
                percent: percent(fewer.counts[at] as f64, clients.len() as f64),
                ideal_percent: fewer.ideal(at),
            }),
        });
    Shares {
        service: service.name.to_string(),
        strategy: service.strategy.name.to_owned(),
        basis: basis(service, at_once.min(clients.len())),
        backends: backends.collect(),
        unserved: all.unserved(),
        unserved_without: fewer.as_ref().map(Outcome::unserved),
        queue_size: match service
            .backends
            .iter()
            .any(|it| it.max_connections.is_some())
        {
            true => service.queue.size,
            false => 0,
        },
        queue_timeout_seconds: service.queue.timeout.as_secs_f64(),
        moved: moved.map(|it| it.moved),
        moved_needlessly: moved.map(|it| it.needlessly),
    }
}

/// What came of it.
struct Outcome {
    decision: Decision,
    table: Table,
    played: Vec<Option<usize>>,
    /// By the place of the backend in the file.
    counts: Vec<u64>,
    /// What counts of the weight of each that serves, by the same; 0 for the others.
    due: Vec<f64>,
}

impl Outcome {
    /// Everybody is up but the `missing`.
    fn of(
        service: &ServiceConfig,
        missing: &HashSet<Arc<str>>,
        clients: &[IpAddr],
        at_once: usize,
    ) -> Self {
        let id = |name: &Arc<str>| BackendId::new(Arc::clone(&service.name), Arc::clone(name));
        let ids: Vec<_> = service.backends.iter().map(|it| id(&it.name)).collect();
        let members = service
            .backends
            .iter()
            .zip(&ids)
            .map(|(backend, id)| Member {
                id,
                weight: backend.weight,
                priority: backend.priority,
                enabled: backend.enabled,
                // Where a name leads is for a daemon to find out; here it is one backend.
                resolved: true,
                admin: Default::default(),
                health: HealthView::of(match missing.contains(&backend.name) {
                    true => State::Down,
                    false => State::Up,
                }),
            });
        let members: Vec<_> = members.collect();
        let decision = Roster::default().decide(&service.serving, &members, Instant::now());
        let places: HashMap<_, usize> = ids.iter().zip(0..).collect();
        let table = Table::new(service, &decision.serving, |id| {
            let backend = &service.backends[*places.get(id)?];
            Some(Tried {
                address: backend.address.fixed().unwrap_or(NOWHERE),
                max_connections: backend.max_connections,
            })
        });
        let played = table.play(clients, at_once);
        let place = |index: usize| places.get(table.backends()[index].id()).copied();
        let mut counts = vec![0; ids.len()];
        for place in played.iter().flatten().filter_map(|&index| place(index)) {
            counts[place] += 1;
        }
        let mut due = vec![0.0; ids.len()];
        for (index, backend) in table.backends().iter().enumerate() {
            if let Some(place) = place(index) {
                due[place] = match service.strategy.weighted {
                    true => backend.effective_weight() as f64,
                    false => f64::from(backend.portion().thousandths()),
                };
            }
        }
        Self {
            decision,
            table,
            played,
            counts,
            due,
        }
    }

    fn seat(&self, at: usize) -> String {
        self.decision.seats[at].to_string()
    }

    fn ideal(&self, at: usize) -> f64 {
        percent(self.due[at], self.due.iter().sum())
    }

    fn unserved(&self) -> u64 {
        self.played.iter().filter(|it| it.is_none()).count() as u64
    }
}

/// `part` in percent of `whole`, to two digits.
pub(super) fn percent(part: f64, whole: f64) -> f64 {
    match whole > 0.0 {
        true => (part / whole * 10_000.0).round() / 100.0,
        false => 0.0,
    }
}

/// What the figures rest on, and how far they can be trusted.
fn basis(service: &ServiceConfig, at_once: usize) -> String {
    let capped = service
        .backends
        .iter()
        .any(|it| it.max_connections.is_some());
    let load = format!(
        "{} sessions at a time, all equally long",
        grouped(at_once as u64)
    );
    let mut text = match service.strategy.goes_by {
        Basis::Source if service.parameters.max_load.is_some() => {
            format!("by address, and max_load with {load}")
        }
        Basis::Source => "by address: exactly what these clients get".to_owned(),
        Basis::Turn => "by turns: only the shares say something, not who gets which".to_owned(),
        Basis::Load => format!("by load, with {load}: real shares depend on real sessions"),
    };
    if capped && service.strategy.goes_by != Basis::Load && service.parameters.max_load.is_none() {
        let _ = write!(text, "; max_connections with {load}");
    }
    let names = service
        .backends
        .iter()
        .filter(|it| it.address.fixed().is_none());
    if names.count() > 0 {
        text += "; a name counts as one backend, however many addresses it has";
    }
    text
}

/// Where a name leads, which is not known here.
const NOWHERE: Address = Address::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
