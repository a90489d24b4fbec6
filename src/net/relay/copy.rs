//! One direction by copying: read into the worker's buffer, write at once, and keep a private
//! buffer only while a write is short. An idle session owns no buffer at all.

use std::task::{Context, Poll, ready};

use crate::model::Cause;
use crate::net::Socket;

/// Bytes that were read and could not be written yet.
#[derive(Debug)]
pub(super) struct Rest {
    bytes: Box<[u8]>,
    written: usize,
}

impl Rest {
    /// Gives the sink what it takes.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Socket,
    ) -> Poll<Result<usize, Cause>> {
        let written = ready!(sink.poll_send(cx, &self.bytes[self.written..]))?;
        self.written += written;
        Poll::Ready(Ok(written))
    }

    /// Whether nothing is left.
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.bytes.len()
    }
}

/// Writes `bytes`; what does not fit is kept. Tells how many the sink took; if it failed, it says
/// so itself.
pub(super) fn write(
    cx: &mut Context<'_>,
    sink: &mut Socket,
    bytes: &[u8],
) -> (usize, Option<Rest>) {
    let written = match sink.poll_send(cx, bytes) {
        Poll::Ready(Ok(written)) => written,
        Poll::Ready(Err(_)) => return (0, None),
        Poll::Pending => 0,
    };
    let rest = (written < bytes.len()).then(|| Rest {
        bytes: bytes[written..].into(),
        written: 0,
    });
    (written, rest)
}
