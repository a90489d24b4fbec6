//! What the soak runs: one daemon, a service for each way in which things may go, the servers behind them.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use tempfile::TempDir;

use crate::support::{
    Alert, Api, Backend, Config, Daemon, ProcessBackend, RELAYS, Service, fresh_ip,
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

/// Sessions at a time of each backend of [`QUEUED`].
const PLACES: i64 = 4;

/// The token of the admin endpoint.
const TOKEN: &str = "soak";

/// Everything that runs.
pub struct Site {
    pub daemon: Daemon,
    pub fragile: Vec<Backend>,
    pub mortal: Vec<ProcessBackend>,
    pub files: Files,
    _others: Vec<Backend>,
}

/// What the daemon reads.
pub struct Files {
    services: Vec<Service>,
    stable: Vec<Backend>,
    list: PathBuf,
    directory: TempDir,
}

impl Site {
    pub fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
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
        let list = directory.path().join("listed.toml");
        write_list(&list, &stable, 2);

        let at_fixed_port = |name: &str| Service::new(name).listen(free_address());
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
        fs::write(directory.path().join("token"), TOKEN).unwrap();
        let files = Files {
            services,
            stable,
            list,
            directory,
        };
        Self {
            daemon: Daemon::start(&files.config(None)),
            fragile,
            mortal,
            files,
            _others: others,
        }
    }

    pub fn address(&self, service: &str) -> SocketAddr {
        self.daemon.address(service)
    }

    /// The admin API, with the right to change.
    pub fn api(&self) -> Api {
        self.daemon.api().bearing(TOKEN)
    }
}

impl Files {
    /// The configuration: the plain one, or one of the many that come down to the same for clients.
    pub fn config(&self, chance: Option<&mut Rng>) -> Config {
        let place = |name: &str| self.directory.path().join(name);
        let path = |name: &str| place(name).to_str().unwrap().to_owned();
        let mut config = Config::new()
            .admin("listen", "127.0.0.1:0")
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
        for service in &self.services[STABLE.len()..] {
            config = config.service(service.clone());
        }
        if pick(2) == 1 {
            // A listener that comes and goes.
            config = config.service(
                Service::new("guest")
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

/// A port that nobody has at an address of its own: the port stays the same over all reloads.
fn free_address() -> SocketAddr {
    SocketAddr::new(fresh_ip().into(), 7001)
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
