//! Who may come in, and how many: networks, limits of a service and of each source, and what is told of
//! those who were kept out.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use ballast::api::View;

use crate::support::{
    Backend, Config, Daemon, End, Held, Line, Peer, Service, Signal, ask_name, connect,
    connect_from, connect_unasked_from, eventually, fresh_ip, name_and_part, read_name, words,
};

/// Long enough to see a session that should not start.
const PAUSE: Duration = Duration::from_millis(300);

fn start(service: Service, backend: &Backend) -> (Daemon, SocketAddr) {
    let daemon = Daemon::start(&Config::of(service.backend("only", backend.address())));
    let address = daemon.address("web");
    (daemon, address)
}

fn from(source: Ipv4Addr, address: SocketAddr) -> TcpStream {
    connect_from(source.into(), address).unwrap()
}

/// A connection that is likely to be reset at once: nobody asks how connecting went.
fn knock(source: impl Into<IpAddr>, address: SocketAddr) -> TcpStream {
    connect_unasked_from(source.into(), address).unwrap()
}

fn is_served(mut client: TcpStream) -> bool {
    read_name(&mut client).is_ok()
}

/// The client was reset and served by nobody; the line that tells it.
fn refused(daemon: &Daemon, mark: usize, mut client: TcpStream, cause: &str) -> Arc<Line> {
    let own = client.local_addr().unwrap().to_string();
    assert_eq!(client.end(), End::Reset);
    let line = daemon.wait_for(mark, words::SESSION, "client", &own);
    assert!(line.has("cause", cause), "{}", line.raw());
    assert!(line.has("phase", "admission"), "{}", line.raw());
    assert!(line.has("who", "ballast"), "{}", line.raw());
    line
}

#[test]
fn the_most_specific_network_says_who_may_come_in() {
    let backend = Backend::named("only");
    let [home, friend, stranger] = [fresh_ip(), fresh_ip(), Ipv4Addr::new(127, 3, 3, 3)];
    let service = Service::new("web")
        .also_listen("[::1]:0")
        .access(
            "allow",
            vec!["127.3.0.0/16".to_owned(), friend.to_string(), "::1".into()],
        )
        .access("deny", vec!["127.3.3.0/24".to_owned()])
        .rare_health();
    let (daemon, address) = start(service, &backend);
    backend.wait_for_probe();
    let before = backend.accepted();
    refused(&daemon, 0, knock(home, address), words::DENIED);
    refused(&daemon, 0, knock(stranger, address), words::DENIED);
    assert_eq!(backend.accepted(), before, "nobody was dialled for");
    assert!(is_served(from(friend, address)));
    assert!(is_served(from(Ipv4Addr::new(127, 3, 4, 3), address)));
    let v6 = daemon
        .addresses_since(0, "web")
        .into_iter()
        .find(SocketAddr::is_ipv6);
    assert!(is_served(connect(v6.unwrap()).unwrap()));
}

#[test]
fn lists_in_files_come_with_a_reload_and_a_bad_one_changes_nothing() {
    let backend = Backend::named("only");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deny");
    fs::write(&file, "# nobody yet\n").unwrap();
    let service = Service::new("web")
        .listen(SocketAddr::new(fresh_ip().into(), 0))
        .access("deny_file", file.to_str().unwrap())
        .backend("only", backend.address());
    let config = Config::of(service);
    let daemon = Daemon::start(&config);
    let address = daemon.address("web");
    let source = fresh_ip();
    assert!(is_served(from(source, address)));
    fs::write(&file, format!("10.0.0.0/8\n{source} # a pest\n")).unwrap();
    let line = daemon.reload(&config);
    assert!(
        line.text("plan").contains("services +0 -0 ~1"),
        "{}",
        line.raw()
    );
    refused(&daemon, 0, knock(source, address), words::DENIED);
    assert!(is_served(from(fresh_ip(), address)));
    fs::write(&file, "10.0.0.0/8\n127.0.0.1/8\n").unwrap();
    let line = daemon.reload_rejected(&config.text());
    assert!(
        line.text("problems").contains("deny:2:1: the list has"),
        "{}",
        line.raw()
    );
    refused(&daemon, 0, knock(source, address), words::DENIED);
    fs::write(&file, "").unwrap();
    daemon.reload(&config);
    assert!(is_served(from(source, address)));
}

#[test]
fn a_dry_run_serves_and_counts_whom_it_would_have_kept_out() {
    let backend = Backend::named("only");
    let service = Service::new("web")
        .access("deny", "127.0.0.0/8")
        .access("dry_run", true)
        .limits("max_per_source", 1)
        .limits("rate_per_source", "1/h")
        .limits("accept_rate", "1/h")
        .limits("max_connections", 1)
        .limits("dry_run", true);
    let (daemon, address) = start(service, &backend);
    let held: Vec<_> = (0..3).map(|_| Held::open(address)).collect();
    let report = eventually("all of it is counted", || {
        let mark = daemon.log().mark();
        daemon.signal(Signal::USR1);
        let line = daemon.wait_for(mark, words::ADMISSION, "service", "web");
        line.field("would_be")
            .filter(|it| it.contains("rate_per_source"))
    });
    assert_eq!(
        report,
        "access 3, max_connections 2, accept_rate 2, max_per_source 2, rate_per_source 2"
    );
    daemon.wait_for(0, words::REFUSED_CLIENTS, "service", "web");
    held.into_iter().for_each(Held::part);
}

#[test]
fn the_limits_of_the_process_have_a_dry_run_too() {
    let backend = Backend::named("only");
    let config = Config::of(Service::new("web").backend("only", backend.address()))
        .runtime("max_connections", 1)
        .runtime("accept_rate", "2/h")
        .runtime("dry_run", true)
        .admin("listen", "127.0.0.1:0");
    let daemon = Daemon::start(&config);
    let address = daemon.address("web");
    let held: Vec<_> = (0..4).map(|_| Held::open(address)).collect();
    let report = eventually("all of it is counted", || {
        let mark = daemon.log().mark();
        daemon.signal(Signal::USR1);
        let line = daemon
            .log()
            .wait(mark, words::ADMISSION, |line| line.says(words::ADMISSION));
        line.field("would_be")
            .filter(|it| it.contains("_connections 3"))
    });
    assert_eq!(report, "max_connections 3, accept_rate 2");
    let line = daemon.log().wait(0, words::REFUSED_CLIENTS, |line| {
        line.says(words::REFUSED_CLIENTS)
    });
    assert_eq!(line.field("service"), None);
    let samples = daemon.api().get("/metrics");
    let sample = "ballast_would_be_refused_total{rule=\"max_connections\"} 3";
    assert!(samples.text().contains(sample), "{}", samples.text());
    held.into_iter().for_each(Held::part);
    // Now one of them is in force.
    let line = daemon.reload(&config.runtime("dry_run", vec!["accept_rate"]));
    assert!(
        line.text("plan").contains("settings runtime.dry_run"),
        "{}",
        line.raw()
    );
    let _one = Held::open(address);
    assert!(
        connect(address).unwrap().is_silent(PAUSE),
        "a second session started"
    );
}

#[test]
fn a_source_has_its_sessions_whichever_worker_they_are_on_and_others_have_theirs() {
    let backend = Backend::named("only");
    let (daemon, address) = start(Service::new("web").limits("max_per_source", 3), &backend);
    let [one, two] = [fresh_ip(), fresh_ip()];
    let open = |source| {
        let mut client = knock(source, address);
        read_name(&mut client).map(|_| client)
    };
    // Ports differ, and so do the workers that the kernel brings them to.
    for _ in 0..10 {
        let mut held = eventually("there is room for three", || {
            let held: Result<Vec<_>, _> = (0..3).map(|_| open(one)).collect();
            held.ok()
        });
        assert_eq!(knock(one, address).end(), End::Reset);
        assert!(is_served(from(two, address)));
        held.pop().unwrap().half_close();
        let again = eventually("a session that is over counts no more", || open(one).ok());
        held.push(again);
        assert_eq!(knock(one, address).end(), End::Reset);
    }
    eventually("nobody is left", || (sessions(&daemon) == 0).then_some(()));
}

/// Running sessions, as the report has them.
fn sessions(daemon: &Daemon) -> u64 {
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    let report = daemon
        .log()
        .wait(mark, "a report", |line| line.says(words::REPORT));
    report.number("sessions")
}

#[test]
fn a_source_that_connects_too_often_is_reset() {
    let backend = Backend::named("only");
    let service = Service::new("web").limits("rate_per_source", "5/h");
    let (daemon, address) = start(service, &backend);
    let [one, two] = [fresh_ip(), fresh_ip()];
    for _ in 0..5 {
        name_and_part(from(one, address)).unwrap();
    }
    for _ in 0..3 {
        refused(&daemon, 0, knock(one, address), words::TOO_OFTEN);
    }
    assert!(is_served(from(two, address)));
}

#[test]
fn limits_go_by_the_client_that_a_proxy_names() {
    let backend = Backend::named("only");
    let service = Service::new("web")
        .proxy_protocol("accept_from", "127.0.0.0/8")
        .access("deny", "192.0.2.66")
        .limits("max_per_source", 1);
    let (daemon, address) = start(service, &backend);
    let open = |client: &str| {
        let mut stream = connect(address).unwrap();
        stream.put(format!("PROXY TCP4 {client} 198.51.100.1 7 443\r\n").as_bytes());
        stream
    };
    let mut held: Vec<_> = (1..5).map(|it| open(&format!("192.0.2.{it}"))).collect();
    for client in &mut held {
        assert_eq!(read_name(client).unwrap(), "only");
    }
    for (client, cause) in [
        ("192.0.2.1", words::TOO_MANY),
        ("192.0.2.66", words::DENIED),
    ] {
        let mark = daemon.log().mark();
        assert_eq!(open(client).end(), End::Reset);
        let line = daemon.wait_for(mark, words::SESSION, "client", &format!("{client}:7"));
        assert!(line.has("cause", cause), "{}", line.raw());
        assert!(line.text("via").starts_with("127."), "{}", line.raw());
    }
}

#[test]
fn above_the_limit_of_its_service_a_client_waits_and_those_of_others_do_not() {
    let backend = Backend::named("only");
    let service = |name: &str| {
        Service::new(name)
            .listen(SocketAddr::new(fresh_ip().into(), 0))
            .backend("only", backend.address())
    };
    let (limited, other) = (
        service("web").limits("max_connections", 2),
        service("other"),
    );
    let daemon = Daemon::start(&Config::of(limited.clone()).service(other.clone()));
    let address = daemon.address("web");
    let mut held = vec![Held::open(address), Held::open(address)];
    let mut waiting = connect(address).unwrap();
    assert!(waiting.is_silent(PAUSE), "a third session started");
    daemon.wait_for(0, words::PAUSES, "service", "web");
    assert_eq!(ask_name(daemon.address("other")).unwrap(), "only");
    held.pop().unwrap().part();
    assert_eq!(read_name(&mut waiting).unwrap(), "only");
    let mut next = connect(address).unwrap();
    assert!(next.is_silent(PAUSE), "a third session started");
    // A higher limit lets it in at once.
    daemon.reload(&Config::of(limited.limits("max_connections", 3)).service(other.clone()));
    assert_eq!(read_name(&mut next).unwrap(), "only");
    let mut last = connect(address).unwrap();
    assert!(last.is_silent(PAUSE), "a fourth session started");
    // And so does none.
    let unlimited = Service::new("web")
        .listen(SocketAddr::new(address.ip(), 0))
        .backend("only", backend.address());
    daemon.reload(&Config::of(unlimited).service(other));
    assert_eq!(read_name(&mut last).unwrap(), "only");
    daemon.wait_for(0, words::GOES_ON, "service", "web");
}

#[test]
fn a_limit_that_is_new_counts_the_sessions_that_run() {
    let backend = Backend::named("only");
    let service = || {
        Service::new("web")
            .listen(SocketAddr::new(fresh_ip().into(), 0))
            .backend("only", backend.address())
    };
    let free = service();
    let limited = free.clone().limits("max_connections", 3);
    let daemon = Daemon::start(&Config::of(free.clone()));
    let address = daemon.address("web");
    let mut held: Vec<_> = (0..3).map(|_| Held::open(address)).collect();
    for _ in 0..2 {
        let mark = daemon.log().mark();
        daemon.reload(&Config::of(limited.clone()));
        daemon.wait_for(mark, words::PAUSES, "service", "web");
        let mut waiting = connect(address).unwrap();
        assert!(waiting.is_silent(PAUSE), "a fourth session started");
        held.pop().unwrap().part();
        assert_eq!(read_name(&mut waiting).unwrap(), "only");
        // Those of a time without a limit count towards the next one, and none of the others twice.
        daemon.reload(&Config::of(free.clone()));
        daemon.wait_for(mark, words::GOES_ON, "service", "web");
        waiting.half_close();
        assert_eq!(waiting.end(), End::Fin);
        held.push(Held::open(address));
    }
    held.into_iter().for_each(Held::part);
    daemon.reload(&Config::of(limited));
    let _three: Vec<_> = (0..3).map(|_| Held::open(address)).collect();
    assert!(
        connect(address).unwrap().is_silent(PAUSE),
        "a fourth session started"
    );
}

#[test]
fn a_service_at_its_limit_leaves_others_the_room_of_all_and_waits_for_it_too() {
    let backend = Backend::named("only");
    let service = |name: &str| Service::new(name).backend("only", backend.address());
    let config = Config::of(service("web").limits("max_connections", 2))
        .service(service("other"))
        .runtime("max_connections", 3);
    let daemon = Daemon::start(&config);
    let (web, other) = (daemon.address("web"), daemon.address("other"));
    let first = Held::open(web);
    let mut held = vec![Held::open(other), Held::open(other)];
    // There is room in the service, and none in the process.
    let mut waiting = connect(web).unwrap();
    assert!(waiting.is_silent(PAUSE), "a fourth session started");
    held.pop().unwrap().part();
    assert_eq!(read_name(&mut waiting).unwrap(), "only");
    drop((first, waiting, held));
    for address in [web, other, web, other] {
        assert_eq!(ask_name(address).unwrap(), "only");
    }
}

#[test]
fn clients_beyond_the_rate_of_a_service_wait_their_turn() {
    let backend = Backend::named("only");
    let service = |name: &str| {
        Service::new(name)
            .listen(SocketAddr::new(fresh_ip().into(), 0))
            .backend("only", backend.address())
    };
    let other = service("other");
    let web = service("web");
    let daemon =
        Daemon::start(&Config::of(web.clone().limits("accept_rate", "3/h")).service(other.clone()));
    let address = daemon.address("web");
    for _ in 0..3 {
        assert_eq!(ask_name(address).unwrap(), "only");
    }
    let mut waiting = connect(address).unwrap();
    assert!(waiting.is_silent(PAUSE), "a fourth client was accepted");
    let ticks = daemon.cpu_ticks_during(Duration::from_millis(500));
    assert!(ticks < 10, "{ticks} of 50 ticks while nobody may come in");
    assert_eq!(ask_name(daemon.address("other")).unwrap(), "only");
    daemon.reload(&Config::of(web).service(other));
    assert_eq!(read_name(&mut waiting).unwrap(), "only");
}

#[test]
fn whoever_floods_is_refused_and_counted_to_the_last_and_keeps_nobody_else_out() {
    const KNOCKS: u64 = 600;
    let backend = Backend::named("only");
    let pest = fresh_ip();
    let service = Service::new("web")
        .access("deny", pest.to_string())
        .backend("only", backend.address());
    let daemon = Daemon::start(&Config::of(service).admin("listen", "127.0.0.1:0"));
    let (api, address) = (daemon.api(), daemon.address("web"));
    let mut knocking = Vec::new();
    for _ in 0..KNOCKS / 100 {
        knocking.extend((0..100).map(|_| knock(pest, address)));
        assert!(is_served(from(fresh_ip(), address)));
    }
    for mut client in knocking {
        assert_eq!(client.end(), End::Reset);
    }
    let view: View = api.get("/v1/view").good();
    let refused = view.services[0].refusals.iter().map(|it| it.refused_total);
    assert_eq!(refused.sum::<u64>(), KNOCKS);
    assert_eq!(view.services[0].listeners[0].dropped_total, 0);
}

#[test]
fn what_the_kernel_drops_at_a_full_listener_is_told() {
    let backend = Backend::named("only");
    let service = Service::new("web")
        .key("backlog", 1)
        .limits("max_connections", 1)
        .backend("only", backend.address());
    let daemon = Daemon::start(
        &Config::of(service)
            .runtime("workers", 1)
            .admin("listen", "127.0.0.1:0"),
    );
    let (api, address) = (daemon.api(), daemon.address("web"));
    let dropped = || {
        let view: View = api.get("/v1/view").good();
        view.services[0].listeners[0].dropped_total
    };
    let _held = Held::open(address);
    assert_eq!(dropped(), 0);
    // Two of them find room, and the others are dropped, again and again.
    let source = fresh_ip();
    let _waiting: Vec<_> = (0..10).map(|_| knock(source, address)).collect();
    eventually("it is told", || (dropped() >= 8).then_some(()));
}

#[test]
fn clients_beyond_the_rate_of_the_process_wait_whichever_service_they_want() {
    let backend = Backend::named("only");
    let service = |name: &str| Service::new(name).backend("only", backend.address());
    let config = Config::of(service("web")).service(service("other"));
    let daemon = Daemon::start(&config.clone().runtime("accept_rate", "4/h"));
    for name in ["web", "other", "web", "other"] {
        assert_eq!(ask_name(daemon.address(name)).unwrap(), "only");
    }
    let mut waiting = ["web", "other"].map(|name| connect(daemon.address(name)).unwrap());
    assert!(waiting.iter_mut().all(|client| client.is_silent(PAUSE)));
    let line = daemon.reload(&config.runtime("accept_rate", "1000/s"));
    assert!(
        line.text("plan").contains("runtime.accept_rate"),
        "{}",
        line.raw()
    );
    for client in &mut waiting {
        assert_eq!(read_name(client).unwrap(), "only");
    }
}

#[test]
fn a_stop_does_not_wait_for_those_who_wait_to_be_accepted() {
    let backend = Backend::named("only");
    let service = Service::new("web")
        .limits("max_connections", 1)
        .limits("accept_rate", "1/h");
    let config = Config::of(service.backend("only", backend.address()));
    let mut daemon = Daemon::start(&config.runtime("drain_timeout", "0s"));
    let _held = Held::open(daemon.address("web"));
    let mut waiting = connect(daemon.address("web")).unwrap();
    daemon.signal(Signal::TERM);
    daemon.wait_until_stopped();
    assert_eq!(waiting.end(), End::Reset);
}

#[test]
fn a_flood_leaves_a_few_lines_and_every_one_of_it_is_counted() {
    let backend = Backend::named("only");
    let service = Service::new("web")
        .access("deny", "127.66.0.0/16")
        .rare_health();
    let (daemon, address) = start(service, &backend);
    let pest = Ipv4Addr::new(127, 66, 0, 1);
    for _ in 0..600 {
        assert_eq!(knock(pest, address).end(), End::Reset);
    }
    assert!(is_served(from(fresh_ip(), address)));
    let first = daemon.wait_for(0, words::REFUSED_CLIENTS, "service", "web");
    assert!(first.has("level", "WARN"), "{}", first.raw());
    let mark = daemon.log().mark();
    daemon.signal(Signal::USR1);
    let line = daemon.wait_for(mark, words::ADMISSION, "service", "web");
    assert_eq!(line.text("refused"), "access 600");
    let lines = daemon.sessions(0).len();
    assert!(
        (10..=300).contains(&lines),
        "{lines} lines for 600 refusals"
    );
}

#[test]
fn a_hundred_thousand_networks_are_read_and_looked_up() {
    let backend = Backend::named("only");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deny");
    let networks = (0..100_000_u32).map(|number| {
        let ip = Ipv4Addr::from_bits(0x0b00_0000 + (number << 8));
        format!("{ip}/24\n")
    });
    let pest = fresh_ip();
    fs::write(
        &file,
        networks.chain([pest.to_string()]).collect::<String>(),
    )
    .unwrap();
    let service = Service::new("web").access("deny_file", file.to_str().unwrap());
    let (daemon, address) = start(service, &backend);
    refused(&daemon, 0, knock(pest, address), words::DENIED);
    assert_eq!(ask_name(address).unwrap(), "only");
}

#[test]
fn sources_of_both_families_are_counted_over_a_reload() {
    let backend = Backend::named("only");
    let service = |most: i64| {
        Service::new("web")
            .listen("[::1]:0")
            .limits("max_per_source", most)
            .backend("only", backend.address())
    };
    let daemon = Daemon::start(&Config::of(service(2)));
    let address = daemon.address("web");
    assert_eq!(address.ip(), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST));
    let _held = [Held::open(address), Held::open(address)];
    refused(&daemon, 0, knock(address.ip(), address), words::TOO_MANY);
    daemon.reload(&Config::of(service(3)));
    let _third = Held::open(address);
    refused(&daemon, 0, knock(address.ip(), address), words::TOO_MANY);
}
