//! The last moments of a session: peers that never close, writes that nobody takes, data that comes too
//! late.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::{at_once, exchange, send, whole_session};
use crate::support::{
    Config, Daemon, End, Meeting, Pattern, Peer, RELAYS, Service, Signal, abort, eventually,
    steadily, wait_for_error, words,
};

/// More than all buffers on the way hold.
const ENDLESS: u64 = 256 * 1024 * 1024;
/// A worker keeps a pipe that it used for a second or two.
const SETTLED: Duration = Duration::from_secs(3);

fn behind(meeting: &Meeting, shape: impl Fn(Service) -> Service) -> Daemon {
    Daemon::start(&Config::of_each_relay(|service| {
        // Each probe holds a descriptor for a while.
        let service = service.health("interval", "1h");
        shape(service.backend("only", meeting.address()))
    }))
}

/// Sessions of each way to relay, each way round: who is `near` acts, `far` is acted upon.
fn pairs(daemon: &Daemon, meeting: &Meeting) -> Vec<(String, (TcpStream, TcpStream))> {
    let both = |relay: &str| {
        let address = daemon.address(relay);
        let (client, backend) = meeting.session(address);
        let there = (format!("{relay}, there"), (client, backend));
        let (client, backend) = meeting.session(address);
        [there, (format!("{relay}, back"), (backend, client))]
    };
    RELAYS.into_iter().flat_map(both).collect()
}

fn is_back(daemon: &Daemon, before: usize) {
    eventually("the descriptors are back to what they were", || {
        (daemon.descriptors() <= before).then_some(())
    });
}

#[test]
fn who_never_closes_its_half_costs_a_session_no_longer_than_the_timeout() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("half_closed", "1s"));
    let before = steadily(SETTLED, "descriptors settle", || daemon.descriptors());
    let mut sessions = Vec::new();
    for _ in 0..5 {
        sessions.extend(pairs(&daemon, &meeting));
    }
    for (_, (near, far)) in &mut sessions {
        exchange(near, far, 100_000);
        near.half_close();
        assert_eq!(far.end(), End::Fin);
    }
    // The moment at which all of them time out, and a while after it, with peers that stay.
    let ticks = daemon.cpu_ticks_during(Duration::from_secs(4));
    assert!(ticks < 20, "{ticks} of 400 ticks");
    for (_, (near, far)) in &mut sessions {
        assert_eq!(near.end(), End::Reset);
        wait_for_error(far);
    }
    for line in daemon.wait_for_sessions(0, sessions.len()) {
        assert!(line.has("cause", words::HALF_CLOSED), "{}", line.raw());
    }
    is_back(&daemon, before);
}

#[test]
fn a_write_that_nobody_takes_is_given_up_and_what_was_taken_is_whole() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("idle", "1s"));
    let before = steadily(SETTLED, "descriptors settle", || daemon.descriptors());
    at_once(pairs(&daemon, &meeting), |(mut near, mut far)| {
        // Full buffers both ways, or just one; a FIN behind them changes nothing.
        let data = Pattern::new(1, ENDLESS);
        let sent = data.fill(&mut near);
        near.half_close();
        wait_for_error(&near);
        let (arrived, end) = sent.receive(&mut far);
        assert_eq!(end, End::Reset, "after {arrived} bytes");
    });
    for line in daemon.wait_for_sessions(0, 2 * RELAYS.len()) {
        assert!(line.has("cause", words::IDLE), "{}", line.raw());
    }
    let ticks = daemon.cpu_ticks_during(Duration::from_secs(1));
    assert!(ticks < 10, "{ticks} of 100 ticks");
    is_back(&daemon, before);
}

#[test]
fn a_reset_behind_data_that_nobody_takes_frees_the_session_in_time() {
    let meeting = Meeting::new();
    let daemon = behind(&meeting, |service| service.timeout("idle", "1s"));
    let before = steadily(SETTLED, "descriptors settle", || daemon.descriptors());
    at_once(pairs(&daemon, &meeting), |(mut near, mut far)| {
        let sent = Pattern::new(2, ENDLESS).fill(&mut near);
        abort(near);
        wait_for_error(&far);
        let (arrived, end) = sent.receive(&mut far);
        assert_eq!(end, End::Reset, "after {arrived} bytes");
    });
    is_back(&daemon, before);
}

/// What a peer does in the midst of a stream.
#[derive(Clone, Copy, Debug)]
enum Leave {
    /// It resets at once.
    Abort,
    /// It closes with bytes unread, which is a reset.
    Close,
    /// It says that it has said all, then resets.
    HalfCloseThenAbort,
    /// It closes both ways, and stays.
    ShutDown,
}

#[test]
fn data_that_arrives_while_a_session_closes_harms_nobody() {
    let meeting = Meeting::new();
    // Whoever closes while its buffer is full, and stays, is only silent.
    let daemon = behind(&meeting, |service| service.timeout("half_closed", "1s"));
    let before = steadily(SETTLED, "descriptors settle", || daemon.descriptors());
    let mut witnesses = RELAYS.map(|relay| meeting.session(daemon.address(relay)));
    // Where in the stream it happens is chance; so it happens often.
    for round in 0..50_u64 {
        let leave = [
            Leave::Abort,
            Leave::Close,
            Leave::HalfCloseThenAbort,
            Leave::ShutDown,
        ][usize::try_from(round % 4).unwrap()];
        at_once(pairs(&daemon, &meeting), |(mut near, far)| {
            let data = Pattern::new(round, ENDLESS);
            let mut heard = far.try_clone().unwrap();
            let own = Pattern::new(round + 1, 1000 * round);
            let sending = send(&far, &data);
            own.send(&mut near).unwrap();
            match leave {
                Leave::Abort => abort(near),
                Leave::Close => drop(near),
                Leave::HalfCloseThenAbort => {
                    near.half_close();
                    abort(near);
                }
                Leave::ShutDown => near.shutdown(Shutdown::Both).unwrap(),
            }
            let error = sending.join().unwrap().unwrap_err();
            let gave_up = error.kind() == io::ErrorKind::WouldBlock;
            assert!(!gave_up, "{leave:?} left the other side alone");
            // The start of the stream, all of it right, and no word more.
            own.receive(&mut heard);
        });
    }
    for (client, backend) in &mut witnesses {
        exchange(client, backend, 1_000_000);
    }
    let defects = daemon.log().all(0, |line| line.has("level", "ERROR"));
    assert!(defects.is_empty(), "{defects:?}");
    witnesses
        .into_iter()
        .for_each(|session| whole_session(session, 1000));
    is_back(&daemon, before);
}

#[test]
fn a_drain_deadline_in_the_midst_of_streams_resets_them_and_counts_them() {
    let meeting = Meeting::new();
    let mut daemon = Daemon::start(
        &Config::of_each_relay(|service| service.backend("only", meeting.address()))
            .runtime("drain_timeout", "500ms"),
    );
    let mut arriving = Vec::new();
    let sessions = pairs(&daemon, &meeting)
        .into_iter()
        .map(|(name, (near, far))| {
            let heard = Pattern::new(3, u64::MAX / 2);
            arriving.push(heard.progress());
            (name, (near, far, heard))
        });
    let sessions: Vec<_> = sessions.collect();
    let stopping = thread::scope(|threads| {
        let moving = threads.spawn(|| {
            at_once(sessions, |(near, mut far, heard)| {
                // A pattern tells of one progress only: this one's is of no interest.
                let sending = send(&near, &Pattern::new(3, u64::MAX / 2));
                let (arrived, end) = heard.receive(&mut far);
                assert_eq!(end, End::Reset, "after {arrived} bytes");
                sending.join().unwrap().unwrap_err();
            });
        });
        for progress in &arriving {
            eventually("the stream arrives", || {
                (progress.load(Ordering::Relaxed) > 0).then_some(())
            });
        }
        let stopping = Instant::now();
        daemon.signal(Signal::TERM);
        assert_eq!(daemon.wait_until_stopped(), arriving.len() as u64);
        moving.join().unwrap();
        stopping
    });
    assert!(stopping.elapsed() < Duration::from_secs(15));
}
