//! Why nobody serves, in a few words: for the line of a client that was turned away.

use super::{Duty, Member};
use crate::health::State;

/// What keeps each of these from serving, counted: `2 down, 1 disabled in the file`. Nothing for those
/// that could.
pub fn absences(members: &[Member<'_>]) -> String {
    let reasons = REASONS.iter().filter_map(|reason| {
        let first = |member: &&Member<'_>| REASONS.iter().find(|it| (it.keeps)(member));
        let kept = |member: &&Member<'_>| first(member).is_some_and(|it| it.words == reason.words);
        let count = members.iter().filter(kept).count();
        (count > 0).then(|| format!("{count} {}", reason.words))
    });
    reasons.collect::<Vec<_>>().join(", ")
}

struct Reason {
    words: &'static str,
    keeps: fn(&Member<'_>) -> bool,
}

/// The first that is true of a backend is told of it.
const REASONS: &[Reason] = &[
    Reason {
        words: "disabled in the file",
        keeps: |it| !it.enabled,
    },
    Reason {
        words: "disabled by an operator",
        keeps: |it| it.admin.duty == Duty::Maintenance,
    },
    Reason {
        words: "drained by an operator",
        keeps: |it| it.admin.duty == Duty::Drain || it.admin.weight.get() == 0,
    },
    Reason {
        words: "without an address",
        keeps: |it| !it.resolved,
    },
    Reason {
        words: "down",
        keeps: |it| it.health.state == State::Down,
    },
    Reason {
        words: "out because sessions failed",
        keeps: |it| it.health.ejected,
    },
    Reason {
        words: "withdrawn by an agent",
        keeps: |it| !it.is_allowed(),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{AdminView, HealthView};
    use crate::model::BackendId;

    #[test]
    fn every_absence_is_counted_once_by_what_keeps_it_most() {
        let id = BackendId::new("web", "a");
        let up = Member {
            id: &id,
            weight: 1,
            priority: 0,
            enabled: true,
            resolved: true,
            admin: AdminView::default(),
            health: HealthView::of(State::Up),
        };
        let down = Member {
            health: HealthView::of(State::Down),
            ..up
        };
        let disabled = Member {
            enabled: false,
            ..down
        };
        let drained = Member {
            admin: AdminView {
                duty: Duty::Drain,
                ..AdminView::default()
            },
            ..up
        };
        let all = [up, down, disabled, drained, down];
        let told = "1 disabled in the file, 1 drained by an operator, 2 down";
        assert_eq!(absences(&all), told);
        assert_eq!(absences(&[]), "");
    }
}
