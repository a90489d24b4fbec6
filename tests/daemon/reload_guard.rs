//! A reload that would leave a service without anybody is refused, unless that is meant.

use std::net::SocketAddr;

use crate::support::{
    Backend, BlackHole, Config, Daemon, Service, ask_name, fresh_ip, fresh_listen, words,
};

/// Where nobody answers.
fn nobody() -> SocketAddr {
    SocketAddr::from((fresh_ip(), 9))
}

/// A service `web` at `listener`.
fn web(listener: &str) -> Service {
    Service::new("web").listen(listener)
}

/// A daemon whose backend `a` is known to be up.
fn served(listener: &str, a: &Backend) -> (Config, Daemon) {
    let config = Config::of(web(listener).backend("a", a.address()));
    let daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "a");
    (config, daemon)
}

/// The reload is rejected for these reasons, and `a` goes on.
#[track_caller]
fn refuses(daemon: &Daemon, config: &Config, parts: &[&str]) {
    let mark = daemon.log().mark();
    let rejected = daemon.reload_rejected(&config.text());
    let problems = rejected.text("problems");
    for part in parts {
        assert!(problems.contains(part), "{part:?} is not in {problems}");
    }
    let twice = daemon
        .log()
        .all(mark, |line| line.raw().contains("would have no backend"));
    assert_eq!(twice.len(), 1, "told once");
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "a");
}

#[test]
fn a_file_that_takes_the_last_backend_away_is_refused_until_it_says_that_it_means_it() {
    let (listener, a) = (fresh_listen(), Backend::named("a"));
    let (_, daemon) = served(&listener, &a);
    let dead = nobody();
    let config = Config::of(web(&listener).backend("b", dead));
    let said = format!("b ({dead}): refused");
    let why = "service `web` would have no backend up, and has 1/1 now";
    refuses(&daemon, &config, &[why, &said, "reload_guard = \"warn\""]);

    let mark = daemon.log().mark();
    daemon.reload(&config.clone().runtime("reload_guard", "warn"));
    let warned = |line: &crate::support::Line| line.raw().contains("would have no backend up");
    assert_eq!(daemon.log().all(mark, warned).len(), 1);

    daemon.reload(&Config::of(web(&listener).backend("a", a.address())));
    daemon.wait_until_up(mark, "a");
    let mark = daemon.log().mark();
    daemon.reload(&config.runtime("reload_guard", "off"));
    assert_eq!(daemon.log().all(mark, warned).len(), 0);
}

#[test]
fn one_backend_that_answers_is_enough() {
    let (listener, a, b) = (fresh_listen(), Backend::named("a"), Backend::named("b"));
    let (_, daemon) = served(&listener, &a);
    let config = web(&listener)
        .backend("dead", nobody())
        .backend("b", b.address());
    daemon.reload(&Config::of(config));
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "b");
}

#[test]
fn nobody_is_asked_while_one_that_is_known_stays() {
    let (listener, a) = (fresh_listen(), Backend::named("a"));
    let (_, daemon) = served(&listener, &a);
    let mut silent = BlackHole::new();
    silent.swallow();
    let config = web(&listener)
        .backend("a", a.address())
        .backend("silent", silent.address());
    let reloaded = daemon.reload(&Config::of(
        config.health("timeout", "2s").health("interval", "2s"),
    ));
    // Another timeout or interval is no reason to ask `a` again.
    let took: f64 = reloaded.text("took_ms").parse().unwrap();
    assert!(took < 2000.0, "{}", reloaded.raw());
}

#[test]
fn a_check_that_nobody_passes_is_found_out_before_it_counts() {
    let (listener, a) = (fresh_listen(), Backend::named("a"));
    let (_, daemon) = served(&listener, &a);
    let config = web(&listener).backend("a", a.address());
    let config = Config::of(config.health("kind", "http").health("path", "/alive"));
    refuses(
        &daemon,
        &config,
        &[
            "would have no backend up",
            &format!("a ({}): ", a.address()),
        ],
    );
}

#[test]
fn who_takes_over_a_listener_takes_over_its_clients() {
    let (listener, a) = (fresh_listen(), Backend::named("a"));
    let (_, daemon) = served(&listener, &a);
    let config = Config::of(Service::new("app").listen(&listener).backend("b", nobody()));
    let why = "service `app` would have no backend up, and would take the listener of `web`, which has 1/1";
    refuses(&daemon, &config, &[why]);
}

#[test]
fn to_disable_everybody_has_to_be_meant_too() {
    let (listener, a) = (fresh_listen(), Backend::named("a"));
    let (_, daemon) = served(&listener, &a);
    let config = web(&listener)
        .backend("a", a.address())
        .also_placed("enabled", false);
    refuses(&daemon, &Config::of(config), &["a is disabled"]);
}

#[test]
fn where_nobody_is_served_nothing_can_be_lost() {
    let (listener, a) = (fresh_listen(), Backend::named("a"));
    let (_, daemon) = served(&listener, &a);
    let other = fresh_listen();
    let both = |db: SocketAddr| {
        Config::of(web(&listener).backend("a", a.address()))
            .service(Service::new("db").listen(&other).backend("one", db))
    };
    // New, and down from the start; then down, and down elsewhere.
    let mark = daemon.log().mark();
    daemon.reload(&both(nobody()));
    daemon.wait_until_down(mark, "one");
    daemon.reload(&both(nobody()));
    assert_eq!(
        daemon.log().all(0, |line| line.says(words::REJECTED)).len(),
        0
    );
}
