//! Panics as log lines. A panic is a defect of Ballast; it ends one session, not its worker, and
//! the line is what lets it be found.

use std::backtrace::Backtrace;
use std::panic::{self, PanicHookInfo};

use tracing::{Level, debug, error};

/// Logs every panic of the process from here on; before logging is up, they go where they went.
/// The backtrace, for whoever has asked for details, follows at debug, a line for each of its own.
pub fn install_panic_hook() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if tracing::dispatcher::has_been_set() {
            log(info);
        } else {
            before(info);
        }
    }));
}

fn log(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no message)");
    let location = info.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("(unnamed)");
    error!(
        panic = message,
        location, thread, "internal error: please report"
    );
    if tracing::enabled!(Level::DEBUG) {
        for line in Backtrace::force_capture().to_string().lines() {
            debug!("{line}");
        }
    }
}
