//! What the daemon has given up by the time that it serves: root, every capability but one, and that
//! this takes nothing from it that it needs.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use ballast::api::{Plan, Prospect};
use serde_json::json;

use crate::support::{
    Api, Backend, Config, Daemon, Launch, Service, Stranger, ask_name, ballast, eventually,
    fresh_ip, installed, words,
};

/// CAP_NET_BIND_SERVICE
const BIND: &str = "0000000000000400";
const NOTHING: &str = "0000000000000000";

/// A file that names a user for root to become, if this is root.
fn named_user(config: Config) -> Option<(Config, Stranger)> {
    let user = Stranger::new()?;
    let id = user.id().to_string();
    let config = config.runtime("user", id.clone()).runtime("group", id);
    Some((config, user))
}

/// `/proc/PID/task/TID/status` of every thread.
fn threads(pid: u32) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let statuses =
        tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses
        .map(|status| {
            let lines = status.lines().filter_map(|line| line.split_once(":\t"));
            lines
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect()
        })
        .collect()
}

fn one_service() -> Config {
    Config::of(Service::new("web").backend("a", Backend::named("a").address()))
}

#[test]
fn root_becomes_the_user_of_the_file_in_every_thread_and_keeps_one_capability() {
    let server = Backend::named("a");
    let service = |listen: &str| {
        Service::new("web")
            .listen(listen)
            .quick_health()
            .backend("a", server.address())
    };
    let file = |service| Config::of(service).admin("listen", "127.0.0.1:0");
    let Some((config, user)) = named_user(file(service("127.0.0.1:0"))) else {
        return;
    };
    let daemon = Launch::new().reachable().start(&config);
    daemon.wait_until_up(0, "a");
    let id = user.id();
    let threads = threads(daemon.pid());
    assert!(threads.len() > 2, "{threads:?}");
    for thread in &threads {
        assert_eq!(
            thread["Uid"],
            format!("{id}\t{id}\t{id}\t{id}"),
            "{thread:?}"
        );
        assert_eq!(
            thread["Gid"],
            format!("{id}\t{id}\t{id}\t{id}"),
            "{thread:?}"
        );
        assert_eq!(thread["Groups"].trim(), id.to_string(), "{thread:?}");
        for (set, left) in [
            ("CapEff", BIND),
            ("CapPrm", BIND),
            ("CapBnd", BIND),
            ("CapInh", NOTHING),
            ("CapAmb", NOTHING),
        ] {
            assert_eq!(thread[set], left, "{set} of {thread:?}");
        }
    }
    let told = daemon
        .log()
        .wait(0, words::CONFINED, |it| it.says(words::CONFINED));
    assert_eq!(told.text("user"), id.to_string());
    assert_eq!(told.text("capabilities"), "CAP_NET_BIND_SERVICE");
    assert_eq!(told.text("seccomp"), "on");

    // A port that only root may have, and a reload long after it was given up.
    let mark = daemon.log().mark();
    let privileged = format!("{}:443", fresh_ip());
    let id = id.to_string();
    let more = file(service("127.0.0.1:0").also_listen(&privileged))
        .runtime("user", id.clone())
        .runtime("group", id);
    daemon.reload(&more);
    let added = daemon.addresses_since(mark, "web");
    assert_eq!(added.len(), 1, "{added:?}");
    assert_eq!(added[0].to_string(), privileged);
    // What it reads of itself is still its own, although nobody may debug it any more.
    let metrics = daemon.api().get("/metrics");
    let open = metrics
        .text()
        .lines()
        .find_map(|it| it.strip_prefix("ballast_open_descriptors "));
    assert!(open.unwrap().parse::<u32>().unwrap() > 10, "{open:?}");
    assert_eq!(ask_name(added[0]).unwrap(), "a");
}

#[test]
fn a_check_program_runs_as_that_user_too_without_any_capability() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let script = directory.path().join("check");
    fs::write(
        &script,
        "#!/bin/sh\ncat /proc/self/status > \"$(dirname \"$0\")/seen\"\n",
    )
    .unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Backend::named("a");
    let service = Service::new("web")
        .health("kind", "exec")
        .health("command", script.to_str().unwrap())
        .backend("a", server.address());
    let Some((config, user)) = named_user(Config::of(service)) else {
        return;
    };
    let daemon = Launch::new().reachable().start(&config);
    daemon.wait_until_up(0, "a");
    let seen = fs::read_to_string(directory.path().join("seen")).unwrap();
    let id = user.id();
    assert!(
        seen.contains(&format!("Uid:\t{id}\t{id}\t{id}\t{id}")),
        "{seen}"
    );
    assert!(seen.contains(&format!("CapEff:\t{NOTHING}")), "{seen}");
    assert!(seen.contains(&format!("CapPrm:\t{NOTHING}")), "{seen}");
    // The sandbox is the daemon's alone: a program does what its user may.
    assert!(seen.contains("Seccomp:\t0\n"), "{seen}");
    assert!(seen.contains("NoNewPrivs:\t0\n"), "{seen}");
}

#[test]
fn what_the_user_could_not_read_again_or_write_keeps_the_daemon_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let list = directory.path().join("list");
    fs::write(&list, "10.0.0.0/8\n").unwrap();
    fs::set_permissions(&list, fs::Permissions::from_mode(0o600)).unwrap();
    let state = directory.path().join("state");
    fs::create_dir(&state).unwrap();
    let config = |listed: bool, stateful: bool| {
        let service = Service::new("web").backend("a", "127.0.0.1:1".parse().unwrap());
        let service = match listed {
            true => service.access("allow_file", list.to_str().unwrap()),
            false => service,
        };
        let config = Config::of(service).log("format", "text");
        match stateful {
            true => config.runtime("state_file", state.join("s.json").to_str().unwrap()),
            false => config,
        }
    };
    let refused = |config: Config, launch: Launch| {
        let (config, user) = named_user(config)?;
        let (status, said) = launch.refuse(&config.text());
        assert_eq!(status.code(), Some(1), "{said}");
        Some((said, user.id()))
    };

    // The whole file: its directory lets nobody else through.
    let closed = Launch::new().after("chmod 700 \"$(dirname \"$1\")\"");
    let Some((said, id)) = refused(config(false, false), closed) else {
        return;
    };
    assert!(said.contains("permission denied"), "{said}");
    assert!(said.contains(&format!("that is how user `{id}`")), "{said}");

    let (said, _) = refused(config(true, false), Launch::new().reachable()).unwrap();
    assert!(said.contains(&format!("user `{id}` cannot read")), "{said}");
    assert!(said.contains("allow_file = "), "the place: {said}");
    assert!(said.contains("chmod g+r"), "{said}");

    let (said, _) = refused(config(false, true), Launch::new().reachable()).unwrap();
    assert!(
        said.contains(&format!("user `{id}` cannot write the directory")),
        "{said}"
    );
    assert!(
        said.contains(&format!("chown {id} {}", state.display())),
        "{said}"
    );

    chown(&state, Some(id), None).unwrap();
    let (config, _) = named_user(config(false, true)).unwrap();
    let daemon = Launch::new()
        .reachable()
        .start_text(&config.log("format", "json").text());
    let written = state.join("s.json");
    eventually("the state is written", || written.exists().then_some(()));
    assert_eq!(
        fs::metadata(&written).unwrap().permissions().mode() & 0o777,
        0o600
    );
    drop(daemon);
}

#[test]
fn who_is_not_root_runs_as_who_it_is_and_is_told() {
    let Some((config, user)) = named_user(one_service()) else {
        return;
    };
    // Its own name is no news, …
    let daemon = Launch::new().run_as(user).start(&config);
    let told = daemon
        .log()
        .wait(0, words::CONFINED, |it| it.says(words::CONFINED));
    assert_eq!(told.text("user"), user.id().to_string());
    assert_eq!(told.text("capabilities"), "none");
    assert!(
        daemon
            .log()
            .all(0, |it| it.says(words::ONLY_ROOT))
            .is_empty()
    );
    drop(daemon);
    // … and another's cannot be had.
    let other = one_service().runtime("user", "0");
    let daemon = Launch::new().run_as(user).start(&other);
    let told = daemon
        .log()
        .wait(0, "a warning", |it| it.says(words::ONLY_ROOT));
    assert_eq!(told.text("wanted"), "0");
    assert!(
        threads(daemon.pid())
            .iter()
            .all(|it| it["CapEff"] == NOTHING)
    );
}

#[test]
fn a_user_that_does_not_exist_keeps_the_daemon_from_starting() {
    let config = one_service()
        .runtime("user", "no-such-user")
        .log("format", "text");
    let (status, said) = Launch::new().refuse(&config.text());
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("no user is named `no-such-user`"), "{said}");
}

#[test]
fn another_user_needs_a_restart() {
    let daemon = Daemon::start(&one_service());
    let mark = daemon.log().mark();
    daemon.reload(&one_service().runtime("user", "nobody"));
    daemon.log().wait(mark, "what needs a restart", |it| {
        it.has("what", "runtime.user") && it.says("takes effect after a restart only")
    });
}

#[test]
fn every_thread_is_under_the_filter_and_may_not_get_more_by_any_program() {
    let daemon = Daemon::start(&one_service().runtime("workers", 3));
    // Some of them are started by what is asked of it.
    daemon.reload(&one_service().runtime("workers", 3));
    let threads = threads(daemon.pid());
    assert!(threads.len() > 4, "{threads:?}");
    for thread in &threads {
        assert_eq!(thread["Seccomp"], "2", "{thread:?}");
        assert_eq!(thread["NoNewPrivs"], "1", "{thread:?}");
    }
}

#[test]
fn a_sandbox_that_only_tells_refuses_nothing_and_one_that_is_off_is_not_there() {
    for (sandbox, filtered) in [("log", "2"), ("off", "0")] {
        let daemon = Daemon::start(&one_service().runtime("sandbox", sandbox));
        let told = daemon
            .log()
            .wait(0, words::CONFINED, |it| it.says(words::CONFINED));
        assert_eq!(told.text("seccomp"), sandbox);
        assert_eq!(told.text("landlock"), "off");
        let threads = threads(daemon.pid());
        assert!(
            threads.iter().all(|it| it["Seccomp"] == filtered),
            "{threads:?}"
        );
        let warnings = [words::NO_SECCOMP, words::NO_LANDLOCK];
        assert!(
            daemon
                .log()
                .all(0, |it| warnings.iter().any(|no| it.says(no)))
                .is_empty()
        );
    }
}

/// A daemon whose kernel has no such calls.
fn without(calls: &[&str]) -> Launch {
    let mut strace = "exec strace -D -f -qq -o /dev/null".to_owned();
    for call in calls {
        strace += &format!(" -e inject={call}:error=ENOSYS");
    }
    Launch::new().after(&format!("{strace} \"$0\" run -c \"$1\""))
}

#[test]
fn what_the_kernel_lacks_is_a_warning_and_the_rest_holds() {
    if !installed(&["strace"]) {
        return;
    }
    let server = Backend::named("a");
    let config = Config::of(Service::new("web").backend("a", server.address()));
    for (calls, seccomp, landlock) in [
        (&["landlock_create_ruleset"][..], "on", "missing"),
        (
            &["landlock_create_ruleset", "seccomp"],
            "missing",
            "missing",
        ),
    ] {
        let daemon = without(calls).start(&config);
        let told = daemon
            .log()
            .wait(0, words::CONFINED, |it| it.says(words::CONFINED));
        assert_eq!(told.text("seccomp"), seccomp);
        assert_eq!(told.text("landlock"), landlock);
        daemon.log().wait(0, "a warning", |it| {
            it.says(words::NO_LANDLOCK) && it.has("level", "WARN")
        });
        let missed = daemon.log().all(0, |it| it.says(words::NO_SECCOMP));
        assert_eq!(missed.len(), usize::from(seccomp == "missing"));
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "a");
    }
}

#[test]
fn a_file_elsewhere_that_a_reload_names_needs_a_restart_where_there_is_landlock() {
    let elsewhere = tempfile::tempdir().unwrap();
    let list = elsewhere.path().join("list");
    fs::write(&list, "127.0.0.0/8\n").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let asked = |config: Config| config.admin("listen", format!("unix:{}", socket.display()));
    let daemon = Daemon::start(&asked(one_service()));
    let told = daemon
        .log()
        .wait(0, words::CONFINED, |it| it.says(words::CONFINED));
    let service = Service::new("web").access("allow_file", list.to_str().unwrap());
    let more = asked(Config::of(
        service.backend("a", "127.0.0.1:1".parse().unwrap()),
    ));
    let more = more.runtime("reload_guard", "off");
    if told.text("landlock") == "missing" {
        daemon.reload(&more);
        return;
    }
    let rejected = daemon.reload_rejected(&more.text());
    let problems = rejected.text("problems");
    assert!(problems.contains("is outside of the sandbox"), "{problems}");
    assert!(problems.contains("needs a restart"), "{problems}");
    // Who asks beforehand hears the same.
    let proposal = json!({ "text": more.text(), "name": "the next one" });
    let plan: Plan = Api::unix(&socket).post("/v1/plan", &proposal).good();
    assert_eq!(plan.outcome, Prospect::Rejected);
    let problems = plan.problems.join("\n");
    assert!(problems.contains("needs a restart"), "{problems}");

    // The kernel knows the directory of the configuration, not its name.
    let file = daemon.beside("ballast.toml");
    let own = file.parent().unwrap();
    let former = own.with_extension("former");
    fs::rename(own, &former).unwrap();
    fs::create_dir(own).unwrap();
    let rejected = daemon.reload_rejected(&asked(one_service()).text());
    let problems = rejected.text("problems");
    let words = [
        "ballast.toml\" is outside of the sandbox",
        "needs a restart",
    ];
    assert!(words.iter().all(|it| problems.contains(it)), "{problems}");
    fs::remove_dir_all(own).unwrap();
    fs::rename(&former, own).unwrap();
    daemon.reload(&asked(one_service()));
    drop(daemon);
    Daemon::start(&more).reload(&more);
}

#[test]
fn a_call_outside_of_the_list_fails_as_if_the_kernel_did_not_have_it() {
    if !installed(&["strace"]) {
        return;
    }
    // Threads are started by clone3, whose flags a filter cannot see: the C library asks again by clone.
    let log = tempfile::tempdir().unwrap();
    let trace = log.path().join("calls");
    let strace = format!(
        "exec strace -D -f -qq -e trace=clone,clone3 -o {} \"$0\" run -c \"$1\"",
        trace.display()
    );
    let daemon = Launch::new().after(&strace).start(&one_service());
    eventually("the tracer has written", || {
        let said = fs::read_to_string(&trace).unwrap_or_default();
        let refused = said
            .lines()
            .any(|it| it.contains("clone3") && it.contains("ENOSYS"));
        let threads = said
            .lines()
            .any(|it| it.contains("clone(") && it.contains("CLONE_THREAD"));
        (refused && threads).then_some(())
    });
    drop(daemon);
}

#[test]
fn a_service_manager_that_has_seen_to_it_and_forbids_the_rest_is_not_in_the_way() {
    if !installed(&["strace", "setpriv"]) {
        return;
    }
    let Some(user) = Stranger::new() else { return };
    // As the unit has it: the user, one ambient capability, and no call that changes either.
    let mut start = format!(
        "exec setpriv {} --inh-caps +net_bind_service --ambient-caps +net_bind_service --no-new-privs",
        user.options().join(" ")
    );
    start += " strace -D -f -qq -o /dev/null";
    for call in ["capset", "setresuid", "setresgid", "setgroups"] {
        start += &format!(" -e inject={call}:error=EPERM");
    }
    let start = Launch::new().after(&format!("{start} \"$0\" run -c \"$1\""));
    let server = Backend::named("a");
    let privileged = format!("{}:443", fresh_ip());
    let service = Service::new("web")
        .listen(&privileged)
        .backend("a", server.address());
    let daemon = start.reachable().start(&Config::of(service));
    let told = daemon
        .log()
        .wait(0, words::CONFINED, |it| it.says(words::CONFINED));
    assert_eq!(told.text("capabilities"), "CAP_NET_BIND_SERVICE");
    assert_eq!(told.text("seccomp"), "on");
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "a");
}

/// What `check` and `doctor` say of this file, each with its exit code.
fn judged(text: &str) -> [(Option<i32>, String); 2] {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = directory.path().join("ballast.toml");
    fs::write(&file, text).unwrap();
    let check = ballast(&file, &["check"]);
    let doctor = ballast(&file, &["doctor"]);
    [(check.code, check.stderr), (doctor.code, doctor.stdout)]
}

#[test]
fn what_the_user_of_a_file_is_barred_from_is_refused_before_a_start_too() {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(directory.path().join("of-others"), "").unwrap();
    let place = directory.path().display();
    let socket = format!("unix:{place}/admin.sock");
    let Some((config, _)) = named_user(one_service().admin("listen", socket)) else {
        return;
    };
    let (status, run) = Launch::new().reachable().refuse(&config.text());
    assert_eq!(status.code(), Some(1), "{run}");
    let why = format!("cannot write the directory \"{place}\"");
    let help = format!("mkdir {place}/ballast && chown");
    assert!(run.contains(&why) && run.contains(&help), "{run}");
    for (code, said) in judged(&config.text()) {
        assert_eq!(code, Some(1), "{said}");
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains(&why) && said.contains(&help), "{said}");
    }
}

#[test]
fn a_user_that_does_not_exist_is_an_error_at_its_place_for_every_command() {
    let config = one_service()
        .runtime("user", "no-such-user")
        .log("format", "text");
    for (code, said) in judged(&config.text()) {
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("no user is named `no-such-user`"), "{said}");
        assert!(said.contains("useradd --system no-such-user"), "{said}");
    }
}
