//! `ballast plan`: what a reload would do, asked of the daemon that would do it.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;

use super::client::{Address, Client, Failure, Reach};
use super::figures::{grouped, of};
use super::json;
use super::printing::{printed, say};
use super::status::VIEW;
use crate::api::{Edit, Effect, Plan, Probe, Proposal, Prospect, View};

/// Where a plan is asked for.
pub(super) const PLAN: &str = "/v1/plan";

#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    reach: Reach,
    /// Print the daemon's answer, for programs
    #[arg(long)]
    json: bool,
}

/// The whole subcommand: 0 when nothing would change, 2 when something would, 1 for problems.
pub(super) fn run(options: &Options) -> ExitCode {
    let named = options.reach.config.as_deref();
    let client = Client::find(&options.reach).map(|it| it.for_programs(options.json));
    let made = client.and_then(|client| ask(&client, named));
    match made {
        Ok((plan, asked)) => {
            let text = match options.json {
                true => json::line(&plan),
                false => told(&plan, asked.as_deref()),
            };
            let code = ExitCode::from(match plan.outcome {
                Prospect::Nothing => 0,
                Prospect::Rejected => 1,
                Prospect::Changes => 2,
            });
            printed(text, code)
        }
        Err(failure) => {
            say(&failure);
            ExitCode::FAILURE
        }
    }
}

/// The plan of the file that is `named`, which is the daemon's own unless it is another one.
fn ask(client: &Client, named: Option<&Path>) -> Result<(Plan, Option<String>), Failure> {
    let view: View = client.get(VIEW)?;
    let own = view.process.configuration.path.as_deref().map(Path::new);
    // A file of the same name on another machine is another file.
    let own = own.filter(|_| client.answered().is_some_and(Address::is_here));
    let is_own = |path: &Path| own.is_some_and(|own| is_same(own, path, view.process.pid));
    let Some(path) = named.filter(|path| !is_own(path)) else {
        let plan = client.post(PLAN, &Proposal::default())?;
        return Ok((plan, None));
    };
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::Unknown(format!("{} cannot be read: {error}", path.display())))?;
    let proposal = Proposal {
        text: Some(text),
        name: Some(path.display().to_string()),
    };
    let plan = Plan {
        path: proposal.name.clone(),
        ..client.post(PLAN, &proposal)?
    };
    Ok((plan, proposal.name))
}

/// Whether `path` is the file that a daemon of this machine calls `own`, seen from where that process is.
pub(super) fn is_same(own: &Path, path: &Path, pid: u32) -> bool {
    let directory = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let own = fs::canonicalize(directory.join(own));
    own.is_ok_and(|own| fs::canonicalize(path).is_ok_and(|path| path == own))
}

/// A plan, for people; `asked` is the file that was proposed, if it is not the daemon's.
pub(super) fn told(plan: &Plan, asked: Option<&str>) -> String {
    let mut text = String::new();
    let path = asked.or(plan.path.as_deref()).unwrap_or("the file");
    let verdict = match plan.outcome {
        Prospect::Nothing if plan.needs_restart.is_empty() => {
            format!("Nothing to do: what runs is what {path} says.")
        }
        Prospect::Nothing => {
            format!("Nothing to do but a restart: what runs is what {path} says, but for this:")
        }
        Prospect::Changes if is_empty(plan) && plan.clears_rejection => {
            format!("Nothing but this: a file was rejected, and what runs is what {path} says now.")
        }
        Prospect::Changes if is_empty(plan) => {
            format!(
                "Nothing but this: no restart is awaited any more, since what runs is what {path} says now."
            )
        }
        Prospect::Changes => "A reload would do this, and break no session:".to_owned(),
        Prospect::Rejected => "A reload would be rejected, and what runs would stay:".to_owned(),
    };
    put(&mut text, &verdict);
    for problem in &plan.problems {
        // What is only odd in a file that is rejected stands among the rest, and says so behind its place.
        let (severity, problem) = match problem.contains(WARNS) {
            true => ("warning", problem.replacen(WARNS, ": ", 1)),
            false => ("error", problem.clone()),
        };
        put(&mut text, &format!("  {severity}: {problem}"));
    }
    // Whoever reads no further must have read these.
    for effect in plan.effects.iter().filter(|it| it.eligible == Some(0)) {
        let service = &effect.service;
        let told = match effect.eligible_now {
            Some(0) => "nobody may serve, which stays so",
            Some(1..) | None => "nobody would be left to serve, and clients would be turned away",
        };
        put(&mut text, &format!("  warning: {service}: {told}"));
    }
    for warning in &plan.warnings {
        // One of the file begins with its place.
        let warning = warning.replacen(WARNS, ": ", 1);
        put(&mut text, &format!("  warning: {warning}"));
    }
    if plan.clears_rejection {
        put(
            &mut text,
            "  = a reload ends the rejected state of the configuration",
        );
    }
    if !plan.changes.is_empty() || !plan.settings.is_empty() || !plan.fails_back.is_empty() {
        text.push('\n');
    }
    for change in plan.changes.iter().take(MOST_SHOWN) {
        let (sign, what) = change.split_at_checked(1).unwrap_or(("", change));
        put(&mut text, &format!("  {sign} {what}"));
        let name = what.split(" (").next().unwrap_or(what);
        text += &edited(plan, |it| sign == "~" && it.of == name);
    }
    text += &rest("  ", plan.changes.len().saturating_sub(MOST_SHOWN));
    for key in &plan.settings {
        put(&mut text, &format!("  ~ {key}"));
        text += &edited(plan, |it| is_within(it, key));
    }
    for service in &plan.fails_back {
        put(
            &mut text,
            &format!("  ~ {service}: fails back, which fail_back = \"manual\" leaves to you"),
        );
    }
    for what in &plan.needs_restart {
        put(
            &mut text,
            &format!("  ! {what}: takes effect after a restart only"),
        );
        text += &edited(plan, |it| is_within(it, what));
    }
    if !plan.effects.is_empty() {
        text.push('\n');
    }
    for effect in plan.effects.iter().take(MOST_SHOWN) {
        text += &of_service(effect);
    }
    text += &rest("  ", plan.effects.len().saturating_sub(MOST_SHOWN));
    if plan.outcome == Prospect::Changes {
        text.push('\n');
        put(&mut text, &format!("It would log: {}", plan.summary));
    }
    text
}

/// What of something that changes is other than it was, a line for each key.
fn edited(plan: &Plan, wanted: impl Fn(&Edit) -> bool) -> String {
    let mut text = String::new();
    let mut edits = plan.edits.iter().filter(|it| wanted(it));
    for Edit {
        key, before, after, ..
    } in edits.by_ref().take(MOST_SHOWN)
    {
        put(&mut text, &format!("      {key}: {before} → {after}"));
    }
    text += &rest("      ", edits.count());
    text
}

/// Whether it is about a key outside of services, or one of that section.
fn is_within(edit: &Edit, key: &str) -> bool {
    let rest = edit.key.strip_prefix(key);
    edit.of.is_empty() && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether nothing would be other than it is.
fn is_empty(plan: &Plan) -> bool {
    plan.changes.is_empty()
        && plan.settings.is_empty()
        && plan.needs_restart.is_empty()
        && plan.fails_back.is_empty()
        && plan.effects.is_empty()
}

/// What it means for one service, a line for each thing that is to be known.
fn of_service(effect: &Effect) -> String {
    let up = match (
        effect.eligible_now,
        effect.configured_now,
        effect.eligible,
        effect.configured,
    ) {
        (Some(now), Some(all_now), Some(then), Some(all)) if (now, all_now) != (then, all) => {
            format!("{now}/{all_now} backends may serve, then {then}/{all}")
        }
        (_, _, Some(then), Some(all)) => format!("{then}/{all} backends may serve"),
        (Some(now), Some(all), ..) => format!("leaves, with {now}/{all} backends that may serve"),
        _ => String::new(),
    };
    let mut text = String::new();
    put(&mut text, &format!("  {}: {up}", effect.service));
    if effect.sessions > 0 {
        let sessions = of(effect.sessions, "session");
        let (go, last) = match effect.sessions {
            1 => ("goes", "it lasts"),
            _ => ("go", "they last"),
        };
        put(
            &mut text,
            &match effect.sessions_leaving {
                0 => format!("    {sessions} {go} on, broken by nothing"),
                leaving => format!(
                    "    {sessions} {go} on, {} of them at backends that leave, for as long as {last}",
                    grouped(leaving)
                ),
            },
        );
    }
    if effect.sessions_shut_out > 0 {
        let (shut_out, sessions) = (effect.sessions_shut_out, effect.sessions);
        put(
            &mut text,
            &format!(
                "    warning: clients of {} of {} would not be let in again by access",
                grouped(shut_out),
                of(sessions, "session"),
            ),
        );
    }
    let somebody = effect.eligible.is_some_and(|it| it > 0);
    if let Some(percent) = effect.clients_moved_percent.filter(|_| somebody) {
        put(
            &mut text,
            &format!("    {percent} % of all client addresses would get another server"),
        );
    }
    for probe in effect.probes.iter().take(MOST_SHOWN) {
        put(&mut text, &format!("    {}", of_probe(probe)));
    }
    text += &rest("    ", effect.probes.len().saturating_sub(MOST_SHOWN));
    text
}

fn of_probe(probe: &Probe) -> String {
    let name = match probe.backend == probe.address {
        true => probe.backend.clone(),
        false => format!("{} ({})", probe.backend, probe.address),
    };
    let why = probe.why.as_deref().unwrap_or_default();
    match probe.alive {
        Some(true) => format!("{name} was asked, and answers"),
        Some(false) => format!("{name} was asked, and does not answer: {why}"),
        None => format!("{name} was not asked: {why}"),
    }
}

/// That there are `more`, if there are.
fn rest(indent: &str, more: usize) -> String {
    match more {
        0 => String::new(),
        _ => format!("{indent}… and {more} more; --json has all of them\n"),
    }
}

fn put(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{line}");
}

/// Between the place of a warning and its words.
const WARNS: &str = ": warning: ";
/// Changes, keys of one, services or probes of one that are shown.
const MOST_SHOWN: usize = 50;

pub(super) const DETAILS: &str = "\
The daemon compares the file with what it runs, not with its last file, by the
code of the reload itself. New backends, and those whose check has changed,
are probed once. Nothing changes by it; over TCP it needs the token.

Without -c it is the daemon's own file. Another one is sent to it, and looked
at as though it lay in the place of its own: relative paths begin there, and
no program that only that file names is run.

Exit codes:
  0  nothing would change, or only by a restart
  1  a reload would be rejected, or there is no answer
  2  something would change, if only that a rejection is over, or a wrong
     command line

Examples:
  ballast plan                     what would a reload do now?
  ballast plan -c new.toml         what would this file do in its place?
  ballast plan --json | jq .effects";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_of_a_file_that_is_rejected_is_no_error() {
        let plan = Plan {
            outcome: Prospect::Rejected,
            problems: vec!["f:1:1: unknown key".into(), "f:2:1: warning: odd".into()],
            ..Plan::default()
        };
        let told = told(&plan, None);
        assert!(told.contains("  error: f:1:1: unknown key\n"), "{told}");
        assert!(told.contains("  warning: f:2:1: odd\n"), "{told}");
    }

    #[test]
    fn what_is_so_already_is_not_told_as_the_work_of_a_reload() {
        let told_with = |eligible_now| {
            let effect = Effect {
                service: "web".into(),
                eligible_now,
                eligible: Some(0),
                ..Effect::default()
            };
            let plan = Plan {
                outcome: Prospect::Changes,
                effects: vec![effect],
                ..Plan::default()
            };
            told(&plan, None)
        };
        let stays = "warning: web: nobody may serve, which stays so\n";
        assert!(told_with(Some(0)).contains(stays));
        for before in [None, Some(2)] {
            let left = "warning: web: nobody would be left to serve";
            assert!(told_with(before).contains(left));
        }
    }
}
