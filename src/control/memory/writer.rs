//! The thread that writes what is remembered: a disk that is slow, full or gone delays nothing else.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::SystemTime;

use tokio::sync::oneshot;

use super::file::{self, Contents};
use super::lock::Lock;

/// Whoever has something to write.
#[derive(Debug)]
pub(super) struct Writer {
    jobs: SyncSender<Job>,
    state: Arc<Path>,
}

/// Tells that a state is on disk; dropped without a word when it could not be written.
pub(super) type Done = oneshot::Sender<()>;

/// Why a job was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The disk does not keep up: later there may be room.
    Busy,
    /// The thread has ended.
    Gone,
}

#[derive(Debug)]
pub(super) enum Job {
    /// What is remembered now.
    Save(Contents, Option<Done>),
    /// A configuration that has taken effect.
    Keep(Arc<str>),
}

impl Writer {
    /// Starts a thread that writes to `state` and, beside it, to `last_good`. When the writer is dropped, it ends
    /// once all is written, and lets go of the `lock`.
    pub(super) fn start(
        state: PathBuf,
        last_good: PathBuf,
        lock: Option<Lock>,
    ) -> io::Result<Self> {
        let (jobs, inbox) = sync_channel(MOST_JOBS);
        let state: Arc<Path> = state.into();
        let writer = Self {
            jobs,
            state: Arc::clone(&state),
        };
        thread::Builder::new()
            .name("state".to_owned())
            .spawn(move || {
                run(&inbox, &state, &last_good);
                drop(lock);
            })?;
        Ok(writer)
    }

    /// Where the state goes.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Has `contents` written, and `done` told. Never waits.
    pub(super) fn save(&self, contents: Contents, done: Option<Done>) -> Result<(), Refusal> {
        self.send(Job::Save(contents, done))
    }

    /// Has a configuration written. Never waits.
    pub(super) fn keep(&self, text: Arc<str>) -> Result<(), Refusal> {
        self.send(Job::Keep(text))
    }

    fn send(&self, job: Job) -> Result<(), Refusal> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::Busy,
            TrySendError::Disconnected(_) => Refusal::Gone,
        })
    }

    /// One that writes nothing: up to `most` jobs wait at the other end.
    #[cfg(test)]
    pub(super) fn idle(most: usize) -> (Self, Receiver<Job>) {
        let (jobs, inbox) = sync_channel(most);
        let state = Path::new("nowhere").into();
        (Self { jobs, state }, inbox)
    }
}

fn run(inbox: &Receiver<Job>, state: &Path, last_good: &Path) {
    let (mut state_fails, mut keep_fails) = (false, false);
    while let Ok(first) = inbox.recv() {
        // Of all that waits only the latest matters.
        let (mut contents, mut text) = (None, None);
        let mut waiting = Vec::new();
        for job in std::iter::once(first).chain(inbox.try_iter().take(MOST_JOBS)) {
            match job {
                Job::Save(latest, done) => {
                    contents = Some(latest);
                    waiting.extend(done);
                }
                Job::Keep(latest) => text = Some(latest),
            }
        }
        if let Some(text) = text {
            let written = write(last_good, text.as_bytes());
            tell(&mut keep_fails, last_good, &written);
        }
        if let Some(contents) = contents {
            let bytes = file::encode(&contents, SystemTime::now()).map_err(io::Error::from);
            let written = bytes.and_then(|bytes| write(state, &bytes));
            tell(&mut state_fails, state, &written);
            if written.is_ok() {
                for done in waiting {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(());
                }
            }
        }
    }
}

/// Says once that a file cannot be written, and once that it can be again.
fn tell(fails: &mut bool, path: &Path, written: &io::Result<()>) {
    let failed = std::mem::replace(fails, written.is_err());
    match written {
        Err(error) if !failed => {
            tracing::warn!(file = %path.display(), %error, "state not saved");
        }
        Ok(()) if failed => tracing::info!(file = %path.display(), "state saved again"),
        Ok(()) | Err(_) => {}
    }
}

/// Replaces the file in one step: whoever reads it, after a crash or a power failure too, finds all of
/// the old one or all of the new one.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A link stays one: what it leads to is replaced.
    let path = &behind_links(path);
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        // A configuration may hold secrets.
        .mode(0o600)
        .open(&draft)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    // The name is as durable as the content once the directory is.
    match path.parent() {
        Some(directory) if directory != Path::new("") => File::open(directory)?.sync_all(),
        Some(_) | None => Ok(()),
    }
}

/// Where `path` leads, be there a file or not.
pub(super) fn behind_links(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match fs::read_link(&path) {
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => break,
        }
    }
    path
}

/// Links that are followed one after the other; the kernel follows as many.
const MOST_LINKS: usize = 40;

/// Jobs that wait; the next one comes too early then.
const MOST_JOBS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nobody_else_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_stays_a_link_and_what_it_leads_to_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let [link, hop, file] = ["link", "hop", "data/state"].map(|it| directory.path().join(it));
        fs::create_dir(directory.path().join("data")).unwrap();
        std::os::unix::fs::symlink(&hop, &link).unwrap();
        std::os::unix::fs::symlink("data/state", &hop).unwrap();
        for text in ["one", "two"] {
            write(&link, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::symlink_metadata(&hop).unwrap().is_symlink());
    }

    #[test]
    fn done_means_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let writer = Writer::start(path.clone(), directory.path().join("good"), None).unwrap();
        let (done, told) = oneshot::channel();
        writer.save(Contents::default(), Some(done)).unwrap();
        told.blocking_recv().unwrap();
        assert!(fs::read_to_string(&path).unwrap().contains("\"version\":1"));
    }

    #[test]
    fn what_cannot_be_written_is_not_called_done() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = directory.path().join("none/state.json");
        let writer = Writer::start(nowhere.clone(), nowhere.with_extension("toml"), None).unwrap();
        let (done, told) = oneshot::channel();
        writer.save(Contents::default(), Some(done)).unwrap();
        assert!(told.blocking_recv().is_err());
    }
}
