//! What whoever got hold of the daemon could do beyond what it needs.

use crate::cli::doctor::Finding;
use crate::cli::doctor::facts::Facts;
use crate::config::{Config, Sandbox};

/// That it is root, if it is.
pub(super) fn root(facts: &Facts, config: &Config) -> Option<Finding> {
    if facts.who.uid != 0 || (facts.daemon.is_none() && config.runtime.user.is_some()) {
        return None;
    }
    let now = match facts.daemon {
        Some(_) => "the daemon runs as root",
        None => "root would start it, and it would stay root",
    };
    let why = match config.runs_programs() {
        true => {
            "every file of the machine is open to whoever finds a way in, and the programs of its checks and alerts are run by root"
        }
        false => "every file of the machine is open to whoever finds a way in",
    };
    Some(
        Finding::advice("user", now)
            .wanted("a user of its own, which root becomes when it starts")
            .why(why)
            .fix(["[runtime]", "user = \"ballast\""]),
    )
}

/// What it may ask of the kernel.
pub(super) fn sandbox(facts: &Facts, config: &Config) -> Finding {
    let advice = |now: &str, wanted: &str| {
        Finding::advice("sandbox", now)
            .wanted(wanted)
            .why("whoever finds a way in may do what the daemon itself never does")
    };
    let switched = match config.runtime.sandbox {
        Sandbox::On => None,
        Sandbox::Log => Some("only told of (`sandbox` in [runtime] is \"log\")"),
        Sandbox::Off => Some("switched off by `sandbox` in [runtime]"),
    };
    if let Some(now) = switched {
        return advice(now, "on").fix(["[runtime]", "sandbox = \"on\""]);
    }
    if !facts.lockable.seccomp {
        return advice(
            "this kernel does not filter system calls",
            "a kernel with CONFIG_SECCOMP_FILTER",
        );
    }
    if facts.daemon.as_ref().is_some_and(|it| !it.filtered) {
        return advice("the daemon that runs has none", "a restart, when it suits")
            .fix(["sudo systemctl restart ballast"]);
    }
    if !facts.lockable.landlock {
        return advice(
            "system calls are filtered; this kernel has no Landlock, which limits files",
            "a kernel with CONFIG_SECURITY_LANDLOCK, and landlock in the list that it boots with",
        )
        .fix(["cat /sys/kernel/security/lsm"]);
    }
    Finding::fine("sandbox", "seccomp and Landlock")
}
