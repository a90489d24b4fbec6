//! What a plan says is what the reload then does, whatever the file; and nothing changes by asking.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;

use ballast::api::{Events, Plan, Prospect};
use serde_json::json;

use crate::support::{
    Alert, Api, Backend, Config, Daemon, Held, Line, Peer, Service, ask_name, connect_from,
    eventually, fresh_ip, fresh_listen, read_name, words,
};

/// A daemon that is asked through a socket in a directory of its own.
struct Asked {
    daemon: Daemon,
    api: Api,
    directory: tempfile::TempDir,
}

impl Asked {
    fn start(config: impl FnOnce(Config) -> Config) -> (Self, Config) {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("admin.sock");
        let config = config(Config::new().admin("listen", format!("unix:{}", socket.display())));
        let daemon = Daemon::start(&config);
        let api = Api::unix(&socket);
        let asked = Self {
            daemon,
            api,
            directory,
        };
        (asked, config)
    }

    /// The same of one service, whose backend `a` has answered.
    fn of(service: Service) -> (Self, Config) {
        let (asked, config) = Self::start(|config| config.service(service));
        asked.daemon.wait_until_up(0, "a");
        (asked, config)
    }

    /// The plan of the file as it is.
    fn plan(&self) -> Plan {
        self.api.post("/v1/plan", &json!({})).good()
    }

    /// The plan of a text that is not there yet.
    fn plan_of(&self, text: &str) -> Plan {
        let name = self.daemon.beside("ballast.toml").display().to_string();
        let proposal = json!({ "text": text, "name": name });
        self.api.post("/v1/plan", &proposal).good()
    }

    /// Asks for the plan of `text`, first as a proposal and then as the file; reloads; and holds the one
    /// against the other.
    #[track_caller]
    fn agree(&self, what: &str, text: &str, expected: Prospect) {
        let mut plan = self.plan_of(text);
        self.daemon.write(text);
        let mut of_file = self.plan();
        if of_file != plan {
            // The first verdict on a backend may fall between the two, once: then nobody has to ask it.
            (plan, of_file) = (self.plan_of(text), self.plan());
        }
        assert_eq!(of_file, plan, "{what}: the text and the file");
        assert_eq!(plan.outcome, expected, "{what}: {plan:?}");
        let mark = self.daemon.log().mark();
        let line = self.daemon.hang_up();
        let is_rejected = expected == Prospect::Rejected;
        assert_eq!(line.says(words::REJECTED), is_rejected, "{what}");
        if is_rejected {
            assert_eq!(line.text("problems"), plan.problems.join("; "), "{what}");
            return;
        }
        assert_eq!(line.text("plan"), plan.summary, "{what}");
        assert_eq!(line.text("changes"), plan.changes.join(", "), "{what}");
        // The last words of a reload come a moment after its line.
        let restart = "takes effect after a restart only";
        let told = plan.needs_restart.iter().map(|what| {
            self.daemon.wait_for(mark, restart, "what", what);
        });
        assert_eq!(told.count(), plan.needs_restart.len());
        let after = self.plan();
        assert_eq!(
            after.changes,
            Vec::<String>::new(),
            "{what}: all of it is done"
        );
        assert_eq!(
            after.settings,
            Vec::<String>::new(),
            "{what}: all of it is done"
        );
    }

    /// What a command says, and its exit code.
    fn ballast(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let socket = self.directory.path().join("admin.sock");
        let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
            .args(arguments)
            .args(["--admin", &format!("unix:{}", socket.display())])
            .output()
            .unwrap();
        let [said, complaint] =
            [output.stdout, output.stderr].map(|it| String::from_utf8(it).unwrap());
        (output.status.code(), said + &complaint)
    }
}

/// A service with one backend, where a reload finds it again.
fn web(listener: &str, a: &Backend) -> Service {
    let service = Service::new("web").listen(listener);
    service.backend("a", a.address())
}

/// Where nobody answers.
fn nobody() -> SocketAddr {
    SocketAddr::from((fresh_ip(), 9))
}

#[test]
fn the_plan_is_what_the_reload_does_over_thirty_changes_of_a_file() {
    use Prospect::{Changes, Nothing, Rejected};
    let [a, b, c] = ["a", "b", "c"].map(Backend::named);
    let (listener, other, third) = (fresh_listen(), fresh_listen(), fresh_listen());
    let web = || web(&listener, &a);
    let (asked, empty) = Asked::of(web());
    let of = |service: Service| empty_of(&empty).service(service);
    let both = || web().backend("b", b.address());
    let taken = TcpListener::bind((fresh_ip(), 0)).unwrap();
    let taken = taken.local_addr().unwrap();
    let list = asked.daemon.beside("list.toml");
    let line = format!("[[backend]]\nname = \"c\"\naddress = \"{}\"\n", c.address());
    std::fs::write(&list, line).unwrap();
    let alert = |url: &str| Alert::webhook("ops", &["backend-down"], url);

    let steps: Vec<(&str, Config, Prospect)> = vec![
        ("nothing", of(web()), Nothing),
        ("a backend added", of(both()), Changes),
        (
            "a backend renamed",
            of(web().backend("bee", b.address())),
            Changes,
        ),
        (
            "an address changed",
            of(web().backend("bee", c.address())),
            Changes,
        ),
        ("a backend removed", of(web()), Changes),
        (
            "a weight that counts",
            of(both().strategy("weighted")),
            Changes,
        ),
        (
            "a weight changed",
            of(web().strategy("weighted").weighted("b", b.address(), 5)),
            Changes,
        ),
        (
            "another strategy",
            of(both().strategy("source-hash")),
            Changes,
        ),
        (
            "timeouts",
            of(both().strategy("source-hash").timeout("idle", "5m")),
            Changes,
        ),
        (
            "health",
            of(both().health("interval", "3s").health("fall", 5)),
            Changes,
        ),
        (
            "a tier",
            of(web().prioritised("b", b.address(), 1)),
            Changes,
        ),
        (
            "a backend disabled",
            of(both().also_placed("enabled", false)),
            Changes,
        ),
        ("a limit", of(web().capped("b", b.address(), 10)), Changes),
        ("a listener added", of(both().also_listen(&other)), Changes),
        ("a listener moved", of(both().also_listen(&third)), Changes),
        ("a listener removed", of(both()), Changes),
        (
            "an alert",
            of(both()).alert(alert("http://127.0.0.1:9/")),
            Changes,
        ),
        (
            "another alert",
            of(both()).alert(alert("http://127.0.0.1:9/x")),
            Changes,
        ),
        ("no alert", of(both()), Changes),
        (
            "the log",
            of(both()).log("level", "debug").log("sessions", "all"),
            Changes,
        ),
        ("the log again", of(both()), Changes),
        ("names", of(both()).discovery("timeout", "1s"), Changes),
        (
            "limits of all",
            of(both()).runtime("max_connections", 500),
            Changes,
        ),
        ("workers", of(both()).runtime("workers", 3), Changes),
        ("workers as they are", of(both()), Changes),
        (
            "the format of the log",
            of(both()).log("format", "text"),
            Changes,
        ),
        (
            "one more door",
            admin(&empty, &asked).service(both()),
            Changes,
        ),
        ("the door again", of(both()), Changes),
        (
            "a list",
            of(both().key("backends_file", "list.toml")),
            Changes,
        ),
        ("no list", of(both()), Changes),
        (
            "a service that is down",
            of(both()).service(Service::new("db").listen(&other).backend("one", nobody())),
            Changes,
        ),
        (
            "its only backend elsewhere",
            of(both()).service(Service::new("db").listen(&other).backend("one", nobody())),
            Changes,
        ),
        ("no such service", of(both()), Changes),
        (
            "another name",
            of(Service::new("app")
                .listen(&listener)
                .backend("a", a.address())),
            Changes,
        ),
        (
            "all of it",
            of(both()
                .strategy("random")
                .also_listen(&third)
                .timeout("connect", "1s"))
            .service(Service::new("db").listen(&other).backend("c", c.address()))
            .log("sessions", "off"),
            Changes,
        ),
        (
            "a port that is taken",
            of(both().also_listen(taken)),
            Rejected,
        ),
        (
            "nobody is left",
            of(Service::new("web").listen(&listener).backend("z", nobody())),
            Rejected,
        ),
        (
            "a check that nobody passes",
            of(both().health("port", 9)),
            Rejected,
        ),
        ("back", of(web()), Changes),
        (
            "nobody is left, and that is meant",
            of(Service::new("web").listen(&listener).backend("z", nobody()))
                .runtime("reload_guard", "warn"),
            Changes,
        ),
        ("back again", of(web()), Changes),
    ];
    assert!(steps.len() > 40);
    for (what, config, expected) in steps {
        asked.agree(what, &config.text(), expected);
    }
    for (what, text) in [
        ("no TOML", "[[service]\nname = 1"),
        ("an empty file", ""),
        ("an unknown key", &of(web().key("bind", "x")).text()),
        (
            "two problems",
            &of(web().key("retries", 99).key("strategy", "fast")).text(),
        ),
    ] {
        asked.agree(what, text, Rejected);
    }
    asked.agree(
        "comments only",
        &format!("# still\n{}", of(web()).text()),
        // It ends the rejections before it.
        Changes,
    );
    assert_eq!(ask_name(asked.daemon.address("web")).unwrap(), "a");
}

/// `config` without its services.
fn empty_of(config: &Config) -> Config {
    config.clone().without_services()
}

/// A file with a TCP address for the API besides.
fn admin(config: &Config, asked: &Asked) -> Config {
    let socket = format!(
        "unix:{}",
        asked.directory.path().join("admin.sock").display()
    );
    let all = vec![socket, "127.0.0.1:0".to_owned()];
    empty_of(config).admin("listen", toml::Value::from(all))
}

#[test]
fn a_plan_leaves_what_is_at_a_path_alone() {
    let backend = Backend::named("a");
    let service = |name: &str| Service::new(name).backend("a", backend.address());
    let (asked, config) = Asked::start(|config| config.service(service("web")));
    let path = asked.directory.path().join("web.sock");
    // Left behind, and to be taken over by the reload.
    drop(UnixListener::bind(&path).unwrap());
    let listen = format!("unix:{}", path.display());
    let text = config.service(service("at-path").listen(&listen)).text();
    let plan = asked.plan_of(&text);
    assert_eq!(plan.outcome, Prospect::Changes, "{plan:?}");
    assert!(path.exists());
    assert!(UnixStream::connect(&path).is_err());
}

#[test]
fn whom_it_concerns_is_counted_and_who_is_new_is_asked_once() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let meeting = crate::support::Meeting::new();
    let listener = fresh_listen();
    let web = || {
        Service::new("web")
            .listen(&listener)
            .strategy("source-hash")
            .rare_health()
    };
    let (asked, empty) = Asked::start(|config| {
        config.service(web().backend("a", a.address()).backend("b", b.address()))
    });
    for name in ["a", "b"] {
        asked.daemon.wait_until_up(0, name);
    }
    let held: Vec<_> = (0..8)
        .map(|_| Held::open(asked.daemon.address("web")))
        .collect();
    drop(meeting);
    let dead = nobody();
    let config = empty_of(&empty).service(web().backend("a", a.address()).backend("z", dead));
    let accepted = a.accepted();
    let plan = asked.plan_of(&config.text());
    let effect = &plan.effects[0];
    assert_eq!((&*effect.service, &*effect.change), ("web", "changed"));
    assert_eq!((effect.eligible_now, effect.eligible), (Some(2), Some(1)));
    assert_eq!(effect.sessions, 8);
    let moved = effect.clients_moved_percent.unwrap();
    assert!((40.0..60.0).contains(&moved), "{moved}");
    assert_eq!(effect.probes.len(), 1, "{effect:?}");
    assert_eq!(
        (&*effect.probes[0].backend, effect.probes[0].alive),
        ("z", Some(false))
    );
    assert_eq!(effect.probes[0].why.as_deref(), Some("refused"));
    assert_eq!(a.accepted(), accepted, "nobody asks whom it knows");
    for mut session in held {
        session.still_works();
        session.part();
    }
}

#[test]
fn the_command_says_it_in_words_and_by_its_exit_code() {
    let a = Backend::named("a");
    let listener = fresh_listen();
    let web = || web(&listener, &a);
    let (asked, empty) = Asked::of(web());
    let own = asked.daemon.beside("ballast.toml");
    let other = asked.daemon.beside("new.toml");
    let plan = |file: &Path| asked.ballast(&["plan", "-c", file.to_str().unwrap()]);
    let write = |config: &Config| std::fs::write(&other, config.text()).unwrap();
    let (code, said) = plan(&own);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Nothing to do"), "{said}");

    write(
        &empty_of(&empty)
            .service(web().backend("b", nobody()))
            .log("level", "debug"),
    );
    let (code, said) = plan(&other);
    assert_eq!(code, Some(2), "{said}");
    for part in [
        "+ backend web/b",
        "~ service web",
        "~ log.level",
        "does not answer: refused",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    write(&empty_of(&empty).service(web().key("bind", "x")));
    let (code, said) = plan(&other);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("new.toml:"), "{said}");
    let (code, said) = plan(Path::new("/no/such/file"));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot be read"), "{said}");
}

#[test]
fn whose_clients_would_not_be_let_in_again_is_counted_and_nobody_at_all_is_warned_of() {
    let a = Backend::named("a");
    let listener = fresh_listen();
    let web = || web(&listener, &a);
    let (asked, empty) = Asked::of(web());
    let (friend, stranger) = (fresh_ip(), fresh_ip());
    let address = asked.daemon.address("web");
    let sources = [friend, stranger, stranger];
    let mut held = sources.map(|source| {
        let mut client = connect_from(source.into(), address).unwrap();
        read_name(&mut client).unwrap();
        client
    });
    let only = empty_of(&empty).service(web().access("allow", friend.to_string()));
    let plan = asked.plan_of(&only.text());
    assert_eq!(plan.changes, ["~service web (access)"]);
    let effect = &plan.effects[0];
    assert_eq!((effect.sessions, effect.sessions_shut_out), (3, 2));
    assert_eq!(plan.warnings, Vec::<String>::new());

    let all = vec!["0.0.0.0/0", "::/0"];
    let nobody = web().access("deny", all).limits("max_per_source", 9);
    let nobody = empty_of(&empty).service(nobody).text();
    let plan = asked.plan_of(&nobody);
    let file = asked.daemon.beside("ballast.toml");
    asked.daemon.write(&nobody);
    let (_, said) = asked.ballast(&["plan", "-c", file.to_str().unwrap()]);
    for part in [
        "~ service web (access, limits)",
        "nobody may come in at service `web`",
        "clients of 3 of 3 sessions would not be let in again",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let mark = asked.daemon.log().mark();
    let line = asked.daemon.hang_up();
    assert_eq!(line.text("changes"), plan.changes.join(", "));
    assert_eq!(line.text("changes"), "~service web (access, limits)");
    assert_eq!(line.number("shut_out"), 3);
    let warned = |line: &Line| {
        line.has("level", "WARN") && line.raw().contains("nobody may come in at service")
    };
    asked.daemon.log().wait(mark, "a warning", warned);
    eventually("the event says what has changed", || {
        let events: Events = asked.api.get("/v1/events").good();
        let mut events = events.events.into_iter().filter(|it| it.kind == "reloaded");
        events.find(|it| it.text.ends_with(": ~service web (access, limits)"))
    });
    // No session is broken by it.
    for client in &mut held {
        client.put(b"are you there?");
        client.get(b"are you there?");
    }
}

#[test]
fn a_text_that_is_no_file_runs_no_program_and_tells_nothing_of_other_files() {
    let a = Backend::named("a");
    let listener = fresh_listen();
    let web = || web(&listener, &a);
    let (asked, empty) = Asked::of(web());
    let trace = asked.directory.path().join("trace");
    let secret = asked.directory.path().join("secret");
    std::fs::write(&secret, "hush = \"very secret\"\n").unwrap();
    let command: Vec<toml::Value> = ["/usr/bin/touch", trace.to_str().unwrap()]
        .map(toml::Value::from)
        .into();
    let service = web()
        .health("kind", "exec")
        .health("command", command)
        .key("backends_file", secret.to_str().unwrap());
    let text = empty_of(&empty).service(service).text();
    let plan = asked.plan_of(&text);
    assert!(!trace.exists());
    assert_eq!(plan.effects[0].probes[0].alive, None, "{plan:?}");
    assert!(
        plan.warnings.iter().any(|it| it.contains("has ")),
        "{plan:?}"
    );
    assert!(!format!("{plan:?}").contains("hush"), "{plan:?}");
    let text = empty_of(&empty).service(web()).text();
    let access = format!("{text}\n[service.access]\nallow_file = {secret:?}\n");
    let plan = asked.plan_of(&access);
    assert_eq!(plan.outcome, Prospect::Rejected);
    let said = "secret has 1 problems";
    assert!(plan.problems[0].contains(said), "{plan:?}");
    assert!(!format!("{plan:?}").contains("hush"), "{plan:?}");
    let log = asked
        .daemon
        .log()
        .all(0, |line| line.raw().contains("hush"));
    assert!(log.is_empty());
}

#[test]
fn who_may_not_change_anything_gets_no_plan() {
    let a = Backend::named("a");
    let config = Config::of(Service::new("web").backend("a", a.address()));
    let daemon = Daemon::start(&config.admin("listen", "127.0.0.1:0"));
    assert_eq!(daemon.api().post("/v1/plan", &json!({})).status, 403);
}

#[test]
fn a_reload_of_a_file_that_is_not_the_daemons_is_refused() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let listener = fresh_listen();
    let web = || web(&listener, &a);
    let (asked, empty) = Asked::of(web());
    let other = asked.daemon.beside("other.toml");
    let proposed = empty_of(&empty).service(web().backend("b", b.address()));
    std::fs::write(&other, proposed.text()).unwrap();
    let reload =
        |file: &Path| asked.ballast(&["reload", "--yes", "-c", &file.display().to_string()]);
    let own = asked.daemon.beside("ballast.toml");
    let (code, said) = reload(&other);
    assert_eq!(code, Some(2), "{said}");
    for part in [
        format!("the daemon reloads its own file {}", own.display()),
        format!("'ballast plan -c {}'", other.display()),
    ] {
        assert!(said.contains(&part), "{part}\n{said}");
    }
    let (code, said) = reload(&own);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_reload_by_command_tells_first_asks_and_waits_for_what_comes_of_it() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let listener = fresh_listen();
    let web = || web(&listener, &a);
    let (asked, empty) = Asked::of(web());
    let reload = |arguments: &[&str]| asked.ballast(&[&["reload"], arguments].concat());
    let write = |config: Config| asked.daemon.write(&config.text());
    let (code, said) = reload(&["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("Nothing to do"), "{said}");

    let mark = asked.daemon.log().mark();
    write(empty_of(&empty).service(web().backend("b", b.address())));
    let (code, said) = reload(&[]);
    assert_eq!(code, Some(1), "{said}");
    for part in ["+ backend web/b", "no terminal to ask at"] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    // What changes is told key by key, too.
    write(empty_of(&empty).service(web().key("retries", 1).timeout("idle", "9s")));
    let (_, said) = asked.ballast(&["plan"]);
    for part in [
        "~ service web (retries, timeouts)\n",
        "      retries: 2 (default) → 1\n",
        "      timeouts.idle: 1h (default) → 9s\n",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    write(empty_of(&empty).service(web().backend("b", b.address())));
    let outcome =
        |line: &crate::support::Line| line.says(words::RELOADED) || line.says(words::REJECTED);
    assert!(asked.daemon.log().all(mark, outcome).is_empty());

    let (code, said) = reload(&["--yes"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("s: services +0 -0 ~1 =0"), "{said}");
    let line = asked.daemon.log().wait(mark, "the outcome", outcome);
    assert!(said.contains(&line.text("plan")), "{said}");

    write(empty_of(&empty).service(web().key("bind", "x")));
    let (code, said) = reload(&["--yes"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("unknown key `bind`"), "{said}");
    assert!(said.contains("the running configuration stays"), "{said}");
    // It leaves the same trace as by SIGHUP.
    let line = asked
        .daemon
        .wait_for(mark, words::REJECTED, "rejected", "1");
    assert!(
        line.text("problems").contains("unknown key `bind`"),
        "{line:?}"
    );
    let events: Events = asked.api.get("/v1/events").good();
    let told = events.events.iter().find(|it| it.kind == "rejected");
    assert!(
        told.is_some_and(|it| it.text.contains("unknown key `bind`")),
        "{events:?}"
    );
    // Who is asked first is told, and nothing is done.
    let (code, said) = reload(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("A reload would be rejected"), "{said}");
    assert_eq!(
        asked
            .daemon
            .log()
            .all(mark, |it| it.says(words::REJECTED))
            .len(),
        1
    );
}
