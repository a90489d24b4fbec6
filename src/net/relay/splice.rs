//! One direction by splice(2): bytes go from socket to socket through a pipe and are never copied
//! to user space. Worth it for bulk only; small messages never come here.
//!
//! A pipe is held only while bytes are in it. It is filled only when empty, which settles what
//! splice's EAGAIN means: with an empty pipe it can only be the socket that is empty, while with
//! bytes in it a full pipe would say the same, and edge-triggered readiness would be lost.
//! SPLICE_F_MORE is never set: on a stream that stays open it holds the tail back for 200 ms.

use std::cell::Cell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::model::Cause;
use crate::net::{Shortage, Socket};

/// Sizes that are asked for, in turn. Unprivileged users share 16,384 pages (pipe(7)), so the
/// first may be refused; below the last, copying is cheaper.
const SIZES: [usize; 2] = [1024 * 1024, 256 * 1024];
/// The most pipes that one worker holds; the descriptor reserve covers them.
pub(crate) const MOST_PIPES: usize = 64;
/// After a refusal, copying goes on for this long before the next try.
const REST: Duration = Duration::from_secs(1);

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// Neither is beyond the largest of [`SIZES`] by more than the kernel rounds it up.
    size: u32,
    held: u32,
    /// Given back however the pipe ends, be it with a session that panics.
    _place: Place,
}

/// One of the worker's places for pipes.
#[derive(Debug)]
struct Place(Rc<Cell<usize>>);

impl Place {
    fn taken_of(taken: &Rc<Cell<usize>>) -> Self {
        taken.set(taken.get() + 1);
        Self(Rc::clone(taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Pipe {
    fn open(place: Place, shortage: &Shortage) -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        if [&read, &write].into_iter().any(|it| shortage.is_spare(it)) {
            return Err(Errno::MFILE.into());
        }
        let mut refusal = None;
        for size in SIZES {
            match fcntl_setpipe_size(&write, size) {
                Ok(size) => {
                    return Ok(Self {
                        read,
                        write,
                        size: u32::try_from(size).unwrap_or(u32::MAX),
                        held: 0,
                        _place: place,
                    });
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.map_or_else(|| io::Error::from(io::ErrorKind::Unsupported), Into::into))
    }

    /// Bytes read from the source and not written to the sink yet.
    pub(super) fn held(&self) -> usize {
        self.held as usize
    }

    /// Takes what the source has, up to `most` and the pipe's size. After a 0, read: it is either
    /// the source's FIN or an urgent mark that splice does not pass. Must be empty.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Socket,
        most: usize,
    ) -> Poll<Result<usize, Cause>> {
        debug_assert_eq!(self.held, 0, "EAGAIN would be ambiguous");
        let filled =
            ready!(source.poll_splice_into(cx, &self.write, most.min(self.size as usize)))?;
        // No more than was asked for, which is a u32.
        self.held = u32::try_from(filled).unwrap_or(self.size);
        Poll::Ready(Ok(filled))
    }

    /// Gives the sink what it takes.
    pub(super) fn poll_drain(
        &mut self,
        cx: &mut Context<'_>,
        sink: &mut Socket,
    ) -> Poll<Result<usize, Cause>> {
        let drained = ready!(sink.poll_splice_from(cx, &self.read, self.held()))?;
        self.held = u32::try_from(self.held().saturating_sub(drained)).unwrap_or(0);
        Poll::Ready(Ok(drained))
    }
}

/// One worker's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    idle: Vec<Pipe>,
    /// Pipes that were never needed since the last look.
    spare: usize,
    /// Those in the pool and those in use.
    open: Rc<Cell<usize>>,
    refused: Option<Instant>,
    shortage: &'static Shortage,
}

impl Pipes {
    pub(super) fn new(shortage: &'static Shortage) -> Self {
        Self {
            idle: Vec::new(),
            spare: 0,
            open: Rc::default(),
            refused: None,
            shortage,
        }
    }

    /// An empty pipe, unless the worker has its share or the kernel refuses one.
    pub(super) fn take(&mut self) -> Option<Pipe> {
        if let Some(pipe) = self.idle.pop() {
            self.spare = self.spare.min(self.idle.len());
            return Some(pipe);
        }
        if self.open.get() >= MOST_PIPES || self.refused.is_some_and(|since| since.elapsed() < REST)
        {
            return None;
        }
        match Pipe::open(Place::taken_of(&self.open), self.shortage) {
            Ok(pipe) => {
                self.refused = None;
                Some(pipe)
            }
            Err(error) => {
                tracing::debug!(%error, "no pipe: copying instead");
                self.refused = Some(Instant::now());
                None
            }
        }
    }

    /// All of them, and those in the pool.
    pub(super) fn count(&self) -> (usize, usize) {
        (self.open.get(), self.idle.len())
    }

    /// Closes the pipes that were not needed since the last call.
    pub(super) fn trim(&mut self) {
        self.idle.truncate(self.idle.len() - self.spare);
        self.spare = self.idle.len();
    }

    /// Takes a pipe back. One that still holds bytes is closed: they must never reach another
    /// session.
    pub(super) fn give_back(&mut self, pipe: Pipe) {
        if pipe.held == 0 {
            self.idle.push(pipe);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_with_bytes_left_is_never_used_again() {
        let mut pipes = Pipes::new(Shortage::of(0));
        let mut dirty = pipes.take().unwrap();
        dirty.held = 1;
        pipes.give_back(dirty);
        assert!(pipes.idle.is_empty());
        assert_eq!(pipes.open.get(), 0);
        let clean = pipes.take().unwrap();
        pipes.give_back(clean);
        assert_eq!(pipes.count(), (1, 1));
    }

    #[test]
    fn pipes_that_are_not_needed_are_closed() {
        let mut pipes = Pipes::new(Shortage::of(0));
        let held: Vec<_> = (0..3).filter_map(|_| pipes.take()).collect();
        held.into_iter().for_each(|pipe| pipes.give_back(pipe));
        pipes.trim();
        let needed = pipes.take().unwrap();
        pipes.give_back(needed);
        pipes.trim();
        assert_eq!(pipes.count(), (1, 1));
        pipes.trim();
        assert_eq!(pipes.count(), (0, 0));
    }

    #[test]
    fn a_worker_has_no_more_than_its_share() {
        let mut pipes = Pipes::new(Shortage::of(0));
        let mut held = Vec::new();
        while let Some(pipe) = pipes.take() {
            held.push(pipe);
            assert!(held.len() <= MOST_PIPES);
        }
        for pipe in held {
            pipes.give_back(pipe);
        }
        assert!(pipes.take().is_some());
    }

    #[test]
    fn a_session_that_panics_gives_its_pipe_back() {
        let mut pipes = Pipes::new(Shortage::of(0));
        for _ in 0..=MOST_PIPES {
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let _held = pipes.take().unwrap();
                std::panic::resume_unwind(Box::new("a defect"));
            }));
            assert!(outcome.is_err());
        }
        assert_eq!(pipes.count(), (0, 0));
    }
}
