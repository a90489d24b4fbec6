//! The status page: the real one, in a real browser.

use std::net::SocketAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::support::{Backend, Browser, Config, Daemon, Line, Service, installed, words};

/// Two services: `web` with `a` and `b`, `db` with `c`.
fn two_services() -> (Vec<Backend>, Config) {
    let backends: Vec<_> = ["a", "b", "c"].into_iter().map(Backend::named).collect();
    let web = Service::new("web")
        .quick_health()
        .backend("a", backends[0].address())
        .backend("b", backends[1].address());
    let db = Service::new("db")
        .quick_health()
        .backend("c", backends[2].address());
    let config = Config::of(web).service(db);
    (backends, config.admin("listen", "127.0.0.1:0"))
}

/// A daemon of that configuration, and its page in a window of that size; `None` where no browser is installed.
fn shown(config: &Config, (width, height): (u32, u32)) -> Option<(Daemon, Browser)> {
    if !installed(Browser::PROGRAMS) {
        return None;
    }
    let daemon = Daemon::start(config);
    let browser = Browser::start();
    browser.resize(width, height);
    browser.open(admin(&daemon));
    Some((daemon, browser))
}

const PHONE: (u32, u32) = (360, 740);
const DESK: (u32, u32) = (1280, 900);

/// Where the API listens.
fn admin(daemon: &Daemon) -> SocketAddr {
    let told = |line: &Line| line.says(words::ADMIN_LISTENS);
    let line = daemon.log().wait(0, words::ADMIN_LISTENS, told);
    line.text("listener").parse().unwrap()
}

/// The word in the row of a backend.
fn state(name: &str) -> String {
    format!(
        "[...document.querySelectorAll('tr.backend')].find(row => row.cells[0].firstChild.textContent === '{name}')?.cells[1].textContent"
    )
}

/// The head line, once every backend has answered.
const WELL: &str = "document.getElementById('verdict').textContent === 'All is well'";

fn now_ms() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs_f64() * 1000.0
}

#[test]
fn a_flip_shows_within_two_seconds_and_the_console_stays_empty() {
    let (mut backends, config) = two_services();
    let Some((daemon, browser)) = shown(&config, DESK) else {
        return;
    };
    browser.wait("all are up", WELL);
    browser.wait(
        "both services are there",
        "document.querySelectorAll('.service').length === 2",
    );
    // The page itself notes when it has changed: the way of a question to it takes longer.
    browser.run(&format!(
        "window.flipped = 0; new MutationObserver(() => {{
           if (!window.flipped && {}?.startsWith('down')) window.flipped = Date.now();
         }}).observe(document.body, {{ subtree: true, childList: true, characterData: true, attributes: true }});",
        state("a")
    ));
    let mark = daemon.log().mark();
    backends[0].refuse();
    daemon.wait_until_down(mark, "a");
    let down = now_ms();
    browser.wait("the page says that it is down", "window.flipped > 0");
    let flipped = browser.run("return window.flipped").as_f64().unwrap();
    assert!(flipped - down < 2000.0, "{} ms", flipped - down);
    browser.wait(
        "the head line says so, for those who listen, too",
        "document.querySelector('#verdict[role=status][aria-live=polite]').textContent === '1 backend of 3 is out'",
    );
    let why = browser.run(&format!("return {}", state("a")));
    assert!(why.as_str().unwrap().contains("refused"), "{why}");
    assert!(
        browser
            .run("return document.title")
            .as_str()
            .unwrap()
            .starts_with("✗ 1 backend")
    );
    browser.wait(
        "the strip of its health shows it, in words as well",
        "document.querySelector('tr.attention .strip').getAttribute('aria-label').startsWith('down 1 time')",
    );

    backends[0].answer();
    browser.wait("it is up again", WELL);
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn events_and_failovers_are_told_and_drawn() {
    let (mut backends, config) = two_services();
    let Some((daemon, browser)) = shown(&config, DESK) else {
        return;
    };
    browser.wait("all are up", WELL);
    daemon.wait_until_up(0, "b");
    backends[1].refuse();
    browser.wait(
        "the failover is drawn with its three times",
        "document.querySelectorAll('tr.failover .course rect').length === 4 && !document.getElementById('failovers').hidden",
    );
    browser.wait(
        "the list of events has it, the newest first",
        "[...document.querySelectorAll('#events li')].some(it => it.textContent.includes('down'))",
    );
    let ids = browser.run(
        "return [...document.querySelectorAll('#events li')].map(it => Number(it.dataset.id))",
    );
    let ids: Vec<i64> = ids
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_i64)
        .collect();
    assert!(ids.is_sorted_by(|newer, older| newer > older), "{ids:?}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn it_can_be_read_on_a_phone_and_by_a_screen_reader() {
    let (_backends, config) = two_services();
    let Some((_daemon, browser)) = shown(&config, PHONE) else {
        return;
    };
    browser.wait(
        "it is filled in",
        "document.querySelectorAll('tr.backend').length === 3",
    );
    let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
    assert_eq!(overflow, 0, "it scrolls sideways");
    let nameless = browser.run(
        "return [...document.querySelectorAll('svg')].filter(it => it.getAttribute('aria-hidden') !== 'true' && !it.getAttribute('aria-label')).length
           + [...document.querySelectorAll('table')].filter(it => !it.caption).length
           + [...document.querySelectorAll('thead th')].filter(it => it.scope !== 'col').length
           + [...document.querySelectorAll('tbody th')].filter(it => it.scope !== 'row').length",
    );
    assert_eq!(nameless, 0);
    assert_eq!(
        browser.run("return document.querySelectorAll('h1').length"),
        1
    );
    browser.resize(DESK.0, DESK.1);
    let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth");
    assert!(overflow.as_i64().unwrap() <= 0, "{overflow}");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn long_names_and_reasons_fit_on_a_phone() {
    let name = "a-name-as-long-as-an-inventory-writes-it.rack-12.example.org";
    let mut backend = Backend::named("a");
    let service = Service::new("the-database-of-the-accounting-department-in-the-north")
        .quick_health()
        .backend(name, backend.address());
    let config = Config::of(service).admin("listen", "127.0.0.1:0");
    let Some((_daemon, browser)) = shown(&config, PHONE) else {
        return;
    };
    let overflow = || browser.run("return document.documentElement.scrollWidth - innerWidth");
    browser.wait("it is up", WELL);
    assert_eq!(overflow(), 0, "it scrolls sideways while all is well");
    backend.refuse();
    browser.wait(
        "it is down",
        "document.querySelector('tr.failover .course') !== null",
    );
    assert_eq!(overflow(), 0, "it scrolls sideways after a failover");
}

#[test]
fn many_backends_are_a_picture_and_those_that_need_attention() {
    let good = Backend::named("good");
    let mut bad = Backend::named("bad");
    let mut service = Service::new("web").quick_health();
    for number in 0..60 {
        service = service.backend(&format!("good-{number}"), good.address());
    }
    service = service.backend("bad", bad.address());
    let config = Config::of(service).admin("listen", "127.0.0.1:0");
    let Some((_daemon, browser)) = shown(&config, DESK) else {
        return;
    };
    browser.wait("all are up", WELL);
    assert_eq!(
        browser.run("return document.querySelectorAll('.tiles rect').length"),
        61
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('tr.backend').length"),
        0
    );
    bad.refuse();
    browser.wait(
        "it alone has a row",
        "document.querySelectorAll('tr.backend').length === 1",
    );
    browser.run("document.querySelector('.more').click()");
    browser.wait(
        "all have one",
        "document.querySelectorAll('tr.backend').length === 61",
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_daemon_that_is_gone_is_told_as_that() {
    let (_backends, config) = two_services();
    let Some((daemon, browser)) = shown(&config, DESK) else {
        return;
    };
    browser.wait("all are up", WELL);
    drop(daemon);
    browser.wait(
        "it says what it shows",
        "document.getElementById('notices').textContent.startsWith('The daemon does not answer.')",
    );
    let left = browser.run("return document.querySelectorAll('tr.backend').length");
    assert_eq!(left, 3, "the last figures stay");
}

#[test]
fn it_comes_with_a_policy_that_lets_nothing_else_run() {
    let (_backends, config) = two_services();
    let daemon = Daemon::start(&config);
    let page = daemon.api().get("/");
    assert_eq!(page.status, 200);
    assert_eq!(
        page.header("content-type"),
        Some("text/html; charset=utf-8")
    );
    let policy = page.header("content-security-policy").unwrap();
    assert!(
        policy.contains("default-src 'none'") && !policy.contains("unsafe"),
        "{policy}"
    );
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
}

#[test]
fn what_a_bandwidth_cap_has_slowed_down_is_told() {
    let (_backends, config) = two_services();
    let Some((_daemon, browser)) = shown(&config, DESK) else {
        return;
    };
    browser.wait("all are up", WELL);
    let told = browser.run(
        "const cap = (cap, slowed, dry) => ({ cap, bytes_per_second: 2000, slowed_total: slowed, \
           slowed_seconds_total: 200, would_be_total: dry, would_be_seconds_total: 1 }); \
         return slowedDown({ throttling: [cap('to_client', 10, 0), cap('to_backend', 0, 0), \
           cap('to_backend_per_session', 0, 1)] })",
    );
    assert_eq!(
        told,
        "10 sessions slowed down by to_client (2.0 kB/s), 3 min together · \
         1 session would be slowed down by to_backend_per_session (2.0 kB/s), which only counts"
    );
}
