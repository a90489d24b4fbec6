//! Being short of descriptors, or of memory for them: said by whoever meets it, heeded by whoever accepts.
//!
//! A session takes two descriptors, and its client is there as soon as the first one is. Who is taken with the last of
//! them can only be reset when there is none to reach a backend with, while in the queue it could have waited. So
//! once somebody has met it, a client is taken only with another descriptor in reserve, which goes with it, from
//! worker to worker and through whatever it waits for, until its backend is dialled with it. That ends with the
//! first client that can be taken so when nobody has met it for a while.
//!
//! Meanwhile control has the [`spares`](super::spares) for what it opens, and looks once in a while whether there is
//! anything else left: clients that are all served meet no shortage, and operators would.
//!
//! The one in reserve is an IPv4 socket. For a backend over IPv6 or at a path, and for a second try, it is let go right
//! before another one is made, and whoever comes in between takes it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto};

use super::spares::{Spares, spares_of};

/// It may be over when nobody has met it for so long.
const WARY: Duration = Duration::from_secs(10);

/// What a process knows of it.
#[derive(Debug)]
pub struct Shortage {
    born: Instant,
    /// Until when it is certain, in milliseconds since `born`; 0 if it is not felt.
    until: AtomicU64,
    /// What the kernel said last.
    code: AtomicI32,
    spares: Spares,
}

/// What a client is taken with.
#[derive(Debug)]
pub struct Reserve {
    seat: OwnedFd,
    socket: OwnedFd,
}

impl Reserve {
    /// Its place, should it be given one that is control's, and what its backend is reached with.
    pub fn parts(self) -> (Option<OwnedFd>, Option<OwnedFd>) {
        (Some(self.seat), Some(self.socket))
    }
}

impl Shortage {
    /// Nobody has met it yet where the limit is `descriptors`. Lives as long as the process, so that workers need
    /// not count references.
    pub fn of(descriptors: usize) -> &'static Self {
        let spares = Spares::keep(spares_of(descriptors));
        Box::leak(Box::new(Self::since(Instant::now(), spares)))
    }

    fn since(born: Instant, spares: Spares) -> Self {
        Self {
            born,
            until: AtomicU64::new(0),
            code: AtomicI32::new(0),
            spares,
        }
    }

    /// Somebody has met it.
    pub fn meet(&self, error: &io::Error) {
        let now = self.now();
        let until = now.saturating_add(WARY.as_millis() as u64);
        let code = error.raw_os_error().unwrap_or(libc::EMFILE);
        self.code.store(code, Ordering::Relaxed);
        if self.until.swap(until, Ordering::Relaxed) <= now {
            self.spares.let_go();
        }
    }

    /// Looks whether workers have nothing left, though nobody has met it, or whether it is over for control.
    pub fn look(&self) {
        if let Err(error) = self.spares.look() {
            self.meet(&error.into());
        }
        match self.lately() {
            // Whoever met it just when it was to be over may have left them held.
            Some(_) => self.spares.let_go(),
            None => self.spares.take_back(|| self.lately().is_none()),
        }
    }

    /// What a worker was given, if it may have it, or in its place `seat` or another one.
    ///
    /// # Errors
    /// `fd` again, when whatever is left is control's.
    pub(super) fn place(
        &self,
        fd: OwnedFd,
        seat: Option<OwnedFd>,
    ) -> Result<OwnedFd, (OwnedFd, io::Error)> {
        self.spares.place(fd, seat)
    }

    /// Whether it is control's.
    pub(super) fn is_spare(&self, fd: &OwnedFd) -> bool {
        self.spares.is_one(fd)
    }

    /// What the next client is taken with, if it is felt: a place of its own, and a socket that an IPv4 backend is
    /// reached with, and that makes room for another one.
    ///
    /// # Errors
    /// What the kernel is short of: the client has to wait.
    pub fn reserve(&self) -> io::Result<Option<Reserve>> {
        if self.until.load(Ordering::Relaxed) == 0 {
            return Ok(None);
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (family, kind) = (AddressFamily::INET, SocketType::STREAM);
        let socket = rustix::net::socket_with(family, kind, flags, Some(ipproto::TCP))?;
        let socket = self.place(socket, None).map_err(|(_, error)| error)?;
        let seat = self.spares.another(&socket)?;
        Ok(Some(Reserve { seat, socket }))
    }

    /// A client was taken with a reserve: it is over, unless somebody has met it lately.
    pub fn was_spared(&self) {
        let until = self.until.load(Ordering::Relaxed);
        if until <= self.now() {
            // Who meets it at this moment is right.
            let (set, failed) = (Ordering::Relaxed, Ordering::Relaxed);
            let _ = self.until.compare_exchange(until, 0, set, failed);
        }
    }

    /// What the kernel said to the last of those who have met it lately.
    pub fn lately(&self) -> Option<io::Error> {
        let is_late = self.until.load(Ordering::Relaxed) > self.now();
        is_late.then(|| io::Error::from_raw_os_error(self.code.load(Ordering::Relaxed)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn met(shortage: &Shortage) {
        shortage.meet(&io::Error::from_raw_os_error(libc::EMFILE));
    }

    #[test]
    fn a_reserve_is_taken_only_after_somebody_has_met_it() {
        let shortage = Shortage::of(1 << 10);
        assert!(shortage.reserve().unwrap().is_none());
        assert!(shortage.lately().is_none());
        met(shortage);
        assert!(shortage.reserve().unwrap().is_some());
        let said = shortage.lately().unwrap().raw_os_error();
        assert_eq!(said, Some(libc::EMFILE));
        shortage.was_spared();
        assert!(shortage.reserve().unwrap().is_some(), "it was met just now");
    }

    #[test]
    fn it_is_over_only_when_a_client_was_taken_after_its_time() {
        let long_ago = Instant::now().checked_sub(2 * WARY).unwrap();
        let mut shortage = Shortage::since(long_ago, Spares::keep(1));
        *shortage.until.get_mut() = 1;
        assert!(shortage.reserve().unwrap().is_some(), "nobody has tried");
        assert!(shortage.lately().is_none(), "nobody has met it lately");
        met(&shortage);
        shortage.was_spared();
        assert!(shortage.reserve().unwrap().is_some(), "it was met again");
        *shortage.until.get_mut() = 1;
        shortage.was_spared();
        assert!(shortage.reserve().unwrap().is_none());
    }

    #[test]
    fn what_was_held_again_just_when_it_was_met_is_let_go_of_with_the_next_look() {
        let shortage = Shortage::since(Instant::now(), Spares::keep(1));
        met(&shortage);
        // As if it had been over for whoever took them back.
        shortage.spares.take_back(|| true);
        met(&shortage);
        shortage.look();
        assert!(shortage.spares.are_let_go());
    }
}
