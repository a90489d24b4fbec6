//! As whom the daemon runs: root becomes the user that `[runtime]` names before there is a second thread,
//! for the kernel knows identities and capabilities of threads only.

use std::ffi::CString;
use std::fmt;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};
use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::thread::{
    set_keep_capabilities, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};
use thiserror::Error;

use super::capabilities;
use crate::config::RuntimeConfig;

/// A user with its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    name: String,
    uid: Uid,
    gid: Gid,
    /// It is that group by name, not just the user's first.
    group: Option<String>,
    /// Besides the first.
    groups: Vec<Gid>,
}

impl Identity {
    /// Whoever runs this.
    pub fn own() -> Self {
        let uid = geteuid();
        // Without an entry in the user database the number is the name.
        let known = User::from_uid(uid).ok().flatten();
        Self {
            name: known.map_or_else(|| uid.to_string(), |user| user.name),
            uid,
            gid: getegid(),
            group: None,
            groups: Vec::new(),
        }
    }

    /// Whom a daemon becomes by this configuration; `None` when it stays who it is.
    ///
    /// # Errors
    /// When there is no such user or group.
    pub fn wanted(runtime: &RuntimeConfig) -> Result<Option<Self>, IdentityError> {
        let Some(name) = &runtime.user else {
            return Ok(None);
        };
        let group = runtime.group.as_deref();
        Self::named(name, group).map(Some)
    }

    /// The account by these names or numbers.
    pub(super) fn named(name: &str, group: Option<&str>) -> Result<Self, IdentityError> {
        let name = name.to_owned();
        let known = match name.parse() {
            Ok(number) => User::from_uid(Uid::from_raw(number)),
            Err(_) => User::from_name(&name),
        };
        let known = known.map_err(|error| IdentityError::Lookup(name.clone(), error.into()))?;
        let number = group.map(self::group).transpose()?;
        let (uid, gid, groups) = match (known, name.parse(), number) {
            (Some(user), _, group) => {
                let gid = group.unwrap_or(user.gid);
                let groups = groups(&user.name, gid)?;
                (user.uid, gid, groups)
            }
            // A container may have numbers and no names.
            (None, Ok(number), Some(gid)) => (Uid::from_raw(number), gid, Vec::new()),
            (None, Ok(_), None) => return Err(IdentityError::NoGroupOf(name.clone())),
            (None, Err(_), _) => return Err(IdentityError::NoUser(name.clone())),
        };
        Ok(Self {
            name,
            uid,
            gid,
            group: group.map(str::to_owned),
            groups,
        })
    }

    /// Whether this process is it already, with its group if one is named: a service manager may have its own
    /// idea of a user's first.
    pub fn is_own(&self) -> bool {
        self.uid == geteuid() && (self.group.is_none() || self.gid == getegid())
    }

    /// The user, and the group if one is named, as chown(1) takes them.
    pub fn with_group(&self) -> String {
        match &self.group {
            Some(group) => format!("{}:{group}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether it may do everything.
    pub fn is_root(&self) -> bool {
        self.uid.is_root()
    }

    /// Has the calling thread, and those that it starts, become it for good, with no capability but those
    /// `kept`. Who means the whole process calls this while there is one thread.
    ///
    /// # Errors
    /// When the kernel does not let this process.
    pub fn assume(&self, kept: capabilities::Kept) -> Result<(), IdentityError> {
        let failed = |what: &'static str| {
            move |error: io::Error| IdentityError::Refused {
                user: self.name.clone(),
                what,
                error,
            }
        };
        capabilities::bound(kept);
        let (uid, gid) = (
            rustix::process::Uid::from_raw(self.uid.as_raw()),
            rustix::process::Gid::from_raw(self.gid.as_raw()),
        );
        let others = self.groups.iter().map(|it| it.as_raw());
        let others = others.map(rustix::process::Gid::from_raw);
        let groups: Vec<_> = std::iter::once(gid).chain(others).collect();
        set_thread_groups(&groups)
            .map_err(io::Error::from)
            .map_err(failed("its groups"))?;
        set_thread_res_gid(gid, gid, gid)
            .map_err(io::Error::from)
            .map_err(failed("its group"))?;
        // What is permitted stays over the change; that it is effective does not.
        set_keep_capabilities(true)
            .map_err(io::Error::from)
            .map_err(failed("capabilities"))?;
        set_thread_res_uid(uid, uid, uid)
            .map_err(io::Error::from)
            .map_err(failed("its identity"))?;
        set_keep_capabilities(false)
            .map_err(io::Error::from)
            .map_err(failed("capabilities"))?;
        capabilities::limit(kept).map_err(failed("capabilities"))?;
        // The kernel does so too, unless fs.suid_dumpable says otherwise: no core file, and no debugger of
        // a check program, which is the same user, gets at secrets that root has read.
        set_dumpable_behavior(DumpableBehavior::NotDumpable)
            .map_err(io::Error::from)
            .map_err(failed("core files"))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Why the daemon cannot become the user it should.
#[derive(Debug, Error)]
pub enum IdentityError {
    /// By that name.
    #[error("`user` of [runtime]: no user is named `{0}`")]
    NoUser(String),
    /// By that name.
    #[error("`group` of [runtime]: no group is named `{0}`")]
    NoGroup(String),
    /// A number without an entry.
    #[error("`user` of [runtime]: the user database does not know {0}, so `group` is needed too")]
    NoGroupOf(String),
    /// The user database cannot be read.
    #[error("cannot look up `{0}`: {1}")]
    Lookup(String, io::Error),
    /// To see with its eyes.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
    /// By the kernel.
    #[error("cannot become user `{user}`: {what}: {error}")]
    Refused {
        /// Who.
        user: String,
        /// Which part of it.
        what: &'static str,
        /// What the kernel says.
        error: io::Error,
    },
}

fn group(name: &str) -> Result<Gid, IdentityError> {
    if let Ok(number) = name.parse() {
        return Ok(Gid::from_raw(number));
    }
    Group::from_name(name)
        .map_err(|error| IdentityError::Lookup(name.to_owned(), error.into()))?
        .map(|group| group.gid)
        .ok_or_else(|| IdentityError::NoGroup(name.to_owned()))
}

/// The groups of the user by that name besides `first`.
fn groups(name: &str, first: Gid) -> Result<Vec<Gid>, IdentityError> {
    let all = CString::new(name)
        .map_err(io::Error::from)
        .and_then(|name| Ok(getgrouplist(&name, first)?));
    let mut all = all.map_err(|error| IdentityError::Lookup(name.to_owned(), error))?;
    all.retain(|it| *it != first);
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(user: &str, group: Option<&str>) -> Result<Option<Identity>, String> {
        let runtime = RuntimeConfig {
            user: Some(user.to_owned()),
            group: group.map(str::to_owned),
            ..RuntimeConfig::default()
        };
        Identity::wanted(&runtime).map_err(|error| error.to_string())
    }

    #[test]
    fn a_user_has_its_own_group_unless_another_is_named() {
        let root = wanted("root", None).unwrap().unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 0));
        let root = wanted("0", Some("4")).unwrap().unwrap();
        assert_eq!((root.uid.as_raw(), root.gid.as_raw()), (0, 4));
        assert_eq!(root.with_group(), "0:4");
        assert_eq!(Identity::wanted(&RuntimeConfig::default()).unwrap(), None);
    }

    #[test]
    fn a_process_is_a_user_with_another_group_only_in_part() {
        let (uid, gid) = (geteuid().to_string(), getegid().as_raw());
        let own = wanted(&uid, Some(&gid.to_string())).unwrap().unwrap();
        assert!(own.is_own());
        let other = wanted(&uid, Some(&(gid + 1).to_string()));
        assert!(!other.unwrap().unwrap().is_own());
    }

    #[test]
    fn who_does_not_exist_is_told_and_a_number_needs_a_group() {
        let error = |user, group| wanted(user, group).unwrap_err();
        assert!(error("no-such-user", None).contains("no user is named `no-such-user`"));
        assert!(error("root", Some("no-such-group")).contains("no group is named"));
        assert!(error("1999999999", None).contains("so `group` is needed"));
        let stranger = wanted("1999999999", Some("1999999998")).unwrap().unwrap();
        assert_eq!(stranger.gid.as_raw(), 1_999_999_998);
        assert!(!stranger.is_own() && !stranger.is_root());
    }
}
