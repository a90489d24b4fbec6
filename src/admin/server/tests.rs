//! Requests as nobody should make them, over whole connections: from the first byte to the last answer.

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::sync::mpsc;

use super::*;
use crate::admin::Request;
use crate::api::{Backend, Changed, Failovers, Refused, Service, Sessions, View};
use crate::fuzzing::Hunt;

/// What one answer may take to begin; a stream of events never ends.
const SILENCE: Duration = Duration::from_millis(40);
/// A connection whose client has gone is over by then.
const PATIENCE: Duration = Duration::from_secs(20);

/// A hub behind which somebody answers.
fn hub() -> Arc<Hub> {
    let (control, mut asked) = mpsc::channel(8);
    let view = Arc::new(View {
        services: vec![Service {
            name: "web".to_owned(),
            backends: vec![Backend {
                name: "a".to_owned(),
                ..Backend::default()
            }],
            ..Service::default()
        }],
        ..View::default()
    });
    tokio::spawn(async move {
        while let Some(request) = asked.recv().await {
            // Whoever has asked may be gone.
            match request {
                Request::View(reply) => drop(reply.send((Arc::clone(&view), Duration::ZERO))),
                Request::Explain(_, _, _, reply) => drop(reply.send(Vec::new())),
                Request::Plan(_, reply) => drop(reply.send(Err(Refused::default()))),
                Request::Change(_, _, _, reply) => drop(reply.send(Ok(Changed::default()))),
                Request::FailBack(_, _, reply) => drop(reply.send(Ok(Changed::default()))),
                Request::Reload(_, reply) => drop(reply),
                Request::Failovers(reply) => drop(reply.send(Failovers::default())),
                Request::Sessions(_, reply) => drop(reply.send(Ok(Sessions::default()))),
                Request::CloseSession(_, _, reply) => drop(reply.send(false)),
                Request::Configuration(reply) => drop(reply.send("".into())),
                Request::Starved(_) => {}
            }
        }
    });
    Hub::new(control, Arc::default())
}

/// All that is answered to a client that says `words` and then no more.
async fn answers(words: &[u8], hub: &Arc<Hub>) -> Vec<u8> {
    let (mut client, server) = duplex(1 << 16);
    let slot = Connections::enter(&Arc::default()).unwrap();
    let peer = (server, Arc::from("uid 0"));
    let served = tokio::spawn(converse(peer, Entrance::Socket, Arc::clone(hub), slot));
    let mut answers = Vec::new();
    // It may hang up before it has heard all.
    let said = async {
        client.write_all(words).await?;
        client.shutdown().await
    };
    drop(timeout(PATIENCE, said).await);
    while let Ok(Ok(1..)) = timeout(SILENCE, client.read_buf(&mut answers)).await {}
    drop(client);
    let ended = timeout(PATIENCE, served).await;
    ended.expect("it ends with its client").expect("no panic");
    answers
}

#[test]
fn hunted() {
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes();
    let post = |path: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    };
    let backend = "/v1/services/web/backends/a";
    let hunt = Hunt {
        target: "admin",
        cases: 400,
        seeds: vec![
            get("/v1/view"),
            get("/v1/services/web"),
            get(backend),
            get("/v1/explain?client=192.0.2.1&service=web"),
            get("/v1/sessions?client=192.0.2.1&limit=10&offset=1&service=web&backend=a"),
            get("/v1/events?after=1&limit=5"),
            get("/v1/failovers?service=web"),
            get("/metrics"),
            get("/healthz"),
            get("/v1/openapi.json"),
            post(backend, "{\"do\":\"drain\",\"deadline_seconds\":1.5}"),
            post(backend, "{\"do\":\"weight\",\"percent\":50}"),
            post("/v1/services/web/backends", "{\"do\":\"close-sessions\"}"),
            post("/v1/services/web/fail-back", "{}"),
            post("/v1/sessions/0-1/close", "{}"),
            post("/v1/plan", "{\"text\":\"[[service]]\"}"),
            [get("/readyz"), get("/")].concat(),
        ],
        words: &[
            b"GET ",
            b"POST ",
            b"HEAD ",
            b"OPTIONS * ",
            b" HTTP/1.1\r\n",
            b" HTTP/1.0\r\n",
            b"Host: localhost\r\n",
            b"Host: \r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Content-Length: 18446744073709551615\r\n",
            b"Content-Length: 0\r\n",
            b"Expect: 100-continue\r\n",
            b"Connection: upgrade\r\nUpgrade: h2c\r\n",
            b"Authorization: Bearer a\r\n",
            b"Origin: http://evil.example\r\n",
            b"Accept-Encoding: gzip\r\n",
            b"Last-Event-ID: 99999999999999999999\r\n",
            b"\r\n\r\n",
            b"ffffffff\r\n",
            b"/v1/events/stream",
            b"%00",
            b"%2f",
            b"%ff",
            b"../",
            b"?",
            b"&limit=-1",
            b"client=::1",
            b"1e308",
            b"null",
            b"{\"do\":",
            b"\"enable\"}",
        ],
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let hub = runtime.block_on(async { hub() });
    hunt.run(|bytes| {
        let answers = runtime.block_on(answers(bytes, &hub));
        let answers = String::from_utf8_lossy(&answers);
        assert!(
            answers.is_empty() || answers.starts_with("HTTP/1."),
            "{answers}"
        );
        let heads = answers
            .match_indices("HTTP/1.")
            .map(|(at, _)| &answers[at..]);
        let statuses: Vec<_> = heads.filter_map(|it| it.get(9..12)).collect();
        assert!(!statuses.contains(&"500"), "{answers}");
        let error = answers.split_once("\"error\":\"").map_or("", |(_, it)| it);
        let error = error.split(['"', '`']).next().unwrap_or_default();
        // Each status in letters: digits do not matter to the hunt.
        let letter = |it: &u8| char::from(it.wrapping_sub(b'0').wrapping_add(b'a'));
        let statuses: String = statuses
            .iter()
            .flat_map(|it| it.bytes())
            .map(|it| letter(&it))
            .collect();
        format!("{statuses} {error}")
    });
}
