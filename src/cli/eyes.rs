//! A file with the eyes of the daemon that would be started with it: what `run` refuses, `check` and `doctor`
//! refuse too, in the same words.

use std::path::Path;
use std::sync::Arc;

use crate::config::{Lack, Loaded, Need, Rejected, Seen, load_in_place_of};
use crate::confine::{self, Identity};
use crate::net::granted;

/// Reads the file at `path` as whoever starts a daemon does: with what the kernel grants, with an account and
/// with tokens that there are.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn load(path: &Path) -> Result<Loaded, Rejected> {
    seen(path, &confine::unmet)
}

/// The same for this very process, which becomes the daemon, and to which alerts may get their tokens later.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn load_own(path: &Path) -> Result<Loaded, Rejected> {
    seen(path, &confine::own_unmet)
}

fn seen(path: &Path, bars: Seen<'_>) -> Result<Loaded, Rejected> {
    let mut loaded = load_in_place_of(path, path, bars)?;
    let programs = loaded.needs.iter().any(|it| matches!(it, Need::Program(_)));
    if programs && confine::stays_root(&loaded.config) {
        let bars = |need: &Need| bars(need).or_else(|| confine::run_by_root(need));
        loaded = load_in_place_of(path, path, &bars)?;
    }
    granted(loaded)
}

/// Reads it again as the user that the daemon has become: what that user cannot read now, no reload could.
///
/// # Errors
/// What bars that user, as text for people.
pub(super) fn load_as(
    user: &Identity,
    path: &Path,
    loaded: &Loaded,
    directory: Option<&Path>,
    color: bool,
) -> Result<Loaded, String> {
    may_save(user, loaded, directory)?;
    let bars = |need: &Need| confine::obstacle(user, need).or_else(|| confine::no_own_token(need));
    load_in_place_of(path, path, &bars).map_err(|rejected| {
        let text = rejected.render(color);
        format!("{text}ballast: that is how user `{user}` of [runtime] sees it\n")
    })
}

/// Whether the state directory of the environment, where that is the one, can be written.
///
/// # Errors
/// What bars `user`, as text for people.
pub(super) fn may_save(
    user: &Identity,
    loaded: &Loaded,
    directory: Option<&Path>,
) -> Result<(), String> {
    let state = directory.filter(|_| loaded.config.runtime.state_file.is_none());
    let state = state.map(|it| Need::Directory(it.to_owned()));
    match state.and_then(|need| confine::obstacle(user, &need)) {
        Some(Lack::Barred { message, help }) => {
            Err(format!("ballast: STATE_DIRECTORY: {message}: {help}\n"))
        }
        Some(Lack::Now(_) | Lack::Unwise { .. }) | None => Ok(()),
    }
}

/// What keeps a daemon that is started now from using what `loaded` is, which was read at `path`, once it is
/// who it becomes: as text for people.
pub(super) fn refusal(path: &Path, loaded: &Loaded, color: bool) -> Option<String> {
    let directory = state_directory();
    let seen = confine::as_daemon(&loaded.config, |user| {
        let again = match user {
            Some(user) => load_as(user, path, loaded, directory.as_deref(), color)
                .and_then(|it| granted(it).map_err(|it| it.render(color)))?,
            // Root also gives up what a balancer does not need.
            None if Identity::own().is_root() => load(path).map_err(|it| it.render(color))?,
            None => return Ok(()),
        };
        drop(again);
        Ok(())
    });
    match seen {
        Ok(seen) => seen.err(),
        Err(error) => Some(format!("ballast: {error}\n")),
    }
}

/// systemd's `StateDirectory`, the first of several.
pub(super) fn state_directory() -> Option<Arc<Path>> {
    let all = std::env::var_os("STATE_DIRECTORY")?;
    let first = std::env::split_paths(&all).next()?;
    first.is_absolute().then(|| first.into())
}
