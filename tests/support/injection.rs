//! System calls of a daemon that fail on demand, while it runs: strace puts the kernel's words into its mouth.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStderr, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::daemon::Daemon;
use super::patience::eventually;
use super::proc::dies_with_its_test;

/// A fault in the daemon's calls, until it is dropped.
pub struct Injection {
    strace: Child,
    /// Whoever closes it has strace end at its next word.
    _says: BufReader<ChildStderr>,
    directory: TempDir,
}

impl Injection {
    /// Has calls go as `what` says, in strace's words: `accept4:error=EMFILE:when=1..3`. Which call it is
    /// is counted for each thread of its own.
    pub fn start(daemon: &Daemon, what: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (calls, _) = what
            .split_once(':')
            .expect("calls, and what becomes of them");
        let mut strace = dies_with_its_test(&mut Command::new("strace"))
            .args(["-f", "-e", &format!("trace={calls}")])
            .args(["-e", &format!("inject={what}"), "-o"])
            .arg(directory.path().join("calls"))
            .args(["-p", &daemon.pid().to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace starts");
        let mut says = BufReader::new(strace.stderr.take().expect("a pipe"));
        let mut line = String::new();
        // It may have something to say of other machines before.
        while !line.contains("attached") {
            line.clear();
            let read = says.read_line(&mut line).expect("strace says something");
            assert!(read > 0, "strace does not take to the daemon");
        }
        Self {
            strace,
            _says: says,
            directory,
        }
    }

    /// Calls that went as they were told.
    pub fn count(&self) -> usize {
        let calls = fs::read_to_string(self.directory.path().join("calls"));
        calls.map_or(0, |calls| calls.matches("(INJECTED)").count())
    }

    /// Waits for so many of them.
    pub fn wait(&self, count: usize) {
        eventually("calls fail", || (self.count() >= count).then_some(()));
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        // Told to end it lets go of the daemon first. It may be gone with it, which is as good.
        kill_process(Pid::from_child(&self.strace), Signal::INT).ok();
        self.strace.wait().ok();
    }
}
