//! What every command does where its answer goes: a full disk makes it fail and say so, a reader that has left
//! is no failure.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io;
use std::process::{Command, Stdio};

use crate::support::{Backend, Config, Daemon, Said, Service, ballast, binary, fresh_listen};

/// Each command with an answer, and the code that it ends with when all is well.
fn commands(listen: &str) -> Vec<(Vec<&str>, i32)> {
    let plain = [
        "--help",
        "--version",
        "check --help",
        "backend weight web/a 50% --yes -c FILE",
        "check -c FILE",
        "explain 127.0.0.1 -c FILE",
        "explain 127.0.0.1 --json -c FILE",
        "plan -c FILE",
        "plan --json -c FILE",
        "reload --yes -c FILE",
        "simulate -c FILE",
        "simulate --json -c FILE",
        "status --no-rates -c FILE",
        "status --json -c FILE",
        "status web --json -c FILE",
        "events -c FILE",
        "events --json -c FILE",
        "failovers -c FILE",
        "failovers --json -c FILE",
        "sessions -c FILE",
        "backend reset web/a --yes --json -c FILE",
        "service fail-back web --yes -c FILE",
        "report -c FILE",
        "report --format json -c FILE",
        "report --format html -c FILE",
        "completions bash",
        "man",
    ];
    let mut all: Vec<_> = plain
        .iter()
        .map(|line| (line.split(' ').collect::<Vec<_>>(), 0))
        .collect();
    all.push((vec!["demo", "--pace", "1s", "--listen", listen], 0));
    all
}

/// How the command ends when stdout is this.
fn run(arguments: &[&str], file: &str, stdout: Stdio) -> (Option<i32>, String) {
    let arguments = arguments
        .iter()
        .map(|it| if *it == "FILE" { file } else { it });
    let output = Command::new(binary())
        .args(arguments)
        .env_remove("BALLAST_ADMIN")
        .stdin(Stdio::null())
        .stdout(stdout)
        .output()
        .unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

/// A pipe that nobody reads from.
fn left() -> Stdio {
    let (reader, writer) = io::pipe().unwrap();
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    let full: File = OpenOptions::new().write(true).open("/dev/full").unwrap();
    full.into()
}

#[test]
fn no_command_takes_a_full_disk_for_success_nor_a_reader_that_has_left_for_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let a = Backend::named("a");
    let config = Config::new()
        .service(
            Service::new("web")
                .key("fail_back", "manual")
                .backend("a", a.address()),
        )
        .admin("listen", format!("unix:{}", socket.display()));
    let daemon = Daemon::start(&config);
    let path = daemon.beside("ballast.toml");
    let file = path.to_str().unwrap();
    let listen = fresh_listen();
    let all = commands(&listen);
    for (arguments, well) in &all {
        let (code, said) = run(arguments, file, full());
        assert_eq!(code, Some(1), "{arguments:?}: {said}");
        let why = "ballast: cannot write the answer: no space left on device\n";
        assert!(said.ends_with(why), "{arguments:?}: {said}");
        let (code, said) = run(arguments, file, left());
        assert_eq!(code, Some(*well), "{arguments:?}: {said}");
        assert!(!said.contains("cannot write"), "{arguments:?}: {said}");
    }
    // Whatever this machine is like, 'doctor' looks at it; it exits with 1 for problems.
    let Said { code, .. } = ballast(&path, &["doctor"]);
    let (_, said) = run(&["doctor", "-c", "FILE"], file, full());
    assert!(said.contains("cannot write the answer"), "{said}");
    assert_eq!(
        run(&["doctor", "--json", "-c", "FILE"], file, left()).0,
        code
    );

    // 'run' has no answer, and 'top' needs a terminal.
    let mut tried: BTreeSet<&str> = all.iter().map(|(arguments, _)| arguments[0]).collect();
    tried.extend(["doctor", "run", "top", "help"]);
    let help = ballast(&path, &["--help"]).stdout;
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\nOptions:").unwrap();
    let names = commands.lines().filter_map(|line| line.strip_prefix("  "));
    let names = names.filter(|line| !line.starts_with(' ') && !line.is_empty());
    for name in names.filter_map(|line| line.split(' ').next()) {
        assert!(tried.contains(name), "{name} is not tried here");
    }
}
