//! `ballast run`: the daemon, in the foreground.

use std::io::{IsTerminal, Write, stderr};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::config::{Rejected, load};
use crate::control::{self, Options, orders};
use crate::telemetry::logging;

/// The whole subcommand: 0 after a clean stop, 1 when the daemon cannot start.
pub(super) fn run(path: &Path) -> ExitCode {
    match serve(path) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = match error.downcast_ref::<Rejected>() {
                Some(rejected) => rejected.render(stderr().is_terminal()),
                None => format!("ballast: {error:#}\n"),
            };
            // With stderr closed there is nobody left to tell.
            let _ = stderr().write_all(text.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn serve(path: &Path) -> anyhow::Result<()> {
    let loaded = load(path)?;
    let log = logging::init(loaded.config.log.format, loaded.config.log.level);
    logging::install_panic_hook();
    let options = Options {
        path: Some(path.into()),
        logging: Some(log),
        events: None,
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
