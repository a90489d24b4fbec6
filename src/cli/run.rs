//! `ballast run`: the daemon, in the foreground.

use std::io::{self, Write, stderr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use tracing::Level;

use crate::config::{Loaded, LogFormat, load};
use crate::control::{self, Options, orders};
use crate::runner;
use crate::telemetry::logging::{self, Logging};

/// The whole subcommand: 0 after a clean stop, 1 when the daemon cannot start.
pub(super) fn run(path: &Path) -> ExitCode {
    let loaded = match load(path) {
        Ok(loaded) => loaded,
        Err(rejected) => {
            tell(&rejected.render(logging::is_colourful()));
            return ExitCode::FAILURE;
        }
    };
    // Before anything else, threads above all.
    let runner = runner::Process::start();
    let format = loaded.config.log.format;
    let log = logging::init(format, loaded.config.log.level);
    logging::install_panic_hook();
    match serve(path, loaded, log.clone(), runner) {
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

fn tell(text: &str) {
    let text = logging::addressed(text, Level::ERROR);
    // With stderr closed there is nobody left to tell.
    let _ = stderr().write_all(text.as_bytes());
}

fn serve(
    path: &Path,
    loaded: Loaded,
    log: Logging,
    runner: io::Result<runner::Process>,
) -> anyhow::Result<()> {
    let runner = runner
        .inspect_err(|error| {
            tracing::warn!(%error, "no runner: exec checks and alerts start no program");
        })
        .ok();
    let options = Options {
        path: Some(path.into()),
        logging: Some(log),
        events: None,
        runner,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
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
