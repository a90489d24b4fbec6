//! `ballast service fail-back`: the operator's answer to `fail_back = "manual"`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::change::{agreed, exit_code};
use super::client::{Client, Failure, Reach, segment};
use super::condition::Condition;
use super::status::{VIEW, known};
use crate::api::{Changed, Service, View};

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Let those serve again that a standby stands in for
    ///
    /// With fail_back = "manual", a standby goes on to serve when those before it are back, until
    /// this says so. Running sessions stay where they are.
    FailBack(FailBack),
}

/// Whom it concerns, and how it is asked for.
#[derive(Args, Debug)]
pub(super) struct FailBack {
    /// The service
    service: String,
    #[command(flatten)]
    reach: Reach,
    /// Do not ask, for scripts
    #[arg(short, long)]
    yes: bool,
}

/// The whole subcommand.
pub(super) fn run(Action::FailBack(options): &Action) -> ExitCode {
    exit_code(fail_back(options))
}

/// What is to be said when it was done.
fn fail_back(options: &FailBack) -> Result<Option<String>, Failure> {
    let client = Client::find(&options.reach)?;
    let view: View = client.get(VIEW)?;
    known(&view, Some(&options.service))?;
    client.may_change()?;
    let service = view.services.iter().find(|it| it.name == options.service);
    let outlook = service.map(outlook).unwrap_or_default();
    if !options.yes && !agreed(&outlook, "Go on?") {
        return Ok(None);
    }
    let path = format!("/v1/services/{}/fail-back", segment(&options.service));
    let changed: Changed = client.post(&path, &json!({}))?;
    Ok(Some(changed.text + "\n"))
}

/// Who would serve again, and who would not any more.
fn outlook(service: &Service) -> String {
    let first = service.backends.iter().map(|it| it.priority).min();
    let waiting = service
        .backends
        .iter()
        .filter(|it| Some(it.priority) == first && Condition::of(it) == Condition::Standby);
    let waiting: Vec<&str> = waiting.map(|it| &*it.name).collect();
    match waiting.is_empty() {
        true => format!(
            "Nobody of the first tier of {} is held back now.\n",
            service.name
        ),
        false => format!(
            "{} of {} serve again, and standbys that are not needed stand by.\n\
             Running sessions stay where they are.\n",
            waiting.join(", "),
            service.name
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Backend, State};

    #[test]
    fn who_is_held_back_is_named() {
        let backend = |name: &str, priority, serving| Backend {
            name: name.into(),
            address: Some("10.0.0.1:80".into()),
            state: State::Up,
            enabled: true,
            priority,
            serving,
            ..Backend::default()
        };
        let mut service = Service {
            name: "db".into(),
            backends: vec![backend("db-1", 0, false), backend("db-2", 1, true)],
            ..Service::default()
        };
        assert!(outlook(&service).starts_with("db-1 of db serve again"));
        service.backends[0].serving = true;
        service.backends[1].serving = false;
        assert!(outlook(&service).starts_with("Nobody of the first tier of db"));
    }
}
