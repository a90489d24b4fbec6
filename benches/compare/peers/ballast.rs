//! Ballast itself, as cargo built it for this bench.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Peer, Plan};
use crate::process::Signal;

pub(super) const NAME: &str = "ballast";

pub(super) fn find() -> Result<Vec<Peer>, String> {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_ballast"));
    let version = super::output(&program, &["--version"]);
    let version = version
        .lines()
        .next()
        .unwrap_or(env!("CARGO_PKG_VERSION"))
        .trim();
    Ok(vec![Peer {
        name: NAME,
        version: version.trim_start_matches("ballast ").to_owned(),
        program,
        file: "ballast.toml",
        render,
        arguments,
        reload: Some(Signal::HUP),
    }])
}

fn arguments(_directory: &Path, config: &Path, _workers: usize) -> Vec<OsString> {
    vec!["run".into(), "-c".into(), config.into()]
}

fn render(plan: &Plan) -> String {
    let mut text = format!(
        "[runtime]\nworkers = {}\n\n[log]\nsessions = \"off\"\n",
        plan.workers
    );
    for (index, service) in plan.services.iter().enumerate() {
        let interval = plan.check_interval.as_secs();
        // Writing to a string cannot fail.
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
