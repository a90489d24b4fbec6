//! Descriptors that are kept for control: whoever looks into a shortage has to get in, a changed file has to be
//! read and the state written, while sessions hold whatever else there is.
//!
//! They are numbers, held from the start on, and let go of when somebody meets a shortage. The kernel gives the
//! lowest number that is free, so a worker may be given one of them, too: it takes another one in its place, or
//! does without. So they are control's until the shortage is over, and held again then. What control keeps for
//! long, such as a listener that a reload opens meanwhile, is missing among them until it is closed.

use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec};

/// So many: 32 for whoever comes to the admin endpoint over TCP, so that a flood there has what it may have and no
/// more; 16 for operators at its path and whatever they have read and written; and 16 for checks. A small limit
/// leaves most to sessions.
const MOST: usize = 64;

/// How many are kept where the limit is `descriptors`.
pub fn spares_of(descriptors: usize) -> usize {
    MOST.min(descriptors / 8)
}

/// The numbers that are kept.
#[derive(Debug)]
pub(super) struct Spares {
    numbers: Range<RawFd>,
    held: Mutex<Vec<OwnedFd>>,
    /// What is there under each of them; `None` if there was not even a descriptor for this.
    seed: Option<OwnedFd>,
}

impl Spares {
    /// Keeps `most`, or as many as there are. Nobody who is to do without them has a descriptor yet.
    pub(super) fn keep(most: usize) -> Self {
        let seed = eventfd(0, EventfdFlags::CLOEXEC).ok();
        let another = || fcntl_dupfd_cloexec(seed.as_ref()?, 0).ok();
        let held: Vec<_> = std::iter::repeat_with(another)
            .map_while(|it| it)
            .take(most)
            .collect();
        let numbers = held.iter().map(AsRawFd::as_raw_fd);
        let numbers = match (numbers.clone().min(), numbers.max()) {
            (Some(first), Some(last)) => first..last + 1,
            _ => 0..0,
        };
        Self {
            numbers,
            held: Mutex::new(held),
            seed,
        }
    }

    /// Leaves them to control.
    pub(super) fn let_go(&self) {
        self.held().clear();
    }

    /// Holds those that are free again, if `is_over` still.
    pub(super) fn take_back(&self, is_over: impl FnOnce() -> bool) {
        let mut held = self.held();
        let Some(seed) = self.seed.as_ref().filter(|_| is_over()) else {
            return;
        };
        while held.len() < self.numbers.len() {
            match fcntl_dupfd_cloexec(seed, self.numbers.start) {
                Ok(spare) if self.is_one(&spare) => held.push(spare),
                // Control has taken the rest, and may keep it.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Whether it is one of them.
    pub(super) fn is_one(&self, fd: &OwnedFd) -> bool {
        self.numbers.contains(&fd.as_raw_fd())
    }

    /// What a worker was given, under another number if it is to do without that one: that of `seat`, or any
    /// that is free.
    ///
    /// # Errors
    /// `fd` again, when there is no other number.
    pub(super) fn place(
        &self,
        fd: OwnedFd,
        seat: Option<OwnedFd>,
    ) -> Result<OwnedFd, (OwnedFd, io::Error)> {
        if !self.is_one(&fd) {
            return Ok(fd);
        }
        let placed = match seat {
            Some(mut seat) => dup3(&fd, &mut seat, DupFlags::CLOEXEC).map(|()| seat),
            None => self.another(&fd),
        };
        placed.map_err(|error| (fd, error.into()))
    }

    /// One more descriptor of what `fd` is, with a number that a worker may have.
    pub(super) fn another(&self, fd: &OwnedFd) -> Result<OwnedFd, Errno> {
        fcntl_dupfd_cloexec(fd, self.numbers.end).map_err(|error| match error {
            // The limit was lowered to less than that.
            Errno::INVAL => Errno::MFILE,
            error => error,
        })
    }

    /// Whether workers have nothing left.
    pub(super) fn look(&self) -> Result<(), Errno> {
        self.seed
            .as_ref()
            .map_or(Err(Errno::MFILE), |seed| self.another(seed).map(drop))
    }

    #[cfg(test)]
    pub(super) fn are_let_go(&self) -> bool {
        self.held().is_empty()
    }

    fn held(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_number_that_is_kept_is_changed_for_another_one() {
        let spares = Spares::keep(4);
        spares.let_go();
        let (near, far) = std::os::unix::net::UnixStream::pair().unwrap();
        let far = OwnedFd::from(far);
        // Another test's thread may have taken all of them meanwhile.
        let low = fcntl_dupfd_cloexec(&far, spares.numbers.start).unwrap();
        let seat = spares.another(&far).unwrap();
        let number = seat.as_raw_fd();
        drop(far);
        let was_kept = spares.is_one(&low);
        let placed = spares.place(low, Some(seat)).unwrap();
        assert!(!spares.is_one(&placed));
        assert!(!was_kept || placed.as_raw_fd() == number);
        File::from(OwnedFd::from(near)).write_all(b"here").unwrap();
        let mut said = [0; 4];
        File::from(placed).read_exact(&mut said).unwrap();
        assert_eq!(&said, b"here");
    }

    #[test]
    fn they_are_held_again_only_when_it_is_over() {
        let spares = Spares::keep(4);
        let held = || spares.held().len();
        assert_eq!((spares.numbers.len() >= 4, held()), (true, 4));
        spares.let_go();
        spares.take_back(|| false);
        assert_eq!(held(), 0);
        spares.take_back(|| true);
        assert!(held() <= spares.numbers.len());
        assert!(spares.held().iter().all(|it| spares.is_one(it)));
    }

    #[test]
    fn a_small_limit_leaves_most_to_sessions() {
        assert_eq!(spares_of(64), 8);
        assert_eq!(spares_of(1 << 20), MOST);
    }
}
