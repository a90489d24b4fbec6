//! The gate of a service: what its rules of admission count, over all workers and over reloads.
//!
//! [`Gate`] is what is counted, [`Admission`] the rules of one snapshot that count there. Sources are in a
//! [`table`] of their own.

mod table;

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub use self::table::Counted;
use self::table::SourceTable;
use super::Permits;
use super::clock::{instant, moment};
use super::limiter::Limiter;
use crate::admission::{Foreseen, Rate, Rule, Source, SourceRules};
use crate::config::{AcceptHeader, AccessConfig, AdmissionConfig, Limited, ProxyConfig};

/// So many refusals a second have a line of their own, of each service: a flood must not fill a disk.
const LINES: u32 = 10;

/// What is counted of a service whose clients are not all let in.
#[derive(Debug)]
pub struct Gate {
    /// Room for the sessions of all services, …
    all: &'static Permits,
    /// … and for those of this one within it.
    permits: OnceLock<&'static Permits>,
    /// There is a limit to those, …
    holds: AtomicBool,
    /// … and who runs already was not counted yet.
    fresh: AtomicBool,
    limiter: Limiter,
    lines: Limiter,
    refused: [AtomicU64; Rule::ALL.len()],
    /// When the last of them was, on the [`clock`](super::clock).
    last_refused: [AtomicU64; Rule::ALL.len()],
    dry: [AtomicU64; Rule::ALL.len()],
    uncounted: AtomicU64,
    hushed: AtomicU64,
    /// Control puts it there when a snapshot is built.
    table: Mutex<Option<Arc<SourceTable>>>,
}

/// What a gate has counted so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GateSum {
    /// Clients that were refused, by rule in the order of [`Rule::ALL`].
    pub refused: [u64; Rule::ALL.len()],
    /// When the last of them was.
    pub last_refused: [Option<Instant>; Rule::ALL.len()],
    /// Clients that would have been, but for `dry_run`.
    pub dry: [u64; Rule::ALL.len()],
    /// Clients whose source had no place in the table.
    pub uncounted: u64,
    /// Refusals without a line of their own.
    pub hushed: u64,
}

impl Gate {
    /// Nothing is counted yet, of a service whose sessions are some of `all`.
    pub fn new(all: &'static Permits) -> Arc<Self> {
        Arc::new(Self {
            all,
            permits: OnceLock::new(),
            holds: AtomicBool::new(false),
            fresh: AtomicBool::new(false),
            limiter: Limiter::default(),
            lines: Limiter::default(),
            refused: Default::default(),
            last_refused: Default::default(),
            dry: Default::default(),
            uncounted: AtomicU64::new(0),
            hushed: AtomicU64::new(0),
            table: Mutex::default(),
        })
    }

    /// Room for the service's sessions, as `limit` has it from now on.
    pub fn hold(&self, limit: Option<Limited<u32>>) {
        let enforced = limit.filter(|limit| !limit.dry).map(|limit| limit.most);
        let room = enforced.map_or(usize::MAX, |most| most as usize);
        if limit.is_some() || self.permits.get().is_some() {
            self.permits
                .get_or_init(|| Permits::within(self.all, room))
                .set_limit(room);
        }
        let held = self.holds.swap(limit.is_some(), Ordering::Relaxed);
        if limit.is_some() && !held {
            self.fresh.store(true, Ordering::Relaxed);
        }
    }

    /// What those who run already are to be counted by, once after each time that there was no limit.
    pub fn begin_count(&self) -> Option<&'static Permits> {
        let is_fresh = self.fresh.swap(false, Ordering::Relaxed);
        self.permits.get().copied().filter(|_| is_fresh)
    }

    /// The limit that the service is at, if it is.
    pub fn is_full(&self) -> Option<usize> {
        let permits = self.permits.get()?;
        let limit = permits.limit();
        (permits.in_use() >= limit).then_some(limit)
    }

    /// What was counted.
    pub fn sum(&self) -> GateSum {
        let read = |counts: &[AtomicU64; Rule::ALL.len()]| {
            std::array::from_fn(|at| counts[at].load(Ordering::Relaxed))
        };
        GateSum {
            refused: read(&self.refused),
            last_refused: read(&self.last_refused).map(instant),
            dry: read(&self.dry),
            uncounted: self.uncounted.load(Ordering::Relaxed),
            hushed: self.hushed.load(Ordering::Relaxed),
        }
    }

    /// The sources that are counted, in so many places. A table of another size begins anew; who
    /// is counted in the old one leaves that.
    fn table(&self, places: usize) -> Arc<SourceTable> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        match &*table {
            Some(table) if table.places == places => Arc::clone(table),
            Some(_) | None => Arc::clone(table.insert(SourceTable::new(places))),
        }
    }
}

/// What it took to accept a client.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    /// Nothing.
    Free,
    /// A turn by this rate.
    Paid(Rate),
    /// It was too early, and that is only counted.
    TooEarly,
}

/// The rules of admission of a snapshot, and the gate that counts for them.
#[derive(Debug)]
pub struct Admission {
    /// Clients come with a header, if anything.
    pub accept: Option<Arc<AcceptHeader>>,
    access: Option<AccessConfig>,
    max_connections: Option<Limited<u32>>,
    accept_rate: Option<Limited<Rate>>,
    source: SourceRules,
    ipv6_prefix: u8,
    table: Option<Arc<SourceTable>>,
    gate: Arc<Gate>,
}

impl Admission {
    /// What `config` and `proxy` ask of clients, if anything.
    pub fn new(
        config: &AdmissionConfig,
        proxy: &ProxyConfig,
        gate: &Arc<Gate>,
    ) -> Option<Arc<Self>> {
        let limits = &config.limits;
        let counts = limits.source.most.is_some() || limits.source.rate.is_some();
        let admission = Self {
            accept: proxy.accept.clone(),
            access: config.access.clone(),
            max_connections: limits.max_connections,
            accept_rate: limits.accept_rate,
            source: limits.source,
            ipv6_prefix: limits.source_ipv6_prefix,
            table: counts.then(|| gate.table(limits.sources as usize)),
            gate: Arc::clone(gate),
        };
        let asks = admission.accept.is_some()
            || admission.access.is_some()
            || admission.max_connections.is_some()
            || admission.accept_rate.is_some()
            || counts;
        asks.then(|| Arc::new(admission))
    }

    /// Whose permits the clients of this service take, if not those that all take.
    pub fn permits(&self) -> Option<&'static Permits> {
        self.max_connections?;
        self.gate.permits.get().copied()
    }

    /// Takes the next turn to accept a client.
    ///
    /// # Errors
    /// When it is too soon: by how much.
    pub fn take_turn(&self, now: Instant) -> Result<Turn, Duration> {
        self.gate.limiter.take_turn(self.accept_rate, now)
    }

    /// Nobody was there.
    pub fn give_back(&self, turn: Turn) {
        if let Turn::Paid(rate) = turn {
            self.gate.limiter.refund(rate);
        }
    }

    /// A client was accepted.
    pub fn accepted(&self, turn: Turn) {
        let count = |rule: Rule| self.gate.dry[rule as usize].fetch_add(1, Ordering::Relaxed);
        if matches!(turn, Turn::TooEarly) {
            count(Rule::AcceptRate);
        }
        if let Some(Limited { most, dry: true }) = self.max_connections
            && self.permits().is_some_and(|it| it.in_use() > most as usize)
        {
            count(Rule::MaxConnections);
        }
    }

    /// Whether the client at `ip` may come in, and what counts it while it is there.
    ///
    /// # Errors
    /// The rule that it may not by.
    pub fn admit(&self, ip: IpAddr, now: Instant) -> Result<Option<Counted>, Rule> {
        if let Some(access) = &self.access
            && !access.rules.admits(ip)
        {
            self.over(Rule::Access, access.dry_run)?;
        }
        let Some(table) = &self.table else {
            return Ok(None);
        };
        let source = Source::of(ip, self.ipv6_prefix);
        let (entered, counted) = table.enter(source, &self.source, now);
        if entered.too_many {
            self.over(Rule::MaxPerSource, self.source.most_is_dry)?;
        }
        if entered.too_often {
            self.over(Rule::RatePerSource, self.source.rate_is_dry)?;
        }
        if !entered.counted {
            self.gate.uncounted.fetch_add(1, Ordering::Relaxed);
        }
        Ok(counted)
    }

    /// What the sources of this service say of the next client at `ip`, if they are counted; it is not, by
    /// this.
    pub fn foresee(&self, ip: IpAddr, now: Instant) -> Option<Foreseen> {
        let source = Source::of(ip, self.ipv6_prefix);
        Some(self.table.as_ref()?.foresee(source, &self.source, now))
    }

    fn over(&self, rule: Rule, dry: bool) -> Result<(), Rule> {
        if !dry {
            return Err(rule);
        }
        self.gate.dry[rule as usize].fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Counts a client that is refused by `rule`, and tells whether that deserves a line of its own.
    pub fn refuse(&self, rule: Rule, now: Instant) -> bool {
        self.gate.refused[rule as usize].fetch_add(1, Ordering::Relaxed);
        self.gate.last_refused[rule as usize].store(moment(now), Ordering::Relaxed);
        let loud = Rate::a_second(LINES);
        let told = self.gate.lines.spend(loud, now).is_ok();
        if !told {
            self.gate.hushed.fetch_add(1, Ordering::Relaxed);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;

    use super::*;
    use crate::config::LimitsConfig;

    fn admission(limits: LimitsConfig, gate: &Arc<Gate>) -> Arc<Admission> {
        let config = AdmissionConfig {
            access: None,
            limits,
        };
        Admission::new(&config, &ProxyConfig::default(), gate).unwrap()
    }

    fn most_per_source(most: u32) -> LimitsConfig {
        LimitsConfig {
            source: SourceRules {
                most: NonZeroU32::new(most),
                ..SourceRules::default()
            },
            ..LimitsConfig::default()
        }
    }

    const IP: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    #[test]
    fn without_a_rule_there_is_nothing_to_ask() {
        let (config, proxy) = (AdmissionConfig::default(), ProxyConfig::default());
        assert!(Admission::new(&config, &proxy, &Gate::new(Permits::new(100))).is_none());
    }

    #[test]
    fn counts_outlive_the_rules_that_they_were_counted_by() {
        let gate = Gate::new(Permits::new(100));
        let now = Instant::now();
        let old = admission(most_per_source(2), &gate);
        let held: Vec<_> = (0..2)
            .map(|_| old.admit(IP, now).unwrap().unwrap())
            .collect();
        let new = admission(most_per_source(3), &gate);
        let third = new.admit(IP, now).unwrap();
        assert_eq!(new.admit(IP, now).unwrap_err(), Rule::MaxPerSource);
        drop(held);
        drop(third);
        assert!((0..3).all(|_| new.admit(IP, now).map(std::mem::forget).is_ok()));
        assert!(new.admit(IP, now).is_err());
    }

    #[test]
    fn threads_that_race_never_pass_the_limit_of_a_source_and_leave_nothing() {
        let gate = Gate::new(Permits::new(100));
        let admission = admission(most_per_source(3), &gate);
        let here = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Ok(counted) = admission.admit(IP, Instant::now()) {
                            assert!(here.fetch_add(1, Ordering::SeqCst) < 3);
                            here.fetch_sub(1, Ordering::SeqCst);
                            drop(counted);
                        }
                    }
                });
            }
        });
        let table = gate.table(admission.table.as_ref().unwrap().places);
        assert!(table.is_empty());
    }

    #[test]
    fn of_a_flood_of_refusals_a_few_have_a_line() {
        let gate = Gate::new(Permits::new(100));
        let admission = admission(most_per_source(1), &gate);
        let now = Instant::now();
        let told = (0..1000).filter(|_| admission.refuse(Rule::MaxPerSource, now));
        assert_eq!(told.count(), LINES as usize);
        let sum = gate.sum();
        assert_eq!(sum.refused[Rule::MaxPerSource as usize], 1000);
        assert_eq!(sum.hushed, 1000 - u64::from(LINES));
    }
}
