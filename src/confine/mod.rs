//! Least privilege: what the daemon gives up before it serves. Nobody who gets hold of it through a
//! client's bytes is to get anything else by it.
//!
//! In this order, while there is one thread, because the kernel knows all of it of threads only, and new
//! ones inherit it: [`identity`] is as whom it runs, then the runner is started, which is not confined
//! further, then [`capabilities`] leaves what a balancer needs of root's privileges.

mod capabilities;
mod identity;
mod obstacles;

use std::io;

use rustix::process::umask;
use thiserror::Error;

pub use capabilities::effective;
pub use identity::{Identity, IdentityError};
pub use obstacles::obstacle;

use self::capabilities::Kept;
use crate::config::Config;

/// Becomes the user that the configuration names; `None` when there is nothing to change. To be called
/// before anything else has been started.
///
/// # Errors
/// When there is no such user, or the kernel does not let this process become it.
pub fn become_user(config: &Config) -> Result<Option<Identity>, IdentityError> {
    let Some(wanted) = Identity::wanted(&config.runtime)? else {
        return Ok(None);
    };
    // Who is not root cannot become somebody else: told in the report.
    if wanted.is_own() || !Identity::own().is_root() {
        return Ok(None);
    }
    wanted.assume(Kept::of_a_user().and_of(config))?;
    Ok(Some(wanted))
}

/// What holds from now on.
#[derive(Debug)]
pub struct Confinement {
    user: Identity,
    /// Whom it should have become.
    wanted: Option<Identity>,
}

/// Why the daemon is not started rather than left with more than it should have.
#[derive(Debug, Error)]
pub enum ConfineError {
    /// By the kernel.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[source] io::Error),
}

impl Confinement {
    /// Gives up what `config` does not need. To be called once there is a runner, and before there is a
    /// second thread.
    ///
    /// # Errors
    /// When the kernel does not let go.
    pub fn begin(config: &Config) -> Result<Self, ConfineError> {
        let user = Identity::own();
        let kept = match user.is_root() {
            true => Kept::of_root(),
            false => Kept::of_a_user(),
        };
        let kept = kept.and_of(config);
        capabilities::bound(kept);
        capabilities::limit(kept).map_err(ConfineError::Capabilities)?;
        // What it writes is nobody else's business; whoever is to use its socket is said by `mode`.
        umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
        let wanted = Identity::wanted(&config.runtime).ok().flatten();
        Ok(Self { user, wanted })
    }

    /// Says in the log what is on.
    pub fn report(&self) {
        tracing::info!(
            user = %self.user,
            capabilities = %effective(),
            "confined"
        );
        if let Some(wanted) = self.wanted.as_ref().filter(|it| !it.is_own()) {
            tracing::warn!(
                user = %self.user,
                wanted = %wanted,
                "only root can become another user: the daemon runs as who has started it"
            );
        } else if self.user.is_root() {
            tracing::warn!("the daemon runs as root: name a `user` in [runtime]");
        }
    }
}
