//! `ballast check`: what a file would do, on one screen, or everything that is wrong with it.

mod guarded;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tracing::Level;

use super::eyes;
use super::printing::{ended, put};
use crate::config::{self, AlertConfig, Config, Loaded, Report, ServiceConfig, Timeouts, written};
use crate::health::Passive;
use crate::telemetry::logging;

/// Checks the file at `path`: the summary goes to stdout, problems go to stderr. Exits with 0 if the
/// file can be used, with 1 if not.
pub(super) fn run(path: &Path) -> ExitCode {
    // Under `systemctl reload` the journal reads this.
    let color = logging::is_colourful();
    let report = |text: &str, level| {
        let text = logging::addressed(text, level);
        show(&mut io::stderr().lock(), &text)
    };
    match eyes::load(path) {
        Ok(loaded) => {
            if let Some(refusal) = eyes::refusal(path, &loaded, color) {
                drop(report(&refusal, Level::ERROR));
                return ExitCode::FAILURE;
            }
            let mut shown = report(&loaded.warnings.render(color), Level::WARN);
            let lists = lists(&loaded);
            for list in lists.values() {
                let text = list.report.render(color) + list.consequence();
                shown = shown.and_then(|()| report(&text, Level::WARN));
            }
            let told = put(summary(path, &loaded, &lists));
            ended(shown.and(told), ExitCode::SUCCESS)
        }
        Err(rejected) => {
            // The exit code says it all the same when stderr is gone.
            drop(report(&rejected.render(color), Level::ERROR));
            ExitCode::FAILURE
        }
    }
}

/// A file of backends.
struct List {
    /// The backends in it; `None` when it cannot be used.
    backends: Option<usize>,
    /// What is wrong with it: warnings, because a bad list keeps no daemon from starting, and another program
    /// may be about to mend it.
    report: Report,
}

impl List {
    /// What becomes of a list that cannot be used.
    fn consequence(&self) -> &'static str {
        match self.backends {
            Some(_) => "",
            None => {
                "It is not used as it is: a running daemon keeps its last list, and a new one starts \
                 without these backends\n"
            }
        }
    }
}

/// The files of backends, by service.
type Lists<'a> = BTreeMap<&'a str, List>;

fn lists(loaded: &Loaded) -> Lists<'_> {
    let services = loaded.config.services.iter();
    let list = |service: &ServiceConfig| {
        let path = service.backends_file.as_ref()?;
        Some(match config::load_listed(path, service) {
            Ok(listed) => List {
                backends: Some(listed.backends.len()),
                report: listed.warnings,
            },
            Err(rejected) => List {
                backends: None,
                report: rejected.into_warnings(),
            },
        })
    };
    services
        .filter_map(|service| Some((&*service.name, list(service)?)))
        .collect()
}

fn show(out: &mut dyn io::Write, text: &str) -> io::Result<()> {
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn summary(path: &Path, loaded: &Loaded, lists: &Lists<'_>) -> String {
    let Loaded {
        config, warnings, ..
    } = loaded;
    let mut text = format!("{} is valid: {}", path.display(), counts(config));
    if !warnings.is_empty() {
        text += &format!(", {}", warnings.summary());
    }
    let unusable = lists.values().filter(|it| it.backends.is_none()).count();
    match unusable {
        0 => {}
        1 => text += ", but 1 list of backends cannot be used",
        _ => text += &format!(", but {unusable} lists of backends cannot be used"),
    }
    text.push('\n');
    let whole = config.services.len() <= MOST_WHOLE;
    for service in config.services.iter().take(MOST_SERVICES) {
        text += &match whole {
            true => block(service, lists.get(&*service.name)),
            false => line(service),
        };
    }
    let more = config.services.len().saturating_sub(MOST_SERVICES);
    if more > 0 {
        text += &format!("… and {more} more services\n");
    }
    if !config.alerts.is_empty() {
        text.push('\n');
    }
    for alert in config.alerts.iter().take(MOST_SERVICES) {
        text += &told(alert);
    }
    text
}

/// `alert ops: backend-down, backend-up → hooks.example.org`
fn told(alert: &AlertConfig) -> String {
    let on: Vec<&str> = alert.on.iter().map(|it| it.name()).collect();
    let services = match alert.services.as_slice() {
        [] => String::new(),
        some => format!(" of {}", some.join(", ")),
    };
    format!(
        "alert {}: {}{services} → {}\n",
        alert.name,
        on.join(", "),
        alert.target
    )
}

fn counts(config: &Config) -> String {
    let of = |number: usize, what: &str| match number {
        1 => format!("1 {what}"),
        _ => format!("{number} {what}s"),
    };
    let listeners = config.services.iter().map(|it| it.listen.len()).sum();
    let backends = config.services.iter().map(|it| it.backends.len()).sum();
    let mut counts = format!(
        "{}, {}, {}",
        of(config.services.len(), "service"),
        of(listeners, "listener"),
        of(backends, "backend")
    );
    if !config.alerts.is_empty() {
        counts += ", ";
        counts += &of(config.alerts.len(), "alert");
    }
    counts
}

/// A service in a line each for what matters most.
fn block(service: &ServiceConfig, list: Option<&List>) -> String {
    let health = &service.health;
    let mut text = format!("\n{}\n", service.name);
    let mut put = |what: &str, how: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {what:<10}{how}");
    };
    put("listen", &listen(service));
    put("strategy", service.strategy.name);
    put("backends", &backends(service, list));
    for (what, how) in guarded::lines(service) {
        put(what, &how);
    }
    if service.timeouts != Timeouts::default() {
        put("timeouts", &timeouts(&service.timeouts));
    }
    put(
        "health",
        &format!(
            "probed every {}, timeout {}, up after {}, down after {}",
            written(health.interval),
            written(health.timeout),
            health.rise,
            health.fall
        ),
    );
    if service.passive != Passive::default() {
        put("passive", &passive(&service.passive));
    }
    text
}

fn passive(passive: &Passive) -> String {
    if !passive.enabled {
        return "failed sessions are counted only".to_owned();
    }
    let consequence = match passive.confirm {
        true => "are confirmed by a probe".to_owned(),
        false => format!("eject for {}", written(passive.eject_time)),
    };
    format!(
        "{} failed sessions within {} {consequence}, at most {}% of the backends",
        passive.failures,
        written(passive.window),
        passive.max_ejected
    )
}

/// A service in one line, for files with many.
fn line(service: &ServiceConfig) -> String {
    format!(
        "  {} on {}: {}, {} backends\n",
        service.name,
        listen(service),
        service.strategy.name,
        service.backends.len()
    )
}

fn listen(service: &ServiceConfig) -> String {
    let all = service.listen.iter().map(|listen| match listen.dual_stack {
        true => format!("{} (and IPv4)", listen.address),
        false => listen.address.to_string(),
    });
    few(all, service.listen.len())
}

fn backends(service: &ServiceConfig, list: Option<&List>) -> String {
    let number = service.backends.len();
    let disabled = service.backends.iter().filter(|it| !it.enabled).count();
    let all_disabled = disabled == number;
    let all = service.backends.iter().map(|backend| {
        let address = backend.address.to_string();
        let mut text = match *backend.name == *address {
            true => address,
            false => format!("{} ({address})", backend.name),
        };
        if service.strategy.weighted && backend.weight != 1 {
            text += &format!(" ×{}", backend.weight);
        }
        if !backend.enabled && !all_disabled {
            text += " disabled";
        }
        text
    });
    let mine = service.backends.iter().any(|it| it.enabled);
    let list = match (&service.backends_file, list.map(|it| it.backends)) {
        (None, _) => String::new(),
        (Some(path), Some(Some(listed))) => format!(", and the {listed} of {}", path.display()),
        (Some(path), _) => {
            let path = path.display();
            let nobody = if mine {
                ""
            } else {
                ": nobody serves until then"
            };
            format!(", and those of {path} once it can be used{nobody}")
        }
    };
    if number == 0 {
        return format!("0{list}");
    }
    let disabled = match disabled {
        0 => String::new(),
        _ if all_disabled => ", all disabled".to_owned(),
        // The list marks each of them.
        _ if number <= MOST_LISTED => String::new(),
        _ => format!(", {disabled} disabled"),
    };
    format!("{number}{disabled}: {}{list}", few(all, number))
}

/// The timeouts that are not the default.
fn timeouts(timeouts: &Timeouts) -> String {
    let preset = Timeouts::default();
    let all = [
        ("connect", timeouts.connect, preset.connect),
        (
            "connect_total",
            timeouts.connect_total,
            preset.connect_total,
        ),
        ("idle", timeouts.idle, preset.idle),
        ("half_closed", timeouts.half_closed, preset.half_closed),
    ];
    let changed = all.iter().filter(|(_, is, preset)| is != preset);
    let changed: Vec<String> = changed
        .map(|&(name, is, _)| format!("{name} {}", written(is)))
        .collect();
    changed.join(", ")
}

fn few(all: impl Iterator<Item = String>, number: usize) -> String {
    let first: Vec<String> = all.take(MOST_LISTED).collect();
    let more = match number.saturating_sub(MOST_LISTED) {
        0 => String::new(),
        more => format!(", … and {more} more"),
    };
    format!("{}{more}", first.join(", "))
}

/// Up to as many services a block each fits a screen.
const MOST_WHOLE: usize = 4;
/// Services that are listed at all.
const MOST_SERVICES: usize = 20;
/// Listeners, or backends, of a service that are listed.
const MOST_LISTED: usize = 4;
