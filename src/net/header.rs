//! Hearing the PROXY header that a client begins with, and not a byte of what follows.
//!
//! The bytes are looked at where they are and taken once the header is whole: what comes behind it
//! stays in the kernel, where the relay finds it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Instant;

use super::relay::Workspace;
use super::{Event, Socket, Ticket};
use crate::model::{Cause, Who};
use crate::proxy_protocol::{Header, LONGEST, Malformed, Progress, decode};

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unheard {
    /// What came is none.
    Malformed(Malformed),
    /// The client has ended the connection, or the session is to end.
    Ended(Who, Cause),
}

/// The header that `client` begins with, if it is whole by `deadline`.
///
/// # Errors
/// Why there is none.
pub async fn hear(
    client: &mut Socket,
    ticket: &Ticket,
    workspace: &RefCell<Workspace>,
    deadline: Instant,
) -> Result<Header, Unheard> {
    ticket.schedule(deadline);
    let mut known = 0;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(event) = ticket.poll(cx) {
                let cause = match event {
                    Event::Due => Cause::TimedOut,
                    Event::End(cause) => cause,
                };
                return Poll::Ready(Err(Unheard::Ended(Who::Ballast, cause)));
            }
            let mut workspace = workspace.borrow_mut();
            let buffer = &mut workspace.scratch()[..LONGEST];
            let read = match std::task::ready!(client.poll_peek(cx, buffer, known)) {
                Ok(read) => read,
                Err(cause) => return Poll::Ready(Err(Unheard::Ended(Who::Client, cause))),
            };
            match decode(&buffer[..read]) {
                Ok(Progress::Whole(header, length)) => {
                    let taken = client.take(&mut buffer[..length]);
                    let gone = |cause| Unheard::Ended(Who::Client, cause);
                    return Poll::Ready(taken.map(|()| header).map_err(gone));
                }
                // It has said all that it will ever say.
                Ok(Progress::Partial(_)) if read <= known => {
                    return Poll::Ready(Err(Unheard::Ended(Who::Client, Cause::BadHeader)));
                }
                Ok(Progress::Partial(_)) => known = read,
                Err(malformed) => return Poll::Ready(Err(Unheard::Malformed(malformed))),
            }
        }
    })
    .await
}
