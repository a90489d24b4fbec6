//! What Prometheus reads: every count is right, `promtool` and a real Prometheus agree with it, and what
//! ships for them asks for nothing that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{
    Api, Backend, Config, Daemon, Held, Meeting, Pattern, Peer, Server, Service, ask_name,
    connect_unasked, eventually, installed, run, wait_for_error,
};

/// What ships for Prometheus and Grafana.
fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("config")
        .join(path)
}

/// All samples, by name and labels.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn of(api: &Api) -> Self {
        let answer = api.get("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let lines = answer.text().lines();
        let samples = lines.filter(|line| !line.starts_with('#')).map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a number"))
        });
        Self(samples.collect())
    }

    /// The sum of the samples of that name that have all these labels.
    fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let is_it = |sample: &str| {
            let (own, rest) = sample.split_once('{').unwrap_or((sample, ""));
            own == name && labels.iter().all(|label| rest.contains(label))
        };
        let all = self.0.iter().filter(|(sample, _)| is_it(sample));
        all.map(|(_, value)| value).sum()
    }
}

/// A scrape in which that sum is right.
fn scrape_when(api: &Api, name: &str, labels: &[&str], value: f64) -> Samples {
    eventually(&format!("{name} {labels:?} is {value}"), || {
        let samples = Samples::of(api);
        (samples.sum(name, labels) == value).then_some(samples)
    })
}

fn config(service: Service) -> Config {
    Config::of(service).admin("listen", "127.0.0.1:0")
}

#[test]
fn a_scrape_tells_what_sessions_have_come_to() {
    let (a, mut b) = (Backend::named("a"), Backend::named("b"));
    b.refuse();
    let empty = Service::new("empty")
        .quick_health()
        .backend("b", b.address());
    let service = Service::new("web").quick_health().backend("a", a.address());
    let daemon = Daemon::start(&config(service).service(empty));
    let api = daemon.api();
    daemon.wait_until_up(0, "a");
    daemon.wait_until_down(0, "b");
    for _ in 0..5 {
        ask_name(daemon.address("web")).unwrap();
    }
    let mut broken = crate::support::connect(daemon.address("web")).unwrap();
    crate::support::read_name(&mut broken).unwrap();
    broken.reset();
    let held = Held::open(daemon.address("web"));
    for _ in 0..3 {
        let client = connect_unasked(daemon.address("empty")).unwrap();
        wait_for_error(&client);
    }
    let web = "service=\"web\"";
    let samples = scrape_when(&api, "ballast_listener_sessions", &[web], 1.0);
    let sum = |name: &str, labels: &[&str]| samples.sum(name, labels);
    assert_eq!(sum("ballast_listener_sessions_accepted_total", &[web]), 7.0);
    let finished = [web, "phase=\"relay\"", "cause=\"finished\""];
    assert_eq!(sum("ballast_listener_sessions_ended_total", &finished), 5.0);
    let reset = [web, "who=\"client\"", "phase=\"relay\"", "cause=\"reset\""];
    assert_eq!(sum("ballast_listener_sessions_ended_total", &reset), 1.0);
    assert_eq!(
        sum("ballast_listener_session_duration_seconds_count", &[web]),
        6.0
    );
    assert_eq!(
        sum("ballast_listener_connect_duration_seconds_count", &[web]),
        7.0
    );
    assert!(sum("ballast_listener_connect_duration_seconds_sum", &[web]) > 0.0);
    let a = [web, "backend=\"a\""];
    assert_eq!(sum("ballast_backend_sessions_total", &a), 7.0);
    assert_eq!(sum("ballast_backend_sessions_current", &a), 1.0);
    let by = |ending: &str| {
        let ending = format!("ending=\"{ending}\"");
        sum("ballast_backend_sessions_ended_total", &[web, &ending])
    };
    assert_eq!(
        (by("finished"), by("client"), by("backend"), by("ballast")),
        (5.0, 1.0, 0.0, 0.0)
    );
    assert_eq!(sum("ballast_backend_up", &a), 1.0);
    let rejected = ["service=\"empty\"", "reason=\"no-backend\""];
    let samples = scrape_when(&api, "ballast_listener_rejections_total", &rejected, 3.0);
    let b = ["service=\"empty\"", "backend=\"b\""];
    assert_eq!(samples.sum("ballast_backend_up", &b), 0.0);
    assert_eq!(samples.sum("ballast_backend_wanted", &b), 1.0);
    assert!(samples.sum("ballast_backend_checks_total", &["outcome=\"failed\""]) >= 1.0);
    assert!(samples.sum("ballast_open_descriptors", &[]) > 10.0);
    assert_eq!(samples.sum("ballast_worker_sessions", &[]), 1.0);
    assert!(samples.sum("ballast_worker_busy_seconds_total", &[]) > 0.0);
    held.part();
}

#[test]
fn bytes_are_counted_while_a_session_runs() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&config(
        Service::new("web").backend("only", meeting.address()),
    ));
    let api = daemon.api();
    let (mut client, mut backend) = meeting.session(daemon.address("web"));
    let bulk = Pattern::new(1, 1 << 20);
    let sending = std::thread::spawn({
        let bulk = Pattern::new(1, 1 << 20);
        let mut client = client.try_clone().unwrap();
        move || bulk.send(&mut client).unwrap()
    });
    bulk.expect(&mut backend);
    sending.join().unwrap();
    let name = "ballast_backend_transferred_bytes_total";
    let towards = ["direction=\"to_backend\""];
    // With the eight bytes of the meeting's own, sixteen pieces and a rest.
    scrape_when(&api, name, &towards, f64::from(1 << 20));
    client.half_close();
    drop(backend);
    assert_eq!(client.end(), crate::support::End::Fin);
    scrape_when(&api, name, &towards, f64::from((1 << 20) + 8));
}

#[test]
fn clients_that_are_not_let_in_are_counted_by_rule_and_by_reason() {
    let backend = Backend::named("only");
    let denied = Service::new("denied")
        .access("deny", "127.0.0.0/8")
        .backend("only", backend.address());
    let dry = Service::new("dry")
        .access("deny", "127.0.0.0/8")
        .access("dry_run", true)
        .backend("only", backend.address());
    let daemon = Daemon::start(&config(denied).service(dry));
    daemon.wait_until_up(0, "only");
    ask_name(daemon.address("dry")).unwrap();
    let client = connect_unasked(daemon.address("denied")).unwrap();
    wait_for_error(&client);
    let (api, rule) = (daemon.api(), "rule=\"access\"");
    let refused = "ballast_service_refused_total";
    let samples = scrape_when(&api, refused, &["service=\"denied\"", rule], 1.0);
    let reason = ["service=\"denied\"", "reason=\"access\""];
    assert_eq!(
        samples.sum("ballast_listener_rejections_total", &reason),
        1.0
    );
    let would_be = "ballast_service_would_be_refused_total";
    assert_eq!(samples.sum(would_be, &["service=\"dry\"", rule]), 1.0);
    assert_eq!(samples.sum(refused, &["service=\"dry\"", rule]), 0.0);
}

#[test]
fn a_reload_is_counted_and_a_rejected_one_is_told_until_it_is_repaired() {
    let backend = Backend::named("only");
    let config = config(Service::new("web").backend("only", backend.address()));
    let daemon = Daemon::start(&config);
    let api = daemon.api();
    daemon.reload(&config);
    daemon.reload_rejected("nonsense");
    let samples = scrape_when(&api, "ballast_configuration_rejected", &[], 1.0);
    let outcome = |outcome: &str| samples.sum("ballast_reloads_total", &[outcome]);
    assert_eq!((outcome("applied"), outcome("rejected")), (1.0, 1.0));
    assert!(samples.sum("ballast_last_reload_duration_seconds", &[]) > 0.0);
    daemon.reload(&config);
    scrape_when(&api, "ballast_configuration_rejected", &[], 0.0);
}

#[test]
fn both_formats_are_served_to_those_who_ask_and_promtool_has_nothing_to_say() {
    if !installed(&["promtool"]) {
        return;
    }
    let backend = Backend::named("only");
    let daemon = Daemon::start(&config(
        Service::new("web").backend("only", backend.address()),
    ));
    let api = daemon.api();
    daemon.wait_until_up(0, "only");
    ask_name(daemon.address("web")).unwrap();
    scrape_when(
        &api,
        "ballast_listener_session_duration_seconds_count",
        &[],
        1.0,
    );
    let open_metrics = api
        .clone()
        .with("Accept", "application/openmetrics-text; version=1.0.0")
        .get("/metrics");
    let kind = open_metrics.header("content-type").unwrap();
    assert!(
        kind.starts_with("application/openmetrics-text; version=1.0.0"),
        "{kind}"
    );
    assert!(open_metrics.text().ends_with("# EOF\n"));
    let plain = api.get("/metrics");
    let kind = plain.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(&plain.body)
        .unwrap();
    let said = promtool.wait_with_output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&said.stdout),
        String::from_utf8_lossy(&said.stderr)
    );
    assert!(said.status.success() && text.trim().is_empty(), "{text}");
}

#[test]
fn a_prometheus_scrapes_it_and_its_rules_fire() {
    if !installed(&["prometheus"]) {
        return;
    }
    let mut backend = Backend::named("only");
    let service = Service::new("web")
        .quick_health()
        .backend("only", backend.address());
    let daemon = Daemon::start(&config(service));
    daemon.wait_until_up(0, "only");
    for _ in 0..3 {
        ask_name(daemon.address("web")).unwrap();
    }
    let prometheus = Server::prometheus(
        daemon.api().address(),
        &shipped("prometheus/ballast.rules.yml"),
    );
    let prometheus = Api::tcp(prometheus.address());
    // The value of a query with one result, once it serves any.
    let value = |query: &str| -> Option<String> {
        let answer = prometheus.get(&format!("/api/v1/query?query={query}"));
        if answer.status == 503 {
            return None;
        }
        let answer: Value = answer.good();
        let results = answer["data"]["result"].as_array()?;
        assert!(results.len() <= 1, "{answer}");
        Some(results.first()?["value"][1].as_str()?.to_owned())
    };
    let is = |query: &str, wanted: &str| {
        eventually(&format!("{query} is {wanted}"), || {
            (value(query).as_deref() == Some(wanted)).then_some(())
        });
    };
    is("up", "1");
    is("ballast_backend_sessions_total", "3");
    is("ballast_backend_up", "1");
    backend.refuse();
    is("ballast_backend_up", "0");
    is("count(ALERTS%7Balertname=%22BallastServiceDown%22%7D)", "1");
}

#[test]
fn the_alert_rules_do_what_their_tests_say() {
    if !installed(&["promtool"]) {
        return;
    }
    run(Command::new("promtool")
        .args(["check", "rules"])
        .arg(shipped("prometheus/ballast.rules.yml")));
    run(Command::new("promtool")
        .args(["test", "rules"])
        .arg(shipped("prometheus/ballast.test.yml")));
}

/// Every name of a series that the daemon may tell, from what it says of their types.
fn series(exposition: &str) -> BTreeSet<String> {
    let types = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let names = types.flat_map(|told| {
        let (family, kind) = told.split_once(' ').expect("name and type");
        match kind {
            "histogram" => ["_bucket", "_sum", "_count"]
                .map(|suffix| format!("{family}{suffix}"))
                .to_vec(),
            _ => vec![family.to_owned()],
        }
    });
    names.collect()
}

/// Every name of Ballast's in a query.
fn named(query: &str) -> impl Iterator<Item = &str> {
    let words =
        query.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
    words.filter(|word| word.starts_with("ballast_"))
}

/// Every text under `key`, however deep.
fn texts<'v>(value: &'v Value, keys: &[&str], found: &mut Vec<&'v str>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                if let (true, Some(text)) = (keys.contains(&key.as_str()), value.as_str()) {
                    found.push(text);
                }
                texts(value, keys, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| texts(item, keys, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn dashboard_and_rules_ask_for_nothing_that_is_not_there() {
    let backend = Backend::named("only");
    let daemon = Daemon::start(&config(
        Service::new("web").backend("only", backend.address()),
    ));
    let known = series(daemon.api().get("/metrics").text());
    let dashboard = fs::read_to_string(shipped("grafana/ballast.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, &["expr", "query", "definition"], &mut queries);
    assert!(queries.len() > 40, "{queries:?}");
    let rules = fs::read_to_string(shipped("prometheus/ballast.rules.yml")).unwrap();
    let tests = fs::read_to_string(shipped("prometheus/ballast.test.yml")).unwrap();
    queries.extend([rules.as_str(), tests.as_str()]);
    let asked: BTreeSet<_> = queries.iter().flat_map(|query| named(query)).collect();
    let missing: Vec<_> = asked.iter().filter(|it| !known.contains(**it)).collect();
    assert!(missing.is_empty(), "{missing:?} of {known:#?}");
}
