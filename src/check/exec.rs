//! A program says whether the server is well: exit code 0 is yes, any other is no.

use std::time::Duration;

use super::Unsent;
use crate::health::{Program, Verdict, Why};
use crate::model::{Address, Cause};
use crate::runner::{Ended, Job, Runner};

/// Runs `program` for the server at `address`.
pub(super) async fn run(
    program: &Program,
    address: Address,
    limit: Duration,
    runner: Option<&Runner>,
) -> Result<Verdict, Unsent> {
    let not_run = |why: &str| Unsent::Program(format!("{}: {why}", program.path));
    let (host, port) = match address {
        Address::Inet(address) => (address.ip().to_string(), address.port().to_string()),
        Address::Unix(path) => (path.as_path().display().to_string(), String::new()),
    };
    let job = Job {
        program: program.path.clone(),
        args: program.args.clone(),
        env: vec![
            ("BALLAST_ADDRESS".to_owned(), address.to_string()),
            ("BALLAST_HOST".to_owned(), host),
            ("BALLAST_PORT".to_owned(), port),
        ],
        stdin: Vec::new(),
        timeout: limit,
    };
    let runner = runner.ok_or_else(|| not_run("there is no runner"))?;
    let outcome = runner
        .run(job)
        .await
        .map_err(|gone| not_run(&gone.to_string()))?;
    let said = String::from_utf8_lossy(&outcome.output);
    let said = said.lines().map(str::trim).find(|line| !line.is_empty());
    let said = said.map(|line| format!(": {line}")).unwrap_or_default();
    Ok(match outcome.ended {
        Ended::Exited(0) => Verdict::Alive,
        Ended::Exited(code) => dead(&format!("exit code {code}{said}")),
        Ended::Signalled(signal) => dead(&format!("ended by signal {signal}{said}")),
        Ended::TimedOut => Verdict::Dead(Cause::TimedOut.into()),
        Ended::NotStarted(why) => return Err(not_run(&why)),
    })
}

fn dead(words: &str) -> Verdict {
    Verdict::Dead(Why::answer(words))
}
