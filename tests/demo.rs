//! `ballast demo` as a person sees it: the real binary, its lines, HTTP through its balancer, Ctrl-C.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

#[test]
fn a_demo_serves_fails_over_recovers_and_sums_up() {
    let mut demo = Demo::start("1s");
    let address = demo.address();
    // The demo's own clients take turns too, so three requests need not meet three servers.
    let mut names = BTreeSet::new();
    for _ in 0..100 {
        names.insert(get(address));
        if names.len() == 3 {
            break;
        }
    }
    assert_eq!(
        names,
        ["blue\n", "green\n", "red\n"].map(String::from).into()
    );
    assert_eq!(echoed(address, "not http\n"), "not http\n");
    demo.await_line("death      red");
    demo.await_line("heartbeat  red missed 1 of 3: refused");
    demo.await_line("heartbeat  red missed 3 of 3: refused");
    demo.await_line("failover   red is out");
    // What a person asks while a server is dead is answered by another.
    let meanwhile = get(address);
    assert_ne!(meanwhile, "", "no answer while a server is dead");
    demo.await_line("recovery   red is back");
    demo.await_line("death      green");
    let summary = demo.ended_by(Signal::INT);
    assert!(summary.contains("Summary after 0:0"), "{summary}");
    assert!(summary.contains("failed client connections"), "{summary}");
    assert!(
        !summary.contains("failovers                  0"),
        "{summary}"
    );
    assert!(summary.contains("red   died: out after"), "{summary}");
    let sessions = summary
        .lines()
        .find(|line| line.contains("sessions   "))
        .unwrap();
    assert!(!sessions.contains(" 0"), "everybody served: {sessions}");
}

#[test]
fn a_demo_ends_with_its_summary_when_it_is_hung_up() {
    let mut demo = Demo::start("10s");
    demo.address();
    let summary = demo.ended_by(Signal::HUP);
    assert!(summary.contains("Summary after 0:0"), "{summary}");
}

#[test]
fn an_occupied_port_is_told_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = command("10s").arg(&address).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&address), "{told}");
    assert!(told.contains("--listen 127.0.0.1:0"), "{told}");
    assert!(output.stdout.is_empty(), "nothing to try was promised");
}

#[test]
fn a_demo_ends_when_nobody_reads_it_any_more() {
    let mut demo = Demo::start("1s");
    demo.address();
    let Demo { mut process, lines } = demo;
    drop(lines);
    assert_eq!(process.0.wait().unwrap().code(), Some(0));
}

/// A demo that runs, and what it says.
struct Demo {
    process: Process,
    lines: Lines<BufReader<ChildStdout>>,
}

/// A process that a failed test does not leave behind.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Most have ended by now, which is not an error here.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Demo {
    /// Starts one in which a server dies at each `pace`.
    fn start(pace: &str) -> Self {
        let mut child = command(pace)
            .arg("127.0.0.1:0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let process = Process(child);
        Self { process, lines }
    }

    /// Where it says that it can be reached.
    fn address(&mut self) -> SocketAddr {
        let line = self.await_line("curl http://");
        let (_, address) = line.split_once("http://").unwrap();
        address.parse().unwrap()
    }

    /// The next line with `text` in it. A demo that ends without it, or a test runner that loses
    /// its patience, is the failure.
    fn await_line(&mut self, text: &str) -> String {
        self.lines
            .by_ref()
            .map(Result::unwrap)
            .find(|line| line.contains(text))
            .unwrap_or_else(|| panic!("the demo ended without saying {text:?}"))
    }

    /// Ctrl-C and its like; returns what it says after that.
    fn ended_by(mut self, signal: Signal) -> String {
        let pid = Pid::from_child(&self.process.0);
        kill_process(pid, signal).unwrap();
        let rest: Vec<String> = self.lines.by_ref().map(Result::unwrap).collect();
        assert_eq!(self.process.0.wait().unwrap().code(), Some(0));
        rest.join("\n")
    }
}

/// `ballast demo --listen`, the address to follow.
fn command(pace: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ballast"));
    command.args(["demo", "--pace", pace, "--listen"]);
    command
}

/// The body of an HTTP answer, checked to be whole.
fn get(address: SocketAddr) -> String {
    let answer = exchanged(address, "GET / HTTP/1.1\r\nHost: test\r\n\r\n", false);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let length = format!("Content-Length: {}", body.len());
    assert!(head.lines().any(|line| line == length), "{head}");
    body.to_owned()
}

fn echoed(address: SocketAddr, text: &str) -> String {
    exchanged(address, text, true)
}

fn exchanged(address: SocketAddr, request: &str, then_close: bool) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    if then_close {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
