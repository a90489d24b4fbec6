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
