//! Ballast itself, as cargo built it for this bench; and, for a before and after, another build of it.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Peer, Plan};
use crate::process::Signal;

pub(super) const NAME: &str = "ballast";

/// The contender that [`OTHER_BUILD`] adds, …
pub(super) const OTHER: &str = "ballast-other";
/// … the path of another build's program.
const OTHER_BUILD: &str = "BALLAST_OTHER";

pub(super) fn find() -> Result<Vec<Peer>, String> {
    let mut builds = vec![build(NAME, env!("CARGO_BIN_EXE_ballast").into())];
    if let Some(program) = std::env::var_os(OTHER_BUILD) {
        builds.push(build(OTHER, program.into()));
    }
    Ok(builds)
}

fn build(name: &'static str, program: PathBuf) -> Peer {
    let version = super::output(&program, &["--version"]);
    let version = version
        .lines()
        .next()
        .unwrap_or(env!("CARGO_PKG_VERSION"))
        .trim();
    Peer {
        name,
        version: version.trim_start_matches("ballast ").to_owned(),
        program,
        file: "ballast.toml",
        render,
        arguments,
        reload: Some(Signal::HUP),
    }
}

fn arguments(_directory: &Path, config: &Path, _workers: usize) -> Vec<OsString> {
    vec!["run".into(), "-c".into(), config.into()]
}

fn render(plan: &Plan) -> String {
    let mut text = format!(
        "[runtime]\nworkers = {}\n\n[log]\nsessions = \"off\"\n",
        plan.workers
    );
    // Writing to a string cannot fail.
    if let Some(address) = plan.admin {
        let _ = write!(text, "\n[admin]\nlisten = \"{address}\"\n");
    }
    for (index, service) in plan.services.iter().enumerate() {
        let interval = plan.check_interval.as_secs();
        let _ = write!(
            text,
            "\n[[service]]\nname = \"s{index}\"\nlisten = [\"{}\"]\nstrategy = \"round-robin\"\n\n\
             [service.health]\ninterval = \"{interval}s\"\n",
            service.listen,
        );
        for backend in &service.backends {
            let _ = write!(text, "\n[[service.backend]]\naddress = \"{backend}\"\n");
        }
    }
    text
}
