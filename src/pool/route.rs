//! From a listener to its service, and to where its sessions are counted.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Service;
use crate::model::{Address, Ledger, Page};

/// What a listener needs to know: its bound address, and where its clients go. A reload may give a
/// listener to another service without touching its sockets.
#[derive(Debug)]
pub struct Route {
    listener: Address,
    destination: ArcSwap<Destination>,
}

/// Where clients go, and who counts them there.
#[derive(Debug)]
pub struct Destination {
    /// Who serves them.
    pub service: Arc<Service>,
    /// What becomes of those who come through this listener.
    pub ledger: Arc<Ledger>,
}

impl Destination {
    /// Whether both are the same in all.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.service, &other.service) && Arc::ptr_eq(&self.ledger, &other.ledger)
    }
}

impl Route {
    /// Clients of `listener` go there.
    pub fn new(listener: impl Into<Address>, destination: Destination) -> Arc<Self> {
        Arc::new(Self {
            listener: listener.into(),
            destination: ArcSwap::from_pointee(destination),
        })
    }

    /// Where clients go now. Costs no shared write.
    pub fn destination(&self) -> Guard<Arc<Destination>> {
        self.destination.load()
    }

    /// Sends later clients elsewhere. Only control calls this.
    pub fn lead(&self, destination: Destination) {
        self.destination.store(Arc::new(destination));
    }
}

/// One worker's hold on a route as it leads now. Its clones, one a session, touch no count that
/// workers share, and keep leading where their session went: it ends where it was counted.
#[derive(Clone, Debug)]
pub struct Door(Rc<Hold>);

#[derive(Debug)]
struct Hold {
    route: Arc<Route>,
    destination: Arc<Destination>,
    /// Clients that a rule has turned away since that was asked.
    turned_away: Cell<u32>,
}

impl Door {
    /// For the thread that calls.
    pub fn new(route: Arc<Route>) -> Self {
        let destination = route.destination.load_full();
        Self(Rc::new(Hold {
            route,
            destination,
            turned_away: Cell::new(0),
        }))
    }

    /// Takes notice if the route leads elsewhere by now.
    pub fn renew(&mut self) {
        if !Arc::ptr_eq(&self.0.destination, &self.0.route.destination()) {
            *self = Self::new(self.route());
        }
    }

    /// The route itself, for another thread.
    pub fn route(&self) -> Arc<Route> {
        Arc::clone(&self.0.route)
    }

    /// The listener's address as bound.
    pub fn listener(&self) -> Address {
        self.0.route.listener
    }

    /// Who serves.
    pub fn service(&self) -> &Arc<Service> {
        &self.0.destination.service
    }

    /// A rule has turned a client away that had come this way.
    pub fn turn_away(&self) {
        let count = &self.0.turned_away;
        count.set(count.get().saturating_add(1));
    }

    /// How many it were, since this was asked last.
    pub fn turned_away(&self) -> u32 {
        self.0.turned_away.take()
    }

    /// Where `worker` counts.
    pub fn page(&self, worker: usize) -> &Page {
        self.0.destination.ledger.page(worker)
    }
}
