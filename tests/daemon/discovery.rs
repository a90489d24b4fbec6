//! Backends that come and go without a reload: the records of a name, and a file that another program
//! writes. Nobody who connects notices, and nobody who is connected is cut.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use ballast::api::{Departed, Left, View};

use crate::support::{
    Api, Backend, Config, Daemon, Dns, End, Held, Launch, Line, Peer, Service, Storm, Stranger,
    ask_name, eventually, fresh_ip, installed, peak_bytes, words,
};

/// A name has one port, so its servers need it too, each at an address of its own.
const PORT: u16 = 7070;

fn server(name: &str) -> Backend {
    Backend::named_at(SocketAddr::new(fresh_ip().into(), PORT), name)
}

fn ip(backend: &Backend) -> IpAddr {
    backend.address().ip()
}

/// Records of `db.example.test`, which may be believed for no time at all.
fn db(backends: &[&Backend]) -> Vec<String> {
    let record = |it: &&Backend| format!("db 0 A {}", ip(it));
    backends.iter().map(record).collect()
}

fn asking(dns: &Dns, service: Service) -> Config {
    Config::of(service)
        .discovery("resolvers", vec![dns.address().to_string()])
        .discovery("min_ttl", "100ms")
        .discovery("timeout", "500ms")
}

fn web() -> Service {
    Service::new("web")
        .strategy("round-robin")
        .quick_health()
        .placed("db", "address", "db.example.test:7070")
}

/// The table follows the line that tells of it.
fn gets_sessions(storm: &Storm, name: &str, before: u64) {
    eventually("the storm reaches the backend", || {
        (storm.so_far().by(name) > before + 5).then_some(())
    });
}

fn changed(daemon: &Daemon, mark: usize, plan: &str) -> Arc<Line> {
    daemon.wait_for(mark, words::CHANGED, "plan", plan)
}

#[test]
fn records_that_change_under_traffic_cost_no_connection() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let all = ["a", "b", "c", "d"].map(server);
    let [a, b, c, d] = &all;
    let dns = Dns::start(&db(&[a, b]));
    let daemon = Daemon::start(&asking(&dns, web()));
    let address = daemon.address("web");
    let storm = Storm::start(4, move |_| ask_name(address));
    storm.pass(100);
    assert!(storm.so_far().by("a") > 0 && storm.so_far().by("b") > 0);

    for round in 0..5 {
        let rounds: [(&[&Backend], &str, &str); 4] = [
            (&[a, b, c], "+1 -0 ~0 =2", "c"),
            (&[c, d], "+1 -2 ~0 =1", "d"),
            (&[d], "+0 -1 ~0 =1", "d"),
            (&[a, b], "+2 -1 ~0 =0", "a"),
        ];
        for (records, plan, serves) in rounds {
            let mark = daemon.log().mark();
            dns.set(&db(records));
            let line = changed(&daemon, mark, plan);
            let count = records.len();
            assert_eq!(
                line.text("eligible"),
                format!("{count}/{count}"),
                "round {round}"
            );
            let before = storm.so_far().by(serves);
            gets_sessions(&storm, serves, before);
        }
    }
    let tally = storm.finish();
    tally.assert_flawless();
    // The order of the records is no change.
    let mark = daemon.log().mark();
    dns.set(&db(&[b, a]));
    dns.set(&db(&[b, a, c]));
    changed(&daemon, mark, "+1 -0 ~0 =2");
    let lines = daemon.log().all(mark, |line| line.says(words::CHANGED));
    assert_eq!(lines.len(), 1);
}

#[test]
fn a_record_that_leaves_is_drained_and_is_the_same_when_it_returns() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let (a, b) = (server("a"), server("b"));
    let dns = Dns::start(&db(&[&a]));
    let daemon = Daemon::start(&asking(&dns, web()));
    let address = daemon.address("web");
    let mut held = Held::open(address);
    held.still_works();

    let mark = daemon.log().mark();
    dns.set(&db(&[&b]));
    let line = changed(&daemon, mark, "+1 -1 ~0 =0");
    assert_eq!(line.number("sessions_leaving"), 1);
    assert_eq!(
        line.text("changes"),
        format!("+backend web/db@{}, -backend web/db@{}", ip(&b), ip(&a))
    );
    eventually("only b gets new sessions", || {
        (0..5)
            .all(|_| ask_name(address).unwrap() == "b")
            .then_some(())
    });
    held.still_works();

    let mark = daemon.log().mark();
    dns.set(&db(&[&a]));
    changed(&daemon, mark, "+1 -1 ~0 =0");
    held.still_works();
    let name = format!("db@{}", ip(&a));
    let report = report(&daemon, &name);
    assert_eq!(report.number("sessions"), 1);
    assert!(report.number("served") >= 1);
    held.part();
}

fn report(daemon: &Daemon, backend: &str) -> Arc<Line> {
    let mark = daemon.log().mark();
    daemon.signal(crate::support::Signal::USR1);
    daemon.wait_for(mark, words::BACKEND, "backend", backend)
}

#[test]
fn a_name_server_that_fails_changes_nothing() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let (a, b) = (server("a"), server("b"));
    let mut dns = Dns::start(&db(&[&a]));
    let daemon = Daemon::start(&asking(&dns, web()).discovery("hold", "0s"));
    let address = daemon.address("web");
    let mark = daemon.log().mark();
    dns.refuse();
    let line = daemon.wait_for(mark, words::LOOK_UP_FAILS, "name", "db.example.test");
    assert_eq!(line.text("services"), "web");
    assert_eq!(ask_name(address).unwrap(), "a");
    // A reload keeps what was discovered, though nobody answers.
    daemon.hang_up();
    for _ in 0..5 {
        assert_eq!(ask_name(address).unwrap(), "a");
    }
    dns.answer();
    daemon.wait_for(mark, words::LOOK_UP_WORKS, "name", "db.example.test");
    dns.set(&db(&[&b]));
    changed(&daemon, mark, "+1 -1 ~0 =0");
    assert_eq!(
        daemon
            .log()
            .all(mark, |line| line.says(words::CHANGED))
            .len(),
        1
    );
    assert_eq!(
        daemon
            .log()
            .all(mark, |line| line.says(words::LOOK_UP_FAILS))
            .len(),
        1
    );
}

#[test]
fn reloads_between_changes_of_names_and_lists_cost_no_connection() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    let all = ["a", "b", "c", "d"].map(server);
    let [a, b, c, d] = &all;
    fs::write(&path, list(&[("c", c)])).unwrap();
    let dns = Dns::start(&db(&[a]));
    let service = web().key("backends_file", path.to_str().unwrap());
    let variants = [
        asking(&dns, service.clone()),
        asking(&dns, service.strategy("least-connections")),
    ];
    let daemon = Daemon::start(&variants[0]);
    let address = daemon.address("web");
    let storm = Storm::start(4, move |_| ask_name(address));
    for round in 0..60 {
        // Nothing waits for anything: a reload meets changes in each of its steps.
        match round % 4 {
            0 => dns.set(&db(&[b])),
            1 => replace(&path, &list(&[("d", d)])),
            2 => dns.set(&db(&[a, b])),
            _ => rewrite(&path, &list(&[("c", c), ("d", d)])),
        }
        daemon.reload(&variants[round % 2]);
    }
    storm.finish().assert_flawless();
    // What was found last is what serves, whichever of the reloads it met.
    let wanted = ["a", "b", "c", "d"].map(str::to_owned);
    eventually("all four serve", || {
        let mut names: Vec<_> = (0..12).map(|_| ask_name(address).unwrap()).collect();
        names.sort();
        names.dedup();
        (names == wanted).then_some(())
    });
    let rejected = daemon.log().all(0, |line| line.says(words::REJECTED));
    assert!(rejected.is_empty());
}

#[test]
fn an_answer_that_no_datagram_holds_is_taken_whole_and_no_longer_than_the_ceiling() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let a = server("a");
    let many = |count: u8| {
        let others = (1..=count).map(|last| format!("db 86400 A 127.9.9.{last}"));
        others.collect::<Vec<_>>()
    };
    let dns = Dns::start(&[many(199), vec![format!("db 86400 A {}", ip(&a))]].concat());
    let config = asking(&dns, web().blind_health()).discovery("max_ttl", "200ms");
    let daemon = Daemon::start(&config);
    let mark = daemon.log().mark();
    dns.set(&[many(200), db(&[&a])].concat());
    changed(&daemon, mark, "+1 -0 ~0 =200");
}

#[test]
fn an_empty_answer_is_told_and_takes_backends_out_only_after_the_hold() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let a = server("a");
    let dns = Dns::start(&db(&[&a]));
    let config = asking(&dns, web());
    let daemon = Daemon::start(&config.clone().discovery("hold", "1h"));
    let address = daemon.address("web");
    let mark = daemon.log().mark();
    dns.set(&[]);
    let line = daemon.wait_for(mark, words::NO_ADDRESS, "name", "db.example.test");
    assert_eq!(line.text("hold"), "1h");
    assert_eq!(ask_name(address).unwrap(), "a");
    assert!(
        daemon
            .log()
            .all(mark, |line| line.says(words::CHANGED))
            .is_empty()
    );

    // The hold is an hour no more.
    let mark = daemon.log().mark();
    let listen = daemon.address("web");
    let again = web().listen(listen);
    daemon.write(&asking(&dns, again).discovery("hold", "0s").text());
    daemon.hang_up();
    let line = changed(&daemon, mark, "+1 -1 ~0 =0");
    assert_eq!(line.text("eligible"), "0/1");
    eventually("clients are turned away", || ask_name(listen).err());

    let mark = daemon.log().mark();
    dns.set(&db(&[&a]));
    let line = changed(&daemon, mark, "+1 -1 ~0 =0");
    assert_eq!(line.text("eligible"), "1/1");
    eventually("clients are served", || ask_name(listen).ok());
}

#[test]
fn a_name_that_appears_after_the_start_serves() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let a = server("a");
    let dns = Dns::start(&[]);
    let daemon = Daemon::start(&asking(&dns, web()));
    let mark = daemon.log().mark();
    dns.set(&db(&[&a]));
    let line = changed(&daemon, mark, "+1 -1 ~0 =0");
    assert_eq!(line.text("eligible"), "1/1");
    let address = daemon.address("web");
    eventually("clients are served", || ask_name(address).ok());
}

#[test]
fn srv_records_say_ports_weights_and_who_stands_in() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let [heavy, light, mut standby] = ["heavy", "light", "standby"].map(Backend::named);
    let srv = |priority: u16, weight: u16, backend: &Backend, target: &str| {
        let port = backend.address().port();
        format!("_web._tcp 0 SRV {priority} {weight} {port} {target}.example.test.")
    };
    let host = |name: &str, backend: &Backend| format!("{name} 0 A {}", ip(backend));
    let hosts = [
        host("heavy", &heavy),
        host("light", &light),
        host("standby", &standby),
    ];
    let with = |records: &[String]| [records, &hosts].concat();
    let dns = Dns::start(&with(&[
        srv(10, 3, &heavy, "heavy"),
        srv(10, 1, &light, "light"),
        srv(20, 1, &standby, "standby"),
    ]));
    let service = Service::new("web")
        .strategy("weighted")
        .quick_health()
        .placed("db", "srv", "_web._tcp.example.test");
    let daemon = Daemon::start(&asking(&dns, service));
    let address = daemon.address("web");
    let serving = |count: usize| {
        let mut names: Vec<_> = (0..count).map(|_| ask_name(address).unwrap()).collect();
        names.sort();
        names.dedup_by_key(|name| name.clone());
        names
    };
    let mut names: Vec<_> = (0..40).map(|_| ask_name(address).unwrap()).collect();
    names.sort();
    let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
    assert_eq!(count("heavy"), 3 * count("light"), "{names:?}");

    // The weights turn round.
    let mark = daemon.log().mark();
    dns.set(&with(&[
        srv(10, 1, &heavy, "heavy"),
        srv(10, 3, &light, "light"),
        srv(20, 1, &standby, "standby"),
    ]));
    changed(&daemon, mark, "+0 -0 ~2 =1");
    eventually("the shares turn round", || {
        let names: Vec<_> = (0..8).map(|_| ask_name(address).unwrap()).collect();
        let count = |wanted: &str| names.iter().filter(|name| *name == wanted).count();
        (count("light") > 2 * count("heavy")).then_some(())
    });
    // The first two leave: who stood in serves.
    let mark = daemon.log().mark();
    dns.set(&with(&[srv(20, 1, &standby, "standby")]));
    changed(&daemon, mark, "+0 -2 ~0 =1");
    eventually("the standby serves alone", || {
        (serving(6) == ["standby"]).then_some(())
    });
    standby.refuse();
}

#[test]
fn of_too_many_targets_those_are_taken_that_are_to_be_used_first() {
    const MOST: usize = 256;
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let first = Backend::named("first");
    let port = first.address().port();
    // By name the first of all would be the last.
    let zone = |standbys: usize| {
        let mut zone = vec![
            format!("_web._tcp 1 SRV 0 1 {port} z.example.test."),
            format!("z 1 A {}", ip(&first)),
        ];
        for n in 0..standbys {
            zone.push(format!("_web._tcp 1 SRV 1 1 {port} s{n:03}.example.test."));
            zone.push(format!("s{n:03} 1 A 127.9.{}.{}", n / 200, n % 200 + 1));
        }
        zone
    };
    let dns = Dns::start(&zone(1));
    let service = Service::new("web")
        .blind_health()
        .placed("db", "srv", "_web._tcp.example.test")
        .also_placed("family", "ipv4");
    let config = Config::of(service)
        .discovery("resolvers", vec![dns.address().to_string()])
        .discovery("min_ttl", "1s");
    let daemon = Daemon::start(&config);
    let mark = daemon.log().mark();
    dns.set(&zone(MOST + 43));
    let line = daemon.log().wait(mark, words::TOO_MANY_ADDRESSES, |line| {
        line.says(words::TOO_MANY_ADDRESSES)
    });
    assert_eq!(line.number("left_out"), 44);
    // The first, and all the others that there is room for.
    changed(&daemon, mark, &format!("+{} -0 ~0 =2", MOST - 2));
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "first");
}

#[test]
fn both_families_count_unless_one_is_asked_for() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let a = server("a");
    let dns = Dns::start(&[db(&[&a]), vec!["db 0 AAAA ::1".to_owned()]].concat());
    let _v6 = Backend::named_at("[::1]:7070".parse().unwrap(), "v6");
    let daemon = Daemon::start(&asking(&dns, web()).log_every_session());
    let names = [format!("db@{}", ip(&a)), "db@::1".to_owned()];
    for name in &names {
        assert_eq!(report(&daemon, name).text("enabled"), "true");
    }
    let only = Service::new("web")
        .quick_health()
        .placed("db", "address", "db.example.test:7070")
        .also_placed("family", "ipv4");
    daemon.reload(&asking(&dns, only));
    let mark = daemon.log().mark();
    let name = report(&daemon, &names[0]);
    assert_eq!(name.text("address"), a.address().to_string());
    let v6 = daemon.log().all(mark, |line| {
        line.says(words::BACKEND) && line.has("backend", "db@::1")
    });
    assert!(v6.is_empty());
}

#[test]
fn a_name_that_leads_back_to_its_own_service_gets_no_sessions() {
    if !installed(&["knotd", "knotc"]) {
        return;
    }
    let a = server("a");
    let dns = Dns::start(&db(&[&a]));
    let here = SocketAddr::new(fresh_ip().into(), PORT);
    let daemon = Daemon::start(&asking(&dns, web().listen(here)));
    let mark = daemon.log().mark();
    let circle = format!("db 0 A {}", here.ip());
    dns.set(&[db(&[&a]), vec![circle]].concat());
    let name = format!("db@{}", here.ip());
    daemon.wait_for(mark, words::CIRCLE, "backend", &name);
    let line = changed(&daemon, mark, "+1 -0 ~0 =1");
    assert_eq!(line.text("eligible"), "1/2");
    for _ in 0..6 {
        assert_eq!(ask_name(here).unwrap(), "a");
    }
    assert_eq!(report(&daemon, &name).text("enabled"), "false");
}

/// Like a program that takes care.
fn replace(path: &Path, text: &str) {
    let draft = path.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, path).unwrap();
}

/// Like one that does not: the file is empty for a moment, and then half of it is there.
fn rewrite(path: &Path, text: &str) {
    fs::write(path, "").unwrap();
    let (first, second) = text.split_at(text.len() / 2);
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    use std::io::Write;
    file.write_all(first.as_bytes()).unwrap();
    file.sync_all().unwrap();
    file.write_all(second.as_bytes()).unwrap();
}

/// A name and who is there.
type Entry<'a> = (&'a str, &'a Backend);

fn list(backends: &[Entry<'_>]) -> String {
    let one = |(name, backend): &Entry<'_>| {
        let address = backend.address();
        format!("[[backend]]\nname = \"{name}\"\naddress = \"{address}\"\n")
    };
    match backends.is_empty() {
        true => "backend = []\n".to_owned(),
        false => backends.iter().map(one).collect(),
    }
}

fn listing(path: &Path) -> Service {
    Service::new("web")
        .strategy("round-robin")
        .quick_health()
        .key("backends_file", path.to_str().unwrap())
}

#[test]
fn a_list_that_another_program_writes_changes_under_traffic_without_a_failure() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    let all = ["a", "b", "c"].map(Backend::named);
    let [a, b, c] = &all;
    fs::write(&path, list(&[("a", a)])).unwrap();
    let daemon = Daemon::start(&Config::of(listing(&path)));
    let address = daemon.address("web");
    let storm = Storm::start(4, move |_| ask_name(address));
    let mut held = Held::open(address);
    storm.pass(50);
    for round in 0..10 {
        let write = if round % 2 == 0 { replace } else { rewrite };
        let rounds: [(&[Entry<'_>], &str, &str); 4] = [
            (&[("a", a), ("b", b)], "+1 -0 ~0 =1", "b"),
            (&[("c", c)], "+1 -2 ~0 =0", "c"),
            (&[("c", b)], "+0 -0 ~1 =0", "b"),
            (&[("a", a)], "+1 -1 ~0 =0", "a"),
        ];
        for (backends, plan, serves) in rounds {
            let mark = daemon.log().mark();
            write(&path, &list(backends));
            let line = changed(&daemon, mark, plan);
            let count = backends.len();
            assert_eq!(line.text("eligible"), format!("{count}/{count}"));
            let before = storm.so_far().by(serves);
            gets_sessions(&storm, serves, before);
        }
    }
    storm.finish().assert_flawless();
    held.still_works();
    held.part();
}

#[test]
fn rubbish_in_a_list_is_rejected_with_its_place_and_the_last_list_stays() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    fs::write(&path, list(&[("a", &a)])).unwrap();
    let daemon = Daemon::start(&Config::of(listing(&path)).admin("listen", "127.0.0.1:0"));
    let address = daemon.address("web");
    let api = daemon.api();
    let file = || {
        let view: View = api.get("/v1/view").good();
        view.services[0].backends_file.clone().unwrap()
    };
    let rejected = || file().rejected.unwrap();
    assert_eq!((file().backends, file().rejected), (1, None));
    let wrong = [
        (
            "[[backend]]\nadress = \"127.0.0.1:1\"\n",
            "web.toml:2:1: unknown key `adress`",
        ),
        ("[[backend]]\naddress = \"127.0.0.1\"\n", "web.toml:2:11: "),
        ("[[backend]]\naddress = \"127.0.", "web.toml:2:"),
        ("", "web.toml: the list is empty"),
    ];
    for (text, why) in wrong {
        let mark = daemon.log().mark();
        replace(&path, text);
        let line = daemon.wait_for(mark, words::LIST_REJECTED, "service", "web");
        let problems = line.text("problems");
        assert!(problems.contains(why), "{problems}");
        assert_eq!(ask_name(address).unwrap(), "a");
    }
    let before = rejected();
    let mark = daemon.log().mark();
    fs::remove_file(&path).unwrap();
    let line = daemon.wait_for(mark, words::LIST_REJECTED, "service", "web");
    assert!(line.text("problems").contains("no such file"));
    let first = eventually("status to tell that it is gone", || {
        let now = rejected();
        now.problems[0].contains("no such file").then_some(now)
    });
    assert!(file().missing);
    assert!(first.at > before.at, "{before:?} {first:?}");
    // A reload keeps it too, though there is nothing to read, and it is no news.
    daemon.hang_up();
    assert_eq!(ask_name(address).unwrap(), "a");
    assert_eq!((rejected(), file().backends), (first, 1));
    assert_eq!(api.get("/readyz").status, 200);
    let mark = daemon.log().mark();
    fs::write(&path, list(&[("b", &b)])).unwrap();
    changed(&daemon, mark, "+1 -1 ~0 =0");
    eventually("status to tell of it no more", || {
        file().rejected.is_none().then_some(())
    });
    assert!(!file().missing);
    // None at all is possible, where it is meant.
    let mark = daemon.log().mark();
    fs::write(&path, list(&[])).unwrap();
    let line = changed(&daemon, mark, "+0 -1 ~0 =0");
    assert_eq!(line.text("eligible"), "0/0");
}

#[test]
fn sessions_of_backends_and_services_that_have_left_are_counted_still() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    fs::write(&path, list(&[("a", &a)])).unwrap();
    let of = |service| Config::of(service).admin("listen", "127.0.0.1:0");
    let daemon = Daemon::start(&of(listing(&path)));
    let api = daemon.api();
    let one = Left {
        backends: 1,
        sessions: 1,
        named: Vec::new(),
    };
    let named = Left {
        named: vec![Departed {
            name: "a".to_owned(),
            sessions: 1,
        }],
        ..one.clone()
    };
    // By services together, by each, and of the daemon.
    let counted = |what: &str, wanted: (u64, Left, Left)| {
        eventually(what, || {
            let View {
                process, services, ..
            } = api.get("/v1/view").good();
            let [service] = services.try_into().unwrap();
            let (sessions, left) = (service.traffic.sessions, service.left);
            let of_backends = service.backends.iter().map(|it| it.traffic.sessions);
            assert_eq!(of_backends.sum::<u64>() + left.sessions, sessions);
            ((process.sessions, left, process.left) == wanted).then_some(())
        });
    };
    let mut held = Held::open(daemon.address("web"));
    counted("it is at a", (1, Left::default(), Left::default()));
    let mark = daemon.log().mark();
    replace(&path, &list(&[("b", &b)]));
    changed(&daemon, mark, "+1 -1 ~0 =0");
    counted("its backend has left", (1, named.clone(), Left::default()));
    daemon.reload(&of(Service::new("other").backend("c", c.address())));
    counted("its service has left", (1, Left::default(), one));
    held.still_works();
    held.part();
    counted("it is over", (0, Left::default(), Left::default()));
}

#[test]
fn sessions_of_a_backend_that_has_left_are_closed_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let [a, b] = ["a", "b"].map(Backend::named);
    let of = |backends: &[(&str, &Backend)]| {
        let service = backends.iter().fold(Service::new("web"), |it, (name, of)| {
            it.backend(name, of.address())
        });
        Config::of(service).admin("listen", format!("unix:{}", socket.display()))
    };
    let daemon = Daemon::start(&of(&[("a", &a)]));
    let mut held = Held::open(daemon.address("web"));
    daemon.reload(&of(&[("b", &b)]));
    let api = Api::unix(&socket);
    let close = serde_json::json!({ "do": "close-sessions" });
    let drain = serde_json::json!({ "do": "drain" });
    let at = "/v1/services/web/backends/a";
    assert_eq!(api.post(at, &drain).status, 404, "it is given none anyway");
    assert_eq!(api.post(at, &close).status, 200);
    assert_eq!(held.stream.end(), End::Reset);
}

#[test]
fn a_list_that_may_be_read_no_longer_is_told_and_the_last_one_stays() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .key("backends_file", "lists/web.toml")
        .quick_health();
    let mut config = Config::of(service);
    // Root may read everything.
    let user = Stranger::new();
    if let Some(user) = &user {
        let id = user.id().to_string();
        config = config.runtime("user", id.clone()).runtime("group", id);
    }
    let daemon = Launch::new().reachable().start(&config);
    let address = daemon.address("web");
    let path = daemon.beside("lists/web.toml");
    let allow = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    let mark = daemon.log().mark();
    fs::create_dir(daemon.beside("lists")).unwrap();
    replace(&path, &list(&[("a", &a)]));
    changed(&daemon, mark, "+1 -0 ~0 =0");

    let mark = daemon.log().mark();
    allow(0);
    let line = daemon.wait_for(mark, words::LIST_REJECTED, "service", "web");
    let problems = line.text("problems");
    assert!(problems.contains("permission denied"), "{problems}");
    assert_eq!(ask_name(address).unwrap(), "a");
    daemon.hang_up();
    assert_eq!(ask_name(address).unwrap(), "a");
    // What is written meanwhile is read once it may be.
    let mark = daemon.log().mark();
    if user.is_some() {
        rewrite(&path, &list(&[("b", &b)]));
        allow(0o644);
        changed(&daemon, mark, "+1 -1 ~0 =0");
    }
}

#[test]
fn a_list_that_is_too_large_or_wrong_all_over_costs_little() {
    // As large as a list may be, it is eight times this, and costs eight times as much.
    const SIZE: usize = 512 << 10;
    const MOST_MEMORY: u64 = 48 << 20;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("web.toml");
    let a = Backend::named("a");
    fs::write(&path, list(&[("a", &a)])).unwrap();
    let daemon = Daemon::start(&Config::of(listing(&path)));
    let before = peak_bytes(daemon.pid());
    let endless = |path: &Path| {
        let file = fs::File::create(path).unwrap();
        file.set_len(1 << 40).unwrap();
    };
    let wrong_all_over = |path: &Path| {
        fs::write(path, "[[backend]]\n".repeat(SIZE / 12)).unwrap();
    };
    type Writer = fn(&Path);
    let lists: [(Writer, &str); 2] = [
        (endless, "larger than 4 MiB"),
        (wrong_all_over, "this backend has no address"),
    ];
    for (write, why) in lists {
        let mark = daemon.log().mark();
        let draft = path.with_extension("draft");
        write(&draft);
        fs::rename(&draft, &path).unwrap();
        let line = daemon.wait_for(mark, words::LIST_REJECTED, "service", "web");
        assert!(line.text("problems").contains(why), "{}", line.raw());
        assert!(line.raw().len() < 64 * 1024, "{} bytes", line.raw().len());
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "a");
        let more = peak_bytes(daemon.pid()) - before;
        println!("{why}: {} MiB more at most", more >> 20);
        assert!(more < MOST_MEMORY, "{} MiB", more >> 20);
    }
}

#[test]
fn a_list_beside_the_configuration_may_come_after_the_start() {
    let (fixed, a) = (Backend::named("fixed"), Backend::named("a"));
    let service = Service::new("web")
        .key("backends_file", "lists/web.toml")
        .quick_health()
        .backend("fixed", fixed.address());
    let daemon = Launch::new().start(&Config::of(service));
    let address = daemon.address("web");
    assert_eq!(ask_name(address).unwrap(), "fixed");
    let rejected = daemon.log().all(0, |line| line.says(words::LIST_REJECTED));
    assert!(rejected[0].text("problems").contains("no such file"));
    let mark = daemon.log().mark();
    fs::create_dir(daemon.beside("lists")).unwrap();
    replace(&daemon.beside("lists/web.toml"), &list(&[("a", &a)]));
    let line = changed(&daemon, mark, "+1 -0 ~0 =1");
    assert_eq!(line.text("eligible"), "2/2");
    // What the list says is not forgotten by a reload, nor told as a change.
    let mark = daemon.log().mark();
    daemon.hang_up();
    let names: Vec<_> = (0..4).map(|_| ask_name(address).unwrap()).collect();
    assert_eq!(
        names.iter().filter(|name| *name == "a").count(),
        2,
        "{names:?}"
    );
    assert!(
        daemon
            .log()
            .all(mark, |line| line.says(words::CHANGED))
            .is_empty()
    );
}

#[test]
fn a_link_on_the_way_to_a_list_may_be_exchanged() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    // As Kubernetes mounts a ConfigMap.
    let version = |name: &str, backend: &Backend| {
        let version = directory.path().join(name);
        fs::create_dir(&version).unwrap();
        fs::write(version.join("web.toml"), list(&[(name, backend)])).unwrap();
        let link = directory.path().join("..link");
        std::os::unix::fs::symlink(name, &link).unwrap();
        fs::rename(link, directory.path().join("..data")).unwrap();
    };
    version("a", &a);
    let path = directory.path().join("web.toml");
    std::os::unix::fs::symlink("..data/web.toml", &path).unwrap();
    let daemon = Daemon::start(&Config::of(listing(&path)));
    let mark = daemon.log().mark();
    version("b", &b);
    changed(&daemon, mark, "+1 -1 ~0 =0");
    let address = daemon.address("web");
    eventually("b serves", || {
        (ask_name(address).unwrap() == "b").then_some(())
    });
}
