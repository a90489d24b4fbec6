//! Which of root's privileges are left, capabilities(7).

use std::fmt;
use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use crate::config::Config;

/// Privileges that the daemon keeps, as far as it has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept(CapabilitySet);

impl Kept {
    /// Of any user but root: a reload may add a listener on port 443.
    pub fn of_a_user() -> Self {
        Self(CapabilitySet::NET_BIND_SERVICE)
    }

    /// Also what connections take that `config` asks for: packets with a mark, or with a client's address.
    pub fn and_of(self, config: &Config) -> Self {
        match config.needs_raw_sockets() {
            true => Self(self.0 | CapabilitySet::NET_RAW),
            false => self,
        }
    }

    /// Of root, when `[runtime]` names nobody else: what makes its files and pipes those of root.
    pub fn of_root() -> Self {
        Self(
            CapabilitySet::NET_BIND_SERVICE
                | CapabilitySet::CHOWN
                | CapabilitySet::DAC_OVERRIDE
                | CapabilitySet::DAC_READ_SEARCH
                | CapabilitySet::FOWNER
                | CapabilitySet::SYS_RESOURCE,
        )
    }
}

/// The names of those that this process has and could use at once.
pub fn effective() -> Names {
    // The call fails for other processes only.
    Names(capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective))
}

/// Gives every other capability up, for this thread and those that it starts.
pub(super) fn limit(kept: Kept) -> io::Result<()> {
    // An old kernel, or a sandbox around us, has no such set: there is nothing in it.
    let _ = clear_ambient_capability_set();
    let own = capabilities(None)?;
    if kept.0.contains(own.permitted) && own.effective == own.permitted {
        // Nothing to give up. A service manager that has seen to it may also refuse the call.
        return Ok(());
    }
    let permitted = own.permitted & kept.0;
    set_capabilities(
        None,
        CapabilitySets {
            effective: permitted,
            permitted,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Has no program that is started from here ever get another capability, whoever owns its file.
pub(super) fn bound(kept: Kept) {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if !kept.0.contains(one) {
            // Who may not do this has nothing to give up, and the kernel does not know all of them.
            let _ = remove_capability_from_bounding_set(one);
        }
    }
}

/// Capabilities by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names(CapabilitySet);

impl fmt::Display for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("none");
        }
        for (at, one) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" ")?;
            }
            let name = one.iter_names().next();
            match name {
                Some((name, _)) => write!(f, "CAP_{name}")?,
                None => write!(f, "{:#x}", one.bits())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_their_names() {
        assert_eq!(
            Names(Kept::of_a_user().0).to_string(),
            "CAP_NET_BIND_SERVICE"
        );
        assert_eq!(Names(CapabilitySet::empty()).to_string(), "none");
        let two = CapabilitySet::CHOWN | CapabilitySet::NET_RAW;
        assert_eq!(Names(two).to_string(), "CAP_CHOWN CAP_NET_RAW");
    }
}
