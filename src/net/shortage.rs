//! Being short of descriptors, or of memory for them: said by whoever meets it, heeded by whoever accepts.
//!
//! A session takes two descriptors, and its client is there as soon as the first one is. Who is taken with the last of
//! them can only be reset when there is none to reach a backend with, while in the queue it could have waited. So
//! for a while after somebody met it, a client is taken only with another descriptor in reserve.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::model::Address;

/// It is over when nobody has met it for so long.
const WARY: Duration = Duration::from_secs(10);

/// What a process knows of it.
#[derive(Debug)]
pub struct Shortage {
    born: Instant,
    /// Until when it is felt, in milliseconds since then; 0 if it never was.
    until: AtomicU64,
}

impl Shortage {
    /// Nobody has met it yet. Lives as long as the process, so that workers need not count references.
    pub fn new() -> &'static Self {
        Box::leak(Box::new(Self {
            born: Instant::now(),
            until: AtomicU64::new(0),
        }))
    }

    /// Whether it was met lately.
    pub fn is_felt(&self) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until > 0 && self.now() < until
    }

    /// Somebody has met it who serves clients of `listener`. Said once for as long as it is felt.
    pub fn meet(&self, listener: Address, error: &io::Error) {
        let now = self.now();
        let until = now + WARY.as_millis() as u64;
        if self.until.swap(until, Ordering::Relaxed) <= now {
            tracing::warn!(%listener, %error, "accepting rests");
        }
    }

    /// Tells whether it is this that has kept a client of `listener` from its backend, and not a lack of ports.
    pub fn ask(&self, listener: Address) {
        if let Err(error) = reserve() {
            self.meet(listener, &error);
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// What a session needs to reach a backend with, to be let go of when its client is there.
///
/// # Errors
/// What the kernel is short of.
pub fn reserve() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
        .map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_felt_only_after_somebody_has_met_it() {
        let shortage = Shortage::new();
        assert!(!shortage.is_felt());
        let listener = Address::Inet("127.0.0.1:80".parse().unwrap());
        shortage.ask(listener);
        assert!(!shortage.is_felt(), "there is no lack of descriptors");
        shortage.meet(listener, &io::Error::from_raw_os_error(libc::EMFILE));
        assert!(shortage.is_felt());
    }
}
