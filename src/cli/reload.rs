//! `ballast reload`: the plan, the question, the reload and what came of it.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::Args;

use super::client::{Client, Failure, Reach};
use super::figures::tenths;
use super::plan::{PLAN, told};
use crate::api::{Plan, Proposal, Prospect, Reloaded};

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
    match carry_out(options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            // With stderr closed there is nobody left to tell.
            let _ = writeln!(io::stderr(), "ballast: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Tells whether the file is in force.
fn carry_out(options: &Options) -> Result<bool, Failure> {
    let client = Client::find(&options.reach)?;
    let plan: Plan = client.post(PLAN, &Proposal::default())?;
    let mut out = io::stdout();
    // With --yes it is asked for all the same, so that the daemon refuses it as it refuses a SIGHUP: with an
    // answer here, a line in the log and an event.
    let is_refused = plan.outcome == Prospect::Rejected && options.yes;
    if !is_refused {
        let _ = out.write_all(told(&plan, None).as_bytes());
        let _ = out.flush();
    }
    match plan.outcome {
        Prospect::Nothing => return Ok(true),
        Prospect::Rejected if !options.yes => return Ok(false),
        Prospect::Rejected | Prospect::Changes => {}
    }
    if !options.yes && !agreed() {
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
    let _ = out.write_all(text.as_bytes());
    Ok(true)
}

/// Waits for a word.
fn agreed() -> bool {
    let mut err = io::stderr();
    let is_asked = io::stdin().is_terminal() && err.is_terminal();
    let question = match is_asked {
        true => "Reload? [y/N] ",
        false => "Nothing was done: there is no terminal to ask at. Add --yes to do it.\n",
    };
    if err.write_all(question.as_bytes()).is_err() || !is_asked {
        return false;
    }
    let mut answer = String::new();
    let is_read = io::stdin().read_line(&mut answer).is_ok();
    let agrees = is_read && ["y", "yes"].contains(&&*answer.trim().to_lowercase());
    if !agrees {
        let _ = writeln!(err, "Nothing was done.");
    }
    agrees
}

/// Where a reload is asked for.
const RELOAD: &str = "/v1/reload";

pub(super) const DETAILS: &str = "\
Tells what the reload would do, as 'ballast plan' does, asks, has the daemon
read its file again, and waits for what comes of it. -c only says where the
daemon is: it reads the file that it was started with. With --yes a file that
would be rejected is asked for as well: the daemon's log and its events say
that it was refused and why, as after a SIGHUP; without, nothing is done.

Exit codes:
  0  the file is in force, or was already
  1  it is not: rejected, not wanted, or no answer
  2  a wrong command line

Examples:
  ballast reload
  ballast reload --yes             in a script, after 'ballast plan'";
