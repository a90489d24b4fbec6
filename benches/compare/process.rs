//! Children that cannot outlive the bench: each leads a process group of its own, which is killed when its
//! [`Group`] is dropped, when the bench gets a signal, and (through the parent-death signal) when the bench
//! is killed so hard that it can do nothing any more.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
pub(crate) use rustix::process::Signal;
use rustix::process::{
    Pid, kill_process, kill_process_group, set_parent_process_death_signal, setpriority_pgrp,
};

/// The hidden role that turns into another program after arming the death signal.
pub(crate) const EXEC_ROLE: &str = "__exec";

/// Lines of output kept per child.
const KEPT_LINES: usize = 1000;

/// Leaders of the groups that live.
static GROUPS: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Removed when a signal ends the bench, since no destructor runs then.
static DIRECTORY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// A child and everything it starts.
#[derive(Debug)]
pub(crate) struct Group {
    child: Child,
    leader: Pid,
    pub(crate) output: Arc<Output>,
}

impl Group {
    /// Starts `program`; it gets SIGTERM when the bench dies.
    pub(crate) fn program(program: &Path, arguments: &[OsString]) -> Result<Group> {
        let mut all = vec![OsStr::new(EXEC_ROLE), program.as_os_str()];
        all.extend(arguments.iter().map(OsString::as_os_str));
        Group::own(&all).with_context(|| format!("starting {}", program.display()))
    }

    /// Starts this very binary with a hidden role, which arms its own death signal.
    pub(crate) fn own(arguments: &[&OsStr]) -> Result<Group> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let leader = Pid::from_child(&child);
        lock(&GROUPS).insert(leader.as_raw_nonzero().get());
        let output = Arc::new(Output::default());
        for pipe in [
            child
                .stdout
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
            child
                .stderr
                .take()
                .map(|pipe| Box::new(pipe) as Box<dyn Read + Send>),
        ]
        .into_iter()
        .flatten()
        {
            let output = Arc::clone(&output);
            thread::spawn(move || output.follow(pipe));
        }
        Ok(Group {
            child,
            leader,
            output,
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// To the leader alone.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(self.leader, signal)?)
    }

    /// Lets everybody else go first from now on: it gets what the others leave.
    pub(crate) fn give_way(&self) -> Result<()> {
        const LAST: i32 = 19;
        Ok(setpriority_pgrp(Some(self.leader), LAST)?)
    }

    /// Ends the child's standard input, which our own roles take as "finish".
    pub(crate) fn finish(&mut self) {
        drop(self.child.stdin.take());
    }

    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for the child to end by itself.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        const STEP: Duration = Duration::from_millis(5);
        let deadline = Instant::now() + patience;
        loop {
            let exited = self.exited();
            if exited.is_some() || Instant::now() >= deadline {
                return exited;
            }
            thread::sleep(STEP);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The group may be gone already; then there is nothing to kill and nothing to say.
        let _ = kill_process_group(self.leader, Signal::KILL);
        let _ = self.child.wait();
        lock(&GROUPS).remove(&self.leader.as_raw_nonzero().get());
    }
}

/// What a child wrote to its standard output and error, line by line, with the time of arrival.
#[derive(Debug, Default)]
pub(crate) struct Output {
    lines: Mutex<Lines>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    kept: VecDeque<(Instant, String)>,
    /// Lines dropped from the front of `kept`, so that positions stay valid.
    dropped: usize,
}

impl Output {
    /// Waits for the first line, from position `from` on, that `wanted` makes something of; returns it with
    /// its arrival and the position after it.
    pub(crate) fn wait_for<T>(
        &self,
        from: usize,
        patience: Duration,
        wanted: impl Fn(&str) -> Option<T>,
    ) -> Option<(T, Instant, usize)> {
        let deadline = Instant::now() + patience;
        let mut lines = lock(&self.lines);
        let mut position = from;
        loop {
            let skip = position.saturating_sub(lines.dropped);
            for (offset, (arrival, line)) in lines.kept.iter().enumerate().skip(skip) {
                if let Some(found) = wanted(line) {
                    return Some((found, *arrival, lines.dropped + offset + 1));
                }
            }
            position = lines.dropped + lines.kept.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            lines = self
                .arrived
                .wait_timeout(lines, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The position after the last line so far.
    pub(crate) fn position(&self) -> usize {
        let lines = lock(&self.lines);
        lines.dropped + lines.kept.len()
    }

    /// The last few lines, for an error message.
    pub(crate) fn tail(&self) -> String {
        const SHOWN: usize = 8;
        let lines = lock(&self.lines);
        let skip = lines.kept.len().saturating_sub(SHOWN);
        lines
            .kept
            .iter()
            .skip(skip)
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn follow(&self, pipe: impl Read) {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            let mut lines = lock(&self.lines);
            lines.kept.push_back((Instant::now(), text));
            if lines.kept.len() > KEPT_LINES {
                lines.kept.pop_front();
                lines.dropped += 1;
            }
            self.arrived.notify_all();
        }
    }
}

/// The hidden role [`EXEC_ROLE`]: never returns unless the program cannot be started.
pub(crate) fn exec(program: &OsStr, arguments: &[OsString]) -> anyhow::Error {
    if let Err(error) = set_parent_process_death_signal(Some(Signal::TERM)) {
        return error.into();
    }
    let error = Command::new(program).args(arguments).exec();
    anyhow::Error::new(error).context(format!("cannot run {}", Path::new(program).display()))
}

/// For our own roles.
pub(crate) fn die_with_parent() -> Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// From now on SIGINT, SIGTERM and SIGHUP kill every child, remove `directory` and end the bench.
pub(crate) fn end_cleanly_on_signals(directory: &Path) -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    /// What a shell reports for a process that SIGINT ended.
    const INTERRUPTED: i32 = 130;

    *lock(&DIRECTORY) = Some(directory.to_owned());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate, mut hang_up) = {
        let _context = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
        )
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hang_up.recv() => {}
            }
        });
        // Held to the end: no child can be added after the last one was killed.
        let groups = lock(&GROUPS);
        for leader in groups.iter().filter_map(|leader| Pid::from_raw(*leader)) {
            let _ = kill_process_group(leader, Signal::KILL);
        }
        if let Some(directory) = lock(&DIRECTORY).take() {
            let _ = std::fs::remove_dir_all(directory);
        }
        eprintln!("interrupted; finished rounds are in the results");
        std::process::exit(INTERRUPTED);
    });
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
