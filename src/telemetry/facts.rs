//! What others may ask about a running session.

use std::cell::Cell;
use std::fmt;
use std::time::Instant;

use crate::model::{ClientAddr, Meter, Phase};
use crate::pool::{Door, Permit, Permits};

/// Who a session is for, where it came in, how far it has come and what has moved. Its record and its relay
/// write this, and whoever lists sessions reads it, on the same thread.
pub struct Facts {
    client: Cell<ClientAddr>,
    route: Door,
    started: Instant,
    phase: Cell<Phase>,
    meter: Meter,
    /// There but for the moment in which it changes.
    permit: Cell<Option<Permit>>,
}

/// All but the permit, which is not there to be looked at.
impl fmt::Debug for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Facts")
            .field("client", &self.client)
            .field("route", &self.route)
            .field("started", &self.started)
            .field("phase", &self.phase)
            .field("meter", &self.meter)
            .finish_non_exhaustive()
    }
}

impl Facts {
    /// Of a session that starts now, and holds `permit` until its end.
    pub fn new(client: ClientAddr, route: Door, permit: Permit) -> Self {
        let now = Instant::now();
        Self {
            client: Cell::new(client),
            route,
            started: now,
            phase: Cell::new(Phase::Accept),
            meter: Meter::new(now),
            permit: Cell::new(Some(permit)),
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

    /// It counts towards `permits` from now on, if it did not already.
    pub fn count_within(&self, permits: &'static Permits) {
        let permit = self.permit.take();
        self.permit.set(permit.map(|it| it.within(permits)));
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
