//! The admin API: what it tells, who may change what, and that nobody who uses or abuses it harms a
//! session.

use ballast::api::{self, Standing, State, View};

use crate::support::{Api, Backend, Config, Daemon, Launch, Service, Signal, eventually, words};

/// A service of two backends, `a` and `b`, with the API on a free port of loopback.
fn two() -> (Backend, Backend, Config) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let service = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    (a, b, Config::of(service).admin("listen", "127.0.0.1:0"))
}

/// The view, once it is `wanted`.
fn view_when(api: &Api, what: &str, wanted: impl Fn(&View) -> bool) -> View {
    eventually(what, || {
        let view: View = api.get("/v1/view").good();
        wanted(&view).then_some(view)
    })
}

fn backend<'v>(view: &'v View, name: &str) -> &'v api::Backend {
    let all = view.services.iter().flat_map(|it| &it.backends);
    let found = all.into_iter().find(|it| it.name == name);
    found.expect("it is in the view")
}

#[test]
fn a_view_tells_how_everything_stands_over_tcp_and_over_a_socket() {
    let (mut a, _b, config) = two();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let listen = format!("unix:{}", socket.display());
    let listen = toml::Value::from(vec!["127.0.0.1:0".to_owned(), listen]);
    let mut daemon = Daemon::start(&config.admin("listen", listen));
    for api in [daemon.api(), Api::unix(&socket)] {
        let view = view_when(&api, "both are up", |view| {
            view.services[0]
                .backends
                .iter()
                .all(|it| it.state == State::Up)
        });
        assert_eq!(view.process.pid, daemon.pid());
        assert_eq!(view.process.workers.len(), 2);
        assert_eq!(view.process.configuration.generation, 1);
        let web = &view.services[0];
        assert_eq!((web.name.as_str(), web.standing), ("web", Standing::Ok));
        assert_eq!((web.eligible, web.configured, web.min_up), (2, 2, 1));
        assert_eq!(web.listeners[0].address, daemon.address("web").to_string());
        let a = backend(&view, "a");
        assert!(a.serving && a.why.is_none() && a.effective_weight_thousandths == 1000);
        assert!(a.check.as_ref().unwrap().latency_seconds.is_some());
    }
    let api = daemon.api();
    assert_eq!(api.get("/healthz").text(), "ok\n");
    assert_eq!(api.get("/readyz").text(), "ready\n");
    a.refuse();
    daemon.wait_until_down(0, "a");
    let view = view_when(&api, "one is down", |view| view.services[0].eligible == 1);
    let a = backend(&view, "a");
    assert_eq!((a.state, a.serving), (State::Down, false));
    assert!(a.why.as_deref().unwrap().contains("refused"), "{:?}", a.why);
    assert_eq!(view.services[0].standing, Standing::Degraded);
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    assert!(!socket.exists(), "the socket goes with the daemon");
}

#[test]
fn what_is_not_there_is_refused_in_words() {
    let (_a, _b, config) = two();
    let daemon = Daemon::start(&config);
    let api = daemon.api();
    let refused = |method, path| -> (u16, api::Refused) {
        let answer = api.ask(method, path, None).unwrap();
        (answer.status, answer.document())
    };
    assert_eq!(refused("GET", "/nowhere").0, 404);
    let (status, why) = refused("DELETE", "/v1/view");
    assert_eq!(status, 405);
    assert_eq!(why.help.as_deref(), Some("allowed: GET"));
    let head = api.ask("HEAD", "/v1/view", None).unwrap();
    assert_eq!((head.status, head.body.len()), (200, 0));
    // A name that was made to lead here, and the page of another site.
    let rebound = api.clone().with("Host", "evil.example");
    assert_eq!(rebound.get("/v1/view").status, 421);
    let other = api.clone().with("Origin", "https://evil.example");
    assert_eq!(other.get("/v1/view").status, 403);
}

#[test]
fn the_endpoint_follows_a_reload_and_a_stale_socket_does_not_keep_the_next_daemon_out() {
    let (_a, _b, config) = two();
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("admin.sock");
    let on_socket = config
        .clone()
        .admin("listen", format!("unix:{}", socket.display()));
    let daemon = Daemon::start(&config);
    let tcp = daemon.api();
    daemon.reload(&on_socket);
    eventually("it listens there no more", || tcp.connect().err());
    let view: View = Api::unix(&socket).get("/v1/view").good();
    assert_eq!(view.process.configuration.generation, 2);
    // Another daemon must not take it.
    let (status, said) = Launch::new().refuse(&on_socket.text());
    assert!(
        !status.success() && said.contains("another process"),
        "{said}"
    );
    // It is killed with SIGKILL, and leaves the socket behind.
    drop(daemon);
    assert!(socket.exists());
    let daemon = Daemon::start(&on_socket);
    assert_eq!(Api::unix(&socket).get("/healthz").status, 200);
    let mark = daemon.log().mark();
    std::fs::remove_file(&socket).unwrap();
    std::fs::write(&socket, "a file").unwrap();
    daemon.reload(&config);
    assert!(socket.exists(), "what is not ours stays");
    assert_eq!(daemon.api_since(mark).get("/healthz").status, 200);
    let rejected = daemon.reload_rejected(&on_socket.text());
    assert!(
        rejected.text("problems").contains("something else"),
        "{}",
        rejected.raw()
    );
    daemon.log().wait(0, words::ADMIN_LISTENS, |line| {
        line.says(words::ADMIN_LISTENS)
    });
}
