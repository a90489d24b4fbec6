//! Real servers to put behind Ballast, each in a directory and at an address of its own.

use std::fs;
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::address::fresh_ip;
use super::patience::eventually;
use super::proc::dies_with_its_test;
use super::programs::postgres_program;

/// The file without which nginx says that it is not ready.
pub const READY: &str = "ready";
/// What the superuser of a PostgreSQL that asks for one gives.
pub const PASSWORD: &str = "its own";
/// Where PostgreSQL has its cluster.
const DATA: &str = "data";
/// Where MariaDB, redis and nginx listen besides.
const SOCKET: &str = "socket";

/// A running server.
pub struct Server {
    /// What it was started by.
    command: Command,
    child: Child,
    address: SocketAddr,
    stop: Signal,
    directory: TempDir,
}

impl Server {
    /// `redis-server`, without persistence.
    pub fn redis() -> Self {
        Self::redis_with(&[])
    }

    /// The same with options of its own.
    pub fn redis_with(options: &[&str]) -> Self {
        let ip = fresh_ip();
        let port = 6379;
        Self::start(ip, port, Signal::KILL, |directory| {
            let mut command = Command::new("redis-server");
            command
                .args(["--bind", &ip.to_string(), "--port", &port.to_string()])
                .args(["--save", "", "--appendonly", "no", "--dir"])
                .arg(directory)
                .arg("--unixsocket")
                .arg(directory.join(SOCKET))
                .args(options);
            command
        })
    }

    /// nginx with one small page.
    pub fn nginx() -> Self {
        Self::nginx_with("", |directory, address| {
            let ready = directory.join(READY);
            let ready = ready.display();
            let socket = directory.join(SOCKET);
            let socket = socket.display();
            web(&format!(
                "listen {address};
                 listen unix:{socket};
                 location / {{ return 200 'a page\\n'; }}
                 location = /ready {{
                     if (!-f {ready}) {{ return 503; }}
                     return 200 'all well\\n';
                 }}"
            ))
        })
    }

    /// nginx that is told who its client is, and tells the client.
    pub fn nginx_behind_a_proxy() -> Self {
        Self::nginx_with("", |_, address| {
            web(&format!(
                "listen {address} proxy_protocol;
                 location = /who {{ return 200 '$proxy_protocol_addr $proxy_protocol_port\\n'; }}"
            ))
        })
    }

    /// nginx that tells the server at `address` by version 1 of the PROXY protocol who its client is.
    pub fn nginx_in_front_of(address: SocketAddr) -> Self {
        let module = "load_module /usr/lib/nginx/modules/ngx_stream_module.so;";
        Self::nginx_with(module, |_, own| {
            format!(
                "stream {{ server {{ listen {own}; proxy_pass {address}; proxy_protocol on; }} }}"
            )
        })
    }

    /// A Prometheus that scrapes `target` several times a second as the job `ballast`, with these rules.
    pub fn prometheus(target: SocketAddr, rules: &Path) -> Self {
        let ip = fresh_ip();
        let port = 9090;
        Self::start(ip, port, Signal::TERM, |directory| {
            let file = directory.join("prometheus.yml");
            let rules = rules.display();
            let text = format!(
                "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
                 rule_files: ['{rules}']\n\
                 scrape_configs:\n\
                 - job_name: ballast\n  static_configs:\n  - targets: ['{target}']\n"
            );
            fs::write(&file, text).expect("the directory takes a file");
            let mut command = Command::new("prometheus");
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    directory.join("data").display()
                ))
                .arg(format!("--web.listen-address={ip}:{port}"))
                .arg("--log.level=error");
            command
        })
    }

    fn nginx_with(module: &str, body: impl Fn(&Path, SocketAddr) -> String) -> Self {
        let ip = fresh_ip();
        let port = 8080;
        Self::start(ip, port, Signal::TERM, |directory| {
            let file = directory.join("nginx.conf");
            // Root's workers would run as a user who cannot see this directory.
            let user = if is_root() { "user root;" } else { "" };
            let body = body(directory, SocketAddr::new(ip.into(), port));
            let text = format!(
                "{module} daemon off; {user} worker_processes 1; pid nginx.pid; error_log stderr crit;
                 events {{ worker_connections 4096; }}
                 {body}"
            );
            fs::write(&file, text).expect("the directory takes a file");
            let mut command = Command::new("nginx");
            command
                .args(["-e", "stderr", "-p"])
                .arg(directory)
                .arg("-c")
                .arg(file);
            command
        })
    }

    /// HAProxy that is told who its client is, and tells the client, with the name of the connection.
    pub fn haproxy_behind_a_proxy() -> Self {
        Self::haproxy(|own| {
            format!(
                "frontend who
                 mode http
                 bind {own} accept-proxy
                 http-request return status 200 content-type text/plain lf-string \"%[src] %[src_port] %[fc_pp_unique_id]\"\n"
            )
        })
    }

    /// HAProxy that tells the server at `address` who its client is, by these options of a `server`.
    pub fn haproxy_in_front_of(address: SocketAddr, options: &str) -> Self {
        Self::haproxy(|own| {
            format!(
                "listen proxy
                 mode tcp
                 bind {own}
                 unique-id-format %ci-%cp
                 server only {address} {options}\n"
            )
        })
    }

    fn haproxy(body: impl Fn(SocketAddr) -> String) -> Self {
        let ip = fresh_ip();
        let port = 8081;
        Self::start(ip, port, Signal::KILL, |directory| {
            let file = directory.join("haproxy.cfg");
            let text = format!(
                "defaults\ntimeout connect 10s\ntimeout client 60s\ntimeout server 60s\n{}",
                body(SocketAddr::new(ip.into(), port))
            );
            fs::write(&file, text).expect("the directory takes a file");
            let mut command = Command::new("haproxy");
            command.arg("-db").arg("-f").arg(file);
            command
        })
    }

    /// A `redis-server` that follows another.
    pub fn redis_replica_of(master: &Self) -> Self {
        let replica = Self::redis();
        replica.follow(master);
        replica
    }

    /// Has this redis follow another.
    pub fn follow(&self, master: &Self) {
        let (ip, port) = (master.address.ip(), master.address.port());
        self.redis_command(&["replicaof", &ip.to_string(), &port.to_string()]);
    }

    /// Tells this redis something, which it must take.
    pub fn redis_command(&self, words: &[&str]) {
        let said = run(Command::new("redis-cli")
            .args(["-h", &self.address.ip().to_string()])
            .args(["-p", &self.address.port().to_string()])
            .args(words));
        assert!(said.starts_with("OK"), "{said}");
    }

    /// MariaDB with fresh tables, and a user without a password and without rights.
    pub fn mariadb(user: &str) -> Self {
        let ip = fresh_ip();
        let port = 3306;
        let server = Self::start(ip, port, Signal::TERM, |directory| {
            let data = directory.join("data");
            run(Command::new("mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal"])
                .args(["--skip-test-db", "--user=root"])
                .arg(format!("--datadir={}", data.display())));
            let mut command = Command::new("mariadbd");
            command.args(["--no-defaults", "--user=root"]).args([
                format!("--datadir={}", data.display()),
                format!("--socket={}", directory.join(SOCKET).display()),
                format!("--bind-address={ip}"),
                format!("--port={port}"),
                "--max-connect-errors=3".to_owned(),
            ]);
            command
        });
        server.sql(&format!("create user '{user}'@'%'"));
        server
    }

    /// Has this MariaDB do something, over its socket.
    pub fn sql(&self, statement: &str) -> String {
        run(Command::new("mariadb")
            .args(["--no-defaults", "--user=root"])
            .args(["--batch", "--skip-column-names", "--socket"])
            .arg(self.directory.path().join(SOCKET))
            .args(["--execute", statement]))
    }

    /// A TLS server whose certificate is good for so many days.
    pub fn tls(days: u32) -> Self {
        Self::tls_by(days, "prime256v1", |_| {})
    }

    /// A TLS server with a key of a kind that few read, in a certificate of X.509's first version: the
    /// one that OpenSSL 3.0 makes without extensions.
    pub fn tls_of_old() -> Self {
        Self::tls_by(365, "secp521r1", |request| {
            let file = request.get_current_dir().expect("set").join("plain.cnf");
            fs::write(&file, "[req]\ndistinguished_name = none\n[none]\n").expect("writable");
            request.arg("-config").arg(file);
        })
    }

    fn tls_by(days: u32, curve: &str, alter: impl Fn(&mut Command)) -> Self {
        let ip = fresh_ip();
        let port = 8443;
        Self::start(ip, port, Signal::KILL, |directory| {
            let (key, certificate) = (directory.join("key"), directory.join("certificate"));
            let mut request = Command::new("openssl");
            request
                .current_dir(directory)
                .args(["req", "-x509", "-newkey", "ec", "-nodes"])
                .args(["-subj", "/CN=test"])
                .args(["-pkeyopt", &format!("ec_paramgen_curve:{curve}")])
                .args(["-days", &days.to_string(), "-keyout"])
                .arg(&key)
                .arg("-out")
                .arg(&certificate);
            alter(&mut request);
            run(&mut request);
            let mut command = Command::new("openssl");
            command
                .args(["s_server", "-quiet", "-accept", &format!("{ip}:{port}")])
                .arg("-key")
                .arg(&key)
                .arg("-cert")
                .arg(&certificate);
            command
        })
    }

    /// PostgreSQL with a fresh cluster that trusts everyone.
    pub fn postgres() -> Self {
        Self::postgres_with(&[])
    }

    /// The same with settings of its own.
    pub fn postgres_with(settings: &[&str]) -> Self {
        Self::postgres_in(settings, |data| {
            run(unprivileged(&postgres_program("initdb"))
                .args(["--auth=trust", "--no-sync", "--username=postgres", "-D"])
                .arg(data));
        })
    }

    /// PostgreSQL that asks everyone for a password by this method, its superuser for [`PASSWORD`].
    pub fn postgres_asking(method: &str) -> Self {
        Self::postgres_in(&[], |data| {
            let file = data.with_extension("password");
            fs::write(&file, PASSWORD).expect("the directory takes a file");
            run(unprivileged(&postgres_program("initdb"))
                .args(["--auth", method, "--no-sync", "--username=postgres"])
                .arg(format!("--pwfile={}", file.display()))
                .arg("-D")
                .arg(data));
        })
    }

    /// A standby that follows another PostgreSQL by streaming.
    pub fn postgres_standby_of(primary: &Self) -> Self {
        Self::postgres_in(&[], |data| {
            run(unprivileged(&postgres_program("pg_basebackup"))
                .args(["--write-recovery-conf", "--checkpoint=fast", "--no-sync"])
                .args(["-h", &primary.address.ip().to_string()])
                .args(["-p", &primary.address.port().to_string()])
                .args(["-U", "postgres", "-D"])
                .arg(data));
        })
    }

    /// PostgreSQL with the cluster that `fill` makes.
    fn postgres_in(settings: &[&str], fill: impl Fn(&Path)) -> Self {
        let ip = fresh_ip();
        let port = 5432;
        let server = Self::start(ip, port, Signal::INT, |directory| {
            let data = directory.join(DATA);
            fs::create_dir(&data).expect("a new directory");
            hand_over(&data);
            fill(&data);
            let mut command = unprivileged(&postgres_program("postgres"));
            command
                .arg("-D")
                .arg(&data)
                .args(["-h", &ip.to_string(), "-p", &port.to_string()])
                .args(["-c", "fsync=off", "-c", "max_connections=200"])
                .args(["-c", "unix_socket_directories="])
                .args(settings.iter().flat_map(|setting| ["-c", setting]));
            command
        });
        server.await_postgres();
        server
    }

    /// It listens before it serves.
    fn await_postgres(&self) {
        let (ip, port) = (self.address.ip(), self.address.port());
        eventually("PostgreSQL is ready", || {
            let ready = Command::new(postgres_program("pg_isready"))
                .args(["--quiet", "-h", &ip.to_string(), "-p", &port.to_string()])
                .status()
                .expect("pg_isready is where pgbench is");
            ready.success().then_some(())
        });
    }

    /// Makes a primary of this standby.
    pub fn promote(&self) {
        run(unprivileged(&postgres_program("pg_ctl"))
            .args(["promote", "--wait", "-D"])
            .arg(self.directory.path().join(DATA)));
    }

    /// Starts this PostgreSQL, which has ended, again as the standby of another one.
    pub fn return_behind(&mut self, primary: &Self) {
        let data = self.directory.path().join(DATA);
        let (ip, port) = (primary.address.ip(), primary.address.port());
        let mut settings = fs::OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.auto.conf"))
            .expect("every cluster has it");
        writeln!(
            settings,
            "primary_conninfo = 'host={ip} port={port} user=postgres'"
        )
        .expect("it can be written");
        fs::write(data.join("standby.signal"), "").expect("the cluster takes a file");
        self.start_again();
        self.await_postgres();
    }

    /// Has this PostgreSQL do something, as its superuser; what it says, without headings.
    pub fn psql(&self, statement: &str) -> String {
        psql(self.address, statement)
    }

    /// aiosmtpd, a mail server that speaks first, says what it gets, and drops it.
    pub fn smtp() -> Self {
        let ip = fresh_ip();
        let port = 2525;
        Self::start(ip, port, Signal::KILL, |_| {
            let mut command = Command::new("/usr/bin/python3");
            command
                .args(["-u", "-m", "aiosmtpd", "--nosetuid", "--listen"])
                .arg(format!("{ip}:{port}"))
                .args(["--class", "aiosmtpd.handlers.Debugging", "stdout"]);
            command
        })
    }

    /// Prometheus's Alertmanager, which tells nobody.
    pub fn alertmanager() -> Self {
        let ip = fresh_ip();
        let port = 9093;
        Self::start(ip, port, Signal::TERM, |directory| {
            let file = directory.join("alertmanager.yml");
            let text = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n";
            fs::write(&file, text).expect("the directory takes a file");
            let mut command = Command::new("prometheus-alertmanager");
            command
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.path={}",
                    directory.join("data").display()
                ))
                .arg(format!("--web.listen-address={ip}:{port}"))
                .arg("--cluster.listen-address=");
            command
        })
    }

    /// A server that `script` makes in Python, run with its address and its port, once `prepare` has
    /// put what it needs into its directory.
    pub fn python(script: &str, prepare: impl Fn(&Path, Ipv4Addr)) -> Self {
        let ip = fresh_ip();
        let port = 8443;
        Self::start(ip, port, Signal::KILL, |directory| {
            prepare(directory, ip);
            let mut command = Command::new("/usr/bin/python3");
            command.args(["-c", script, &ip.to_string(), &port.to_string()]);
            command
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A directory of its own.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path at which it listens besides.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    /// What it has said so far, on its standard output and error.
    pub fn output(&self) -> String {
        fs::read_to_string(self.directory.path().join("output")).expect("text")
    }

    /// Stops it in its tracks. Its kernel goes on taking connections.
    pub fn freeze(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("it runs");
    }

    /// Which process it is.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it end in good order.
    pub fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), self.stop).expect("it runs");
        self.child.wait().expect("it is our child");
    }

    /// Starts it where it was, after it has ended.
    pub fn start_again(&mut self) {
        self.child = self.command.spawn().expect("the server starts");
        self.await_listening();
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("it runs");
    }

    /// Kills it. Whatever connects from the returned moment on finds nobody.
    pub fn kill(&mut self) -> Instant {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it is our child");
        Instant::now()
    }

    fn start(ip: Ipv4Addr, port: u16, stop: Signal, command: impl Fn(&Path) -> Command) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        // A server with a user of its own must reach what lies in here.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
            .expect("our directory");
        let output = fs::File::create(directory.path().join("output")).expect("a new file");
        let mut command = command(directory.path());
        let child = dies_with_its_test(&mut command)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("descriptors"))
            .stderr(output)
            .spawn()
            .expect("the server starts");
        let mut server = Self {
            command,
            child,
            address: SocketAddr::new(ip.into(), port),
            stop,
            directory,
        };
        server.await_listening();
        server
    }

    fn await_listening(&mut self) {
        eventually("the server listens", || {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("the server ended with {status}: {:?}", self.output());
            }
            TcpStream::connect_timeout(&self.address, Duration::from_secs(1)).ok()
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            // It may be gone by now, which is as good.
            kill_process(Pid::from_child(&self.child), self.stop).ok();
            kill_process(Pid::from_child(&self.child), Signal::CONT).ok();
            self.child.wait().ok();
        }
    }
}

/// Has the PostgreSQL at `address` do something, as its superuser; what it says, without headings.
pub fn psql(address: SocketAddr, statement: &str) -> String {
    run(Command::new(postgres_program("psql"))
        .args(["-h", &address.ip().to_string()])
        .args(["-p", &address.port().to_string()])
        .args(["-U", "postgres", "--no-align", "--tuples-only"])
        .args(["-c", statement])
        .env("PGPASSWORD", PASSWORD))
}

/// Runs a command to its end, which must be a success and come in time; what it said.
pub fn run(command: &mut Command) -> String {
    const LONGEST: Duration = Duration::from_secs(120);
    // Both streams into one file: no pipe that fills up while nobody reads.
    let mut output = tempfile::tempfile().expect("a temporary file");
    let mut child = dies_with_its_test(command)
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("descriptors"))
        .stderr(output.try_clone().expect("descriptors"))
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let started = Instant::now();
    let status = loop {
        match child.try_wait().expect("it is our child") {
            Some(status) => break Some(status),
            None if started.elapsed() > LONGEST => {
                child.kill().expect("it runs");
                child.wait().expect("it is our child");
                break None;
            }
            None => thread::sleep(Duration::from_millis(10)),
        }
    };
    let mut said = String::new();
    output
        .seek(SeekFrom::Start(0))
        .and_then(|_| output.read_to_string(&mut said))
        .expect("what it said is text");
    match status {
        Some(status) if status.success() => said,
        Some(status) => panic!("{command:?}: {status}\n{said}"),
        None => panic!("{command:?} did not end within {LONGEST:?}\n{said}"),
    }
}

/// The part of a configuration of nginx that serves pages.
fn web(server: &str) -> String {
    format!(
        "http {{
             access_log off; keepalive_requests 1000000;
             client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
             uwsgi_temp_path uwsgi; scgi_temp_path scgi;
             server {{ {server} }}
         }}"
    )
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A command as a user that PostgreSQL accepts: it refuses to run as root.
fn unprivileged(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=nobody", "--regid=nogroup", "--clear-groups"])
            // A change of user clears it.
            .args(["--pdeathsig=KILL"])
            .arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn hand_over(directory: &Path) {
    if is_root() {
        // nobody and nogroup, by their fixed numbers.
        chown(directory, Some(65534), Some(65534)).expect("root may");
    }
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).expect("our directory");
}
