//! The daemon says which backend a client gets and why not the others, and it is what then happens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use ballast::api::{self, Explained, Explanation};

use crate::support::{
    Backend, Config, Daemon, Launch, Meeting, Service, active_and_standby, connect_from,
    eventually, fresh_ip, held_back, read_name, words,
};

fn start(service: Service) -> Daemon {
    Daemon::start(&Config::of(service).admin("listen", "127.0.0.1:0"))
}

/// What becomes of `client`.
fn explain(daemon: &Daemon, client: IpAddr) -> Explained {
    let path = format!("/v1/explain?client={client}&service=web");
    let explanation: Explanation = daemon.api().get(&path).good();
    assert_eq!(explanation.client, client.to_string());
    explanation.services.into_iter().next().unwrap()
}

fn why<'e>(explained: &'e Explained, backend: &str) -> &'e str {
    let found = explained.backends.iter().find(|it| it.backend == backend);
    &found.unwrap().why
}

/// Who serves a connection from `client`.
fn served_by(daemon: &Daemon, client: IpAddr) -> String {
    read_name(&mut connect_from(client, daemon.address("web")).unwrap()).unwrap()
}

#[test]
fn with_source_hash_it_is_what_happens() {
    let all = ["a", "b", "c"].map(Backend::named);
    let service = all.iter().zip(["a", "b", "c"]).fold(
        Service::new("web").strategy("source-hash"),
        |service, (backend, name)| service.backend(name, backend.address()),
    );
    let daemon = start(service);
    for number in 1..=40 {
        let client = IpAddr::V4(Ipv4Addr::new(127, 3, 2, number));
        let explained = explain(&daemon, client);
        assert!(explained.always);
        assert_eq!(explained.backend, Some(served_by(&daemon, client)));
        let backend = explained.backend.unwrap();
        for chance in &explained.backends {
            let percent = if chance.backend == backend {
                100.0
            } else {
                0.0
            };
            assert_eq!(chance.percent, percent);
        }
    }
}

#[test]
fn why_not_each_other_one_is_told() {
    let [mut a, b, c, d] = ["a", "b", "c", "d"].map(Backend::named);
    let standby = Backend::named("standby");
    let service = Service::new("web")
        .strategy("source-hash")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address())
        .backend("c", c.address())
        .also_placed("enabled", false)
        .placed("nowhere", "address", "no-such-name.invalid:80")
        .prioritised("standby", standby.address(), 1)
        .capped("d", d.address(), 1);
    let daemon = start(service);
    a.refuse();
    daemon.wait_until_down(0, "a");
    let client = IpAddr::V4(Ipv4Addr::new(127, 3, 3, 1));
    let explained = explain(&daemon, client);
    assert!(
        why(&explained, "a").contains("its checks fail: refused, since 20"),
        "{explained:?}"
    );
    assert_eq!(why(&explained, "c"), "disabled in the file");
    assert_eq!(why(&explained, "nowhere"), "its name has no address");
    assert!(
        why(&explained, "standby").starts_with("tier 1 stands by"),
        "{explained:?}"
    );
    let homes = [
        "the home of this address",
        "serves, and is the home of other addresses",
    ];
    for up in ["b", "d"] {
        assert!(homes.contains(&why(&explained, up)), "{explained:?}");
    }
}

#[test]
fn a_full_home_is_passed_over_and_that_is_said() {
    let [a, b] = [Meeting::new(), Meeting::new()];
    let service = Service::new("web")
        .strategy("source-hash")
        .rare_health()
        .capped("a", a.address(), 1)
        .capped("b", b.address(), 1);
    let daemon = start(service);
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let home = explain(&daemon, client).backend.unwrap();
    let meeting = if home == "a" { &a } else { &b };
    let (one, other) = (
        if home == "a" { "a" } else { "b" },
        if home == "a" { "b" } else { "a" },
    );
    let _session = meeting.session(daemon.address("web"));
    let explained = explain(&daemon, client);
    assert_eq!(explained.backend.as_deref(), Some(other));
    assert!(
        explained.why.contains(&format!("its home {one} is full")),
        "{explained:?}"
    );
    assert!(
        why(&explained, one).contains("the home of this address, which has no room"),
        "{explained:?}"
    );
}

#[test]
fn where_turns_decide_the_next_one_and_the_shares_are_told() {
    let [a, b] = ["a", "b"].map(Backend::named);
    let service = Service::new("web")
        .strategy("weighted")
        .weighted("a", a.address(), 3)
        .weighted("b", b.address(), 1);
    let daemon = start(service);
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for _ in 0..8 {
        let explained = explain(&daemon, client);
        assert!(!explained.always);
        let shares: Vec<_> = explained.backends.iter().map(|it| it.percent).collect();
        assert_eq!(shares, [75.0, 25.0]);
        assert_eq!(explained.backend, Some(served_by(&daemon, client)));
    }
}

#[test]
fn who_may_not_come_in_gets_nobody() {
    let a = Backend::named("a");
    let service = Service::new("web").backend("a", a.address());
    let config = Config::of(service).admin("listen", "127.0.0.1:0");
    let text = format!(
        "{}\n[service.access]\ndeny = [\"127.4.0.0/16\"]\n",
        config.text()
    );
    let daemon = Launch::new().start_text(&text);
    let explained = explain(&daemon, IpAddr::V4(Ipv4Addr::new(127, 4, 0, 1)));
    assert_eq!(explained.backend, None);
    assert!(explained.why.contains("[service.access]"), "{explained:?}");
    let explained = explain(&daemon, IpAddr::V4(Ipv4Addr::new(127, 5, 0, 1)));
    assert_eq!(explained.backend.as_deref(), Some("a"));
}

#[test]
fn who_has_all_that_its_source_may_have_is_reset_before_the_queue_is_asked() {
    let meeting = Meeting::new();
    let service = Service::new("web")
        .rare_health()
        .limits("max_per_source", 2)
        .queue("size", 0)
        .capped("a", meeting.address(), 2);
    let daemon = start(service);
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let first = meeting.session(daemon.address("web"));
    let explained = explain(&daemon, client);
    assert_eq!(explained.backend.as_deref(), Some("a"));
    let note = "it holds 1 of 2 (max_per_source)";
    assert!(explained.notes.iter().any(|it| it == note), "{explained:?}");
    let second = meeting.session(daemon.address("web"));
    let explained = explain(&daemon, client);
    assert_eq!(explained.backend, None);
    assert_eq!(explained.refused_by.as_deref(), Some("max_per_source"));
    assert_eq!(
        explained.why,
        "it is reset: it holds 2 of 2 (max_per_source)"
    );
    let other = explain(&daemon, IpAddr::V4(Ipv4Addr::new(127, 9, 0, 1)));
    assert_eq!(other.refused_by, None);
    assert!(other.why.contains("queue full"), "{other:?}");
    drop((first, second));
    eventually("it may come again", || {
        explain(&daemon, client).backend.filter(|it| it == "a")
    });
}

#[test]
fn who_has_used_its_rate_up_is_told_until_when_and_asking_costs_nothing() {
    let a = Backend::named("a");
    let service = Service::new("web")
        .limits("rate_per_source", "2/h")
        .backend("a", a.address());
    let dry = Service::new("dry")
        .limits("rate_per_source", "1/h")
        .limits("max_per_source", 1)
        .limits("dry_run", true)
        .backend("a", a.address());
    let daemon = Daemon::start(
        &Config::of(service)
            .service(dry)
            .admin("listen", "127.0.0.1:0"),
    );
    let client = IpAddr::V4(Ipv4Addr::new(127, 3, 4, 1));
    for _ in 0..2 {
        for _ in 0..3 {
            assert_eq!(explain(&daemon, client).backend.as_deref(), Some("a"));
        }
        assert_eq!(served_by(&daemon, client), "a");
    }
    let explained = explain(&daemon, client);
    assert_eq!(explained.refused_by.as_deref(), Some("rate_per_source"));
    assert!(
        explained
            .why
            .starts_with("it is reset: its rate is used up for 1")
            && explained.why.contains(" s, until 20")
            && explained.why.ends_with("Z (rate_per_source 2/h)"),
        "{explained:?}"
    );
    let mut held = connect_from(client, daemon.address("dry")).unwrap();
    assert_eq!(read_name(&mut held).unwrap(), "a");
    let path = format!("/v1/explain?client={client}&service=dry");
    let explanation: Explanation = daemon.api().get(&path).good();
    let explained = &explanation.services[0];
    assert_eq!(explained.refused_by, None);
    assert_eq!(explained.backend.as_deref(), Some("a"));
    let notes = explained.notes.join("\n");
    assert!(
        notes.contains("rate_per_source would refuse it, and is a dry run"),
        "{notes}"
    );
    assert!(!notes.contains("may refuse"), "{notes}");
}

#[test]
fn who_is_no_proxy_where_only_proxies_may_connect_is_reset() {
    let a = Backend::named("a");
    let service = Service::new("web")
        .proxy_protocol("accept_from", "127.7.0.0/16")
        .access("deny", "127.8.0.0/16")
        .backend("a", a.address());
    let daemon = start(service);
    let explained = explain(&daemon, IpAddr::V4(Ipv4Addr::new(127, 6, 0, 1)));
    assert_eq!(explained.backend, None);
    assert_eq!(explained.refused_by.as_deref(), Some("accept_from"));
    let only = "it is reset: only proxies of accept_from may connect; for a client behind one, it";
    assert_eq!(explained.why, format!("{only} would get a"));
    let explained = explain(&daemon, IpAddr::V4(Ipv4Addr::new(127, 8, 0, 1)));
    assert_eq!(explained.refused_by.as_deref(), Some("accept_from"));
    assert!(explained.why.starts_with(only), "{explained:?}");
    assert!(
        explained.why.ends_with("deny 127.8.0.0/16"),
        "{explained:?}"
    );
    let proxy = explain(&daemon, IpAddr::V4(Ipv4Addr::new(127, 7, 0, 1)));
    assert_eq!(proxy.backend.as_deref(), Some("a"));
}

#[test]
fn who_is_held_back_until_a_standby_stands_down_is_told() {
    let (mut active, _standby, service) = active_and_standby();
    let service = service.key("fail_back", "manual");
    let config = Config::of(service).admin("listen", "127.0.0.1:0");
    let daemon = held_back(&config, &mut active);
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let explained = explain(&daemon, client);
    assert_eq!(explained.backend, Some(served_by(&daemon, client)));
    assert_eq!(explained.backend.as_deref(), Some("standby"));
    let held_back = "is held back: a later tier stands in until it may stand down";
    assert_eq!(why(&explained, "active"), held_back);
    let active: api::Backend = daemon.api().get("/v1/services/web/backends/active").good();
    assert_eq!(active.why.as_deref(), Some(held_back));
    assert!(!active.serving);
}

#[test]
fn the_command_says_it_in_words_and_nobody_is_an_exit_code() {
    let dead = SocketAddr::from((fresh_ip(), 9));
    let daemon = start(Service::new("web").quick_health().backend("a", dead));
    daemon.wait_until_down(0, "a");
    let listens = daemon
        .log()
        .wait(0, "the API", |line| line.says("admin endpoint listens"));
    let ask = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_ballast"))
            .args(["explain", "192.0.2.7"])
            .args(arguments)
            .args(["--admin", &listens.text("listener")])
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).unwrap())
    };
    let said = eventually("nobody serves", || {
        let (code, said) = ask(&[]);
        (code == Some(1)).then_some(said)
    });
    assert!(
        said.contains("web (round-robin): 192.0.2.7 gets nobody"),
        "{said}"
    );
    assert!(said.contains("its checks fail: refused"), "{said}");
    let (code, said) = ask(&["app"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("there is no service `app`"), "{said}");
    assert!(
        !daemon
            .log()
            .all(0, |line| line.says(words::READY))
            .is_empty()
    );
}
