//! The command line: arguments → subcommand → exit code. One file per subcommand; what they do
//! lives in the rooms they call, or in the daemon, which they ask as a `client`. Holds nothing that the daemon
//! would need.
//!
//! Start with [`main`], then `run` for the daemon, or `status` for a command that asks it. What they share:
//! `condition` and `findings` judge what a daemon says, `rates`, `figures` and `table` put it into words and
//! columns, `change` asks before something is done, `json` is for programs, and `printing` ends with the exit code.

mod backend;
mod change;
mod check;
mod client;
mod completions;
mod condition;
mod demo;
mod doctor;
mod events;
mod explain;
mod eyes;
mod figures;
mod findings;
mod json;
mod man;
mod plan;
mod printing;
mod rates;
mod reload;
mod report;
mod run;
mod service;
mod sessions;
mod simulate;
mod status;
mod table;
#[cfg(test)]
mod testing;
mod top;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};

/// The whole command: 0 when all went well, 1 for a problem, 2 for a wrong command line.
pub fn main() -> ExitCode {
    match Arguments::try_parse() {
        Ok(Arguments { command }) => match command {
            Command::Run { file, last_good } => run::run(&file.config, last_good),
            Command::Check(file) => check::run(&client::file(file.config.as_deref())),
            Command::Explain(options) => explain::run(&options),
            Command::Plan(options) => plan::run(&options),
            Command::Reload(options) => reload::run(&options),
            Command::Simulate(arguments) => simulate::run(&arguments),
            Command::Status(options) => status::run(&options),
            Command::Top(options) => top::run(&options),
            Command::Events(options) => events::run(&options),
            Command::Failovers(options) => events::failovers(&options),
            Command::Sessions(options) => sessions::run(&options),
            Command::Backend { action } => backend::run(&action),
            Command::Doctor { reach, json } => doctor::run(&reach, json),
            Command::Report(options) => report::run(&options),
            Command::Completions { shell } => completions::run(shell),
            Command::Man { out } => man::run(out.as_deref()),
            Command::Service { action } => service::run(&action),
            Command::Demo { listen, pace } => demo::run(listen, pace),
            Command::Runner { worker } => match crate::runner::serve(worker) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("ballast runner: {error}");
                    ExitCode::FAILURE
                }
            },
        },
        Err(unusable) => {
            let unusable = hinted(unusable);
            let code = ExitCode::from(u8::try_from(unusable.exit_code()).unwrap_or(2));
            let shown = unusable.print();
            match unusable.use_stderr() {
                // With stderr closed there is nobody left to tell.
                true => code,
                false => printing::ended(shown, code),
            }
        }
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "ballast",
    version,
    about = "Layer-4 TCP load balancer",
    long_about = "Ballast stands in front of application servers, accepts TCP connections, picks a \
                  healthy server for each, and relays bytes both ways until both sides are done.",
    after_help = "See it work, with nothing else installed:  ballast demo",
    after_long_help = "\
Getting started:
  ballast demo                      see it work, with nothing else installed
  ballast check -c ballast.toml     every problem of a configuration at once
  ballast run -c ballast.toml       the daemon, in the foreground

Files:
  /etc/ballast/ballast.toml         the configuration, unless -c names another or
                                    the daemon that is asked runs with another

Exit codes:
  0  a clean end
  1  a problem, told on stderr; for status, something is wrong
  2  a wrong command line; for plan, the file would change something
  3  the daemon cannot be asked

'ballast <command> --help' says more about each command.",
    arg_required_else_help = true,
    max_term_width = 100
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground, logging to stderr
    ///
    /// Binds every listener, tells systemd when it is ready, and serves until SIGTERM. Refuses to
    /// start on any problem in the configuration or an occupied port, and says which.
    #[command(after_long_help = RUN_DETAILS)]
    Run {
        #[command(flatten)]
        file: ConfigFile,
        /// If the configuration cannot be used, start with the last one that took effect
        ///
        /// Each configuration that takes effect is kept beside the state file ('state_file' in
        /// [runtime]). The log and the status say so, loudly, until the file is repaired and
        /// reloaded.
        #[arg(long)]
        last_good: bool,
    },
    /// Check a configuration without running it
    ///
    /// Prints a summary, or every problem at once: file, line and column, the line itself, the
    /// value, and what is allowed instead. Listens nowhere, asks no backend and resolves no name of
    /// the file, so it is safe beside a running daemon. Without -c, a daemon that answers is asked
    /// which file it runs with.
    #[command(after_long_help = check_details())]
    Check(NamedFile),
    /// Tell which backend a client gets, and why not each other one
    ///
    /// Asks the running daemon, whose own table answers: the backend that the client gets or would be
    /// given next, and of every other one why not: down and since when, drained, full, standing by, or at
    /// home for other addresses.
    #[command(after_long_help = explain::DETAILS)]
    Explain(explain::Options),
    /// Tell what a reload would do: changes, sessions concerned, clients that move, problems
    ///
    /// Asks the running daemon to compare a file with what it runs: what is added, changed, kept and
    /// removed, what needs a restart, which sessions are at backends that leave, how many clients of a
    /// source-hash would get another server, and which new backends do not answer.
    #[command(after_long_help = plan::DETAILS)]
    Plan(plan::Options),
    /// Have the daemon read its file again: tells what that would do, asks, waits for the outcome
    ///
    /// Unlike a signal, it has an answer: what has changed, or why the running configuration stays.
    #[command(after_long_help = reload::DETAILS)]
    Reload(reload::Options),
    /// Tell who would get how much, and who moves when backends are missing
    ///
    /// Plays clients through the tables that the file leads to: shares per backend beside what their
    /// weights entitle them to, and with --without how many clients another backend would serve. Needs no
    /// daemon; without -c, one that answers is asked which file it runs with, and nothing else.
    #[command(after_long_help = simulate::DETAILS)]
    Simulate(simulate::Simulate),
    /// What is wrong, since when, and who is hurt; then how every backend stands
    ///
    /// Asks the running daemon. What is wrong comes first: services without a server, backends that
    /// are down and why, clients that were turned away and for which reason, a configuration that was
    /// rejected. Then every service and backend with its sessions and rates, taken over one second.
    #[command(after_long_help = status::DETAILS)]
    Status(status::Options),
    /// How everything stands, live: rates, sparklines, details, changes by key
    ///
    /// Asks the running daemon once a second. '?' lists the keys: sort, filter, open a backend, drain
    /// or enable it after a question. Needs a terminal of 80×24 and no more than ssh.
    Top(top::Options),
    /// What has happened: who went down and came back, reloads, changes
    ///
    /// The daemon keeps the latest 1,000 events. With --follow, tells what happens until Ctrl-C, also
    /// over a restart of the daemon.
    #[command(after_long_help = events::DETAILS)]
    Events(events::Options),
    /// What each failover has cost: how long it took, and whose sessions were lost
    Failovers(events::FailoverOptions),
    /// Who is connected to what, the oldest first
    Sessions(sessions::Options),
    /// Drain, disable, enable or weigh a backend of the running daemon, or close its sessions
    ///
    /// Says what it will do and how many sessions it concerns, asks, does it, and tells what came of
    /// it. A change survives a reload, and a restart where there is a 'state_file'; 'reset' goes back
    /// to what the file says.
    #[command(after_long_help = backend::DETAILS)]
    Backend {
        #[command(subcommand)]
        action: backend::Action,
    },
    /// Let the first tier of a service serve again, after a standby has stood in
    Service {
        #[command(subcommand)]
        action: service::Action,
    },
    /// Tell what of this machine stands in the way of a configuration, and how to change it
    ///
    /// Looks at kernel settings, limits, memory, files and their permissions, the clock, and at the
    /// daemon that runs with the file, if one does. Each finding says how it is, how it should be and
    /// why, and what to paste. Changes nothing. As root it judges for the user that the daemon runs as.
    #[command(after_long_help = doctor::DETAILS)]
    Doctor {
        #[command(flatten)]
        reach: client::Reach,
        /// For programs: one JSON object
        #[arg(long)]
        json: bool,
    },
    /// See a balancer, three servers and a failover in this terminal
    ///
    /// Starts three small servers inside this process and the real balancer in front of them. Every
    /// ten seconds one server dies and later returns, while some clients keep connecting; the
    /// terminal shows who serves, what the heartbeats miss, the failover and the recovery. Needs no
    /// configuration and writes no file.
    #[command(after_long_help = DEMO_DETAILS)]
    Demo {
        /// Where the balancer listens; port 0 takes any free port
        #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080", value_parser = socket_address)]
        listen: SocketAddr,
        /// How often a server dies; tests are in a hurry
        #[arg(long, hide = true, default_value = "10s", value_parser = humantime::parse_duration)]
        pace: Duration,
    },
    /// How available everything has been, how available it should be, and what failovers have cost
    ///
    /// Asks the running daemon: availability, failures, mean time between failures and to repair, for
    /// each backend and service; beside that the availability that a service should have by what its
    /// backends are; and every failover with its times.
    #[command(after_long_help = report::DETAILS)]
    Report(report::Options),
    /// Print the completions of a shell
    #[command(after_long_help = completions::DETAILS)]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page, or write one for each command
    #[command(after_long_help = man::DETAILS)]
    Man {
        /// Where to write ballast.1, ballast-run.1 and so on
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// The process that starts programs for a daemon, which is the only one to call this
    #[command(hide = true, name = crate::runner::SUBCOMMAND)]
    Runner {
        /// Start the programs, rather than the process that does
        #[arg(long)]
        worker: bool,
    },
}

/// Where the configuration is, unless something else is said.
const CONFIGURATION: &str = "/etc/ballast/ballast.toml";

#[derive(Args, Debug)]
struct ConfigFile {
    /// The configuration file
    #[arg(
        short,
        long,
        value_name = "PATH",
        default_value = CONFIGURATION
    )]
    config: PathBuf,
}

#[derive(Args, Debug)]
struct NamedFile {
    /// The configuration file [default: that of the daemon that answers, else
    /// /etc/ballast/ballast.toml]
    #[arg(short, long, value_name = "PATH")]
    config: Option<PathBuf>,
}

/// A file without `-c` is the likeliest surplus argument there is.
fn hinted(mut error: clap::Error) -> clap::Error {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) if !argument.starts_with('-') => argument.clone(),
        _ => return error,
    };
    let usage = error.get(ContextKind::Usage).map(ToString::to_string);
    let takes_file = [
        "ballast run",
        "ballast check",
        "ballast doctor",
        "ballast plan",
        "ballast simulate",
    ]
    .into_iter()
    .find(|command| usage.as_ref().is_some_and(|usage| usage.contains(command)));
    if let (ErrorKind::UnknownArgument, Some(command)) = (error.kind(), takes_file) {
        let hint = format!("to name the file, write '{command} -c {argument}'");
        error.insert(
            ContextKind::Suggested,
            ContextValue::StyledStrs(vec![hint.into()]),
        );
    }
    error
}

fn socket_address(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse()
        .map_err(|_| "expected an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080")
}

const RUN_DETAILS: &str = "\
Signals:
  SIGHUP           read the configuration again; running sessions never notice,
                   and a file with a problem changes nothing (the log says why)
  SIGUSR1          tell every backend's state and counters in the log
  SIGTERM, SIGINT  stop accepting, let running sessions finish for up to
                   'drain_timeout', then close the rest; a second one ends at
                   once

Exit codes:
  0  stopped by a signal
  1  could not start, or failed
  2  a wrong command line

Examples:
  ballast run                      with /etc/ballast/ballast.toml
  ballast run -c ./ballast.toml
  ballast run --last-good          serve even if the file was broken meanwhile
  systemctl reload ballast         reload, under systemd
  kill -HUP PID                    reload, without it";

const DEMO_DETAILS: &str = "\
While it runs, from another terminal:
  curl http://127.0.0.1:8080
  while sleep 0.2; do curl -s http://127.0.0.1:8080; done
Or, where nc is installed, type something that is not HTTP; it is echoed:
  nc 127.0.0.1 8080

Ctrl-C ends it and prints a summary.";

/// What every terminal has. Help that is laid out in columns is broken here and not by clap, which
/// knows no hanging indent.
const COLUMNS: usize = 80;

/// The registry is the only list of strategies there is.
fn check_details() -> String {
    use std::fmt::Write as _;

    let mut details = "Strategies (strategy = \"…\"):\n".to_owned();
    for entry in crate::strategy::REGISTRY {
        let mut line = format!("  {:<18}", entry.name);
        for word in entry.summary.split(' ') {
            if line.chars().count() + 1 + word.chars().count() > COLUMNS {
                // Writing to a string does not fail.
                let _ = writeln!(details, "{line}");
                line = format!("  {:<18}", "");
            }
            line.push(' ');
            line.push_str(word);
        }
        let _ = writeln!(details, "{line}");
    }
    details.push_str(
        "
Exit codes:
  0  no problem; warnings are printed
  1  problems
  2  a wrong command line

Examples:
  ballast check                    the file of the daemon that answers, or else
                                   /etc/ballast/ballast.toml
  ballast check -c new.toml        a draft, before it replaces the daemon's file",
    );
    details
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_default_configuration_is_in_etc() {
        let arguments = Arguments::try_parse_from(["ballast", "run"]).unwrap();
        let Command::Run { file, .. } = arguments.command else {
            panic!("not run");
        };
        assert_eq!(file.config, PathBuf::from(CONFIGURATION));
    }

    #[test]
    fn a_wrong_command_line_exits_with_2() {
        for wrong in [
            &["ballast"][..],
            &["ballast", "walk"],
            &["ballast", "run", "-c"],
            &["ballast", "check", "--config"],
            &["ballast", "demo", "--listen", "localhost"],
            &["ballast", "run", "surplus"],
        ] {
            let error = Arguments::try_parse_from(wrong).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn help_fits_an_80_column_terminal() {
        let mut command = Arguments::command();
        command.build();
        for subcommand in command.get_subcommands_mut() {
            let help = |columns| {
                let mut command = subcommand.clone().term_width(columns);
                command.render_long_help().to_string()
            };
            for line in help(COLUMNS).lines() {
                assert!(line.chars().count() <= COLUMNS, "{line}");
            }
            // What is laid out in columns was not wrapped once more.
            let laid_out = subcommand.get_after_long_help().map(ToString::to_string);
            assert!(help(COLUMNS).contains(&laid_out.unwrap_or_default()));
        }
    }
}
