//! Watching files of backends: inotify on their directories for speed, a look at the file itself
//! every few seconds for certainty.
//!
//! A change is read once it has settled. That a look finds the same file again costs one `stat`, so
//! whatever happens in the directory is a reason for one: a rename over the file, a rewrite in place, and
//! the exchange of a symbolic link on the way to it look alike from here.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Asker, Discovered, ask_all};
use crate::config::{ServiceConfig, load_listed};
use crate::discovery::questions;

/// A change is read when nothing has happened for this long.
const SETTLED: Duration = Duration::from_millis(50);
/// After a write to a file that is still open for writing, it takes this long.
const SETTLED_WHILE_OPEN: Duration = Duration::from_millis(500);
/// It is read after this long at the latest, however much happens.
const SETTLED_AT_LAST: Duration = Duration::from_secs(2);
/// A file system's clock ticks a few times in this.
const FRESH: Duration = Duration::from_millis(20);
/// Between two looks that nothing has asked for: network file systems tell nobody.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// Events of one read.
const EVENTS: usize = 16 * 1024;

/// A file to watch.
#[derive(Clone, Debug)]
pub(in crate::control) struct File {
    /// In whose light its content is checked.
    pub(in crate::control) service: Arc<ServiceConfig>,
    /// Where it is.
    pub(in crate::control) path: Arc<Path>,
    /// What it was when it was last read.
    pub(in crate::control) seen: Seen,
    /// The most that the look-ups of its names take together.
    pub(in crate::control) resolve_timeout: Duration,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::control) struct Seen {
    stat: Option<[i64; 7]>,
    /// It was written a moment ago: another write may still leave the same times behind.
    fresh: bool,
}

impl Seen {
    /// The file at `path`, as it is now; nothing when it is not there.
    pub(in crate::control) fn at(path: &Path) -> Self {
        let number = |it: u64| i64::from_ne_bytes(it.to_ne_bytes());
        let of = |it: fs::Metadata| {
            [
                number(it.dev()),
                number(it.ino()),
                number(it.size()),
                it.mtime(),
                it.mtime_nsec(),
                it.ctime(),
                it.ctime_nsec(),
            ]
        };
        let metadata = fs::metadata(path).ok();
        let written = metadata.as_ref().and_then(|it| it.modified().ok());
        Self {
            fresh: written.is_some_and(|it| it.elapsed().is_ok_and(|age| age < FRESH)),
            stat: metadata.map(of),
        }
    }

    /// Whether there was a file.
    pub(in crate::control) fn is_there(&self) -> bool {
        self.stat.is_some()
    }
}

/// When a file was read, and what it was then.
#[derive(Clone, Copy, Debug)]
pub(in crate::control) struct Reading {
    pub(in crate::control) at: std::time::Instant,
    pub(in crate::control) seen: Seen,
}

impl Reading {
    /// The file at `path`, which is to be read next.
    pub(in crate::control) fn of(path: &Path) -> Self {
        Self {
            at: std::time::Instant::now(),
            seen: Seen::at(path),
        }
    }

    /// Whether nobody has written since `last`, nor a moment ago.
    pub(in crate::control) fn is_quiet_since(&self, last: &Self) -> bool {
        self.seen == last.seen && !self.seen.fresh
    }
}

/// A task that watches; ended by its drop.
#[derive(Debug)]
pub(super) struct Watcher(AbortHandle);

impl Drop for Watcher {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Watcher {
    /// Watches `files` and tells what becomes of them.
    pub(super) fn start(
        files: Vec<File>,
        generation: u64,
        asker: watch::Receiver<Asker>,
        found: mpsc::Sender<Discovered>,
    ) -> Self {
        let inotify = Inotify::new().map_err(|error| {
            let seconds = LOOK_AGAIN.as_secs();
            tracing::warn!(%error, "no inotify: files of backends are looked at every {seconds} s");
        });
        let watcher = Watch {
            looks: vec![Seen::default(); files.len()],
            files,
            generation,
            inotify: inotify.ok(),
            asker,
            found,
        };
        Self(tokio::spawn(watcher.run()).abort_handle())
    }
}

struct Watch {
    files: Vec<File>,
    /// What each was at the last look.
    looks: Vec<Seen>,
    generation: u64,
    inotify: Option<Inotify>,
    asker: watch::Receiver<Asker>,
    found: mpsc::Sender<Discovered>,
}

impl Watch {
    async fn run(mut self) {
        // Watching comes before looking: what changes in between is seen by one of the two.
        self.look_at_directories().await;
        // What has changed since it was read for the configuration may be half written.
        let mut settled = match &self.inotify {
            Some(inotify) => {
                inotify.settle(SETTLED_WHILE_OPEN).await;
                true
            }
            None => false,
        };
        while self.look(settled).await {
            settled = match &self.inotify {
                Some(inotify) => match timeout(LOOK_AGAIN, inotify.wait()).await {
                    Ok(quiet) => {
                        inotify.settle(quiet).await;
                        true
                    }
                    Err(_) => false,
                },
                None => {
                    sleep(LOOK_AGAIN).await;
                    false
                }
            };
            self.look_at_directories().await;
        }
    }

    /// Keeps the directories watched that the files are in now, links on the way included.
    async fn look_at_directories(&mut self) {
        if let Some(inotify) = &mut self.inotify {
            let paths = self.files.iter().map(|file| Arc::clone(&file.path));
            inotify.watch(paths.collect()).await;
        }
    }

    /// Reads what has changed: at once when that has `settled`, else when it is the same as at the
    /// last look. Says whether anybody is still interested.
    async fn look(&mut self, settled: bool) -> bool {
        for (file, look) in self.files.iter_mut().zip(&mut self.looks) {
            let path = Arc::clone(&file.path);
            let service = Arc::clone(&file.service);
            let (last, before) = (file.seen, *look);
            let read = tokio::task::spawn_blocking(move || {
                // Before the content: a write during the read is another change.
                let reading = Reading::of(&path);
                let is_due = reading.seen != last && (settled || reading.seen == before);
                (reading, is_due.then(|| load_listed(&path, &service)))
            });
            // A panic is logged, and the next look tries again.
            let Ok((reading, list)) = read.await else {
                continue;
            };
            *look = reading.seen;
            let Some(list) = list else { continue };
            file.seen = reading.seen;
            let list = match list {
                Err(rejected) => Err(rejected),
                Ok(listed) => {
                    // Names are looked up first, so that a backend does not enter without its address.
                    let asker = self.asker.borrow().clone();
                    let questions: HashSet<_> = questions(&listed.backends).collect();
                    let answers = ask_all(questions, &asker, file.resolve_timeout).await;
                    Ok((listed, answers))
                }
            };
            let service = Arc::clone(&file.service.name);
            let discovered = Discovered::File {
                service,
                generation: self.generation,
                reading,
                list,
            };
            if self.found.send(discovered).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Every directory in which an entry changes when the file behind `path` becomes another: its own,
/// and those of each symbolic link on the way.
fn directories(path: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let link = fs::read_link(&path);
        all.push(parent.clone());
        match link {
            Ok(to) => path = parent.join(to),
            Err(_) => break,
        }
    }
    // A link may stand for a directory of the way: Kubernetes exchanges one like that.
    if let Ok(real) = fs::canonicalize(&path)
        && let Some(parent) = real.parent()
    {
        all.push(parent.to_owned());
    }
    all
}

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// The kernel's word that something has happened in a directory.
#[derive(Debug)]
struct Inotify {
    events: AsyncFd<Arc<OwnedFd>>,
    watched: Watched,
    /// What the files are called there.
    names: HashSet<OsString>,
}

/// Directories, and what the kernel calls their watches.
type Watched = HashMap<PathBuf, i32>;

impl Inotify {
    #[expect(
        unsafe_code,
        reason = "tokio has no safe way to wait for a descriptor that is no socket"
    )]
    fn new() -> io::Result<Self> {
        let events = Arc::new(inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?);
        // SAFETY: an `OwnedFd` is the same open descriptor until the last `Arc` of it is dropped, and
        // `AsyncFd` drops its own after it has deregistered it; nobody here takes that out or replaces it.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
        Ok(Self {
            events,
            watched: Watched::new(),
            names: HashSet::new(),
        })
    }

    /// Watches the directories of these files and no other. Beside the loop: a network file system that
    /// hangs would hold up everything.
    async fn watch(&mut self, paths: Vec<Arc<Path>>) {
        let events = Arc::clone(self.events.get_ref());
        let before = std::mem::take(&mut self.watched);
        let watching = tokio::task::spawn_blocking(move || {
            let directories = paths.iter().flat_map(|path| directories(path));
            let watched = Self::exchange(&events, before, directories);
            let names = paths.iter().flat_map(|path| names(path)).collect();
            (watched, names)
        });
        // A panic is logged, and the next look begins anew.
        (self.watched, self.names) = watching.await.unwrap_or_default();
    }

    /// Watches `directories` in place of those `before`. One that cannot be is looked at now and then.
    fn exchange(
        events: &OwnedFd,
        mut before: Watched,
        directories: impl Iterator<Item = PathBuf>,
    ) -> Watched {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE_SELF
            | WatchFlags::ONLYDIR;
        let mut watched = Watched::new();
        for directory in directories {
            before.remove(&directory);
            // Asking again for what is watched changes nothing, unless the directory is another.
            if let Ok(watch) = inotify::add_watch(events, &directory, flags) {
                watched.insert(directory, watch);
            }
        }
        for (_, watch) in before {
            if !watched.values().any(|other| *other == watch) {
                // The kernel may have ended it already.
                let _ = inotify::remove_watch(events, watch);
            }
        }
        watched
    }

    /// Waits until nothing happens any more, which should be for `quiet`.
    async fn settle(&self, quiet: Duration) {
        let mut settled = Instant::now() + quiet;
        let at_last = Instant::now() + SETTLED_AT_LAST;
        loop {
            tokio::select! {
                () = sleep_until(settled.min(at_last)) => return,
                quiet = self.wait() => settled = Instant::now() + quiet,
            }
        }
    }

    /// Waits for the next events, and tells how long it should be quiet after them.
    async fn wait(&self) -> Duration {
        loop {
            let Ok(mut ready) = self.events.readable().await else {
                return SETTLED;
            };
            let read = ready.try_io(|events| drain(events.as_fd(), &self.names));
            if let Ok(quiet) = read {
                return quiet.unwrap_or(SETTLED);
            }
        }
    }
}

/// What is written to in place when the file at `path` is.
fn names(path: &Path) -> impl Iterator<Item = OsString> {
    let real = path.canonicalize().ok();
    let of = |path: &Path| path.file_name().map(OsStr::to_owned);
    let real = real.as_deref().and_then(of);
    of(path).into_iter().chain(real)
}

/// What becomes of a file itself, rather than of its name.
const OF_CONTENT: ReadFlags = ReadFlags::MODIFY
    .union(ReadFlags::CLOSE_WRITE)
    .union(ReadFlags::ATTRIB);

/// Takes every event that waits. What is written into files that are none of `names` is nobody's business here: a
/// busy log beside them would keep them from settling.
fn drain(events: impl AsFd, names: &HashSet<OsString>) -> io::Result<Duration> {
    let mut buffer = [MaybeUninit::<u8>::uninit(); EVENTS];
    let mut reader = inotify::Reader::new(events, &mut buffer);
    let mut quiet = None;
    loop {
        match reader.next() {
            Ok(event) => {
                let name = event.file_name().map(|it| OsStr::from_bytes(it.to_bytes()));
                if OF_CONTENT.contains(event.events()) && name.is_some_and(|it| !names.contains(it))
                {
                    continue;
                }
                let is_open = event.events() == ReadFlags::MODIFY;
                quiet = Some(if is_open { SETTLED_WHILE_OPEN } else { SETTLED });
            }
            Err(rustix::io::Errno::WOULDBLOCK) => break,
            Err(error) => return Err(error.into()),
        }
    }
    quiet.ok_or_else(|| io::ErrorKind::WouldBlock.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_another_after_a_rewrite_and_after_a_rename_over_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list.toml");
        let mut seen = Seen::at(&path);
        assert_eq!(seen.stat, None);
        let mut is_another = |what: &str| {
            let now = Seen::at(&path);
            assert_ne!(now, seen, "{what}");
            assert_eq!(now.stat, Seen::at(&path).stat, "{what}");
            seen = now;
        };
        fs::write(&path, "a").unwrap();
        is_another("written");
        fs::write(&path, "ab").unwrap();
        is_another("rewritten");
        let draft = directory.path().join("draft");
        fs::write(&draft, "ab").unwrap();
        fs::rename(&draft, &path).unwrap();
        is_another("renamed over");
        fs::remove_file(&path).unwrap();
        is_another("removed");
    }

    #[tokio::test]
    async fn what_is_written_beside_a_file_keeps_it_from_settling_no_longer() {
        let directory = tempfile::tempdir().unwrap();
        let path: Arc<Path> = directory.path().join("list.toml").into();
        fs::write(&path, "").unwrap();
        let beside = directory.path().join("log");
        fs::write(&beside, "").unwrap();
        let mut inotify = Inotify::new().unwrap();
        inotify.watch(vec![Arc::clone(&path)]).await;
        let taken = || drain(inotify.events.get_ref(), &inotify.names).ok();
        fs::write(&beside, "busy").unwrap();
        assert_eq!(taken(), None);
        fs::rename(&beside, directory.path().join("log.1")).unwrap();
        assert_eq!(taken(), Some(SETTLED));
        let mut file = fs::File::create(&path).unwrap();
        io::Write::write_all(&mut file, b"half").unwrap();
        assert_eq!(taken(), Some(SETTLED_WHILE_OPEN));
        drop(file);
        assert_eq!(taken(), Some(SETTLED));
    }

    #[test]
    fn links_on_the_way_are_in_directories_too() {
        let directory = tempfile::tempdir().unwrap();
        let real = directory.path().canonicalize().unwrap();
        for version in ["one", "here"] {
            fs::create_dir(real.join(version)).unwrap();
        }
        fs::write(real.join("one/list.toml"), "").unwrap();
        std::os::unix::fs::symlink("one", real.join("current")).unwrap();
        let path = real.join("here/list.toml");
        std::os::unix::fs::symlink("../current/list.toml", &path).unwrap();
        let all: HashSet<_> = directories(&path)
            .into_iter()
            .map(|it| fs::canonicalize(it).unwrap())
            .collect();
        assert!(all.contains(&real.join("here")));
        assert!(all.contains(&real.join("one")));
    }
}
