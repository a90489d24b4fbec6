//! Which tiers of priority serve: the first always does, and a later one stands in while too few of
//! those before it are up. Knows how many are up in each, not who they are.

use std::time::{Duration, Instant};

use super::rules::{FailBack, Rules};

/// The backends of one priority.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tier {
    pub(super) priority: u32,
    pub(super) configured: usize,
    pub(super) eligible: usize,
}

/// A tier that took over, stood down, or might have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TierChange {
    /// It serves from now on: of those before it only `up` are up.
    TakesOver {
        /// Which tier.
        priority: u32,
        /// How many of the tiers before it are up.
        up: usize,
        /// How many would be enough.
        needed: usize,
    },
    /// Enough of those before it are back, and it goes on for now.
    Stays {
        /// Which tier.
        priority: u32,
        /// Until when.
        until: FailBack,
    },
    /// It serves no new sessions.
    StandsDown {
        /// Which tier.
        priority: u32,
        /// How many of the tiers before it are up.
        up: usize,
        /// Why now.
        why: StandDown,
    },
}

/// Why a tier stood down, besides that it is not needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandDown {
    /// It does so at once.
    Immediate,
    /// Those before it have been up for this long.
    After(Duration),
    /// It has too few backends up itself.
    Failed,
    /// An operator asked for it.
    Asked,
}

/// The tiers that stand in.
#[derive(Clone, Debug, Default)]
pub(super) struct Tiers {
    /// In order of priority.
    standing_in: Vec<StandIn>,
    /// Those that would, were it not for one behind them that stays.
    kept_out: Vec<u32>,
    /// An operator asked those that are not needed to stand down.
    asked: bool,
}

#[derive(Clone, Copy, Debug)]
struct StandIn {
    priority: u32,
    /// Since when enough of those before it have been back.
    back: Option<Instant>,
}

/// What a tier finds before it.
#[derive(Clone, Copy, Debug)]
struct Before {
    up: usize,
    needed: usize,
    /// Enough are up before it, or before one of those before it.
    enough: bool,
}

impl Tiers {
    /// Has the tiers that are not needed stand down with the next decision.
    pub(super) fn fail_back(&mut self) {
        self.asked = true;
    }

    /// Whether the tier of `priority`, not being the first, serves.
    pub(super) fn stands_in(&self, priority: u32) -> bool {
        self.standing_in.iter().any(|it| it.priority == priority)
    }

    /// The last tier that serves and is not the first.
    pub(super) fn last(&self) -> Option<u32> {
        self.standing_in.iter().map(|it| it.priority).max()
    }

    /// Whether whoever comes back in the tier of `priority` is held back, though that tier serves, or would.
    pub(super) fn holds_back(&self, priority: u32, first: u32) -> bool {
        let serves = priority == first || self.stands_in(priority);
        (serves || self.kept_out.contains(&priority))
            && self.waiting().is_some_and(|waiting| priority < waiting)
    }

    /// The last tier that only serves until it may stand down.
    fn waiting(&self) -> Option<u32> {
        let last = self.standing_in.iter().rev();
        last.filter(|it| it.back.is_some())
            .map(|it| it.priority)
            .next()
    }

    /// When the next of them may stand down, if nothing happens.
    pub(super) fn again(&self, rules: &Rules) -> Option<Instant> {
        let FailBack::After(after) = rules.fail_back else {
            return None;
        };
        let back = self.standing_in.iter().filter_map(|it| it.back);
        back.map(|back| back + after).min()
    }

    /// Decides anew, given every tier in order of priority.
    pub(super) fn advance(
        &mut self,
        rules: &Rules,
        tiers: &[Tier],
        now: Instant,
    ) -> Vec<TierChange> {
        let mut changes = Vec::new();
        let later = later_tiers(rules, tiers);
        let asked = std::mem::take(&mut self.asked);
        self.standing_in.retain_mut(|stand_in| {
            // A tier that is not in the file any more, or is the first now.
            let Some((tier, before)) = later
                .iter()
                .find(|(it, _)| it.priority == stand_in.priority)
            else {
                return false;
            };
            if !before.enough {
                stand_in.back = None;
                return true;
            }
            let returned = stand_in.back.is_none();
            let back = *stand_in.back.get_or_insert(now);
            let why = match rules.fail_back {
                _ if asked => Some(StandDown::Asked),
                FailBack::Immediate => Some(StandDown::Immediate),
                _ if is_weak(tier, rules) => Some(StandDown::Failed),
                FailBack::After(after) => (now.saturating_duration_since(back) >= after)
                    .then_some(StandDown::After(after)),
                FailBack::Manual => None,
            };
            let priority = tier.priority;
            match why {
                Some(why) => changes.push(TierChange::StandsDown {
                    priority,
                    up: before.up,
                    why,
                }),
                None if returned => changes.push(TierChange::Stays {
                    priority,
                    until: rules.fail_back,
                }),
                None => {}
            }
            why.is_none()
        });
        // While one stands in that would rather not, whoever comes up before it is the one it waits
        // for, and no stand-in itself.
        let waiting = self.waiting();
        self.kept_out.clear();
        for (tier, before) in &later {
            let missing = !before.enough && tier.eligible > 0;
            if !missing || self.stands_in(tier.priority) {
                continue;
            }
            if waiting.is_some_and(|waiting| tier.priority < waiting) {
                self.kept_out.push(tier.priority);
            } else {
                changes.push(TierChange::TakesOver {
                    priority: tier.priority,
                    up: before.up,
                    needed: before.needed,
                });
                self.standing_in.push(StandIn {
                    priority: tier.priority,
                    back: None,
                });
            }
        }
        self.standing_in.sort_unstable_by_key(|it| it.priority);
        changes
    }
}

/// Every tier but the first, with what it finds before it.
fn later_tiers(rules: &Rules, tiers: &[Tier]) -> Vec<(Tier, Before)> {
    let (mut up, mut configured, mut enough) = (0, 0, false);
    let mut found = Vec::new();
    for pair in tiers.windows(2) {
        up += pair[0].eligible;
        configured += pair[0].configured;
        let needed = rules.min_up.of(configured);
        enough |= up >= needed;
        found.push((pair[1], Before { up, needed, enough }));
    }
    found
}

/// Whether a tier that stands in has itself too few backends up to wait with.
fn is_weak(tier: &Tier, rules: &Rules) -> bool {
    tier.eligible < rules.min_up.of(tier.configured).min(tier.configured)
}
