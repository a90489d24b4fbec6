//! Configuration files, written the way an operator would.

use std::fmt::Write;
use std::net::SocketAddr;

use super::address::fresh_listen;

/// What `relay` may say, the default first.
pub const RELAYS: [&str; 3] = ["auto", "copy", "splice"];

/// A whole file.
#[derive(Clone, Debug)]
pub struct Config {
    runtime: Table,
    log: Table,
    discovery: Table,
    admin: Table,
    services: Vec<Service>,
    alerts: Vec<Alert>,
}

type Table = Vec<(String, toml::Value)>;

impl Config {
    /// A file that logs JSON, on which the harness depends.
    pub fn new() -> Self {
        Self {
            runtime: Table::new(),
            log: Table::new(),
            discovery: Table::new(),
            admin: Table::new(),
            services: Vec::new(),
            alerts: Vec::new(),
        }
        .runtime("workers", 2)
        .log("format", "json")
    }

    /// A file with one service.
    pub fn of(service: Service) -> Self {
        Self::new().service(service)
    }

    /// One service for each way to relay, named after it.
    pub fn of_each_relay(shape: impl Fn(Service) -> Service) -> Self {
        RELAYS.into_iter().fold(Self::new(), |config, relay| {
            config.service(shape(Service::new(relay).relay(relay)))
        })
    }

    /// Sets a key of `[runtime]`.
    pub fn runtime(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.runtime, key, value);
        self
    }

    /// Sets a key of `[log]`.
    pub fn log(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.log, key, value);
        self
    }

    /// Sets a key of `[discovery]`.
    pub fn discovery(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.discovery, key, value);
        self
    }

    /// Sets a key of `[admin]`.
    pub fn admin(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.admin, key, value);
        self
    }

    /// Has every session leave its line.
    pub fn log_every_session(self) -> Self {
        self.log("sessions", "all")
    }

    /// Adds a service.
    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    /// Without its services.
    pub fn without_services(mut self) -> Self {
        self.services.clear();
        self
    }

    /// Adds an alert.
    pub fn alert(mut self, alert: Alert) -> Self {
        self.alerts.push(alert);
        self
    }

    /// The file.
    pub fn text(&self) -> String {
        let mut out = String::new();
        table(&mut out, "[runtime]", &self.runtime);
        table(&mut out, "[log]", &self.log);
        table(&mut out, "[discovery]", &self.discovery);
        table(&mut out, "[admin]", &self.admin);
        for service in &self.services {
            service.write(&mut out);
        }
        for alert in &self.alerts {
            table(&mut out, "[[alert]]", &alert.0);
        }
        out
    }
}

/// One `[[alert]]`.
#[derive(Clone, Debug)]
pub struct Alert(Table);

impl Alert {
    /// An alert by POST, at once and without limits that a test would notice.
    pub fn webhook(name: &str, on: &[&str], url: &str) -> Self {
        Self::new(name, on).key("webhook", url)
    }

    /// An alert by a program, with its arguments.
    pub fn exec(name: &str, on: &[&str], command: &[&str]) -> Self {
        let command: Vec<toml::Value> = command.iter().map(|&word| word.into()).collect();
        Self::new(name, on).key("exec", command)
    }

    fn new(name: &str, on: &[&str]) -> Self {
        let on: Vec<toml::Value> = on.iter().map(|&word| word.into()).collect();
        Self(Table::new())
            .key("name", name)
            .key("on", on)
            .key("group_wait", "0s")
            .key("max_per_minute", 600)
            .key("backoff", "20ms")
    }

    /// Sets any key.
    pub fn key(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.0, key, value);
        self
    }
}

/// One `[[service]]`.
#[derive(Clone, Debug)]
pub struct Service {
    keys: Table,
    timeouts: Table,
    queue: Table,
    session: Table,
    socket: Table,
    access: Table,
    limits: Table,
    proxy_protocol: Table,
    health: Table,
    passive: Table,
    listen: Vec<String>,
    backends: Vec<Table>,
}

impl Service {
    /// A service with one listener at an address of its own.
    pub fn new(name: &str) -> Self {
        let mut keys = Table::new();
        set(&mut keys, "name", name);
        Self {
            keys,
            timeouts: Table::new(),
            queue: Table::new(),
            session: Table::new(),
            socket: Table::new(),
            access: Table::new(),
            limits: Table::new(),
            proxy_protocol: Table::new(),
            health: Table::new(),
            passive: Table::new(),
            listen: vec![fresh_listen()],
            backends: Vec::new(),
        }
    }

    /// Listens here and nowhere else.
    pub fn listen(mut self, address: impl ToString) -> Self {
        self.listen = vec![address.to_string()];
        self
    }

    /// Listens here too.
    pub fn also_listen(mut self, address: impl ToString) -> Self {
        self.listen.push(address.to_string());
        self
    }

    /// Sets `strategy`.
    pub fn strategy(self, name: &str) -> Self {
        self.key("strategy", name)
    }

    /// Sets `relay`, one of [`RELAYS`].
    pub fn relay(self, mode: &str) -> Self {
        self.key("relay", mode)
    }

    /// Sets any key of the service itself.
    pub fn key(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.keys, key, value);
        self
    }

    /// Sets a key of `[service.timeouts]`.
    pub fn timeout(mut self, key: &str, value: &str) -> Self {
        set(&mut self.timeouts, key, value);
        self
    }

    /// Sets a key of `[service.queue]`.
    pub fn queue(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.queue, key, value);
        self
    }

    /// Sets `max_lifetime`.
    pub fn max_lifetime(mut self, value: &str) -> Self {
        set(&mut self.session, "max_lifetime", value);
        self
    }

    /// Sets a key of `[service.socket]`.
    pub fn socket(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.socket, key, value);
        self
    }

    /// Sets a key of `[service.access]`.
    pub fn access(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.access, key, value);
        self
    }

    /// Sets a key of `[service.limits]`.
    pub fn limits(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.limits, key, value);
        self
    }

    /// Sets a key of `[service.proxy_protocol]`.
    pub fn proxy_protocol(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.proxy_protocol, key, value);
        self
    }

    /// Sets a key of `[service.health]`.
    pub fn health(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.health, key, value);
        self
    }

    /// Sets a key of `[service.passive]`.
    pub fn passive(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(&mut self.passive, key, value);
        self
    }

    /// Probes so often that a test need not wait for a transition.
    pub fn quick_health(self) -> Self {
        self.health("interval", "100ms")
            .health("timeout", "1s")
            .health("rise", 2)
            .health("fall", 2)
    }

    /// Takes `fall` so high that a backend whose first verdict was good stays in rotation for the
    /// rest of the test, whatever happens to it.
    pub fn blind_health(self) -> Self {
        self.health("interval", "500ms")
            .health("timeout", "400ms")
            .health("fall", 1000)
            .passive("enabled", false)
    }

    /// Probes so rarely that after the first verdicts only evidence from sessions takes a backend
    /// out.
    pub fn rare_health(self) -> Self {
        self.health("interval", "1m").health("timeout", "300ms")
    }

    /// Adds a backend.
    pub fn backend(self, name: &str, address: SocketAddr) -> Self {
        self.add(name, address, None)
    }

    /// Adds a backend with a weight.
    pub fn weighted(self, name: &str, address: SocketAddr, weight: i64) -> Self {
        self.add(name, address, Some(weight))
    }

    /// Adds a backend that takes so many sessions at a time.
    pub fn capped(mut self, name: &str, address: SocketAddr, most: i64) -> Self {
        self = self.add(name, address, None);
        let backend = self.backends.last_mut().expect("just added");
        set(backend, "max_connections", most);
        self
    }

    /// Adds a backend whose place is said by `key`: an `address` that is a name, or a `srv`.
    pub fn placed(mut self, name: &str, key: &str, place: &str) -> Self {
        let mut backend = Table::new();
        set(&mut backend, "name", name);
        set(&mut backend, key, place);
        self.backends.push(backend);
        self
    }

    /// Sets a further key of the last backend.
    pub fn also_placed(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        set(self.backends.last_mut().expect("a backend"), key, value);
        self
    }

    /// Sends the checks of a backend that was added to another address.
    pub fn check_address(mut self, name: &str, address: SocketAddr) -> Self {
        let name = toml::Value::from(name);
        let is_it = |backend: &&mut Table| backend.iter().any(|(_, value)| *value == name);
        let backend = self.backends.iter_mut().find(is_it);
        let backend = backend.expect("it was added");
        set(backend, "check_address", address.to_string());
        self
    }

    /// Adds a backend to a tier.
    pub fn prioritised(mut self, name: &str, address: SocketAddr, priority: i64) -> Self {
        self = self.backend(name, address);
        if let Some(backend) = self.backends.last_mut() {
            set(backend, "priority", priority);
        }
        self
    }

    /// Takes all backends out.
    pub fn without_backends(mut self) -> Self {
        self.backends.clear();
        self
    }

    fn add(mut self, name: &str, address: SocketAddr, weight: Option<i64>) -> Self {
        let mut backend = Table::new();
        set(&mut backend, "name", name);
        set(&mut backend, "address", address.to_string());
        if let Some(weight) = weight {
            set(&mut backend, "weight", weight);
        }
        self.backends.push(backend);
        self
    }

    fn write(&self, out: &mut String) {
        let mut keys = self.keys.clone();
        set(&mut keys, "listen", self.listen.clone());
        table(out, "[[service]]", &keys);
        for (header, entries) in [
            ("[service.timeouts]", &self.timeouts),
            ("[service.queue]", &self.queue),
            ("[service.session]", &self.session),
            ("[service.socket]", &self.socket),
            ("[service.access]", &self.access),
            ("[service.limits]", &self.limits),
            ("[service.proxy_protocol]", &self.proxy_protocol),
            ("[service.health]", &self.health),
            ("[service.passive]", &self.passive),
        ] {
            if !entries.is_empty() {
                table(out, header, entries);
            }
        }
        for backend in &self.backends {
            table(out, "[[service.backend]]", backend);
        }
    }
}

fn set(table: &mut Table, key: &str, value: impl Into<toml::Value>) {
    let value = value.into();
    match table.iter_mut().find(|(known, _)| known == key) {
        Some((_, old)) => *old = value,
        None => table.push((key.to_owned(), value)),
    }
}

fn table(out: &mut String, header: &str, entries: &Table) {
    writeln!(out, "{header}").expect("writing to a string");
    for (key, value) in entries {
        writeln!(out, "{key} = {value}").expect("writing to a string");
    }
    out.push('\n');
}
