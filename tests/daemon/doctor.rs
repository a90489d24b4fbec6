//! `ballast doctor`: the real binary on this machine, with and without a daemon.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Backend, Config, Daemon, Service};

/// Its exit code and what it found.
fn doctor(file: &Path) -> (Option<i32>, Value) {
    let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["doctor", "--json", "-c"])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let found = serde_json::from_slice(&output.stdout).unwrap();
    (output.status.code(), found)
}

/// What is said about `topic` with this severity, in one text.
fn said(found: &Value, topic: &str, severity: &str) -> String {
    let findings = found["findings"].as_array().unwrap().iter();
    let about = findings.filter(|it| it["topic"] == topic && it["severity"] == severity);
    about.map(Value::to_string).collect()
}

fn small(more: &str) -> String {
    format!(
        "[runtime]\nmax_connections = 100\n{more}\n[[service]]\nname = \"s\"\n\
         listen = \"127.0.0.1:0\"\nbacklog = 16\n[[service.backend]]\naddress = \"127.0.0.1:9\"\n"
    )
}

#[test]
fn a_modest_file_is_fine_without_a_daemon_and_the_exit_code_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("b.toml");
    fs::write(&file, small("")).unwrap();
    let (code, found) = doctor(&file);
    assert_eq!(
        (code, &found["problems"]),
        (Some(0), &Value::from(0)),
        "{found:#}"
    );
    assert!(said(&found, "daemon", "fine").contains("none runs with this file"));
    for topic in [
        "descriptors",
        "backlog",
        "memory",
        "pipes",
        "congestion",
        "files",
        "privileges",
        "sandbox",
    ] {
        let all = ["fine", "advice"]
            .map(|severity| said(&found, topic, severity))
            .concat();
        assert!(!all.is_empty(), "{topic} was not looked at: {found:#}");
    }
}

#[test]
fn what_is_wrong_is_found_and_exits_with_1() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    let file = here.join("b.toml");
    let token = here.join("token");
    fs::write(&token, "hush").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(here, fs::Permissions::from_mode(0o755)).unwrap();
    let program = here.join("check");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    let text = small(&format!(
        "state_file = \"{}/none/state.json\"",
        here.display()
    ))
    .replace("backlog = 16", "backlog = 65535")
    .replace(
        "[[service.backend]]",
        &format!(
            "[service.health]\nkind = \"exec\"\ncommand = \"{}\"\n[[service.backend]]",
            program.display()
        ),
    );
    let alert = format!(
        "[[alert]]\nname = \"a\"\non = [\"all-down\"]\nwebhook = \"http://127.0.0.1/\"\ntoken_file = \"{}\"\n",
        token.display()
    );
    fs::write(&file, text + &alert).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let (code, found) = doctor(&file);
    assert_eq!(code, Some(1), "{found:#}");
    let files = said(&found, "files", "problem");
    for part in [
        "everybody may write",
        "the token of alert a: everybody may read",
        "the check of service s",
        "may not run",
        "the state directory",
        "No such file",
    ] {
        assert!(files.contains(part), "{part}: {files}");
    }
    assert!(said(&found, "backlog", "problem").contains("sysctl -w net.core.somaxconn"));
}

#[test]
fn an_address_that_somebody_has_is_told_with_who_and_one_of_another_machine_too() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("b.toml");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let listen = format!("listen = [\"{address}\", \"192.0.2.1:1\"]");
    fs::write(
        &file,
        small("").replace("listen = \"127.0.0.1:0\"", &listen),
    )
    .unwrap();
    let (code, found) = doctor(&file);
    assert_eq!(code, Some(1), "{found:#}");
    let said_of = said(&found, "listen", "problem");
    let own = format!("(pid {})", std::process::id());
    let service = format!("{address} of service s is taken by ");
    for part in [&*service, &own, "192.0.2.1:1 of service s is no address"] {
        assert!(said_of.contains(part), "{part}: {said_of}");
    }
    drop(taken);
    fs::write(&file, small("")).unwrap();
    let (_, found) = doctor(&file);
    assert!(!said(&found, "listen", "fine").is_empty(), "{found:#}");
}

#[test]
fn a_file_with_a_mistake_is_a_problem_and_the_machine_is_looked_at_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("b.toml");
    fs::write(&file, "walk = 1\n").unwrap();
    let (code, found) = doctor(&file);
    assert_eq!(code, Some(1));
    assert!(said(&found, "file", "problem").contains("ballast check -c"));
    assert!(
        !said(&found, "congestion", "fine").is_empty()
            || !said(&found, "congestion", "advice").is_empty()
    );
}

#[test]
fn a_running_daemon_is_found_with_its_own_limits() {
    let backend = Backend::named("a");
    let service = Service::new("s").backend("a", backend.address());
    let daemon = Daemon::start(&Config::of(service));
    let (_, found) = doctor(&daemon.beside("ballast.toml"));
    let pid = daemon.pid();
    assert!(
        said(&found, "daemon", "fine").contains(&format!("pid {pid}")),
        "{found:#}"
    );
    let about = ["fine", "advice"].map(|severity| said(&found, "descriptors", severity));
    assert!(
        about.concat().contains(&format!("of pid {pid}")),
        "{found:#}"
    );
}

#[test]
fn what_a_running_daemon_is_to_listen_on_next_is_tried_and_what_it_has_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let server = Backend::named("a");
    let door = format!("unix:{}/admin.sock", directory.path().display());
    let config = Config::of(Service::new("web").backend("a", server.address()));
    let daemon = Daemon::start(&config.admin("listen", door));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (own, taken) = (daemon.address("web"), taken.local_addr().unwrap());
    let file = daemon.beside("ballast.toml");
    let service = |name: &str, address| {
        format!(
            "\n[[service]]\nname = \"{name}\"\nlisten = \"{address}\"\n\
             [[service.backend]]\naddress = \"127.0.0.1:9\"\n"
        )
    };
    let text = fs::read_to_string(&file).unwrap() + &service("own", own);
    fs::write(&file, &text).unwrap();
    let (_, found) = doctor(&file);
    assert!(!said(&found, "listen", "fine").is_empty(), "{found:#}");
    fs::write(&file, text + &service("new", taken)).unwrap();
    let (code, found) = doctor(&file);
    let told = said(&found, "listen", "problem");
    assert_eq!(code, Some(1), "{found:#}");
    assert!(
        told.contains(&format!("{taken} of service new is taken by ")),
        "{told}"
    );
    assert!(!told.contains(&own.to_string()), "{told}");
}

#[test]
fn the_file_of_the_daemon_that_answers_is_judged_when_no_other_is_named() {
    let server = Backend::named("a");
    let config = Config::of(Service::new("web").backend("a", server.address()));
    let daemon = Daemon::start(&config.admin("listen", "127.0.0.1:0"));
    let address = daemon.api().address().to_string();
    let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["doctor", "--json", "--admin", &address])
        .output()
        .unwrap();
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said(&found, "file", "problem"), "", "{found}");
    let runs = said(&found, "daemon", "fine") + &said(&found, "daemon", "advice");
    assert!(runs.contains(&format!("pid {}", daemon.pid())), "{found}");
}

#[test]
fn check_and_simulate_are_about_the_file_of_the_daemon_that_answers_unless_another_is_named() {
    let server = Backend::named("a");
    let config = Config::of(Service::new("web").backend("a", server.address()));
    let daemon = Daemon::start(&config.admin("listen", "127.0.0.1:0"));
    let file = daemon.beside("ballast.toml");
    let ballast = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
            .args(arguments)
            .env("BALLAST_ADMIN", daemon.api().address().to_string())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        assert!(output.status.success(), "{output:?}");
        (text(output.stdout), text(output.stderr))
    };
    let of_daemon = format!(
        "no file is named, so this is about that of the running daemon: {}\n",
        file.display()
    );
    let (out, err) = ballast(&["check"]);
    assert!(
        out.contains(&format!("{} is valid", file.display())),
        "{out}"
    );
    assert!(err.contains(&of_daemon), "{err}");
    let (out, err) = ballast(&["simulate", "--clients", "10"]);
    assert!(out.contains("web"), "{out}");
    assert!(err.contains(&of_daemon), "{err}");
    let other = daemon.beside("other.toml");
    fs::write(&other, small("")).unwrap();
    let (out, err) = ballast(&["check", "-c", other.to_str().unwrap()]);
    assert!(out.contains("other.toml is valid"), "{out}");
    assert!(!err.contains("no file is named"), "{err}");
}

#[test]
fn a_daemon_that_is_named_and_cannot_be_asked_for_its_file_is_told_of() {
    let directory = tempfile::tempdir().unwrap();
    let mute = directory.path().join("mute.sock");
    // It takes connections, and never answers.
    let _mute = UnixListener::bind(&mute).unwrap();
    let said = |command: &str, admin: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
            .arg(command)
            .env("BALLAST_ADMIN", admin)
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let mute = format!("unix:{}", mute.display());
    let nobody = format!("unix:{}/nobody.sock", directory.path().display());
    for (admin, why) in [
        (&*nobody, "no such file or directory"),
        (
            "nowhere",
            "BALLAST_ADMIN is \"nowhere\": expected an address",
        ),
        (&*mute, "no answer within 1 s\n"),
    ] {
        for command in ["check", "simulate"] {
            let said = said(command, admin);
            let about = "ballast: no file is named, so this is about /etc/ballast/ballast.toml; \
                         that of a running daemon may be another: ";
            let line = said.lines().find(|line| line.starts_with(about));
            let line = line.unwrap_or_else(|| panic!("{said}")).to_owned() + "\n";
            assert!(line.contains(why), "{line}");
        }
    }
}
