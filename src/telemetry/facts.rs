//! What others may ask about a running session.

use std::cell::Cell;
use std::time::Instant;

use crate::model::{ClientAddr, Meter, Phase};
use crate::pool::Door;

/// Who a session is for, where it came in, how far it has come and what has moved. Its record and its relay
/// write this, and whoever lists sessions reads it, on the same thread.
#[derive(Debug)]
pub struct Facts {
    client: Cell<ClientAddr>,
    route: Door,
    started: Instant,
    phase: Cell<Phase>,
    meter: Meter,
}

impl Facts {
    /// Of a session that starts now.
    pub fn new(client: ClientAddr, route: Door) -> Self {
        let now = Instant::now();
        Self {
            client: Cell::new(client),
            route,
            started: now,
            phase: Cell::new(Phase::Accept),
            meter: Meter::new(now),
        }
    }

    /// Who connected, or for whom a proxy did.
    pub fn client(&self) -> ClientAddr {
        self.client.get()
    }

    /// What it came through.
    pub fn route(&self) -> &Door {
        &self.route
    }

    /// When it started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// How far it has come.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// What has moved.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// It is for somebody else than it seemed; gives back who that was.
    pub(super) fn set_client(&self, client: ClientAddr) -> ClientAddr {
        self.client.replace(client)
    }

    /// It has come so far.
    pub(super) fn enter(&self, phase: Phase) {
        self.phase.set(phase);
    }
}
