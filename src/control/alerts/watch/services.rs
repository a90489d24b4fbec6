//! What was told of services: who is degraded, who is down, and who is served by standbys.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::Occasion;
use crate::control::Standing;
use crate::control::alerts::drafting::{About, Draft};
use crate::control::alerts::notice::{Details, Status};

/// Whom there is more to tell of: that it is as it should be again.
#[derive(Debug, Default)]
pub(super) struct Services {
    troubles: HashMap<Arc<str>, Trouble>,
    /// Those that standbys serve, and of which priority.
    standbys: HashMap<Arc<str>, u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trouble {
    degraded: bool,
    all_down: bool,
}

impl Services {
    /// Tells of what has changed by how a service stands now.
    pub(super) fn stands(&mut self, standing: &Standing, draft: &mut Draft<'_>) {
        let (eligible, configured) = (standing.eligible, standing.configured);
        let below_percent = draft.config.degraded_below;
        let is = Trouble {
            degraded: standing.is_below(below_percent),
            all_down: standing.is_down(),
        };
        let was = match is == Trouble::default() {
            true => self.troubles.remove(&standing.service),
            false => self.troubles.insert(Arc::clone(&standing.service), is),
        };
        let was = was.unwrap_or_default();
        let about = About::Service(&standing.service);
        if was.degraded != is.degraded {
            let details = Details::Degraded {
                eligible,
                configured,
                below_percent,
            };
            let status = Status::firing(is.degraded);
            draft.tell(Occasion::Degraded, status, about, details);
        }
        if was.all_down != is.all_down {
            let details = Details::AllDown { configured };
            let status = Status::firing(is.all_down);
            draft.tell(Occasion::AllDown, status, about, details);
        }
    }

    /// Tells if it is news that the tier `stands_in` serves a service, or that none does.
    pub(super) fn served_by(
        &mut self,
        stands_in: Option<u32>,
        standing: &Standing,
        draft: &mut Draft<'_>,
    ) {
        let service = &standing.service;
        let was = match stands_in {
            Some(priority) => self.standbys.insert(Arc::clone(service), priority),
            None => self.standbys.remove(service),
        };
        if was != stands_in {
            let details = Details::Standby {
                priority: stands_in,
                eligible: standing.eligible,
                configured: standing.configured,
            };
            let status = Status::firing(stands_in.is_some());
            draft.tell(Occasion::Standby, status, About::Service(service), details);
        }
    }

    /// A service that there is no more has no trouble.
    pub(super) fn forget(&mut self, left: impl Fn(&Arc<str>) -> bool, draft: &mut Draft<'_>) {
        for (service, was) in self.troubles.extract_if(|it, _| left(it)) {
            if was.degraded {
                draft.tell_gone(Occasion::Degraded, About::Service(&service));
            }
            if was.all_down {
                draft.tell_gone(Occasion::AllDown, About::Service(&service));
            }
        }
        for (service, _) in self.standbys.extract_if(|it, _| left(it)) {
            draft.tell_gone(Occasion::Standby, About::Service(&service));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::control::Event;
    use crate::control::alerts::watch::testing::{config, everything, standing, told, transition};
    use crate::health::State::{Down, Up};
    use crate::health::TierChange;
    use crate::model::{BackendId, Cause};
    use Occasion::{AllDown, BackendUp, Degraded, Flapping, Standby};
    use Status::{Firing, Resolved};

    #[test]
    fn degraded_and_all_down_are_told_as_they_begin_and_as_they_end() {
        let events = [
            transition("web", Up, Down, 2),
            transition("web", Up, Down, 1),
            transition("web", Up, Down, 0),
            transition("web", Down, Up, 1),
            transition("web", Down, Up, 2),
        ];
        let mut config = config("on = [\"degraded\", \"all-down\"]");
        assert_eq!(
            told(&config, &events),
            [
                vec![],
                vec![(Degraded, Firing)],
                vec![(AllDown, Firing)],
                vec![(AllDown, Resolved)],
                vec![(Degraded, Resolved)],
            ]
        );
        config.degraded_below = 10;
        assert_eq!(told(&config, &events[1..2]), [vec![]]);
    }

    #[test]
    fn a_reload_may_make_a_service_degraded_or_take_it_away() {
        let config = config("on = \"degraded\"");
        let events = [standing("web", 1), standing("web", 1), standing("db", 4)];
        assert_eq!(
            told(&config, &events),
            [vec![(Degraded, Firing)], vec![], vec![(Degraded, Resolved)]]
        );
    }

    #[test]
    fn standbys_are_told_when_they_take_over_and_when_they_are_needed_no_more() {
        let config = config("on = \"standby\"\nservices = \"web\"");
        let tier = |stands_in| Event::Tier {
            service: "web".into(),
            change: TierChange::TakesOver {
                priority: 1,
                up: 0,
                needed: 1,
            },
            stands_in,
            eligible: 2,
            configured: 4,
        };
        let events = [
            tier(Some(1)),
            tier(Some(1)),
            tier(Some(2)),
            tier(None),
            tier(Some(1)),
            // A reload that has it stand down, and one that takes the service away.
            standing("web", 4),
            tier(Some(1)),
            standing("db", 4),
        ];
        let (fires, ends) = (vec![(Standby, Firing)], vec![(Standby, Resolved)]);
        assert_eq!(
            told(&config, &events),
            [
                fires.clone(),
                vec![],
                fires.clone(),
                ends.clone(),
                fires.clone(),
                ends.clone(),
                fires,
                ends
            ]
        );
    }

    #[test]
    fn one_that_is_still_down_may_have_been_the_last_that_was_counted_on() {
        let config = config("on = [\"backend-down\", \"all-down\"]");
        let still_down = |eligible| Event::StillDown {
            backend: BackendId::new("web", "a"),
            cause: Cause::Refused.into(),
            eligible,
            configured: 4,
        };
        let events = [
            standing("web", 1),
            still_down(1),
            still_down(0),
            still_down(0),
        ];
        assert_eq!(
            told(&config, &events),
            [vec![], vec![], vec![(AllDown, Firing)], vec![]]
        );
    }

    #[test]
    fn a_service_without_any_backend_is_down_and_stays_it_when_the_last_one_leaves() {
        let config = config("on = [\"degraded\", \"all-down\"]");
        let empty = |configured| Event::Membership {
            standing: Standing {
                service: "web".into(),
                eligible: 0,
                configured,
            },
            removed: [].into(),
        };
        let events = [empty(0), empty(2), empty(0), standing("web", 4)];
        let told = told(&config, &events);
        assert_eq!(told[0], [(Degraded, Firing), (AllDown, Firing)]);
        assert_eq!((told[1].len(), told[2].len()), (0, 0));
        assert_eq!(told[3], [(Degraded, Resolved), (AllDown, Resolved)]);
    }

    proptest! {
        #[test]
        fn what_begins_ends_before_it_begins_again(eligible in prop::collection::vec(0_usize..=4, 1..60)) {
            let events: Vec<_> = eligible
                .iter()
                .map(|&eligible| transition("web", Down, Up, eligible))
                .collect();
            let told: Vec<_> = told(&everything(), &events).into_iter().flatten().collect();
            for kind in [Degraded, AllDown] {
                let states = told.iter().filter(|(event, _)| *event == kind).map(|(_, status)| *status);
                for (index, status) in states.enumerate() {
                    prop_assert_eq!(status, if index % 2 == 0 { Firing } else { Resolved });
                }
            }
            prop_assert!(told.iter().filter(|(event, _)| *event == BackendUp).count() == eligible.len());
            prop_assert!(told.iter().filter(|(event, _)| *event == Flapping).count() <= 1);
        }
    }
}
