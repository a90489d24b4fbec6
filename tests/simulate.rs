//! `ballast simulate` from the outside: the real binary on real files, and its figures against what a
//! daemon would do.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn service(name: &str, strategy: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\nstrategy = \"{strategy}\"\n{more}\n"
    )
}

fn backend(name: &str, more: &str) -> String {
    let number = name.bytes().last().unwrap();
    format!("[[service.backend]]\nname = \"{name}\"\naddress = \"10.0.0.{number}:80\"\n{more}\n")
}

fn simulate(directory: &Path, text: &str, arguments: &[&str]) -> Output {
    std::fs::write(directory.join("b.toml"), text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["simulate", "-c", "b.toml"])
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap()
}

/// What `--json` says, with exit code 0 and nothing on stderr.
#[track_caller]
fn figures(text: &str, arguments: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let output = simulate(directory.path(), text, &[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*stderr), (Some(0), ""));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Exits with 1, says this on stderr, and nothing on stdout.
#[track_caller]
fn refuses(text: &str, arguments: &[&str], said: &str) {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("clients"), "10.0.0.1\n\nten\n").unwrap();
    let output = simulate(directory.path(), text, arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains(said), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn shares_come_close_to_the_weights_and_only_the_clients_of_the_missing_move() {
    let text = service("web", "source-hash", "")
        + &backend("a", "weight = 2")
        + &backend("b", "")
        + &backend("c", "");
    let figures = figures(&text, &["--clients", "20000", "--without", "b"]);
    let web = &figures["services"][0];
    let count = |at: usize| web["backends"][at]["clients"].as_u64().unwrap();
    assert_eq!(count(0) + count(1) + count(2), 20_000);
    assert_eq!(web["backends"][0]["ideal_percent"], 50.0);
    assert!((9_500..10_500).contains(&count(0)), "{figures}");
    let (moved, needlessly) = (&web["moved"], &web["moved_needlessly"]);
    assert_eq!(
        moved.as_u64().unwrap() - needlessly.as_u64().unwrap(),
        count(1)
    );
    assert!(needlessly.as_u64().unwrap() < 1_000, "{figures}");
    assert_eq!(web["backends"][1]["without"]["seat"], "out");
    assert_eq!(web["backends"][1]["without"]["clients"], 0);
}

#[test]
fn a_standby_takes_over_when_its_betters_are_missing() {
    let text = service("db", "round-robin", "")
        + &backend("a", "")
        + &backend("b", "priority = 1")
        + &backend("c", "enabled = false");
    let figures = figures(&text, &["--without", "db/a", "--clients", "100"]);
    let db = &figures["services"][0];
    let seat = |at: usize| db["backends"][at]["seat"].clone();
    assert_eq!([seat(0), seat(1), seat(2)], ["serves", "stands by", "out"]);
    assert_eq!(db["backends"][1]["without"]["clients"], 100);
    assert_eq!(db["moved"], Value::Null, "nobody is bound to a backend");
}

#[test]
fn clients_of_a_file_get_what_the_hash_says_and_it_never_changes() {
    let directory = tempfile::tempdir().unwrap();
    let list = "# ours\n192.0.2.1\n2001:db8::1  # one network\n2001:db8::2\n";
    std::fs::write(directory.path().join("clients"), list).unwrap();
    let text = service("web", "source-hash", "") + &backend("a", "") + &backend("b", "");
    let output = || simulate(directory.path(), &text, &["--clients", "clients"]).stdout;
    let said = String::from_utf8(output()).unwrap();
    assert!(said.starts_with("web: source-hash, 3 clients\n"), "{said}");
    assert!(said.contains("exactly what these clients get"), "{said}");
    assert_eq!(said.as_bytes(), output());
}

#[test]
fn what_is_full_is_said_and_what_is_assumed_too() {
    let text = service("web", "least-connections", "")
        + &backend("a", "max_connections = 10")
        + &backend("b", "max_connections = 10");
    let directory = tempfile::tempdir().unwrap();
    let output = simulate(
        directory.path(),
        &text,
        &["--clients", "1000", "--at-once", "50"],
    );
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(
        said.contains("50 sessions at a time, all equally long"),
        "{said}"
    );
    assert!(said.contains("clients get nobody: all are full"), "{said}");
    let queued = "up to 1,024 at a time wait for a place, for at most 10s";
    let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains(queued), "{said}");
}

#[test]
fn what_cannot_be_simulated_is_told_with_what_there_is() {
    let text = service("web", "random", "") + &backend("a", "");
    refuses(
        &text,
        &["--without", "b"],
        "there is no such backend; there are web/a",
    );
    refuses(&text, &["--without", "app/a"], "there are web/a");
    refuses(
        &text,
        &["--clients", "clients"],
        "clients:3: \"ten\" is no IP address",
    );
    refuses(
        &text,
        &["--clients", "nowhere"],
        "neither a number nor a file",
    );
    refuses(&text, &["--clients", "0"], "from 1 to 1000000 clients");
    refuses("[[service]]\n", &[], "b.toml cannot be used");
}
