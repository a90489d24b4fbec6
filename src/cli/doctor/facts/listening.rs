//! Whether the addresses of a configuration are free: each is bound as the daemon would, and let go before anybody
//! could connect. Paths are not tried, because a socket at one is there for everybody at once.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use crate::config::{AdminAddress, Config, ListenConfig, SocketConfig};
use crate::net::BoundListener;

/// An address that a daemon could not listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// For people: `service web`, `[admin]`.
    pub(crate) of: String,
    pub(crate) address: SocketAddr,
    pub(crate) why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Somebody listens there: `nginx (pid 1234)`, if it can be seen from here.
    Taken(Option<String>),
    /// It is no address of this machine.
    Elsewhere,
    /// Anything else, in the kernel's words.
    Other(String),
}

/// Every address of `config` that cannot be bound now, where a daemon that `runs` with it listens at `ours` already. Not
/// what takes a privilege: another user may have it.
pub(super) fn refusals(config: &Config, runs: bool, ours: &[SocketAddr]) -> Vec<Refusal> {
    let plain = SocketConfig::default();
    let of_services = config.services.iter().flat_map(|service| {
        let of = format!("service {}", service.name);
        let all = service.listen.iter();
        all.map(move |listen| (of.clone(), *listen, &service.socket))
    });
    // A daemon that runs has those from its start to its end.
    let of_admin = config.admin.listen.iter().filter(|_| !runs);
    let of_admin = of_admin.filter_map(|it| match it {
        AdminAddress::Tcp(address) => Some(ListenConfig {
            address: (*address).into(),
            dual_stack: false,
            mptcp: false,
        }),
        AdminAddress::Unix(_) => None,
    });
    let of_admin = of_admin.map(|listen| ("[admin]".to_owned(), listen, &plain));
    let mut refusals = Vec::new();
    for (of, listen, socket) in of_services.chain(of_admin) {
        let Some(address) = listen.address.inet() else {
            continue;
        };
        if ours.iter().any(|it| meet(*it, address)) {
            continue;
        }
        let Err(error) = BoundListener::bind(&listen, socket, 1, &[]) else {
            continue;
        };
        let is = |kind: io::ErrorKind| error.kind() == kind;
        let why = if is(io::ErrorKind::AddrInUse) {
            Why::Taken(holder(address))
        } else if is(io::ErrorKind::AddrNotAvailable) {
            Why::Elsewhere
        } else if is(io::ErrorKind::PermissionDenied) {
            continue;
        } else {
            Why::Other(error.reason())
        };
        refusals.push(Refusal { of, address, why });
    }
    refusals
}

/// Who listens at `address`, or where it could not be listened on besides.
fn holder(address: SocketAddr) -> Option<String> {
    let own_family_first = match address {
        SocketAddr::V4(_) => ["/proc/net/tcp", "/proc/net/tcp6"],
        SocketAddr::V6(_) => ["/proc/net/tcp6", "/proc/net/tcp"],
    };
    let mut tables = own_family_first
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .map(|table| inodes(&table, address));
    let sockets: HashSet<String> = tables
        .find(|inodes| !inodes.is_empty())?
        .into_iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let holds = |process: &Path| {
        let mut open = fs::read_dir(process.join("fd")).into_iter().flatten();
        open.any(|it| {
            let link = it.and_then(|it| fs::read_link(it.path()));
            link.is_ok_and(|link| sockets.contains(&*link.to_string_lossy()))
        })
    };
    let processes = fs::read_dir("/proc").ok()?.filter_map(|it| {
        let name = it.ok()?.file_name();
        name.to_str()?.parse::<u32>().ok()
    });
    processes.into_iter().find_map(|pid| {
        let process = Path::new("/proc").join(pid.to_string());
        if !holds(&process) {
            return None;
        }
        let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
        Some(format!("{} (pid {pid})", name.trim()))
    })
}

/// The numbers of the sockets in `table`, which is written as proc(5) says, that listen where `wanted` would.
fn inodes(table: &str, wanted: SocketAddr) -> Vec<u64> {
    let entries = table.lines().skip(1).filter_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (words.get(1)?, words.get(3)?, words.get(9)?);
        (*state == LISTEN).then_some((local_address(local)?, inode.parse().ok()?))
    });
    let entries = entries.filter(|(local, _)| meet(wanted, *local));
    entries.map(|(_, inode)| inode).collect()
}

/// Whether nobody can listen at one of them beside somebody else who listens at the other.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let (ip, other_ip) = (one.ip().to_canonical(), other.ip().to_canonical());
    let same = ip == other_ip || ip.is_unspecified() || other_ip.is_unspecified();
    one.port() == other.port() && same
}

/// `0100007F:1F90`: words of the address in the order of this machine, the port as it is read.
fn local_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let words: Option<Vec<[u8; 4]>> = (0..ip.len())
        .step_by(8)
        .map(|at| {
            let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        })
        .collect();
    let bytes = words?.concat();
    let ip = match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?)),
    };
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

/// The state of a socket that listens.
const LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config::compile;

    #[test]
    fn who_listens_at_an_address_is_found() {
        let own = format!("(pid {})", std::process::id());
        for place in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(place).unwrap();
            let address = listener.local_addr().unwrap();
            let mut everywhere = address;
            everywhere.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
            });
            for wanted in [address, everywhere] {
                let holder = holder(wanted).unwrap_or_default();
                assert!(holder.ends_with(&own), "{wanted}: {holder}");
            }
            let elsewhere = "127.0.0.9:0".parse::<SocketAddr>().unwrap();
            let elsewhere = SocketAddr::new(elsewhere.ip(), address.port());
            assert_eq!(holder(elsewhere), None);
        }
    }

    #[test]
    fn where_the_daemon_listens_is_not_tried_and_what_is_new_is() {
        let sockets = [0, 0].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let [own, new] = sockets.each_ref().map(|it| it.local_addr().unwrap());
        let text = format!(
            "admin.listen = \"{own}\"\n[[service]]\nname = \"web\"\nlisten = [\"127.0.0.1:0\", \"{new}\"]\n\
             [[service.backend]]\naddress = \"10.0.0.1:80\"\n"
        );
        let config = compile(&text, "f").unwrap().config;
        let addresses = |runs, ours: &[SocketAddr]| -> Vec<SocketAddr> {
            let all = refusals(&config, runs, ours).into_iter();
            all.map(|it| it.address).collect()
        };
        assert_eq!(addresses(false, &[]), [new, own]);
        assert_eq!(addresses(true, &[own]), [new]);
        assert_eq!(addresses(true, &[own, new]), []);
        let mut everywhere = new;
        everywhere.set_ip(Ipv4Addr::UNSPECIFIED.into());
        assert_eq!(addresses(true, &[everywhere]), []);
    }

    #[test]
    fn what_does_not_listen_holds_nothing() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                     0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 41 1 0\n\
                     1: 0100007F:1F90 0200007F:1234 01 0:0 0:0 0 0 0 42 1 0\n\
                     2: 0100007F:1F91 00000000:0000 0A 0:0 0:0 0 0 0 43 1 0\n";
        // The table is in the order of this machine, and this one is of another.
        if cfg!(target_endian = "little") {
            assert_eq!(inodes(table, "127.0.0.1:8080".parse().unwrap()), [41]);
        }
    }
}
