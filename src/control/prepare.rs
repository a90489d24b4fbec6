//! What a start or a reload does before it touches anything: read, compile, resolve. All of it may
//! block, so it runs beside the control thread.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::discovery::{Answers, Asker, Seen, ask_all};
use crate::config::{BackendConfig, Listed, Loaded, Rejected, load, load_listed};
use crate::discovery::{Question, questions};

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
}

/// A file of backends, as it was last used.
#[derive(Clone, Debug)]
pub(super) struct List {
    pub(super) path: Arc<Path>,
    pub(super) seen: Seen,
    pub(super) backends: Vec<BackendConfig>,
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
}

/// Reads, compiles and resolves.
///
/// # Errors
/// Every problem of the file. A name that does not resolve is none, nor is a bad list of backends.
pub(super) async fn prepare(path: Arc<Path>, known: Known) -> Result<Box<Prepared>, Vec<String>> {
    match tokio::task::spawn_blocking(move || load(&path)).await {
        Ok(loaded) => {
            let loaded = loaded.map_err(|rejected| rejected.lines())?;
            Ok(Box::new(complete(loaded, known).await))
        }
        // The panic itself is logged; what runs goes on.
        Err(_) => Err(vec!["internal error while reading the file".into()]),
    }
}

/// Reads the files that a configuration refers to, and asks for its names within
/// `runtime.resolve_timeout` for all together.
pub(super) async fn complete(loaded: Loaded, known: Known) -> Prepared {
    let Known { lists, questions } = known;
    let asker = Asker::new(loaded.config.discovery.clone());
    let read = tokio::task::spawn_blocking(move || {
        let lists = read_lists(&loaded, lists);
        (loaded, lists)
    });
    let (loaded, lists) = match read.await {
        Ok(read) => read,
        // Nothing can be applied without the configuration, which went down with it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    };
    let config = &loaded.config;
    let backends = config.services.iter().flat_map(|it| &it.backends);
    let listed = lists.values().flat_map(|it| &it.backends);
    let mut new: HashSet<Question> = self::questions(backends.chain(listed)).collect();
    new.retain(|question| !questions.contains(question));
    let answers = ask_all(new, &asker, config.runtime.resolve_timeout).await;
    Prepared {
        loaded,
        lists,
        answers,
        asker,
    }
}

fn read_lists(loaded: &Loaded, mut known: Lists) -> Lists {
    let mut lists = Lists::new();
    for service in &loaded.config.services {
        let Some(path) = &service.backends_file else {
            continue;
        };
        let seen = Seen::at(path);
        let backends = match load_listed(path, service) {
            Ok(listed) => {
                tell_warnings(&service.name, &listed);
                listed.backends
            }
            Err(rejected) => {
                tell_rejected(&service.name, &rejected);
                let last = known
                    .remove(&service.name)
                    .filter(|last| last.path == *path);
                last.map(|last| last.backends).unwrap_or_default()
            }
        };
        let list = List {
            path: Arc::clone(path),
            seen,
            backends,
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

/// Says why a file of backends is not used.
pub(super) fn tell_rejected(service: &Arc<str>, rejected: &Rejected) {
    tracing::error!(
        %service,
        problems = rejected.lines().join("; "),
        "backends file rejected: the last list stays"
    );
}
