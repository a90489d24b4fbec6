//! `ballast top` in a real terminal: tmux is the terminal, and what it shows is what is looked at.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, kill_process};

use crate::support::{
    Backend, Config, Daemon, Held, Service, Signal, ballast, eventually, installed,
};

/// A shell in a terminal of 80×24, killed at the latest when the test is over.
struct Screen {
    directory: tempfile::TempDir,
}

impl Screen {
    /// Runs `command` in it; then it tells how the terminal was left, and waits.
    fn start(command: &str) -> Self {
        let screen = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let script = screen.directory.path().join("script");
        let text = format!(
            "{command}\necho \"ended with $?\"; stty -a | tr ' ' '\\n' | grep -wE 'icanon|echo'; cat\n"
        );
        std::fs::write(&script, text).unwrap();
        let script = script.display().to_string();
        let new = [
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            "80",
            "-y",
            "24",
            "sh",
            &script,
        ];
        let output = screen.tmux(&new);
        assert!(output.status.success(), "{output:?}");
        screen
    }

    fn tmux(&self, arguments: &[&str]) -> Output {
        Command::new("tmux")
            .arg("-u")
            .arg("-S")
            .arg(self.directory.path().join("tmux"))
            .args(arguments)
            .env("LC_ALL", "C.UTF-8")
            .env("TERM", "xterm-256color")
            .output()
            .unwrap()
    }

    /// The program that its shell runs.
    fn child(&self) -> Pid {
        let shell = self.tmux(&["display-message", "-p", "#{pane_pid}"]).stdout;
        let shell = String::from_utf8(shell).unwrap();
        let shell = shell.trim();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children"));
        let child = children.unwrap().split_whitespace().next().unwrap().parse();
        Pid::from_raw(child.unwrap()).unwrap()
    }

    fn press(&self, keys: &[&str]) {
        let arguments: Vec<&str> = ["send-keys"].iter().chain(keys).copied().collect();
        assert!(self.tmux(&arguments).status.success());
    }

    fn text(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).unwrap()
    }

    /// What is on the screen once all of this is.
    fn shows(&self, parts: &[&str]) -> String {
        let text = std::cell::RefCell::new(String::new());
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("it is on the screen", || {
                *text.borrow_mut() = self.text();
                parts
                    .iter()
                    .all(|part| text.borrow().contains(part))
                    .then_some(())
            });
        }));
        let text = text.into_inner();
        assert!(found.is_ok(), "{parts:?}\nnot on\n{text}");
        text
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

fn start(backends: &[Backend]) -> (Daemon, PathBuf, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let service = Service::new("web").quick_health();
    let service = backends
        .iter()
        .enumerate()
        .fold(service, |service, (number, backend)| {
            service.backend(&format!("app-{number}"), backend.address())
        });
    let listen = format!("unix:{}", directory.path().join("admin.sock").display());
    let daemon = Daemon::start(&Config::of(service).admin("listen", listen));
    let file = daemon.beside("ballast.toml");
    (daemon, file, directory)
}

fn top(file: &Path) -> Screen {
    let binary = env!("CARGO_BIN_EXE_ballast");
    Screen::start(&format!(
        "LC_ALL=C.UTF-8 {binary} top -c {}",
        file.display()
    ))
}

#[test]
fn it_shows_what_happens_and_changes_what_is_agreed_to() {
    if !installed(&["tmux"]) {
        return;
    }
    let mut backends = [Backend::named("a"), Backend::named("b")];
    let (daemon, file, _directory) = start(&backends);
    let held = Held::open(daemon.address("web"));
    let screen = top(&file);
    screen.shows(&[
        "All is well: 1 service, 2 of 2 backends serve",
        "▾ web",
        "app-0",
        "q quit",
    ]);
    screen.press(&["Down", "d"]);
    screen.shows(&["Drain web/app-0?", "y yes   n no"]);
    screen.press(&["n", "d"]);
    screen.press(&["y"]);
    screen.shows(&["draining", "1/2 serve"]);
    screen.press(&["Enter"]);
    screen.shows(&["drained by an operator", "tier 0", "by uid ", "\nLATELY"]);
    screen.press(&["e", "y", "Escape"]);
    screen.shows(&["2/2 serve"]);
    ballast(
        &file,
        &["backend", "drain", "web/app-0", "--deadline", "1h", "--yes"],
    )
    .exits_with(0);
    screen.press(&["Enter"]);
    screen.shows(&["deadline  what is left is closed in 59m"]);
    ballast(&file, &["backend", "reset", "web/app-0", "--yes"]).exits_with(0);
    screen.press(&["v"]);
    screen.shows(&["EVENTS, the latest first", "the daemon is ready"]);
    screen.press(&["Escape"]);
    screen.shows(&["2/2 serve", "LATELY (v shows more)"]);
    backends[1].refuse();
    daemon.wait_until_down(0, "app-1");
    screen.shows(&["wrong: ", "down "]);
    screen.press(&["/", "a", "p", "p", "-", "1", "Enter", "s"]);
    let text = screen.shows(&["/app-1 by state", "web/app-1"]);
    // As a row: the foot still tells what became of it.
    assert!(!text.contains("web/app-0  "), "{text}");
    drop(held);
    screen.press(&["q"]);
    screen.shows(&["ended with 0", "\nicanon", "\necho"]);
}

#[test]
fn whatever_ends_it_gives_the_terminal_back() {
    if !installed(&["tmux"]) {
        return;
    }
    let backends = [Backend::named("a")];
    let (daemon, file, _directory) = start(&backends);
    let screen = top(&file);
    screen.shows(&["app-0"]);
    // The daemon may go meanwhile, which ends nothing.
    drop(daemon);
    screen.shows(&["cannot reach the daemon"]);
    kill_process(screen.child(), Signal::TERM).unwrap();
    screen.shows(&["ended with 0", "\nicanon", "\necho"]);
}

#[test]
fn without_a_terminal_it_says_what_there_is_instead() {
    let backends = [Backend::named("a")];
    let (_daemon, file, _directory) = start(&backends);
    let said = ballast(&file, &["top"]);
    said.exits_with(1);
    assert!(said.stderr.contains("ballast status"), "{said:#?}");
}
