//! A service and the immutable table it serves from.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};

use super::{Admission, Lease, Queue, Throttle};
use crate::config::{Outgoing, QueueConfig, RelayMode, SendHeader, SessionLog, Timeouts};
use crate::model::{Backend, ClientAddr};
use crate::strategy::{Flow, Skip, Strategy};

/// Everything a session needs to know of its service, as of one moment. Immutable: a reload or a
/// health transition swaps in another one.
#[derive(Debug)]
pub struct Snapshot {
    /// Who may serve.
    pub backends: Vec<Arc<Backend>>,
    /// Built over `backends`, in their order.
    pub strategy: Box<dyn Strategy>,
    /// Whether any of them has a cap.
    pub capped: bool,
    /// Who waits while all are full.
    pub queue: QueueConfig,
    /// Who serves once all of those are down, until control has decided: so that nobody is refused in
    /// between.
    pub reserve: Option<Box<Reserve>>,
    /// What is asked of clients, if anything.
    pub admission: Option<Arc<Admission>>,
    /// How fast bytes may flow, if there is a limit.
    pub throttle: Option<Arc<Throttle>>,
    /// What backends are told of clients, if anything.
    pub send_header: Option<SendHeader>,
    /// How connections to backends are made, where that is not left to the kernel.
    pub outgoing: Option<Arc<Outgoing>>,
    /// Why nobody may serve, if that was so when the table was laid out.
    pub nobody: Option<Box<str>>,
    /// Limits on waiting.
    pub timeouts: Timeouts,
    /// The longest that a session may live.
    pub max_lifetime: Option<Duration>,
    /// Further backends to try when a connect fails.
    pub retries: u32,
    /// How bytes move.
    pub relay: RelayMode,
    /// Which sessions get a log line.
    pub session_log: SessionLog,
}

/// What a session finds at the backends of a snapshot.
#[derive(Debug)]
pub enum Placement {
    /// A place at the backend of this index.
    Taken(usize, Lease),
    /// Somebody may serve, and is full.
    Full,
    /// Nobody may serve.
    Nobody,
}

/// A pick whose place is taken before it can be is made again so often. Each time somebody else got
/// on; past that, the line is the place to be.
const RACES: usize = 8;

impl Snapshot {
    /// Why a client that was turned away found nobody.
    pub fn why_nobody(&self) -> &str {
        self.nobody
            .as_deref()
            .unwrap_or("the last has just gone down")
    }

    /// A backend for `flow` that is up, has room and is not in `skip`, with its index for the next
    /// `skip`.
    fn pick(&self, flow: &Flow, skip: &Skip) -> Option<(usize, &Arc<Backend>)> {
        match self.strategy.pick(flow, &self.backends, skip) {
            Some(index) => Some((index, self.backends.get(index)?)),
            None => self.pick_from_reserve(flow, skip),
        }
    }

    #[cold]
    fn pick_from_reserve(&self, flow: &Flow, skip: &Skip) -> Option<(usize, &Arc<Backend>)> {
        let reserve = self.reserve_in_use()?;
        // In a `skip`, the reserve comes behind those that serve.
        let first = self.backends.len();
        let skip = skip.beyond(first);
        let index = reserve.strategy.pick(flow, &reserve.backends, &skip)?;
        Some((first + index, reserve.backends.get(index)?))
    }

    /// The reserve, once those before it are all down. That all were tried, or are full, is not
    /// enough: whether a standby may serve is for their health to say.
    fn reserve_in_use(&self) -> Option<&Reserve> {
        let reserve = self.reserve.as_deref()?;
        let all_down = self.backends.iter().all(|backend| backend.is_down());
        all_down.then_some(reserve)
    }

    /// Who would be picked for `flow`, if it were the next to come. Nothing is counted for it.
    pub fn foretell(&self, flow: &Flow) -> Option<&Arc<Backend>> {
        self.pick(flow, &Skip::none()).map(|(_, backend)| backend)
    }

    /// Those that serve, and behind them the reserve, as a `skip` counts them.
    fn everybody(&self) -> impl Iterator<Item = &Arc<Backend>> {
        let reserve = self.reserve.iter().flat_map(|it| &it.backends);
        self.backends.iter().chain(reserve)
    }

    /// The backend that a pick has told by `index`.
    pub fn backend(&self, index: usize) -> Option<&Arc<Backend>> {
        match index.checked_sub(self.backends.len()) {
            None => self.backends.get(index),
            Some(behind) => self.reserve.as_deref()?.backends.get(behind),
        }
    }

    /// Picks a backend for `flow` and counts the session towards it, whoever may be waiting.
    pub(super) fn place(&self, flow: &Flow, skip: &Skip) -> Placement {
        for _ in 0..RACES {
            let Some((index, backend)) = self.pick(flow, skip) else {
                return match self.is_anyone_left(skip) {
                    true => Placement::Full,
                    false => Placement::Nobody,
                };
            };
            if let Some(lease) = Lease::try_acquire(backend) {
                return Placement::Taken(index, lease);
            }
        }
        Placement::Full
    }

    /// Whether one that was not picked, because it was full then, may serve.
    pub(super) fn is_anyone_left(&self, skip: &Skip) -> bool {
        let count = match self.reserve_in_use() {
            Some(reserve) => self.backends.len() + reserve.backends.len(),
            None => self.backends.len(),
        };
        let mut in_use = self.everybody().take(count).enumerate();
        in_use.any(|(index, backend)| !backend.is_down() && !skip.contains(index))
    }

    /// Those of `skip`, which is over `other`, that are in this snapshot too.
    pub(super) fn skip_of(&self, skip: &Skip, other: &Snapshot) -> Skip {
        let mut own = Skip::none();
        for tried in skip.iter().filter_map(|index| other.backend(index)) {
            let same = |it: &Arc<Backend>| it.id() == tried.id() && it.address() == tried.address();
            if let Some(index) = self.everybody().position(same) {
                own.insert(index);
            }
        }
        own
    }
}

/// Backends that serve when all before them are down.
#[derive(Debug)]
pub struct Reserve {
    /// Who may serve then.
    pub backends: Vec<Arc<Backend>>,
    /// Built over `backends`, in their order.
    pub strategy: Box<dyn Strategy>,
}

/// Listeners' common destination: a name, the current snapshot and the cursor. Outlives every
/// reload that keeps its name.
#[derive(Debug)]
pub struct Service {
    name: Arc<str>,
    snapshot: ArcSwap<Snapshot>,
    cursor: Cursor,
    queue: Arc<Queue>,
}

/// On a cache line of its own: all workers draw from it.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Cursor(AtomicU64);

impl Service {
    /// A service that serves from `snapshot`, and from now on the line in `queue`.
    pub fn new(name: Arc<str>, snapshot: Snapshot, queue: Arc<Queue>) -> Arc<Self> {
        let service = Arc::new(Self {
            name,
            snapshot: ArcSwap::from_pointee(snapshot),
            cursor: Cursor::default(),
            queue,
        });
        service.queue.lead_to(&service);
        service
    }

    /// Its name in the file.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The current snapshot. Costs no shared write; hold it for the picks of one session, not for
    /// its life.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The same, to hold on to.
    pub fn snapshot_in_force(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Swaps the snapshot, and has those who wait look at it. Only control calls this.
    pub fn swap(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.queue.serve();
    }

    /// A place for a session at a backend of `snapshot`, unless others wait for one already.
    pub fn place(&self, snapshot: &Snapshot, flow: &Flow, skip: &Skip) -> Placement {
        if snapshot.capped && self.queue.is_waited_in() {
            return Placement::Full;
        }
        snapshot.place(flow, skip)
    }

    /// Who waits for a place.
    pub fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// Whose turn it is: what the next session draws from the cursor.
    pub fn turn(&self) -> u64 {
        self.cursor.0.load(Ordering::Relaxed)
    }

    /// What a pick for a new session depends on. Draws from the cursor once; retries reuse it.
    pub fn flow(&self, source: ClientAddr, entropy: u64) -> Flow {
        Flow {
            source,
            sequence: self.cursor.0.fetch_add(1, Ordering::Relaxed),
            entropy,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::model::{BackendId, DownFlag, Load};
    use crate::pool::testing;
    use crate::strategy::Parameters;

    /// One backend that serves and one in reserve, with the flags that take them down.
    fn snapshot() -> (Snapshot, [Arc<DownFlag>; 2]) {
        let flags = [Arc::new(DownFlag::default()), Arc::new(DownFlag::default())];
        let line_up = |name: &str, flag: &Arc<DownFlag>| {
            let id = BackendId::new("web", name);
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 80));
            let (load, down) = (Arc::new(Load::new(1)), Arc::clone(flag));
            let backend = Arc::new(Backend::new(id, address, 1, load, down).capped(true));
            let queue = QueueConfig {
                size: 1,
                timeout: Duration::ZERO,
            };
            let parameters = Parameters::of(2);
            testing::snapshot("round-robin", &parameters, vec![backend], queue)
        };
        let behind = line_up("standby", &flags[1]);
        let snapshot = Snapshot {
            reserve: Some(Box::new(Reserve {
                backends: behind.backends,
                strategy: behind.strategy,
            })),
            ..line_up("active", &flags[0])
        };
        (snapshot, flags)
    }

    fn flow() -> Flow {
        Flow {
            source: ClientAddr::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
            sequence: 0,
            entropy: 0,
        }
    }

    fn picked(snapshot: &Snapshot, skip: &Skip) -> Option<String> {
        let (index, backend) = snapshot.pick(&flow(), skip)?;
        assert_eq!(snapshot.backend(index).unwrap().id(), backend.id());
        Some(backend.id().name().to_string())
    }

    #[test]
    fn the_reserve_serves_when_those_before_it_are_down_and_not_when_they_were_tried() {
        let (snapshot, [active, standby]) = snapshot();
        let none = Skip::none();
        assert_eq!(picked(&snapshot, &none).as_deref(), Some("active"));
        let mut tried = Skip::none();
        tried.insert(0);
        assert_eq!(picked(&snapshot, &tried), None);
        active.set(true);
        assert_eq!(picked(&snapshot, &none).as_deref(), Some("standby"));
        assert_eq!(picked(&snapshot, &tried).as_deref(), Some("standby"));
        tried.insert(1);
        assert_eq!(picked(&snapshot, &tried), None);
        standby.set(true);
        assert_eq!(picked(&snapshot, &none), None);
    }

    #[test]
    fn a_full_backend_is_waited_for_and_its_standby_does_not_serve() {
        let (snapshot, [active, _]) = snapshot();
        snapshot.backends[0].load().set_cap(Some(0));
        assert!(matches!(
            snapshot.place(&flow(), &Skip::none()),
            Placement::Full
        ));
        active.set(true);
        let seat = snapshot.place(&flow(), &Skip::none());
        assert!(matches!(seat, Placement::Taken(1, _)), "{seat:?}");
    }

    #[test]
    fn what_was_tried_is_known_in_the_next_table_too() {
        let (old, _) = snapshot();
        let (new, _) = snapshot();
        let mut tried = Skip::none();
        tried.insert(1);
        let tried = new.skip_of(&tried, &old);
        assert!(tried.contains(1) && !tried.contains(0));
    }
}
