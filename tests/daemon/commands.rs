//! The commands that ask a running daemon and change it: the real binary against the real daemon, under
//! load.

use std::path::PathBuf;

use ballast::api::View;

use crate::support::{
    Api, Backend, Config, Daemon, Held, Said, Service, Storm, ask_name, ballast, connect_unasked,
    eventually, words,
};

/// A daemon whose file names the socket that it answers at.
struct Site {
    daemon: Daemon,
    file: PathBuf,
    config: Config,
    directory: tempfile::TempDir,
}

impl Site {
    fn start(services: impl IntoIterator<Item = Service>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let config = services.into_iter().fold(Config::new(), Config::service);
        let config = config.admin("listen", format!("unix:{}", socket.display()));
        let daemon = Daemon::start(&config);
        Self {
            file: daemon.beside("ballast.toml"),
            daemon,
            config,
            directory,
        }
    }

    fn ballast(&self, arguments: &[&str]) -> Said {
        ballast(&self.file, arguments)
    }

    /// The answer to `status`, once it shows this.
    fn status_shows(&self, arguments: &[&str], part: &str) -> Said {
        let arguments: Vec<&str> = ["status", "--no-rates"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        eventually(&format!("status shows {part:?}"), || {
            let said = self.ballast(&arguments);
            said.stdout.contains(part).then_some(said)
        })
    }
}

/// Two backends of the service `web`.
fn two() -> (Backend, Backend, Service) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    (a, b, service)
}

/// Clients that come one after the other.
fn storm(site: &Site) -> Storm {
    let address = site.daemon.address("web");
    Storm::start(2, move |_| ask_name(address))
}

#[test]
fn status_says_what_is_wrong_first_and_its_exit_code_says_it_too() {
    let (mut a, _b, service) = two();
    let site = Site::start([service]);
    let storm = storm(&site);
    let well = site.status_shows(&[], "All is well: 1 service, 2 of 2 backends serve");
    well.exits_with(0);
    let rates = site.ballast(&["status"]);
    rates.exits_with(0);
    rates.shows(&["NEW/s", "2/2 serve"]);
    storm.pass(20);
    a.refuse();
    site.daemon.wait_until_down(0, "a");
    let wrong = site.status_shows(&[], "\nWRONG\n");
    wrong.exits_with(1);
    wrong.shows(&["  web/a  down for ", "refused", "1/2 serve"]);
    let at = |part: &str| wrong.stdout.find(part);
    assert!(at("WRONG") < at("SERVICE"), "{wrong:#?}");
    let json = site.ballast(&["status", "--json"]);
    json.exits_with(1);
    let view: View = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (view.services[0].eligible, view.process.pid),
        (1, site.daemon.pid())
    );
    let one = site.ballast(&["status", "web", "--json"]);
    let service: ballast::api::Service = serde_json::from_str(&one.stdout).unwrap();
    assert_eq!(service.name, "web");
    site.ballast(&["status", "web", "--no-rates"])
        .shows(&["web listens on 127.", "ADDRESS"]);
    a.answer();
    site.status_shows(&[], "All is well").exits_with(0);
    storm.finish();
}

#[test]
fn a_command_that_has_no_answer_says_what_to_do() {
    let (_a, _b, service) = two();
    let site = Site::start([service]);
    let unknown = site.ballast(&["status", "wbe"]);
    unknown.exits_with(3);
    assert!(
        unknown.stderr.contains("did you mean `web`?"),
        "{unknown:#?}"
    );
    let Site { daemon, file, .. } = site;
    let kept = std::fs::read_to_string(&file).unwrap();
    drop(daemon);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ballast.toml");
    std::fs::write(&file, kept).unwrap();
    let gone = ballast(&file, &["status"]);
    gone.exits_with(3);
    assert!(
        gone.stderr.contains("cannot reach the daemon at unix:"),
        "{gone:#?}"
    );
    assert!(gone.stderr.contains("is it running"), "{gone:#?}");
    std::fs::write(&file, "[[service]]\n").unwrap();
    let nowhere = ballast(&file, &["status"]);
    nowhere.exits_with(3);
    assert!(
        nowhere
            .stderr
            .contains("    [admin]\n    listen = \"127.0.0.1:9900\"\n"),
        "{nowhere:#?}"
    );
}

#[test]
fn who_was_turned_away_and_why_is_in_the_status_and_in_the_log() {
    let (mut a, mut b, service) = two();
    let site = Site::start([service.key("retries", 0)]);
    site.status_shows(&[], "All is well");
    a.refuse();
    b.refuse();
    site.daemon.wait_until_down(0, "a");
    site.daemon.wait_until_down(0, "b");
    let address = site.daemon.address("web");
    // The table that knows why is laid out a moment after the last has gone down.
    eventually("the line says why", || {
        assert!(ask_name(address).is_err());
        let lines = site.daemon.sessions(0);
        lines.iter().any(|it| it.has("why", "2 down")).then_some(())
    });
    let said = site.status_shows(&[], "turned away");
    said.exits_with(1);
    said.shows(&["no backend may serve", words::NO_BACKEND]);
}

#[test]
fn what_min_up_needs_is_told_alike_before_a_drain_by_status_and_by_readyz() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let service = Service::new("web")
        .quick_health()
        .key("min_up", 2)
        .backend("a", a.address())
        .backend("b", b.address())
        .prioritised("c", c.address(), 1);
    let site = Site::start([service]);
    let ready = || {
        let answer = Api::unix(&site.directory.path().join("admin.sock")).get("/readyz");
        (answer.status, answer.text().to_owned())
    };
    let well = "All is well: 1 service, 2 of 3 backends serve, 1 stands by\n";
    site.status_shows(&[], well).shows(&["2/3 serve"]);
    let unasked = site.ballast(&["backend", "drain", "web/a"]);
    let takes_over = "1 backend of web goes on to serve, and 1 standby backend takes over too.";
    assert!(unasked.stderr.contains(takes_over), "{unasked:#?}");
    assert!(!unasked.stderr.contains("not ready"), "{unasked:#?}");
    site.ballast(&["backend", "drain", "web/a", "--yes"])
        .shows(&["2 of 3 backends serve"]);
    let noted = site.status_shows(&[], "the tier of priority 1 took over");
    noted.exits_with(0);
    noted.shows(&["2 of 3 backends serve\n"]);
    assert_eq!(ready().0, 200);
    let warned = site.ballast(&["backend", "drain", "web/b", "--yes"]);
    let short = "1 backend may serve, 2 needed";
    let turns = format!("The balancer turns not ready (/readyz): of web, {short}.");
    assert!(warned.stderr.contains(&turns), "{warned:#?}");
    let wrong = site.status_shows(&[], &format!("not ready: {short}"));
    wrong.exits_with(1);
    assert_eq!(ready(), (503, format!("service web: {short}\n")));
    site.ballast(&["backend", "reset", "web/*", "--yes"])
        .shows(&["2 of 3 backends serve, 1 stands by"]);
    site.status_shows(&[], well).exits_with(0);
    assert_eq!(ready().0, 200);
}

#[test]
fn a_backend_is_drained_weighed_and_brought_back_by_commands_while_clients_come() {
    let (_a, _b, service) = two();
    let site = Site::start([service]);
    let storm = storm(&site);
    let address = site.daemon.address("web");
    site.status_shows(&[], "All is well");
    let unasked = site.ballast(&["backend", "drain", "web/a"]);
    unasked.exits_with(1);
    for part in [
        "web/a gets no new sessions",
        "1 backend of web goes on to serve",
        "Add --yes",
    ] {
        assert!(unasked.stderr.contains(part), "{part}\n{unasked:#?}");
    }
    site.ballast(&["status", "--no-rates"]).exits_with(0);
    let drained = site.ballast(&["backend", "drain", "web/a", "--yes"]);
    drained.exits_with(0);
    assert!(!drained.stdout.is_empty(), "{drained:#?}");
    site.status_shows(&[], "\nNOTED\n")
        .shows(&["drained by an operator", "1/2 serve"]);
    for _ in 0..10 {
        assert_eq!(ask_name(address).unwrap(), "b");
    }
    // It is no business of the file's.
    site.daemon.reload(&site.config);
    site.status_shows(&[], "drained by an operator");
    site.ballast(&["backend", "weight", "web/b", "50%", "--yes"])
        .exits_with(0);
    site.status_shows(&[], "given 50% of its weight by an operator (uid ");
    site.ballast(&["backend", "enable", "web/a", "--yes"])
        .exits_with(0);
    eventually("a serves again", || {
        (ask_name(address).ok()? == "a").then_some(())
    });
    site.ballast(&["backend", "reset", "web/*", "--yes"])
        .exits_with(0);
    site.status_shows(&[], "All is well");
    let typo = site.ballast(&["backend", "drain", "web/aa", "--yes"]);
    typo.exits_with(3);
    assert!(typo.stderr.contains("did you mean `a`?"), "{typo:#?}");
    let tally = storm.finish();
    assert!(tally.failed.is_empty(), "{:?}", tally.failed);
}

#[test]
fn a_lack_is_wrong_and_what_a_rule_does_is_noted() {
    let a = Backend::named("a");
    let narrow = Service::new("web")
        .quick_health()
        .capped("a", a.address(), 1)
        .queue("size", 1)
        .queue("timeout", "60s");
    let shut = Service::new("shut")
        .quick_health()
        .backend("a", a.address())
        .access("deny", vec!["127.0.0.0/8".to_owned()]);
    let site = Site::start([narrow, shut]);
    let _held = Held::open(site.daemon.address("web"));
    let full = site.status_shows(&[], "1/1 full");
    full.exits_with(0);
    full.shows(&["full: it has the 1 session that it may have", " 1/1  "]);
    let _waiting = connect_unasked(site.daemon.address("web")).unwrap();
    let queued = site.status_shows(&[], "1 client waits for a place; the queue (1) is full");
    queued.exits_with(1);
    assert!(ask_name(site.daemon.address("shut")).is_err());
    let kept_out = site.status_shows(&["shut"], "not let in by access so far, the last ");
    kept_out.exits_with(0);
    kept_out.shows(&["All is well", "\nNOTED\n"]);
}

#[test]
fn the_time_before_the_first_verdict_is_nobodys_failure() {
    let (mut a, mut b, service) = two();
    a.refuse();
    b.refuse();
    let site = Site::start([service]);
    let down = site.status_shows(&[], "no backend may serve");
    down.exits_with(1);
    let told = site.ballast(&["status", "--json"]);
    let view: View = serde_json::from_str(&told.stdout).unwrap();
    let record = &view.services[0].record;
    assert_eq!((record.failures, record.up_seconds), (0, 0.0), "{record:?}");
}

#[test]
fn a_weight_that_a_drained_backend_is_given_leaves_it_drained() {
    let (_a, _b, service) = two();
    let site = Site::start([service]);
    site.ballast(&["backend", "drain", "web/a", "--yes"])
        .exits_with(0);
    let weighed = site.ballast(&["backend", "weight", "web/a", "40%", "--yes"]);
    weighed.exits_with(0);
    weighed.shows(&["web/a has 40% of its weight and stays drained"]);
    let wrong = site.ballast(&["backend", "drain", "web/a", "--deadline", "xx", "--yes"]);
    wrong.exits_with(2);
    assert!(
        wrong.stderr.contains("expected a time, such as 30s"),
        "{wrong:#?}"
    );
}

#[test]
fn sessions_are_listed_and_closed() {
    let (_a, _b, service) = two();
    let site = Site::start([service]);
    let address = site.daemon.address("web");
    let mut held: Vec<Held> = (0..4).map(|_| Held::open(address)).collect();
    let listed = site.ballast(&["sessions", "--service", "web"]);
    listed.exits_with(0);
    assert_eq!(listed.stdout.matches(" relay ").count(), 4, "{listed:#?}");
    let json = site.ballast(&["sessions", "--json", "--limit", "3"]);
    assert_eq!(json.stdout.lines().count(), 3, "{json:#?}");
    let closed = site.ballast(&["backend", "close", "web/a", "--yes"]);
    closed.exits_with(0);
    let left = eventually("those of a are closed", || {
        let listed = site.ballast(&["sessions"]);
        (!listed.stdout.contains("web/a ")).then_some(listed)
    });
    assert_eq!(left.stdout.matches("web/b ").count(), 2, "{left:#?}");
    let unknown = site.ballast(&["sessions", "--backend", "nix"]);
    unknown.exits_with(3);
    let told = "there is no backend `nix`; there is: a, b";
    assert!(unknown.stderr.contains(told), "{unknown:#?}");
    held.retain(|it| it.name == "b");
    held.iter_mut().for_each(Held::still_works);
    assert_eq!(held.len(), 2);
}

#[test]
fn what_has_happened_is_told_once_and_what_it_has_cost() {
    let (mut a, _b, service) = two();
    let site = Site::start([service]);
    site.status_shows(&[], "All is well");
    let storm = storm(&site);
    storm.pass(5);
    a.refuse();
    site.daemon.wait_until_down(0, "a");
    let told = eventually("the failover is told", || {
        let told = site.ballast(&["failovers"]);
        told.stdout.contains("web/a").then_some(told)
    });
    told.shows(&["BACKEND", "LOST", "refused"]);
    let events = site.ballast(&["events", "--service", "web"]);
    events.exits_with(0);
    events.shows(&["a "]);
    let first = events.stdout.lines().next().unwrap_or_default().to_owned();
    let id = first.split_whitespace().next().unwrap().to_owned();
    let later = site.ballast(&["events", "--since", &id]);
    assert!(!later.stdout.contains(&first), "{later:#?}");
    let json = site.ballast(&["events", "--json"]);
    for line in json.stdout.lines() {
        let event: ballast::api::Event = serde_json::from_str(line).unwrap();
        assert!(event.id > 0 && !event.text.is_empty(), "{line}");
    }
    storm.finish();
}
