//! A backend as a pick sees it: who it is, how loaded it is, whether it is down.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::{Address, Portion, Tally, TallySum};

/// Who a backend is: its service's name and its own. Counters and administrative state belong to
/// this identity and survive a reload; displayed as `service/backend`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId {
    service: Arc<str>,
    name: Arc<str>,
}

impl BackendId {
    /// The identity of backend `name` in `service`.
    pub fn new(service: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self {
            service: service.into(),
            name: name.into(),
        }
    }

    /// The service's name.
    pub fn service(&self) -> &Arc<str> {
        &self.service
    }

    /// The backend's own name, unique within its service.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.name)
    }
}

/// One backend of a snapshot: immutable facts, and two shared cells that outlive the snapshot.
#[derive(Debug)]
pub struct Backend {
    id: BackendId,
    address: Address,
    weight: u32,
    capped: bool,
    mark: u32,
    portion: Portion,
    regardless: bool,
    load: Arc<Load>,
    down: Arc<DownFlag>,
}

impl Backend {
    /// A backend that weighs `weight` (at least 1) and shares `load` and `down` with whoever else
    /// holds them.
    pub fn new(
        id: BackendId,
        address: impl Into<Address>,
        weight: u32,
        load: Arc<Load>,
        down: Arc<DownFlag>,
    ) -> Self {
        Self {
            id,
            address: address.into(),
            weight: weight.max(1),
            capped: false,
            mark: 0,
            portion: Portion::FULL,
            regardless: false,
            load,
            down,
        }
    }

    /// The same, told whether it takes only so many sessions. How many is the [`Load`]'s to know:
    /// picks of a backend without a cap need not look there.
    #[must_use]
    pub fn capped(self, capped: bool) -> Self {
        Self { capped, ..self }
    }

    /// The same, marked with the number by which its sessions are found.
    #[must_use]
    pub fn marked(self, mark: u32) -> Self {
        Self { mark, ..self }
    }

    /// The same, with only so much of its weight to count.
    #[must_use]
    pub fn with_portion(self, portion: Portion) -> Self {
        Self { portion, ..self }
    }

    /// The same, to be picked whatever is known of its health: nobody is up, and it is to be tried.
    #[must_use]
    pub fn regardless(self) -> Self {
        Self {
            regardless: true,
            ..self
        }
    }

    /// Service and name.
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// Where sessions to it connect.
    pub fn address(&self) -> Address {
        self.address
    }

    /// Configured weight, at least 1.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// How much of it counts now.
    pub fn portion(&self) -> Portion {
        self.portion
    }

    /// What counts of the weight, in thousandths.
    pub fn effective_weight(&self) -> u64 {
        self.portion.of_weight(self.weight)
    }

    /// Sessions that were counted towards it and have not ended, connecting ones included.
    pub fn in_flight(&self) -> u32 {
        self.load.in_flight()
    }

    /// Whether it has a cap.
    pub fn is_capped(&self) -> bool {
        self.capped
    }

    /// Whether it takes no further session for now. A pick passes over such a backend.
    pub fn is_full(&self) -> bool {
        self.capped && self.load.is_full()
    }

    /// The number of this name at this address, by which its sessions are found: another address
    /// is another number. 0 is nobody's.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// How loaded a pick should take it to be, in thousandths of a session: those in flight, and for
    /// every unit of effective weight as many more as its recent failures are worth. See
    /// [`Load::penalise`].
    pub fn pressure(&self) -> u64 {
        let phantom = u64::from(self.load.penalty()) * self.effective_weight();
        Portion::FULL.of_weight(self.load.in_flight()) + phantom
    }

    /// Whether its last known health is down, or its sessions' failures keep it out. A pick skips
    /// such a backend before the table that lacks it is built.
    pub fn is_down(&self) -> bool {
        !self.regardless && (self.down.is_set() || self.load.is_ejected())
    }

    /// The counters it shares with its earlier and later selves.
    pub fn load(&self) -> &Arc<Load> {
        &self.load
    }
}

/// The down flag of one (address, check): set by control, read by every pick.
#[derive(Debug, Default)]
pub struct DownFlag(AtomicBool);

impl DownFlag {
    /// Whether picks skip the backend.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Written by the control thread only.
    pub fn set(&self, down: bool) {
        self.0.store(down, Ordering::Relaxed);
    }
}

/// The counters of one backend identity. `in_flight` is the one that workers write for every
/// session, so it has a cache line that no other backend shares; the tallies are kept per worker
/// and summed by whoever asks.
#[derive(Debug)]
#[repr(align(64))]
pub struct Load {
    in_flight: AtomicU32,
    cap: AtomicU32,
    penalty: AtomicU32,
    ejected: AtomicBool,
    tallies: Box<[Tally]>,
    freed: Option<Arc<dyn Freed>>,
}

/// Told when a session has left a backend that has a cap: whoever waits for its place. The queue
/// itself lives in `pool`, which this room cannot name.
pub trait Freed: fmt::Debug + Send + Sync {
    /// There may be room.
    fn freed(&self);
}

impl Load {
    /// Counters at zero, with a tally for each of `workers`.
    pub fn new(workers: usize) -> Self {
        Self {
            in_flight: AtomicU32::new(0),
            cap: AtomicU32::new(Self::UNCAPPED),
            penalty: AtomicU32::new(0),
            ejected: AtomicBool::new(false),
            tallies: (0..workers.max(1)).map(|_| Tally::default()).collect(),
            freed: None,
        }
    }

    /// The same, with somebody to tell when there is room.
    #[must_use]
    pub fn telling(self, freed: Arc<dyn Freed>) -> Self {
        Self {
            freed: Some(freed),
            ..self
        }
    }

    /// The cap of a backend without one.
    const UNCAPPED: u32 = u32::MAX;

    /// The highest penalty: a failing backend looks as loaded as one that holds this many sessions
    /// for every unit of its weight.
    const HARSHEST: u32 = 1 << 14;

    /// Sessions counted and not ended.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one session, if there is room for it; tells whether. Only a lease may call this, and
    /// takes it back on drop.
    pub fn enter(&self) -> bool {
        let cap = self.cap.load(Ordering::Relaxed);
        if cap == Self::UNCAPPED {
            self.in_flight.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // Compared before it is counted: an overshoot that is taken back would keep others out.
        let room = |sessions| (sessions < cap).then_some(sessions + 1);
        let counted = self
            .in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, room);
        counted.is_ok()
    }

    /// Takes one session back, and lets those know who wait for its place.
    pub fn leave(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        debug_assert!(before > 0, "more sessions left than entered");
        // Looked at when the session leaves, not when it came: the cap may be newer than it.
        if self.cap.load(Ordering::SeqCst) != Self::UNCAPPED
            && let Some(waiting) = &self.freed
        {
            waiting.freed();
        }
    }

    /// The most sessions at a time, if there is such a limit.
    pub fn cap(&self) -> Option<u32> {
        Some(self.cap.load(Ordering::Relaxed)).filter(|&cap| cap != Self::UNCAPPED)
    }

    /// Sets the most sessions at a time. Sessions above a lower cap live on; none is added until it
    /// is met. Only control calls this, and has the queue served afterwards.
    pub fn set_cap(&self, cap: Option<u32>) {
        self.cap
            .store(cap.unwrap_or(Self::UNCAPPED), Ordering::SeqCst);
    }

    fn is_full(&self) -> bool {
        // In one order with a session that leaves and then looks whether somebody waits.
        self.in_flight.load(Ordering::SeqCst) >= self.cap.load(Ordering::SeqCst)
    }

    /// Whether its sessions' failures keep it out, whatever its probes say.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// Written by the control thread only.
    pub fn set_ejected(&self, ejected: bool) {
        self.ejected.store(ejected, Ordering::Relaxed);
    }

    /// Sessions per unit of weight that recent failures are worth.
    fn penalty(&self) -> u32 {
        self.penalty.load(Ordering::Relaxed)
    }

    /// The backend failed a session: it could not be connected to, or it hung up before its first
    /// byte.
    ///
    /// A session that fails at once leaves nothing in flight, so a broken backend would look idle
    /// and draw everything. Each failure therefore doubles a penalty that picks count as load: a
    /// few failures outweigh any number of real sessions elsewhere, and if all backends fail alike
    /// the penalties cancel out. Written on failure only, so the ordinary session pays nothing.
    pub fn penalise(&self) {
        self.change_penalty(|penalty| (penalty * 2).clamp(1, Self::HARSHEST));
    }

    /// The backend did well: a session brought bytes from it, or a probe found it alive. Quarters
    /// the penalty.
    ///
    /// Probes give the decay its clock. A backend that goes on failing is tried again about twice
    /// per probe interval; one that recovered is forgiven within eight.
    pub fn relent(&self) {
        if self.penalty() != 0 {
            self.change_penalty(|penalty| penalty / 4);
        }
    }

    /// Forgets every failure: a probe brought the backend back up.
    pub fn forgive(&self) {
        if self.penalty() != 0 {
            self.penalty.store(0, Ordering::Relaxed);
        }
    }

    fn change_penalty(&self, change: impl Fn(u32) -> u32) {
        // A lost race is a lost doubling or a lost decay; another failure or probe makes up for it.
        let before = self.penalty.load(Ordering::Relaxed);
        self.penalty.store(change(before), Ordering::Relaxed);
    }

    /// The counters of one worker, which alone writes them.
    pub fn tally(&self, worker: usize) -> &Tally {
        &self.tallies[worker % self.tallies.len()]
    }

    /// All workers' counters summed.
    pub fn sum(&self) -> TallySum {
        let mut sum = TallySum::default();
        for tally in &self.tallies {
            tally.add_to(&mut sum);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(weight: u32) -> Backend {
        Backend::new(
            BackendId::new("web", "app-1"),
            "192.0.2.1:80".parse::<Address>().unwrap(),
            weight,
            Arc::new(Load::new(1)),
            Arc::new(DownFlag::default()),
        )
    }

    #[test]
    fn pressure_is_the_sessions_in_flight_while_nothing_fails() {
        let backend = backend(3);
        backend.load().enter();
        backend.load().enter();
        assert_eq!(backend.pressure(), 2_000);
    }

    #[test]
    fn a_cap_is_never_passed_and_one_that_is_lowered_lets_nobody_in_until_it_is_met() {
        let load = Load::new(1);
        load.set_cap(Some(2));
        assert!(load.enter() && load.enter());
        assert!(!load.enter());
        load.set_cap(Some(1));
        load.leave();
        assert!(!load.enter());
        load.leave();
        assert!(load.enter());
        load.set_cap(None);
        assert!(load.enter());
        assert_eq!(load.in_flight(), 2);
    }

    #[test]
    fn only_a_backend_that_is_told_so_has_a_cap() {
        let load = Arc::new(Load::new(1));
        load.set_cap(Some(0));
        let flag = Arc::new(DownFlag::default());
        let id = BackendId::new("web", "app-1");
        let address: Address = "192.0.2.1:80".parse().unwrap();
        let backend = Backend::new(id, address, 1, load, flag);
        assert!(!backend.is_full());
        assert!(backend.capped(true).is_full());
    }

    #[test]
    fn failures_double_the_penalty_up_to_a_bound() {
        let backend = backend(3);
        backend.load().penalise();
        assert_eq!(backend.pressure(), 3_000);
        backend.load().penalise();
        backend.load().penalise();
        assert_eq!(backend.load().penalty(), 4);
        for _ in 0..100 {
            backend.load().penalise();
        }
        assert_eq!(backend.load().penalty(), Load::HARSHEST);
    }

    #[test]
    fn eight_good_probes_forgive_the_harshest_penalty() {
        let load = Load::new(1);
        for _ in 0..100 {
            load.penalise();
        }
        for _ in 0..8 {
            assert_ne!(load.penalty(), 0);
            load.relent();
        }
        assert_eq!(load.penalty(), 0);
    }

    #[test]
    fn a_backend_that_came_back_up_starts_without_penalty() {
        let load = Load::new(1);
        load.penalise();
        load.forgive();
        assert_eq!(load.penalty(), 0);
    }
}
