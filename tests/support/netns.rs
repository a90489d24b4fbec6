//! Networks of their own, for what would disturb others or takes a privilege: rules that drop packets,
//! switches of the kernel, addresses that are nobody's.

use std::any::type_name;
use std::env;
use std::fs;
use std::os::fd::AsFd;
use std::process::{Child, Command};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::patience::eventually;
use super::proc::dies_with_its_test;
use super::programs::installed;
use super::servers::run;

/// Set where the packets of loopback are nobody else's.
const ALONE: &str = "BALLAST_TESTS_ALONE";

/// Runs `test`, which asks this first, in a process with a network of its own, where `lo` is up; there it is
/// told that it has not run yet. Only root may have one; for others, it is skipped.
pub fn has_run_alone<T: Fn()>(_test: T) -> bool {
    if is_alone() {
        return false;
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may have a network of its own");
        return true;
    }
    if !installed(&["unshare", "nft", "ip", "ss", "sysctl"]) {
        return true;
    }
    let path = type_name::<T>();
    let (_, body) = path.split_once("::").expect("a path within the crate");
    let said = run(&mut alone(body));
    assert!(said.contains("1 passed"), "{said}");
    // What a measurement has found is for whoever runs it with --nocapture.
    print!("{said}");
    true
}

/// What runs `body`, a test of this binary, in such a process.
pub fn alone(body: &str) -> Command {
    let mut command = Command::new("unshare");
    command
        .arg("--net")
        .arg(env::current_exe().expect("a running test"))
        .args(["--exact", body, "--include-ignored", "--nocapture"])
        .env(ALONE, "1");
    command
}

/// Whether this is the process that [`alone`] runs; `lo` is up then.
pub fn is_alone() -> bool {
    let alone = env::var_os(ALONE).is_some();
    if alone {
        ip("link set lo up");
    }
    alone
}

/// `ip` with these arguments.
pub fn ip(arguments: &str) -> String {
    run(Command::new("ip").args(arguments.split(' ')))
}

/// `nft` with these rules.
pub fn nft(rules: &str) -> String {
    run(Command::new("nft").arg(rules))
}

/// Sets a switch of the kernel for this network.
pub fn sysctl(name: &str, value: &str) {
    let path = format!("/proc/sys/{}", name.replace('.', "/"));
    fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}"));
}

/// Has every packet from and to that address dropped: its host has vanished.
pub fn lose(address: std::net::IpAddr) {
    nft(&format!(
        "add table inet lost; \
         add chain inet lost i {{ type filter hook input priority 0; }}; \
         add rule inet lost i ip daddr {address} drop; \
         add rule inet lost i ip saddr {address} drop"
    ));
}

/// Another host: a network of its own, which a cable connects with this one.
pub struct Host {
    network: fs::File,
    holder: Child,
}

impl Host {
    /// A host with `address`, at the end of a cable whose end here has `ours`, by which it reaches everybody
    /// else. Both are of one /24.
    pub fn beyond(cable: &str, ours: &str, address: &str) -> Self {
        let holder = dies_with_its_test(Command::new("unshare").args(["--net", "sleep", "3600"]))
            .spawn()
            .expect("unshare starts");
        let path = format!("/proc/{}/ns/net", holder.id());
        let here = fs::read_link("/proc/self/ns/net").expect("our own network");
        eventually("the host has a network of its own", || {
            fs::read_link(&path).ok().filter(|there| *there != here)
        });
        let host = Self {
            network: fs::File::open(&path).expect("it runs"),
            holder,
        };
        let end = format!("{cable}-end");
        ip(&format!("link add {cable} type veth peer name {end}"));
        ip(&format!("link set {end} netns {}", host.holder.id()));
        ip(&format!("addr add {ours}/24 dev {cable}"));
        ip(&format!("link set {cable} up"));
        let (ours, address) = (ours.to_owned(), address.to_owned());
        host.within(move || {
            ip("link set lo up");
            ip(&format!("addr add {address}/24 dev {end}"));
            ip(&format!("link set {end} up"));
            ip(&format!("route add default via {ours}"));
        });
        host
    }

    /// What `act` comes to when it is done on that host; sockets that it makes are there for good.
    pub fn within<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> T {
        let network = self.network.try_clone().expect("descriptors");
        let there = thread::spawn(move || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(network.as_fd(), kind).expect("root may");
            act()
        });
        there.join().expect("what is done there succeeds")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Gone already is as good.
        self.holder.kill().ok();
        self.holder.wait().ok();
    }
}
