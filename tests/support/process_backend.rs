//! A backend in a process of its own, for `kill -9`: only a dying process loses its sockets the way
//! a dying server does. The process is this test binary, started again.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::address::fresh_ip;
use super::backend::Backend;
use super::proc::dies_with_its_test;

const NAME: &str = "BALLAST_TESTS_BACKEND_NAME";
const ADDRESS: &str = "BALLAST_TESTS_BACKEND_ADDRESS";

/// A named backend (see [`Backend::named`]) that can be killed.
pub struct ProcessBackend {
    name: String,
    address: SocketAddr,
    child: Option<Child>,
}

impl ProcessBackend {
    /// Starts one at an address of its own.
    pub fn named(name: &str) -> Self {
        let mut backend = Self {
            name: name.to_owned(),
            address: SocketAddr::new(fresh_ip().into(), 0),
            child: None,
        };
        backend.start();
        backend
    }

    /// Where it listens, or listened.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Starts it again where it was.
    pub fn start(&mut self) {
        let body = concat!(module_path!(), "::backend_process");
        let (_, body) = body.split_once("::").expect("a path below the crate");
        let binary = env::current_exe().expect("this binary has a path");
        let mut child = dies_with_its_test(&mut Command::new(binary))
            .args(["--exact", body, "--ignored", "--nocapture"])
            .env(NAME, &self.name)
            .env(ADDRESS, self.address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this binary starts");
        // Kept open: the test harness says how long its tests run, and ends where nobody hears it.
        let stdout = child.stdout.as_mut().expect("a pipe");
        let address = BufReader::new(stdout)
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("backend at ")?.parse().ok())
            .expect("the backend tells its address");
        self.address = address;
        self.child = Some(child);
    }

    /// Stops the process: its kernel goes on to take connections, and nobody answers them.
    pub fn freeze(&self) -> Instant {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Instant {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Instant {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), signal).expect("it is our child");
        Instant::now()
    }

    /// Kills it. Whatever connects from the returned moment on finds nobody.
    pub fn kill(&mut self) -> Instant {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it is our child");
        }
        Instant::now()
    }
}

impl Drop for ProcessBackend {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
#[ignore = "not a test: what a ProcessBackend runs"]
fn backend_process() {
    let (Ok(name), Ok(address)) = (env::var(NAME), env::var(ADDRESS)) else {
        return;
    };
    super::raise_descriptor_limit();
    let backend = Backend::named_at(address.parse().expect("an address"), &name);
    // The test harness may have left its own words on the line.
    println!("\nbackend at {}", backend.address());
    io::stdout().flush().expect("the parent listens");
    loop {
        thread::park();
    }
}
