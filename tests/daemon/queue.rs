//! Backends with `max_connections`: never one session more, and a fair queue while all are full.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{
    Backend, BlackHole, Config, Daemon, End, Held, Peer, Service, Signal, Storm, abort, ask_name,
    connect, eventually, name_and_part, read_name, words,
};

/// One backend with one place, and a log that tells who waits.
fn single(backend: SocketAddr) -> Service {
    Service::new("web")
        .health("interval", "1h")
        .capped("only", backend, 1)
}

fn start(service: &Service) -> Daemon {
    Daemon::start(&told(service))
}

fn told(service: &Service) -> Config {
    Config::of(service.clone())
        .log("level", "debug")
        .log_every_session()
}

/// A client that is in the queue.
fn queue(daemon: &Daemon) -> TcpStream {
    let mark = daemon.log().mark();
    let client = connect(daemon.address("web")).unwrap();
    let own = client.local_addr().unwrap().to_string();
    daemon.wait_for(mark, words::QUEUED, "client", &own);
    client
}

fn is_waiting(client: &mut TcpStream) -> bool {
    client.is_silent(Duration::ZERO)
}

#[test]
fn a_cap_is_exact_under_a_storm_and_nobody_is_turned_away() {
    let busy: Arc<[(AtomicUsize, AtomicUsize)]> =
        Arc::new([Default::default(), Default::default()]);
    let backends = [0, 1].map(|index| {
        let busy = Arc::clone(&busy);
        Backend::serve(move |mut stream| {
            // A probe says nothing.
            if stream.read_exact(&mut [0]).is_err() {
                return;
            }
            let (now, most) = &busy[index];
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            stream.write_all(b"served\n").unwrap();
            let (_, end) = End::read(&mut stream);
            assert_eq!(end, End::Fin);
            // Before the close, behind which the place is free.
            now.fetch_sub(1, Ordering::SeqCst);
        })
    });
    for strategy in ["round-robin", "least-connections", "source-hash", "random"] {
        let daemon = Daemon::start(&Config::of(
            Service::new("web")
                .strategy(strategy)
                .capped("a", backends[0].address(), 3)
                .capped("b", backends[1].address(), 2),
        ));
        let address = daemon.address("web");
        let storm = Storm::start(20, move |_| {
            let mut stream = connect(address)?;
            stream.write_all(b"!")?;
            name_and_part(stream)
        });
        storm.pass(400);
        storm.finish().assert_flawless();
        let most: Vec<_> = busy
            .iter()
            .map(|it| it.1.swap(0, Ordering::SeqCst))
            .collect();
        assert_eq!(most, [3, 2], "{strategy}");
    }
}

#[test]
fn who_came_first_is_served_first_whichever_worker_holds_it() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()));
    let held = Held::open(daemon.address("web"));
    let mut clients: Vec<_> = (0..12).map(|_| queue(&daemon)).collect();
    assert!(clients.iter_mut().all(is_waiting));
    held.part();
    while !clients.is_empty() {
        let mut first = clients.remove(0);
        assert_eq!(read_name(&mut first).unwrap(), "only");
        assert!(clients.iter_mut().all(is_waiting), "one place, two served");
        Held {
            stream: first,
            name: "only".into(),
        }
        .part();
    }
}

#[test]
fn a_place_that_is_free_goes_to_who_waits_and_not_to_who_comes() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()));
    let address = daemon.address("web");
    let held = Held::open(address);
    let waiting: Vec<_> = (0..20).map(|_| queue(&daemon)).collect();
    let own = |client: &TcpStream| client.local_addr().unwrap().to_string();
    let order: Vec<_> = waiting.iter().map(own).collect();
    let mark = daemon.log().mark();
    let newcomers = Storm::start(4, move |_| ask_name(address));
    held.part();
    for client in waiting {
        assert_eq!(name_and_part(client).unwrap(), "only");
    }
    newcomers.pass(20);
    newcomers.finish().assert_flawless();
    // A session leaves its line before it leaves its place, so this is who had the one place when,
    // behind the session that was held.
    let lines = daemon.wait_for_sessions(mark, 41);
    let served: Vec<_> = lines[1..21]
        .iter()
        .map(|line| line.text("client"))
        .collect();
    assert_eq!(served, order);
}

#[test]
fn who_has_waited_for_too_long_is_reset_and_the_line_says_so() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()).queue("timeout", "300ms"));
    let held = Held::open(daemon.address("web"));
    let mut client = queue(&daemon);
    assert_eq!(client.end(), End::Reset);
    let line = daemon.wait_for(0, words::SESSION, "cause", words::QUEUE_TIMEOUT);
    assert!(
        line.has("phase", "queue") && line.has("who", "ballast"),
        "{}",
        line.raw()
    );
    assert!(line.text("queue_ms").parse::<f64>().unwrap() >= 300.0);
    assert!(line.field("backend").is_none(), "{}", line.raw());
    held.part();
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "only");
}

#[test]
fn who_finds_the_queue_full_is_reset_at_once_and_those_in_it_are_served() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()).queue("size", 2));
    let held = Held::open(daemon.address("web"));
    let waiting = [queue(&daemon), queue(&daemon)];
    let failed = ask_name(daemon.address("web"));
    assert!(failed.is_err(), "{failed:?}");
    let line = daemon.wait_for(0, words::SESSION, "cause", words::QUEUE_FULL);
    assert!(
        line.has("phase", "queue") && line.has("who", "ballast"),
        "{}",
        line.raw()
    );
    held.part();
    for client in waiting {
        assert_eq!(name_and_part(client).unwrap(), "only");
    }
}

#[test]
fn without_a_queue_whoever_finds_all_full_is_reset() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()).queue("size", 0));
    let held = Held::open(daemon.address("web"));
    assert!(ask_name(daemon.address("web")).is_err());
    daemon.wait_for(0, words::SESSION, "cause", words::QUEUE_FULL);
    held.part();
    eventually("the place is free", || ask_name(daemon.address("web")).ok());
}

#[test]
fn a_client_that_resets_leaves_the_queue_and_the_next_moves_up() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()).queue("size", 2));
    let held = Held::open(daemon.address("web"));
    let (gone, stays) = (queue(&daemon), queue(&daemon));
    let own = gone.local_addr().unwrap().to_string();
    abort(gone);
    let line = daemon.wait_for(0, words::SESSION, "client", &own);
    assert!(
        line.has("who", "client") && line.has("phase", "queue"),
        "{}",
        line.raw()
    );
    assert!(line.has("cause", words::RESET), "{}", line.raw());
    // Its place in the queue is free, too.
    let last = queue(&daemon);
    held.part();
    assert_eq!(name_and_part(stays).unwrap(), "only");
    assert_eq!(name_and_part(last).unwrap(), "only");
}

#[test]
fn a_client_that_has_said_all_is_served_when_its_turn_comes() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()));
    let held = Held::open(daemon.address("web"));
    let mut client = queue(&daemon);
    client.put(b"the question");
    client.half_close();
    let mut behind = queue(&daemon);
    assert!(is_waiting(&mut client) && is_waiting(&mut behind));
    held.part();
    client.get(b"only\nthe question");
    assert_eq!(client.end(), End::Fin);
    assert_eq!(name_and_part(behind).unwrap(), "only");
}

#[test]
fn who_waits_goes_to_a_backend_that_a_reload_brings() {
    let (only, new) = (Backend::named("only"), Backend::named("new"));
    let service = single(only.address());
    let daemon = start(&service);
    let mut held = Held::open(daemon.address("web"));
    let waiting: Vec<_> = (0..3).map(|_| queue(&daemon)).collect();
    daemon.reload(&told(&service.backend("new", new.address())));
    for client in waiting {
        assert_eq!(name_and_part(client).unwrap(), "new");
    }
    held.still_works();
}

#[test]
fn who_waits_goes_to_a_backend_that_comes_back_up() {
    let (only, mut back) = (Backend::named("only"), Backend::named("back"));
    back.refuse();
    let service = Service::new("web")
        .quick_health()
        .capped("only", only.address(), 1)
        .capped("back", back.address(), 2);
    let daemon = start(&service);
    daemon.wait_until_down(0, "back");
    let mut held = Held::open(daemon.address("web"));
    let mut waiting: Vec<_> = (0..3).map(|_| queue(&daemon)).collect();
    back.answer();
    for client in &mut waiting[..2] {
        assert_eq!(read_name(client).unwrap(), "back");
    }
    assert!(is_waiting(&mut waiting[2]));
    held.still_works();
    held.part();
    assert_eq!(read_name(&mut waiting[2]).unwrap(), "only");
}

#[test]
fn who_waits_for_backends_that_are_all_down_is_reset() {
    let mut only = Backend::named("only");
    let daemon = start(
        &Service::new("web")
            .quick_health()
            .capped("only", only.address(), 1),
    );
    only.wait_for_probe();
    let mut held = Held::open(daemon.address("web"));
    let mut client = queue(&daemon);
    only.refuse();
    assert_eq!(client.end(), End::Reset);
    let line = daemon.wait_for(0, words::SESSION, "cause", words::NO_BACKEND);
    assert!(line.has("phase", "queue"), "{}", line.raw());
    held.still_works();
}

#[test]
fn a_cap_that_a_reload_raises_serves_those_who_wait_and_a_lower_one_cuts_nobody() {
    let backend = Backend::named("only");
    let service = single(backend.address());
    let capped = |most| {
        told(
            &service
                .clone()
                .without_backends()
                .capped("only", backend.address(), most),
        )
    };
    let daemon = start(&service);
    let address = daemon.address("web");
    let first = Held::open(address);
    let mut waiting: Vec<_> = (0..3).map(|_| queue(&daemon)).collect();
    daemon.reload(&capped(3));
    let mut held: Vec<_> = waiting
        .drain(..2)
        .map(|mut stream| {
            let name = read_name(&mut stream).unwrap();
            Held { stream, name }
        })
        .collect();
    let mut last = waiting.remove(0);
    assert!(is_waiting(&mut last));
    daemon.reload(&capped(1));
    held.iter_mut().for_each(Held::still_works);
    let mark = daemon.log().mark();
    held.drain(..).for_each(Held::part);
    daemon.wait_for_sessions(mark, 2);
    // One is left, and one is the cap.
    assert!(is_waiting(&mut last));
    first.part();
    assert_eq!(name_and_part(last).unwrap(), "only");
}

#[test]
fn a_cap_that_a_reload_brings_counts_the_sessions_from_before() {
    let backend = Backend::named("only");
    let service = Service::new("web").health("interval", "1h");
    let daemon = start(&service.clone().backend("only", backend.address()));
    let address = daemon.address("web");
    let mut before: Vec<_> = (0..3).map(|_| Held::open(address)).collect();
    daemon.reload(&told(&service.capped("only", backend.address(), 3)));
    let client = queue(&daemon);
    before.remove(0).part();
    assert_eq!(name_and_part(client).unwrap(), "only");
    before.iter_mut().for_each(Held::still_works);
}

#[test]
fn a_session_whose_connect_failed_waits_where_it_came_and_not_at_the_end() {
    let (mut refuses, only) = (Backend::named("refuses"), Backend::named("only"));
    let service = Service::new("web")
        .blind_health()
        .capped("refuses", refuses.address(), 1)
        .capped("only", only.address(), 1);
    let daemon = start(&service);
    refuses.wait_for_probe();
    only.wait_for_probe();
    // Takes both places, whichever is whose.
    let address = daemon.address("web");
    let (one, other) = (Held::open(address), Held::open(address));
    let (on_refuses, on_only) = match &*one.name {
        "refuses" => (one, other),
        _ => (other, one),
    };
    let (mut first, mut second) = (queue(&daemon), queue(&daemon));
    refuses.refuse();
    let mark = daemon.log().mark();
    // The first is given the place, is refused, and comes again; so is the second.
    on_refuses.part();
    let waits_again = |client: &TcpStream| {
        let own = client.local_addr().unwrap().to_string();
        daemon.wait_for(mark, words::QUEUED, "client", &own);
    };
    waits_again(&first);
    waits_again(&second);
    assert!(is_waiting(&mut first) && is_waiting(&mut second));
    on_only.part();
    assert_eq!(read_name(&mut first).unwrap(), "only");
    assert!(is_waiting(&mut second));
    drop(first);
    assert_eq!(read_name(&mut second).unwrap(), "only");
}

#[test]
fn a_stop_serves_the_queue_and_a_second_one_ends_it() {
    let backend = Backend::named("only");
    let service = single(backend.address()).queue("timeout", "1h");
    let mut daemon = start(&service);
    let held = Held::open(daemon.address("web"));
    let (mut served, mut ended) = (queue(&daemon), queue(&daemon));
    daemon.signal(Signal::TERM);
    daemon
        .log()
        .wait(0, words::STOPPING, |line| line.says(words::STOPPING));
    held.part();
    assert_eq!(read_name(&mut served).unwrap(), "only");
    daemon.signal(Signal::TERM);
    // The place of the one that ends first may come to it in the last moment, and with it a greeting.
    assert_eq!(End::read(&mut ended).1, End::Reset);
    assert_eq!(daemon.wait_until_stopped(), 2);
    let own = ended.local_addr().unwrap().to_string();
    let line = daemon.wait_for(0, words::SESSION, "client", &own);
    assert!(line.has("cause", words::STOPPED_CAUSE), "{}", line.raw());
}

#[test]
fn a_client_that_resets_while_its_backend_is_dialled_is_not_waited_for() {
    let mut hole = BlackHole::new();
    let daemon = Daemon::start(&Config::of(
        Service::new("web")
            .blind_health()
            .timeout("connect", "10m")
            .timeout("connect_total", "10m")
            .backend("hole", hole.address()),
    ));
    hole.accept_probe();
    hole.swallow();
    let mut client = connect(daemon.address("web")).unwrap();
    client.put(b"a question that nobody will hear");
    client.reset();
    let line = daemon.wait_for(0, words::SESSION, "who", "client");
    assert!(
        line.has("phase", "connect") && line.has("cause", words::RESET),
        "{}",
        line.raw()
    );
}

#[test]
fn the_report_tells_what_became_of_those_who_waited() {
    let backend = Backend::named("only");
    let daemon = start(&single(backend.address()).queue("size", 2));
    let held = Held::open(daemon.address("web"));
    let (gone, served) = (queue(&daemon), queue(&daemon));
    assert!(ask_name(daemon.address("web")).is_err());
    abort(gone);
    daemon.wait_for(0, words::SESSION, "who", "client");
    daemon.signal(Signal::USR1);
    let told = daemon.wait_for(0, words::QUEUE, "service", "web");
    let count = |name| told.number(name);
    assert_eq!(
        ["waiting", "placed", "full", "timed_out", "left"].map(count),
        [1, 0, 1, 0, 1]
    );
    let backend = daemon.wait_for(0, words::BACKEND, "backend", "only");
    assert_eq!(
        (
            backend.number("sessions"),
            backend.number("max_connections")
        ),
        (1, 1)
    );
    held.part();
    assert_eq!(name_and_part(served).unwrap(), "only");
}
