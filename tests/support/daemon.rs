//! The real binary, started on a file in a directory of its own, and killed at the latest when the
//! test is over.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub use rustix::process::Signal;
use rustix::process::{Pid, Resource, Rlimit, kill_process, prlimit};
use tempfile::TempDir;

use super::api::Api;
use super::command::binary;
use super::config::Config;
use super::log::{Line, Log};
use super::patience::eventually;
use super::pipe_hog::Stranger;
use super::proc::{
    cpu_ticks, descriptors, dies_with_its_test, raise_descriptor_limit, resident_bytes,
};
use super::words;

/// What a daemon is started with.
#[derive(Debug, Default)]
pub struct Launch {
    prelude: String,
    env: Vec<(String, String)>,
    user: Option<Stranger>,
    reachable: bool,
    options: &'static str,
}

impl Launch {
    /// The plain command.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `script` in the shell that then becomes the daemon, keeping its process id.
    pub fn after(mut self, script: &str) -> Self {
        self.prelude.push_str(script);
        self.prelude.push_str("; ");
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, key: &str, value: impl AsRef<Path>) -> Self {
        let value = value.as_ref().to_str().expect("text").to_owned();
        self.env.push((key.to_owned(), value));
        self
    }

    /// Gives `ballast run` these options too.
    pub fn with(mut self, options: &'static str) -> Self {
        self.options = options;
        self
    }

    /// Runs the daemon as this user.
    pub fn run_as(mut self, user: Stranger) -> Self {
        self.user = Some(user);
        self
    }

    /// Lets other users reach the file.
    pub fn reachable(mut self) -> Self {
        self.reachable = true;
        self
    }

    /// Starts the daemon and waits until it is ready.
    pub fn start(self, config: &Config) -> Daemon {
        self.start_text(&config.text())
    }

    /// Like [`Launch::start`], with a file that no [`Config`] writes.
    pub fn start_text(self, text: &str) -> Daemon {
        let daemon = self.spawn(text);
        daemon
            .log
            .wait(0, words::READY, |line| line.says(words::READY));
        daemon
    }

    /// Starts a daemon that must refuse to run: its exit status and all it wrote.
    pub fn refuse(self, text: &str) -> (ExitStatus, String) {
        let mut daemon = self.spawn(text);
        let said = daemon.log.wait_for_end();
        (daemon.wait(), said)
    }

    fn spawn(self, text: &str) -> Daemon {
        raise_descriptor_limit();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("ballast.toml");
        fs::write(&file, text).expect("the directory takes a file");
        let mut become_user = String::new();
        if self.reachable || self.user.is_some() {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))
                .expect("our directory");
        }
        if let Some(user) = self.user {
            become_user = format!("setpriv {} ", user.options().join(" "));
        }
        let mut child = dies_with_its_test(&mut Command::new("sh"))
            .arg("-c")
            .arg(format!(
                "{}exec {become_user}\"$0\" run {} -c \"$1\"",
                self.prelude, self.options
            ))
            .arg(binary())
            .arg(&file)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("STATE_DIRECTORY")
            .envs(self.env)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the shell starts");
        let stderr = child.stderr.take().expect("a pipe");
        let log = Arc::new(Log::default());
        let collecting = Arc::clone(&log);
        thread::spawn(move || collecting.collect(stderr));
        Daemon {
            child,
            log,
            file,
            _directory: directory,
        }
    }
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    log: Arc<Log>,
    file: PathBuf,
    _directory: TempDir,
}

impl Daemon {
    /// Starts one and waits until it is ready.
    pub fn start(config: &Config) -> Self {
        Launch::new().start(config)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// Where a service with one listener listens.
    pub fn address(&self, service: &str) -> SocketAddr {
        let addresses = self.addresses_since(0, service);
        *addresses
            .first()
            .unwrap_or_else(|| panic!("`{service}` does not listen\n{}", self.log.tail()))
    }

    /// The admin API at its TCP address; `mark` is from when on it was told.
    pub fn api_since(&self, mark: usize) -> Api {
        let tcp = |line: &Line| line.text("listener").parse().ok();
        let line = self.log.wait(mark, words::ADMIN_LISTENS, |line| {
            line.says(words::ADMIN_LISTENS) && tcp(line).is_some()
        });
        Api::tcp(tcp(&line).expect("an address"))
    }

    /// The admin API at the TCP address of the start.
    pub fn api(&self) -> Api {
        self.api_since(0)
    }

    /// The listeners of `service` that were told since `mark`.
    pub fn addresses_since(&self, mark: usize, service: &str) -> Vec<SocketAddr> {
        self.log
            .all(mark, |line| {
                line.says(words::LISTENING) && line.has("service", service)
            })
            .iter()
            .map(|line| line.text("listener").parse().expect("a socket address"))
            .collect()
    }

    /// Replaces the file in one step, as an editor would.
    pub fn write(&self, text: &str) {
        let draft = self.file.with_extension("draft");
        fs::write(&draft, text).expect("the directory takes a file");
        fs::rename(&draft, &self.file).expect("a rename in one directory");
    }

    /// A path beside the file.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.file.with_file_name(name)
    }

    /// Removes the file.
    pub fn remove_file(&self) {
        fs::remove_file(&self.file).expect("the file is there");
    }

    /// Asks for a reload and waits for its outcome.
    pub fn hang_up(&self) -> Arc<Line> {
        let mark = self.log.mark();
        self.signal(Signal::HUP);
        self.log.wait(mark, "the outcome of a reload", |line| {
            line.says(words::RELOADED) || line.says(words::REJECTED)
        })
    }

    /// Reloads with `config`, which must be accepted.
    pub fn reload(&self, config: &Config) -> Arc<Line> {
        self.write(&config.text());
        let line = self.hang_up();
        assert!(line.says(words::RELOADED), "{}", line.raw());
        line
    }

    /// Reloads with `text`, which must be rejected.
    pub fn reload_rejected(&self, text: &str) -> Arc<Line> {
        self.write(text);
        let line = self.hang_up();
        assert!(line.says(words::REJECTED), "{}", line.raw());
        line
    }

    /// Waits for a transition to up.
    pub fn wait_until_up(&self, mark: usize, backend: &str) -> Arc<Line> {
        self.wait_for(mark, words::BACKEND_UP, "backend", backend)
    }

    /// Waits for a transition to down.
    pub fn wait_until_down(&self, mark: usize, backend: &str) -> Arc<Line> {
        self.wait_for(mark, words::BACKEND_DOWN, "backend", backend)
    }

    /// Waits for a line with this message and this field.
    pub fn wait_for(&self, mark: usize, message: &str, field: &str, value: &str) -> Arc<Line> {
        self.log
            .wait(mark, &format!("{message} with {field}={value}"), |line| {
                line.says(message) && line.has(field, value)
            })
    }

    /// The session lines since `mark`.
    pub fn sessions(&self, mark: usize) -> Vec<Arc<Line>> {
        self.log.all(mark, |line| line.says(words::SESSION))
    }

    /// Waits until `count` sessions since `mark` have left their lines.
    pub fn wait_for_sessions(&self, mark: usize, count: usize) -> Vec<Arc<Line>> {
        eventually("every session leaves its line", || {
            Some(self.sessions(mark)).filter(|lines| lines.len() >= count)
        })
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("the daemon runs");
    }

    /// Waits until it has exited.
    pub fn wait(&mut self) -> ExitStatus {
        eventually("the daemon exits", || {
            self.child.try_wait().expect("it is our child")
        })
    }

    /// Waits until it has exited with 0, and tells how many sessions it says it had to close.
    pub fn wait_until_stopped(&mut self) -> u64 {
        let stopped = self
            .log
            .wait(0, words::STOPPED, |line| line.says(words::STOPPED));
        let status = self.wait();
        assert!(status.success(), "{status}\n{}", self.log.tail());
        stopped.number("closed")
    }

    /// Whether it is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    /// Its open descriptors.
    pub fn descriptors(&self) -> usize {
        descriptors(self.pid())
    }

    /// Lets it open no further descriptor until [`Daemon::allow_descriptors`].
    pub fn forbid_descriptors(&self) -> Rlimit {
        let pid = Pid::from_child(&self.child);
        let none = |maximum| Rlimit {
            current: Some(3),
            maximum,
        };
        // The hard limit stays, or nobody could raise the soft one again.
        let limits = rustix::process::getrlimit(Resource::Nofile);
        prlimit(Some(pid), Resource::Nofile, none(limits.maximum)).expect("our child")
    }

    /// Lets it open so many more descriptors until [`Daemon::allow_descriptors`]. It is to have settled.
    pub fn leave_descriptors(&self, count: usize) -> Rlimit {
        let pid = Pid::from_child(&self.child);
        // The limit is on their numbers, and the least that is free comes first.
        let is_free = |fd: &u64| !Path::new(&format!("/proc/{}/fd/{fd}", self.pid())).exists();
        let mut free = (0..).filter(is_free);
        let last = free.nth(count - 1).expect("some number is free");
        let limits = rustix::process::getrlimit(Resource::Nofile);
        let so_many = Rlimit {
            current: Some(last + 1),
            maximum: limits.maximum,
        };
        prlimit(Some(pid), Resource::Nofile, so_many).expect("our child")
    }

    /// Gives it the limit back that one of these two returned.
    pub fn allow_descriptors(&self, limit: Rlimit) {
        let pid = Pid::from_child(&self.child);
        prlimit(Some(pid), Resource::Nofile, limit).expect("our child");
    }

    /// Its resident memory.
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }

    /// Clock ticks of CPU time that it uses while `pause` passes. The wait is the measurement.
    pub fn cpu_ticks_during(&self, pause: Duration) -> u64 {
        let before = cpu_ticks(self.pid());
        thread::sleep(pause);
        cpu_ticks(self.pid()) - before
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.log.tail());
        }
        // It may have exited already, which is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
