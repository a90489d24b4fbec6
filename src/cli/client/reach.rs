//! Where a daemon may answer: what the operator says of it, in the command, the environment or the file.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::door::{Address, Door};
use crate::cli::CONFIGURATION;
use crate::config::{AdminDoors, admin_doors};

/// Where the daemon is, as far as the operator says so.
#[derive(Args, Clone, Debug)]
pub(in crate::cli) struct Reach {
    /// Where the daemon answers: IP:PORT, or unix:/PATH
    ///
    /// Without it, BALLAST_ADMIN of the environment says so, and without that the [admin] table of
    /// the configuration file.
    #[arg(long, value_name = "ADDR-OR-SOCKET")]
    admin: Option<Address>,
    /// A file with the bearer token; changes over TCP need it
    #[arg(long, value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// The configuration file [default: /etc/ballast/ballast.toml]
    #[arg(short, long, value_name = "PATH")]
    pub(in crate::cli) config: Option<PathBuf>,
}

impl Reach {
    /// Nothing but a file, if one is named.
    pub(in crate::cli) fn of(config: Option<&Path>) -> Self {
        Self {
            admin: None,
            token_file: None,
            config: config.map(Path::to_owned),
        }
    }

    /// Whether somebody has said which daemon it is, here or in the `environment`.
    pub(super) fn names_a_daemon(&self, environment: Option<&OsStr>) -> bool {
        self.admin.is_some() || environment.is_some()
    }

    /// Where it is written where the daemon answers.
    fn written(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(CONFIGURATION))
    }
}

/// The daemon that the environment names.
pub(super) fn environment() -> Option<OsString> {
    std::env::var_os(ENVIRONMENT).filter(|value| !value.is_empty())
}

/// Where the daemon may answer: what was said, or what the file says, sockets first.
pub(super) fn doors(reach: &Reach, environment: Option<&OsStr>) -> Result<Vec<Door>, Failure> {
    let said = match (&reach.admin, environment) {
        (Some(address), _) => Some(address.clone()),
        (None, Some(text)) => {
            let text = text.to_string_lossy();
            let parsed = text
                .parse()
                .map_err(|why| Failure::Unknown(format!("{ENVIRONMENT} is \"{text}\": {why}")))?;
            Some(parsed)
        }
        (None, None) => None,
    };
    let written = admin_doors(reach.written());
    let Some(address) = said else {
        let doors = match written {
            Ok(written) => doors_of(&written, reach),
            Err(_) if is_there(reach) => Vec::new(),
            Err(why) => return Err(no_file(reach.written(), &why)),
        };
        return match doors.is_empty() {
            true if is_there(reach) => Ok(vec![Door {
                address: Address::Unix(SOCKET.into()),
                token_file: None,
            }]),
            true => Err(no_table(reach.written())),
            false => Ok(doors),
        };
    };
    // A token is for the daemon whose file names it, and for nobody else.
    let of_the_file = written
        .ok()
        .into_iter()
        .flat_map(|written| doors_of(&written, reach))
        .find(|door| door.address == address)
        .and_then(|door| door.token_file);
    Ok(vec![Door {
        token_file: reach.token_file.clone().or(of_the_file),
        address,
    }])
}

/// What is to be said where the `environment` names another daemon than the file that was named for this command.
pub(super) fn overruled(reach: &Reach, environment: Option<&OsStr>) -> Option<String> {
    let file = reach.config.as_deref()?;
    let text = environment.filter(|_| reach.admin.is_none())?;
    let said = text.to_string_lossy();
    let address: Address = said.parse().ok()?;
    let doors = doors_of(&admin_doors(file).ok()?, reach);
    let is_another = !doors.is_empty() && doors.iter().all(|door| door.address != address);
    is_another.then(|| {
        format!(
            "{ENVIRONMENT} is set, so this asks the daemon at {said} and not that of {}",
            file.display()
        )
    })
}

/// Whether there is a socket where nobody has to say that it is.
fn is_there(reach: &Reach) -> bool {
    reach.config.is_none() && Path::new(SOCKET).exists()
}

fn doors_of(written: &AdminDoors, reach: &Reach) -> Vec<Door> {
    let token_file = reach.token_file.as_ref().or(written.token_file.as_ref());
    let sockets = written
        .sockets
        .iter()
        .map(|path| Address::Unix(path.clone()));
    let listeners = written.listeners.iter().map(|text| Address::local(text));
    sockets
        .chain(listeners)
        .map(|address| Door {
            address,
            token_file: token_file.cloned(),
        })
        .collect()
}

fn no_file(path: &Path, why: &str) -> Failure {
    let first = match why {
        "permission denied" => "run this as a user who may read it",
        _ => "name the file that the daemon runs with by -c PATH",
    };
    Failure::Nowhere(format!(
        "nothing says where the daemon answers: {}: {why}\n  \
         {first}, or say where it answers with --admin 127.0.0.1:9900 or \
         --admin unix:/run/ballast/admin.sock",
        path.display()
    ))
}

fn no_table(path: &Path) -> Failure {
    Failure::Nowhere(format!(
        "nothing says where the daemon answers: {} has no [admin] table. Add these two lines to it:\n\n    \
         [admin]\n    listen = \"127.0.0.1:9900\"\n\n  \
         and reload the daemon (systemctl reload ballast), or name the file that it runs with by -c PATH",
        path.display()
    ))
}

/// Where the daemon answers by the unit and the reference file.
const SOCKET: &str = "/run/ballast/admin.sock";
/// Names the daemon where no option does.
const ENVIRONMENT: &str = "BALLAST_ADMIN";

#[cfg(test)]
mod tests {
    use super::*;

    fn reach(config: &Path, admin: Option<&str>) -> Reach {
        Reach {
            admin: admin.map(|text| text.parse().unwrap()),
            token_file: None,
            config: Some(config.into()),
        }
    }

    fn found(reach: &Reach, environment: Option<&str>) -> Result<Vec<String>, String> {
        let doors = doors(reach, environment.map(OsStr::new));
        doors
            .map(|all| all.iter().map(|door| door.address.to_string()).collect())
            .map_err(|failure| failure.to_string())
    }

    #[test]
    fn an_option_comes_before_the_environment_and_that_before_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "[admin]\nlisten = \"127.0.0.1:1\"\n").unwrap();
        let said = reach(file.path(), Some("127.0.0.1:3"));
        let silent = reach(file.path(), None);
        let environment = Some("127.0.0.1:2");
        assert_eq!(found(&said, environment).unwrap(), ["127.0.0.1:3"]);
        assert_eq!(found(&silent, environment).unwrap(), ["127.0.0.1:2"]);
        assert_eq!(found(&silent, None).unwrap(), ["127.0.0.1:1"]);
        let told = |reach, at| overruled(reach, Some(OsStr::new(at)));
        let note = told(&silent, "127.0.0.1:2").unwrap();
        assert!(
            note.contains("asks the daemon at 127.0.0.1:2 and not that of "),
            "{note}"
        );
        assert_eq!(told(&silent, "127.0.0.1:1"), None);
        assert_eq!(told(&said, "127.0.0.1:2"), None);
        assert_eq!(told(&Reach::of(None), "127.0.0.1:2"), None);
        assert_eq!(overruled(&silent, None), None);
        let wrong = found(&silent, Some("nowhere")).unwrap_err();
        assert!(
            wrong.starts_with("BALLAST_ADMIN is \"nowhere\": "),
            "{wrong}"
        );
    }

    #[test]
    fn a_daemon_is_named_by_an_option_or_the_environment_and_not_by_a_file() {
        let file = Path::new("/etc/a.toml");
        assert!(!reach(file, None).names_a_daemon(None));
        assert!(reach(file, Some("127.0.0.1:3")).names_a_daemon(None));
        assert!(Reach::of(None).names_a_daemon(Some(OsStr::new("127.0.0.1:2"))));
        assert!(!Reach::of(None).names_a_daemon(None));
    }

    #[test]
    fn a_file_without_the_table_is_told_the_lines_to_add() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = found(&reach(file.path(), None), None).unwrap_err();
        assert!(
            said.contains("    [admin]\n    listen = \"127.0.0.1:9900\"\n"),
            "{said}"
        );
        let missing = found(&reach(Path::new("/no/such.toml"), None), None).unwrap_err();
        assert!(missing.contains("/no/such.toml: no such file"), "{missing}");
    }

    #[test]
    fn a_token_of_the_file_is_for_the_daemon_of_the_file_only() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[admin]\nlisten = \"0.0.0.0:9900\"\ntoken_file = \"/etc/t\"\n";
        std::fs::write(file.path(), text).unwrap();
        let token = |admin: Option<&str>| {
            let doors = doors(&reach(file.path(), admin), None).unwrap();
            doors[0].token_file.clone()
        };
        assert_eq!(token(None), Some("/etc/t".into()));
        assert_eq!(token(Some("127.0.0.1:9900")), Some("/etc/t".into()));
        assert_eq!(token(Some("192.0.2.1:9900")), None);
    }
}
