//! The JSON lines as those see them who store them: each field is one that is documented, and of the type
//! that the index template says.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::support::{
    Backend, Config, Daemon, Held, Line, Meeting, Peer, Service, Signal, ask_name, connect,
    connect_unasked, eventually, read_name, wait_for_error, words,
};

/// The fields that the index template knows, with their types.
fn template() -> BTreeMap<String, String> {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("config/logging/elasticsearch-template.json");
    let text = fs::read_to_string(path).unwrap();
    let template: Value = serde_json::from_str(&text).unwrap();
    let fields = template["template"]["mappings"]["properties"].as_object();
    let of = |(name, field): (&String, &Value)| {
        (name.clone(), field["type"].as_str().unwrap().to_owned())
    };
    fields.unwrap().iter().map(of).collect()
}

fn object(line: &Line) -> Map<String, Value> {
    let value: Value = serde_json::from_str(line.raw()).unwrap();
    value.as_object().unwrap().clone()
}

/// Whether a value is what an index takes as that type.
fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "long" => value.is_u64() || value.is_i64(),
        "double" => value.is_number(),
        "boolean" => value.is_boolean(),
        // A keyword may be a number; a name must not be indexed as one.
        "keyword" => value.is_string() || value.is_number(),
        "text" => value.is_string(),
        "date" => value
            .as_str()
            .is_some_and(|it| humantime::parse_rfc3339(it).is_ok()),
        _ => false,
    }
}

fn check(lines: &[std::sync::Arc<Line>]) {
    let known = template();
    for line in lines {
        for (name, value) in object(line) {
            let kind = known.get(&name);
            let kind =
                kind.unwrap_or_else(|| panic!("`{name}` is not in the template: {}", line.raw()));
            assert!(is_of(&value, kind), "`{name}` is no {kind}: {}", line.raw());
        }
    }
}

#[test]
fn every_field_of_a_life_is_documented_and_of_its_type() {
    let (a, mut b) = (Backend::named("a"), Backend::named("b"));
    let capped = Backend::named("capped");
    let web = Service::new("web")
        .quick_health()
        .backend("a", a.address())
        .backend("b", b.address());
    let narrow = Service::new("narrow").capped("capped", capped.address(), 1);
    let denied = Service::new("denied")
        .access("deny", "127.0.0.0/8")
        .backend("a", a.address());
    let config = Config::of(web)
        .service(narrow)
        .service(denied)
        .log_every_session();
    let mut daemon = Daemon::start(&config);
    daemon.wait_until_up(0, "b");
    let address = daemon.address("web");
    for _ in 0..4 {
        ask_name(address).unwrap();
    }
    let mut broken = connect(address).unwrap();
    read_name(&mut broken).unwrap();
    broken.reset();
    wait_for_error(&connect_unasked(daemon.address("denied")).unwrap());
    // One waits for the other's place.
    let held = Held::open(daemon.address("narrow"));
    let waiting = std::thread::spawn({
        let narrow = daemon.address("narrow");
        move || ask_name(narrow).unwrap()
    });
    daemon.signal(Signal::USR1);
    held.part();
    waiting.join().unwrap();
    b.refuse();
    daemon.wait_until_down(0, "b");
    let mark = daemon.log().mark();
    b.answer();
    daemon.wait_until_up(mark, "b");
    daemon.reload(
        &config
            .clone()
            .service(Service::new("third").backend("a", a.address())),
    );
    daemon.reload_rejected("nonsense");
    daemon.signal(Signal::USR1);
    eventually("a report", || {
        let reports = daemon.log().all(0, |line| line.says(words::BACKEND));
        (reports.len() >= 9).then_some(())
    });
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    let lines = daemon.log().all(0, |_| true);
    assert!(lines.len() > 20, "{lines:?}");
    check(&lines);
}

#[test]
fn a_session_line_has_the_documented_fields_and_no_others() {
    let meeting = Meeting::new();
    let service = Service::new("web").backend("only", meeting.address());
    let empty = Service::new("empty").backend("none", "127.0.0.1:1".parse().unwrap());
    let daemon = Daemon::start(&Config::of(service).service(empty).log_every_session());
    daemon.wait_until_down(0, "none");
    let (client, backend) = meeting.session(daemon.address("web"));
    client.half_close();
    drop(backend);
    drop(client);
    let refused = connect_unasked(daemon.address("empty")).unwrap();
    wait_for_error(&refused);
    let lines = daemon.wait_for_sessions(0, 2);
    check(&lines);
    let names = |service: &str| -> BTreeSet<String> {
        let line = lines.iter().find(|line| line.has("service", service));
        object(line.unwrap()).keys().cloned().collect()
    };
    let always = [
        "timestamp",
        "level",
        "message",
        "client",
        "listener",
        "service",
        "to_backend",
        "to_client",
        "duration_ms",
        "attempts",
        "who",
        "phase",
        "cause",
    ];
    let connected = ["backend", "address", "connect_ms"];
    let expected = |of: &[&str]| of.iter().map(|&it| it.to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(
        names("empty"),
        expected(&[&always[..], &["why"][..]].concat())
    );
    assert_eq!(
        names("web"),
        expected(&[&always[..], &connected[..]].concat())
    );
}
