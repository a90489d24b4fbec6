//! `ballast check` from the outside: the real binary on real files; and what else is told to
//! somebody who has made a mistake, a daemon that cannot start included.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs::{File, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const GOOD: &str = r#"
[[service]]
name = "web"
listen = ["0.0.0.0:80", "[::]:80"]
strategy = "weighted"
timeouts.idle = "10m"
backend = [
    { name = "app-1", address = "10.0.0.11:8080", weight = 3 },
    { address = "10.0.0.12:8080", enabled = false },
    { address = "10.0.0.13:8080" },
    { address = "10.0.0.14:8080" },
    { address = "db.internal:5432" },
]
"#;

/// How the binary answered.
struct Answer {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn ballast(arguments: &[&str], directory: &Path) -> Answer {
    let Output {
        status,
        stdout,
        stderr,
    } = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(arguments)
        .current_dir(directory)
        .output()
        .unwrap();
    Answer {
        code: status.code(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
    }
}

fn check(content: impl AsRef<[u8]>) -> Answer {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("b.toml"), content).unwrap();
    ballast(&["check", "-c", "b.toml"], directory.path())
}

/// Exits with 1, and says each of these on stderr and nothing on stdout.
#[track_caller]
fn refuses(content: impl AsRef<[u8]>, parts: &[&str]) {
    let Answer {
        code,
        stdout,
        stderr,
    } = check(content);
    for part in parts {
        assert!(stderr.contains(part), "{part:?}\nnot in:\n{stderr}");
    }
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert!(!stderr.contains('\u{1b}'), "colour without a terminal");
}

#[test]
fn a_valid_file_gets_a_summary_and_exit_code_0() {
    let answer = check(GOOD);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
    for part in [
        "b.toml is valid: 1 service, 2 listeners, 5 backends\n",
        "listen    0.0.0.0:80, [::]:80\n",
        "strategy  weighted\n",
        "backends  5, 1 disabled: app-1 (10.0.0.11:8080) ×3, 10.0.0.12:8080 disabled,",
        ", … and 1 more\n",
        "timeouts  idle 10m\n",
        "health    probed every 2s, timeout 1s, up after 2, down after 3\n",
    ] {
        assert!(
            answer.stdout.contains(part),
            "{part:?}\nnot in:\n{}",
            answer.stdout
        );
    }
}

#[test]
fn who_may_come_in_and_what_goes_with_them_is_in_the_summary_where_it_is_set() {
    let sections = r#"
access.allow = "10.0.0.0/8"
access.deny = ["10.1.0.0/16", "10.2.0.0/16"]
access.dry_run = true
limits = { max_connections = 100, max_per_source = 2, rate_per_source = "10/m", dry_run = ["max_per_source"] }
proxy_protocol = { accept_from = "10.9.0.0/16", send = "v2", unique_id = true }
queue = { size = 3, timeout = "2s" }
socket.source = ["127.0.0.1", "127.0.0.2"]
backend = [{ address = "10.0.0.1:80", max_connections = 5 }]
"#;
    let head = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:8099\"\n";
    let answer = check(format!("{head}{sections}"));
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
    for line in [
        "  access    allow 10.0.0.0/8; deny 10.1.0.0/16, 10.2.0.0/16 (dry run)\n",
        "  limits    max_connections 100, max_per_source 2 (dry run), rate_per_source 10/m\n",
        "  PROXY     accepted from 1 network within 3s, sent as v2 with unique_id\n",
        "  queue     3 clients wait, for 2s at most\n",
        "  sources   127.0.0.1, 127.0.0.2\n",
    ] {
        assert!(
            answer.stdout.contains(line),
            "{line:?} in\n{}",
            answer.stdout
        );
    }
    let plain = check(GOOD).stdout;
    for word in ["access", "limits", "PROXY", "queue", "sources"] {
        assert!(!plain.contains(&format!("  {word} ")), "{plain}");
    }
}

#[test]
fn a_file_that_locks_everybody_out_is_warned_of() {
    let deny = "access.deny = [\"0.0.0.0/0\", \"::/0\"]\ntimeouts";
    let answer = check(GOOD.replace("timeouts", deny));
    assert_eq!(answer.code, Some(0));
    let warning = "nobody may come in at service `web`";
    assert!(answer.stderr.contains(warning), "{}", answer.stderr);
}

#[test]
fn a_disabled_backend_is_said_to_be_so_once() {
    let backends = |text: &str| {
        let answer = check(text);
        let line = answer.stdout.lines().find(|it| it.contains("backends  "));
        line.unwrap().trim().to_owned()
    };
    let file = |first: &str, second: &str| {
        format!(
            "[[service]]\nname = \"web\"\nlisten = \"1.1.1.1:1\"\nbackend = [\
             {{ name = \"a\", address = \"b:1\"{first} }}, {{ name = \"b\", address = \"b:2\"{second} }}]\n"
        )
    };
    let off = ", enabled = false";
    assert_eq!(
        backends(&file(off, "")),
        "backends  2: a (b:1) disabled, b (b:2)"
    );
    assert_eq!(
        backends(&file(off, off)),
        "backends  2, all disabled: a (b:1), b (b:2)"
    );
}

#[test]
fn the_reference_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let answer = ballast(&["check", "-c", "config/ballast.toml"], root);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
}

#[test]
fn a_summary_of_many_services_fits_a_screen() {
    let mut text = String::new();
    for index in 1..=500 {
        text += &format!(
            "[[service]]\nname = \"s{index}\"\nlisten = \"1.1.1.1:{index}\"\nbackend = [{{ address = \"b:1\" }}]\n"
        );
    }
    let answer = check(text);
    assert_eq!(answer.code, Some(0));
    assert!(answer.stdout.lines().count() <= 24, "{}", answer.stdout);
    assert!(answer.stdout.contains("… and 480 more services"));
}

#[test]
fn a_warning_is_shown_and_the_exit_code_stays_0() {
    let answer = check(GOOD.replace("weighted", "round-robin"));
    assert_eq!(answer.code, Some(0));
    assert!(
        answer.stdout.contains("5 backends, 1 warning\n"),
        "{}",
        answer.stdout
    );
    assert!(
        answer
            .stderr
            .contains("warning: weights have no effect under \"round-robin\"")
    );
}

#[test]
fn a_list_of_backends_is_read_too_and_what_is_wrong_with_it_is_a_warning() {
    let config =
        "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:80\"\nbackends_file = \"list.toml\"\n";
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("b.toml", config);
    let run = || ballast(&["check", "-c", "b.toml"], directory.path());
    let answer = run();
    assert_eq!(answer.code, Some(0));
    assert!(
        answer.stdout.contains(
            "backends  0, and those of list.toml once it can be used: nobody serves until then"
        ),
        "{}",
        answer.stdout
    );
    assert!(
        answer
            .stderr
            .contains("warning: no such file\n --> list.toml"),
        "{}",
        answer.stderr
    );
    assert!(
        answer
            .stdout
            .contains("but 1 list of backends cannot be used"),
        "{}",
        answer.stdout
    );
    write("list.toml", "[[backend]]\naddress = \"10.0.0.1\"\n");
    let answer = run();
    assert_eq!(answer.code, Some(0));
    assert!(
        answer.stderr.contains("list.toml:2:11"),
        "{}",
        answer.stderr
    );
    assert!(answer.stderr.contains("has no port"), "{}", answer.stderr);
    write("list.toml", "[[backend]]\naddress = \"10.0.0.1:80\"\n");
    let answer = run();
    assert_eq!(answer.stderr, "");
    assert!(
        answer.stdout.contains("0, and the 1 of list.toml"),
        "{}",
        answer.stdout
    );
}

#[test]
fn what_the_file_counts_on_and_what_is_not_there_is_a_warning_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    std::fs::write(directory.path().join("plain"), "").unwrap();
    let alert = |exec: &str| {
        format!("[[alert]]\nname = \"a{exec}\"\non = \"all-down\"\nexec = [\"{place}/{exec}\"]\n")
    };
    let text = format!(
        "{GOOD}[service.health]\nkind = \"exec\"\ncommand = \"{place}/none\"\n{}{}\
         [runtime]\nstate_file = \"{place}/nowhere/state\"\n",
        alert("plain"),
        alert("gone"),
    );
    let answer = check(text);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    for (what, label) in [
        ("/none\"", "it could not be started now"),
        ("/plain\" is not executable", "it could not be started now"),
        ("/gone\"", "it could not be started now"),
        ("/nowhere\"", "nothing could be saved there now"),
    ] {
        assert!(answer.stderr.contains(what), "{what}: {}", answer.stderr);
        assert!(answer.stderr.contains(label), "{label}: {}", answer.stderr);
    }
    assert!(
        answer.stderr.contains("b.toml: 4 warnings"),
        "{}",
        answer.stderr
    );
}

#[test]
fn a_token_file_without_a_token_is_an_error_at_the_check_and_one_that_lets_in_at_the_start_too() {
    let directory = tempfile::tempdir().unwrap();
    let here = directory.path();
    std::fs::write(here.join("empty"), "\n").unwrap();
    let written = |table: &str, token: &Path| {
        let text = format!("{GOOD}{table}token_file = {token:?}\n");
        let text = text
            .replace("0.0.0.0:80", "127.0.0.1:0")
            .replace("\"[::]:80\"", "\"[::1]:0\"");
        std::fs::write(here.join("b.toml"), text).unwrap();
    };
    let admin = "[admin]\nlisten = \"127.0.0.1:0\"\n";
    let alert = "[[alert]]\nname = \"w\"\non = \"all-down\"\nwebhook = \"https://x/\"\n";
    for (table, line) in [(admin, 16), (alert, 18)] {
        for (name, why) in [
            ("none", "no such file"),
            (".", "not a regular file but a directory"),
            ("empty", "there is no token in it"),
        ] {
            written(table, &here.join(name));
            // A daemon does not wait for a token that only its alerts need.
            let commands = match table == admin {
                true => &["check", "run"][..],
                false => &["check"],
            };
            for command in commands {
                let answer = ballast(&[command, "-c", "b.toml"], here);
                assert_eq!(answer.code, Some(1), "{}", answer.stderr);
                let place = format!("--> b.toml:{line}:14");
                for part in [why, &place, "= help: write one line into it"] {
                    assert!(answer.stderr.contains(part), "{part}: {}", answer.stderr);
                }
            }
        }
    }
    // One that anybody may read works, and is hardly meant.
    let token = here.join("token");
    std::fs::write(&token, "secret\n").unwrap();
    written(admin, &token);
    for (mode, is_public) in [(0o644, true), (0o640, false)] {
        std::fs::set_permissions(&token, Permissions::from_mode(mode)).unwrap();
        std::fs::set_permissions(here, Permissions::from_mode(0o755)).unwrap();
        let answer = ballast(&["check", "-c", "b.toml"], here);
        assert_eq!(answer.code, Some(0), "{}", answer.stderr);
        let said = answer
            .stderr
            .contains("warning: everybody on this machine may read the token");
        assert_eq!(said, is_public, "{}", answer.stderr);
    }
}

#[test]
fn several_mistakes_are_all_reported_with_line_column_and_caret() {
    let text = GOOD
        .replace("strategy", "stratgy")
        .replace("\"10m\"", "\"10 minuets\"")
        .replace("weight = 3", "weight = 0")
        .replace("\"0.0.0.0:80\"", "\":80\"")
        .replace("10.0.0.12:8080", "10.0.0.12");
    refuses(
        text,
        &[
            "error: \":80\" does not say on which address\n --> b.toml:4:11\n",
            "write \"0.0.0.0:80\" for every IPv4 address",
            "error: unknown key `stratgy` in [[service]]\n --> b.toml:5:1\n",
            "5 | stratgy = \"weighted\"\n  | ^^^^^^^ did you mean `strategy`? allowed: name, listen,",
            "error: `idle` is \"10 minuets\", which is not a duration",
            "error: `weight` is 0, which is out of range",
            "^ allowed: 1 to 65535",
            "error: \"10.0.0.12\" has no port",
            "b.toml: 5 errors",
        ],
    );
}

#[test]
fn every_kind_of_mistake_is_refused() {
    for (from, to, part) in [
        ("[[service]]", "[[servce]]", "did you mean `service`?"),
        ("name = \"web\"", "name = \"w b\"", "contains ' '"),
        ("name = \"web\"", "", "this service has no name"),
        (
            "name = \"web\"",
            "name = \"web\"\nname = \"b\"",
            "`name` is written twice",
        ),
        ("name = \"web\"", "name \"web\"", "not valid TOML"),
        ("[::]:80", "0.0.0.0:80", "is listened on twice"),
        ("[::]:80", "127.0.0.1:80", "conflicts with 0.0.0.0:80"),
        ("[::]:80", "localhost:80", "names a host"),
        ("[::]:80", ":::80", "without brackets"),
        ("weighted", "wieghted", "did you mean \"weighted\"?"),
        ("\"10m\"", "600", "write \"600s\" for seconds"),
        ("\"10m\"", "10m", "write \"10m\" with quotes"),
        ("weight = 3", "weight = \"3\"", "write 3 without quotes"),
        (
            "10.0.0.13",
            "10.0.0.14",
            "two backends of this service are named",
        ),
        (
            "db.internal:5432",
            "app-1\", name = \"app-1",
            "\"app-1\" has no port",
        ),
        ("db.internal:5432", "d b:5432", "contains a space"),
    ] {
        refuses(GOOD.replacen(from, to, 1), &[part, "--> b.toml"]);
    }
}

#[test]
fn a_file_without_what_it_needs_is_refused() {
    refuses("", &["error: the file is empty", "--> b.toml"]);
    refuses("# only a comment\n", &["no service is configured"]);
    refuses(
        "[[service]]\nname = \"a\"\n",
        &["service `a` has no listener", "service `a` has no backend"],
    );
}

#[test]
fn what_is_no_file_is_refused_without_hanging() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    for (path, part) in [
        ("missing.toml", "error: no such file"),
        (".", "error: not a regular file but a directory"),
        ("fifo", "error: not a regular file but a pipe or a device"),
    ] {
        let answer = ballast(&["check", "-c", path], directory.path());
        assert_eq!(answer.code, Some(1));
        assert!(answer.stderr.contains(part), "{}", answer.stderr);
        let margin = format!("\n --> {path}\n");
        assert!(answer.stderr.contains(&margin), "{}", answer.stderr);
    }
}

#[test]
fn garbage_and_absurd_nesting_are_refused_promptly() {
    let start = Instant::now();
    refuses(b"\x7fELF\x02\x01\x01\0\0\0", &["not a text file", "NUL"]);
    refuses(b"# caf\xe9\n", &["byte 0xe9 is not UTF-8", "b.toml:1:6"]);
    refuses("[".repeat(100_000), &["b.toml:1:"]);
    refuses(format!("a = {}", "[".repeat(100_000)), &["b.toml:1:"]);
    refuses(format!("a = {}", "{a=".repeat(100_000)), &["b.toml:1:"]);
    refuses("x y z\n".repeat(20_000), &["… and ", " more\n"]);
    assert!(start.elapsed() < Duration::from_secs(30));
}

#[test]
fn ten_thousand_backends_in_a_megabyte_are_checked_promptly() {
    let backend = |n: usize| {
        let (name, third, fourth) = ("x".repeat(60), n / 250, n % 250 + 1);
        format!("    {{ name = \"{name}-{n}\", address = \"10.1.{third}.{fourth}:8080\" }},\n")
    };
    let backends: String = (0..10_000).map(backend).collect();
    let file = format!(
        "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:8080\"\nbackend = [\n{backends}]\n"
    );
    assert!(file.len() > 1_000_000, "{}", file.len());
    let start = Instant::now();
    let answer = check(&file);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(answer.stdout.contains("10,000") || answer.stdout.contains("10000"));
    // One mistake among them is found where it is.
    refuses(
        file.replacen("10.1.20.7:8080", "10.1.20.7:80800", 1),
        &["b.toml:5011:", "10.1.20.7:80800"],
    );
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn a_wrong_command_line_is_exit_code_2() {
    let answer = ballast(&["chekc"], Path::new("/"));
    assert_eq!(answer.code, Some(2));
}

#[test]
fn a_file_without_its_option_is_answered_with_the_command_that_works() {
    for command in ["check", "run"] {
        let answer = ballast(&[command, "b.toml"], Path::new("/"));
        assert_eq!(answer.code, Some(2));
        let hint = format!("'ballast {command} -c b.toml'");
        assert!(answer.stderr.contains(&hint), "{}", answer.stderr);
    }
}

#[test]
fn help_is_a_command_too() {
    let answer = ballast(&["help", "check"], Path::new("/"));
    assert_eq!(answer.code, Some(0));
    assert!(answer.stdout.contains("least-connections"));
}

/// What the journal, which names itself in the environment, is told of a start that fails.
fn told_to_the_journal(content: &str) -> String {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("b.toml"), content).unwrap();
    let journal = directory.path().join("journal");
    let stderr = File::create(&journal).unwrap();
    let named = stderr.metadata().unwrap();
    let status = Command::new(env!("CARGO_BIN_EXE_ballast"))
        .args(["run", "-c", "b.toml"])
        .env("JOURNAL_STREAM", format!("{}:{}", named.dev(), named.ino()))
        .current_dir(directory.path())
        .stderr(stderr)
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
    std::fs::read_to_string(&journal).unwrap()
}

#[test]
fn a_failed_start_has_the_priority_of_an_error_on_every_line_in_the_journal() {
    let told = told_to_the_journal(&GOOD.replace("strategy", "stratgy"));
    assert!(told.contains("<3>error: unknown key `stratgy`"), "{told}");
    assert!(told.contains("\n<3> --> b.toml:5:1\n"), "{told}");
    assert!(told.lines().all(|line| line.starts_with("<3>")), "{told}");

    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let told = told_to_the_journal(&occupying(&occupied));
    assert!(
        told.contains("<3>ballast: service web cannot listen on 127.0.0.1:"),
        "{told}"
    );
    assert!(told.lines().all(|line| line.starts_with('<')), "{told}");
}

#[test]
fn a_failed_start_ends_with_one_json_line_where_the_log_is_json() {
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let file = format!("[log]\nformat = \"json\"\n{}", occupying(&occupied));
    let told = told_to_the_journal(&file);
    let errors = told.lines().filter(|line| line.starts_with("<3>"));
    let [line] = errors.collect::<Vec<_>>()[..] else {
        panic!("not one error: {told}");
    };
    assert_eq!(told.lines().last(), Some(line));
    assert!(
        told.lines().all(|line| line[3..].starts_with('{')),
        "{told}"
    );
    for part in [
        "\"level\":\"ERROR\"",
        "\"message\":\"cannot start\"",
        "\"problems\":\"service web cannot listen on",
    ] {
        assert!(line.contains(part), "{part} not in {line}");
    }
}

/// A service where `taken` already listens.
fn occupying(taken: &TcpListener) -> String {
    let address = taken.local_addr().unwrap();
    format!(
        "[[service]]\nname = \"web\"\nlisten = \"{address}\"\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n"
    )
}

#[test]
fn programs_that_root_would_run_are_told_with_what_to_do() {
    let alert = "[[alert]]\nname = \"a\"\non = \"all-down\"\nexec = \"/bin/true\"\n";
    let told = check(format!("{GOOD}{alert}")).stderr;
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    for words in ["root runs \"/bin/true\"", "name a `user` in [runtime]"] {
        assert_eq!(told.contains(words), is_root, "{told}");
    }
}
