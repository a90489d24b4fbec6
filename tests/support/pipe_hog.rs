//! A user without pages left for pipes: a process of that user holds them all. The process is this test
//! binary, started again.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;

use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use super::command::binary;
use super::proc::dies_with_its_test;

const HOLD: &str = "BALLAST_TESTS_PIPE_HOG";
const FULL: &str = "no pages left";
/// More pipes of a megabyte than any default limit allows.
const MOST: usize = 512;

/// A user whom nobody else on this machine is.
#[derive(Clone, Copy, Debug)]
pub struct Stranger(u32);

impl Stranger {
    /// One, if this process may become one and that user may run what this one runs.
    pub fn new() -> Option<Self> {
        let user = Self(0x7000_0000 + std::process::id());
        let binaries = [binary(), current_exe()];
        let able = binaries.iter().all(|binary| {
            Command::new("setpriv")
                .args(user.options())
                .args(["test", "-x"])
                .arg(binary)
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        });
        if !able {
            eprintln!("skipped: cannot become another user who reaches the binary");
        }
        able.then_some(user)
    }

    /// The number of the user, and of its group.
    pub fn id(self) -> u32 {
        self.0
    }

    /// What setpriv needs to know.
    pub fn options(self) -> Vec<String> {
        let Self(id) = self;
        vec![
            format!("--reuid={id}"),
            format!("--regid={id}"),
            "--clear-groups".to_owned(),
            // A change of user clears it.
            "--pdeathsig=KILL".to_owned(),
        ]
    }
}

/// Holds every page for pipes that a user may have, until it is dropped.
#[derive(Debug)]
pub struct PipeHog(Child);

impl PipeHog {
    /// Takes what `user` may have; `None` if there is no limit.
    pub fn start(user: Stranger) -> Option<Self> {
        let body = concat!(module_path!(), "::pipe_hog_process");
        let (_, body) = body.split_once("::").expect("a path below the crate");
        let mut child = dies_with_its_test(&mut Command::new("setpriv"))
            .args(user.options())
            .arg(current_exe())
            .args(["--exact", body, "--ignored", "--nocapture"])
            .env(HOLD, "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("setpriv starts");
        let stdout = child.stdout.take().expect("a pipe");
        let hog = Self(child);
        BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .any(|line| line == FULL)
            .then_some(hog)
    }
}

impl Drop for PipeHog {
    fn drop(&mut self) {
        // It may be gone, which is as good.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn current_exe() -> std::path::PathBuf {
    env::current_exe().expect("this binary has a path")
}

#[test]
#[ignore = "not a test: what a PipeHog runs"]
fn pipe_hog_process() {
    if env::var(HOLD).is_err() {
        return;
    }
    super::raise_descriptor_limit();
    let mut held = Vec::new();
    // What is left when a megabyte is too much is still enough for smaller pipes.
    for size in [1 << 20, 1 << 18, 1 << 16] {
        loop {
            let pipe = pipe_with(PipeFlags::CLOEXEC).expect("descriptors");
            let grown = fcntl_setpipe_size(&pipe.1, size);
            held.push(pipe);
            if grown.is_err() {
                break;
            }
            if held.len() > MOST {
                return;
            }
        }
    }
    // The test harness may have left its own words on the line.
    println!("\n{FULL}");
    io::stdout().flush().expect("the parent listens");
    loop {
        thread::park();
    }
}
