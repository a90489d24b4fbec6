//! `ballast report`: how available everything has been, how available it should be by what it is made
//! of, and what each failover has cost. [`expect`] is the mathematics, [`document`] what is
//! told, [`text`] and [`html`] how it looks.

mod document;
mod expect;
mod html;
mod text;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use self::document::Report;
use super::client::{Client, Failure, Reach};
use super::figures::as_written;
use super::json;
use super::printing::{complain, printed};
use crate::api::{Events, Failovers, View};

/// What is asked for.
#[derive(Args, Debug)]
pub(super) struct Options {
    #[command(flatten)]
    reach: Reach,
    /// Failovers and events of so long, up to now; the records are of all that is known
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = as_written)]
    since: Duration,
    /// How it is told
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs: one object, whose field names are stable
    Json,
    /// A page of its own, to send or to print
    Html,
}

/// The whole subcommand: 0 when there is a report, 3 when the daemon cannot be asked.
pub(super) fn run(options: &Options) -> ExitCode {
    let is_json = options.format == Format::Json;
    let client = Client::find(&options.reach).map(|it| it.for_programs(is_json));
    let report = match client.and_then(|client| ask(&client, options.since)) {
        Ok(report) => report,
        Err(failure) => return complain(&failure),
    };
    let told = match options.format {
        Format::Text => text::of_all(&report),
        Format::Html => html::of_all(&report),
        Format::Json => json::lines(&report),
    };
    printed(told, ExitCode::SUCCESS)
}

fn ask(client: &Client, since: Duration) -> Result<Report, Failure> {
    let view: View = client.get("/v1/view")?;
    let failovers: Failovers = client.get("/v1/failovers")?;
    let events: Events = client.get("/v1/events")?;
    Ok(Report::of(&view, &failovers, &events, since))
}

pub(super) const DETAILS: &str = "\
What it says:
  available   the share of the known time that it was up. A backend is up
              unless its checks or its sessions say otherwise; a service is
              while 'min_up' or more of its backends may serve. Time in which
              an operator had too many of them out counts apart, as no failure
  predicted   the same of a service, computed from its backends as though
              they failed independently of each other: k out of n. Measured
              worse than predicted, they have a cause in common
  failures    times that it went from up to down; flaps are those that followed
              a return within a minute
  MTBF, MTTR  mean time up for each failure, mean time down for each return
  t1, t2, t3  of a failover, since the first thing went wrong: detected, new
              sessions go elsewhere, nobody is on the way there any more

--since bounds failovers and events, of which the daemon keeps the last ones.
Records are of all the time that Ballast has watched, over restarts where there
is a 'state_file'; time in which it did not run counts for nothing.

Exit codes:
  0  a report
  2  a wrong command line
  3  the daemon cannot be asked

Examples:
  ballast report
  ballast report --since 30d --format html > availability.html
  ballast report --format json | jq '.services[] | [.name, .record]'";
