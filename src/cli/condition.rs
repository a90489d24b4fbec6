//! What is to be said of a backend in a word, and how bad that is. What is to be said of it in sentences
//! is [`findings`](super::findings)' business.

use crate::api::{Backend, State};

/// How bad something is, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Gravity {
    /// Clients are, or are about to be, hurt.
    Wrong,
    /// Somebody wanted it so, or it will be over by itself.
    Noted,
    /// Nothing to see.
    Well,
}

/// A backend in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    Down,
    Unresolved,
    Ejected,
    Failing,
    Recovering,
    Slow,
    Draining,
    Disabled,
    Unknown,
    NoWeight,
    Standby,
    Full,
    Up,
}

impl Condition {
    /// Of that backend.
    pub(super) fn of(backend: &Backend) -> Self {
        let duty = backend.admin.as_ref().map(|admin| &*admin.duty);
        match duty {
            Some("drain") => return Self::Draining,
            Some("maintenance") => return Self::Disabled,
            None if !backend.enabled => return Self::Disabled,
            Some(_) | None => {}
        }
        match backend.state {
            _ if backend.address.is_none() => Self::Unresolved,
            State::Down => Self::Down,
            _ if backend.ejected_until.is_some() => Self::Ejected,
            State::Failing => Self::Failing,
            State::Recovering => Self::Recovering,
            _ if backend.agent.as_deref() == Some("drain") => Self::Draining,
            State::Unknown => Self::Unknown,
            State::Up
                if backend
                    .admin
                    .as_ref()
                    .is_some_and(|it| it.weight_percent == 0) =>
            {
                Self::NoWeight
            }
            State::Up if !backend.serving => Self::Standby,
            State::Up if is_full(backend) => Self::Full,
            State::Up if backend.suspect => Self::Slow,
            State::Up => Self::Up,
        }
    }

    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Unresolved => "no address",
            Self::Ejected => "ejected",
            Self::Failing => "failing",
            Self::Recovering => "recovering",
            Self::Slow => "slow",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Unknown => "unchecked",
            Self::NoWeight => "no weight",
            Self::Standby => "standby",
            Self::Full => "full",
            Self::Up => "up",
        }
    }

    /// How bad that is.
    pub(super) fn gravity(self) -> Gravity {
        match self {
            Self::Down | Self::Unresolved | Self::Ejected | Self::Failing => Gravity::Wrong,
            Self::Recovering
            | Self::Slow
            | Self::Draining
            | Self::Unknown
            | Self::NoWeight
            | Self::Full => Gravity::Noted,
            Self::Disabled | Self::Standby | Self::Up => Gravity::Well,
        }
    }
}

/// Whether it has all the sessions that it may have.
pub(super) fn is_full(backend: &Backend) -> bool {
    let most = backend.max_connections;
    most.is_some_and(|most| backend.traffic.sessions >= most.into())
}

/// Whether it is so because an operator has said so.
pub(super) fn is_by_operator(backend: &Backend, condition: Condition) -> bool {
    let duty = backend.admin.as_ref().map(|admin| &*admin.duty);
    match condition {
        Condition::Draining | Condition::Disabled => duty.is_some_and(|duty| duty != "serve"),
        Condition::NoWeight => true,
        Condition::Down
        | Condition::Unresolved
        | Condition::Ejected
        | Condition::Failing
        | Condition::Recovering
        | Condition::Slow
        | Condition::Unknown
        | Condition::Standby
        | Condition::Full
        | Condition::Up => false,
    }
}

/// Since when it is in its condition, where that is known: not its health's time where an operator has
/// said more, or its sessions are what fills it.
pub(super) fn since_when(backend: &Backend) -> Option<&str> {
    let condition = Condition::of(backend);
    match is_by_operator(backend, condition) {
        _ if condition == Condition::Full => None,
        true => backend.admin.as_ref()?.since.as_deref(),
        false => backend.since.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Admin;
    use crate::cli::testing::{NOW, up};

    #[test]
    fn a_backend_is_in_the_condition_that_matters_most() {
        let by_operator = |duty: &str| {
            Some(Admin {
                duty: duty.into(),
                weight_percent: 100,
                ..Admin::default()
            })
        };
        let down = Backend {
            state: State::Down,
            ..up("a")
        };
        let cases = [
            (up("a"), Condition::Up),
            (down.clone(), Condition::Down),
            (
                Backend {
                    admin: by_operator("drain"),
                    ..down.clone()
                },
                Condition::Draining,
            ),
            (
                Backend {
                    admin: by_operator("maintenance"),
                    ..down.clone()
                },
                Condition::Disabled,
            ),
            (
                Backend {
                    enabled: false,
                    ..down
                },
                Condition::Disabled,
            ),
            (
                Backend {
                    address: None,
                    ..up("a")
                },
                Condition::Unresolved,
            ),
            (
                Backend {
                    serving: false,
                    ..up("a")
                },
                Condition::Standby,
            ),
            (
                Backend {
                    suspect: true,
                    ..up("a")
                },
                Condition::Slow,
            ),
            (
                Backend {
                    ejected_until: Some(NOW.into()),
                    serving: false,
                    ..up("a")
                },
                Condition::Ejected,
            ),
        ];
        for (backend, condition) in cases {
            assert_eq!(Condition::of(&backend), condition, "{backend:?}");
        }
    }
}
