//! What the user that the daemon has become cannot reach of what the configuration counts on: found at the
//! start, not with the first reload.

use std::path::Path;

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::Identity;
use crate::config::{Lack, Need};

/// What bars `user`, as which this process runs, from `need`.
pub fn obstacle(user: &Identity, need: &Need) -> Option<Lack> {
    let (path, wanted) = match need {
        Need::Directory(path) => (path.as_path(), Access::WRITE_OK | Access::EXEC_OK),
        Need::Socket(path) => (path.parent()?, Access::WRITE_OK | Access::EXEC_OK),
        Need::File(path) | Need::Later(path) => (path.as_path(), Access::READ_OK),
        Need::Program(path) => (path.as_path(), Access::EXEC_OK),
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
            format!("chown {user} {named}"),
        ),
        Need::File(_) | Need::Later(_) => (
            format!("user `{user}` cannot read \"{named}\""),
            format!("chgrp it to a group of `{user}` and chmod g+r {named}"),
        ),
        Need::Program(_) => (
            format!("user `{user}` cannot run \"{named}\""),
            format!("chmod a+rx {named}"),
        ),
    };
    Some(barred(message, help))
}

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
