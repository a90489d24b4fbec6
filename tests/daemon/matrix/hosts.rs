//! Hosts that are gone from one packet to the next: nobody says FIN, nobody says RST.

use std::net::TcpStream;
use std::sync::Barrier;
use std::sync::atomic::Ordering;
use std::thread;

use super::{at_once, send};
use crate::support::netns::{has_run_alone, lose};
use crate::support::{Config, Daemon, End, Meeting, Pattern, RELAYS, eventually, words};

/// More than arrives until the host is gone.
const ENDLESS: u64 = u64::MAX / 2;
/// What has arrived before.
const BULK: u64 = 1024 * 1024;

#[test]
fn a_host_that_vanishes_in_the_midst_of_a_stream_leaves_a_right_start_and_a_reset() {
    if has_run_alone(a_host_that_vanishes_in_the_midst_of_a_stream_leaves_a_right_start_and_a_reset)
    {
        return;
    }
    let meeting = Meeting::new();
    let daemon = Daemon::start(
        &Config::of_each_relay(|service| {
            service
                .blind_health()
                .socket("user_timeout", "1s")
                .socket("keepalive_idle", "1s")
                .socket("keepalive_interval", "1s")
                .socket("keepalive_count", 2)
                .backend("only", meeting.address())
        })
        .log_every_session(),
    );
    let scenes: Vec<_> = RELAYS
        .into_iter()
        .flat_map(|relay| [(relay, true), (relay, false)])
        .map(|(relay, there)| {
            let name = format!("{relay}, {}", if there { "there" } else { "back" });
            (name, (there, meeting.session(daemon.address(relay))))
        })
        .collect();
    let sessions = scenes.len();
    let moment = Barrier::new(sessions + 1);
    thread::scope(|threads| {
        threads.spawn(|| {
            moment.wait();
            lose(meeting.address().ip());
            moment.wait();
        });
        at_once(scenes, |(there, (client, backend))| {
            let data = Pattern::new(1, ENDLESS);
            let progress = data.progress();
            let receive = |mut stream: TcpStream| {
                let data = data.clone();
                thread::spawn(move || data.receive(&mut stream))
            };
            let arriving = match there {
                true => receive(backend.try_clone().unwrap()),
                false => receive(client.try_clone().unwrap()),
            };
            // A pattern tells of one progress only: this one's is of no interest.
            let sent = Pattern::new(1, ENDLESS);
            let sending = send(if there { &client } else { &backend }, &sent);
            eventually("bulk arrives", || {
                (progress.load(Ordering::Relaxed) >= BULK).then_some(())
            });
            moment.wait();
            moment.wait();
            if there {
                sending.join().unwrap().unwrap_err();
                // What is received on the lost host nobody will know.
            } else {
                let (arrived, end) = arriving.join().unwrap();
                assert_eq!(end, End::Reset, "after {arrived} bytes");
            }
        });
    });
    for line in daemon.wait_for_sessions(0, sessions) {
        assert_eq!(line.text("who"), "backend", "{}", line.raw());
        assert_eq!(line.text("cause"), words::TIMED_OUT, "{}", line.raw());
    }
}
