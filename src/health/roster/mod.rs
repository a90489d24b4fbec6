//! The one place that decides which backends may serve: see [`Roster::decide`].
//!
//! What is known of each backend comes in as a [`Member`], what the file says of all of them as
//! [`Rules`]. `tiers` decides which priorities serve, `ramp` how much of its weight a backend gets.

mod absence;
mod member;
mod ramp;
mod rules;
mod tiers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use self::ramp::Ramp;
use self::tiers::{Tier, Tiers};
use crate::model::{InOrder, Portion};
use crate::strategy::Candidate;

pub use absence::absences;
pub use member::{AdminView, Agent, Duty, HealthView, Member, Percent};
pub use rules::{FailBack, MinUp, Rules, WhenAllDown};
pub use tiers::{StandDown, TierChange};

/// Who serves a service from now on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where each member is, in their order.
    pub seats: Vec<Seat>,
    /// Who serves, in the order of the members.
    pub serving: Vec<Candidate>,
    /// Who serves when all of those have gone down and nothing has been decided yet.
    pub reserve: Vec<Candidate>,
    /// How many are eligible, whether they serve or stand by.
    pub eligible: usize,
    /// Nobody is eligible, and `serving` is everybody who may: their health does not count.
    pub regardless: bool,
    /// The same of `reserve`: it is everybody who may.
    pub reserve_regardless: bool,
    /// Tiers that came and went by this decision.
    pub changes: Vec<TierChange>,
    /// When to decide again, if nothing happens until then.
    pub again: Option<Instant>,
}

impl Decision {
    /// Whether a table for this one is as good for the other.
    pub fn lays_out_as(&self, other: &Self) -> bool {
        (&self.serving, self.regardless) == (&other.serving, other.regardless)
            && (&self.reserve, self.reserve_regardless)
                == (&other.reserve, other.reserve_regardless)
    }
}

/// Where a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seat {
    /// It takes new sessions.
    Serves,
    /// It could, and its tier is not needed.
    StandsBy,
    /// It could again, and a later tier stands in for it until that may stand down.
    HeldBack,
    /// It cannot, or may not.
    Out,
}

impl fmt::Display for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Serves => "serves",
            Self::StandsBy => "stands by",
            Self::HeldBack => "held back",
            Self::Out => "out",
        })
    }
}

/// What one service remembers from decision to decision.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    tiers: Tiers,
    /// By name, in the order of the members; `None` before the first decision.
    past: Option<Arc<[Former]>>,
}

/// Who it was, and what is remembered of it.
type Former = (Arc<str>, Past);

/// What is remembered of one member.
#[derive(Clone, Copy, Debug)]
struct Past {
    seat: Seat,
    ramp: Option<Ramp>,
}

impl Roster {
    /// Has tiers that stand in and are not needed stand down with the next decision: the operator's
    /// answer to `fail_back = "manual"`.
    pub fn fail_back(&mut self) {
        self.tiers.fail_back();
    }

    /// The priority of the last tier that stands in for those before it, if any does.
    pub fn stands_in(&self) -> Option<u32> {
        self.tiers.last()
    }

    /// Decides who serves.
    ///
    /// The first tier serves, and each later one while fewer than `min_up` of all before it are
    /// eligible; who of those comes back while a later tier stands in waits until that one may
    /// stand down. A member that was out, or is new to a service that runs, gets a small portion of its
    /// weight first. Portions are relative to the greatest: when all are warming up, nobody is.
    pub fn decide(&mut self, rules: &Rules, members: &[Member<'_>], now: Instant) -> Decision {
        let changes = self.tiers.advance(rules, &tiers(members), now);
        let first = members.iter().map(|it| it.priority).min().unwrap_or(0);
        let before = self.past.take();
        let mut before = before
            .as_deref()
            .map(|it| InOrder::new(it, |(name, _)| name));
        let judge = |member: &Member<'_>| {
            let was = match &mut before {
                None => Was::Unborn,
                Some(before) => before
                    .find(member.id.name())
                    .map_or(Was::Absent, |(_, past)| Was::There(*past)),
            };
            let seat = self.seat(member, first, was);
            let ramp = ramp(seat, was, rules, now);
            let percent = ramp.map_or(100, |ramp| ramp.percent(rules, now));
            Judged {
                seat,
                ramp,
                part: u64::from(percent) * weight_percent(member),
            }
        };
        let mut judged: Vec<Judged> = members.iter().map(judge).collect();
        let past = |(member, judged): (&Member<'_>, &Judged)| {
            (Arc::clone(member.id.name()), judged.past())
        };
        self.past = Some(members.iter().zip(&judged).map(past).collect());

        let warming = judged
            .iter()
            .any(|it| it.seat == Seat::Serves && it.ramp.is_some());
        let step = warming.then(|| now + ramp::step(rules));
        let again = self.tiers.again(rules).into_iter().chain(step).min();
        let eligible = judged.iter().filter(|it| it.seat != Seat::Out).count();
        let regardless = eligible == 0 && rules.when_all_down == WhenAllDown::UseAll;
        if regardless {
            for (judged, member) in judged.iter_mut().zip(members) {
                if member.is_allowed() {
                    judged.seat = Seat::Serves;
                }
            }
        }
        let (reserve, reserve_regardless) = match regardless {
            true => (Vec::new(), false),
            false => reserve(rules, members, &judged),
        };
        Decision {
            serving: candidates(members, &judged, |_, it| it.seat == Seat::Serves),
            reserve,
            seats: judged.into_iter().map(|it| it.seat).collect(),
            eligible,
            regardless,
            reserve_regardless,
            changes,
            again,
        }
    }

    fn seat(&self, member: &Member<'_>, first: u32, was: Was) -> Seat {
        if !member.is_eligible() {
            Seat::Out
        } else if self.tiers.holds_back(member.priority, first) && !was.served() {
            Seat::HeldBack
        } else if member.priority == first || self.tiers.stands_in(member.priority) {
            Seat::Serves
        } else {
            Seat::StandsBy
        }
    }
}

/// What a member was at the decision before.
#[derive(Clone, Copy, Debug)]
enum Was {
    /// There was none: the process starts, or the service is new.
    Unborn,
    /// Not among the members.
    Absent,
    There(Past),
}

impl Was {
    fn served(self) -> bool {
        matches!(self, Self::There(past) if past.seat == Seat::Serves)
    }
}

/// What is decided of one member.
#[derive(Clone, Copy, Debug)]
struct Judged {
    seat: Seat,
    ramp: Option<Ramp>,
    /// What counts of its weight, in parts of any unit.
    part: u64,
}

impl Judged {
    fn past(&self) -> Past {
        Past {
            seat: self.seat,
            ramp: self.ramp,
        }
    }
}

/// The ramp of a member that is in `seat` now.
fn ramp(seat: Seat, was: Was, rules: &Rules, now: Instant) -> Option<Ramp> {
    match (seat, was) {
        // What is held back stays cold until it is let in.
        (Seat::Out | Seat::HeldBack, _) | (_, Was::Unborn) => None,
        (Seat::Serves | Seat::StandsBy, Was::There(past)) => match past.seat {
            Seat::Serves | Seat::StandsBy => past.ramp.filter(|it| it.lasts(rules, now)),
            Seat::HeldBack | Seat::Out => Ramp::begin(rules, now),
        },
        (Seat::Serves | Seat::StandsBy, Was::Absent) => Ramp::begin(rules, now),
    }
}

/// Who serves when all that serve have gone down: those held back, or the next tier that stands by, or
/// everybody that may, health or not, which the flag says.
fn reserve(rules: &Rules, members: &[Member<'_>], judged: &[Judged]) -> (Vec<Candidate>, bool) {
    let held_back = candidates(members, judged, |_, it| it.seat == Seat::HeldBack);
    if !held_back.is_empty() {
        return (held_back, false);
    }
    let standing_by = members.iter().zip(judged);
    let next = standing_by
        .filter(|(_, it)| it.seat == Seat::StandsBy)
        .map(|(member, _)| member.priority)
        .min();
    if next.is_some() {
        let reserve = candidates(members, judged, |member, it| {
            it.seat == Seat::StandsBy && Some(member.priority) == next
        });
        return (reserve, false);
    }
    match rules.when_all_down {
        WhenAllDown::Refuse => (Vec::new(), false),
        WhenAllDown::UseAll => (
            candidates(members, judged, |member, _| member.is_allowed()),
            true,
        ),
    }
}

/// The tiers of `members` in order of priority.
fn tiers(members: &[Member<'_>]) -> Vec<Tier> {
    let mut tiers = BTreeMap::new();
    for member in members {
        let priority = member.priority;
        let tier = tiers.entry(priority).or_insert(Tier {
            priority,
            configured: 0,
            eligible: 0,
        });
        tier.configured += 1;
        tier.eligible += usize::from(member.is_eligible());
    }
    tiers.into_values().collect()
}

/// What the operator and the backend make of its weight, in hundredths of a percent.
fn weight_percent(member: &Member<'_>) -> u64 {
    u64::from(member.admin.weight.get()) * u64::from(member.health.agent.weight.get())
}

/// Those of `members` that are `wanted`, with portions relative to the greatest of theirs.
fn candidates(
    members: &[Member<'_>],
    judged: &[Judged],
    wanted: impl Fn(&Member<'_>, &Judged) -> bool,
) -> Vec<Candidate> {
    let all = members.iter().zip(judged);
    let chosen = || all.clone().filter(|(member, it)| wanted(member, it));
    let greatest = chosen().map(|(_, it)| it.part).max().unwrap_or(0);
    chosen()
        .map(|(member, it)| Candidate {
            id: member.id.clone(),
            weight: member.weight.max(1),
            portion: Portion::of(it.part, greatest),
        })
        .collect()
}

#[cfg(test)]
mod tests;
