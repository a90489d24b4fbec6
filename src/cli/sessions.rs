//! `ballast sessions`: who is connected to what, the oldest first.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::client::{Client, Failure, Reach};
use super::events::query;
use super::figures::{grouped, of, scaled, time};
use super::json;
use super::printing::{complain, printed};
use super::status::{VIEW, known, no_such};
use super::table::{Cell, Column, Table};
use crate::api::{Session, Sessions, View};

/// Which of them.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// Only those of this service
    #[arg(long)]
    service: Option<String>,
    /// Only those of this backend
    #[arg(long)]
    backend: Option<String>,
    /// Only those of this client
    #[arg(long, value_name = "IP")]
    client: Option<IpAddr>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 50)]
    limit: u64,
    /// Print one JSON object per line, for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

/// The whole subcommand.
pub(super) fn run(options: &Options) -> ExitCode {
    let client = Client::find(&options.reach).map(|it| it.for_programs(options.json));
    match client.and_then(|client| list(&client, options)) {
        Ok(text) => printed(text, ExitCode::SUCCESS),
        Err(failure) => complain(&failure),
    }
}

fn list(client: &Client, options: &Options) -> Result<String, Failure> {
    let of_client = options.client.map(|it| it.to_string());
    let mut all = Vec::new();
    let mut lines = String::new();
    let mut offset = Some(0);
    let mut total = 0;
    while let Some(from) = offset.filter(|_| (all.len() as u64) < options.limit) {
        let limit = (options.limit - all.len() as u64).min(PAGE);
        let path = query(
            "/v1/sessions",
            &[
                ("service", options.service.as_deref()),
                ("backend", options.backend.as_deref()),
                ("client", of_client.as_deref()),
                ("limit", Some(&limit.to_string())),
                ("offset", Some(&from.to_string())),
            ],
        );
        let text = client.get_text(&path)?;
        let page: Sessions = client.understood(text.as_bytes())?;
        if options.json {
            let whole: Value = client.understood(text.as_bytes())?;
            for session in whole["sessions"].as_array().into_iter().flatten() {
                lines += &json::line(session);
            }
        }
        total = page.total;
        // An empty page with another behind it would never end.
        offset = page
            .next
            .filter(|next| *next > from && !page.sessions.is_empty());
        all.extend(page.sessions);
    }
    // A service or a backend that has left the file may have sessions still.
    if total == 0 && (options.service.is_some() || options.backend.is_some()) {
        let view: View = client.get(VIEW)?;
        known(&view, options.service.as_deref())?;
        known_backend(&view, options)?;
    }
    Ok(match options.json {
        true => lines,
        false => table(&all, total),
    })
}

/// That there is such a backend, of the service if one is named; else which there are.
fn known_backend(view: &View, options: &Options) -> Result<(), Failure> {
    let Some(wanted) = options.backend.as_deref() else {
        return Ok(());
    };
    let services = view.services.iter();
    let named = |name: &str| options.service.as_deref().is_none_or(|it| it == name);
    let backends = services
        .filter(|it| named(&it.name))
        .flat_map(|it| &it.backends);
    let names: BTreeSet<&str> = backends.map(|it| &*it.name).collect();
    if names.contains(wanted) {
        return Ok(());
    }
    let what = match &options.service {
        Some(service) => format!("backend of {service}"),
        None => "backend".to_owned(),
    };
    let names: Vec<&str> = names.into_iter().collect();
    Err(Failure::Unknown(no_such(&what, wanted, &names)))
}

fn table(all: &[Session], total: u64) -> String {
    use Column::{Numbers, Words};
    if all.is_empty() {
        return "No session is running.\n".into();
    }
    let mut table = Table::new(&[
        Words, Words, Words, Numbers, Numbers, Numbers, Numbers, Words,
    ]);
    let heading = [
        "CLIENT", "BACKEND", "PHASE", "AGE", "IDLE", "IN B", "OUT B", "ID",
    ];
    table.row(heading.map(Cell::from));
    for session in all {
        let past = |seconds: f64| time(Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let backend = match &session.backend {
            Some(backend) => format!("{}/{backend}", session.service),
            None => session.service.clone(),
        };
        table.row([
            session.client.clone().into(),
            backend.into(),
            session.phase.clone().into(),
            past(session.age_seconds).into(),
            past(session.idle_seconds).into(),
            scaled(session.to_backend_bytes as f64).into(),
            scaled(session.to_client_bytes as f64).into(),
            session.id.clone().into(),
        ]);
    }
    let mut text = table.text(usize::MAX, false);
    let shown = all.len() as u64;
    if shown < total {
        text += &format!(
            "{} of {}, the oldest first; --limit shows more\n",
            grouped(shown),
            of(total, "session")
        );
    }
    text
}

/// Sessions that are asked for at once.
const PAGE: u64 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_a_line_and_what_is_not_shown_is_counted() {
        let session = Session {
            id: "0-7".into(),
            client: "192.0.2.1:40000".into(),
            service: "web".into(),
            backend: Some("app-1".into()),
            phase: "relay".into(),
            age_seconds: 75.0,
            idle_seconds: 5.0,
            to_backend_bytes: 64,
            to_client_bytes: 5_000_000,
            ..Session::default()
        };
        assert_eq!(
            table(std::slice::from_ref(&session), 1200),
            "\
CLIENT           BACKEND    PHASE     AGE  IDLE  IN B  OUT B  ID
192.0.2.1:40000  web/app-1  relay  1m 15s    5s    64   5.0M  0-7
1 of 1,200 sessions, the oldest first; --limit shows more
"
        );
        assert_eq!(table(&[], 0), "No session is running.\n");
    }
}
