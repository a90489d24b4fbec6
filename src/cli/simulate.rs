//! `ballast simulate`: who gets how much under a file, and how many clients move when backends are missing.
//! Made with the roster and the tables that would serve, without a daemon.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use tracing::Level;

use super::figures::{fitted, width, wrapped};
use super::{NamedFile, client};
use crate::api::{Share, Shares, Simulation, Without};
use crate::config::{self, ServiceConfig};
use crate::forecast::{Table, Tried, clients};
use crate::health::{Decision, HealthView, Member, Roster, State};
use crate::model::{Address, BackendId};
use crate::strategy::Basis;
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

/// The most clients that are played.
const MOST_CLIENTS: usize = 1_000_000;

/// The whole subcommand: 0 when the figures were printed, 1 for a problem.
pub(super) fn run(arguments: &Simulate) -> ExitCode {
    match simulation(arguments) {
        Ok(simulation) => {
            let text = match arguments.json {
                true => json(&simulation),
                false => simulation
                    .services
                    .iter()
                    .map(|it| told(it, &simulation))
                    .collect(),
            };
            let mut out = io::stdout().lock();
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
                Ok(()) | Err(_) => ExitCode::SUCCESS,
            }
        }
        Err(error) => {
            let text = format!("ballast: {error:#}\n");
            // With stderr closed there is nobody left to tell.
            let _ = io::stderr().write_all(logging::addressed(&text, Level::ERROR).as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn json(simulation: &Simulation) -> String {
    // Numbers and strings under fixed names always become JSON.
    serde_json::to_string_pretty(simulation).unwrap_or_default() + "\n"
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
                Ok(listed) => service.backends.extend(listed.backends),
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

/// Backends that are offered to somebody who has named none of them.
const MOST_NAMES: usize = 12;

fn shares(
    service: &ServiceConfig,
    missing: Option<&HashSet<Arc<str>>>,
    clients: &[IpAddr],
    at_once: usize,
) -> Shares {
    let all = Outcome::of(service, &HashSet::new(), clients, at_once);
    let fewer = missing.map(|missing| Outcome::of(service, missing, clients, at_once));
    let binds = service.strategy.goes_by == Basis::Source;
    let moved = fewer.as_ref().filter(|_| binds);
    let moved = moved.map(|fewer| all.table.moved(&all.played, &fewer.table, &fewer.played));
    let backends = service
        .backends
        .iter()
        .enumerate()
        .map(|(at, backend)| Share {
            backend: backend.name.to_string(),
            weight: backend.weight,
            priority: backend.priority,
            seat: all.seat(at),
            clients: all.counts[at],
            percent: percent(all.counts[at] as f64, clients.len() as f64),
            ideal_percent: all.ideal(at),
            without: fewer.as_ref().map(|fewer| Without {
                seat: fewer.seat(at),
                clients: fewer.counts[at],
                percent: percent(fewer.counts[at] as f64, clients.len() as f64),
                ideal_percent: fewer.ideal(at),
            }),
        });
    Shares {
        service: service.name.to_string(),
        strategy: service.strategy.name.to_owned(),
        basis: basis(service, at_once.min(clients.len())),
        backends: backends.collect(),
        unserved: all.unserved(),
        unserved_without: fewer.as_ref().map(Outcome::unserved),
        queue_size: match service
            .backends
            .iter()
            .any(|it| it.max_connections.is_some())
        {
            true => service.queue.size,
            false => 0,
        },
        queue_timeout_seconds: service.queue.timeout.as_secs_f64(),
        moved: moved.map(|it| it.moved),
        moved_needlessly: moved.map(|it| it.needlessly),
    }
}

/// What came of it.
struct Outcome {
    decision: Decision,
    table: Table,
    played: Vec<Option<usize>>,
    /// By the place of the backend in the file.
    counts: Vec<u64>,
    /// What counts of the weight of each that serves, by the same; 0 for the others.
    due: Vec<f64>,
}

impl Outcome {
    /// Everybody is up but the `missing`.
    fn of(
        service: &ServiceConfig,
        missing: &HashSet<Arc<str>>,
        clients: &[IpAddr],
        at_once: usize,
    ) -> Self {
        let id = |name: &Arc<str>| BackendId::new(Arc::clone(&service.name), Arc::clone(name));
        let ids: Vec<_> = service.backends.iter().map(|it| id(&it.name)).collect();
        let members = service
            .backends
            .iter()
            .zip(&ids)
            .map(|(backend, id)| Member {
                id,
                weight: backend.weight,
                priority: backend.priority,
                enabled: backend.enabled,
                // Where a name leads is for a daemon to find out; here it is one backend.
                resolved: true,
                admin: Default::default(),
                health: HealthView::of(match missing.contains(&backend.name) {
                    true => State::Down,
                    false => State::Up,
                }),
            });
        let members: Vec<_> = members.collect();
        let decision = Roster::default().decide(&service.serving, &members, Instant::now());
        let places: HashMap<_, usize> = ids.iter().zip(0..).collect();
        let table = Table::new(service, &decision.serving, |id| {
            let backend = &service.backends[*places.get(id)?];
            Some(Tried {
                address: backend.address.fixed().unwrap_or(NOWHERE),
                max_connections: backend.max_connections,
            })
        });
        let played = table.play(clients, at_once);
        let place = |index: usize| places.get(table.backends()[index].id()).copied();
        let mut counts = vec![0; ids.len()];
        for place in played.iter().flatten().filter_map(|&index| place(index)) {
            counts[place] += 1;
        }
        let mut due = vec![0.0; ids.len()];
        for (index, backend) in table.backends().iter().enumerate() {
            if let Some(place) = place(index) {
                due[place] = match service.strategy.weighted {
                    true => backend.effective_weight() as f64,
                    false => f64::from(backend.portion().thousandths()),
                };
            }
        }
        Self {
            decision,
            table,
            played,
            counts,
            due,
        }
    }

    fn seat(&self, at: usize) -> String {
        self.decision.seats[at].to_string()
    }

    fn ideal(&self, at: usize) -> f64 {
        percent(self.due[at], self.due.iter().sum())
    }

    fn unserved(&self) -> u64 {
        self.played.iter().filter(|it| it.is_none()).count() as u64
    }
}

/// Where a name leads, which is not known here.
const NOWHERE: Address = Address::Inet(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));

fn percent(part: f64, whole: f64) -> f64 {
    match whole > 0.0 {
        true => (part / whole * 10_000.0).round() / 100.0,
        false => 0.0,
    }
}

/// What the figures rest on, and how far they can be trusted.
fn basis(service: &ServiceConfig, at_once: usize) -> String {
    let capped = service
        .backends
        .iter()
        .any(|it| it.max_connections.is_some());
    let load = format!(
        "{} sessions at a time, all equally long",
        grouped(at_once as u64)
    );
    let mut text = match service.strategy.goes_by {
        Basis::Source if service.parameters.max_load.is_some() => {
            format!("by address, and max_load with {load}")
        }
        Basis::Source => "by address: exactly what these clients get".to_owned(),
        Basis::Turn => "by turns: only the shares say something, not who gets which".to_owned(),
        Basis::Load => format!("by load, with {load}: real shares depend on real sessions"),
    };
    if capped && service.strategy.goes_by != Basis::Load && service.parameters.max_load.is_none() {
        let _ = write!(text, "; max_connections with {load}");
    }
    let names = service
        .backends
        .iter()
        .filter(|it| it.address.fixed().is_none());
    if names.count() > 0 {
        text += "; a name counts as one backend, however many addresses it has";
    }
    text
}

/// `12,345`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// One service, for people.
fn told(shares: &Shares, simulation: &Simulation) -> String {
    let mut text = format!(
        "{}: {}, {} clients\n  {}\n\n",
        shares.service,
        shares.strategy,
        grouped(simulation.clients),
        wrapped(&shares.basis, COLUMNS - 2).join("\n  ")
    );
    let backends = &shares.backends;
    let width = backends
        .iter()
        .map(|it| width(&it.backend))
        .max()
        .unwrap_or(0)
        .clamp(7, 34);
    let with_missing = backends.iter().any(|it| it.without.is_some());
    let mut head = format!(
        "  {:<width$}  weight     clients    share    ideal",
        "backend"
    );
    if with_missing {
        head += "     without    share    ideal";
    }
    put(&mut text, &head);
    for it in backends.iter().take(MOST_SHOWN) {
        let mut line = format!(
            "  {:<width$}  {:>6}  {}",
            fitted(&it.backend, width),
            it.weight,
            figures(&it.seat, it.clients, it.percent, it.ideal_percent)
        );
        if let Some(without) = &it.without {
            let fewer = figures(
                &without.seat,
                without.clients,
                without.percent,
                without.ideal_percent,
            );
            let _ = write!(line, "  {fewer}");
        }
        put(&mut text, &line);
    }
    let more = backends.len().saturating_sub(MOST_SHOWN);
    if more > 0 {
        let _ = writeln!(text, "  … and {more} more; --json has all of them");
    }
    text.push('\n');
    for (unserved, when) in [
        (Some(shares.unserved), ""),
        (shares.unserved_without, " without the missing"),
    ] {
        if let Some(unserved) = unserved.filter(|it| *it > 0) {
            let why = why_nobody(shares);
            let line = format!("{} clients get nobody{when}: {why}", grouped(unserved));
            let _ = writeln!(text, "  {}", wrapped(&line, COLUMNS - 2).join("\n  "));
        }
    }
    match (shares.moved, shares.moved_needlessly) {
        (Some(moved), Some(needlessly)) => {
            let _ = writeln!(
                text,
                "  {} clients ({} %) move: {} of the missing, {} of others",
                grouped(moved),
                percent(moved as f64, simulation.clients as f64),
                grouped(moved - needlessly),
                grouped(needlessly)
            );
        }
        _ if with_missing => {
            text += "  this strategy binds no client to a backend: none has one to move from\n";
        }
        _ => {}
    }
    text.trim_end().to_owned() + "\n\n"
}

/// Why clients get nobody. Sessions are all equally long here, so nobody can say how long those wait who are queued.
fn why_nobody(shares: &Shares) -> String {
    let full = "all are full, or nobody serves";
    match (
        shares.queue_size,
        Duration::try_from_secs_f64(shares.queue_timeout_seconds),
    ) {
        (1.., Ok(timeout)) => format!(
            "{full}; while all are full, up to {} at a time wait for a place, for at most {}",
            grouped(shares.queue_size.into()),
            config::written(timeout)
        ),
        (0, _) | (_, Err(_)) => full.to_owned(),
    }
}

fn put(text: &mut String, line: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{}", line.trim_end());
}

fn figures(seat: &str, clients: u64, percent: f64, ideal: f64) -> String {
    match seat {
        "serves" => format!("{:>10}  {percent:>5.1} %  {ideal:>5.1} %", grouped(clients)),
        other => format!("{other:>10}{:>18}", ""),
    }
}

/// Of a line.
const COLUMNS: usize = 100;
/// Backends of a service that are printed.
const MOST_SHOWN: usize = 100;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let all = [0, 12, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(all, ["0", "12", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn a_name_is_shown_whole_where_it_fits_and_with_both_ends_where_not() {
        let long = "storage-number-one-of-the-northern-building";
        let shown = |names: &[&str]| {
            let backends = names.iter().map(|&name| Share {
                backend: name.to_owned(),
                seat: "serves".to_owned(),
                ..Share::default()
            });
            let shares = Shares {
                backends: backends.collect(),
                ..Shares::default()
            };
            told(&shares, &Simulation::default())
        };
        for names in [&["store-1", "a"], &["storage-number-one", "store-1"]] {
            let text = shown(names);
            for name in names {
                assert!(text.contains(&format!("\n  {name} ")), "{text}");
            }
        }
        let text = shown(&[long]);
        assert!(
            text.contains("\n  storage-number-on…orthern-building  "),
            "{text}"
        );
    }
}
