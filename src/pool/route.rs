//! From a listener to its service.

use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};

use super::Service;

/// What a listener needs to know: its bound address, and where its clients go. A reload may give a
/// listener to another service without touching its sockets.
#[derive(Debug)]
pub struct Route {
    listener: SocketAddr,
    service: ArcSwap<Service>,
}

impl Route {
    /// Clients of `listener` go to `service`.
    pub fn new(listener: SocketAddr, service: Arc<Service>) -> Arc<Self> {
        Arc::new(Self {
            listener,
            service: ArcSwap::new(service),
        })
    }

    /// The address as bound.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// Where clients go now. Costs no shared write.
    pub fn service(&self) -> Guard<Arc<Service>> {
        self.service.load()
    }

    /// Sends later clients elsewhere. Only control calls this.
    pub fn lead_to(&self, service: Arc<Service>) {
        self.service.store(service);
    }
}

/// One worker's hold on a route. Its clones, one a session, touch no count that workers share.
#[derive(Clone, Debug)]
pub struct Door(Rc<Hold>);

#[derive(Debug)]
struct Hold(Arc<Route>);

impl Door {
    /// For the thread that calls.
    pub fn new(route: Arc<Route>) -> Self {
        Self(Rc::new(Hold(route)))
    }

    /// The route itself, for another thread.
    pub fn route(&self) -> Arc<Route> {
        Arc::clone(&self.0.0)
    }
}

impl Deref for Door {
    type Target = Route;

    fn deref(&self) -> &Route {
        &self.0.0
    }
}
