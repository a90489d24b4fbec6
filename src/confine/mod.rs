//! Least privilege: what the daemon gives up before it serves. Nobody who gets hold of it through a
//! client's bytes is to get anything else by it.
//!
//! In this order, while there is one thread, because the kernel knows all of it of threads only, and new
//! ones inherit it: `identity` is as whom it runs; then the runner is started, which is not confined
//! further, nor are the programs that it starts; then `capabilities` leaves what a balancer needs of
//! root's privileges, `paths` the files that it opens, and `calls` the system calls that it makes.

mod calls;
mod capabilities;
mod identity;
mod obstacles;
mod paths;

use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use rustix::process::umask;
use thiserror::Error;

pub use capabilities::effective;
pub use identity::{Identity, IdentityError};
pub use obstacles::{no_own_token, obstacle, own_unmet, run_by_root, unmet};
pub use paths::{Reach, kernel_has_landlock};

use self::capabilities::Kept;
use self::paths::Extent;
use crate::config::{Config, Loaded, Sandbox};

/// Becomes the user that the configuration names; `None` when there is nothing to change. To be called
/// before anything else has been started.
///
/// # Errors
/// When there is no such user, or the kernel does not let this process become it.
pub fn become_user(config: &Config) -> Result<Option<Identity>, IdentityError> {
    let becomes = next_user(config)?;
    if let Some(user) = &becomes {
        user.assume(kept(user, config))?;
    }
    Ok(becomes)
}

/// What `look` sees as a daemon that is started with this configuration would: as the user that it becomes, if
/// it becomes another, and with what it keeps of root's privileges, while the rest of this process stays as it is.
///
/// # Errors
/// When there is no such user, or the kernel does not let this process become it.
pub fn as_daemon<T: Send>(
    config: &Config,
    look: impl FnOnce(Option<&Identity>) -> T + Send,
) -> Result<T, IdentityError> {
    let user = next_user(config)?;
    // The kernel knows all of this of threads, and nothing of it outlives this one.
    thread::scope(|scope| {
        let seen = thread::Builder::new().spawn_scoped(scope, || {
            if let Some(user) = &user {
                user.assume(kept(user, config))?;
            }
            let own = Identity::own();
            capabilities::limit(kept(&own, config)).map_err(|error| IdentityError::Refused {
                user: own.to_string(),
                what: "capabilities",
                error,
            })?;
            Ok(look(user.as_ref()))
        });
        let seen = seen.map_err(IdentityError::Thread)?;
        seen.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Which privileges a daemon of this configuration serves with.
fn kept(user: &Identity, config: &Config) -> Kept {
    let kept = match user.is_root() {
        true => Kept::of_root(),
        false => Kept::of_a_user(),
    };
    kept.and_of(config)
}

/// Whether root starts a daemon of this configuration now, and it stays root.
pub fn stays_root(config: &Config) -> bool {
    let wanted = Identity::wanted(&config.runtime).ok().flatten();
    Identity::own().is_root() && wanted.is_none_or(|it| it.is_root())
}

/// Whom a daemon that is started now becomes.
fn next_user(config: &Config) -> Result<Option<Identity>, IdentityError> {
    let wanted = Identity::wanted(&config.runtime)?;
    // Who is not root cannot become somebody else: told in the report.
    Ok(wanted.filter(|it| !it.is_own() && Identity::own().is_root()))
}

/// What becomes of a call that is not in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It fails.
    Enforce,
    /// It is made, and the kernel's log tells of it.
    Tell,
}

/// What holds from now on.
#[derive(Debug)]
pub struct Confinement {
    user: Identity,
    /// Whom it should have become.
    wanted: Option<Identity>,
    calls: Part,
    files: Part,
    reach: Option<Arc<Reach>>,
}

/// One part of the sandbox.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    On,
    /// It only tells.
    Log,
    Off,
    /// As far as the kernel has it.
    Partly,
    /// It should be on, and why it is not.
    Missing(String),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "on",
            Self::Log => "log",
            Self::Off => "off",
            Self::Partly => "partly",
            Self::Missing(_) => "missing",
        })
    }
}

/// Why the daemon is not started rather than left with more than it should have.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// By the kernel.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[source] io::Error),
}

impl Confinement {
    /// Gives up what the configuration, which was read from `file`, does not need. To be called once
    /// there is a runner, and before there is a second thread.
    ///
    /// # Errors
    /// When the kernel does not let go of capabilities. What it does not have of the sandbox is told in the
    /// report.
    pub fn begin(file: &Path, loaded: &Loaded) -> Result<Self, ConfineError> {
        let runtime = &loaded.config.runtime;
        let user = Identity::own();
        let kept = kept(&user, &loaded.config);
        capabilities::bound(kept);
        capabilities::limit(kept).map_err(ConfineError::Capabilities)?;
        // What it writes is nobody else's business; whoever is to use its socket is said by `mode`.
        umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        let wanted = Identity::wanted(runtime).ok().flatten();
        let mut reach = None;
        let (files, calls) = match runtime.sandbox {
            Sandbox::Off => (Part::Off, Part::Off),
            // Landlock only tells where it refuses.
            Sandbox::Log => (Part::Off, limit_calls(Mode::Tell)),
            Sandbox::On => {
                let wanted = Reach::of(file, &loaded.needs);
                let files = limit_files(&wanted);
                if matches!(files, Part::On | Part::Partly) {
                    reach = Some(Arc::new(wanted));
                }
                // Last, because none of the above is in the list.
                (files, limit_calls(Mode::Enforce))
            }
        };
        Ok(Self {
            user,
            wanted,
            calls,
            files,
            reach,
        })
    }

    /// Which files a reload may name; `None` is that there is no such limit.
    pub fn reach(&self) -> Option<Arc<Reach>> {
        self.reach.clone()
    }

    /// Says in the log what is on.
    pub fn report(&self) {
        tracing::info!(
            user = %self.user,
            capabilities = %effective(),
            seccomp = %self.calls,
            landlock = %self.files,
            "confined"
        );
        if let Part::Missing(error) = &self.calls {
            tracing::warn!(%error, "no seccomp: the daemon may make every system call");
        }
        if let Part::Missing(error) = &self.files {
            tracing::warn!(%error, "no Landlock: the daemon may open every file that its user may");
        }
        if let Some(wanted) = self.wanted.as_ref().filter(|it| !it.is_own()) {
            tracing::warn!(
                user = %self.user,
                wanted = %wanted.with_group(),
                "only root can become another user: the daemon runs as who has started it"
            );
        } else if self.user.is_root() {
            tracing::warn!("the daemon runs as root: name a `user` in [runtime]");
        }
    }
}

fn limit_calls(mode: Mode) -> Part {
    match (calls::limit(mode), mode) {
        (Ok(()), Mode::Enforce) => Part::On,
        (Ok(()), Mode::Tell) => Part::Log,
        (Err(error), _) => Part::Missing(error.to_string()),
    }
}

fn limit_files(reach: &Reach) -> Part {
    match reach.limit() {
        Ok(Extent::Full) => Part::On,
        Ok(Extent::Partial) => Part::Partly,
        Ok(Extent::None) => Part::Missing("not in this kernel, or not switched on".to_owned()),
        Err(error) => Part::Missing(error.to_string()),
    }
}
