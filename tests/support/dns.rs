//! A real name server, Knot, with one zone that a test rewrites while it runs.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::address::fresh_ip;
use super::patience::eventually;
use super::proc::dies_with_its_test;
use super::servers::run;

/// The zone that it serves.
pub const ZONE: &str = "example.test";

/// A running server, authoritative for [`ZONE`] and refusing everything else.
pub struct Dns {
    child: Option<Child>,
    address: SocketAddr,
    serial: AtomicU32,
    directory: TempDir,
}

impl Dns {
    /// Starts one with these records, such as `db 1 A 127.0.0.1`: name, TTL, type, data.
    pub fn start(records: &[String]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let address = SocketAddr::new(fresh_ip().into(), 5353);
        let here = directory.path().display();
        let config = format!(
            "server:\n  rundir: \"{here}\"\n  listen: {}@{}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\ncontrol:\n  listen: \"{here}/knot.sock\"\ndatabase:\n  \
             storage: \"{here}\"\nlog:\n  - target: stderr\n    any: warning\ntemplate:\n  \
             - id: default\n    storage: \"{here}\"\n    file: \"zone\"\n    zonefile-sync: -1\n    \
             zonefile-load: whole\n    journal-content: none\nzone:\n  - domain: {ZONE}\n",
            address.ip(),
            address.port()
        );
        fs::write(directory.path().join("knot.conf"), config).expect("our directory");
        let mut dns = Self {
            child: None,
            address,
            serial: AtomicU32::new(1),
            directory,
        };
        dns.write(records);
        dns.answer();
        dns
    }

    /// Where to ask.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves these records and no other from now on.
    pub fn set(&self, records: &[String]) {
        self.write(records);
        run(self.control().args(["--blocking", "zone-reload", ZONE]));
    }

    /// Goes: whoever asks is refused.
    pub fn refuse(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it runs");
            child.wait().expect("it is our child");
        }
    }

    /// Comes again, with the records that it has.
    pub fn answer(&mut self) {
        let mut command = Command::new("knotd");
        command.arg("--config").arg(self.config());
        let child = dies_with_its_test(with_sbin(&mut command))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("knotd starts");
        self.child = Some(child);
        eventually("the name server serves its zone", || {
            let status = self
                .control()
                .args(["zone-status", ZONE, "+serial"])
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .output()
                .expect("knotc is where knotd is");
            let serial = self.serial.load(Ordering::Relaxed) - 1;
            let said = String::from_utf8_lossy(&status.stdout).into_owned();
            said.contains(&serial.to_string()).then_some(())
        });
    }

    fn write(&self, records: &[String]) {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        // The last number is how long "there is nothing" may be believed.
        let mut zone = format!(
            "$ORIGIN {ZONE}.\n@ 1 SOA ns.{ZONE}. admin.{ZONE}. {serial} 60 60 600 1\n\
             @ 1 NS ns.{ZONE}.\nns 1 A 127.0.0.1\n"
        );
        for record in records {
            zone += record;
            zone.push('\n');
        }
        let draft = self.directory.path().join("draft");
        fs::write(&draft, zone).expect("our directory");
        fs::rename(draft, self.directory.path().join("zone")).expect("our directory");
    }

    fn control(&self) -> Command {
        let mut command = Command::new("knotc");
        command.arg("--config").arg(self.config());
        with_sbin(&mut command);
        command
    }

    fn config(&self) -> std::path::PathBuf {
        self.directory.path().join("knot.conf")
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.refuse();
    }
}

/// Debian keeps the server where only root looks.
fn with_sbin(command: &mut Command) -> &mut Command {
    let path = std::env::var("PATH").unwrap_or_default();
    debug_assert!(Path::new("/usr/sbin").is_dir());
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"))
}
