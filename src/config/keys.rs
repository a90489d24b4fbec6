//! Every key that a file may have: the one table that the decoder, the messages and the test of the
//! reference file read.

/// A table of the file.
#[derive(Debug)]
pub struct Section {
    /// Its path, empty for the file itself.
    pub path: &'static str,
    /// How its header is written, empty for the file itself.
    pub header: &'static str,
    /// What it may hold.
    pub keys: &'static [Key],
}

/// One key of a section.
#[derive(Debug)]
pub struct Key {
    /// As written left of the `=`.
    pub name: &'static str,
    /// What holds when it is not written.
    pub preset: Preset,
    /// What it is, in one line.
    pub doc: &'static str,
}

/// What holds when a key is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Nothing: it has to be written.
    Required,
    /// This value, as it would be written.
    Is(&'static str),
    /// A value that depends on something else, in words.
    Derived(&'static str),
    /// The feature is off.
    Off,
    /// The key is a section of its own.
    Section,
}

impl Section {
    /// Whether `name` may be written here.
    pub fn has(&self, name: &str) -> bool {
        self.keys.iter().any(|key| key.name == name)
    }
}

const fn key(name: &'static str, preset: Preset, doc: &'static str) -> Key {
    Key { name, preset, doc }
}

use Preset::{Derived, Is, Off, Required};

/// The file itself.
pub static ROOT: Section = Section {
    path: "",
    header: "",
    keys: &[
        key("runtime", Preset::Section, "the process as a whole"),
        key("log", Preset::Section, "what is logged, and how"),
        key(
            "discovery",
            Preset::Section,
            "how names that backends are behind are followed",
        ),
        key("admin", Preset::Section, "the admin endpoint"),
        key(
            "service",
            Preset::Section,
            "listeners with the backends behind them",
        ),
        key("alert", Preset::Section, "who is told of what"),
    ],
};

/// `[runtime]`
pub static RUNTIME: Section = Section {
    path: "runtime",
    header: "[runtime]",
    keys: &[
        key("workers", Derived("one per core"), "threads that relay"),
        key(
            "max_connections",
            Derived("from the descriptor limit"),
            "sessions at a time over all services",
        ),
        key(
            "accept_rate",
            Off,
            "clients in a time over all services; more wait to be accepted",
        ),
        key(
            "dry_run",
            Is("false"),
            "which of these two limits only count whom they would keep waiting",
        ),
        key(
            "drain_timeout",
            Is("\"30s\""),
            "how long a stop waits for running sessions",
        ),
        key(
            "resolve_timeout",
            Is("\"5s\""),
            "the most that all name look-ups of a start or reload take together",
        ),
        key(
            "reload_guard",
            Is("\"refuse\""),
            "what is done with a reload that would leave a service without a backend up",
        ),
        key(
            "state_file",
            Derived("state.json in systemd's StateDirectory, else off"),
            "what is known of backends, kept over restarts",
        ),
        key(
            "state_max_age",
            Is("\"1d\""),
            "an older state file is ignored at the start",
        ),
        key(
            "user",
            Derived("whoever starts it"),
            "whom a daemon that root starts becomes",
        ),
        key(
            "group",
            Derived("the group of that user"),
            "and with which group",
        ),
        key(
            "sandbox",
            Is("\"on\""),
            "what it may still ask of the kernel once it runs",
        ),
    ],
};

/// `[log]`
pub static LOG: Section = Section {
    path: "log",
    header: "[log]",
    keys: &[
        key(
            "level",
            Is("\"info\""),
            "the least important level that is written",
        ),
        key("format", Is("\"text\""), "how a line looks"),
        key("sessions", Is("\"failed\""), "which sessions get a line"),
    ],
};

/// `[discovery]`
pub static DISCOVERY: Section = Section {
    path: "discovery",
    header: "[discovery]",
    keys: &[
        key(
            "resolvers",
            Derived("those of /etc/resolv.conf"),
            "the DNS servers to ask",
        ),
        key(
            "timeout",
            Is("\"2s\""),
            "for one question to one server, which is asked twice",
        ),
        key(
            "min_ttl",
            Is("\"1s\""),
            "an answer is used for at least this long",
        ),
        key(
            "max_ttl",
            Is("\"5m\""),
            "an answer is used for at most this long",
        ),
        key(
            "hold",
            Is("\"30s\""),
            "how long backends outlive an answer without an address",
        ),
    ],
};

/// `[admin]`
pub static ADMIN: Section = Section {
    path: "admin",
    header: "[admin]",
    keys: &[
        key("listen", Off, "where the admin endpoint listens"),
        key("mode", Is("\"0600\""), "permissions of its Unix socket"),
        key(
            "owner",
            Derived("the user that runs ballast"),
            "who owns its Unix socket",
        ),
        key(
            "group",
            Derived("the group of that user"),
            "which group does",
        ),
        key(
            "token_file",
            Off,
            "holds the bearer token that changes over TCP need",
        ),
        key(
            "lame_duck",
            Is("\"0s\""),
            "how long /readyz fails before a stop closes listeners",
        ),
    ],
};

/// `[[service]]`
pub static SERVICE: Section = Section {
    path: "service",
    header: "[[service]]",
    keys: &[
        key("name", Required, "unique among the services"),
        key("listen", Required, "one address or several"),
        key(
            "dual_stack",
            Is("false"),
            "whether an IPv6 wildcard takes IPv4 clients too",
        ),
        key("strategy", Is("\"round-robin\""), "how a backend is picked"),
        key(
            "hash_ipv6_prefix",
            Is("64"),
            "leading bits of an IPv6 source that source-hash looks at",
        ),
        key(
            "max_load",
            Off,
            "the most that source-hash gives a backend, as a multiple of its even share",
        ),
        key(
            "backlog",
            Is("4096"),
            "handshakes that the kernel holds, per listener and up to four workers",
        ),
        key("relay", Is("\"auto\""), "how bytes move"),
        key(
            "retries",
            Is("2"),
            "further backends that a session tries when a connect fails",
        ),
        key(
            "min_up",
            Is("1"),
            "a tier of backends joins while fewer of those before it are up",
        ),
        key(
            "fail_back",
            Is("\"immediate\""),
            "when a tier that stands in leaves again",
        ),
        key(
            "slow_start",
            Is("\"0s\""),
            "how long a backend that came back takes to get its full share",
        ),
        key(
            "when_all_down",
            Is("\"refuse\""),
            "what is done for clients when no backend is up",
        ),
        key(
            "on_down",
            Is("\"keep\""),
            "what becomes of the sessions of a backend that went down",
        ),
        key(
            "close_rate",
            Is("500"),
            "sessions a second that on_down = \"close\" ends",
        ),
        key(
            "timeouts",
            Preset::Section,
            "how long a session may wait, and for what",
        ),
        key(
            "queue",
            Preset::Section,
            "who waits while every backend is full",
        ),
        key("session", Preset::Section, "how long a session may live"),
        key(
            "socket",
            Preset::Section,
            "where connections come from, and how TCP behaves on them",
        ),
        key("access", Preset::Section, "which networks may come in"),
        key(
            "limits",
            Preset::Section,
            "how many clients may come in, and how fast their bytes may flow",
        ),
        key(
            "proxy_protocol",
            Preset::Section,
            "who clients are, as proxies say and backends are told",
        ),
        key(
            "health",
            Preset::Section,
            "when a backend counts as up or down",
        ),
        key(
            "passive",
            Preset::Section,
            "what failures of real sessions lead to",
        ),
        key(
            "backends_file",
            Off,
            "a list of further backends that another program writes",
        ),
        key("backend", Preset::Section, "one server"),
    ],
};

/// `[service.timeouts]`
pub static TIMEOUTS: Section = Section {
    path: "service.timeouts",
    header: "[service.timeouts]",
    keys: &[
        key("connect", Is("\"4s\""), "one connect to one backend"),
        key(
            "connect_total",
            Is("\"10s\""),
            "all connects of one session together",
        ),
        key("idle", Is("\"1h\""), "silence of a session open both ways"),
        key(
            "half_closed",
            Is("\"5m\""),
            "silence on the surviving direction of a half-closed session",
        ),
    ],
};

/// `[service.queue]`
pub static QUEUE: Section = Section {
    path: "service.queue",
    header: "[service.queue]",
    keys: &[
        key(
            "size",
            Is("1024"),
            "clients that wait while every backend is full; more are reset",
        ),
        key("timeout", Is("\"10s\""), "the longest wait for a place"),
    ],
};

/// `[service.session]`
pub static SESSION: Section = Section {
    path: "service.session",
    header: "[service.session]",
    keys: &[key(
        "max_lifetime",
        Off,
        "the longest that a session may live; 80 to 100 % of it, by chance",
    )],
};

/// `[service.socket]`
pub static SOCKET: Section = Section {
    path: "service.socket",
    header: "[service.socket]",
    keys: &[
        key(
            "source",
            Derived("where routes say"),
            "the addresses that connections to backends come from",
        ),
        key(
            "interface",
            Derived("where routes say"),
            "the interface that they leave by",
        ),
        key("mark", Off, "the mark of their packets"),
        key("mode", Is("\"0600\""), "permissions of its Unix sockets"),
        key(
            "owner",
            Derived("the user that runs ballast"),
            "who owns its Unix sockets",
        ),
        key(
            "group",
            Derived("the group of that user"),
            "which group does",
        ),
        key(
            "listen_interface",
            Derived("any"),
            "the interface that clients come by",
        ),
        key(
            "keepalive_idle",
            Is("\"60s\""),
            "after this silence a peer is probed, …",
        ),
        key(
            "keepalive_interval",
            Is("\"10s\""),
            "… then again every so often, …",
        ),
        key(
            "keepalive_count",
            Is("6"),
            "… and so many probes without an answer end the connection",
        ),
        key(
            "user_timeout",
            Off,
            "a peer that acknowledges nothing for this long is given up",
        ),
        key(
            "congestion",
            Derived("net.ipv4.tcp_congestion_control"),
            "the congestion control by which is sent",
        ),
        key(
            "mss",
            Derived("from the route"),
            "the largest segment, in bytes",
        ),
        key(
            "fast_open",
            Is("\"off\""),
            "who may have bytes in the SYN: TCP Fast Open",
        ),
        key(
            "mptcp",
            Is("false"),
            "whether clients may come over several paths at once: Multipath TCP",
        ),
        key(
            "defer_accept",
            Off,
            "a client that says nothing is not accepted for about this long",
        ),
    ],
};

/// `[service.access]`
pub static ACCESS: Section = Section {
    path: "service.access",
    header: "[service.access]",
    keys: &[
        key("allow", Off, "networks that may come in, and nobody else"),
        key("deny", Off, "networks that may not come in"),
        key("allow_file", Off, "a file with more networks to allow"),
        key("deny_file", Off, "a file with more networks to deny"),
        key(
            "dry_run",
            Is("false"),
            "whether those who may not come in are only counted",
        ),
    ],
};

/// `[service.limits]`
pub static LIMITS: Section = Section {
    path: "service.limits",
    header: "[service.limits]",
    keys: &[
        key(
            "max_connections",
            Off,
            "sessions at a time; more wait to be accepted",
        ),
        key(
            "accept_rate",
            Off,
            "clients in a time; more wait to be accepted",
        ),
        key(
            "max_per_source",
            Off,
            "sessions of one source at a time; more are reset",
        ),
        key(
            "rate_per_source",
            Off,
            "clients of one source in a time; more are reset",
        ),
        key(
            "source_ipv6_prefix",
            Is("64"),
            "leading bits of an IPv6 address that are one source",
        ),
        key("sources", Is("65536"), "sources that are counted at a time"),
        key(
            "to_backend",
            Off,
            "bytes a second from all clients together; more wait",
        ),
        key(
            "to_client",
            Off,
            "bytes a second to all clients together; more wait",
        ),
        key(
            "to_backend_per_session",
            Off,
            "bytes a second from each client; more wait",
        ),
        key(
            "to_client_per_session",
            Off,
            "bytes a second to each client; more wait",
        ),
        key(
            "dry_run",
            Is("false"),
            "which of these limits only count whom they would keep out, or slow down",
        ),
    ],
};

/// `[service.proxy_protocol]`
pub static PROXY_PROTOCOL: Section = Section {
    path: "service.proxy_protocol",
    header: "[service.proxy_protocol]",
    keys: &[
        key(
            "accept_from",
            Off,
            "proxies that say with a PROXY header who the client is; nobody else may connect",
        ),
        key(
            "timeout",
            Is("\"3s\""),
            "whoever has not sent a whole header by then is reset",
        ),
        key("send", Off, "the PROXY header that backends are sent"),
        key(
            "unique_id",
            Is("false"),
            "whether that header names the connection, as the log does",
        ),
    ],
};

/// `[service.health]`
pub static HEALTH: Section = Section {
    path: "service.health",
    header: "[service.health]",
    keys: &[
        key("kind", Is("\"tcp\""), "what a probe says and expects"),
        key(
            "port",
            Derived("the backend's"),
            "another port that is probed instead",
        ),
        key(
            "proxy_protocol",
            Derived("what sessions send, unless another port is probed"),
            "the PROXY header, LOCAL, that goes first",
        ),
        key("send", Off, "what is sent"),
        key("expect", Off, "what must be in the answer"),
        key("method", Is("\"GET\""), "of the request"),
        key("path", Is("\"/\""), "of the request"),
        key(
            "host",
            Derived("the address that is probed"),
            "of the request",
        ),
        key("status", Is("\"200-399\""), "the statuses that will do"),
        key("body", Off, "what must be in the body"),
        key("role", Off, "what the server must be"),
        key("user", Off, "who logs in"),
        key("password", Off, "with which password"),
        key(
            "database",
            Derived("the user's name"),
            "into which database",
        ),
        key("server_name", Off, "the name asked for by SNI"),
        key(
            "expires_within",
            Is("\"14d\""),
            "how long before a certificate expires it is warned of",
        ),
        key("command", Off, "a program and its arguments"),
        key(
            "interval",
            Is("\"2s\""),
            "between the starts of two probes, ±10 %",
        ),
        key(
            "fast_interval",
            Derived("500ms, or the interval if that is shorter"),
            "the same while a backend is between states",
        ),
        key(
            "down_interval",
            Derived("the interval"),
            "the same while a backend is down",
        ),
        key(
            "timeout",
            Is("\"1s\""),
            "a probe without an answer by then has failed",
        ),
        key(
            "rise",
            Is("2"),
            "successes in a row that bring a down backend up",
        ),
        key(
            "fall",
            Is("3"),
            "failures in a row that take an up backend down",
        ),
    ],
};

/// What `kind` may be.
pub static KINDS: &[&str] = &[
    "tcp", "http", "redis", "postgres", "mysql", "tls", "exec", "agent",
];

/// The keys of `[service.health]` that only some kinds have, and which.
pub static CHECK_KEYS: &[(&str, &[&str])] = &[
    (
        "proxy_protocol",
        &["tcp", "http", "redis", "postgres", "mysql", "tls", "agent"],
    ),
    ("send", &["tcp", "agent"]),
    ("expect", &["tcp"]),
    ("method", &["http"]),
    ("path", &["http"]),
    ("host", &["http"]),
    ("status", &["http"]),
    ("body", &["http"]),
    ("role", &["redis", "postgres"]),
    ("user", &["redis", "postgres", "mysql"]),
    ("password", &["redis", "postgres"]),
    ("database", &["postgres"]),
    ("server_name", &["tls"]),
    ("expires_within", &["tls"]),
    ("command", &["exec"]),
];

/// `[service.passive]`
pub static PASSIVE: Section = Section {
    path: "service.passive",
    header: "[service.passive]",
    keys: &[
        key(
            "enabled",
            Is("true"),
            "false counts failures and does nothing about them",
        ),
        key("failures", Is("3"), "so many failed sessions are evidence"),
        key("window", Is("\"10s\""), "if they fail within this time"),
        key(
            "confirm",
            Is("true"),
            "whether only a failed probe takes the backend out",
        ),
        key(
            "eject_time",
            Is("\"10s\""),
            "how long it is out without a probe, the first time",
        ),
        key(
            "max_ejected",
            Is("\"50%\""),
            "the most backends that evidence keeps out at a time",
        ),
    ],
};

/// `[[service.backend]]`
pub static BACKEND: Section = Section {
    path: "service.backend",
    header: "[[service.backend]]",
    keys: &[
        key(
            "name",
            Derived("the address as written"),
            "unique within the service",
        ),
        key("address", Required, "where it is, unless `srv` says so"),
        key(
            "srv",
            Off,
            "a name whose SRV records say where to connect, with weights and priorities",
        ),
        key(
            "family",
            Is("\"any\""),
            "which addresses of a name become backends",
        ),
        key(
            "weight",
            Is("1"),
            "its share, for the strategies that use weights",
        ),
        key(
            "priority",
            Is("0"),
            "its tier: those of priority 0 serve first",
        ),
        key(
            "max_connections",
            Off,
            "sessions at a time; more wait in the service's queue",
        ),
        key("enabled", Is("true"), "false sends it no new sessions"),
        key(
            "check_address",
            Derived("the address"),
            "where its check goes instead",
        ),
    ],
};

/// `[[alert]]`
pub static ALERT: Section = Section {
    path: "alert",
    header: "[[alert]]",
    keys: &[
        key("name", Required, "unique among the alerts"),
        key("on", Required, "what it tells of"),
        key(
            "services",
            Derived("every service"),
            "the services it is about",
        ),
        key(
            "degraded_below",
            Is("\"50%\""),
            "a smaller share of backends up is \"degraded\"",
        ),
        key(
            "flapping",
            Is("6"),
            "so many transitions of a backend are \"flapping\" …",
        ),
        key("flapping_window", Is("\"5m\""), "… within this time"),
        key("webhook", Off, "the URL that is sent a POST"),
        key("headers", Off, "headers of the POST"),
        key("token_file", Off, "holds the bearer token of the POST"),
        key("exec", Off, "the program that is run, with its arguments"),
        key(
            "group_wait",
            Is("\"3s\""),
            "how long the first event waits for others",
        ),
        key("min_interval", Is("\"0s\""), "between two alerts"),
        key("max_per_minute", Is("10"), "alerts within any minute"),
        key("timeout", Is("\"5s\""), "for one attempt to deliver"),
        key("retries", Is("3"), "attempts after the first"),
        key(
            "backoff",
            Is("\"1s\""),
            "before the first retry, doubled before each further one",
        ),
    ],
};

/// A file of backends, which another program writes.
pub static LIST: Section = Section {
    path: "",
    header: "",
    keys: &[key("backend", Preset::Section, "one server")],
};

/// `[[backend]]` of such a file: what may be written in the configuration may be written there.
pub static LISTED: Section = Section {
    path: "backend",
    header: "[[backend]]",
    keys: BACKEND.keys,
};

/// Every section there is, in the order of the reference file.
pub static SECTIONS: &[&Section] = &[
    &ROOT,
    &RUNTIME,
    &LOG,
    &DISCOVERY,
    &ADMIN,
    &SERVICE,
    &TIMEOUTS,
    &QUEUE,
    &SESSION,
    &SOCKET,
    &ACCESS,
    &LIMITS,
    &PROXY_PROTOCOL,
    &HEALTH,
    &PASSIVE,
    &BACKEND,
    &ALERT,
];
