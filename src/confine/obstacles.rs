//! What the user that the daemon has become cannot reach of what the configuration counts on: found at the
//! start, not with the first reload.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::{Identity, IdentityError};
use crate::config::{Lack, Need, token};

/// What bars whoever starts a daemon, be it whom it may, from what a need is.
pub fn unmet(need: &Need) -> Option<Lack> {
    no_account(need).or_else(|| no_token(need))
}

/// What is to be said of a token: that nobody could be let in by it, or everybody. Whether somebody else may
/// read it is not known.
fn no_token(need: &Need) -> Option<Lack> {
    let (Need::Token(path) | Need::Secret(path)) = need else {
        return None;
    };
    let named = path.display();
    match token(path) {
        Err(why) if why.is_forbidden() => None,
        Err(why) => Some(barred(
            format!("no token can be read from \"{named}\": {why}"),
            format!("write one line into it, as by (umask 077; openssl rand -hex 32 > {named})"),
        )),
        Ok(_) => is_public(path).then(|| Lack::Unwise {
            message: format!("everybody on this machine may read the token in \"{named}\""),
            help: format!("chmod o-r {named}"),
        }),
    }
}

/// What bars this very process, which becomes the daemon, from what a need is.
pub fn own_unmet(need: &Need) -> Option<Lack> {
    no_account(need).or_else(|| no_own_token(need))
}

/// What is to be said of a token to this very process, which has to read it. One that is only sent may come later, as
/// one does that is mounted after the start: whoever is served is not to suffer from it.
pub fn no_own_token(need: &Need) -> Option<Lack> {
    let may_come_later = match need {
        Need::Token(_) => false,
        Need::Secret(_) => true,
        Need::Program(_)
        | Need::Directory(_)
        | Need::Later(_)
        | Need::Socket(_)
        | Need::Account { .. } => return None,
    };
    match no_token(need).or_else(|| obstacle(&Identity::own(), need))? {
        Lack::Barred { message, help } if may_come_later => Some(Lack::Unwise { message, help }),
        lack @ (Lack::Now(_) | Lack::Unwise { .. } | Lack::Barred { .. }) => Some(lack),
    }
}

/// Whether any user may read the file at `path`.
fn is_public(path: &Path) -> bool {
    let lets = |path: &Path, bit| path.metadata().is_ok_and(|it| it.mode() & bit != 0);
    path.canonicalize().is_ok_and(|real| {
        lets(&real, 0o004) && real.ancestors().skip(1).all(|way| lets(way, 0o001))
    })
}

/// What bars whoever starts a daemon from making it the account of the file: there is none.
fn no_account(need: &Need) -> Option<Lack> {
    let Need::Account { user, group } = need else {
        return None;
    };
    let error = Identity::named(user, group.as_deref()).err()?;
    let help = match &error {
        IdentityError::NoUser(name) | IdentityError::NoGroup(name) if !is_plain(name) => {
            "name another one".to_owned()
        }
        IdentityError::NoUser(name) => format!("useradd --system {name}, or name another one"),
        IdentityError::NoGroup(name) => format!("groupadd --system {name}, or name another one"),
        IdentityError::NoGroupOf(_) => "write `group` too".to_owned(),
        // Nobody knows whether it exists.
        IdentityError::Lookup(..) | IdentityError::Refused { .. } | IdentityError::Thread(_) => {
            return None;
        }
    };
    Some(barred(error.to_string(), help))
}

/// Whether a shell that is handed `name` sees a name and nothing else.
fn is_plain(name: &str) -> bool {
    let is_part = |it: char| it.is_ascii_alphanumeric() || it == '_' || it == '-';
    !name.starts_with('-') && name.chars().all(is_part)
}

/// What is unwise about a program that root runs, for nobody has said as whom else.
pub fn run_by_root(need: &Need) -> Option<Lack> {
    let Need::Program(path) = need else {
        return None;
    };
    Some(Lack::Unwise {
        message: format!("root runs \"{}\"", path.display()),
        help: "name a `user` in [runtime], whom the daemon and its programs become, or start it as one".to_owned(),
    })
}

/// What bars `user`, as which this process runs, from `need`.
pub fn obstacle(user: &Identity, need: &Need) -> Option<Lack> {
    let (path, wanted) = match need {
        Need::Directory(path) => (path.as_path(), Access::WRITE_OK | Access::EXEC_OK),
        Need::Socket(path) => (path.parent()?, Access::WRITE_OK | Access::EXEC_OK),
        Need::Later(path) | Need::Token(path) | Need::Secret(path) => {
            (path.as_path(), Access::READ_OK)
        }
        Need::Program(path) => (path.as_path(), Access::EXEC_OK),
        // Which it is.
        Need::Account { .. } => return None,
    };
    if access(path, wanted) != Err(Errno::ACCESS) {
        // What is not there is for others to tell.
        return None;
    }
    let named = path.display();
    let in_the_way = blocked_at(path);
    if let Some(directory) = in_the_way {
        return Some(barred(
            format!("user `{user}` cannot enter \"{}\"", directory.display()),
            format!(
                "chmod a+x {0}, or chgrp it to a group of `{user}` and chmod g+x {0}",
                directory.display()
            ),
        ));
    }
    let (message, help) = match need {
        Need::Directory(_) | Need::Socket(_) => (
            format!("user `{user}` cannot write the directory \"{named}\""),
            opened(user, need, path),
        ),
        Need::Later(_) | Need::Token(_) | Need::Secret(_) => (
            format!("user `{user}` cannot read \"{named}\""),
            format!("chgrp it to a group of `{user}` and chmod g+r {named}"),
        ),
        Need::Program(_) => (
            format!("user `{user}` cannot run \"{named}\""),
            format!("chmod a+rx {named}"),
        ),
        Need::Account { .. } => return None,
    };
    Some(barred(message, help))
}

/// What makes the directory at `path` one that `user` may write. One that others use too stays theirs: a
/// daemon that owned /run could replace everybody's sockets.
fn opened(user: &Identity, need: &Need, path: &Path) -> String {
    if !is_shared(path) {
        return format!("chown {user} {}", path.display());
    }
    let own = path.join("ballast");
    let own = own.display();
    let place = match need {
        Need::Socket(socket) => socket.file_name(),
        Need::Directory(_)
        | Need::Later(_)
        | Need::Token(_)
        | Need::Secret(_)
        | Need::Program(_)
        | Need::Account { .. } => None,
    };
    let named = match place {
        Some(name) => format!("write {own}/{} here", Path::new(name).display()),
        None => format!("name a file in {own} here"),
    };
    format!("mkdir {own} && chown {user} {own}, and {named}")
}

/// Whether others than the daemon count on the directory: it is none of its own that waits for an owner, but
/// root's with something in it, or close to the root of all.
fn is_shared(path: &Path) -> bool {
    let well_known =
        path.components().count() <= LEVELS_OF_THE_SYSTEM || path == Path::new("/var/lib");
    let of_root = path.metadata().is_ok_and(|it| it.uid() == 0);
    // Who cannot look into it takes it for the more careful answer.
    let empty = || path.read_dir().is_ok_and(|mut all| all.next().is_none());
    well_known || of_root && !empty()
}

/// `/` and what is right beneath it: `/run`, `/var`, `/etc`, `/tmp`.
const LEVELS_OF_THE_SYSTEM: usize = 2;

fn barred(message: String, help: String) -> Lack {
    Lack::Barred { message, help }
}

/// The directory on the way to `path` that lets nobody through.
fn blocked_at(path: &Path) -> Option<&Path> {
    let mut way: Vec<_> = path.ancestors().skip(1).collect();
    way.reverse();
    way.into_iter()
        .filter(|directory| !directory.as_os_str().is_empty())
        .find(|directory| access(*directory, Access::EXEC_OK) == Err(Errno::ACCESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_to_be_handed_to_a_shell_that_is_no_plain_name() {
        let help = |user: &str| {
            let account = Need::Account {
                user: user.to_owned(),
                group: None,
            };
            match no_account(&account) {
                Some(Lack::Barred { help, .. }) => help,
                other => panic!("{other:?}"),
            }
        };
        assert!(help("nobody-by-this-name").starts_with("useradd --system nobody-by-this-name,"));
        for odd in ["$(reboot)", "--help", "a\u{202e}b", "a;b"] {
            assert_eq!(help(odd), "name another one", "{odd}");
        }
    }

    #[test]
    fn a_directory_that_others_use_is_not_given_away() {
        for path in ["/", "/run", "/var", "/var/lib", "/etc", "/tmp", "/usr/bin"] {
            assert!(is_shared(Path::new(path)), "{path}");
        }
        let own = tempfile::tempdir().unwrap();
        assert!(!is_shared(own.path()));
        let user = Identity::own();
        let socket = Need::Socket("/run/lb.sock".into());
        assert_eq!(
            opened(&user, &socket, Path::new("/run")),
            format!(
                "mkdir /run/ballast && chown {user} /run/ballast, and write /run/ballast/lb.sock here"
            )
        );
        let state = Need::Directory("/var/lib".into());
        let help = opened(&user, &state, Path::new("/var/lib"));
        assert!(
            help.ends_with("and name a file in /var/lib/ballast here"),
            "{help}"
        );
        let help = opened(&user, &Need::Directory(own.path().into()), own.path());
        assert_eq!(help, format!("chown {user} {}", own.path().display()));
    }
}
