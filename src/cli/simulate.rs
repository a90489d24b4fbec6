//! `ballast simulate`: who gets how much under a file, and how many clients move when backends are missing.
//! Made with the roster and the tables that would serve, without a daemon.

mod outcome;
mod text;

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::Args;
use tracing::Level;

use self::outcome::shares;
use self::text::told;
use super::json;
use super::printing::printed;
use super::{NamedFile, client};
use crate::api::Simulation;
use crate::config::{self, ServiceConfig};
use crate::forecast::clients;
use crate::telemetry::logging;

#[derive(Args, Debug)]
pub(super) struct Simulate {
    #[command(flatten)]
    file: NamedFile,
    /// So many made-up clients, or a file with an IP address on each line
    #[arg(long, value_name = "N|FILE", default_value = "10000")]
    clients: String,
    /// A backend that is missing, by name or as SERVICE/BACKEND; may be given again
    #[arg(long, value_name = "BACKEND")]
    without: Vec<String>,
    /// Sessions at a time, each as long as any other: what strategies that look at load find
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    at_once: u32,
    /// Print one JSON document instead
    #[arg(long)]
    json: bool,
}

/// The whole subcommand: 0 when the figures were printed, 1 for a problem.
pub(super) fn run(arguments: &Simulate) -> ExitCode {
    match simulation(arguments) {
        Ok(simulation) => {
            let text: String = match arguments.json {
                true => json::lines(&simulation),
                false => simulation
                    .services
                    .iter()
                    .map(|it| told(it, &simulation))
                    .collect(),
            };
            printed(text, ExitCode::SUCCESS)
        }
        Err(error) => {
            let text = format!("ballast: {error:#}\n");
            // With stderr closed there is nobody left to tell.
            let _ = io::stderr().write_all(logging::addressed(&text, Level::ERROR).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn simulation(arguments: &Simulate) -> anyhow::Result<Simulation> {
    let path = client::file(arguments.file.config.as_deref());
    let loaded = config::load(&path).map_err(|rejected| {
        let report = rejected.render(logging::is_colourful());
        anyhow::anyhow!("{} cannot be used\n{report}", path.display())
    })?;
    let mut services = loaded.config.services;
    for service in &mut services {
        if let Some(list) = service.backends_file.clone() {
            match config::load_listed(&list, service) {
                Ok(listed) => {
                    let own = service.backends.iter().cloned();
                    service.backends = own.chain(listed.backends).collect();
                }
                Err(rejected) => bail!(
                    "{} cannot be used\n{}",
                    list.display(),
                    rejected.render(logging::is_colourful())
                ),
            }
        }
        service.parameters.configured = service.backends.len();
    }
    let clients = who_comes(&arguments.clients)?;
    let at_once = arguments.at_once as usize;
    let missing = missing(&services, &arguments.without)?;
    let shares = services.iter().map(|service| {
        let names = missing.get(&service.name);
        shares(service, names, &clients, at_once)
    });
    Ok(Simulation {
        services: shares.collect(),
        clients: clients.len() as u64,
        at_once: at_once as u64,
        without: arguments.without.clone(),
    })
}

/// A number of made-up clients, or those of a file.
fn who_comes(said: &str) -> anyhow::Result<Vec<IpAddr>> {
    if let Ok(count) = said.replace('_', "").parse::<u32>() {
        if count == 0 || count as usize > MOST_CLIENTS {
            bail!("--clients {said}: from 1 to {MOST_CLIENTS} clients are played");
        }
        return Ok(clients(count).collect());
    }
    let path = PathBuf::from(said);
    let failed = || format!("--clients {said} is neither a number nor a file that can be read");
    let file = File::open(&path).with_context(failed)?;
    let mut found = Vec::new();
    for (line, number) in BufReader::new(file).lines().zip(1..) {
        let line = line.with_context(failed)?;
        let text = line.split('#').next().unwrap_or_default().trim();
        if text.is_empty() {
            continue;
        }
        let Ok(client) = text.parse::<IpAddr>() else {
            let shown = crate::model::one_line(text, 60);
            bail!("{}:{number}: \"{shown}\" is no IP address", path.display());
        };
        if found.len() == MOST_CLIENTS {
            bail!("{}: more than {MOST_CLIENTS} clients", path.display());
        }
        found.push(client);
    }
    if found.is_empty() {
        bail!("{}: no client in it", path.display());
    }
    Ok(found)
}

/// The missing backends by service. A name without a service is missing wherever it is.
fn missing(
    services: &[ServiceConfig],
    said: &[String],
) -> anyhow::Result<HashMap<Arc<str>, HashSet<Arc<str>>>> {
    let mut missing: HashMap<Arc<str>, HashSet<Arc<str>>> = HashMap::new();
    for name in said {
        let (wanted, backend) = match name.split_once('/') {
            Some((service, backend)) => (Some(service), backend),
            None => (None, name.as_str()),
        };
        let mut found = false;
        for service in services
            .iter()
            .filter(|it| wanted.is_none_or(|name| *it.name == *name))
        {
            if let Some(known) = service.backends.iter().find(|it| *it.name == *backend) {
                let names = missing.entry(Arc::clone(&service.name)).or_default();
                names.insert(Arc::clone(&known.name));
                found = true;
            }
        }
        if !found {
            let names = services.iter().flat_map(|service| {
                service
                    .backends
                    .iter()
                    .map(move |it| format!("{}/{}", service.name, it.name))
            });
            let names: Vec<_> = names.take(MOST_NAMES).collect();
            bail!(
                "--without {name}: there is no such backend; there are {}",
                names.join(", ")
            );
        }
    }
    Ok(missing)
}

/// The most clients that are played.
const MOST_CLIENTS: usize = 1_000_000;
/// Backends that are offered to somebody who has named none of them.
const MOST_NAMES: usize = 12;
pub(super) const DETAILS: &str = "\
Every service gets one session from each client. Who serves is decided, and
each client is given a backend, by the code that does it in the daemon. With
source-hash the answer is exact for real addresses; the other strategies go
by the order of clients or by load, and the output says what was assumed.

Exit codes:
  0  the figures were printed
  1  a problem with the file, the clients or a name
  2  a wrong command line

Examples:
  ballast simulate -c new.toml --clients 100000
  ballast simulate --clients access.txt --without web/app-2
  ballast simulate --without app-1 --without app-2 --json";
