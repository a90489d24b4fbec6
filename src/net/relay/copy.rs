//! One direction by copying: read into the worker's scratch buffer, write at once, and keep a
//! private buffer only while a write is short. An idle session owns no buffer at all.

use std::task::{Context, Poll};

use super::{Direction, State, TURN};
use crate::net::Socket;

/// Bytes that were read and could not be written yet.
#[derive(Debug)]
pub(super) struct Rest {
    bytes: Box<[u8]>,
    written: usize,
}

impl Direction {
    /// Moves what can be moved now, up to a turn, and leaves the task to be woken for more.
    /// `last` tells that the other direction has ended already.
    pub(super) fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Socket,
        sink: &mut Socket,
        last: bool,
        scratch: &mut [u8],
    ) {
        let mut turn = 0;
        while !self.is_over() {
            if sink.failed().is_some() {
                self.rest = None;
                self.state = State::Dead;
            } else if self.rest.is_some() {
                if self.poll_rest(cx, sink).is_pending() {
                    return;
                }
            } else {
                match self.state {
                    State::Open if turn >= TURN => return cx.waker().wake_by_ref(),
                    State::Open => match source.poll_recv(cx, scratch) {
                        Poll::Pending => return,
                        Poll::Ready(Ok(0)) => self.state = State::Ending,
                        Poll::Ready(Ok(read)) => {
                            turn += read;
                            self.write(cx, sink, &scratch[..read]);
                        }
                        Poll::Ready(Err(_)) => self.state = State::Failing,
                    },
                    State::Ending => {
                        // When both directions have ended, the close that follows sends the FIN;
                        // if the sink fails here, it says so itself.
                        if last || sink.shut_down_writes().is_ok() {
                            self.state = State::Ended;
                        }
                    }
                    State::Failing => self.state = State::Dead,
                    State::Ended | State::Dead => return,
                }
            }
        }
    }

    /// Writes `bytes`, and keeps what does not fit.
    fn write(&mut self, cx: &mut Context<'_>, sink: &mut Socket, bytes: &[u8]) {
        let written = match sink.poll_send(cx, bytes) {
            Poll::Ready(Ok(written)) => written,
            Poll::Ready(Err(_)) => return,
            Poll::Pending => 0,
        };
        self.moved += written as u64;
        if written < bytes.len() {
            self.rest = Some(Rest {
                bytes: bytes[written..].into(),
                written: 0,
            });
        }
    }

    /// Writes more of the rest; pending while the sink takes nothing.
    fn poll_rest(&mut self, cx: &mut Context<'_>, sink: &mut Socket) -> Poll<()> {
        while let Some(rest) = &mut self.rest {
            match std::task::ready!(sink.poll_send(cx, &rest.bytes[rest.written..])) {
                Ok(written) => {
                    rest.written += written;
                    self.moved += written as u64;
                    if rest.written == rest.bytes.len() {
                        self.rest = None;
                    }
                }
                Err(_) => break,
            }
        }
        Poll::Ready(())
    }
}
