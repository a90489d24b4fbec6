//! Where the kernel grants no pipe, bytes are copied: `relay = "splice"` is a wish.

use std::net::SocketAddr;
use std::thread;

use crate::support::{
    Config, Daemon, End, Launch, Meeting, Pattern, Peer, PipeHog, Service, Stranger, words,
};

const BULK: u64 = 16 * 1024 * 1024;

fn spliced(backend: SocketAddr) -> Config {
    let service = Service::new("web").relay("splice").backend("only", backend);
    Config::of(service).log("level", "debug")
}

fn wait_for_refusal(daemon: &Daemon, mark: usize) {
    daemon.log().wait(mark, "that it has no pipe", |line| {
        line.says(words::NO_PIPE)
    });
}

#[test]
fn a_user_without_pages_for_pipes_gets_bulk_by_copying() {
    let Some(user) = Stranger::new() else {
        return;
    };
    let Some(_hog) = PipeHog::start(user) else {
        eprintln!("skipped: this machine limits nobody's pipes");
        return;
    };
    let meeting = Meeting::new();
    let daemon = Launch::new()
        .run_as(user)
        .start(&spliced(meeting.address()));
    let (client, backend) = meeting.session(daemon.address("web"));
    let mut ends = [client, backend];
    let way = |[from, to]: &mut [std::net::TcpStream; 2], seed| {
        let data = Pattern::new(seed, BULK);
        thread::scope(|threads| {
            threads.spawn(|| {
                data.send(from).expect("the connection stands");
                from.half_close();
            });
            assert_eq!(data.expect_then_end(to), End::Fin);
        });
    };
    way(&mut ends, 1);
    ends.reverse();
    way(&mut ends, 2);
    wait_for_refusal(&daemon, 0);
}

#[test]
fn out_of_descriptors_a_running_session_gets_bulk_by_copying() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&spliced(meeting.address()));
    let (mut client, mut backend) = meeting.session(daemon.address("web"));
    let mark = daemon.log().mark();
    let limit = daemon.forbid_descriptors();
    let (scarce, plenty) = (Pattern::new(3, BULK), Pattern::new(4, BULK));
    thread::scope(|threads| {
        threads.spawn(|| scarce.send(&mut client).expect("the connection stands"));
        scarce.expect(&mut backend);
    });
    wait_for_refusal(&daemon, mark);
    daemon.allow_descriptors(limit);
    thread::scope(|threads| {
        threads.spawn(|| {
            plenty.send(&mut client).expect("the connection stands");
            client.half_close();
        });
        assert_eq!(plenty.expect_then_end(&mut backend), End::Fin);
    });
}
