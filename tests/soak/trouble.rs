//! What is done to the site: round by round every trouble once, in an order left to chance.

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::load::Load;
use crate::site::{Door, FLOODED, FRAGILE, PATHED, PROXIED, SPARE, STABLE, Site};
use crate::support::{Api, Signal, connect_from, words};
use crate::talk;
use crate::watch::Watch;

/// Between two troubles, so that some of what is seen is peace.
const PEACE: std::ops::Range<u64> = 200..3000;

/// Connects a second in a flood, and the connections that it holds at a time.
const FLOOD_RATE: u32 = 1500;
const FLOOD_HELD: usize = 200;

/// Reloads in a row.
const STORM: usize = 12;

/// Connections of slow clients.
const SLOW: usize = 120;

type Trouble = fn(&mut Scene<'_>);

const TROUBLES: [(&str, Trouble); 17] = [
    ("reload", reload),
    ("bad reload", bad_reload),
    ("reload storm", reload_storm),
    ("flap", flap),
    ("all flap", all_flap),
    ("freeze", freeze),
    ("kill", kill),
    ("flood", flood),
    ("slow clients", slow_clients),
    ("bad headers", bad_headers),
    ("operator", operator),
    ("closing", closing),
    ("abuse", abuse),
    ("list", list),
    ("names", names),
    ("lost path", lost_path),
    ("no descriptors", no_descriptors),
];

/// What troubles work on.
struct Scene<'a> {
    site: &'a mut Site,
    load: &'a Load,
    api: Api,
    rng: &'a mut Rng,
}

pub struct Troubles {
    rng: Rng,
}

impl Troubles {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
        }
    }

    /// Every trouble once, or as many as there is time for.
    pub fn round(&mut self, site: &mut Site, load: &Load, watch: &Watch, until: Option<Instant>) {
        let mut order = TROUBLES;
        self.rng.shuffle(&mut order);
        for (name, trouble) in order {
            if until.is_some_and(|until| Instant::now() >= until) {
                break;
            }
            watch.note(name);
            let api = site.api();
            trouble(&mut Scene {
                site: &mut *site,
                load,
                api,
                rng: &mut self.rng,
            });
            thread::sleep(Duration::from_millis(self.rng.u64(PEACE)));
        }
        // Every round ends as it began.
        site.daemon.reload(&site.files.config(None));
        site.files.write_list(2);
        site.lead(2);
    }
}

impl Scene<'_> {
    fn sleep(&mut self, milliseconds: std::ops::Range<u64>) {
        thread::sleep(Duration::from_millis(self.rng.u64(milliseconds)));
    }

    /// A request to the admin endpoint, whatever is answered; it is answered.
    fn post(&self, path: &str, body: serde_json::Value) -> u16 {
        let status = self.api.post(path, &body).status;
        assert!(status < 500 || status == 503, "{path}: {status}");
        status
    }
}

fn reload(scene: &mut Scene<'_>) {
    let config = scene.site.files.config(Some(scene.rng));
    scene.site.daemon.reload(&config);
}

fn bad_reload(scene: &mut Scene<'_>) {
    let text = scene.site.files.config(Some(scene.rng)).text();
    let cut = scene.rng.usize(1..text.len());
    let broken = match scene.rng.u8(..3) {
        0 => format!("{}\nnonsense = [", &text[..cut]),
        1 => text.replacen("listen", "lisen", 1),
        _ => format!("{text}\n[[service]]\nname = \"web\"\nlisten = \"203.0.113.1:1\"\n"),
    };
    scene.site.daemon.reload_rejected(&broken);
}

fn reload_storm(scene: &mut Scene<'_>) {
    for _ in 0..STORM {
        let config = scene.site.files.config(Some(scene.rng));
        scene.site.daemon.write(&config.text());
        scene.site.daemon.signal(Signal::HUP);
        scene.sleep(10..100);
    }
    reload(scene);
}

fn flap(scene: &mut Scene<'_>) {
    let victim = scene.rng.usize(..scene.site.fragile.len());
    scene.site.fragile[victim].refuse();
    scene.sleep(100..1500);
    scene.site.fragile[victim].answer();
}

fn all_flap(scene: &mut Scene<'_>) {
    scene.site.fragile.iter_mut().for_each(|it| it.refuse());
    scene.sleep(500..1500);
    scene.site.fragile.iter_mut().for_each(|it| it.answer());
}

fn freeze(scene: &mut Scene<'_>) {
    let victim = scene.rng.usize(..scene.site.mortal.len());
    scene.site.mortal[victim].freeze();
    scene.sleep(200..2500);
    scene.site.mortal[victim].thaw();
}

fn kill(scene: &mut Scene<'_>) {
    let victim = scene.rng.usize(..scene.site.mortal.len());
    scene.site.mortal[victim].kill();
    scene.sleep(100..1500);
    scene.site.mortal[victim].start();
}

/// Many sources and one, which say nothing or a word, and leave soon.
fn flood(scene: &mut Scene<'_>) {
    let target = scene.site.address(FLOODED);
    let mut held = VecDeque::new();
    let (began, length) = (Instant::now(), Duration::from_secs(2));
    let mut sent = 0;
    while began.elapsed() < length {
        let due = began.elapsed().as_secs_f64() * f64::from(FLOOD_RATE);
        while f64::from(sent) < due {
            sent += 1;
            let source = match scene.rng.u8(..4) {
                0 => Ipv4Addr::new(127, 220, 0, 1),
                1 => Ipv4Addr::new(127, 222, scene.rng.u8(..), scene.rng.u8(1..255)),
                _ => Ipv4Addr::new(127, 221, scene.rng.u8(..), scene.rng.u8(1..255)),
            };
            if let Some(mut stream) = begin_connect(source, target) {
                if scene.rng.bool() {
                    // It may be reset by now.
                    stream.write_all(b"?").ok();
                }
                held.push_back(stream);
            }
            if held.len() > FLOOD_HELD {
                held.pop_front();
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// A connection that may not be one yet.
fn begin_connect(source: Ipv4Addr, target: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.set_nonblocking(true).ok()?;
    socket
        .bind(&SocketAddr::new(source.into(), 0).into())
        .ok()?;
    match socket.connect(&target.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => None,
        _ => Some(socket.into()),
    }
}

/// They hold places, and say a byte now and then.
fn slow_clients(scene: &mut Scene<'_>) {
    let target = scene.site.address(FLOODED);
    let sources = (0..SLOW).map(|index| Ipv4Addr::new(127, 223, 0, (index % 10) as u8 + 1));
    let mut slow: Vec<_> = sources.filter_map(|it| begin_connect(it, target)).collect();
    for _ in 0..4 {
        scene.sleep(200..900);
        slow.retain_mut(|it| it.write_all(b"x").is_ok());
    }
}

/// Clients of a proxy that is none.
fn bad_headers(scene: &mut Scene<'_>) {
    let target = scene.site.address(PROXIED);
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 120]].concat();
    let headers: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &long,
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"PROXY TCP4 1.2.3.4",
        b"",
    ];
    let mut clients = Vec::new();
    for header in headers.iter().cycle().take(30) {
        if let Some(mut client) = begin_connect(Ipv4Addr::LOCALHOST, target) {
            client.write_all(header).ok();
            clients.push(client);
        }
    }
    // Longer than the service waits for a header.
    scene.sleep(600..900);
}

/// Takes a server out and back, reads everything there is to read.
fn operator(scene: &mut Scene<'_>) {
    let service = STABLE[scene.rng.usize(..STABLE.len())];
    let backend = format!("/v1/services/{service}/backends/s1");
    let changes = [
        json!({ "do": "drain" }),
        json!({ "do": "disable" }),
        json!({ "do": "weight", "percent": 50 }),
        json!({ "do": "weight", "percent": 0 }),
    ];
    let change = scene.rng.usize(..changes.len());
    scene.post(&backend, changes[change].clone());
    for path in [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/view",
        "/v1/services",
        "/v1/events",
        "/v1/failovers",
        "/v1/sessions",
        "/v1/config",
        "/v1/build",
        "/v1/openapi.json",
        "/v1/explain?client=192.0.2.1&service=auto",
    ] {
        let status = scene.api.get(path).status;
        assert!(status < 500 || status == 503, "{path}: {status}");
    }
    let proposal = scene.site.files.config(Some(scene.rng)).text();
    assert_eq!(scene.post("/v1/plan", json!({ "text": proposal })), 200);
    scene.site.daemon.signal(Signal::USR1);
    scene.sleep(100..2000);
    assert_eq!(scene.post(&backend, json!({ "do": "reset" })), 200);
}

/// Closes sessions, where that is no harm.
fn closing(scene: &mut Scene<'_>) {
    let backends = format!("/v1/services/{FRAGILE}/backends");
    scene.post(&backends, json!({ "do": "close-sessions" }));
    scene.post(
        &format!("{backends}/f1"),
        json!({ "do": "drain", "deadline_seconds": 0.3 }),
    );
    scene.sleep(100..800);
    scene.post(&backends, json!({ "do": "reset" }));
}

/// Requests that nobody should make, and clients who do not finish them.
fn abuse(scene: &mut Scene<'_>) {
    let view = "/v1/view";
    let stranger = Api::tcp(scene.api.address()).bearing("not the token");
    assert_eq!(stranger.post("/v1/reload", &json!({})).status, 401);
    let mut open = Vec::new();
    for request in [
        scene.api.request("GET", "/v1/events/stream", None),
        scene.api.request("GET", view, None)[..20].to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00".to_vec(),
        [
            b"GET /".as_slice(),
            &vec![b'a'; 100_000],
            b" HTTP/1.1\r\n\r\n",
        ]
        .concat(),
        scene.api.request(
            "POST",
            "/v1/plan",
            Some(("application/json", &[0xff; 5000])),
        ),
        scene.api.request("GET", view, None).repeat(50),
    ] {
        let mut stream = scene.api.connect().expect("it listens");
        // It may have hung up before the end.
        stream.write_all(&request).ok();
        let mut answer = [0; 64];
        if scene.rng.bool() {
            open.push(stream);
        } else if request.len() > 100 {
            drop(stream.read_exact(&mut answer));
        }
    }
    scene.sleep(100..1000);
}

/// The file of backends says something else, and then nothing sensible.
fn list(scene: &mut Scene<'_>) {
    let mark = scene.site.daemon.log().mark();
    scene.site.files.break_list();
    scene
        .site
        .daemon
        .log()
        .wait(mark, words::LIST_REJECTED, |line| {
            line.says(words::LIST_REJECTED)
        });
    scene.site.files.write_list(scene.rng.usize(1..4));
    scene.sleep(100..1000);
    // Somebody still comes in by the old and by the new.
    drop(connect_from(
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        scene.site.address("listed"),
    ));
}

/// A name leads to others, and then nobody can say for a while where it leads.
fn names(scene: &mut Scene<'_>) {
    scene.site.lead(scene.rng.usize(1..4));
    scene.sleep(100..1000);
    scene.site.dns.refuse();
    scene.sleep(100..2000);
    scene.site.dns.answer();
}

/// Somebody takes a socket away, and a reload brings it back.
fn lost_path(scene: &mut Scene<'_>) {
    let path = scene.site.files.socket(SPARE);
    fs::remove_file(&path).expect("it is listened on");
    reload(scene);
    let mut visit = || {
        let mut stream = talk::open(PATHED, &Door::Path(path.clone()), scene.rng)?;
        talk::exchange(scene.rng, &mut stream)?;
        talk::part(&mut stream)
    };
    if let Err(failure) = visit() {
        panic!("{}: {failure}", path.display());
    }
}

/// No new descriptor for a while.
fn no_descriptors(scene: &mut Scene<'_>) {
    let pause = Duration::from_millis(scene.rng.u64(50..400));
    let daemon = &scene.site.daemon;
    scene.load.excuse(|| {
        let limit = daemon.forbid_descriptors();
        thread::sleep(pause);
        daemon.allow_descriptors(limit);
    });
}
