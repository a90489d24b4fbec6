//! What is told of running sessions.

use ballast::api::{Session, Sessions};

use crate::support::{Config, Daemon, Meeting, Peer, Service, eventually};

#[test]
fn a_running_session_tells_what_it_has_moved_and_for_how_long_it_is_silent() {
    let meeting = Meeting::new();
    let daemon = Daemon::start(
        &Config::of(Service::new("web").backend("only", meeting.address()))
            .admin("listen", "127.0.0.1:0"),
    );
    let api = daemon.api();
    let (mut client, mut server) = meeting.session(daemon.address("web"));
    let only = || {
        api.get("/v1/sessions")
            .good::<Sessions>()
            .sessions
            .remove(0)
    };
    let greeting = (only().to_backend_bytes, only().to_client_bytes);
    client.put(&[7; 70_000]);
    server.get(&[7; 70_000]);
    server.put(b"seen");
    client.get(b"seen");
    let moved = (greeting.0 + 70_000, greeting.1 + 4);
    // What a peer has got is counted a moment later.
    let first = eventually("all of it is counted", || {
        Some(only()).filter(|it| (it.to_backend_bytes, it.to_client_bytes) == moved)
    });
    let silent = eventually("it is silent", || {
        Some(only()).filter(|it| it.idle_seconds > 0.2)
    });
    let last = |it: &Session| it.age_seconds - it.idle_seconds;
    assert!(
        (last(&silent) - last(&first)).abs() < 1e-3,
        "{first:?} {silent:?}"
    );
    client.put(b"x");
    server.get(b"x");
    let again = eventually("one more byte is counted", || {
        Some(only()).filter(|it| it.to_backend_bytes == moved.0 + 1)
    });
    assert!(last(&again) > last(&silent) + 0.2, "{silent:?} {again:?}");
    assert!(again.idle_seconds < again.age_seconds);
}
