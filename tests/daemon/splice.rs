//! Where the kernel grants no pipe, bytes are copied: `relay = "splice"` is a wish.

use std::net::SocketAddr;
use std::thread;

use ballast::api::View;

use crate::support::{
    Config, Daemon, End, Launch, Meeting, Pattern, Peer, PipeHog, Service, Stranger, abort,
    eventually, wait_for_error, words,
};

const BULK: u64 = 16 * 1024 * 1024;
/// More than all buffers on the way hold.
const ENDLESS: u64 = 16 * BULK;

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
fn out_of_descriptors_running_sessions_get_bulk_by_copying() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&spliced(meeting.address()).runtime("workers", 1));
    let sessions = [(); 2].map(|()| meeting.session(daemon.address("web")));
    let limit = daemon.forbid_descriptors();
    // One session at a time needs two pipes at most, which the worker may keep for a moment. Of four
    // directions that stand still with bytes in them, two have none.
    let mut ways: Vec<_> = sessions
        .into_iter()
        .flat_map(|(client, backend)| {
            let copies = (client.try_clone(), backend.try_clone());
            let (from, to) = (
                copies.1.expect("descriptors"),
                copies.0.expect("descriptors"),
            );
            [(client, backend), (from, to)]
        })
        .zip(1..)
        .map(|((mut from, to), seed)| {
            let held = Pattern::new(seed, ENDLESS).fill(&mut from);
            (from, to, held)
        })
        .collect();
    wait_for_refusal(&daemon, 0);
    for (_, to, held) in &mut ways {
        held.expect(to);
    }
    daemon.allow_descriptors(limit);
    for (from, to, _) in &mut ways {
        let plenty = Pattern::new(9, BULK);
        thread::scope(|threads| {
            threads.spawn(|| {
                plenty.send(from).expect("the connection stands");
                from.half_close();
            });
            assert_eq!(plenty.expect_then_end(to), End::Fin);
        });
    }
}

#[test]
fn a_receiver_that_resets_with_a_full_pipe_before_it_leaves_none_behind() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(&spliced(meeting.address()).admin("listen", "127.0.0.1:0"));
    for seed in 0..4 {
        let (client, mut backend) = meeting.session(daemon.address("web"));
        // So that the client is not read any more: what is written to it is the first to fail.
        client.half_close();
        assert_eq!(backend.end(), End::Fin);
        Pattern::new(seed, ENDLESS).fill(&mut backend);
        abort(client);
        wait_for_error(&backend);
    }
    let api = daemon.api();
    // What is not taken back would be missing from those that a worker may have, for good.
    eventually("no worker counts a pipe", || {
        let view: View = api.get("/v1/view").good();
        let pipes: u64 = view.process.workers.iter().map(|it| it.pipes).sum();
        (pipes == 0).then_some(())
    });
}
