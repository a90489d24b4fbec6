//! What the soak runs: one daemon, a service for each way in which things may go, the servers behind them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use fastrand::Rng;
use tempfile::TempDir;

use crate::support::paths::{at, dial, serve};
use crate::support::{
    Alert, Api, Backend, Config, Daemon, Dns, ProcessBackend, RELAYS, Service, connect, fresh_ip,
};

/// The services whose servers are well: no session there may fail. One for each way to relay.
pub const STABLE: [&str; 3] = RELAYS;
/// Its backends take few sessions at a time: clients wait.
pub const QUEUED: &str = "queued";
/// Clients come with a PROXY header, and its backend wants one.
pub const PROXIED: &str = "proxied";
/// Its backends come and go by a file.
pub const LISTED: &str = "listed";
/// Its backends refuse now and then, or are closed by an operator.
pub const FRAGILE: &str = "fragile";
/// Its backends freeze and are killed.
pub const MORTAL: &str = "mortal";
/// It is flooded; it has limits.
pub const FLOODED: &str = "flooded";
/// Its servers are well too, and so are those of the following: no session there may fail either. How fast
/// bytes flow is limited, for each session and for all.
pub const SHAPED: &str = "shaped";
/// It listens at paths, and one of its backends is at one.
pub const PATHED: &str = "pathed";
/// Its backends are behind a name.
pub const NAMED: &str = "named";
/// It only counts whom its limits would keep out or slow down.
pub const REHEARSED: &str = "rehearsed";

/// The directory of the sockets that the daemon listens on.
const SOCKETS: &str = "sockets";
/// The second one of [`PATHED`], which goes astray.
pub const SPARE: &str = "spare";

/// Sessions at a time of each backend of [`QUEUED`].
const PLACES: i64 = 4;

/// The port that the backends of [`NAMED`] share.
const NAMED_PORT: u16 = 7070;

/// The token of the admin endpoint.
const TOKEN: &str = "soak";

/// Everything that runs.
pub struct Site {
    pub daemon: Daemon,
    pub fragile: Vec<Backend>,
    pub mortal: Vec<ProcessBackend>,
    pub dns: Dns,
    pub files: Files,
    named: Vec<Backend>,
    _others: Vec<Backend>,
}

/// Where clients of a service come in.
pub enum Door {
    Address(SocketAddr),
    Path(PathBuf),
}

impl Door {
    pub fn connect(&self) -> io::Result<TcpStream> {
        match self {
            Self::Address(address) => connect(*address),
            Self::Path(path) => dial(path),
        }
    }
}

/// What the daemon reads.
pub struct Files {
    services: Vec<Service>,
    stable: Vec<Backend>,
    list: PathBuf,
    resolver: SocketAddr,
    directory: TempDir,
}

impl Site {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join(SOCKETS)).unwrap();
        let named = |prefix: &str| -> Vec<Backend> {
            let names = (1..=3).map(|number| format!("{prefix}{number}"));
            names.map(|name| Backend::named(&name)).collect()
        };
        let (stable, fragile) = (named("s"), named("f"));
        let mortal: Vec<_> = ["m1", "m2"].map(ProcessBackend::named).into();
        let others = vec![
            Backend::named("q1"),
            Backend::named("q2"),
            Backend::serve(after_a_header),
            Backend::named("flooded"),
        ];
        let behind_a_name: Vec<_> = ["n1", "n2", "n3"]
            .map(|name| Backend::named_at(address_at(NAMED_PORT), name))
            .into();
        let dns = Dns::start(&records(&behind_a_name[..2]));
        let list = directory.path().join("listed.toml");
        write_list(&list, &stable, 2);

        let at_fixed_port = |name: &str| Service::new(name).listen(address_at(7001));
        let queued = ["q1", "q2"].iter().zip(&others);
        let queued = queued.fold(at_fixed_port(QUEUED), |service, (name, backend)| {
            service.capped(name, backend.address(), PLACES)
        });
        let mut services: Vec<Service> =
            STABLE.map(|relay| at_fixed_port(relay).relay(relay)).into();
        services.push(
            queued
                .strategy("least-connections")
                .queue("size", 256)
                .queue("timeout", "20s"),
        );
        services.push(
            at_fixed_port(PROXIED)
                .proxy_protocol("accept_from", "127.0.0.0/8")
                .proxy_protocol("timeout", "500ms")
                .proxy_protocol("send", "v2")
                .proxy_protocol("unique_id", true)
                .socket("fast_open", fast_open())
                .backend("p1", others[2].address()),
        );
        services.push(at_fixed_port(LISTED).key("backends_file", list.to_str().unwrap()));
        services.push(
            fragile.iter().enumerate().fold(
                at_fixed_port(FRAGILE)
                    .quick_health()
                    .health("timeout", "100ms")
                    .key("on_down", "close"),
                |service, (index, it)| service.backend(&format!("f{}", index + 1), it.address()),
            ),
        );
        services.push(
            mortal.iter().enumerate().fold(
                at_fixed_port(MORTAL)
                    .health("interval", "200ms")
                    .health("timeout", "200ms")
                    .health("fast_interval", "100ms")
                    .health("expect", "m")
                    .key("on_down", "close")
                    .key("slow_start", "1s"),
                |service, (index, it)| service.backend(&format!("m{}", index + 1), it.address()),
            ),
        );
        services.push(
            at_fixed_port(FLOODED)
                .limits("max_connections", 200)
                .limits("max_per_source", 20)
                .limits("rate_per_source", "50/s")
                .limits("sources", 1024)
                .access("deny", "127.222.0.0/16")
                .timeout("idle", "2s")
                .backend("flooded", others[3].address()),
        );
        let socket = |name: &str| directory.path().join(SOCKETS).join(name);
        let server = directory.path().join("server");
        serve(&server, "path");
        services.push(
            Service::new(PATHED)
                .listen(at(&socket(PATHED)))
                .also_listen(at(&socket(SPARE)))
                .placed("path", "address", &at(&server))
                .backend("s1", stable[0].address()),
        );
        services.push(at_fixed_port(NAMED).placed(
            "db",
            "address",
            &format!("db.example.test:{NAMED_PORT}"),
        ));
        services.push(
            at_fixed_port(REHEARSED)
                .access("deny", "127.0.0.0/8")
                .access("dry_run", true)
                .limits("max_connections", 1)
                .limits("accept_rate", "1/s")
                .limits("max_per_source", 1)
                .limits("rate_per_source", "1/s")
                .limits("to_client_per_session", "1KB/s")
                .limits("dry_run", true)
                .backend("s1", stable[0].address()),
        );
        services.push(
            at_fixed_port(SHAPED)
                .socket("fast_open", fast_open())
                .backend("s1", stable[0].address())
                .backend("s2", stable[1].address()),
        );
        fs::write(directory.path().join("token"), TOKEN).unwrap();
        let files = Files {
            services,
            stable,
            list,
            resolver: dns.address(),
            directory,
        };
        Self {
            daemon: Daemon::start(&files.config(None)),
            fragile,
            mortal,
            dns,
            files,
            named: behind_a_name,
            _others: others,
        }
    }

    pub fn address(&self, service: &str) -> SocketAddr {
        self.daemon.address(service)
    }

    pub fn door(&self, service: &str) -> Door {
        match service {
            PATHED => Door::Path(self.files.socket(PATHED)),
            _ => Door::Address(self.address(service)),
        }
    }

    /// Has the name of [`NAMED`] lead to so many backends.
    pub fn lead(&self, count: usize) {
        self.dns.set(&records(&self.named[..count]));
    }

    /// The admin API, with the right to change.
    pub fn api(&self) -> Api {
        self.daemon.api().bearing(TOKEN)
    }
}

impl Files {
    /// A socket that the daemon listens on.
    pub fn socket(&self, name: &str) -> PathBuf {
        self.directory.path().join(SOCKETS).join(name)
    }

    /// What is left of such sockets.
    pub fn sockets_left(&self) -> Vec<PathBuf> {
        let all = fs::read_dir(self.directory.path().join(SOCKETS)).unwrap();
        let all = all.map(|entry| entry.unwrap());
        all.filter(|entry| entry.file_type().unwrap().is_socket())
            .map(|entry| entry.path())
            .collect()
    }

    /// The configuration: the plain one, or one of the many that come down to the same for clients.
    pub fn config(&self, chance: Option<&mut Rng>) -> Config {
        let place = |name: &str| self.directory.path().join(name);
        let path = |name: &str| place(name).to_str().unwrap().to_owned();
        let mut config = Config::new()
            .admin(
                "listen",
                vec!["127.0.0.1:0".to_owned(), at(&self.socket("admin"))],
            )
            .discovery("resolvers", vec![self.resolver.to_string()])
            .discovery("min_ttl", "100ms")
            .discovery("timeout", "500ms")
            .admin("token_file", path("token"))
            .runtime("state_file", path("state.json"))
            .runtime("max_connections", 4000)
            .alert(Alert::exec(
                "bell",
                &["backend-down", "backend-up", "reload-failed"],
                &["/bin/true"],
            ));
        let mut fixed = Rng::with_seed(0);
        let varied = chance.is_some();
        let chance = chance.unwrap_or(&mut fixed);
        let mut pick = |most: usize| if varied { chance.usize(..most) } else { 0 };
        for service in &self.services[..STABLE.len()] {
            let strategies = ["least-connections", "weighted", "source-hash", "random"];
            let mut service = service.clone().strategy(strategies[pick(4)]);
            for (index, it) in self.stable.iter().enumerate() {
                // The last one comes and goes; sessions that it has go on.
                if index < 2 || pick(2) == 0 {
                    let weight = 1 + i64::try_from(pick(5)).unwrap();
                    service = service.weighted(&format!("s{}", index + 1), it.address(), weight);
                }
            }
            config = config.service(service.key("retries", 1 + i64::try_from(pick(3)).unwrap()));
        }
        let last = self.services.len() - 1;
        for service in &self.services[STABLE.len()..last] {
            config = config.service(service.clone());
        }
        let mut shaped = self.services[last].clone();
        for cap in ["to_backend", "to_client"] {
            shaped = shaped
                .limits(cap, ["20MB/s", "100MB/s", "8MB/s"][pick(3)])
                .limits(&format!("{cap}_per_session"), ["4MB/s", "2MB/s"][pick(2)]);
        }
        config = config.service(shaped.limits("dry_run", pick(4) == 1));
        if pick(2) == 1 {
            // A listener that comes and goes.
            config = config.service(
                Service::new("guest")
                    .also_listen(at(&self.socket("guest")))
                    .health("interval", ["1s", "3s"][pick(2)])
                    .backend("g1", self.stable[0].address()),
            );
        }
        config.log("level", ["info", "debug"][usize::from(pick(8) == 1)])
    }

    /// Writes the list of backends of [`LISTED`].
    pub fn write_list(&self, count: usize) {
        write_list(&self.list, &self.stable, count);
    }

    /// Writes a list that is none.
    pub fn break_list(&self) {
        write(&self.list, "[[backend]]\naddress = 7");
    }
}

fn write_list(list: &Path, backends: &[Backend], count: usize) {
    let text: String = backends[..count]
        .iter()
        .enumerate()
        .map(|(index, it)| {
            format!(
                "[[backend]]\nname = \"l{}\"\naddress = \"{}\"\n",
                index + 1,
                it.address()
            )
        })
        .collect();
    write(list, &text);
}

/// In one step, as an editor would.
fn write(file: &Path, text: &str) {
    let draft = file.with_extension("draft");
    fs::write(&draft, text).unwrap();
    fs::rename(draft, file).unwrap();
}

/// A port at an address of its own, so nobody has it: it stays the same over all reloads.
fn address_at(port: u16) -> SocketAddr {
    SocketAddr::new(fresh_ip().into(), port)
}

/// What a name server says of these, to be believed for no time at all.
fn records(backends: &[Backend]) -> Vec<String> {
    let record = |it: &Backend| format!("db 0 A {}", it.address().ip());
    backends.iter().map(record).collect()
}

/// As much of TCP Fast Open as the kernel's switch allows.
fn fast_open() -> &'static str {
    let switch = fs::read_to_string("/proc/sys/net/ipv4/tcp_fastopen").unwrap();
    match switch.trim().parse::<u32>().unwrap() & 3 {
        0 => "off",
        1 => "backends",
        2 => "clients",
        _ => "both",
    }
}

/// Takes the PROXY header of version 2 away, greets, and sends back what it gets.
fn after_a_header(mut stream: TcpStream) {
    let mut head = [0; 16];
    // A probe may leave before it has said anything.
    if stream.read_exact(&mut head).is_err() {
        return;
    }
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[14], head[15]]))];
    let whole = stream.read_exact(&mut rest).is_ok();
    if !whole || head[..12] != *b"\r\n\r\n\0\r\nQUIT\n" || stream.write_all(b"p1\n").is_err() {
        return;
    }
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..read]).is_err() {
            return;
        }
    }
}
