//! What control holds of each service: its [`members`], the counters that outlive them, and the
//! blueprints from which snapshots are built beside control.

mod blueprint;
mod loads;
mod members;

use std::sync::Arc;
use std::time::Instant;

pub(super) use self::blueprint::{Blueprint, Built};
pub(super) use self::loads::Loads;
pub(super) use self::members::{Member, Members, User, aim};
use super::event::Standing;
use super::failovers::Over;
use super::targets::Targets;
use crate::health::{Decision, Roster, Seat};
use crate::model::{BackendId, Map, Portion};
use crate::pool::Service;

/// By whom the clients of a service are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Served {
    /// As it should be.
    #[default]
    ByTheEligible,
    /// Nobody is up, and `when_all_down = "use-all"`.
    Regardless,
    ByNobody,
}

impl Served {
    pub(super) fn by(decision: &Decision) -> Self {
        match (decision.eligible, decision.serving.is_empty()) {
            (1.., _) => Self::ByTheEligible,
            (0, false) => Self::Regardless,
            (0, true) => Self::ByNobody,
        }
    }
}

/// A service that runs.
#[derive(Debug)]
pub(super) struct Serving {
    /// What workers see of it.
    pub(super) service: Arc<Service>,
    /// Its backends.
    pub(super) members: Members,
    /// Who of them serves, decided from time to time.
    pub(super) roster: Roster,
    /// What the table that is in use, or being built, was made from; `None` if that is not known.
    pub(super) laid_out: Option<Decision>,
    /// When the roster wants to be asked again.
    pub(super) wake: Option<Instant>,
    /// How many may serve now, kept up to date between decisions.
    pub(super) eligible: usize,
    /// By whom, as was said last.
    pub(super) served: Served,
    /// The last tier that stands in, and since when that is the last.
    pub(super) stands_in: Option<(u32, Instant)>,
    /// What it has been through.
    pub(super) failovers: Over,
    /// Counts the changes of health; what is built for an older one is built again.
    pub(super) revision: u64,
    /// A build is under way. There is one at a time: a flap storm costs one more, not one each.
    pub(super) building: bool,
}

impl Serving {
    /// Where the last decision has put the backend behind `user`.
    pub(super) fn seat(&self, user: &User) -> Option<Seat> {
        self.laid_out.as_ref()?.seats.get(user.at).copied()
    }

    /// How it stands.
    pub(super) fn standing(&self) -> Standing {
        Standing {
            service: Arc::clone(self.service.name()),
            eligible: self.eligible,
            configured: self.members.configured(),
        }
    }

    /// How many of those that may serve do by what is known now, decided or not; the others stand by.
    pub(super) fn serving(&self, targets: &Targets) -> usize {
        let members: Vec<_> = self.members.each().map(|it| it.view(targets)).collect();
        let mut roster = self.roster.clone();
        let decision = roster.decide(self.members.rules(), &members, Instant::now());
        decision.serving.len().min(self.eligible)
    }

    /// Whether backends are back and not in use, because a later tier stands in for them.
    pub(super) fn holds_back(&self) -> bool {
        let decision = self.laid_out.as_ref();
        decision.is_some_and(|it| it.seats.contains(&Seat::HeldBack))
    }

    /// How much of its weight counts, of each that serves.
    pub(super) fn portions(&self) -> Map<&BackendId, Portion> {
        let serving = self.laid_out.iter().flat_map(|it| &it.serving);
        serving.map(|it| (&it.id, it.portion)).collect()
    }

    /// Counts the backend behind `user` anew: O(1), because many may change at once.
    pub(super) fn count(&mut self, user: &User, targets: &Targets) {
        match self.members.count(user, targets) {
            (false, true) => self.eligible += 1,
            (true, false) => self.eligible = self.eligible.saturating_sub(1),
            (true, true) | (false, false) => {}
        }
    }

    /// Decides who serves.
    pub(super) fn decide(&mut self, targets: &Targets, now: Instant) -> Decision {
        let decision = self.members.decide(&mut self.roster, targets, now);
        let known = self.stands_in;
        let since = |tier| {
            known
                .filter(|(it, _)| *it == tier)
                .map_or(now, |(_, since)| since)
        };
        self.stands_in = self.roster.stands_in().map(|tier| (tier, since(tier)));
        decision
    }
}

/// All services by name.
#[derive(Debug, Default)]
pub(super) struct Services(pub(super) Map<Arc<str>, Serving>);

impl Services {
    /// Services, backends that may serve, and all backends.
    pub(super) fn count(&self) -> (usize, usize, usize) {
        let (mut eligible, mut configured) = (0, 0);
        for serving in self.0.values() {
            eligible += serving.eligible;
            configured += serving.members.configured();
        }
        (self.0.len(), eligible, configured)
    }

    /// How each of them stands.
    pub(super) fn standing(&self) -> Vec<Standing> {
        self.0.values().map(Serving::standing).collect()
    }

    /// Those in which a tier stands in for those before it, and the last such tier.
    pub(super) fn standbys(&self) -> Vec<(Arc<str>, u32)> {
        let of = |(name, serving): (&Arc<str>, &Serving)| {
            Some((Arc::clone(name), serving.roster.stands_in()?))
        };
        self.0.iter().filter_map(of).collect()
    }
}
