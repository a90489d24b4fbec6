//! The record of one session: opened when it starts, written exactly once when it is dropped, so
//! that no way out of a session can forget its log line or its counters.

use std::rc::Rc;
use std::time::{Duration, Instant};

use super::blame::Blame;
use super::duration::millis;
use super::facts::Facts;
use crate::config::SessionLog;
use crate::health::Symptom;
use crate::model::{Cause, ClientAddr, Ending, Meter, Page, Phase, Tally, Who};
use crate::pool::{Counted, Door, Lease, Permit, Witness, moment};
use crate::proxy_protocol::UniqueId;

/// What is known of a session so far.
#[derive(Debug)]
pub struct Record {
    /// Small, because thousands of sessions sit idle: there are at most 1024 workers …
    worker: u16,
    /// What others may ask about it.
    facts: Rc<Facts>,
    log: SessionLog,
    /// … and as many attempts as a session can remember.
    attempts: u8,
    /// In milliseconds since the start.
    connected: Option<f32>,
    /// In a box, because hardly any session has it.
    unusual: Option<Box<Unusual>>,
    lease: Option<Lease>,
    blame: Blame,
    closed: bool,
}

/// What only some sessions have to tell.
#[derive(Debug, Default)]
struct Unusual {
    /// Milliseconds spent waiting for a place.
    queued: f32,
    /// Milliseconds that its bytes have waited because of a limit to bandwidth.
    slowed: f32,
    /// The proxy that has connected for the client.
    via: Option<ClientAddr>,
    /// What the backend was told to call it.
    id: Option<UniqueId>,
    /// Counts it towards its source.
    counted: Option<Counted>,
}

impl Record {
    /// A session of `client` that starts now on `worker` and holds `permit` until its end.
    pub fn open(worker: usize, client: ClientAddr, route: Door, permit: Permit) -> Self {
        route.page(worker).opened();
        let snapshot = route.service().snapshot();
        // It may have been accepted when there was no such limit.
        let own = snapshot.admission.as_ref().and_then(|it| it.permits());
        let permit = match own {
            Some(permits) => permit.within(permits),
            None => permit,
        };
        Self {
            worker: worker as u16,
            log: snapshot.session_log,
            facts: Rc::new(Facts::new(client, route, permit)),
            attempts: 0,
            connected: None,
            unusual: None,
            lease: None,
            blame: Blame::default(),
            closed: false,
        }
    }

    /// Who connected.
    pub fn client(&self) -> ClientAddr {
        self.facts.client()
    }

    /// What it came through.
    pub fn route(&self) -> &Door {
        self.facts.route()
    }

    /// When the session started.
    pub fn started(&self) -> Instant {
        self.facts.started()
    }

    /// What others may ask about it.
    pub fn facts(&self) -> Rc<Facts> {
        Rc::clone(&self.facts)
    }

    /// Who has connected so far is a proxy, and has done so for `client`.
    pub fn is_for(&mut self, client: ClientAddr) {
        let proxy = self.facts.set_client(client);
        self.unusual().via = Some(proxy);
    }

    /// The backend is told this name of the session.
    pub fn is_called(&mut self, id: UniqueId) {
        self.unusual().id = Some(id);
    }

    /// It counts towards its source for as long as it lives.
    pub fn counts(&mut self, counted: Counted) {
        self.unusual().counted = Some(counted);
    }

    /// There are too many like it for a line of its own.
    pub fn hush(&mut self) {
        self.log = SessionLog::Off;
    }

    fn unusual(&mut self) -> &mut Unusual {
        self.unusual.get_or_insert_default()
    }

    /// A backend is being tried; the one before, if any, is not counted any more.
    pub fn attempt(&mut self, lease: Lease) {
        if self.attempts > 0 {
            self.page().retried();
        }
        self.attempts = self.attempts.saturating_add(1);
        self.lease = Some(lease);
        self.facts.enter(Phase::Connect);
    }

    /// The session waits for a place; who failed it does not count it any more.
    pub fn waits(&mut self) {
        self.lease = None;
        self.facts.enter(Phase::Queue);
    }

    /// It has waited for so long.
    pub fn waited(&mut self, time: Duration) {
        self.unusual().queued += milliseconds(time);
        self.page().waited(time);
    }

    /// Its bytes have waited for so long, because there was a limit to bandwidth.
    pub fn was_slowed(&mut self, time: Duration) {
        self.unusual().slowed = milliseconds(time);
    }

    /// The connect to the backend being tried failed; `witness` is told, and since when it was tried,
    /// unless the wait was unfair.
    pub fn connect_failed(&mut self, cause: Cause, witness: Option<(&Witness, Instant)>) {
        if let Some(lease) = &self.lease {
            let load = lease.backend().load();
            load.tally(self.worker as usize).connect_failed();
            // Running out of ports or descriptors is no fault of the backend.
            if cause != Cause::Exhausted {
                load.penalise();
            }
            if let Some(symptom) = Symptom::of_connect(cause) {
                self.blame.put_on(load);
                if let Some((witness, since)) = witness {
                    witness.tell(lease.backend(), symptom, since);
                }
            }
        }
    }

    /// The backend that has been tried `since` then is connected.
    pub fn connected(&mut self, since: Instant) {
        let now = Instant::now();
        self.connected = Some(milliseconds(now - self.started()));
        self.facts.enter(Phase::Relay);
        let took = now - since;
        self.page().connected(took);
        if let Some(tally) = self.tally() {
            tally.connected(moment(now), took);
            self.blame.moved(self.worker as usize);
        }
    }

    /// Where the bytes of the session are counted while it runs.
    pub fn tally(&self) -> Option<&Tally> {
        let load = self.lease.as_ref()?.backend().load();
        Some(load.tally(self.worker as usize))
    }

    fn page(&self) -> &Page {
        self.route().page(self.worker as usize)
    }

    /// Where those are counted that this session has moved.
    pub fn meter(&self) -> &Meter {
        self.facts.meter()
    }

    /// Closes the record; the line is written now. `witness` is told of a backend that has reset the
    /// session before its first byte. Gives back the place at the backend, which goes to the next in line
    /// when it is dropped.
    pub fn close(mut self, ending: Ending, witness: &Witness) -> Option<Lease> {
        self.closed = true;
        self.judge(ending, witness);
        // Who had failed the session is to blame that nobody took it, wherever it ended.
        if ending.is_unserved() {
            self.blame.hurt(self.worker as usize);
            self.page().unserved(ending.cause, moment(Instant::now()));
        }
        self.write(ending);
        self.lease.take()
    }

    /// A backend that takes sessions and hangs up without a byte is as broken as one that refuses
    /// them; one that has answered is well.
    fn judge(&self, ending: Ending, witness: &Witness) {
        if let Some(lease) = &self.lease
            && ending.phase == Phase::Relay
        {
            let is_broken = ending.who == Who::Backend && !ending.is_clean();
            if is_broken || ending.cause == Cause::BackendDown {
                let tally = lease.backend().load().tally(self.worker as usize);
                tally.hurt(moment(Instant::now()));
            }
            let (to_backend, to_client) = self.meter().moved();
            if to_client > 0 {
                lease.backend().load().relent();
            } else if ending.who == Who::Backend
                && (ending.cause == Cause::Reset || to_backend == 0)
            {
                lease.backend().load().penalise();
                if ending.cause == Cause::Reset {
                    witness.tell(lease.backend(), Symptom::Reset, Instant::now());
                }
            }
        }
    }

    fn count(&self, ending: Ending, lasted: Duration) {
        self.page().ended(ending, lasted);
        // Connects that failed are counted where they do.
        if self.connected.is_some()
            && let Some(tally) = self.tally()
        {
            tally.ended(ending, lasted);
        }
    }

    fn is_wanted(&self, ending: Ending) -> bool {
        match self.log {
            SessionLog::All => true,
            SessionLog::Failed => !ending.is_clean(),
            SessionLog::Off => false,
        }
    }

    fn write(&self, ending: Ending) {
        let lasted = self.started().elapsed();
        self.count(ending, lasted);
        if !self.is_wanted(ending) {
            return;
        }
        let backend = self.lease.as_ref().map(Lease::backend);
        let unusual = self.unusual.as_deref();
        let queued = unusual.map_or(0.0, |it| it.queued);
        let slowed = unusual.map_or(0.0, |it| it.slowed);
        let (to_backend, to_client) = self.meter().moved();
        let found_nobody = ending.cause == Cause::NoBackend;
        let snapshot = found_nobody.then(|| self.route().service().snapshot());
        tracing::info!(
            client = %self.client(),
            via = unusual.and_then(|it| it.via).map(tracing::field::display),
            listener = %self.route().listener(),
            service = %self.route().service().name(),
            backend = backend.map(|backend| tracing::field::display(backend.id().name())),
            address = backend.map(|backend| tracing::field::display(backend.address())),
            to_backend,
            to_client,
            queue_ms = Some(rounded(queued.into())).filter(|&queued| queued > 0.0),
            connect_ms = self.connected.map(|connected| rounded(connected.into())),
            slowed_ms = Some(rounded(slowed.into())).filter(|&slowed| slowed > 0.0),
            duration_ms = millis(lasted),
            attempts = self.attempts,
            unique_id = unusual.and_then(|it| it.id.as_ref()).map(tracing::field::display),
            who = %ending.who,
            phase = %ending.phase,
            cause = %ending.cause,
            why = snapshot.as_ref().map(|it| it.why_nobody()),
            "session"
        );
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Only a panic drops a record that nobody closed.
        if !self.closed {
            self.write(Ending::new(Who::Ballast, Phase::Relay, Cause::Panicked));
        }
    }
}

/// As precise as a log needs it, and half as big as a duration.
fn milliseconds(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1e3
}

/// To microseconds.
fn rounded(milliseconds: f64) -> f64 {
    (milliseconds * 1e3).round() / 1e3
}
