//! What ships for systemd is accepted by the systemd of this machine without a word.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

#[test]
fn systemd_finds_no_fault_in_the_unit() {
    let Some(version) = systemd_version() else {
        return skip("systemd-analyze is not installed");
    };
    let staged = tempfile::tempdir().unwrap();
    let unit = staged.path().join("ballast.service");
    // The unit leaves it to systemd where the program is; here it is where Cargo has put it.
    let text = fs::read_to_string(shipped("ballast.service")).unwrap();
    let binary = env!("CARGO_BIN_EXE_ballast");
    assert!(
        text.contains("\nExecStart=ballast run ") && text.contains("\nExecReload=ballast check ")
    );
    fs::write(&unit, text.replace("=ballast ", &format!("={binary} "))).unwrap();
    if version >= 253 {
        let directory = staged.path().join("ballast.service.d");
        fs::create_dir(&directory).unwrap();
        let drop_in = "ballast.service.d/notify-reload.conf";
        fs::copy(shipped(drop_in), staged.path().join(drop_in)).unwrap();
    }
    says_nothing(&run(Command::new("systemd-analyze")
        .arg("verify")
        .arg(&unit)));
}

#[test]
fn the_unit_leaves_little_exposed() {
    if systemd_version().is_none() {
        return skip("systemd-analyze is not installed");
    }
    // In tenths, and 2.0 is the promise; what is left is the network, which is the trade of a balancer, and
    // its one capability.
    let output = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=15"])
        .arg(shipped("ballast.service")));
    assert!(output.status.success(), "{}", told(&output));
}

#[test]
fn sysusers_reads_the_user() {
    let exists = Command::new("systemd-sysusers").arg("--version").output();
    if exists.is_err() {
        return skip("systemd-sysusers is not installed");
    }
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    let output = run(Command::new("systemd-sysusers")
        .arg(format!("--root={}", root.path().display()))
        .arg(shipped("ballast-sysusers.conf")));
    assert!(output.status.success(), "{}", told(&output));
    let users = fs::read_to_string(root.path().join("etc/passwd")).unwrap();
    assert!(users.starts_with("ballast:"), "{users}");
}

#[test]
fn the_kernel_knows_every_setting() {
    if !Path::new("/proc/sys/net/core").is_dir() {
        return skip("/proc/sys is not mounted");
    }
    let text = fs::read_to_string(shipped("ballast-sysctl.conf")).unwrap();
    let settings = text
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for setting in settings {
        let (key, _) = setting.split_once(" = ").unwrap();
        let file = Path::new("/proc/sys").join(key.replace('.', "/"));
        assert!(file.is_file(), "{key}");
    }
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config/systemd")
        .join(name)
}

/// The major version, if systemd's tools are here.
fn systemd_version() -> Option<u32> {
    let output = Command::new("systemd-analyze")
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().nth(1)?.parse().ok()
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn says_nothing(output: &Output) {
    assert!(
        output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(),
        "{}",
        told(output)
    );
}

fn told(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn skip(why: &str) {
    assert!(
        std::env::var_os("BALLAST_TESTS_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{why}"
    );
    eprintln!("skipped: {why}");
}
