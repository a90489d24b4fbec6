//! A state file is one daemon's: of two that write it, each undoes what an operator has told the other. Whoever
//! writes it holds a lock on a file beside it, since the state file itself is another one after every write. The
//! kernel lets go of the lock when the process ends, however that happens.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::writer::behind_links;

/// The right to write a state file.
#[derive(Debug)]
pub(super) struct Lock {
    _held: File,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum Refusal {
    /// Somebody else has it.
    Held,
    /// It cannot be told whether somebody has.
    Unknown(io::Error),
}

impl Lock {
    /// Takes it, if nobody has it now.
    pub(super) fn take(state: &Path) -> Result<Self, Refusal> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(beside(state))
            .map_err(Refusal::Unknown)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _held: file }),
            Err(Errno::WOULDBLOCK) => Err(Refusal::Held),
            Err(error) => Err(Refusal::Unknown(error.into())),
        }
    }

    /// The same, and waits a little for who is about to end.
    pub(super) fn await_it(state: &Path) -> Result<Self, Refusal> {
        let until = Instant::now() + PATIENCE;
        loop {
            match Self::take(state) {
                Err(Refusal::Held) if Instant::now() < until => thread::sleep(LOOK),
                taken => return taken,
            }
        }
    }
}

/// `state.json.lock`
fn beside(state: &Path) -> PathBuf {
    let mut name = behind_links(state).into_os_string();
    name.push(".lock");
    name.into()
}

/// A daemon that was told to stop has let go of it by then.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const LOOK: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_has_it_by_whatever_name() {
        let directory = tempfile::tempdir().unwrap();
        let [state, link] = ["state.json", "link"].map(|it| directory.path().join(it));
        std::os::unix::fs::symlink("state.json", &link).unwrap();
        let held = Lock::take(&state).unwrap();
        assert!(matches!(Lock::take(&link), Err(Refusal::Held)));
        let awaited = thread::spawn(move || Lock::await_it(&link));
        drop(held);
        assert!(awaited.join().unwrap().is_ok());
        let nowhere = directory.path().join("none/state.json");
        assert!(matches!(Lock::take(&nowhere), Err(Refusal::Unknown(_))));
    }
}
