//! Weighted Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4): every backend walks its own permutation of the slots, derived
//! from its name, and the backends take turns in claiming the next slot of theirs that is free.
//!
//! Weights come in through the order of the turns: turn `k` of a backend of weight `w` is due at the
//! virtual time `(k + 1) / w`. That order does not depend on who else takes part, nor does the
//! table's size, which follows the configured backends rather than those that are up. So when one
//! leaves, most slots of the others are claimed by the same backend as before.

use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::draw::{draw, scale};

/// Slots for each configured backend. With 400, losing one of a few dozen moves about 1 % of the
/// others' clients and never 2 %.
const SLOTS_WANTED: usize = 400;

/// Tables grow to this size on that account: among more backends, one is missed less.
const LARGE: usize = 1 << 16;

/// Beyond it they grow to leave every backend this many, as the paper advises.
const SLOTS_NEEDED: usize = 100;

/// The smallest table's size before it is made prime.
const SMALLEST: usize = 1 << 13;

/// The largest, reached by 167,000 backends.
const LARGEST: usize = 1 << 24;

/// Keeps names apart from the sources that are looked up.
const NAME_SEED: u64 = 0x6e61_6d65;

/// Who owns each slot. Two bytes a slot suffice for any real service and keep more of the table in
/// the cache.
enum Slots {
    Narrow(Box<[u16]>),
    Wide(Box<[u32]>),
}

/// A hash ring's better successor: one look-up finds the owner of a hash.
pub(super) struct Table(Slots);

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} slots)", self.len())
    }
}

impl Table {
    /// A table over `members`, by name and weight, laid out for `configured` backends.
    pub(super) fn new(members: &[(&str, u32)], configured: usize) -> Self {
        let size = size_for(configured.max(members.len()));
        if members.is_empty() {
            return Self(Slots::Narrow(Box::default()));
        }
        Self(match u16::try_from(members.len()) {
            Ok(_) => Slots::Narrow(fill(members, size, |member| member as u16)),
            Err(_) => Slots::Wide(fill(members, size, |member| member as u32)),
        })
    }

    /// Index of the member that owns `hash`; 0 without members, which no list of backends holds.
    pub(super) fn owner(&self, hash: u64) -> usize {
        let slot = scale(hash, self.len() as u64) as usize;
        match &self.0 {
            Slots::Narrow(slots) => slots.get(slot).map_or(0, |&owner| owner.into()),
            Slots::Wide(slots) => slots.get(slot).map_or(0, |&owner| owner as usize),
        }
    }

    fn len(&self) -> usize {
        match &self.0 {
            Slots::Narrow(slots) => slots.len(),
            Slots::Wide(slots) => slots.len(),
        }
    }
}

/// The first suitable prime from a power of two upwards that leaves every backend its slots. Powers
/// of two, because a size that changed with every backend added to the file would remap every
/// client.
fn size_for(configured: usize) -> u32 {
    let wanted = configured
        .saturating_mul(SLOTS_WANTED)
        .min(LARGE)
        .max(configured.saturating_mul(SLOTS_NEEDED))
        .clamp(SMALLEST, LARGEST);
    (wanted.next_power_of_two() as u32..)
        .find(|&size| size % 3 == 2 && is_prime(size))
        .unwrap_or(u32::MAX)
}

/// By trial division: a few thousand steps at the sizes used here.
fn is_prime(n: u32) -> bool {
    n >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= n)
            .all(|divisor| !n.is_multiple_of(divisor))
}

/// A backend on its way through its permutation of the slots.
///
/// The paper steps through the slots by a constant. Two such walks keep meeting in step whenever
/// their constants are close to a simple ratio, and then a loss disturbs up to a quarter of the
/// others' slots. Here the walk is a cubic, `a (j + b)³ + c`, which is a permutation modulo a prime
/// `p ≡ 2 (mod 3)`, has no such partners, and by finite differences costs three additions a step.
struct Walk {
    member: usize,
    slot: u32,
    /// The next first and second difference, and the third, which is constant.
    first: u32,
    second: u32,
    third: u32,
}

impl Walk {
    fn new(member: usize, name: &str, size: u32) -> Self {
        let size = u64::from(size);
        let hash = xxh3_64_with_seed(name.as_bytes(), NAME_SEED);
        let a = scale(draw(hash, 0), size - 1) + 1;
        let b = scale(draw(hash, 1), size);
        let c = scale(draw(hash, 2), size);
        // The sizes stay below 2²⁵, so each product fits before it is reduced.
        let square = b * b % size;
        let reduced = |value: u64| (value % size) as u32;
        Self {
            member,
            slot: reduced(square * b % size * a + c),
            first: reduced((3 * square + 3 * b + 1) % size * a),
            second: reduced((6 * b + 6) % size * a),
            third: reduced(6 * a),
        }
    }

    fn step(&mut self, size: u32) {
        self.slot = add(self.slot, self.first, size);
        self.first = add(self.first, self.second, size);
        self.second = add(self.second, self.third, size);
    }

    /// The next slot of the permutation that `taken` has free, which it then has not any more. Ends
    /// because the walk visits every slot and one is free.
    fn claim(&mut self, taken: &mut [u64], size: u32) -> usize {
        loop {
            let slot = self.slot as usize;
            self.step(size);
            let bit = 1 << (slot % 64);
            if taken[slot / 64] & bit == 0 {
                taken[slot / 64] |= bit;
                return slot;
            }
        }
    }
}

/// `a + b` modulo `size`, for summands that are reduced already.
fn add(a: u32, b: u32, size: u32) -> u32 {
    let sum = a + b;
    if sum >= size { sum - size } else { sum }
}

fn fill<T: Copy + Default>(
    members: &[(&str, u32)],
    size: u32,
    entry: impl Fn(usize) -> T,
) -> Box<[T]> {
    // By weight, then by name: the order in the file must not matter.
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|&member| (members[member].1, members[member].0));
    let mut walks: Vec<Walk> = order
        .iter()
        .map(|&member| Walk::new(member, members[member].0, size))
        .collect();

    // Backends of one weight are always due together, so weights take turns, not backends.
    let mut classes: Vec<Class<'_>> = walks
        .chunk_by_mut(|a, b| members[a.member].1 == members[b.member].1)
        .map(|walks| Class::new(members[walks[0].member].1, walks))
        .collect();
    let heaviest = classes.last().map_or(1, |class| class.weight);

    let mut slots = vec![T::default(); size as usize].into_boxed_slice();
    let mut taken = vec![0_u64; size as usize / 64 + 1];
    let mut free = size;
    // In time slices as long as the heaviest takes from turn to turn, so that each slice orders at
    // most one turn of everybody: many short sorts are far cheaper than one queue of all. What is
    // sorted is a time within the slice above a class, in one word because that is fastest.
    let mut slice: Vec<u64> = Vec::with_capacity(classes.len());
    let mut start = 0;
    for end in (1..).map(|turn| due(turn, heaviest)) {
        slice.clear();
        for (index, class) in classes.iter_mut().enumerate() {
            if class.due <= end {
                slice.push(((class.due - start - 1) << 32) | index as u64);
                class.advance();
            }
        }
        slice.sort_unstable();
        for &turn in &slice {
            for walk in classes[turn as u32 as usize].walks.iter_mut() {
                slots[walk.claim(&mut taken, size)] = entry(walk.member);
                free -= 1;
                if free == 0 {
                    return slots;
                }
            }
        }
        start = end;
    }
    slots
}

/// All backends of one weight.
struct Class<'a> {
    weight: u64,
    turn: u64,
    due: u64,
    walks: &'a mut [Walk],
}

impl<'a> Class<'a> {
    fn new(weight: u32, walks: &'a mut [Walk]) -> Self {
        let weight = u64::from(weight.max(1));
        Self {
            weight,
            turn: 1,
            due: due(1, weight),
            walks,
        }
    }

    fn advance(&mut self) {
        self.turn += 1;
        self.due = due(self.turn, self.weight);
    }
}

/// The virtual time of a turn in steps of 2⁻³², fine enough to tell any two different fractions of
/// weights up to 65,535 apart. Of those due at once, the lighter come first.
fn due(turn: u64, weight: u64) -> u64 {
    (turn << 32) / weight
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn named(weights: &[u32]) -> Vec<(String, u32)> {
        weights
            .iter()
            .enumerate()
            .map(|(index, &weight)| (format!("app-{index}"), weight))
            .collect()
    }

    /// Who owns each slot, by name.
    fn table(members: &[(String, u32)], configured: usize) -> Vec<&str> {
        let borrowed: Vec<(&str, u32)> = members
            .iter()
            .map(|(name, weight)| (name.as_str(), *weight))
            .collect();
        let Table(Slots::Narrow(slots)) = Table::new(&borrowed, configured) else {
            panic!("few members need no wide slots");
        };
        slots
            .iter()
            .map(|&member| borrowed[usize::from(member)].0)
            .collect()
    }

    /// Slots that changed although their owner stayed, and slots whose owner stayed.
    fn disturbed(full: &[&str], less: &[&str], lost: &str) -> (usize, usize) {
        let kept = full.iter().zip(less).filter(|&(&before, _)| before != lost);
        let moved = kept.clone().filter(|(before, after)| before != after);
        (moved.count(), kept.count())
    }

    #[test]
    fn every_walk_visits_every_slot_once() {
        let size = size_for(3);
        for name in ["a", "b", "10.0.0.11:8080"] {
            let mut walk = Walk::new(0, name, size);
            let mut seen = HashSet::new();
            for _ in 0..size {
                assert!(walk.slot < size && seen.insert(walk.slot));
                walk.step(size);
            }
        }
    }

    #[test]
    fn sizes_are_suitable_primes_with_a_hundred_slots_for_each() {
        for configured in [0, 1, 2, 20, 21, 50, 163, 164, 700, 1_000, 10_000, 100_000] {
            let size = size_for(configured);
            assert!(is_prime(size) && size % 3 == 2);
            assert!(size as usize >= 100 * configured.max(80), "{size}");
        }
        assert!(size_for(usize::MAX) < 1 << 25);
    }

    #[test]
    fn the_size_rarely_changes_with_the_file() {
        let sizes: HashSet<u32> = (1..=10_000).map(size_for).collect();
        assert!(sizes.len() <= 9, "{sizes:?}");
    }

    #[test]
    fn shares_follow_weights() {
        let members = named(&[1, 2, 3, 10, 100]);
        let table = table(&members, 5);
        for (name, weight) in &members {
            let share = table.iter().filter(|owner| *owner == name).count() as f64;
            let even = table.len() as f64 * f64::from(*weight) / 116.0;
            // Each of five may be one turn ahead of its due or behind it.
            assert!((share - even).abs() <= 5.0, "{name}: {share} of {even}");
        }
    }

    #[test]
    fn ten_thousand_of_every_weight_share_one_table() {
        let weights: Vec<u32> = (0..10_000)
            .map(|index| 1 + index * 7_919 % 65_535)
            .collect();
        let members = named(&weights);
        let table = table(&members, 10_000);
        let heavy = table
            .iter()
            .filter(|owner| weights[owner[4..].parse::<usize>().unwrap()] > 32_768)
            .count();
        let share = heavy as f64 / table.len() as f64;
        assert!((0.74..0.76).contains(&share), "{share}");
    }

    #[test]
    fn no_members_own_nothing() {
        assert_eq!(Table::new(&[], 7).owner(u64::MAX), 0);
    }

    #[test]
    fn seventy_thousand_members_get_wide_slots() {
        let members = named(&[1; 70_000]);
        let borrowed: Vec<(&str, u32)> = members
            .iter()
            .map(|(name, weight)| (name.as_str(), *weight))
            .collect();
        let table = Table::new(&borrowed, borrowed.len());
        let owners: HashSet<usize> = (0..2_000_000).map(|i| table.owner(draw(i, 0))).collect();
        assert!(owners.iter().any(|&owner| owner > 65_535));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn losing_one_moves_at_most_two_percent_of_the_others(
            weights in prop::collection::vec(1_u32..=10, 2..=50),
            prefix in "[a-z]{1,8}",
            lost in any::<prop::sample::Index>(),
        ) {
            let mut members = named(&weights);
            for (name, _) in &mut members {
                name.insert_str(0, &prefix);
            }
            let full = table(&members, weights.len());
            let mut rest = members.clone();
            let (lost, _) = rest.remove(lost.index(weights.len()));
            let less = table(&rest, weights.len());
            let (moved, kept) = disturbed(&full, &less, &lost);
            prop_assert!(moved * 100 <= kept * 2, "{moved} of {kept}");
        }

        #[test]
        fn the_order_in_the_file_does_not_matter(
            members in Just(named(&[3, 1, 4, 1, 5, 9, 2, 6])).prop_shuffle(),
        ) {
            let sorted = named(&[3, 1, 4, 1, 5, 9, 2, 6]);
            prop_assert_eq!(table(&members, 8), table(&sorted, 8));
        }
    }
}
