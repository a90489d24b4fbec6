//! What a start or a reload does before it touches anything: read, compile, resolve. All of it may
//! block, so it runs beside the control thread.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::discovery::{Answers, Asker, Reading, ask_all};
use crate::admin::{self, BindError, Bound};
use crate::api::Proposal;
use crate::config::{
    AdminAddress, AdminConfig, BackendConfig, Config, Held, Lack, Listed, Loaded, Need, Rejected,
    compile_in_place_of, handovers, load_again, load_listed,
};
use crate::confine::{Reach, no_own_token};
use crate::discovery::{Question, questions};
use crate::model::one_line;
use crate::net::granted;
use crate::unix;

/// A configuration with everything it refers to.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) loaded: Loaded,
    /// The files of backends.
    pub(super) lists: Lists,
    /// The answers to questions that nobody followed yet; one without an answer was not asked in time.
    pub(super) answers: Answers,
    /// Who asks from now on.
    pub(super) asker: Asker,
    /// Owners of sockets whom nobody knows. Whoever else is named in [`Loaded`] has a number there: control does
    /// not wait for a directory service.
    strangers: Vec<String>,
    /// Where the admin API is to listen besides, or why it cannot.
    endpoints: Result<Vec<Bound>, Vec<BindError>>,
}

impl Prepared {
    /// Sockets for the admin API.
    pub(super) fn take_endpoints(&mut self) -> Result<Vec<Bound>, Vec<BindError>> {
        std::mem::replace(&mut self.endpoints, Ok(Vec::new()))
    }

    /// Unless somebody is named whom nobody knows.
    fn known(self) -> Result<Box<Self>, Vec<String>> {
        match self.strangers.is_empty() {
            true => Ok(Box::new(self)),
            false => Err(self.strangers),
        }
    }
}

/// A file of backends, as it was last used.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) path: Arc<Path>,
    pub(super) reading: Reading,
    pub(super) backends: Vec<BackendConfig>,
    /// Why the file is not used as it is now, …
    pub(super) problems: Arc<[String]>,
    /// … since when for these very problems, …
    pub(super) rejected: Option<SystemTime>,
    /// … and whether it is not there at all.
    pub(super) missing: bool,
}

/// By service.
pub(super) type Lists = HashMap<Arc<str>, List>;

/// What discovery knows already; a reload keeps it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// A file that cannot be used any more stands for its last good list.
    pub(super) lists: Lists,
    /// Names that are followed need not be asked for.
    pub(super) questions: HashSet<Question>,
    /// Where the admin API listens already, …
    pub(super) endpoints: HashSet<AdminAddress>,
    /// … and all else that is listened on.
    pub(super) held: Vec<Held>,
    /// Which files may be named, if that was settled at the start.
    pub(super) reach: Option<Arc<Reach>>,
}

impl Known {
    /// What bars the daemon from a need.
    fn bars(&self) -> impl Fn(&Need) -> Option<Lack> + Send + use<> {
        let reach = self.reach.clone();
        move |need| {
            let barred = reach.as_ref().and_then(|it| it.bars(need));
            barred.or_else(|| no_own_token(need))
        }
    }

    /// That the configuration itself is where it may be read.
    fn may_read(&self, path: &Path) -> Result<(), Vec<String>> {
        match self.reach.as_ref().and_then(|it| it.bars_file(path)) {
            Some(problem) => Err(vec![problem]),
            None => Ok(()),
        }
    }

    /// That nothing in the file takes an address from what cannot let it go in time.
    fn allow(&self, loaded: &Loaded) -> Result<(), Vec<String>> {
        let problems = handovers(&self.held, &loaded.config);
        match problems.is_empty() {
            true => Ok(()),
            false => Err(problems),
        }
    }
}

/// Reads, compiles and resolves.
///
/// # Errors
/// Every problem of the file. A name that does not resolve is none, nor is a bad list of backends.
pub(super) async fn prepare(path: Arc<Path>, known: Known) -> Result<Box<Prepared>, Vec<String>> {
    known.may_read(&path)?;
    let bars = known.bars();
    let read = move || load_again(&path, &bars).and_then(granted);
    match tokio::task::spawn_blocking(read).await {
        Ok(loaded) => {
            let loaded = loaded.map_err(|rejected| rejected.lines())?;
            known.allow(&loaded)?;
            complete(loaded, known).await.known()
        }
        // The panic itself is logged; what runs goes on.
        Err(_) => Err(vec!["internal error while reading the file".into()]),
    }
}

/// Like [`prepare`], of what is to take the place of the file at `path`, or of that file itself. Nothing of it
/// is told in the log, and no socket is left behind.
///
/// # Errors
/// Every problem of the text, and the TCP addresses that the admin API could not have.
pub(super) async fn prepare_proposal(
    path: Arc<Path>,
    proposal: Proposal,
    known: Known,
) -> Result<Box<Prepared>, Vec<String>> {
    if proposal.text.is_none() {
        known.may_read(&path)?;
    }
    let bars = known.bars();
    let own = match (&proposal.text, &proposal.name) {
        (None, _) => None,
        (Some(_), None) => Some("the file".to_owned()),
        (Some(_), Some(name)) => Some(one_line(name, MOST_OF_A_NAME)),
    };
    let name = own.clone();
    let compiled = tokio::task::spawn_blocking(move || {
        let loaded = match &proposal.text {
            None => load_again(&path, &bars),
            Some(text) => {
                let name = name.as_deref().unwrap_or_default();
                compile_in_place_of(&path, text, name, &bars)
            }
        };
        loaded.and_then(granted)
    });
    let Ok(loaded) = compiled.await else {
        // The panic itself is logged.
        return Err(vec!["internal error while reading the file".into()]);
    };
    let loaded = loaded.map_err(|rejected| told(&rejected, &own))?;
    known.allow(&loaded)?;
    let Known {
        lists,
        questions,
        endpoints,
        ..
    } = known;
    let mut admin = loaded.config.admin.clone();
    // A Unix socket would take the path over.
    admin.listen.retain(|it| matches!(it, AdminAddress::Tcp(_)));
    let prepared = gather(loaded, lists, questions, Voice::Silent).await;
    match bind(&admin, &endpoints).await {
        Ok(_) => prepared.known(),
        Err(errors) => Err(errors.iter().map(ToString::to_string).collect()),
    }
}

/// What is wrong with a proposal, whose text is called `own`. What is in other files that it names is not for
/// whoever sends it to read.
fn told(rejected: &Rejected, own: &Option<String>) -> Vec<String> {
    let report = rejected.report();
    match own {
        Some(own) if own != report.origin() => {
            vec![format!(
                "{} has {} problems: see what `ballast check` says",
                report.origin(),
                report.errors()
            )]
        }
        Some(_) | None => rejected.lines(),
    }
}

/// Reads the files that a configuration refers to, and asks for its names within
/// `runtime.resolve_timeout` for all together; then binds what the admin API is to listen on.
pub(super) async fn complete(loaded: Loaded, known: Known) -> Prepared {
    let Known {
        lists,
        questions,
        endpoints,
        ..
    } = known;
    let mut prepared = gather(loaded, lists, questions, Voice::Log).await;
    prepared.endpoints = bind(&prepared.loaded.config.admin, &endpoints).await;
    prepared
}

/// Whether files of backends that are odd are told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Voice {
    Log,
    Silent,
}

async fn gather(
    loaded: Loaded,
    lists: Lists,
    questions: HashSet<Question>,
    voice: Voice,
) -> Prepared {
    let asker = Asker::new(loaded.config.discovery.clone());
    let read = tokio::task::spawn_blocking(move || {
        let lists = read_lists(&loaded, lists, voice);
        let mut loaded = loaded;
        let strangers = number(&mut loaded.config);
        (loaded, lists, strangers)
    });
    let (loaded, lists, strangers) = match read.await {
        Ok(read) => read,
        // Nothing can be applied without the configuration, which went down with it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let config = &loaded.config;
    let backends = config.services.iter().flat_map(|it| it.backends.iter());
    let listed = lists.values().flat_map(|it| &it.backends);
    let mut new: HashSet<Question> = self::questions(backends.chain(listed)).collect();
    new.retain(|question| !questions.contains(question));
    let answers = ask_all(new, &asker, config.runtime.resolve_timeout).await;
    Prepared {
        endpoints: Ok(Vec::new()),
        strangers,
        loaded,
        lists,
        answers,
        asker,
    }
}

/// Binds what the admin API does not listen on yet.
async fn bind(
    config: &AdminConfig,
    open: &HashSet<AdminAddress>,
) -> Result<Vec<Bound>, Vec<BindError>> {
    let wanted = config.listen.iter();
    let new: Vec<_> = wanted.filter(|it| !open.contains(it)).cloned().collect();
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let access = config.access.clone();
    match tokio::task::spawn_blocking(move || admin::bind(&new, &access)).await {
        Ok(bound) => bound,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Puts numbers for the names of owners of services' sockets, and says of whom there is none.
fn number(config: &mut Config) -> Vec<String> {
    let mut strangers = Vec::new();
    for service in &mut config.services {
        let path = service.listen.iter().find(|it| it.address.inet().is_none());
        let Some(path) = path else {
            continue;
        };
        match unix::numbered(&service.socket.access) {
            Ok(access) => service.socket.access = access,
            Err(why) => strangers.push(format!("cannot listen on {}: {why}", path.address)),
        }
    }
    strangers
}

fn read_lists(loaded: &Loaded, mut known: Lists, voice: Voice) -> Lists {
    let mut lists = Lists::new();
    for service in &loaded.config.services {
        let Some(path) = &service.backends_file else {
            continue;
        };
        let reading = Reading::of(path);
        let last = known.remove(&service.name);
        let last = last.filter(|last| last.path == *path);
        if let Some(last) = &last
            && !reading.is_quiet_since(&last.reading)
        {
            // It may be half written: the watcher reads it once it has settled.
            lists.insert(Arc::clone(&service.name), last.clone());
            continue;
        }
        let (backends, problems, rejected) = match load_listed(path, service) {
            Ok(listed) => {
                if voice == Voice::Log {
                    tell_warnings(&service.name, &listed);
                }
                (listed.backends, Arc::default(), None)
            }
            Err(rejected) => {
                let problems = match voice {
                    Voice::Log => tell_rejected(&service.name, rejected.lines()),
                    Voice::Silent => rejected.lines().into(),
                };
                let (backends, before) = match last {
                    Some(last) => {
                        let before = last.rejected.filter(|_| last.problems == problems);
                        (last.backends, before)
                    }
                    None => Default::default(),
                };
                let rejected = before.unwrap_or_else(SystemTime::now);
                (backends, problems, Some(rejected))
            }
        };
        let list = List {
            path: Arc::clone(path),
            missing: rejected.is_some() && !reading.seen.is_there(),
            reading,
            backends,
            problems,
            rejected,
        };
        lists.insert(Arc::clone(&service.name), list);
    }
    lists
}

/// Says what is odd in a file of backends.
pub(super) fn tell_warnings(service: &Arc<str>, listed: &Listed) {
    for warning in listed.warnings.lines() {
        tracing::warn!(%service, "{warning}");
    }
}

/// Says why a file of backends is not used, and gives that back.
pub(super) fn tell_rejected(service: &Arc<str>, problems: Vec<String>) -> Arc<[String]> {
    tracing::error!(
        %service,
        problems = problems.join("; "),
        "backends file rejected: the last list stays"
    );
    problems.into()
}

/// Characters of what somebody calls a file.
const MOST_OF_A_NAME: usize = 200;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::load;

    #[test]
    fn a_list_that_was_written_since_is_left_to_its_watcher() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("ballast.toml");
        let service = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:0\"\n";
        fs::write(&file, format!("{service}backends_file = \"list\"\n")).unwrap();
        let loaded = load(&file).unwrap();
        let path = directory.path().join("list");
        let list = |backends: std::ops::Range<u8>| {
            let one = |it| format!("[[backend]]\naddress = \"10.0.0.{it}:80\"\n");
            fs::write(&path, backends.map(one).collect::<String>()).unwrap();
        };
        let long_ago = || {
            let file = fs::File::options().write(true).open(&path).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        };

        list(0..2);
        long_ago();
        let mut known = read_lists(&loaded, Lists::new(), Voice::Silent);
        assert_eq!(known["web"].backends.len(), 2);
        // Nobody has touched it: it is read again, in the light of what the configuration says now.
        known.get_mut("web").unwrap().backends.clear();
        let known = read_lists(&loaded, known, Voice::Silent);
        assert_eq!(known["web"].backends.len(), 2);

        // The first half of a longer one, and nobody can tell.
        list(0..1);
        let read = read_lists(&loaded, known.clone(), Voice::Silent);
        assert_eq!(read["web"].backends, known["web"].backends);
        long_ago();
        let read = read_lists(&loaded, known, Voice::Silent);
        assert_eq!(read["web"].backends.len(), 2);
        let settled = read_lists(&loaded, Lists::new(), Voice::Silent);
        assert_eq!(settled["web"].backends.len(), 1);
    }
}
