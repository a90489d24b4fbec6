//! The counters of every backend identity, which outlive the configuration.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::model::{Address, BackendId, Ledger, Load, Map, Set};
use crate::pool::{Gate, Permits, Queue, Throttle};

/// The counters of every backend identity. They outlive the configuration: a backend that leaves the
/// file and comes back finds its sessions counted.
#[derive(Debug)]
pub(in crate::control) struct Loads {
    workers: usize,
    permits: &'static Permits,
    of: Map<BackendId, Counted>,
    /// The line of each service that one of them belongs to.
    queues: Map<Arc<str>, Arc<Queue>>,
    /// Of each listener in each service.
    ledgers: Map<(Arc<str>, Address), Arc<Ledger>>,
    /// Of each service that there ever was: what it counts goes on when it comes back.
    gates: Map<Arc<str>, Arc<Gate>>,
    /// Likewise.
    throttles: Map<Arc<str>, Arc<Throttle>>,
    /// Marks that were given out.
    marks: u32,
}

#[derive(Debug)]
struct Counted {
    load: Arc<Load>,
    /// Where the backend is, and the number of its name there.
    address: Option<Address>,
    mark: u32,
    /// Its numbers at the addresses where it was before, the latest last.
    former: VecDeque<u32>,
}

impl Loads {
    pub(in crate::control) fn new(workers: usize, permits: &'static Permits) -> Self {
        Self {
            workers,
            permits,
            of: Map::default(),
            queues: Map::default(),
            ledgers: Map::default(),
            gates: Map::default(),
            throttles: Map::default(),
            marks: 0,
        }
    }

    /// The counters of `id`, and its mark at `address`.
    pub(super) fn get(&mut self, id: &BackendId, address: Option<Address>) -> (Arc<Load>, u32) {
        let queue = self.queue(id.service());
        let counted = self.of.entry(id.clone()).or_insert_with(|| Counted {
            load: Arc::new(Load::new(self.workers).telling(queue)),
            address: None,
            mark: 0,
            former: VecDeque::new(),
        });
        if address.is_some() && counted.address != address {
            if counted.mark > 0 {
                counted.former.push_back(counted.mark);
            }
            if counted.former.len() > MOST_FORMER_MARKS {
                counted.former.pop_front();
            }
            self.marks += 1;
            counted.mark = self.marks;
            counted.address = address;
        }
        (Arc::clone(&counted.load), counted.mark)
    }

    /// What became of the sessions of `listener` in `service`.
    pub(in crate::control) fn ledger(
        &mut self,
        service: &Arc<str>,
        listener: Address,
    ) -> Arc<Ledger> {
        let fresh = || Arc::new(Ledger::new(self.workers));
        let ledger = self.ledgers.entry((Arc::clone(service), listener));
        Arc::clone(ledger.or_insert_with(fresh))
    }

    /// Who waits for a backend of `service`.
    pub(in crate::control) fn queue(&mut self, service: &Arc<str>) -> Arc<Queue> {
        Arc::clone(self.queues.entry(Arc::clone(service)).or_default())
    }

    /// Who counts the clients of `service` that are not all let in.
    pub(super) fn gate(&mut self, service: &Arc<str>) -> Arc<Gate> {
        let gate = self.gates.entry(Arc::clone(service));
        Arc::clone(gate.or_insert_with(|| Gate::new(self.permits)))
    }

    /// How fast the bytes of `service` may flow.
    pub(super) fn throttle(&mut self, service: &Arc<str>) -> Arc<Throttle> {
        let throttle = self.throttles.entry(Arc::clone(service));
        Arc::clone(throttle.or_insert_with(|| Throttle::new(self.workers)))
    }

    /// The counters of that identity, if it was ever in the file.
    pub(in crate::control) fn find(&self, id: &BackendId) -> Option<&Arc<Load>> {
        self.of.get(id).map(|counted| &counted.load)
    }

    /// Identities with sessions that are none of so many `members`, and how many sessions those are.
    pub(in crate::control) fn left<'a>(
        &self,
        members: usize,
        all: impl Iterator<Item = &'a BackendId>,
    ) -> Vec<(&BackendId, u32)> {
        // Every member is counted here, so that mostly there is nobody to look for.
        if self.of.len() <= members {
            return Vec::new();
        }
        let members: Set<_> = all.collect();
        let left = self.of.iter().filter(|(id, _)| !members.contains(id));
        let left = left.map(|(id, it)| (id, it.load.in_flight()));
        left.filter(|(_, sessions)| *sessions > 0).collect()
    }

    /// The marks that sessions of that identity may have, sorted.
    pub(in crate::control) fn marks(&self, id: &BackendId) -> Arc<[u32]> {
        let counted = self.of.get(id).into_iter();
        counted
            .flat_map(|it| it.former.iter().copied().chain([it.mark]))
            .collect()
    }

    /// Whose each mark is.
    pub(in crate::control) fn names(&self) -> Map<u32, BackendId> {
        let all = self.of.iter();
        all.flat_map(|(id, it)| {
            let marks = it.former.iter().copied().chain([it.mark]);
            marks.map(|mark| (mark, id.clone()))
        })
        .collect()
    }

    /// Forgets identities that nobody holds: not in the file, and without a session.
    pub(in crate::control) fn prune(&mut self) {
        self.of
            .retain(|_, counted| Arc::strong_count(&counted.load) > 1);
        self.queues.retain(|_, queue| Arc::strong_count(queue) > 1);
        self.ledgers
            .retain(|_, ledger| Arc::strong_count(ledger) > 1);
    }

    /// Like [`Loads::prune`], once there are more than `most` beyond those that are held: a name server that
    /// answers with some of its records in turn has the same backends leave and return all the time.
    pub(in crate::control) fn prune_beyond(&mut self, most: usize) {
        if self.of.len() <= most {
            return;
        }
        let held = |it: &Counted| Arc::strong_count(&it.load) > 1;
        if self.of.values().filter(|it| !held(it)).count() > most {
            self.prune();
        }
    }

    /// Identities without a member that are remembered between reloads.
    pub(in crate::control) const MOST_FORMER: usize = 4096;
}

/// Addresses of one backend whose sessions are still known to be its own.
const MOST_FORMER_MARKS: usize = 16;
