//! A session's wait for a place at a backend, when all are full. Whose turn it is, is decided in
//! [`pool::queue`](crate::pool::queue).

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::model::{Cause, Ending, Phase, Who};
use crate::net::{Event, Socket, Ticket};
use crate::pool::queue::{Outcome, Placed};
use crate::pool::{Service, Snapshot};
use crate::strategy::{Flow, Skip};

/// Waits until `flow` has a place, nobody is left who may serve it, `patience` is over, the client has
/// reset, or the session is to end. `skip` and `snapshot` are what it has tried so far.
pub(super) async fn wait(
    service: &Service,
    ticket: &Ticket,
    client: &mut Socket,
    flow: Flow,
    (skip, snapshot): (Skip, Arc<Snapshot>),
    patience: Duration,
) -> Result<Placed, Ending> {
    let ending = |who, cause| Ending::new(who, Phase::Queue, cause);
    let Ok(mut waiting) = service.queue().join(flow, skip, snapshot) else {
        return Err(ending(Who::Ballast, Cause::QueueFull));
    };
    tracing::debug!(service = %service.name(), client = %flow.source, "queued");
    ticket.schedule(Instant::now() + patience);
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(outcome) = waiting.poll(cx) {
            return Poll::Ready(match outcome {
                Outcome::Placed(placed) => Ok(placed),
                Outcome::Nobody => Err(ending(Who::Ballast, Cause::NoBackend)),
            });
        }
        if let Poll::Ready(cause) = client.poll_error(cx) {
            return Poll::Ready(Err(ending(Who::Client, cause)));
        }
        ticket.poll(cx).map(|event| match event {
            Event::Due => Err(ending(Who::Ballast, Cause::QueueTimeout)),
            Event::End(cause) => Err(ending(Who::Ballast, cause)),
        })
    })
    .await;
    if matches!(outcome, Err(ending) if ending.cause == Cause::QueueTimeout) {
        waiting.time_out();
    }
    outcome
}
