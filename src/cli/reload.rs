//! `ballast reload`: the plan, the question, the reload and what came of it.

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::change::agreed;
use super::client::{Client, Failure, Reach};
use super::figures::tenths;
use super::plan::{PLAN, is_same, told};
use super::printing::{ended, put, say};
use super::status::VIEW;
use crate::api::{Plan, Proposal, Prospect, Reloaded, View};

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    reach: Reach,
    /// Do not ask, for scripts
    #[arg(short, long)]
    yes: bool,
}

/// The whole subcommand: 0 when the file is in force, 1 when it is not.
pub(super) fn run(options: &Options) -> ExitCode {
    let mut shown = Ok(());
    let done = Client::find(&options.reach).and_then(|client| {
        Ok(match another(&client, options.reach.config.as_deref())? {
            Some(said) => {
                say(&said);
                ExitCode::from(WRONG_COMMAND)
            }
            None if carry_out(&client, options, &mut shown)? => ExitCode::SUCCESS,
            None => ExitCode::FAILURE,
        })
    });
    let code = done.unwrap_or_else(|failure| {
        say(&failure);
        ExitCode::FAILURE
    });
    ended(shown, code)
}

/// What is wrong where the `named` file is not the daemon's: whoever names it wants it in force, and it
/// would not even be read.
fn another(client: &Client, named: Option<&Path>) -> Result<Option<String>, Failure> {
    let Some(named) = named else {
        return Ok(None);
    };
    let view: View = client.get(VIEW)?;
    let own = view.process.configuration.path.as_deref().map(Path::new);
    let own = own.filter(|own| !is_known_as(own, named, view.process.pid));
    Ok(own.map(|own| misled(own, named)))
}

/// Whether `named` is what the daemon calls `own`, or may be: where it runs is not for everybody to see.
fn is_known_as(own: &Path, named: &Path, pid: u32) -> bool {
    let is_hidden = || own.is_relative() && fs::read_link(format!("/proc/{pid}/cwd")).is_err();
    own == named
        || is_same(own, named, pid)
        || (is_hidden() && own.file_name() == named.file_name())
}

fn misled(own: &Path, named: &Path) -> String {
    let (own, named) = (own.display(), named.display());
    format!(
        "the daemon reloads its own file {own}, and not {named}: nothing was done\n  \
         'ballast plan -c {named}' shows what {named} would change; to have it in force, put it in the place \
         of {own}, and reload without -c, or with --admin to say where the daemon answers"
    )
}

/// Tells whether the file is in force, and in `shown` what became of what was said.
fn carry_out(
    client: &Client,
    options: &Options,
    shown: &mut io::Result<()>,
) -> Result<bool, Failure> {
    let plan: Plan = client.post(PLAN, &Proposal::default())?;
    // With --yes it is asked for all the same, so that the daemon refuses it as it refuses a SIGHUP: with an
    // answer here, a line in the log and an event.
    let is_refused = plan.outcome == Prospect::Rejected && options.yes;
    if !is_refused {
        *shown = put(told(&plan, None));
    }
    match plan.outcome {
        Prospect::Nothing => return Ok(true),
        Prospect::Rejected if !options.yes => return Ok(false),
        Prospect::Rejected | Prospect::Changes => {}
    }
    if !options.yes && !agreed("", "Reload?") {
        return Ok(false);
    }
    let reloaded: Reloaded = client.post(RELOAD, &serde_json::json!({}))?;
    let mut text = format!(
        "Reloaded in {}: {}\n",
        tenths(reloaded.took_seconds),
        reloaded.plan
    );
    for what in &reloaded.needs_restart {
        text += &format!("  ! {what}: takes effect after a restart only\n");
    }
    // It is in force, whatever becomes of this.
    let told = put(text);
    *shown = std::mem::replace(shown, Ok(())).and(told);
    Ok(true)
}

/// Where a reload is asked for.
const RELOAD: &str = "/v1/reload";
/// Of a command line that asks for what cannot be.
const WRONG_COMMAND: u8 = 2;

pub(super) const DETAILS: &str = "\
Tells what the reload would do, as 'ballast plan' does, asks, has the daemon
read its file again, and waits for what comes of it. That is the file that it
was started with: -c may name it, to say where the daemon is, and any other
is refused; 'ballast plan -c' tells what that one would change. With --yes a
file that would be rejected is asked for as well: the daemon's log and its
events say that it was refused and why, as after a SIGHUP; without, nothing
is done.

Exit codes:
  0  the file is in force, or was already
  1  it is not: rejected, not wanted, or no answer
  2  a wrong command line, or -c names a file that is not the daemon's

Examples:
  ballast reload
  ballast reload --yes             in a script, after 'ballast plan'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_daemons_by_any_of_its_names_and_no_other_is() {
        let pid = std::process::id();
        let known = |own: &str, named: &str| is_known_as(Path::new(own), Path::new(named), pid);
        assert!(known("Cargo.toml", "./src/../Cargo.toml"));
        // In a container, it is seen under this name by the daemon only.
        assert!(known("/no/such.toml", "/no/such.toml"));
        assert!(!known("Cargo.toml", "/no/such/Cargo.toml"));
        assert!(!known("Cargo.toml", "README.md"));
        // Where a daemon runs that is not seen from here, is not known.
        let hidden = |named: &str| is_known_as(Path::new("a.toml"), Path::new(named), u32::MAX);
        assert!(hidden("/etc/ballast/a.toml"));
        assert!(!hidden("/etc/ballast/b.toml"));
    }
}
