//! What outlives a reload, and in the state file a restart: for each backend its health, what an
//! operator has said of it, and its record. Also the configuration that last took effect.
//!
//! `file` is what is written, `writer` the thread that writes it, and `lock` keeps others from doing so. Control only hands over what there
//! is, at most every [`PAUSE`], and never waits.

mod file;
mod lock;
mod writer;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::oneshot;

use self::file::{Contents, Entry};
pub(super) use self::file::{LONGEST_DRAIN, Said};
use self::lock::Lock;
use self::writer::{Refusal, Writer};
use crate::health::{AdminView, Availability, Course, State, Totals};
use crate::model::{Address, BackendId, Map, Set};

/// All that is remembered.
#[derive(Debug, Default)]
pub(super) struct Memory {
    records: Map<BackendId, Availability>,
    services: Map<Arc<str>, Availability>,
    admin: Map<BackendId, (AdminView, Said)>,
    /// What a daemon before this one knew, of backends that have not been seen since.
    priors: Map<BackendId, Prior>,
    writer: Option<Writer>,
    /// The last good configuration, while the writer has no room for it.
    unkept: Option<Arc<str>>,
    /// When it is written next.
    due: Option<Instant>,
    saved: Option<Instant>,
    /// The state file that somebody else may have by now.
    left: Option<PathBuf>,
}

/// Another daemon has this state file.
#[derive(Debug)]
pub(super) struct Taken(pub(super) PathBuf);

/// Where a backend is, and how it is there since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prior {
    pub(super) address: Address,
    pub(super) state: State,
    pub(super) since: Instant,
}

impl Memory {
    /// With what `state` holds, unless it is older than `max_age` or cannot be used; from here on it
    /// is written there. Reads the disk, and waits a little for another daemon that has it.
    pub(super) fn open(state: &Path, max_age: Duration) -> Result<Self, Taken> {
        let lock = match Lock::await_it(state) {
            Ok(lock) => Some(lock),
            Err(lock::Refusal::Held) => return Err(Taken(state.to_owned())),
            Err(lock::Refusal::Unknown(error)) => {
                tracing::warn!(file = %state.display(), %error, "state not locked");
                None
            }
        };
        let mut memory = Self::default();
        let entries = match read(state) {
            Ok(Some(bytes)) => file::decode(&bytes, SystemTime::now(), max_age)
                .map(Some)
                .map_err(|unusable| unusable.to_string()),
            Ok(None) => Ok(None),
            Err(error) => Err(format!("it cannot be read: {error}")),
        };
        match entries {
            Ok(None) => tracing::info!(file = %state.display(), "no state yet"),
            Ok(Some(contents)) => {
                let backends = contents.backends.len();
                if !contents.odd.is_empty() {
                    let odd = contents.odd.join("; ");
                    tracing::warn!(file = %state.display(), odd, "state left out that cannot be");
                }
                memory.recall(contents);
                let administered = memory.admin.len();
                tracing::info!(file = %state.display(), backends, administered, "state read");
            }
            Err(why) => tracing::warn!(file = %state.display(), %why, "state ignored"),
        }
        match Writer::start(state.to_owned(), last_good(state), lock) {
            Ok(writer) => memory.writer = Some(writer),
            Err(error) => {
                tracing::warn!(file = %state.display(), %error, "state not saved");
            }
        }
        Ok(memory)
    }

    /// Leaves the state file to whoever is started next, once all that was handed over is written.
    pub(super) fn leave(&mut self) {
        self.left = self.writer.take().map(|it| it.state().to_owned());
        self.due = None;
    }

    /// The state file that was left.
    pub(super) fn left(&mut self) -> Option<PathBuf> {
        self.left.take()
    }

    /// Goes on writing what was left.
    pub(super) fn resume(&mut self, again: Again) {
        self.writer = Some(again.0);
    }

    fn recall(&mut self, contents: Contents) {
        let (now, wall) = (Instant::now(), SystemTime::now());
        let moment = |at| now.checked_sub(wall.duration_since(at).ok()?);
        let services = contents.services.into_iter();
        self.services = services
            .map(|(name, totals)| (name, Availability::restored(totals)))
            .collect();
        for entry in contents.backends {
            if let Some(address) = entry.address {
                let prior = Prior {
                    address,
                    state: entry.state,
                    since: entry.since.and_then(moment).unwrap_or(now),
                };
                self.priors.insert(entry.backend.clone(), prior);
            }
            if entry.admin != AdminView::default() {
                let said = (entry.admin, entry.said);
                self.admin.insert(entry.backend.clone(), said);
            }
            let record = Availability::restored(entry.totals);
            self.records.insert(entry.backend, record);
        }
    }

    /// What was known of a backend at that address when this daemon started.
    pub(super) fn prior(&self, backend: &BackendId, address: Address) -> Option<Prior> {
        let prior = self.priors.get(backend).copied();
        prior.filter(|it| it.address == address)
    }

    /// The same, for the last time.
    pub(super) fn take_prior(&mut self, backend: &BackendId, address: Address) -> Option<Prior> {
        let prior = self.prior(backend, address);
        self.priors.remove(backend);
        prior
    }

    /// What an operator has said of a backend.
    pub(super) fn admin(&self, backend: &BackendId) -> AdminView {
        self.admin.get(backend).map(|it| it.0).unwrap_or_default()
    }

    /// Takes in what an operator says. It is on disk once [`Memory::save`] has told so.
    pub(super) fn set_admin(&mut self, backend: &BackendId, admin: AdminView, said: Said) {
        self.admin.insert(backend.clone(), (admin, said));
        self.touch();
    }

    /// When an operator has said it, and who that was.
    pub(super) fn said(&self, backend: &BackendId) -> Said {
        self.admin
            .get(backend)
            .map(|it| it.1.clone())
            .unwrap_or_default()
    }

    /// Backends that drain until a moment.
    pub(super) fn drains(&self) -> Vec<(BackendId, SystemTime)> {
        let all = self.admin.iter();
        all.filter_map(|(backend, (_, said))| Some((backend.clone(), said.until?)))
            .collect()
    }

    /// A backend is up or down from `now` on.
    pub(super) fn enter(&mut self, backend: &BackendId, up: bool, now: Instant) {
        match self.records.get_mut(backend) {
            Some(record) => record.enter(up.into(), now),
            None => {
                let record = self.records.entry(backend.clone());
                record.or_default().enter(up.into(), now);
            }
        }
        self.touch();
    }

    /// The record of a backend.
    pub(super) fn totals(&self, backend: &BackendId, now: Instant) -> Totals {
        let record = self.records.get(backend);
        record.map(|record| record.at(now)).unwrap_or_default()
    }

    /// A service stands like this from `now` on, or nobody knows.
    pub(super) fn note_service(
        &mut self,
        service: &Arc<str>,
        course: Option<Course>,
        now: Instant,
    ) {
        let known = self.services.get(service).and_then(Availability::course);
        if known == course {
            return;
        }
        let record = self.services.entry(Arc::clone(service)).or_default();
        match course {
            Some(course) => record.enter(course, now),
            None => record.rest(now),
        }
        self.touch();
    }

    /// The record of a service.
    pub(super) fn service_totals(&self, service: &str, now: Instant) -> Totals {
        let record = self.services.get(service);
        record.map(|record| record.at(now)).unwrap_or_default()
    }

    /// A configuration has taken effect: services that are not in it are forgotten.
    pub(super) fn retain_services(&mut self, is_known: impl Fn(&Arc<str>) -> bool) {
        self.services.retain(|service, _| is_known(service));
    }

    /// Backends with a record: those that have left between reloads are among them.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// A configuration has taken effect: backends that are not in it are forgotten, unless they are
    /// awaited because their name leads nowhere for now.
    pub(super) fn retain(
        &mut self,
        is_known: impl Fn(&BackendId) -> bool,
        is_awaited: impl Fn(&BackendId) -> bool,
    ) {
        let stays = |backend: &BackendId| is_known(backend) || is_awaited(backend);
        self.records.retain(|backend, _| stays(backend));
        self.admin.retain(|backend, _| stays(backend));
        self.priors
            .retain(|backend, _| !is_known(backend) && is_awaited(backend));
        self.touch();
    }

    /// Keeps the text of a configuration that has taken effect.
    pub(super) fn keep(&mut self, text: &Arc<str>) {
        let Some(writer) = &self.writer else {
            return;
        };
        let kept = writer.keep(Arc::clone(text));
        self.unkept = kept.is_err().then(|| Arc::clone(text));
        self.handed_over(kept);
    }

    /// A job was handed to the writer, or has to be later, or never.
    fn handed_over(&mut self, taken: Result<(), Refusal>) {
        match taken {
            Ok(()) => {}
            // What is to be written then is looked at then.
            Err(Refusal::Busy) => self.touch(),
            Err(Refusal::Gone) => {
                if let Some(writer) = self.writer.take() {
                    let file = writer.state().display();
                    tracing::warn!(%file, error = "its writer has ended", "state not saved");
                }
                self.unkept = None;
                self.due = None;
            }
        }
    }

    /// When it is to be written.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Has it written even though nothing has changed but the time.
    pub(super) fn refresh(&mut self, now: Instant) {
        if self.saved.is_none_or(|saved| now - saved >= STALE) {
            self.touch();
        }
    }

    /// Has it written: these are the backends, and how they stand where they have an address; those that are
    /// awaited are written as they were read. The answer comes when it is on disk, and not at all when that
    /// cannot be.
    pub(super) fn save<'a>(
        &mut self,
        backends: impl Iterator<Item = (&'a BackendId, Option<Prior>)>,
    ) -> oneshot::Receiver<()> {
        let (done, told) = oneshot::channel();
        let now = Instant::now();
        self.due = None;
        if self.writer.is_none() {
            return told;
        }
        let wall = SystemTime::now();
        let entry = |backend: &BackendId, standing: Option<Prior>| Entry {
            backend: backend.clone(),
            address: standing.map(|it| it.address),
            state: standing.map_or(State::Unknown, |it| it.state),
            since: standing
                .and_then(|it| wall.checked_sub(now.saturating_duration_since(it.since))),
            admin: self.admin(backend),
            said: self.said(backend),
            totals: self.totals(backend, now),
        };
        let awaited = self.priors.iter();
        let entries: Vec<_> = backends
            .map(|(backend, standing)| entry(backend, standing))
            .chain(awaited.map(|(backend, prior)| entry(backend, Some(*prior))))
            .collect();
        let records = self.services.iter();
        let services = records
            .map(|(name, record)| (Arc::clone(name), record.at(now)))
            .collect();
        self.saved = Some(now);
        self.forget_former(&entries);
        if let Some(text) = self.unkept.take() {
            self.keep(&text);
        }
        if let Some(writer) = &self.writer {
            let contents = Contents {
                backends: entries,
                services,
                odd: Vec::new(),
            };
            let taken = writer.save(contents, Some(done));
            self.handed_over(taken);
        }
        told
    }

    /// Between reloads backends come and go with their names; those that went are remembered for a
    /// return, up to a number.
    fn forget_former(&mut self, present: &[Entry]) {
        if self.records.len() > present.len() + MOST_FORMER {
            let present: Set<_> = present.iter().map(|entry| &entry.backend).collect();
            self.records.retain(|backend, _| present.contains(backend));
        }
    }

    /// Something has changed.
    fn touch(&mut self) {
        if self.writer.is_some() && self.due.is_none() {
            let now = Instant::now();
            self.due = Some(self.saved.map_or(now, |saved| now.max(saved + PAUSE)));
        }
    }
}

/// The right to write a state file that was left.
#[derive(Debug)]
pub(super) struct Again(Writer);

/// The same file again, if nobody else has it by now. Asks the disk.
pub(super) fn again(state: &Path) -> Option<Again> {
    let lock = Lock::take(state).ok()?;
    let writer = Writer::start(state.to_owned(), last_good(state), Some(lock));
    writer.ok().map(Again)
}

/// Where the configuration that last took effect is, beside the state file.
pub fn last_good(state: &Path) -> PathBuf {
    state.with_extension("last-good.toml")
}

/// The bytes of a file of bounded size; `None` when there is no file.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(io::Error::other("not a regular file")),
        Ok(metadata) if metadata.len() > LARGEST => Err(io::Error::other("too large")),
        Ok(_) => fs::read(path).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The state file in systemd's `StateDirectory`.
pub const STATE_FILE: &str = "state.json";
/// Between two writes: a flap storm is one of them, not one each.
const PAUSE: Duration = Duration::from_millis(200);
/// The times of a record grow without a change, and a crash may lose no more of them than this.
const STALE: Duration = Duration::from_secs(30);
/// Backends that are not there any more.
const MOST_FORMER: usize = 4096;
/// The largest file that is read: a hundred thousand backends fit.
const LARGEST: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::writer::Job;
    use super::*;
    use crate::health::{Duty, Percent};

    const HOUR: Duration = Duration::from_secs(3600);

    fn address() -> Address {
        "192.0.2.1:80".parse().unwrap()
    }

    fn saved(memory: &mut Memory, backend: &BackendId, state: State) {
        let standing = Prior {
            address: address(),
            state,
            since: Instant::now().checked_sub(HOUR).unwrap(),
        };
        let all = [(backend, Some(standing))];
        memory.save(all.into_iter()).blocking_recv().unwrap();
    }

    #[test]
    fn a_restart_finds_health_record_and_what_an_operator_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let backend = BackendId::new("web", "a");
        let drain = AdminView {
            duty: Duty::Drain,
            weight: Percent::new(20),
        };
        let mut memory = Memory::open(&path, Duration::from_secs(60)).unwrap();
        let now = Instant::now();
        memory.enter(&backend, true, now);
        memory.enter(&backend, false, now);
        let said = Said {
            since: None,
            by: Some("uid 0".into()),
            until: Some(SystemTime::UNIX_EPOCH + Duration::from_millis(9)),
        };
        memory.set_admin(&backend, drain, said.clone());
        let (web, gone) = ("web".into(), "gone".into());
        memory.note_service(&web, Some(Course::Up), now);
        memory.note_service(&gone, Some(Course::Up), now);
        memory.note_service(&web, Some(Course::Down), now);
        memory.retain_services(|it| **it == *"web");
        saved(&mut memory, &backend, State::Down);
        drop(memory);

        let memory = Memory::open(&path, Duration::from_secs(60)).unwrap();
        assert_eq!(memory.admin(&backend), drain);
        assert_eq!(memory.said(&backend), said);
        assert_eq!(memory.totals(&backend, Instant::now()).failures, 1);
        let of_service = |name| memory.service_totals(name, Instant::now()).failures;
        assert_eq!((of_service("web"), of_service("gone")), (1, 0));
        let prior = memory.prior(&backend, address()).unwrap();
        assert_eq!(prior.state, State::Down);
        let (after, slack) = (prior.since.elapsed(), Duration::from_secs(60));
        assert!(HOUR <= after && after < HOUR + slack, "{after:?}");
        let elsewhere = "192.0.2.2:80".parse().unwrap();
        assert_eq!(memory.prior(&backend, elsewhere), None);
    }

    #[test]
    fn a_damaged_file_is_ignored_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        fs::write(&path, "{\"version\":1,").unwrap();
        let backend = BackendId::new("web", "a");
        let mut memory = Memory::open(&path, Duration::from_secs(60)).unwrap();
        assert_eq!(memory.prior(&backend, address()), None);
        saved(&mut memory, &backend, State::Up);
        drop(memory);
        let memory = Memory::open(&path, Duration::from_secs(60)).unwrap();
        let prior = memory.prior(&backend, address());
        assert_eq!(prior.map(|it| it.state), Some(State::Up));
    }

    #[test]
    fn changes_in_a_row_are_one_write() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let backend = BackendId::new("web", "a");
        let mut memory = Memory::open(&path, Duration::from_secs(60)).unwrap();
        assert_eq!(memory.due(), None);
        memory.enter(&backend, true, Instant::now());
        assert!(memory.due().unwrap() <= Instant::now());
        saved(&mut memory, &backend, State::Up);
        assert_eq!(memory.due(), None);
        memory.enter(&backend, false, Instant::now());
        let due = memory.due().unwrap();
        assert!(due > Instant::now());
        memory.enter(&backend, true, Instant::now());
        assert_eq!(memory.due(), Some(due));
    }

    #[test]
    fn what_is_left_is_written_on_unless_somebody_else_has_it_by_then() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state.json");
        let backend = BackendId::new("web", "a");
        let open = || Memory::open(&path, Duration::from_secs(60));
        let mut memory = open().unwrap();
        saved(&mut memory, &backend, State::Up);
        memory.leave();
        assert!(memory.save(std::iter::empty()).blocking_recv().is_err());
        let other = open().unwrap();
        let state = memory.left().unwrap();
        assert!(again(&state).is_none());
        assert_eq!(open().unwrap_err().0, path);
        drop(other);
        // Whose thread has ended is not known to the moment.
        drop(open().unwrap());
        let again = std::iter::repeat_with(|| again(&state))
            .take(1000)
            .find_map(|it| {
                std::thread::sleep(Duration::from_millis(1));
                it
            });
        memory.resume(again.unwrap());
        saved(&mut memory, &backend, State::Down);
    }

    #[test]
    fn without_a_file_records_are_kept_and_nothing_is_due() {
        let backend = BackendId::new("web", "a");
        let mut memory = Memory::default();
        let now = Instant::now();
        memory.enter(&backend, true, now);
        assert_eq!(memory.due(), None);
        let later = memory.totals(&backend, now + Duration::from_secs(3));
        assert_eq!(later.up, Duration::from_secs(3));
        memory.retain(|_| false, |_| false);
        assert_eq!(memory.totals(&backend, now), Totals::default());
    }

    #[test]
    fn a_writer_that_has_ended_is_not_asked_again() {
        let backend = BackendId::new("web", "a");
        let (writer, inbox) = Writer::idle(1);
        let mut memory = Memory {
            writer: Some(writer),
            ..Memory::default()
        };
        drop(inbox);
        memory.enter(&backend, true, Instant::now());
        assert!(memory.due().is_some());
        assert!(memory.save(std::iter::empty()).blocking_recv().is_err());
        memory.enter(&backend, false, Instant::now());
        memory.keep(&"new".into());
        assert_eq!(memory.due(), None);
    }

    #[test]
    fn a_configuration_that_finds_no_room_is_handed_over_with_the_next_state() {
        let (writer, inbox) = Writer::idle(2);
        let mut memory = Memory {
            writer: Some(writer),
            ..Memory::default()
        };
        memory.keep(&"first".into());
        memory.keep(&"second".into());
        memory.keep(&"third".into());
        memory.keep(&"fourth".into());
        assert!(memory.due().is_some(), "it is tried again");
        assert_eq!(inbox.try_iter().count(), 2);
        drop(memory.save(std::iter::empty()));
        let jobs: Vec<_> = inbox.try_iter().collect();
        assert!(matches!(&jobs[..], [Job::Keep(text), Job::Save(..)] if **text == *"fourth"));
        assert_eq!(memory.due(), None);
    }
}
