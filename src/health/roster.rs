//! The one place that decides which backends may serve.

use super::State;
use crate::model::BackendId;
use crate::strategy::Candidate;

/// A configured backend, with what is known about it now.
#[derive(Clone, Debug)]
pub struct Member {
    /// Who it is.
    pub id: BackendId,
    /// Configured weight.
    pub weight: u32,
    /// Whether the operator lets it serve.
    pub enabled: bool,
    /// Whether its name has an address.
    pub resolved: bool,
    /// What its probes say.
    pub state: State,
}

/// The backends that may serve, in configured order: eligible = enabled ∧ resolved ∧ not down.
/// Unknown counts as eligible, so that a start does not refuse clients until the first probe.
pub fn roster(members: &[Member]) -> Vec<Candidate> {
    members
        .iter()
        .filter(|member| member.enabled && member.resolved && member.state != State::Down)
        .map(|member| Candidate {
            id: member.id.clone(),
            weight: member.weight.max(1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str) -> Member {
        Member {
            id: BackendId::new("web", name),
            weight: 3,
            enabled: true,
            resolved: true,
            state: State::Up,
        }
    }

    fn names(members: &[Member]) -> Vec<String> {
        roster(members)
            .iter()
            .map(|candidate| candidate.id.name().to_string())
            .collect()
    }

    #[test]
    fn who_is_up_or_unknown_serves_in_the_order_of_the_file() {
        let unknown = Member {
            state: State::Unknown,
            ..member("b")
        };
        assert_eq!(names(&[member("c"), unknown, member("a")]), ["c", "b", "a"]);
    }

    #[test]
    fn who_is_down_disabled_or_without_an_address_does_not() {
        let down = Member {
            state: State::Down,
            ..member("down")
        };
        let disabled = Member {
            enabled: false,
            ..member("disabled")
        };
        let nameless = Member {
            resolved: false,
            ..member("nameless")
        };
        assert_eq!(names(&[down, disabled, member("a"), nameless]), ["a"]);
    }

    #[test]
    fn nobody_eligible_is_an_empty_roster() {
        let down = Member {
            state: State::Down,
            ..member("a")
        };
        assert_eq!(roster(&[down]), []);
    }

    #[test]
    fn weights_come_along_and_are_never_zero() {
        let feather = Member {
            weight: 0,
            ..member("b")
        };
        let weights: Vec<u32> = roster(&[member("a"), feather])
            .iter()
            .map(|candidate| candidate.weight)
            .collect();
        assert_eq!(weights, [3, 1]);
    }
}
