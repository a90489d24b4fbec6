//! What has happened and who has done it, as operators read it: in the events, in the log, in what the
//! commands say.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use ballast::api::{Changed, Event, Events, Reloaded, Sessions, View};
use serde_json::json;

use crate::support::{
    Api, Backend, Config, Daemon, End, Held, Line, Peer, Service, active_and_standby, ask_name,
    ballast, connect, eventually, fresh_ip, fresh_listen, held_back, read_head,
    with_receive_buffer, words,
};

/// `config` with an admin socket beside `directory`, over which everything may be done.
fn with_socket(config: Config, directory: &Path) -> (Config, Api) {
    let socket = directory.join("admin.sock");
    let listen = format!("unix:{}", socket.display());
    (config.admin("listen", listen), Api::unix(&socket))
}

/// The first event of that kind behind number `since`.
fn event(api: &Api, since: u64, kind: &str) -> Event {
    eventually(kind, || {
        let events: Events = api.get(&format!("/v1/events?since={since}")).good();
        events.events.into_iter().find(|it| it.kind == kind)
    })
}

#[test]
fn from_when_to_when_nobody_could_be_served_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let mut a = Backend::named("a");
    let service = Service::new("web").quick_health().backend("a", a.address());
    let (config, api) = with_socket(Config::of(service), directory.path());
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "a");
    let since = event(&api, 0, "ready").id;
    a.refuse();
    let unserved = event(&api, since, "unserved");
    assert_eq!(
        (unserved.service.as_deref(), unserved.level.as_str()),
        (Some("web"), "error")
    );
    a.answer();
    let served = event(&api, unserved.id, "served");
    assert_eq!(
        (served.service.as_deref(), served.level.as_str()),
        (Some("web"), "info")
    );
}

#[test]
fn from_when_to_when_clients_had_to_wait_is_told_of_all_and_of_a_service() {
    let directory = tempfile::tempdir().unwrap();
    let backend = Backend::named("only");
    let all = Service::new("all").backend("only", backend.address());
    let few = Service::new("few")
        .limits("max_connections", 1)
        .backend("only", backend.address());
    let config = Config::of(all).service(few).runtime("max_connections", 3);
    let (config, api) = with_socket(config, directory.path());
    let daemon = Daemon::start(&config);
    let mut since = event(&api, 0, "ready").id;
    for (service, most, of) in [("few", 1, Some("few")), ("all", 3, None)] {
        let address = daemon.address(service);
        let held: Vec<_> = (0..most).map(|_| Held::open(address)).collect();
        // The kernel takes it, and Ballast waits.
        let waits = connect(address).unwrap();
        let of_this = |event: &Event| event.service.as_deref() == of;
        let full = event(&api, since, "full");
        assert!(of_this(&full), "{full:?}");
        let text = format!("all {most} sessions of max_connections");
        assert!(full.text.contains(&text), "{full:?}");
        let file = daemon.beside("ballast.toml");
        let status = || ballast(&file, &["status", "--no-rates"]);
        let said = status();
        said.exits_with(1);
        said.shows(&["WRONG", of.unwrap_or("daemon"), &text, "new clients wait"]);
        drop(waits);
        held.into_iter().for_each(Held::part);
        let room = event(&api, full.id, "room");
        assert!(of_this(&room), "{room:?}");
        // What is told may be a moment old.
        let said = eventually("all is well", || {
            Some(status()).filter(|it| it.code == Some(0))
        });
        assert!(!said.stdout.contains("new clients wait"), "{said:#?}");
        since = room.id;
    }
}

#[test]
fn what_an_operator_does_is_told_with_who_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .strategy("round-robin")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    let (config, api) = with_socket(Config::of(service), directory.path());
    let daemon = Daemon::start(&config);
    let address = daemon.address("web");
    let open_at_a = || {
        let held = Held::open(address);
        match held.name == "a" {
            true => held,
            false => Held::open(address),
        }
    };
    let first = open_at_a();
    let by = format!("uid {}", rustix::process::getuid().as_raw());
    let one = "/v1/services/web/backends/a";
    let since = event(&api, 0, "ready").id;

    let sessions: Sessions = api.get("/v1/sessions?backend=a").good();
    let id = sessions.sessions[0].id.clone();
    let _: Changed = api
        .post(&format!("/v1/sessions/{id}/close"), &json!({}))
        .good();
    let closed = event(&api, since, "changed");
    assert_eq!(closed.text, format!("session {id} is closed, by {by}"));
    let line = daemon.wait_for(0, words::OPERATED, "change", "close session");
    assert_eq!((line.text("by"), line.text("session")), (by.clone(), id));
    let mut stream = first.stream;
    assert_eq!(stream.end(), End::Reset);

    let mut second = open_at_a();
    let drain = json!({ "do": "drain", "deadline_seconds": 0.2 });
    let _: Changed = api.post(one, &drain).good();
    let drained = event(&api, closed.id, "drained");
    assert_eq!(
        (drained.backend.as_deref(), drained.level.as_str()),
        (Some("a"), "warn")
    );
    assert!(
        drained.text.contains(": 1 session left is closed"),
        "{drained:?}"
    );
    assert_eq!(second.stream.end(), End::Reset);
    let changed = event(&api, closed.id, "changed");
    assert_eq!(changed.text, format!("web/a: drain within 200ms, by {by}"));

    let _: Reloaded = api.post("/v1/reload", &json!({})).good();
    let asked = event(&api, changed.id, "changed");
    assert_eq!(asked.text, format!("a reload is asked for, by {by}"));
    assert!(event(&api, asked.id, "reloaded").id > asked.id);
    let line = daemon.wait_for(0, words::OPERATED, "change", "reload");
    assert_eq!(line.text("by"), by);
}

#[test]
fn a_wrong_token_is_told_with_where_it_came_from_and_not_each_time() {
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("token");
    std::fs::write(&token, "secret\n").unwrap();
    let a = Backend::named("a");
    let config = Config::of(Service::new("web").backend("a", a.address()))
        .admin("listen", "127.0.0.1:0")
        .admin("token_file", token.to_str().unwrap());
    let daemon = Daemon::start(&config);
    let wrong = daemon.api().bearing("guess");
    for _ in 0..5 {
        let answer = wrong.post("/v1/reload", &json!({}));
        assert_eq!(answer.status, 401);
    }
    let said = daemon
        .log()
        .wait(0, "a wrong token", |line| line.says(words::WRONG_TOKEN));
    assert!(said.text("by").starts_with("127.0.0.1:"), "{}", said.raw());
    assert!(!said.raw().contains("guess"), "{}", said.raw());
    // What comes later is told later, so that a flood does not fill a disk.
    let right = daemon
        .api()
        .bearing("secret")
        .post("/v1/reload", &json!({}));
    assert_eq!(right.status, 200);
    let told = daemon.log().all(0, |line| line.says(words::WRONG_TOKEN));
    assert_eq!(told.len(), 1);
}

#[test]
fn whoever_may_change_nothing_is_told_so_instead_of_being_asked() {
    let a = Backend::named("a");
    let config = Config::of(Service::new("web").backend("a", a.address()));
    let daemon = Daemon::start(&config.admin("listen", fresh_listen()));
    let file = daemon.beside("ballast.toml");
    let listens = |line: &Line| line.says(words::ADMIN_LISTENS);
    let line = daemon.log().wait(0, words::ADMIN_LISTENS, listens);
    let address = line.text("listener");
    for arguments in [
        &["backend", "drain", "web/a"][..],
        &["service", "fail-back", "web"],
        &["reload"],
    ] {
        let said = ballast(&file, &[arguments, &["--admin", &address]].concat());
        said.exits_with(1);
        assert!(said.stderr.contains("this takes a token"), "{said:#?}");
        assert!(!said.stderr.contains("--yes"), "{said:#?}");
        assert_eq!(said.stdout, "");
    }
}

#[test]
fn a_client_that_rules_keep_out_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let a = Backend::named("a");
    let service = Service::new("web")
        .access("deny", vec!["127.4.0.0/16"])
        .limits("max_connections", 1)
        .backend("a", a.address());
    let dry = Service::new("dry")
        .access("deny", vec!["127.4.0.0/16"])
        .access("dry_run", true)
        .backend("a", a.address());
    let config = Config::of(service).service(dry);
    let (config, _) = with_socket(config, directory.path());
    let daemon = Daemon::start(&config);
    let file = daemon.beside("ballast.toml");
    let denied = IpAddr::V4(Ipv4Addr::new(127, 4, 0, 1)).to_string();
    let said = ballast(&file, &["explain", &denied, "web"]);
    said.exits_with(1);
    said.shows(&[
        "127.4.0.1 is reset",
        "it is reset: [service.access] does not let it in: deny 127.4.0.0/16",
    ]);
    let said = ballast(&file, &["explain", &denied, "dry"]);
    said.exits_with(0);
    said.shows(&[
        "access would refuse it, and is a dry run: ",
        "deny 127.4.0.0/16",
    ]);
    let said = ballast(&file, &["explain", "127.0.0.1", "web"]);
    said.exits_with(0);
    let said = ballast(&file, &["explain", "web", "127.0.0.1"]);
    said.exits_with(0);
    said.shows(&["web (round-robin): 127.0.0.1 would get a"]);
    ballast(&file, &["explain", "web"]).exits_with(2);
    let held = Held::open(daemon.address("web"));
    let said = eventually("it has to wait", || {
        let said = ballast(&file, &["explain", "127.0.0.1", "web"]);
        (said.code == Some(1)).then_some(said)
    });
    said.shows(&[
        "it waits to be accepted until a session ends",
        "all 1 sessions of max_connections in [service.limits] are in use",
    ]);
    drop(held);
}

#[test]
fn a_reload_by_command_ends_a_rejection() {
    let directory = tempfile::tempdir().unwrap();
    let a = Backend::named("a");
    let service = Service::new("web").quick_health().backend("a", a.address());
    let (config, api) = with_socket(Config::of(service), directory.path());
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "a");
    let file = daemon.beside("ballast.toml");
    daemon.reload_rejected("[[service]]\nname = \"web\"\n");
    // The command needs the file to find the daemon, and that is as before again.
    daemon.write(&config.text());
    let status = ballast(&file, &["status", "--no-rates"]);
    status.exits_with(1);
    status.shows(&["was rejected", "what runs is not what is in it"]);
    let reload = ballast(&file, &["reload", "--yes"]);
    reload.exits_with(0);
    let view: View = api.get("/v1/view").good();
    assert_eq!(view.process.configuration.rejected, None);
    ballast(&file, &["status", "--no-rates"]).exits_with(0);
}

#[test]
fn a_standby_stands_down_by_command() {
    let directory = tempfile::tempdir().unwrap();
    let (mut active, _standby, service) = active_and_standby();
    let config = Config::of(service.key("fail_back", "manual"));
    let (config, _) = with_socket(config, directory.path());
    let daemon = held_back(&config, &mut active);
    let file = daemon.beside("ballast.toml");
    let address = daemon.address("web");
    // Nobody is there who could agree.
    let said = ballast(&file, &["service", "fail-back", "web"]);
    said.exits_with(1);
    assert_eq!(ask_name(address).unwrap(), "standby");
    let said = ballast(&file, &["service", "fail-back", "web", "--yes"]);
    said.exits_with(0);
    daemon.wait_for(0, words::STANDS_DOWN, "priority", "1");
    eventually("the active one serves", || {
        (ask_name(address).unwrap() == "active").then_some(())
    });
    let said = ballast(&file, &["service", "fail-back", "wbe", "--yes"]);
    said.exits_with(3);
    assert!(said.stderr.contains("did you mean `web`?"), "{said:#?}");
}

#[test]
fn a_reload_by_command_fails_back_as_one_by_signal_does() {
    let directory = tempfile::tempdir().unwrap();
    let (mut active, _standby, service) = active_and_standby();
    let config = Config::of(service.key("fail_back", "manual"));
    let (config, _) = with_socket(config, directory.path());
    let daemon = held_back(&config, &mut active);
    let file = daemon.beside("ballast.toml");
    let address = daemon.address("web");
    let plan = ballast(&file, &["plan"]);
    plan.exits_with(2);
    plan.shows(&["A reload would do this", "~ web: fails back"]);
    assert_eq!(ask_name(address).unwrap(), "standby");
    ballast(&file, &["reload", "--yes"]).exits_with(0);
    daemon.wait_for(0, words::STANDS_DOWN, "priority", "1");
    eventually("the active one serves", || {
        (ask_name(address).unwrap() == "active").then_some(())
    });
    let plan = ballast(&file, &["plan"]);
    plan.exits_with(0);
    plan.shows(&["Nothing to do"]);
}

#[test]
fn what_waits_for_a_restart_is_noted_as_long_as_it_does() {
    let directory = tempfile::tempdir().unwrap();
    let a = Backend::named("a");
    let service = Service::new("web").quick_health().backend("a", a.address());
    let (config, _) = with_socket(Config::of(service), directory.path());
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "a");
    let file = daemon.beside("ballast.toml");
    daemon.write(&config.clone().runtime("workers", 1).text());
    let key = "! runtime.workers: takes effect after a restart only";
    let plan = ballast(&file, &["plan"]);
    plan.exits_with(2);
    plan.shows(&["A reload would do this", key]);
    ballast(&file, &["reload", "--yes"]).exits_with(0);
    let status = ballast(&file, &["status", "--no-rates"]);
    status.exits_with(0);
    status.shows(&[
        "All is well",
        "NOTED",
        "waits for a restart: runtime.workers",
    ]);
    // A reload changes nothing of that, and the plan tells what would.
    let plan = ballast(&file, &["plan"]);
    plan.exits_with(0);
    plan.shows(&["Nothing to do but a restart", key]);
    daemon.write(&config.text());
    let plan = ballast(&file, &["plan"]);
    plan.exits_with(2);
    plan.shows(&["no restart is awaited any more"]);
    ballast(&file, &["reload", "--yes"]).exits_with(0);
    let status = ballast(&file, &["status", "--no-rates"]);
    assert!(!status.stdout.contains("restart"), "{status:#?}");
}

#[test]
fn what_an_operator_does_is_told_before_what_comes_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let (_active, _standby, service) = active_and_standby();
    let (config, api) = with_socket(Config::of(service), directory.path());
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "active");
    daemon.wait_until_up(0, "standby");
    let since = event(&api, 0, "ready").id;
    let drain = json!({ "do": "drain", "deadline_seconds": 90.0 });
    let one = "/v1/services/web/backends/active";
    let drained: Changed = api.post(one, &drain).good();
    assert!(
        drained
            .text
            .contains("no session runs there, and the deadline is in 1m30s"),
        "{drained:?}"
    );
    let tier = event(&api, since, "tier");
    assert!(event(&api, since, "changed").id < tier.id, "{tier:?}");
    let file = daemon.beside("ballast.toml");
    let late = (tier.id + 1000).to_string();
    let said = ballast(&file, &["events", "--since", &late]);
    said.exits_with(0);
    assert_eq!(said.stdout, "");
    let expected = format!("no events since number {late}\n");
    assert_eq!(said.stderr, expected);
}

#[test]
fn nothing_is_told_of_a_service_that_there_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let a = Backend::named("a");
    let service = Service::new("web").backend("a", a.address());
    let (config, _) = with_socket(Config::of(service), directory.path());
    let daemon = Daemon::start(&config);
    let file = daemon.beside("ballast.toml");
    for command in ["events", "failovers"] {
        let said = ballast(&file, &[command, "--service", "wbe"]);
        said.exits_with(3);
        assert!(said.stderr.contains("did you mean `web`?"), "{said:#?}");
        ballast(&file, &[command, "--service", "web"]).exits_with(0);
    }
}

#[test]
fn who_does_not_read_its_events_is_told_so_and_let_go() {
    const MANY: u32 = 5000;
    // More than may wait to be sent.
    const CHANGES: usize = 80;
    let directory = tempfile::tempdir().unwrap();
    let a = Backend::named("a");
    // One view is more than all the buffers between the two hold.
    let mut service = Service::new("web").backend("a", a.address());
    let name = |number: u32| format!("a-backend-that-is-not-in-use-{number:04}");
    for number in 0..MANY {
        service = service
            .backend(&name(number), a.address())
            .also_placed("enabled", false);
    }
    // What happens, happens where little has to be laid out anew for it.
    let small = Service::new("small").backend("a", a.address());
    let (config, api) = with_socket(Config::of(service).service(small), directory.path());
    let tcp = SocketAddr::from((fresh_ip(), 7900));
    let both = vec![
        format!("unix:{}", directory.path().join("admin.sock").display()),
        tcp.to_string(),
    ];
    let config = config.admin("listen", toml::Value::from(both));
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, &name(MANY - 1));
    let by_tcp = Api::tcp(tcp);
    let mut stream = with_receive_buffer(4096, by_tcp.address()).unwrap();
    stream
        .write_all(&by_tcp.request("GET", "/v1/events/stream", None))
        .unwrap();
    let mut reader = BufReader::new(stream);
    let (status, _) = read_head(&mut reader).unwrap();
    assert_eq!(status, 200);
    let mut line = String::new();
    while !line.starts_with("event: view") {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "it has ended");
    }
    // Nothing is read from here on.
    for percent in 1..=CHANGES {
        let weight = json!({ "do": "weight", "percent": percent });
        let _: Changed = api.post("/v1/services/small/backends/a", &weight).good();
    }
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    let rest = String::from_utf8(rest).unwrap();
    let (_, last) = rest.rsplit_once("event: ").unwrap();
    assert!(last.starts_with("lagged\n"), "{last}");
    // What it has missed can be asked for.
    let events: Events = api.get("/v1/events").good();
    let changes = events.events.iter().filter(|it| it.kind == "changed");
    assert_eq!(changes.count(), CHANGES);
}

#[test]
fn an_address_does_not_pass_between_the_api_and_a_service_in_one_reload() {
    let directory = tempfile::tempdir().unwrap();
    let a = Backend::named("a");
    let [first, second, elsewhere] =
        [(); 3].map(|()| SocketAddr::from((fresh_ip(), 7900)).to_string());
    let config = |admin: &str, listen: &str| {
        let socket = directory.path().join("admin.sock");
        let both = vec![format!("unix:{}", socket.display()), admin.to_owned()];
        let service = Service::new("web").listen(listen).backend("a", a.address());
        Config::of(service).admin("listen", toml::Value::from(both))
    };
    let daemon = Daemon::start(&config(&first, &second));
    let file = daemon.beside("ballast.toml");
    let swapped = config(&second, &first).text();
    daemon.write(&swapped);
    let plan = ballast(&file, &["plan"]);
    plan.exits_with(1);
    let line = daemon.reload_rejected(&swapped);
    let between = "cannot pass from the admin endpoint to service `web` within one reload";
    for part in [between, "from service `web` to the admin endpoint"] {
        plan.shows(&[part]);
        assert!(line.text("problems").contains(part), "{}", line.raw());
    }
    // In two steps it does.
    daemon.reload(&config(&elsewhere, &second));
    let mark = daemon.log().mark();
    daemon.reload(&config(&elsewhere, &first));
    let moved = daemon.addresses_since(mark, "web");
    assert_eq!(moved.len(), 1);
    assert_eq!(ask_name(moved[0]).unwrap(), "a");
}
