//! The last wait before a reset: a zero-linger close throws the send queue away, so what was read
//! from the one peer must be with the other before it learns that the rest was lost.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use super::{Socket, Ticket};
use crate::reactor::sleep;

/// No peer that takes nothing is waited for any longer.
pub(super) const STALLED: Duration = Duration::from_secs(90);
/// The first look at the queue is after this, …
const SHORTEST: Duration = Duration::from_millis(1);
/// … and the pause grows to this: the kernel has no event for "everything is acknowledged".
const LONGEST: Duration = Duration::from_millis(100);

/// Waits until `socket`'s peer has acknowledged all that was sent to it, has failed, has taken nothing
/// for `patience`, or the session is to end. Dropping the socket afterwards resets the peer.
pub(super) async fn deliver(socket: &mut Socket, ticket: &Ticket, patience: Duration) {
    let mut left = socket.queued();
    let mut progress = Instant::now();
    let mut pause = SHORTEST;
    while left > 0 && socket.failed().is_none() && progress.elapsed() < patience {
        let mut sleep = std::pin::pin!(sleep(pause));
        let over = poll_fn(|cx| {
            if ticket.poll_end(cx).is_ready() || socket.poll_error(cx).is_ready() {
                return Poll::Ready(true);
            }
            sleep.as_mut().poll(cx).map(|()| false)
        })
        .await;
        if over {
            return;
        }
        let now_left = socket.queued();
        if now_left < left {
            left = now_left;
            progress = Instant::now();
        }
        pause = (pause * 2).min(LONGEST);
    }
}
