//! Weighted Maglev tables (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4): every backend walks its own permutation of the slots, derived
//! from its name, and the backends take turns in claiming the next slot of theirs that is free.
//!
//! Weights come in through the order of the turns: turn `k` of a backend of weight `w` is due at the
//! virtual time `(k + 1) / w`. That order does not depend on who else takes part, nor does the
//! table's size, which follows the configured backends rather than those that are up. So when one
//! leaves, most slots of the others are claimed by the same backend as before.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fmt;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::draw::scale;

/// Slots for each configured backend, at least: with a hundred, shares are exact to about one
/// percent and a loss disturbs few clients of others.
const SLOTS_PER_BACKEND: usize = 100;

/// The smallest table's size before it is made prime.
const SMALLEST: usize = 1 << 13;

/// The largest table's size before it is made prime, reached by 167,000 backends.
const LARGEST: usize = 1 << 24;

/// Where a backend's permutation starts, and by how much it steps.
const OFFSET_SEED: u64 = 0x6f66_6673_6574;
const STEP_SEED: u64 = 0x7374_6570;

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

/// The first prime from a power of two upwards that leaves every backend its slots. Powers of two,
/// because a size that changed with every backend added to the file would remap every client.
fn size_for(configured: usize) -> u64 {
    let wanted = configured.saturating_mul(SLOTS_PER_BACKEND);
    let rounded = wanted.clamp(SMALLEST, LARGEST).next_power_of_two() as u64;
    (rounded..=2 * rounded)
        .find(|&size| is_prime(size))
        .unwrap_or(rounded + 1)
}

/// By trial division: a few thousand steps at the sizes used here.
fn is_prime(n: u64) -> bool {
    n >= 2
        && (2..)
            .take_while(|divisor| divisor * divisor <= n)
            .all(|divisor| n % divisor != 0)
}

/// A backend on its way through its permutation of the slots.
struct Walk {
    member: usize,
    slot: u64,
    step: u64,
}

impl Walk {
    fn new(member: usize, name: &str, size: u64) -> Self {
        Self {
            member,
            slot: xxh3_64_with_seed(name.as_bytes(), OFFSET_SEED) % size,
            step: xxh3_64_with_seed(name.as_bytes(), STEP_SEED) % (size - 1) + 1,
        }
    }

    /// The next slot of the permutation that `taken` has free, which it then has not any more. Ends
    /// because the size is prime, so that every step visits every slot, and one is free.
    fn claim(&mut self, taken: &mut [u64], size: u64) -> usize {
        loop {
            let slot = self.slot as usize;
            self.slot += self.step;
            if self.slot >= size {
                self.slot -= size;
            }
            let bit = 1 << (slot % 64);
            if taken[slot / 64] & bit == 0 {
                taken[slot / 64] |= bit;
                return slot;
            }
        }
    }
}

fn fill<T: Copy + Default>(
    members: &[(&str, u32)],
    size: u64,
    entry: impl Fn(usize) -> T,
) -> Box<[T]> {
    // By weight, then by name: the order in the file must not matter.
    let mut order: Vec<usize> = (0..members.len()).collect();
    order.sort_unstable_by_key(|&member| (members[member].1, members[member].0));
    let mut walks: Vec<Walk> = order
        .iter()
        .map(|&member| Walk::new(member, members[member].0, size))
        .collect();

    // Backends of one weight are always due together, so the queue holds weights, not backends.
    let mut due: BinaryHeap<Reverse<Turn>> = BinaryHeap::new();
    let mut classes: Vec<&mut [Walk]> = Vec::new();
    for class in walks.chunk_by_mut(|a, b| members[a.member].1 == members[b.member].1) {
        let weight = u64::from(members[class[0].member].1.max(1));
        due.push(Reverse(Turn::new(1, weight, classes.len())));
        classes.push(class);
    }

    let mut slots = vec![T::default(); size as usize].into_boxed_slice();
    let mut taken = vec![0_u64; size.div_ceil(64) as usize];
    let mut free = size;
    while let Some(mut next) = due.peek_mut() {
        let turn = next.0;
        for walk in classes[turn.class].iter_mut() {
            slots[walk.claim(&mut taken, size)] = entry(walk.member);
            free -= 1;
            if free == 0 {
                PeekMut::pop(next);
                return slots;
            }
        }
        next.0 = Turn::new(turn.count + 1, turn.weight, turn.class);
    }
    slots
}

/// The `count`-th turn of every backend that weighs `weight`, ordered by when it is due; among
/// those due at once, the lighter first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    /// `count / weight` in steps of 2⁻³²: fine enough to tell any two different fractions of
    /// weights up to 65,535 apart.
    time: u64,
    weight: u64,
    count: u64,
    class: usize,
}

impl Turn {
    fn new(count: u64, weight: u64, class: usize) -> Self {
        Self {
            time: (count << 32) / weight,
            weight,
            count,
            class,
        }
    }
}
