//! The comparison: Ballast beside direct connections and beside every other proxy installed here, measured
//! in turns by one load generator against one set of backends. `cargo bench --bench compare -- --help`.
//!
//! Read [`scenarios`] for what is measured, [`peers`] for how each proxy is set up, [`load`] for how a load
//! is made and checked; benches/README.md says how the figures are taken and what to make of them.

mod args;
mod backend;
mod bench;
mod environment;
mod front;
mod growth;
mod load;
mod peers;
mod poller;
mod proc;
mod process;
mod report;
mod scenarios;
mod stranger;
mod wire;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use args::Args;
use bench::{BACKEND_ROLE, Bench, LOAD_ROLE, STRANGER_ROLE};
use environment::Environment;
use front::Contender;
use peers::Missing;
use report::Results;
use scenarios::Scenario;

fn main() -> ExitCode {
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        // The chain of causes says what is wrong; a backtrace through the runtime would bury it.
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What this process is for: one of the bench's own roles, or the bench.
fn act() -> Result<()> {
    raise_descriptor_limit();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let text = |index: usize| arguments.get(index).and_then(|argument| argument.to_str());
    match text(0) {
        Some(process::EXEC_ROLE) => {
            let program = arguments.get(1).context("no program")?;
            Err(process::exec(program, &arguments[2..]))
        }
        Some(BACKEND_ROLE) => {
            process::die_with_parent()?;
            let number = |index| {
                text(index)
                    .context("a number is missing")?
                    .parse()
                    .context("not a number")
            };
            backend::serve(number(1)?, number(2)?)
        }
        Some(STRANGER_ROLE) => {
            process::die_with_parent()?;
            stranger::serve(text(1).context("no size")?.parse()?)
        }
        Some(LOAD_ROLE) => {
            process::die_with_parent()?;
            load::run(&serde_json::from_str(text(1).context("no job")?)?)
        }
        Some(_) => compare(Args::parse()),
        // `cargo test --all-targets` runs benches too, without an argument; an hour is not what it asks for.
        None => {
            println!("nothing to test here; to measure: cargo bench --bench compare");
            Ok(())
        }
    }
}

fn compare(args: Args) -> Result<()> {
    let (contenders, missing) = contenders(&args)?;
    let directory = tempfile::Builder::new()
        .prefix("ballast-compare-")
        .tempdir()?;
    process::end_cleanly_on_signals(directory.path())?;
    let environment = Environment::read(&args, &contenders, &missing);
    println!("{}\n", environment.markdown());
    let scenarios = if args.growth {
        chosen(&growth::ALL, &[], &args)?
    } else {
        chosen(&scenarios::ALL, &["pick"], &args)?
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/compare");
    let name = if args.growth { "growth" } else { "compare" };
    let mut results = Results::new(environment, &folder, name);
    let bench = Bench { args, directory };
    run(&bench, contenders, &scenarios, &mut results)?;
    if bench.args.only.is_empty() || bench.args.only.iter().any(|name| name == "pick") {
        println!("\n{}", scenarios::PICK);
    }
    if !scenarios.is_empty() {
        println!("\nResults: {}", folder.display());
    }
    Ok(())
}

/// Test by test, round by round, contender by contender, so that a drift of the machine meets all alike.
fn run(
    bench: &Bench,
    mut contenders: Vec<Contender>,
    scenarios: &[&Scenario],
    results: &mut Results,
) -> Result<()> {
    let rounds = |scenario: &Scenario| {
        if scenario.once {
            1
        } else {
            bench.args.rounds()
        }
    };
    let steps: usize = scenarios
        .iter()
        .map(|scenario| rounds(scenario) * contenders.len())
        .sum();
    let style =
        ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise} (left: {eta}) {msg}")?;
    let bar = ProgressBar::new(steps as u64).with_style(style);
    for (number, scenario) in scenarios.iter().enumerate() {
        for round in 0..rounds(scenario) {
            for contender in &contenders {
                bar.set_message(format!(
                    "{} {} (round {})",
                    scenario.name,
                    contender.name(),
                    round + 1
                ));
                bar.tick();
                match (scenario.run)(bench, contender) {
                    Ok(readings) => {
                        for reading in readings {
                            results.add(scenario, contender.name(), round + 1, reading);
                        }
                    }
                    Err(error) => results.trouble(scenario, contender.name(), round + 1, &error),
                }
                bar.inc(1);
            }
            // Nobody always comes after the same neighbour, or first on a rested machine.
            contenders.rotate_left(1);
            results.save(&scenarios[..=number], scenario)?;
        }
        let table = results.table(scenario);
        bar.suspend(|| println!("{table}"));
    }
    bar.finish_and_clear();
    Ok(())
}

fn contenders(args: &Args) -> Result<(Vec<Contender>, Vec<Missing>)> {
    let (peers, mut missing) = peers::find();
    let all: Vec<Contender> = std::iter::once(Contender::Direct)
        .chain(peers.into_iter().map(Contender::Proxy))
        .collect();
    let known: Vec<&str> = all
        .iter()
        .map(Contender::name)
        .chain(missing.iter().map(|(name, _)| *name))
        .collect();
    if let Some(unknown) = args
        .peers
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        bail!(
            "no contender is called {unknown:?}; there are {}",
            known.join(", ")
        );
    }
    let wanted = |name: &str| match (args.peers.is_empty(), args.growth) {
        (false, _) => args.peers.iter().any(|wanted| wanted == name),
        (true, true) => name == peers::BALLAST,
        (true, false) => true,
    };
    missing.retain(|(name, _)| wanted(name));
    let contenders: Vec<Contender> = all
        .into_iter()
        .filter(|contender| wanted(contender.name()))
        .collect();
    ensure!(
        !contenders.is_empty(),
        "none of the wanted contenders is installed"
    );
    Ok((contenders, missing))
}

/// Those of `all` that are wanted, by name; the names of `others` are known besides.
fn chosen(
    all: &[&'static Scenario],
    others: &[&str],
    args: &Args,
) -> Result<Vec<&'static Scenario>> {
    let names = all.iter().map(|scenario| scenario.name);
    let known: Vec<&str> = names.chain(others.iter().copied()).collect();
    if let Some(unknown) = args
        .only
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        bail!(
            "no test is called {unknown:?}; there are {}",
            known.join(", ")
        );
    }
    let wanted = |scenario: &&Scenario| {
        args.only.is_empty() || args.only.iter().any(|name| name == scenario.name)
    };
    Ok(all.iter().copied().filter(wanted).collect())
}

/// Thousands of sessions need it; the children inherit it.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // Where this is refused, the environment's warning says what is missing.
    let _ = setrlimit(Resource::Nofile, raised);
}
