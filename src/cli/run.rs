//! `ballast run`: the daemon, in the foreground.

use std::io::{Write, stderr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use tracing::Level;

use super::eyes;
use crate::config::{Loaded, LogFormat, load_in_place_of, state_file};
use crate::confine::{self, Confinement};
use crate::control::{self, Options, STATE_FILE, orders};
use crate::net::granted;
use crate::runner;
use crate::telemetry::logging;

/// The whole subcommand: 0 after a clean stop, 1 when the daemon cannot start.
pub(super) fn run(path: &Path, last_good: bool) -> ExitCode {
    let directory = eyes::state_directory();
    let (loaded, broken) = match eyes::load_own(path) {
        Ok(loaded) => (loaded, Vec::new()),
        Err(rejected) => {
            // Where nobody reads it, the log tells it all again.
            tell(&rejected.render(logging::is_colourful()));
            let kept = last_good.then(|| instead_of(path, directory.as_deref()));
            match kept {
                Some(Ok(loaded)) => (loaded, rejected.lines()),
                Some(Err(why)) => {
                    tell(&format!("ballast: no last good configuration: {why}\n"));
                    return ExitCode::FAILURE;
                }
                None => return ExitCode::FAILURE,
            }
        }
    };
    let loaded = match drop_privileges(path, loaded, &broken, directory.as_deref()) {
        Ok(loaded) => loaded,
        Err(why) => {
            tell(&why);
            return ExitCode::FAILURE;
        }
    };
    // As whom the daemon runs, so do the programs of its checks and alerts; but nothing else that it gives up
    // is theirs to miss.
    let runner = runner::Process::start();
    // Before there is a second thread.
    let confinement = match Confinement::begin(path, &loaded) {
        Ok(confinement) => confinement,
        Err(error) => {
            tell(&format!("ballast: {error}\n"));
            return ExitCode::FAILURE;
        }
    };
    // With what is left of them.
    let loaded = match granted(loaded) {
        Ok(loaded) => loaded,
        Err(rejected) => {
            tell(&rejected.render(logging::is_colourful()));
            return ExitCode::FAILURE;
        }
    };
    let format = loaded.config.log.format;
    let log = logging::init(format, loaded.config.log.level);
    logging::install_panic_hook();
    confinement.report();
    let runner = runner.inspect_err(|error| {
        tracing::warn!(%error, "no runner: exec checks and alerts start no program");
    });
    let options = Options {
        path: Some(path.into()),
        logging: Some(log.clone()),
        state_directory: directory,
        broken,
        events: None,
        heartbeats: false,
        runner: runner.ok(),
        reach: confinement.reach(),
    };
    match serve(loaded, options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let error = format!("{error:#}");
            match format {
                LogFormat::Text => {
                    // What was logged on the way here comes first.
                    log.flush();
                    tell(&format!("ballast: {error}\n"));
                }
                // Whoever reads JSON reads nothing else.
                LogFormat::Json => {
                    tracing::error!(problems = error.replace('\n', "; "), "cannot start");
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// Becomes the user that the configuration names, and reads it again with that user's eyes: what it cannot
/// read now, no reload could.
fn drop_privileges(
    path: &Path,
    loaded: Loaded,
    broken: &[String],
    directory: Option<&Path>,
) -> Result<Loaded, String> {
    let changed = confine::become_user(&loaded.config);
    let Some(user) = changed.map_err(|error| format!("ballast: {error}\n"))? else {
        return Ok(loaded);
    };
    if !broken.is_empty() {
        // What runs in place of the file is in no file that a reload reads.
        return eyes::may_save(&user, &loaded, directory).map(|()| loaded);
    }
    eyes::load_as(&user, path, &loaded, directory, logging::is_colourful())
}

/// The configuration that last took effect in place of the one at `path`, which is broken.
fn instead_of(path: &Path, directory: Option<&Path>) -> Result<Loaded, String> {
    let by_default = || Some(directory?.join(STATE_FILE));
    let state = state_file(path).or_else(by_default).ok_or(
        "state_file is neither to be read in the broken file, nor is there a StateDirectory",
    )?;
    let copy = control::last_good(&state);
    let loaded = load_in_place_of(path, &copy, &|_| None).and_then(granted);
    loaded.map_err(|rejected| rejected.lines().join("; "))
}

fn tell(text: &str) {
    let text = logging::addressed(text, Level::ERROR);
    // With stderr closed there is nobody left to tell.
    let _ = stderr().write_all(text.as_bytes());
}

/// A thread that blocks in control's place ends when it had nothing to do for this long. They take turns: with
/// tokio's ten seconds a look at a file now and then would keep all that a busy moment has needed.
const UNUSED: Duration = Duration::from_millis(100);

fn serve(loaded: Loaded, options: Options) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .thread_keep_alive(UNUSED)
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    let outcome = runtime.block_on(async {
        let orders = orders().context("cannot listen for signals")?;
        control::run(loaded, options, orders)
            .await
            .map_err(anyhow::Error::from)
    });
    // A name look-up that still hangs must not hold the exit up.
    runtime.shutdown_background();
    outcome.map(|_| ())
}
