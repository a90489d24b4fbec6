//! `ballast status`: what is wrong, since when, who is hurt; then how everything stands. Asks the
//! daemon, prints, and lets the exit code say it too; how it looks is [`page`]'s business.

mod page;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Failure, Reach};
use super::condition::Gravity;
use super::findings::findings;
use super::json;
use super::printing::{complain, printed};
use super::rates::Rates;
use crate::api::{Events, View};
use page::Page;
pub(super) use page::{availability, milliseconds};

/// What is asked for.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only this service, in detail
    service: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// Print the daemon's answer, for programs; field names are stable
    #[arg(long)]
    json: bool,
    /// Answer at once, with counts instead of rates
    #[arg(long)]
    no_rates: bool,
}

/// The whole subcommand.
pub(super) fn run(options: &Options) -> ExitCode {
    let asked = Client::find(&options.reach).and_then(|client| match options.json {
        true => document(&client.for_programs(true), options),
        false => text(&client, options),
    });
    let (text, is_well) = match asked {
        Ok(answer) => answer,
        Err(failure) => return complain(&failure),
    };
    let code = match is_well {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    };
    printed(text, code)
}

fn text(client: &Client, options: &Options) -> Result<(String, bool), Failure> {
    let mut view: View = client.get(VIEW)?;
    known(&view, options.service.as_deref())?;
    let mut rates = None;
    if !options.no_rates {
        thread::sleep(BETWEEN);
        let next: View = client.get(VIEW)?;
        rates = Some(Rates::between(&view, &next));
        view = next;
    }
    // The page is as good without them, nearly.
    let events = client.get::<Events>(EVENTS).unwrap_or_default().events;
    let is_terminal = io::stdout().is_terminal();
    let page = Page {
        view: &view,
        service: options.service.as_deref(),
        rates: rates.as_ref(),
        events: &events,
        columns: match is_terminal {
            true => ratatui::crossterm::terminal::size().map_or(COLUMNS, |(it, _)| it.into()),
            false => usize::MAX,
        },
        colours: is_terminal && std::env::var_os("NO_COLOR").is_none_or(|it| it.is_empty()),
    };
    Ok((page.text(), is_well(&view, options.service.as_deref())))
}

fn document(client: &Client, options: &Options) -> Result<(String, bool), Failure> {
    let text = client.get_text(VIEW)?;
    let view: View = client.understood(text.as_bytes())?;
    known(&view, options.service.as_deref())?;
    let is_well = is_well(&view, options.service.as_deref());
    let Some(service) = options.service.as_deref() else {
        return Ok((json::as_sent(&text), is_well));
    };
    // As it was written, with the fields that we do not know.
    let whole: Value = client.understood(text.as_bytes())?;
    let all = whole["services"].as_array().into_iter().flatten();
    let one = all.into_iter().find(|it| it["name"] == service);
    Ok((json::line(one.unwrap_or(&Value::Null)), is_well))
}

fn is_well(view: &View, service: Option<&str>) -> bool {
    findings(view)
        .iter()
        .filter(|finding| service.is_none_or(|service| finding.concerns(service)))
        .all(|finding| finding.gravity != Gravity::Wrong)
}

/// That there is such a service; else which there are.
pub(super) fn known(view: &View, service: Option<&str>) -> Result<(), Failure> {
    let Some(wanted) = service else {
        return Ok(());
    };
    let names: Vec<&str> = view.services.iter().map(|it| &*it.name).collect();
    match names.contains(&wanted) {
        true => Ok(()),
        false => Err(Failure::Unknown(no_such("service", wanted, &names))),
    }
}

/// There is no such thing, and what is meant instead.
pub(super) fn no_such(what: &str, wanted: &str, names: &[&str]) -> String {
    let closest = names
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wanted, name), name))
        .filter(|(typos, _)| *typos <= 1 + wanted.len() / 6)
        .min_by_key(|(typos, _)| *typos);
    match closest {
        Some((_, name)) => format!("there is no {what} `{wanted}`; did you mean `{name}`?"),
        None if names.is_empty() => format!("there is no {what} `{wanted}`, nor any other"),
        None => {
            let mut some: Vec<&str> = names.iter().take(MOST_NAMES).copied().collect();
            if names.len() > MOST_NAMES {
                some.push("…");
            }
            format!(
                "there is no {what} `{wanted}`; there is: {}",
                some.join(", ")
            )
        }
    }
}

/// More help.
pub(super) const DETAILS: &str = "\
Exit codes:
  0  all is well
  1  something is wrong; it is told first
  2  a wrong command line
  3  the daemon cannot be asked

Examples:
  ballast status                   everything, the important first
  ballast status web               one service, in detail
  ballast status --json | jq '.services[].standing'
  ballast status --admin unix:/run/ballast/admin.sock";

/// How everything stands.
pub(super) const VIEW: &str = "/v1/view";
const EVENTS: &str = "/v1/events?limit=5";
/// Between two views: long enough for a rate, short enough to wait for.
const BETWEEN: Duration = Duration::from_secs(1);
/// What every terminal has.
pub(super) const COLUMNS: usize = 80;
/// Names that are told when another was meant.
const MOST_NAMES: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_mistypes_a_name_is_told_the_right_one() {
        let names = ["web", "api", "redis"];
        let told = |wanted: &str| no_such("service", wanted, &names);
        assert_eq!(
            told("wbe"),
            "there is no service `wbe`; did you mean `web`?"
        );
        assert_eq!(
            told("postgres"),
            "there is no service `postgres`; there is: web, api, redis"
        );
    }
}
