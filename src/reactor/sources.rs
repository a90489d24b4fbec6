//! What descriptors are ready for, as epoll(7) tells of it edge by edge.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, Timespec, eventfd};
use rustix::io::Errno;
use slab::Slab;

use super::Reactor;

/// So many events are taken from the kernel at once.
const EVENTS: usize = 256;
/// The bell's event; no source is born with that number.
const BELL: u64 = u64::MAX;

/// The descriptors of one thread.
pub(super) struct Sources {
    epoll: OwnedFd,
    all: RefCell<Slab<Entry>>,
    /// How many there ever were.
    born: Cell<u32>,
    events: RefCell<Vec<Event>>,
    /// Who is to be woken, while that is gathered.
    woken: RefCell<Vec<Waker>>,
}

struct Entry {
    /// Tells it from those that had its place before.
    born: u32,
    ready: Ready,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// What a descriptor is ready for, as bits. What has closed stays so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ready(u8);

impl Ready {
    const NOTHING: Self = Self(0);
    const READABLE: Self = Self(1);
    const WRITABLE: Self = Self(2);
    const READ_CLOSED: Self = Self(4);
    const WRITE_CLOSED: Self = Self(8);
    const URGENT: Self = Self(16);
    /// What a reader waits for, …
    const READ: Self = Self(Self::READABLE.0 | Self::READ_CLOSED.0);
    /// … and a writer.
    const WRITE: Self = Self(Self::WRITABLE.0 | Self::WRITE_CLOSED.0);

    fn has(self, some: Self) -> bool {
        self.0 & some.0 != 0
    }

    fn add(&mut self, more: Self) {
        self.0 |= more.0;
    }

    fn remove(&mut self, less: Self) {
        self.0 &= !less.0;
    }

    fn of(event: EventFlags) -> Self {
        let mut ready = Self::NOTHING;
        let mut if_any = |flags: EventFlags, then: Self| {
            if event.intersects(flags) {
                ready.add(then);
            }
        };
        if_any(EventFlags::IN | EventFlags::PRI, Self::READABLE);
        if_any(EventFlags::OUT, Self::WRITABLE);
        if_any(EventFlags::PRI, Self::URGENT);
        if_any(EventFlags::HUP | EventFlags::RDHUP, Self::READ_CLOSED);
        if_any(EventFlags::HUP | EventFlags::ERR, Self::WRITE_CLOSED);
        ready
    }
}

impl Sources {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            all: RefCell::default(),
            born: Cell::default(),
            events: RefCell::new(Vec::with_capacity(EVENTS)),
            woken: RefCell::default(),
        })
    }

    /// What other threads write to in order to end this one's sleep. It is never read: every write is an edge.
    pub(super) fn bell(&self) -> io::Result<OwnedFd> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let flags = EventFlags::IN | EventFlags::ET;
        epoll::add(&self.epoll, &bell, EventData::new_u64(BELL), flags)?;
        Ok(bell)
    }

    /// Sleeps until something happens, but no longer than `most`, and wakes whom it concerns. Tells when the
    /// sleep was over.
    pub(super) fn look(&self, most: Option<Duration>) -> io::Result<Instant> {
        let mut events = self.events.borrow_mut();
        events.clear();
        let most = most.map(in_milliseconds);
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            most.as_ref(),
        ) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let awake = Instant::now();
        let mut woken = self.woken.borrow_mut();
        let mut all = self.all.borrow_mut();
        for event in events.iter() {
            let Event { flags, data } = *event;
            if let Some(entry) = all.get_mut(place_of(data.u64()))
                && u64::from(entry.born) == data.u64() >> u32::BITS
            {
                entry.tell(Ready::of(flags), &mut woken);
            }
        }
        // Whatever they do, no list is borrowed by then.
        drop(all);
        woken.drain(..).for_each(Waker::wake);
        Ok(awake)
    }

    fn add(&self, fd: impl AsFd, interest: EventFlags) -> io::Result<u32> {
        let mut all = self.all.borrow_mut();
        // The bell has the greatest number.
        let born = self.born.get().wrapping_add(1) % u32::MAX;
        self.born.set(born);
        let vacant = all.vacant_entry();
        // No process has as many descriptors.
        let place = vacant.key() as u32;
        let data = EventData::new_u64(u64::from(born) << u32::BITS | u64::from(place));
        epoll::add(&self.epoll, fd, data, interest | EventFlags::ET)?;
        vacant.insert(Entry {
            born,
            ready: Ready::NOTHING,
            reader: None,
            writer: None,
        });
        Ok(place)
    }
}

/// Which of a source's two numbers is its place.
fn place_of(data: u64) -> usize {
    (data & u64::from(u32::MAX)) as usize
}

/// Rounded up: whoever wakes too early has to wait again.
fn in_milliseconds(time: Duration) -> Timespec {
    let milliseconds = time.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i64;
    Timespec {
        tv_sec: milliseconds / 1000,
        tv_nsec: (milliseconds % 1000) * 1_000_000,
    }
}

impl Entry {
    fn tell(&mut self, ready: Ready, woken: &mut Vec<Waker>) {
        self.ready.add(ready);
        if ready.has(Ready::READ) {
            woken.extend(self.reader.take());
        }
        if ready.has(Ready::WRITE) {
            woken.extend(self.writer.take());
        }
    }
}

/// A descriptor that a reactor can wait for.
pub trait Descriptor: AsFd {
    /// Whether other threads have it as well, so that it stays open when this is dropped, and epoll has to be told.
    const SHARED: bool;
}

impl Descriptor for OwnedFd {
    const SHARED: bool = false;
}

impl Descriptor for Arc<OwnedFd> {
    const SHARED: bool = true;
}

/// A descriptor that this thread's reactor watches. What it is ready for is known without asking the
/// kernel, and stays so until a call that found otherwise says it.
pub struct Source<D: Descriptor> {
    fd: D,
    place: u32,
    reactor: Rc<Reactor>,
}

impl<D: Descriptor> Source<D> {
    /// Watches whether `fd` can be read, and is told of nothing else. What happens to one that threads share wakes
    /// one of them that sleeps, not all.
    ///
    /// # Errors
    /// What the kernel says; with the descriptor, which is as before.
    pub fn readable(fd: D) -> Result<Self, (D, io::Error)> {
        // Where one alone is woken, epoll tells of no more than this and of errors.
        let besides = match D::SHARED {
            true => EventFlags::EXCLUSIVE,
            false => EventFlags::RDHUP,
        };
        Self::new(fd, EventFlags::IN | besides)
    }

    /// Watches whether `fd` can be read and written, and whether there is something urgent.
    ///
    /// # Errors
    /// As [`readable`](Self::readable).
    pub fn both_ways(fd: D) -> Result<Self, (D, io::Error)> {
        let both = EventFlags::IN | EventFlags::RDHUP | EventFlags::OUT;
        Self::new(fd, both | EventFlags::PRI)
    }

    fn new(fd: D, interest: EventFlags) -> Result<Self, (D, io::Error)> {
        let reactor = Reactor::current();
        match reactor.sources.add(&fd, interest) {
            Ok(place) => Ok(Self { fd, place, reactor }),
            Err(error) => Err((fd, error)),
        }
    }

    /// The descriptor.
    pub fn get_ref(&self) -> &D {
        &self.fd
    }

    /// Waits until a read has something to tell: bytes, an end or an error.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wait(Ready::READ, |entry| &mut entry.reader, cx)
    }

    /// Waits until a write has something to tell: room or an error.
    pub fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.wait(Ready::WRITE, |entry| &mut entry.writer, cx)
    }

    /// A read has found nothing more. That the peer has closed stays known.
    pub fn drained(&self) {
        self.with(|entry| entry.ready.remove(Ready::READABLE));
    }

    /// A write has found no room.
    pub fn full(&self) {
        self.with(|entry| entry.ready.remove(Ready::WRITABLE));
    }

    /// Whether the peer will send nothing more: what is there to be read is all there will be.
    pub fn is_read_closed(&self) -> bool {
        self.with(|entry| entry.ready.has(Ready::READ_CLOSED))
    }

    /// Whether there was an error, or both directions have ended.
    pub fn is_write_closed(&self) -> bool {
        self.with(|entry| entry.ready.has(Ready::WRITE_CLOSED))
    }

    /// Whether something urgent has ever come.
    pub fn is_urgent(&self) -> bool {
        self.with(|entry| entry.ready.has(Ready::URGENT))
    }

    fn wait(
        &self,
        what: Ready,
        waiting: impl FnOnce(&mut Entry) -> &mut Option<Waker>,
        cx: &Context<'_>,
    ) -> Poll<()> {
        let before = self.with(|entry| {
            if entry.ready.has(what) {
                return Err(());
            }
            let waiting = waiting(entry);
            let is_known = waiting.as_ref().is_some_and(|it| it.will_wake(cx.waker()));
            Ok(if is_known {
                None
            } else {
                waiting.replace(cx.waker().clone())
            })
        });
        match before {
            Err(()) => Poll::Ready(()),
            // Let go of when no list is borrowed.
            Ok(before) => {
                drop(before);
                Poll::Pending
            }
        }
    }

    #[cfg(test)]
    pub(super) fn place(&self) -> u32 {
        self.place
    }

    fn with<T>(&self, act: impl FnOnce(&mut Entry) -> T) -> T {
        act(&mut self.reactor.sources.all.borrow_mut()[self.place as usize])
    }
}

impl<D: Descriptor> Drop for Source<D> {
    fn drop(&mut self) {
        let sources = &self.reactor.sources;
        if D::SHARED
            && let Err(error) = epoll::delete(&sources.epoll, &self.fd)
        {
            tracing::debug!(%error, "cannot leave epoll");
        }
        // An event that is still to come, because a child of this process has not closed its copy yet,
        // finds another number in its place. Wakers are let go of when nothing is borrowed.
        let entry = sources.all.borrow_mut().remove(self.place as usize);
        drop(entry);
    }
}

impl<D: Descriptor> AsFd for Source<D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl<D: Descriptor> fmt::Debug for Source<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.fd.as_fd()).finish()
    }
}
