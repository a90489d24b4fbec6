//! A simulation for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::outcome::percent;
use crate::api::{Shares, Simulation};
use crate::cli::figures::{fitted, grouped, width, wrapped};
use crate::config::written;

/// One service, for people.
pub(super) fn told(shares: &Shares, simulation: &Simulation) -> String {
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
            written(timeout)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Share;

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
