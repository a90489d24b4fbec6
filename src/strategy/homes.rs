//! Where a hash is at home when not every backend gets its full portion: two Maglev tables, laid out so
//! that a portion that grows moves nobody but those whom it brings home.
//!
//! The first table goes by configured weight, whatever the portions. A backend that is due less than
//! its slots admits only a part of the hashes that find it there, always the same ones first. Those it does
//! not admit find the owner of their hash in a second table, over the other backends, in which each has
//! its slots of the first and beyond them what it is due. Shares come out in proportion to the effective
//! weights: exactly while those of one group get a part and all others everything, closely when
//! everybody gets another part. And while one backend warms up beside others at their full portion, the
//! second table is at every step the table that was in use while that backend was out: its clients
//! stay where they went until they come home, each of them once.

use super::Candidate;
use super::draw::{draw, gcd};
use super::maglev::Table;

/// Tells the hash that admits apart from those that draw again.
const ADMISSION: u64 = u64::MAX;

/// The largest weight that a table takes.
const HEAVIEST: u128 = 65_535;

/// Who owns a hash.
#[derive(Debug)]
pub(super) struct Homes {
    table: Table,
    elsewhere: Option<Elsewhere>,
}

/// For hashes that their home does not admit.
#[derive(Debug)]
struct Elsewhere {
    /// For each backend, the first hash that it does not admit; `None` admits all.
    admits: Box<[Option<u64>]>,
    table: Table,
    /// The backends that the table is over.
    members: Box<[u32]>,
}

impl Homes {
    /// Homes among `candidates`, in a file with `configured` backends.
    pub(super) fn new(candidates: &[Candidate], configured: usize) -> Self {
        let all: Vec<_> = candidates.iter().map(|it| (name(it), it.weight)).collect();
        Self {
            table: Table::new(&all, configured),
            elsewhere: Elsewhere::new(candidates, configured),
        }
    }

    /// Index of the backend that owns `hash`.
    pub(super) fn owner(&self, hash: u64) -> usize {
        let owner = self.table.owner(hash);
        match &self.elsewhere {
            Some(elsewhere) if !elsewhere.admits(owner, hash) => elsewhere.owner(hash),
            Some(_) | None => owner,
        }
    }
}

impl Elsewhere {
    /// `None` while all portions are equal.
    fn new(candidates: &[Candidate], configured: usize) -> Option<Self> {
        let slots: u128 = candidates.iter().map(|it| u128::from(it.weight)).sum();
        let due = candidates.iter().map(|it| it.effective_weight());
        let due: u128 = due.map(u128::from).sum();
        // A backend of weight w and effective weight e has w / slots of the first table and is due
        // e / due of all; over a common denominator, w · due against e · slots.
        let shares: Vec<_> = candidates
            .iter()
            .map(|it| Share {
                has: u128::from(it.weight) * due,
                gets: u128::from(it.effective_weight()) * slots,
            })
            .collect();
        let lacking: u128 = shares.iter().map(Share::lacks).sum();
        if lacking == 0 {
            return None;
        }
        let is_short = |at: &usize| shares[*at].gets < shares[*at].has;
        let short: u128 = (0..shares.len())
            .filter(is_short)
            .map(|at| u128::from(candidates[at].weight))
            .sum();
        // In the second table everybody who is not short keeps its slots of the first, as Maglev
        // has it, and those of the short are to be shared out by what the others lack.
        let members: Vec<usize> = (0..shares.len()).filter(|at| !is_short(at)).collect();
        let parts: Vec<u128> = members
            .iter()
            .map(|&at| u128::from(candidates[at].weight) * lacking + short * shares[at].lacks())
            .collect();
        let weights = weights(&parts);
        let over: Vec<_> = members
            .iter()
            .zip(weights)
            .map(|(&at, weight)| (name(&candidates[at]), weight))
            .collect();
        Some(Self {
            admits: shares
                .iter()
                .map(|it| (it.gets < it.has).then(|| fraction(it.gets, it.has)))
                .collect(),
            table: Table::new(&over, configured),
            members: members.iter().map(|&at| at as u32).collect(),
        })
    }

    fn admits(&self, owner: usize, hash: u64) -> bool {
        match self.admits.get(owner) {
            Some(&Some(below)) => draw(hash, ADMISSION) < below,
            Some(None) | None => true,
        }
    }

    fn owner(&self, hash: u64) -> usize {
        self.members
            .get(self.table.owner(hash))
            .map_or(0, |&member| member as usize)
    }
}

/// What a backend has of the first table, and what it is due.
#[derive(Clone, Copy, Debug)]
struct Share {
    has: u128,
    gets: u128,
}

impl Share {
    fn lacks(&self) -> u128 {
        self.gets.saturating_sub(self.has)
    }
}

fn name(candidate: &Candidate) -> &str {
    candidate.id.name()
}

/// `parts` as weights of a table: exactly in proportion where that is possible, so that the same
/// proportions always give the same table.
fn weights(parts: &[u128]) -> Vec<u32> {
    let most = parts.iter().copied().max().unwrap_or(1);
    let divisor = parts.iter().copied().fold(0, gcd_wide).max(1);
    let exact = most / divisor <= HEAVIEST;
    parts
        .iter()
        .map(|&part| {
            let weight = match exact {
                true => part / divisor,
                false => part / (most / HEAVIEST),
            };
            weight.clamp(1, HEAVIEST) as u32
        })
        .collect()
}

fn gcd_wide(a: u128, b: u128) -> u128 {
    match (u64::try_from(a), u64::try_from(b)) {
        (Ok(a), Ok(b)) => gcd(a, b).into(),
        _ if b == 0 => a,
        _ => gcd_wide(b, a % b),
    }
}

/// `part` / `whole`, which is less than 1, in 2⁻⁶⁴.
fn fraction(part: u128, whole: u128) -> u64 {
    // Both stay below 2⁹⁰, so what is shifted out of them does not show.
    let shift = (128 - whole.leading_zeros()).saturating_sub(64);
    let (part, whole) = (part >> shift, (whole >> shift).max(1));
    ((part << 64) / whole).min(u128::from(u64::MAX)) as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;
    use crate::model::{BackendId, Portion};
    use crate::strategy::testing::assert_shares;

    /// Candidates by name, weight and thousandths.
    fn candidates(of: &[(&str, u32, u64)]) -> Vec<Candidate> {
        of.iter()
            .map(|&(name, weight, portion)| Candidate {
                id: BackendId::new("web", name),
                weight,
                portion: Portion::of(portion, 1000),
            })
            .collect()
    }

    const HASHES: u64 = 20_000;

    /// Who owns each of many hashes, by name.
    fn owners<'a>(of: &[(&'a str, u32, u64)]) -> Vec<&'a str> {
        let homes = Homes::new(&candidates(of), 8);
        (0..HASHES)
            .map(|hash| of[homes.owner(draw(hash, 0))].0)
            .collect()
    }

    fn counts(of: &[(&str, u32, u64)]) -> Vec<u32> {
        let mut counts: HashMap<&str, u32> = HashMap::new();
        for owner in owners(of) {
            *counts.entry(owner).or_default() += 1;
        }
        of.iter()
            .map(|(name, ..)| counts.get(name).copied().unwrap_or(0))
            .collect()
    }

    #[test]
    fn shares_follow_weights_and_portions() {
        let counts = counts(&[("a", 3, 1000), ("b", 2, 400), ("c", 1, 1000), ("d", 4, 700)]);
        assert_shares(&counts, &[3.0, 0.8, 1.0, 2.8], 0.06);
    }

    #[test]
    fn equal_portions_are_no_portions() {
        let full = owners(&[("a", 3, 1000), ("b", 2, 1000), ("c", 1, 1000)]);
        assert_eq!(full, owners(&[("a", 3, 100), ("b", 2, 100), ("c", 1, 100)]));
    }

    #[test]
    fn a_backend_that_warms_up_takes_each_client_home_once_and_moves_nobody_else() {
        let of = |portion| {
            [
                ("a", 3, 1000),
                ("b", 2, 1000),
                ("c", 1, 1000),
                ("d", 2, portion),
            ]
        };
        let mut before = owners(&of(100));
        for portion in (200..=1000).step_by(100) {
            let after = owners(&of(portion));
            let moved: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).collect();
            assert!(moved.iter().all(|(_, to)| **to == "d"), "at {portion}");
            assert!(!moved.is_empty());
            before = after;
        }
    }

    #[test]
    fn a_backend_that_returns_disturbs_only_what_its_return_to_the_table_does() {
        let without = owners(&[("a", 3, 1000), ("b", 2, 1000), ("c", 1, 1000)]);
        let back = owners(&[
            ("a", 3, 1000),
            ("b", 2, 1000),
            ("c", 1, 1000),
            ("d", 2, 100),
        ]);
        let full = owners(&[
            ("a", 3, 1000),
            ("b", 2, 1000),
            ("c", 1, 1000),
            ("d", 2, 1000),
        ]);
        for hash in 0..HASHES as usize {
            // A client of another backend, or one that is at home: as in the full table.
            // One that is not admitted yet: where it was.
            let expected = match full[hash] == "d" && back[hash] != "d" {
                true => without[hash],
                false => full[hash],
            };
            assert_eq!(back[hash], expected);
        }
    }

    #[test]
    fn a_single_backend_owns_everything_whatever_its_portion() {
        assert_eq!(counts(&[("a", 3, 1)]), [HASHES as u32]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_portions_give_shares_close_to_the_effective_weights(
            members in prop::collection::vec((1_u32..10, 100_u64..=1000), 2..12),
        ) {
            let names: Vec<String> = (0..members.len()).map(|at| format!("b{at}")).collect();
            let of: Vec<_> = members
                .iter()
                .zip(&names)
                .map(|(&(weight, portion), name)| (name.as_str(), weight, portion))
                .collect();
            let counts = counts(&of);
            let effective = |it: &(&str, u32, u64)| f64::from(it.1) * it.2 as f64;
            let total: f64 = of.iter().map(effective).sum();
            for (it, count) in of.iter().zip(counts) {
                let expected = effective(it) / total * HASHES as f64;
                // Five standard deviations, and what keeping clients in place costs.
                let tolerance = 5.0 * expected.sqrt() + expected * 0.15;
                prop_assert!((f64::from(count) - expected).abs() < tolerance,
                    "{count} instead of {expected} of {of:?}");
            }
        }
    }
}
