//! `ballast backend …`: changes one backend while the daemon runs. Says what it will do and whom it
//! concerns, asks, does it, and tells what came of it. What is said beforehand is [`outlook`]'s.

mod outlook;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};

use super::change::{agreed, exit_code};
use super::client::{Client, Failure, Reach, segment};
use super::figures::as_written;
use super::json;
use super::printing::say;
use super::status::{VIEW, no_such};
use crate::api::{Change, Changed, Service, View};
pub(super) use outlook::outlook;
use outlook::warning;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Action {
    /// Give it no new sessions; those that it has go on
    Drain {
        #[command(flatten)]
        who: Who,
        /// Reset what is left after this time, such as 5m; without it, sessions run to their end
        #[arg(long, value_name = "TIME", value_parser = as_written)]
        deadline: Option<Duration>,
    },
    /// Give it no new sessions, and alarm nobody about its checks
    Disable {
        #[command(flatten)]
        who: Who,
    },
    /// Let it serve again, whatever the file says
    Enable {
        #[command(flatten)]
        who: Who,
    },
    /// Let another share of its weight count, such as 50%, or 200% for twice of it
    Weight {
        #[command(flatten)]
        who: Who,
        /// Of the weight in the file: 0% to 1000%
        #[arg(value_name = "PERCENT", value_parser = percent)]
        percent: u16,
    },
    /// Go back to what the file says
    Reset {
        #[command(flatten)]
        who: Who,
    },
    /// Reset its running sessions, on both sides, at the service's close_rate
    Close {
        #[command(flatten)]
        who: Who,
    },
}

/// Whom it concerns, and how it is asked for.
#[derive(Args, Debug)]
pub(super) struct Who {
    /// The backend; 'SERVICE/*' is all of a service
    #[arg(value_name = "SERVICE/BACKEND")]
    target: String,
    #[command(flatten)]
    reach: Reach,
    /// Do not ask, for scripts
    #[arg(short, long)]
    yes: bool,
    /// Print the daemon's answer, for programs
    #[arg(long)]
    json: bool,
}

/// The whole subcommand.
pub(super) fn run(action: &Action) -> ExitCode {
    let (who, change) = action.parts();
    exit_code(carry_out(who, &change))
}

impl Action {
    fn parts(&self) -> (&Who, Change) {
        match self {
            Self::Drain { who, deadline } => {
                let deadline_seconds = deadline.map(|it| it.as_secs_f64());
                (who, Change::Drain { deadline_seconds })
            }
            Self::Disable { who } => (who, Change::Disable),
            Self::Enable { who } => (who, Change::Enable),
            Self::Weight { who, percent } => (who, Change::Weight { percent: *percent }),
            Self::Reset { who } => (who, Change::Reset),
            Self::Close { who } => (who, Change::CloseSessions),
        }
    }
}

/// What is to be said when it was done.
fn carry_out(who: &Who, change: &Change) -> Result<Option<String>, Failure> {
    let client = Client::find(&who.reach)?.for_programs(who.json);
    let view: View = client.get(VIEW)?;
    let closes = matches!(change, Change::CloseSessions);
    let (service, backend) = found(&view, &who.target, closes)?;
    client.may_change()?;
    let outlook = outlook(service, backend, change);
    if !who.yes && !agreed(&outlook, "Go on?") {
        return Ok(None);
    }
    // Scripts, too, have somebody who reads what they say.
    if let Some(warning) = warning(&outlook).filter(|_| who.yes) {
        say(&warning);
    }
    let path = path(&service.name, backend);
    let changed: Changed = client.post(&path, change)?;
    Ok(Some(match who.json {
        true => json::line(&changed),
        false => told(&changed),
    }))
}

/// Where a change of a backend, or of all of a service, is asked for.
pub(super) fn path(service: &str, backend: Option<&str>) -> String {
    let all = format!("/v1/services/{}/backends", segment(service));
    match backend {
        Some(backend) => format!("{all}/{}", segment(backend)),
        None => all,
    }
}

fn told(changed: &Changed) -> String {
    let mut text = format!("{}\n", changed.text);
    if !changed.durable {
        text +=
            "It holds until the daemon ends: there is no state_file in [runtime] to remember it.\n";
    }
    text
}

/// The service and the backend that are meant, which may be one that has left, where its sessions are to be closed;
/// no backend is all of them.
fn found<'a>(
    view: &'a View,
    target: &str,
    closes: bool,
) -> Result<(&'a Service, Option<&'a str>), Failure> {
    let Some((service, backend)) = target.split_once('/') else {
        return Err(Failure::Unknown(incomplete(view, target)));
    };
    let services: Vec<&str> = view.services.iter().map(|it| &*it.name).collect();
    let known = view.services.iter().find(|it| it.name == service);
    let service = known.ok_or_else(|| Failure::Unknown(no_such("service", service, &services)))?;
    if backend == "*" {
        return Ok((service, None));
    }
    let departed = service.left.named.iter().filter(|_| closes);
    let departed = departed.map(|it| &*it.name);
    let names = service.backends.iter().map(|it| &*it.name);
    let names: Vec<&str> = names.chain(departed).collect();
    match names.iter().find(|it| **it == backend) {
        Some(name) => Ok((service, Some(name))),
        None => {
            let what = format!("backend of {}", service.name);
            Err(Failure::Unknown(no_such(&what, backend, &names)))
        }
    }
}

/// What to write in place of a name without a slash.
fn incomplete(view: &View, target: &str) -> String {
    let of_that_name = |service: &&Service| service.backends.iter().any(|it| it.name == target);
    let owners: Vec<&Service> = view.services.iter().filter(of_that_name).collect();
    let meant = match owners.as_slice() {
        [] if view.services.iter().any(|it| it.name == target) => {
            format!("'{target}/*' for all of it")
        }
        [] => "SERVICE/BACKEND, such as web/app-1".to_owned(),
        some => some
            .iter()
            .map(|it| format!("{}/{target}", it.name))
            .collect::<Vec<_>>()
            .join(" or "),
    };
    format!("`{target}` does not say which backend of which service: write {meant}")
}

fn percent(text: &str) -> Result<u16, &'static str> {
    let number = text.strip_suffix('%').unwrap_or(text).parse();
    number
        .ok()
        .filter(|percent| *percent <= MOST_PERCENT)
        .ok_or("expected a whole percentage of the weight in the file, from 0% to 1000%")
}

/// More help.
pub(super) const DETAILS: &str = "\
Exit codes:
  0  done
  1  not done: declined here, or refused by the daemon, also for want of its
     token; or done, and stdout is full
  2  a wrong command line
  3  the daemon cannot be asked, or there is no such backend

Examples:
  ballast backend drain web/app-1 --deadline 5m
  ballast backend close web/app-1
  ballast backend weight web/app-1 50%
  ballast backend reset 'web/*' --yes";

const MOST_PERCENT: u16 = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Backend, Departed};

    fn view() -> View {
        let backend = |name: &str| Backend {
            name: name.into(),
            ..Backend::default()
        };
        View {
            services: vec![Service {
                name: "web".into(),
                backends: vec![backend("app-1"), backend("app-2")],
                ..Service::default()
            }],
            ..View::default()
        }
    }

    #[test]
    fn a_target_is_a_service_and_one_or_all_of_its_backends() {
        let view = view();
        let name = |target: &str| found(&view, target, false).map(|(it, of)| (it.name.clone(), of));
        assert_eq!(name("web/app-2").unwrap(), ("web".into(), Some("app-2")));
        assert_eq!(name("web/*").unwrap(), ("web".into(), None));
        let mut view = view.clone();
        view.services[0].left.named.push(Departed {
            name: "gone".into(),
            sessions: 1,
        });
        let gone = |closes| found(&view, "web/gone", closes).map(|(_, of)| of);
        assert_eq!(gone(true).unwrap(), Some("gone"));
        assert!(gone(false).is_err(), "it is given no sessions anyway");
        let complaint = |target: &str| name(target).unwrap_err().to_string();
        assert!(
            complaint("web/app-3").contains("did you mean `app-1`?")
                || complaint("web/app-3").contains("did you mean `app-2`?")
        );
        assert!(complaint("wbe/app-1").contains("did you mean `web`?"));
        assert!(complaint("app-1").ends_with("write web/app-1"));
        assert!(complaint("web").ends_with("write 'web/*' for all of it"));
        assert!(complaint("x").ends_with("write SERVICE/BACKEND, such as web/app-1"));
    }

    #[test]
    fn a_weight_is_a_percentage() {
        assert_eq!(percent("50%"), Ok(50));
        assert_eq!(percent("50"), Ok(50));
        for wrong in ["", "%", "-1", "1001", "half", "1.5"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_change_is_asked_for_where_its_backend_is() {
        assert_eq!(path("web", None), "/v1/services/web/backends");
        assert_eq!(
            path("web", Some("a:80")),
            "/v1/services/web/backends/a%3A80"
        );
    }
}
