//! Who comes from where, and how often: a table of sources that never grows.
//!
//! Each source has a few places where it may be, its set. One that has no session and owes nothing is as
//! good as unknown, so its place is free, and forgetting it loses nothing. In a full set, the
//! source without a session that owes least makes room; one with a session never does. Who finds no
//! place comes in uncounted: a flood of sources can blind the table to newcomers, but it lets nobody
//! out of it who is being held back, and it turns nobody away.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::ops::Range;

use super::Rate;

/// A source: an address, or the network that it stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Source(u128);

impl Source {
    /// The source of `ip`, which is never IPv4-mapped: an IPv4 address itself, or the leading
    /// `ipv6_prefix` bits of an IPv6 one.
    pub fn of(ip: IpAddr, ipv6_prefix: u8) -> Self {
        Self(match ip {
            IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
            IpAddr::V6(ip) => {
                let rest = 128 - u32::from(ipv6_prefix.min(128));
                ip.to_bits()
                    .checked_shr(rest)
                    .map_or(0, |bits| bits << rest)
            }
        })
    }

    /// As numbers, for a hash.
    pub fn bytes(self) -> [u8; 16] {
        self.0.to_ne_bytes()
    }
}

/// What each source may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceRules {
    /// Sessions at a time.
    pub most: Option<NonZeroU32>,
    /// How often it may connect.
    pub rate: Option<Rate>,
    /// Which of the two only count whom they would refuse.
    pub most_is_dry: bool,
    /// The same of the other.
    pub rate_is_dry: bool,
}

/// What became of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entered {
    /// Its source has as many sessions as it may have.
    pub too_many: bool,
    /// It has connected too often.
    pub too_often: bool,
    /// It came in, and is counted until it leaves.
    pub counted: bool,
}

/// What a source has, and what would become of its next client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreseen {
    /// Its sessions that are counted.
    pub sessions: u32,
    /// It has as many as it may have.
    pub too_many: bool,
    /// It would connect too soon: by so many nanoseconds.
    pub too_soon: Option<u64>,
}

/// The sources whose hash leads here. 32 bytes each.
#[derive(Debug)]
pub struct Sources {
    places: Box<[Place]>,
}

/// Two to a cache line.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    source: Source,
    /// Up to when its rate is paid for.
    paid: u64,
    sessions: u32,
}

/// Places of a set: four cache lines, which are fetched together.
const SET: usize = 8;

impl Sources {
    /// A table of `places`, rounded up to whole sets.
    pub fn new(places: usize) -> Self {
        let sets = places.div_ceil(SET).max(1);
        Self {
            places: vec![Place::default(); sets * SET].into_boxed_slice(),
        }
    }

    /// A client of `source`, whose hash is `hash`, comes at `now`.
    pub fn enter(&mut self, source: Source, hash: u64, rules: &SourceRules, now: u64) -> Entered {
        let set = self.set(hash);
        let Some(place) = place_for(set, source, now) else {
            return Entered {
                too_many: false,
                too_often: false,
                counted: false,
            };
        };
        let spent = rules.rate.map(|rate| rate.spend(place.paid, now));
        let mut entered = Entered {
            too_many: rules.most.is_some_and(|most| place.sessions >= most.get()),
            too_often: matches!(spent, Some(Err(_))),
            counted: true,
        };
        let refused =
            entered.too_many && !rules.most_is_dry || entered.too_often && !rules.rate_is_dry;
        if refused {
            entered.counted = false;
        } else {
            place.source = source;
            place.sessions += 1;
            if let Some(Ok(paid)) = spent {
                place.paid = paid;
            }
        }
        entered
    }

    /// What `enter` would say, with nothing counted and nobody forgotten.
    pub fn foresee(&self, source: Source, hash: u64, rules: &SourceRules, now: u64) -> Foreseen {
        let mut set = self.places[self.range(hash)].iter();
        let Some(place) = set.find(|it| it.source == source && it.is_known(now)) else {
            return Foreseen::default();
        };
        Foreseen {
            sessions: place.sessions,
            too_many: rules.most.is_some_and(|most| place.sessions >= most.get()),
            too_soon: rules
                .rate
                .and_then(|rate| rate.spend(place.paid, now).err()),
        }
    }

    /// A session that was counted is over.
    pub fn leave(&mut self, source: Source, hash: u64) {
        let mut set = self.set(hash).iter_mut();
        if let Some(place) = set.find(|it| it.sessions > 0 && it.source == source) {
            place.sessions -= 1;
        }
    }

    /// Sources with a session, and sessions.
    #[cfg(test)]
    pub(crate) fn live(&self) -> (usize, usize) {
        let live = self.places.iter().filter(|it| it.sessions > 0);
        live.fold((0, 0), |(sources, sessions), it| {
            (sources + 1, sessions + it.sessions as usize)
        })
    }

    fn set(&mut self, hash: u64) -> &mut [Place] {
        let range = self.range(hash);
        &mut self.places[range]
    }

    fn range(&self, hash: u64) -> Range<usize> {
        let sets = self.places.len() / SET;
        // The high bits, so that those who have shared the low ones out do not matter.
        let at = ((u128::from(hash) * sets as u128) >> 64) as usize;
        at * SET..(at + 1) * SET
    }
}

/// Where `source` is, or may be; a place that was another's is cleared.
fn place_for(set: &mut [Place], source: Source, now: u64) -> Option<&mut Place> {
    if let Some(known) = set
        .iter()
        .position(|it| it.source == source && it.is_known(now))
    {
        return set.get_mut(known);
    }
    // A free one first: it owes least of all.
    let place = set
        .iter_mut()
        .filter(|it| it.sessions == 0)
        .min_by_key(|it| it.paid.max(now))?;
    *place = Place {
        source,
        ..Place::default()
    };
    Some(place)
}

impl Place {
    /// Whether there is anything to know of its source.
    fn is_known(&self, now: u64) -> bool {
        self.sessions > 0 || self.paid > now
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn most(most: u32) -> SourceRules {
        SourceRules {
            most: NonZeroU32::new(most),
            ..SourceRules::default()
        }
    }

    fn often(count: u32) -> SourceRules {
        SourceRules {
            rate: NonZeroU32::new(count).map(|count| Rate::new(count, Duration::from_secs(1))),
            ..SourceRules::default()
        }
    }

    fn source(number: u32) -> Source {
        Source::of(Ipv4Addr::from_bits(number).into(), 64)
    }

    /// Spreads numbers as a hash would.
    fn hash(number: u32) -> u64 {
        u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    #[test]
    fn ipv6_sources_are_networks_and_ipv4_ones_addresses() {
        let of = |ip: &str, prefix| Source::of(ip.parse().unwrap(), prefix);
        assert_eq!(of("2001:db8::1", 64), of("2001:db8::ffff:1", 64));
        assert_ne!(of("2001:db8:0:1::1", 64), of("2001:db8::1", 64));
        assert_ne!(of("2001:db8::1", 128), of("2001:db8::2", 128));
        assert_eq!(of("2001:db8::1", 0), of("::1", 0));
        assert_ne!(of("192.0.2.1", 1), of("192.0.2.2", 1));
    }

    #[test]
    fn a_source_has_so_many_sessions_and_the_next_when_one_is_over() {
        let mut sources = Sources::new(8);
        let enter = |sources: &mut Sources| sources.enter(source(1), 0, &most(2), 0);
        assert!(enter(&mut sources).counted && enter(&mut sources).counted);
        let third = enter(&mut sources);
        assert!(third.too_many && !third.counted);
        sources.leave(source(1), 0);
        assert!(enter(&mut sources).counted);
        assert!(
            sources.enter(source(2), 0, &most(2), 0).counted,
            "another source"
        );
        assert_eq!(sources.live(), (2, 3));
    }

    #[test]
    fn a_source_that_connects_too_often_waits_for_its_rate() {
        let mut sources = Sources::new(8);
        let mut now = 100 * SECOND;
        let mut pass = |now| {
            let entered = sources.enter(source(1), 0, &often(5), now);
            if entered.counted {
                sources.leave(source(1), 0);
            }
            !entered.too_often
        };
        assert_eq!((0..20).filter(|_| pass(now)).count(), 5);
        now += SECOND / 5;
        assert_eq!((0..20).filter(|_| pass(now)).count(), 1);
        now += 10 * SECOND;
        assert_eq!((0..20).filter(|_| pass(now)).count(), 5);
    }

    #[test]
    fn what_is_foreseen_is_what_comes_and_costs_nothing() {
        let mut sources = Sources::new(8);
        let (now, rules) = (100 * SECOND, SourceRules { ..often(2) });
        let foresee = |sources: &Sources| sources.foresee(source(1), 0, &rules, now);
        assert_eq!(foresee(&sources), Foreseen::default());
        for sessions in 1..=2 {
            assert_eq!(foresee(&sources).too_soon, None);
            assert!(sources.enter(source(1), 0, &rules, now).counted);
            assert_eq!(foresee(&sources).sessions, sessions);
        }
        for _ in 0..3 {
            assert_eq!(foresee(&sources).too_soon, Some(SECOND / 2));
        }
        assert!(sources.enter(source(1), 0, &rules, now).too_often);
    }

    #[test]
    fn a_dry_rule_tells_and_lets_in() {
        let mut sources = Sources::new(8);
        let rules = SourceRules {
            most_is_dry: true,
            ..most(1)
        };
        assert!(!sources.enter(source(1), 0, &rules, 0).too_many);
        let second = sources.enter(source(1), 0, &rules, 0);
        assert!(second.too_many && second.counted);
        assert_eq!(sources.live(), (1, 2));
    }

    #[test]
    fn a_table_full_of_live_sources_refuses_nobody_and_forgets_none() {
        let mut sources = Sources::new(SET);
        for number in 0..SET as u32 {
            assert!(sources.enter(source(number), 0, &most(1), 0).counted);
        }
        let newcomer = sources.enter(source(99), 0, &most(1), 0);
        assert!(!newcomer.counted && !newcomer.too_many);
        for number in 0..SET as u32 {
            assert!(sources.enter(source(number), 0, &most(1), 0).too_many);
        }
    }

    #[test]
    fn ten_million_sources_neither_grow_the_table_nor_free_one_that_is_held_back() {
        let mut sources = Sources::new(65_536);
        let size = sources.places.len();
        let now = 100 * SECOND;
        let rules = SourceRules {
            most: NonZeroU32::new(1),
            ..often(10)
        };
        // Some with a session, and one that has connected as often as it may.
        let live = 20_000_000..20_010_000;
        let counted = live
            .filter(|&it| sources.enter(source(it), hash(it), &rules, now).counted)
            .collect::<Vec<_>>();
        assert!(counted.len() > 9_990, "{}", counted.len());
        for _ in 0..10 {
            assert!(sources.enter(source(2), hash(2), &rules, now).counted);
            sources.leave(source(2), hash(2));
        }
        let mut refused = 0;
        for number in 1000..10_001_000 {
            let entered = sources.enter(source(number), hash(number), &rules, now);
            refused += u32::from(entered.too_many || entered.too_often);
            if entered.counted {
                sources.leave(source(number), hash(number));
            }
        }
        assert_eq!(refused, 0, "each of them came once");
        assert_eq!(sources.places.len(), size);
        assert_eq!(sources.live(), (counted.len(), counted.len()));
        for live in counted {
            assert!(
                sources
                    .enter(source(live), hash(live), &rules, now)
                    .too_many
            );
        }
        assert!(sources.enter(source(2), hash(2), &rules, now).too_often);
    }

    proptest! {
        /// Against a map without a bound, in a table large enough that nobody is forgotten.
        #[test]
        fn it_counts_like_a_plain_map(
            steps in prop::collection::vec((0_u32..6, any::<bool>()), 0..300), limit in 1_u32..4,
        ) {
            let mut sources = Sources::new(SET);
            let mut model: HashMap<u32, u32> = HashMap::new();
            for (number, enters) in steps {
                let count = model.entry(number).or_default();
                let foreseen = sources.foresee(source(number), 0, &most(limit), 0);
                prop_assert_eq!((foreseen.sessions, foreseen.too_many), (*count, *count >= limit));
                if enters {
                    let entered = sources.enter(source(number), 0, &most(limit), 0);
                    prop_assert_eq!(entered.too_many, *count >= limit);
                    prop_assert_eq!(entered.counted, *count < limit);
                    *count += u32::from(entered.counted);
                } else if *count > 0 {
                    sources.leave(source(number), 0);
                    *count -= 1;
                }
            }
            let live = model.values().filter(|count| **count > 0).count();
            prop_assert_eq!(sources.live(), (live, model.values().sum::<u32>() as usize));
        }
    }
}
