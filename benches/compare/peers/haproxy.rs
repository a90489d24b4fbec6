//! `HAProxy`: TCP mode, splicing left to it, one thread per worker, master-worker mode for seamless
//! reloads. The second set-up has it splice always, through pipes of 1 MiB, which is its best for bulk:
//! 2.6 at `splice-auto` alone was never seen to take a loopback stream for one, and copies it in 16 KiB steps.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::Path;

use super::{Peer, Plan};
use crate::process::Signal;

pub(super) const NAME: &str = "haproxy";

const LARGE_PIPES: &str = "  tune.pipesize 1048576\n";

const SPLICE: &str = "  option splice-request\n  option splice-response\n";

pub(super) fn find() -> Result<Vec<Peer>, String> {
    let program = super::on_path(NAME).ok_or("not on PATH (Debian: apt install haproxy)")?;
    let version = super::output(&program, &["-v"]);
    let version = version
        .split_whitespace()
        .nth(2)
        .unwrap_or("unknown")
        .to_owned();
    let peer = |name, render| Peer {
        name,
        version: version.clone(),
        program: program.clone(),
        file: "haproxy.cfg",
        render,
        arguments,
        reload: Some(Signal::USR2),
    };
    Ok(vec![
        peer(NAME, |plan| render(plan, "", "")),
        peer("haproxy-1m", |plan| render(plan, LARGE_PIPES, SPLICE)),
    ])
}

fn arguments(_directory: &Path, config: &Path, _workers: usize) -> Vec<OsString> {
    vec!["-W".into(), "-db".into(), "-f".into(), config.into()]
}

fn render(plan: &Plan, global: &str, defaults: &str) -> String {
    /// Two descriptors each; more than any test has streams.
    const PIPES: u64 = 512;
    // It refuses to start unless the most of everything at once fits into its descriptors.
    let sessions = plan.descriptors_for_sessions().saturating_sub(2 * PIPES) / 2;
    let mut text = format!(
        "global\n  nbthread {}\n  maxconn {sessions}\n  maxpipes {PIPES}\n{global}\n\
         defaults\n  mode tcp\n  option splice-auto\n  option redispatch\n  retries 3\n  \
         timeout connect 4s\n  timeout client 1h\n  timeout server 1h\n{defaults}",
        plan.workers,
    );
    for (index, service) in plan.services.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\nlisten s{index}\n  bind {}\n  balance roundrobin\n",
            service.listen
        );
        for (number, backend) in service.backends.iter().enumerate() {
            let interval = plan.check_interval.as_secs();
            let _ = writeln!(
                text,
                "  server b{number} {backend} check inter {interval}s rise 2 fall 3"
            );
        }
    }
    text
}
