//! One connection, from accept to its log line. Read this first.
//!
//! The session takes its service's snapshot, asks whether its client may come in (and who it is, if a proxy
//! has to say so), lets the strategy pick a backend, is counted towards it before connecting (or waits in line while all are full), tries others while no byte has moved,
//! relays, and closes its record. It
//! never returns an error: it returns how it ended. Decisions are made elsewhere; this file is the
//! order in which they are asked for.
//!
//! Next: [`strategy`](crate::strategy) for the pick, [`net::relay`](crate::net::relay) for the
//! bytes, [`worker`](crate::worker) for who calls this.

mod admission;
mod header;
mod waiting;

use std::cell::RefCell;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::Guard;

use crate::model::{Cause, ClientAddr, Ending, Phase, Who};
use crate::net::relay::{Relay, Terms, Workspace};
use crate::net::{Arrival, Connecting, Dialer, Registry, Shortage, Socket, Ticket, connect};
use crate::pool::{Door, Permit, Placement, Witness};
use crate::strategy::Skip;
use crate::telemetry::Record;

/// What the sessions of one worker share.
#[derive(Debug)]
pub struct Context {
    /// Which worker this is.
    pub worker: usize,
    /// Who wakes sessions, and ends them.
    pub registry: Registry,
    /// What the relay works with.
    pub workspace: RefCell<Workspace>,
    /// Whom to tell of backends that fail.
    pub witness: Witness,
    /// Whom to tell when there is nothing left to connect with.
    pub shortage: &'static Shortage,
}

/// A client that was accepted and not served yet; may still change workers.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub socket: Arrival,
    /// Where it comes from.
    pub address: ClientAddr,
    /// Its place among `max_connections`.
    pub permit: Permit,
    /// What its backend can be reached with, if there is a shortage.
    pub reserve: Option<OwnedFd>,
}

/// Serves one client until both sides are done, and lets go of `guard` then.
///
/// Thousands of these sit idle, so whatever is big is kept once and by reference, and what only
/// connecting needs lives in a box until then.
pub async fn serve<G>(context: Rc<Context>, route: Door, client: Client, guard: G) {
    let ticket = context.registry.enter();
    let mut record = Record::open(context.worker, client.address, route, client.permit);
    ticket.introduce(record.facts());
    let came = (client.socket, client.reserve);
    let mut established = Box::pin(establish(came, &context, &ticket, &mut record)).await;
    let ending = match &mut established {
        Ok(relay) => {
            let (tally, meter) = (record.tally(), record.meter());
            let report = relay.run(&ticket, &context.workspace, tally, meter).await;
            if let Some(time) = relay.slowed() {
                record.was_slowed(time);
            }
            let phase = if report.cause == Cause::Stopped {
                Phase::Drain
            } else {
                Phase::Relay
            };
            Ending::new(report.who, phase, report.cause)
        }
        Err(ending) => *ending,
    };
    let lease = record.close(ending, &context.witness);
    // Counted out before its place goes to the next in line: the two are never counted at once.
    drop(guard);
    drop(lease);
}

/// Picks and connects, until a backend takes the session or none is left to try; then the client's
/// socket is dropped, and so reset. The snapshot is let go before the relay starts, so that old
/// tables do not live as long as the longest session.
async fn establish(
    (client, mut reserve): (Arrival, Option<OwnedFd>),
    context: &Context,
    ticket: &Ticket,
    record: &mut Record,
) -> Result<Relay, Ending> {
    let route = record.route().clone();
    let service = route.service();
    let mut snapshot = service.snapshot();
    let mut begun = record.started();
    let (mut client, heard) = match snapshot.admission.clone() {
        None => (accepted(client)?, None),
        Some(admission) => {
            // Rare, so not part of what every session weighs.
            let asking = admission::let_in(admission, client, context, ticket, record);
            let came = Box::pin(asking).await?;
            // The world may have changed meanwhile.
            snapshot = service.snapshot();
            begun = Instant::now();
            came
        }
    };
    let flow = service.flow(record.client(), fastrand::u64(..));
    let introduction = snapshot.send_header.map_or_else(Vec::new, |send| {
        header::introduction(send, &client, heard, fastrand::u128(..), record)
    });
    let mut give_up = begun + snapshot.timeouts.connect_total;
    let mut queued = Duration::ZERO;
    let mut skip = Skip::none();
    let mut ending = Ending::new(Who::Ballast, Phase::Accept, Cause::NoBackend);
    for _ in 0..=snapshot.retries {
        let (index, lease) = match service.place(&snapshot, &flow, &skip) {
            Placement::Taken(index, lease) => (index, lease),
            Placement::Nobody => break,
            Placement::Full => {
                record.waits();
                let since = Instant::now();
                let patience = snapshot.queue.timeout.saturating_sub(queued);
                let tried = (skip, Arc::clone(&snapshot));
                let wait = waiting::wait(service, ticket, &mut client, flow, tried, patience);
                // Rare, so not part of what every session weighs.
                let placed = Box::pin(wait).await;
                let waited = since.elapsed();
                record.waited(waited);
                queued += waited;
                give_up += waited;
                let placed = placed?;
                // The world may have changed meanwhile, so go on in the one the place is in.
                snapshot = Guard::from_inner(placed.snapshot);
                skip = placed.skip;
                (placed.index, placed.lease)
            }
        };
        // A place is at one of them.
        let Some(backend) = snapshot.backend(index) else {
            break;
        };
        let timeouts = &snapshot.timeouts;
        record.attempt(lease);
        let tried = Instant::now();
        let deadline = give_up.min(tried + timeouts.connect);
        let stays = Some(&mut client);
        let dialer = Dialer {
            outgoing: snapshot.outgoing.as_deref(),
            client: record.client(),
            page: route.page(context.worker),
            shortage: context.shortage,
        };
        match connect(
            backend.address(),
            &dialer,
            ticket,
            deadline,
            stays,
            &introduction,
            reserve.take(),
        )
        .await
        {
            Ok((socket, early)) => {
                record.connected(tried);
                ticket.mark(backend.mark());
                if let Some(lifetime) = snapshot.max_lifetime {
                    ticket.expire(record.started() + shortened(lifetime, fastrand::f64()));
                }
                let outgoing = snapshot.outgoing.as_deref();
                let terms = Terms {
                    idle: timeouts.idle,
                    half_closed: timeouts.half_closed,
                    mode: snapshot.relay,
                    kept_alive: outgoing.is_some_and(|it| it.tuning.keepalive.is_some()),
                };
                let throttle = snapshot.throttle.as_ref();
                let brake = throttle.map(|it| it.brake(context.worker));
                return Ok(Relay::new(client, socket, early, terms, brake));
            }
            Err(Connecting::Failed(cause)) => {
                // A wait that was cut short proves nothing.
                let fair = cause != Cause::TimedOut || deadline < give_up;
                record.connect_failed(cause, fair.then_some((&context.witness, tried)));
                skip.insert(index);
                let who = match cause == Cause::Exhausted {
                    true => Who::Ballast,
                    false => Who::Backend,
                };
                ending = Ending::new(who, Phase::Connect, cause);
                tracing::debug!(
                    service = %service.name(),
                    backend = %backend.id().name(),
                    address = %backend.address(),
                    %cause,
                    "connect failed"
                );
            }
            Err(Connecting::Ended(who, cause)) => {
                return Err(Ending::new(who, Phase::Connect, cause));
            }
        }
        if Instant::now() >= give_up {
            break;
        }
    }
    Err(ending)
}

/// Has this worker's reactor know of the client's socket.
fn accepted(client: Arrival) -> Result<Socket, Ending> {
    let failed = |error| Ending::new(Who::Ballast, Phase::Accept, Cause::from_io(&error));
    Socket::accepted(client).map_err(failed)
}

/// [`SHORTEST`] to all of `lifetime`, as `chance` in 0 to 1 has it: sessions that began together end
/// apart.
fn shortened(lifetime: Duration, chance: f64) -> Duration {
    lifetime.mul_f64(SHORTEST + (1.0 - SHORTEST) * chance)
}

/// The least part of its lifetime that a session is given.
const SHORTEST: f64 = 0.8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lifetime_is_at_most_what_is_written_and_at_least_four_fifths_of_it() {
        let day = Duration::from_secs(86_400);
        assert_eq!(shortened(day, 1.0), day);
        assert_eq!(shortened(day, 0.0).as_secs(), 69_120);
    }
}
