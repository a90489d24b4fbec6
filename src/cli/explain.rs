//! `ballast explain`: which backend a client gets, and why not each other one.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::ExitCode;

use clap::Args;

use super::client::{Client, Failure, Reach, segment};
use super::json;
use super::printing::{complain, printed};
use super::status::{VIEW, known};
use super::table::{Column, Table};
use crate::api::{Explained, Explanation, View};
use crate::strategy::{Basis, find};

#[derive(Args, Debug)]
pub(super) struct Options {
    /// The client's address
    #[arg(value_name = "CLIENT-IP")]
    client: String,
    /// One service only; the two may come in either order
    #[arg(value_name = "SERVICE")]
    service: Option<String>,
    #[command(flatten)]
    reach: Reach,
    /// Print the daemon's answer, for programs
    #[arg(long)]
    json: bool,
}

/// The whole subcommand: 0 when somebody gets the client, 1 when nobody does, 3 without an answer.
pub(super) fn run(options: &Options) -> ExitCode {
    let Some((ip, service)) = told_apart(&options.client, options.service.as_deref()) else {
        let said = no_address(&options.client, options.service.as_deref());
        let usage = "Usage: ballast explain CLIENT-IP [SERVICE]";
        let _ = writeln!(io::stderr(), "error: {said}\n\n{usage}");
        return ExitCode::from(WRONG_COMMAND);
    };
    match ask(options, ip, service) {
        Ok((text, is_served)) => {
            let code = match is_served {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            };
            printed(text, code)
        }
        Err(failure) => complain(&failure),
    }
}

/// Which of the two is the client, and which the service.
fn told_apart<'o>(first: &'o str, second: Option<&'o str>) -> Option<(IpAddr, Option<&'o str>)> {
    match (first.parse(), second.map(str::parse)) {
        (Ok(ip), _) => Some((ip, second)),
        (Err(_), Some(Ok(ip))) => Some((ip, Some(first))),
        (Err(_), Some(Err(_)) | None) => None,
    }
}

/// What is to be said where neither of the two is one.
fn no_address(first: &str, second: Option<&str>) -> String {
    match second {
        None => format!("{first:?} is no IP address"),
        Some(second) => format!("neither {first:?} nor {second:?} is an IP address"),
    }
}

fn ask(options: &Options, ip: IpAddr, service: Option<&str>) -> Result<(String, bool), Failure> {
    let client = Client::find(&options.reach)?.for_programs(options.json);
    let mut path = format!("/v1/explain?client={}", segment(&ip.to_string()));
    if let Some(service) = service {
        path += &format!("&service={}", segment(service));
    }
    if service.is_some() {
        let view: View = client.get(VIEW)?;
        known(&view, service)?;
    }
    let explanation: Explanation = client.get(&path)?;
    let is_served = explanation.services.iter().all(|it| it.backend.is_some());
    let text = match options.json {
        true => json::line(&explanation),
        false => explanation
            .services
            .iter()
            .map(told)
            .collect::<Vec<_>>()
            .join("\n"),
    };
    Ok((text, is_served))
}

/// One service, for people.
fn told(explained: &Explained) -> String {
    let Explained {
        service,
        strategy,
        seen_as,
        why,
        ..
    } = explained;
    let mut text = match (&explained.backend, &explained.address) {
        (Some(backend), Some(address)) => {
            let always = match explained.always {
                true => "gets",
                false => "would get",
            };
            format!("{service} ({strategy}): {seen_as} {always} {backend} at {address}\n  {why}\n")
        }
        _ => {
            let fate = match explained.refused_by {
                Some(_) => "is reset",
                None => "gets nobody",
            };
            format!("{service} ({strategy}): {seen_as} {fate}\n  {why}\n")
        }
    };
    if !explained.always && explained.backend.is_some() {
        text += match find(strategy).map(|it| it.goes_by) {
            Some(Basis::Load) => {
                "  the load decides anew for each connection: the shares are the chances of the next one\n"
            }
            Some(Basis::Turn | Basis::Source) | None => {
                "  the next connection may go elsewhere: the shares are of the next 1,000, as the load is now\n"
            }
        };
    }
    for note in &explained.notes {
        text += &format!("  note: {note}\n");
    }
    let mut table = Table::new(&[Column::Words, Column::Numbers, Column::Words]);
    for backend in explained.backends.iter().take(MOST_SHOWN) {
        let name = format!("  {}", backend.backend);
        let percent = format!("{:.1} %", backend.percent);
        table.row([name.into(), percent.into(), backend.why.clone().into()]);
    }
    text.push('\n');
    text += &table.text(COLUMNS, false);
    let more = explained.backends.len().saturating_sub(MOST_SHOWN);
    if more > 0 {
        text += &format!("  … and {more} more; --json has all of them\n");
    }
    text
}

/// The exit code of a wrong command line, as clap has it.
const WRONG_COMMAND: u8 = 2;
/// Of a line.
const COLUMNS: usize = 100;
/// Backends of a service that are shown.
const MOST_SHOWN: usize = 100;

pub(super) const DETAILS: &str = "\
The daemon answers by the very table that serves, with the sessions that its
backends have. With source-hash a client always gets the same backend while
nothing changes. The other strategies go by the order of clients or by load:
then it is the backend that would be picked next, and each one's share of the
next thousand connections, or by load its chance of the next one.

Whether the client is let in is asked first: the PROXY protocol, access, and
the limits of its source as they are used up now. Nobody is counted by it.

Exit codes:
  0  a backend gets the client, at every service that was asked for
  1  nobody does at one of them, or it is not let in there
  2  a wrong command line
  3  the daemon gives no answer

Examples:
  ballast explain 192.0.2.7
  ballast explain 2001:db8::7 web --json";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_and_service_may_come_in_either_order_and_what_is_no_address_is_named() {
        let ip = "192.0.2.7".parse().unwrap();
        assert_eq!(told_apart("192.0.2.7", None), Some((ip, None)));
        assert_eq!(
            told_apart("web", Some("192.0.2.7")),
            Some((ip, Some("web")))
        );
        assert_eq!(told_apart("1.2.3", Some("web")), None);
        assert_eq!(no_address("1.2.3", None), "\"1.2.3\" is no IP address");
        let neither = "neither \"1.2.3\" nor \"web\" is an IP address";
        assert_eq!(no_address("1.2.3", Some("web")), neither);
    }
}
