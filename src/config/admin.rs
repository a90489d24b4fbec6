//! `[admin]`: where operators and their tools reach the daemon, and who may change it.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::address;
use super::decode::Table;
use super::problem::{Need, Problem, Problems, shown};
use super::program::absolute;
use super::source::Span;
use super::value::Fault;

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where it listens; nothing turns it off.
    pub listen: Vec<AdminAddress>,
    /// Who may use its Unix sockets, and so change everything.
    pub access: SocketAccess,
    /// Holds the token that changes over TCP need.
    pub token_file: Option<PathBuf>,
    /// How long `/readyz` fails before a stop closes listeners.
    pub lame_duck: Duration,
}

/// One address of `listen`
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AdminAddress {
    /// `ip:port` or `[v6]:port`
    Tcp(SocketAddr),
    /// `unix:/path`
    Unix(PathBuf),
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// `mode`, `owner` and `group` of a Unix socket
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits.
    pub mode: u32,
    /// A name or a number; `None` is the user that the daemon runs as.
    pub owner: Option<String>,
    /// The same for the group.
    pub group: Option<String>,
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self {
            mode: 0o600,
            owner: None,
            group: None,
        }
    }
}

/// `[admin]`, with where its addresses are written.
pub(super) fn read(
    table: &Table<'_>,
    problems: &mut Problems,
) -> (AdminConfig, Vec<(AdminAddress, Span)>) {
    let mut config = AdminConfig::default();
    let mut listens = Vec::new();
    let mut seen = HashSet::new();
    let before = problems.errors();
    for (text, span) in table.texts("listen", problems).unwrap_or_default() {
        match listen(text) {
            Ok(address) if !seen.insert(address.clone()) => problems.add(
                Problem::error(format!("{address} is listened on twice"))
                    .at(span)
                    .label("one address is enough"),
            ),
            Ok(address) => {
                if let AdminAddress::Unix(path) = &address {
                    problems.need(Need::Socket(path.clone()), span.clone());
                }
                config.listen.push(address.clone());
                listens.push((address, span));
            }
            Err(fault) => problems.add(fault.at(span)),
        }
    }
    // What has an effect is not to be said of an address that nobody could read.
    let is_known =
        problems.errors() == before && (table.get("listen").is_some() || table.lacks("listen"));
    let too_many = config.listen.len() > MOST_ADDRESSES;
    if let (Some(span), true) = (table.span_of("listen"), too_many) {
        problems.add(
            Problem::error(format!("there are {} addresses", config.listen.len()))
                .at(span)
                .label(format!("allowed: at most {MOST_ADDRESSES}")),
        );
    }
    config.access = access(table, problems);
    config.token_file = table.parsed("token_file", problems, |text| absolute("token_file", text));
    let has_tcp = listens
        .iter()
        .any(|(it, _)| matches!(it, AdminAddress::Tcp(_)));
    // Nobody looks for one that has no effect.
    if let (Some(file), Some(span), true) =
        (&config.token_file, table.span_of("token_file"), has_tcp)
    {
        problems.need(Need::Token(file.clone()), span);
    }
    let lame_duck = table.duration("lame_duck", &(Duration::ZERO..=LONGEST_FAREWELL), problems);
    config.lame_duck = lame_duck.unwrap_or_default();
    warn(table, &config, &listens, problems);
    if is_known {
        warn_of_idle(table, &config, has_tcp, problems);
    }
    (config, listens)
}

/// `mode`, `owner` and `group`
pub(super) fn access(table: &Table<'_>, problems: &mut Problems) -> SocketAccess {
    let mode = table.parsed("mode", problems, mode);
    SocketAccess {
        mode: mode.unwrap_or(SocketAccess::default().mode),
        owner: table.parsed("owner", problems, |text| account("owner", text)),
        group: table.parsed("group", problems, |text| account("group", text)),
    }
}

/// Tells of what is allowed, and hardly meant.
fn warn(
    table: &Table<'_>,
    config: &AdminConfig,
    listens: &[(AdminAddress, Span)],
    problems: &mut Problems,
) {
    let in_network = listens.iter().filter_map(|(address, span)| match address {
        AdminAddress::Tcp(address) => Some((address, span)),
        AdminAddress::Unix(_) => None,
    });
    let tcp: Vec<_> = in_network.collect();
    for (address, span) in tcp.iter().filter(|(it, _)| !it.ip().is_loopback()) {
        let problem = Problem::warning(format!("others than this machine reach {address}"))
            .at((*span).clone())
            .label("what is said there is not encrypted, the token included");
        problems.add(match config.token_file {
            Some(_) => problem,
            None => problem.help("without a `token_file` it answers /healthz and /readyz only"),
        });
    }
    if let (Some(span), true) = (table.span_of("mode"), config.access.mode & 0o002 != 0) {
        problems.add(
            Problem::warning("everybody on this machine may change everything")
                .at(span)
                .label("whoever may write to the socket needs no token"),
        );
    }
}

/// Tells of keys for which there is no listener.
fn warn_of_idle(table: &Table<'_>, config: &AdminConfig, has_tcp: bool, problems: &mut Problems) {
    let has_socket = config
        .listen
        .iter()
        .any(|it| matches!(it, AdminAddress::Unix(_)));
    let idle = |key| (key, "only a Unix socket has it", has_socket);
    for (key, why, has_effect) in [
        idle("mode"),
        idle("owner"),
        idle("group"),
        (
            "token_file",
            "whoever may open a Unix socket needs no token",
            has_tcp,
        ),
        (
            "lame_duck",
            "nobody can ask for /readyz without `listen`",
            !config.listen.is_empty(),
        ),
    ] {
        if let (Some(span), false) = (table.span_of(key), has_effect) {
            problems.add(
                Problem::warning(format!("`{key}` has no effect here"))
                    .at(span)
                    .label(why),
            );
        }
    }
}

/// `ip:port`, `[v6]:port` or `unix:/path`.
fn listen(text: &str) -> Result<AdminAddress, Fault> {
    let allowed = "allowed: ip:port, [v6]:port or unix:/path";
    let Some(path) = text.strip_prefix(UNIX) else {
        return match address::listen(text) {
            Ok(address) => Ok(AdminAddress::Tcp(address)),
            Err(fault) if text.starts_with('/') => Err(fault
                .allowed(allowed)
                .help(format!("write \"{UNIX}{}\"", shown(text)))),
            Err(fault) => Err(fault.allowed(allowed)),
        };
    };
    let path = absolute("listen", path)?;
    if path.as_os_str().len() > LONGEST_PATH {
        let message = format!("\"{}\" is too long", shown(text));
        return Err(Fault::new(message).allowed(format!(
            "allowed: at most {LONGEST_PATH} bytes, as the kernel has it"
        )));
    }
    Ok(AdminAddress::Unix(path))
}

/// Permission bits as `chmod` takes them.
fn mode(text: &str) -> Result<u32, Fault> {
    let octal = |text: &str| u32::from_str_radix(text, 8).ok();
    let is_octal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = is_octal.then(|| octal(text)).flatten();
    mode.filter(|mode| *mode <= 0o777).ok_or_else(|| {
        Fault::new(format!("`mode` is \"{}\", which is no mode", shown(text)))
            .allowed("allowed: \"0000\" to \"0777\", in octal")
    })
}

/// A user or a group: whether there is one is known when it is needed.
pub(super) fn account(key: &str, text: &str) -> Result<String, Fault> {
    let fits = !text.is_empty() && text.len() <= LONGEST_ACCOUNT;
    let unfit = |c: char| c.is_whitespace() || c.is_control() || c == ':';
    match fits && !text.chars().any(unfit) {
        true => Ok(text.to_owned()),
        false => Err(
            Fault::new(format!("`{key}` is \"{}\", which is no name", shown(text)))
                .allowed("allowed: a name or a number"),
        ),
    }
}

/// What goes before the path of a Unix socket.
const UNIX: &str = "unix:";
/// Addresses to listen on.
const MOST_ADDRESSES: usize = 16;
/// Of a `sockaddr_un`, without the NUL at its end.
const LONGEST_PATH: usize = 107;
/// Bytes of the name of a user.
const LONGEST_ACCOUNT: usize = 256;
/// A stop that takes longer than this to begin is none.
const LONGEST_FAREWELL: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::super::compile;
    use super::*;

    const SERVICE: &str = "[[service]]\nname = \"s\"\nlisten = \"127.0.0.1:1\"\n\
                           [[service.backend]]\naddress = \"10.0.0.1:80\"\n";

    fn good(admin: &str) -> (AdminConfig, String) {
        let loaded = compile(&format!("[admin]\n{admin}\n{SERVICE}"), "f").unwrap();
        (loaded.config.admin, loaded.warnings.lines().join("\n"))
    }

    fn bad(admin: &str) -> String {
        let rejected = compile(&format!("[admin]\n{admin}\n{SERVICE}"), "f").unwrap_err();
        rejected.render(false)
    }

    #[test]
    fn nothing_listens_unless_it_is_written() {
        assert_eq!(good(""), (AdminConfig::default(), String::new()));
        assert!(AdminConfig::default().listen.is_empty());
    }

    #[test]
    fn it_listens_on_addresses_and_on_sockets_with_an_owner() {
        let (config, warnings) = good(
            "listen = [\"127.0.0.1:0\", \"unix:/run/b.sock\"]\nmode = \"0660\"\nowner = \"0\"\n\
             group = \"adm\"\ntoken_file = \"/t\"\nlame_duck = \"5s\"",
        );
        assert_eq!(warnings, "");
        let tcp = AdminAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let unix = AdminAddress::Unix("/run/b.sock".into());
        assert_eq!(unix.to_string(), "unix:/run/b.sock");
        assert_eq!(config.listen, [tcp, unix]);
        let access = SocketAccess {
            mode: 0o660,
            owner: Some("0".to_owned()),
            group: Some("adm".to_owned()),
        };
        assert_eq!(config.access, access);
        assert_eq!(config.token_file, Some("/t".into()));
        assert_eq!(config.lame_duck, Duration::from_secs(5));
    }

    #[test]
    fn what_is_hardly_meant_is_warned_of() {
        for (text, warning) in [
            ("listen = \"0.0.0.0:9900\"", "others than this machine"),
            (
                "listen = \"127.0.0.1:9900\"\nmode = \"0600\"",
                "`mode` has no effect",
            ),
            (
                "listen = \"unix:/s\"\ntoken_file = \"/t\"",
                "`token_file` has no effect",
            ),
            ("lame_duck = \"5s\"", "`lame_duck` has no effect"),
            (
                "listen = \"unix:/s\"\nmode = \"0666\"",
                "everybody on this machine",
            ),
        ] {
            let (_, warnings) = good(text);
            assert!(warnings.contains(warning), "{text}: {warnings}");
            assert_eq!(warnings.lines().count(), 1, "{warnings}");
        }
    }

    #[test]
    fn what_cannot_be_is_said() {
        let long = format!("listen = \"unix:/{}\"", "x".repeat(107));
        for (text, why) in [
            ("listen = \"9900\"", "a port without an address"),
            ("listen = \"/run/b.sock\"", "write \"unix:/run/b.sock\""),
            ("listen = \"unix:b.sock\"", "no absolute path"),
            ("listen = [\"unix:/a\", \"unix:/a\"]", "listened on twice"),
            ("listen = \"127.0.0.1:1\"", "belongs to"),
            ("mode = \"rw\"", "no mode"),
            ("mode = \"1777\"", "no mode"),
            ("owner = \"a:b\"", "no name"),
            ("token_file = \"t\"", "no absolute path"),
            ("lame_duck = \"2h\"", "out of range"),
            (long.as_str(), "too long"),
        ] {
            let report = bad(text);
            assert!(report.contains(why), "{text}: {report}");
        }
    }
}
