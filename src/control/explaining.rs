//! Which backend a client gets, and why not each other one: answered by the table that serves, with the
//! load that there is, and without a session being counted.

mod entry;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use super::inspect::why_spared;
use super::running::Running;
use crate::admission::Rule;
use crate::api;
use crate::config::ServiceConfig;
use crate::forecast::{Table, Tried, entropy};
use crate::health::Seat;
use crate::model::{Address, ClientAddr, counted};
use crate::pool::Snapshot;
use crate::strategy::{Basis, Candidate, Flow};

/// Connections that are tried in thought, where not every one goes to the same backend.
const TRIALS: u64 = 1000;

/// What is known of one service, taken from what runs.
#[derive(Debug)]
pub(super) struct Case {
    config: ServiceConfig,
    view: Arc<api::View>,
    /// Which of its services.
    at: usize,
    /// Where the last decision has put each backend.
    seats: Vec<Seat>,
    /// Whom it has serve.
    candidates: Vec<Candidate>,
    snapshot: Arc<Snapshot>,
    /// Whose turn it is.
    next: u64,
    /// Why nobody is let in before a session ends, if that is so.
    full: Option<String>,
}

impl Running {
    /// Everything that an explanation of the service at that place of `view` is made from; `full` is why the
    /// daemon lets nobody in.
    pub(super) fn case(
        &self,
        view: &Arc<api::View>,
        at: usize,
        full: Option<&str>,
    ) -> Option<Case> {
        let serving = self.services.0.get(view.services[at].name.as_str())?;
        let decision = serving.laid_out.as_ref();
        let own = serving.members.gate().is_full();
        Some(Case {
            config: serving.members.config().clone(),
            seats: decision.map(|it| it.seats.clone()).unwrap_or_default(),
            candidates: decision.map(|it| it.serving.clone()).unwrap_or_default(),
            snapshot: serving.service.snapshot_in_force(),
            next: serving.service.turn(),
            full: full.map(str::to_owned).or_else(|| {
                let most = own?;
                Some(format!(
                    "all {most} sessions of max_connections in [service.limits] are in use"
                ))
            }),
            view: Arc::clone(view),
            at,
        })
    }
}

impl Case {
    /// How the service stands.
    fn view(&self) -> &api::Service {
        &self.view.services[self.at]
    }

    /// What becomes of `client`.
    pub(super) fn explain(self, client: IpAddr) -> api::Explained {
        let client = client.to_canonical();
        let basis = self.config.strategy.goes_by;
        let parameters = &self.config.parameters;
        // Neither turn nor chance counts then.
        let always = basis == Basis::Source && parameters.max_load.is_none();
        let trials = if always { 1 } else { TRIALS };
        let flow = |at: u64| Flow {
            source: ClientAddr::new(SocketAddr::new(client, 0)),
            sequence: self.next.wrapping_add(at),
            entropy: entropy(at),
        };
        let mut counts: HashMap<&str, u64> = HashMap::new();
        for picked in (0..trials).filter_map(|at| self.snapshot.foretell(&flow(at))) {
            *counts.entry(&**picked.id().name()).or_default() += 1;
        }
        let chosen = self.snapshot.foretell(&flow(0));
        let entry = self.entry(client, Instant::now());
        if entry.refusal.is_some() {
            // Shares of a client that is not let in would be somebody else's.
            counts.clear();
        }
        let chosen = chosen.filter(|_| self.full.is_none() && entry.refusal.is_none());
        let home = chosen
            .filter(|_| basis == Basis::Source)
            .and_then(|_| self.home(client));
        // The rules decide before anybody is picked.
        let mut refused_by = entry.refusal.as_ref().map(|it| it.rule.name().to_owned());
        let mut why = match entry.refusal {
            Some(refusal) => format!("it is reset: {}", refusal.why),
            None => {
                let name = chosen.map(|it| &**it.id().name());
                self.verdict(name, home.as_deref())
            }
        };
        let mut chosen = chosen;
        if entry.is_stranger {
            let behind = match chosen {
                Some(backend) => format!("it would get {}", backend.id().name()),
                None => why,
            };
            why = format!(
                "it is reset: only proxies of accept_from may connect; for a client behind one, {behind}"
            );
            refused_by = Some(Rule::AcceptFrom.name().to_owned());
            chosen = None;
        }
        let name = chosen.map(|it| it.id().name().to_string());
        let backends = self
            .view()
            .backends
            .iter()
            .enumerate()
            .map(|(at, backend)| {
                let count = counts.get(&*backend.name).copied().unwrap_or(0);
                api::Chance {
                    backend: backend.name.clone(),
                    address: backend.address.clone(),
                    percent: count as f64 / trials as f64 * 100.0,
                    why: self.why(at, backend, name.as_deref(), home.as_deref()),
                }
            });
        api::Explained {
            service: self.view().name.clone(),
            strategy: self.view().strategy.clone(),
            seen_as: seen_as(client, basis, parameters.ipv6_prefix),
            address: chosen.map(|it| it.address().to_string()),
            always: always && name.is_some(),
            refused_by,
            why,
            notes: entry.notes,
            backends: backends.collect(),
            backend: name,
        }
    }

    /// Where the client would be if nobody else had a session.
    fn home(&self, client: IpAddr) -> Option<String> {
        let addresses = self.view().backends.iter().filter_map(|it| {
            let address = it.address.as_deref()?.parse::<Address>().ok()?;
            Some((it.name.as_str(), address))
        });
        let addresses: HashMap<_, _> = addresses.collect();
        let table = Table::new(&self.config, &self.candidates, |id| {
            let address = *addresses.get(&**id.name())?;
            Some(Tried {
                address,
                max_connections: None,
            })
        });
        let index = table.play(&[client], 1).first().copied().flatten()?;
        Some(table.backends()[index].id().name().to_string())
    }

    /// Why it is `chosen`.
    fn verdict(&self, chosen: Option<&str>, home: Option<&str>) -> String {
        if let Some(full) = &self.full {
            return format!("it waits to be accepted until a session ends: {full}");
        }
        let Some(chosen) = chosen else {
            let queue = &self.view().queue;
            return match &self.view().why {
                Some(why) if self.candidates.is_empty() => {
                    format!("nobody can take it now: {why}")
                }
                _ if queue.waiting >= queue.size => {
                    format!(
                        "it is reset, queue full: all that may serve are full, and {} of {} places \
                         in the queue are taken",
                        queue.waiting, queue.size
                    )
                }
                _ => "nobody can take it now: all that may serve are full, and it would wait"
                    .to_owned(),
            };
        };
        match (self.config.strategy.goes_by, home) {
            (Basis::Source, Some(home)) if home != chosen => {
                format!(
                    "its home {home} is full or above max_load, and {chosen} is its next choice"
                )
            }
            (Basis::Source, _) => "the hash of its address is at home there".to_owned(),
            (Basis::Turn, _) => "it would be its turn next".to_owned(),
            (Basis::Load, _) => "as the load is now, it would be picked next".to_owned(),
        }
    }

    /// Why a backend gets the client, or why not.
    fn why(
        &self,
        at: usize,
        backend: &api::Backend,
        chosen: Option<&str>,
        home: Option<&str>,
    ) -> String {
        let is_chosen = chosen == Some(&*backend.name);
        let unless_well = backend.why.clone();
        if !backend.serving && !is_chosen {
            let why = why_spared(self.seats.get(at).copied(), backend.priority)
                .or(unless_well)
                .unwrap_or_else(|| "does not serve".to_owned());
            let since = backend
                .since
                .as_deref()
                .filter(|_| backend.state == api::State::Down);
            return match since {
                Some(since) => format!("{why}, since {since}"),
                None => why,
            };
        }
        let sessions = backend.traffic.sessions;
        let is_full = backend
            .max_connections
            .is_some_and(|most| sessions >= u64::from(most));
        let is_home = home == Some(&*backend.name);
        if !is_chosen && !is_home && (is_full || chosen.is_none()) {
            return unless_well.unwrap_or_else(|| match is_full {
                true => "full: as many sessions as it may have".to_owned(),
                false => "may serve".to_owned(),
            });
        }
        let mut why = match (self.config.strategy.goes_by, is_chosen) {
            (Basis::Source, true) => match home {
                Some(home) if home != backend.name => "the next choice of this address".to_owned(),
                _ => "the home of this address".to_owned(),
            },
            (Basis::Source, false) => match home == Some(&*backend.name) {
                true => "the home of this address, which has no room".to_owned(),
                false => "serves, and is the home of other addresses".to_owned(),
            },
            (Basis::Turn, true) => "its turn is next".to_owned(),
            (Basis::Turn, false) => "serves, and its turn comes later".to_owned(),
            (Basis::Load, true) => format!(
                "has {} at weight {}",
                counted(sessions, "session"),
                backend.told_weight()
            ),
            (Basis::Load, false) => format!(
                "serves, and has {} at weight {}",
                counted(sessions, "session"),
                backend.told_weight()
            ),
        };
        if let Some(besides) = unless_well {
            why = format!("{why}; {besides}");
        }
        why
    }
}

/// The address as the strategy looks at it.
fn seen_as(client: IpAddr, basis: Basis, prefix: u8) -> String {
    match client {
        IpAddr::V6(ip) if basis == Basis::Source => {
            let ignored = 128 - u32::from(prefix.min(128));
            let mask = u128::MAX.checked_shl(ignored).unwrap_or(0);
            format!("{}/{prefix}", Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => client.to_string(),
    }
}
