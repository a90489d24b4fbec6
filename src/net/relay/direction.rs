//! One way of a session: a small state machine that reads from its source and writes to its sink,
//! by copying or by splicing, whichever suits what flows.

use std::task::{Context, Poll, ready};
use std::time::Instant;

use super::Workspace;
use super::copy::{self, Rest};
use super::splice::{Pipe, Pipes};
use crate::config::RelayMode;
use crate::net::Socket;
use crate::pool::Lane;

/// The most that one direction moves before others get their turn, …
const TURN: usize = 64 * 1024;
/// … and after how much it ends when it is spliced, which costs a fraction as much. What a pipe holds is not
/// divided: the fewer calls the better.
const SPLICED_TURN: usize = 256 * 1024;
/// A read counts as this much at least, so that a peer that sends byte by byte has no endless turn.
const LEAST: usize = 2 * 1024;
/// A read of this much is a sign of bulk, …
const LARGE: usize = 32 * 1024;
/// … and so many in a row are proof.
const PROOF: u8 = 4;
/// A fill of less than this is a sign that bulk has ended; as many in a row are proof.
const SMALL: usize = 8 * 1024;

/// One way of a session.
#[derive(Debug)]
pub(super) struct Direction {
    state: State,
    way: Way,
    pending: Pending,
    moved: u64,
}

/// How far a direction has come. States only go forward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Bytes may come.
    Open,
    /// The source has sent its FIN; what was read is still on its way.
    Ending,
    /// The source has failed; what was read is still on its way.
    Failing,
    /// The FIN was passed on.
    Ended,
    /// Nothing will move any more.
    Dead,
}

/// How bytes move.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Copying, with so many large reads in a row.
    Copy(u8),
    /// Splicing, with so many small fills in a row.
    Splice(u8),
    /// Copying, for good.
    CopyOnly,
    /// Splicing, for as long as it is possible.
    SpliceOnly,
}

/// What was read and not written yet.
#[derive(Debug)]
enum Pending {
    Nothing,
    Rest(Rest),
    Piped(Pipe),
}

impl Direction {
    /// Nothing to be moved yet, and `moved` bytes moved already.
    pub(super) fn after(moved: u64, mode: RelayMode) -> Self {
        Self {
            state: State::Open,
            way: match mode {
                RelayMode::Auto => Way::Copy(0),
                RelayMode::Copy => Way::CopyOnly,
                RelayMode::Splice => Way::SpliceOnly,
            },
            pending: Pending::Nothing,
            moved,
        }
    }

    pub(super) fn state(&self) -> State {
        self.state
    }

    /// Bytes written to the sink.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Whether the source's FIN was read.
    pub(super) fn has_read_fin(&self) -> bool {
        matches!(self.state, State::Ending | State::Ended)
    }

    /// Whether the source is not read: its FIN was, or what came before waits for the sink.
    pub(super) fn reads_nothing(&self) -> bool {
        self.has_read_fin() || !matches!(self.pending, Pending::Nothing)
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Ended | State::Dead)
    }

    /// Moves what can be moved now, up to a turn, and leaves the task to be woken for more.
    /// `last` tells that the other direction has ended already, `lane` how much may be read if there is
    /// a limit to it.
    pub(super) fn step(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Socket,
        sink: &mut Socket,
        last: bool,
        workspace: &mut Workspace,
        mut lane: Option<Lane<'_>>,
    ) {
        self.run(cx, source, sink, last, workspace, lane.as_mut());
        match &mut lane {
            // Nobody will ask again.
            Some(lane) if self.is_over() => lane.stop(Instant::now()),
            Some(lane) => lane.rest(),
            None => {}
        }
    }

    fn run(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Socket,
        sink: &mut Socket,
        last: bool,
        workspace: &mut Workspace,
        mut lane: Option<&mut Lane<'_>>,
    ) {
        let mut turn = 0;
        while !self.is_over() {
            // First, so that nothing is read in place of what a sink that fails just now has not taken.
            let drained = self.poll_drain(cx, sink, &mut workspace.pipes);
            if sink.failed().is_some() {
                self.release(&mut workspace.pipes);
                self.state = State::Dead;
            } else if drained.is_pending() {
                return;
            } else {
                match self.state {
                    State::Open if turn >= self.turn() => return cx.waker().wake_by_ref(),
                    State::Open => {
                        let read = match &mut lane {
                            None => self.poll_read(cx, source, sink, workspace, usize::MAX),
                            Some(lane) => self.poll_read_within(cx, source, sink, workspace, lane),
                        };
                        match read {
                            Poll::Ready(moved) => turn += moved.max(LEAST),
                            Poll::Pending => return,
                        }
                    }
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

    /// Lets go of whatever was not delivered.
    pub(super) fn release(&mut self, pipes: &mut Pipes) {
        if let Pending::Piped(pipe) = std::mem::replace(&mut self.pending, Pending::Nothing) {
            pipes.give_back(pipe);
        }
    }

    fn turn(&self) -> usize {
        match self.way {
            Way::Copy(_) | Way::CopyOnly => TURN,
            Way::Splice(_) | Way::SpliceOnly => SPLICED_TURN,
        }
    }

    /// Writes what is pending. Ready when nothing is, or the sink has failed.
    fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Socket,
        pipes: &mut Pipes,
    ) -> Poll<()> {
        loop {
            let drained = match &mut self.pending {
                Pending::Nothing => return Poll::Ready(()),
                Pending::Rest(rest) if rest.is_empty() => {
                    self.pending = Pending::Nothing;
                    return Poll::Ready(());
                }
                Pending::Piped(pipe) if pipe.held() == 0 => {
                    self.release(pipes);
                    return Poll::Ready(());
                }
                Pending::Rest(rest) => rest.poll_drain(cx, sink),
                Pending::Piped(pipe) => pipe.poll_drain(cx, sink),
            };
            match ready!(drained) {
                Ok(drained) => self.moved += drained as u64,
                Err(_) => return Poll::Ready(()),
            }
        }
    }

    /// The same as far as `lane` allows.
    fn poll_read_within(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Socket,
        sink: &mut Socket,
        workspace: &mut Workspace,
        lane: &mut Lane<'_>,
    ) -> Poll<usize> {
        // Nobody waits for room who has nothing to move.
        ready!(source.poll_readable(cx));
        // The relay sees to it that it is asked again.
        let Some(most) = lane.allow(Instant::now()) else {
            return Poll::Pending;
        };
        let read = ready!(self.poll_read(cx, source, sink, workspace, most));
        lane.spend(read);
        Poll::Ready(read)
    }

    /// Reads once, at most so much, and writes if that can be done at once. Tells how many bytes came.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Socket,
        sink: &mut Socket,
        workspace: &mut Workspace,
        most: usize,
    ) -> Poll<usize> {
        let spliced = matches!(self.way, Way::Splice(_) | Way::SpliceOnly);
        if spliced
            && !source.is_urgent()
            && let Some(mut pipe) = workspace.pipes.take()
        {
            let filled = pipe.poll_fill(cx, source, most);
            self.pending = Pending::Piped(pipe);
            match filled {
                Poll::Ready(Ok(read @ 1..)) => {
                    self.way = self.way.after_fill(read);
                    return Poll::Ready(read);
                }
                Poll::Pending if !source.is_urgent() => {
                    self.release(&mut workspace.pipes);
                    return Poll::Pending;
                }
                // An end, or an urgent mark, at which splice stops for good: a read knows which.
                Poll::Ready(_) | Poll::Pending => self.release(&mut workspace.pipes),
            }
        }
        let room = workspace.buffer.len().min(most);
        let buffer = &mut workspace.buffer[..room];
        match ready!(source.poll_recv(cx, buffer)) {
            Ok(read @ 1..) => {
                self.way = self.way.after_read(read);
                let (written, rest) = copy::write(cx, sink, &buffer[..read]);
                self.moved += written as u64;
                if let Some(rest) = rest {
                    self.pending = Pending::Rest(rest);
                }
                Poll::Ready(read)
            }
            end => Poll::Ready(self.end(end.is_ok())),
        }
    }

    fn end(&mut self, well: bool) -> usize {
        self.state = if well { State::Ending } else { State::Failing };
        0
    }
}

impl Way {
    fn after_read(self, read: usize) -> Self {
        match self {
            Way::Copy(_) if read < LARGE => Way::Copy(0),
            Way::Copy(large) if large + 1 < PROOF => Way::Copy(large + 1),
            Way::Copy(_) => Way::Splice(0),
            Way::Splice(_) | Way::CopyOnly | Way::SpliceOnly => self,
        }
    }

    fn after_fill(self, filled: usize) -> Self {
        match self {
            Way::Splice(_) if filled >= SMALL => Way::Splice(0),
            Way::Splice(small) if small + 1 < PROOF => Way::Splice(small + 1),
            Way::Splice(_) => Way::Copy(0),
            Way::Copy(_) | Way::CopyOnly | Way::SpliceOnly => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_row_of_large_reads_is_bulk() {
        let mut way = Way::Copy(0);
        for _ in 0..100 {
            way = way.after_read(LARGE).after_read(LARGE).after_read(100);
            assert!(matches!(way, Way::Copy(_)));
        }
        for _ in 0..PROOF {
            way = way.after_read(LARGE);
        }
        assert!(matches!(way, Way::Splice(0)));
    }

    #[test]
    fn a_row_of_small_fills_ends_bulk() {
        let mut way = Way::Splice(0);
        for _ in 0..PROOF {
            way = way.after_fill(100);
        }
        assert!(matches!(way, Way::Copy(0)));
    }

    #[test]
    fn a_chosen_way_stays() {
        assert!(matches!(Way::CopyOnly.after_read(1 << 20), Way::CopyOnly));
        assert!(matches!(Way::SpliceOnly.after_fill(1), Way::SpliceOnly));
    }
}
