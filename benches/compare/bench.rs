//! What every scenario needs: backends, the load generator and a directory, each in a process of its own
//! and each with a bound on how long it may take.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;

use crate::args::Args;
use crate::front::{Contender, Front, Setting};
use crate::load::{Job, Kind, Message, Report};
use crate::process::Group;

/// The hidden roles of this binary, besides [`EXEC_ROLE`](crate::process::EXEC_ROLE).
pub(crate) const BACKEND_ROLE: &str = "__backend";
pub(crate) const LOAD_ROLE: &str = "__load";
pub(crate) const STRANGER_ROLE: &str = "__stranger";

/// Backends of a service unless a scenario is about their number.
pub(crate) const BACKENDS: usize = 4;

/// What a load process may take beyond its warm-up and window: opening thousands of sessions, then draining.
const SLACK: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) args: Args,
    pub(crate) directory: tempfile::TempDir,
}

/// A process that serves on all of `addresses`.
#[derive(Debug)]
pub(crate) struct Backends {
    pub(crate) addresses: Vec<SocketAddr>,
    group: Group,
}

impl Backends {
    /// Lets everybody else go first from now on.
    pub(crate) fn give_way(&self) -> Result<()> {
        self.group.give_way()
    }
}

/// An admin port that is not Ballast's.
#[derive(Debug)]
pub(crate) struct Stranger {
    pub(crate) address: SocketAddr,
    /// Ends with it.
    _group: Group,
}

impl Bench {
    pub(crate) fn backends(&self, count: usize) -> Result<Backends> {
        let (count, threads) = (count.to_string(), self.args.threads().to_string());
        let (addresses, group) = server(&[BACKEND_ROLE, &count, &threads])?;
        Ok(Backends { addresses, group })
    }

    /// Answers with `size` bytes.
    pub(crate) fn stranger(&self, size: usize) -> Result<Stranger> {
        let (address, group) = server(&[STRANGER_ROLE, &size.to_string()])?;
        Ok(Stranger {
            address,
            _group: group,
        })
    }

    /// A contender in front of one service.
    pub(crate) fn front<'a>(
        &self,
        contender: &'a Contender,
        backends: &[SocketAddr],
    ) -> Result<Front<'a>> {
        self.front_of(contender, &Setting::new(backends, self.args.workers))
    }

    pub(crate) fn front_of<'a>(
        &self,
        contender: &'a Contender,
        setting: &Setting,
    ) -> Result<Front<'a>> {
        Front::start(contender, setting, self.directory.path())
    }

    /// A job of the usual length.
    pub(crate) fn job(&self, kind: Kind, sessions: usize, front: &Front<'_>) -> Job {
        Job {
            kind,
            targets: front.targets(),
            sessions,
            threads: self.args.threads(),
            warm_up: self.args.warm_up(),
            length: self.args.length(),
            proxy: front.process(),
        }
    }

    /// Starts a load.
    pub(crate) fn begin(&self, job: &Job) -> Result<Load> {
        let text = serde_json::to_string(job)?;
        let group = Group::own(&[LOAD_ROLE, &text].map(OsStr::new))?;
        Ok(Load {
            group,
            patience: job.warm_up + job.length + SLACK,
        })
    }

    /// Starts a load and waits for its report.
    pub(crate) fn load(&self, job: &Job) -> Result<Report> {
        self.begin(job)?.report()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Starts one of our own roles that says first where it listens.
fn server<T: DeserializeOwned>(role: &[&str]) -> Result<(T, Group)> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let arguments: Vec<&OsStr> = role.iter().map(OsStr::new).collect();
    let group = Group::own(&arguments)?;
    let said = group
        .output
        .wait_for(0, PATIENCE, |line| serde_json::from_str(line).ok());
    let (addresses, _, _) =
        said.ok_or_else(|| anyhow!("{role:?} does not start: {}", group.output.tail()))?;
    Ok((addresses, group))
}

/// A load generator at work.
#[derive(Debug)]
pub(crate) struct Load {
    group: Group,
    patience: Duration,
}

impl Load {
    /// Lets everybody else go first from now on.
    pub(crate) fn give_way(&self) -> Result<()> {
        self.group.give_way()
    }

    /// Waits for the window to begin.
    pub(crate) fn measuring(&mut self) -> Result<SystemTime> {
        self.wait(|message| matches!(message, Message::Measuring).then(SystemTime::now))
    }

    /// Waits for the end.
    pub(crate) fn report(mut self) -> Result<Report> {
        self.wait(|message| match message {
            Message::Measuring => None,
            Message::Report(report) => Some(*report),
        })
    }

    /// Tells a held load that it is time, and waits for the end.
    pub(crate) fn finish(mut self) -> Result<Report> {
        self.group.finish();
        self.report()
    }

    fn wait<T>(&mut self, wanted: impl Fn(Message) -> Option<T>) -> Result<T> {
        /// How often a death without last words is looked for.
        const STEP: Duration = Duration::from_millis(500);
        let take = |line: &str| serde_json::from_str(line).ok().and_then(&wanted);
        let mut waited = Duration::ZERO;
        loop {
            if let Some((found, _, _)) = self.group.output.wait_for(0, STEP, take) {
                return Ok(found);
            }
            waited += STEP;
            let exited = self.group.exited();
            if exited.is_some() || waited > self.patience {
                // Its report may have come between the wait and the check.
                let last = self.group.output.wait_for(0, STEP, take);
                return last.map(|(found, _, _)| found).with_context(|| {
                    let state = exited.map_or("did not end in time".to_owned(), |status| {
                        status.to_string()
                    });
                    format!("load generator: {state}\n{}", self.group.output.tail())
                });
            }
        }
    }
}
