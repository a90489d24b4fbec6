//! The one place that decides which backends may serve.

mod member;
mod rules;

use crate::strategy::Candidate;

pub use member::{AdminView, Agent, Duty, HealthView, Member, Percent};
pub use rules::{FailBack, MinUp, Rules, WhenAllDown};

/// The backends that may serve, in configured order.
pub fn roster(members: &[Member<'_>]) -> Vec<Candidate> {
    members
        .iter()
        .filter(|member| member.is_eligible())
        .map(|member| Candidate {
            id: member.id.clone(),
            weight: member.weight.max(1),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::State;
    use crate::model::BackendId;

    fn member(id: &BackendId) -> Member<'_> {
        Member {
            id,
            weight: 3,
            priority: 0,
            enabled: true,
            resolved: true,
            admin: AdminView::default(),
            health: HealthView::of(State::Up),
        }
    }

    #[test]
    fn everybody_whose_word_counts_must_let_a_backend_serve() {
        let id = BackendId::new("web", "a");
        let good = member(&id);
        assert!(good.is_eligible());
        let unknown = HealthView::of(State::Unknown);
        assert!(
            Member {
                health: unknown,
                ..good
            }
            .is_eligible()
        );
        let mut wrong = [good; 9];
        wrong[0].health.state = State::Down;
        wrong[1].health.ejected = true;
        wrong[2].enabled = false;
        wrong[3].resolved = false;
        wrong[4].admin.duty = Duty::Drain;
        wrong[5].admin.duty = Duty::Maintenance;
        wrong[6].admin.weight = Percent::new(0);
        wrong[7].health.agent.duty = Duty::Drain;
        wrong[8].health.agent.weight = Percent::new(0);
        for member in wrong {
            assert!(!member.is_eligible(), "{member:?}");
        }
        assert!(wrong[..2].iter().all(Member::is_allowed));
        assert!(!wrong[2..].iter().any(Member::is_allowed));
    }
}
