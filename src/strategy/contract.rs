//! What every registered strategy owes its callers, whatever it does besides.

use proptest::prelude::*;

use super::testing::{Backends, Pool, assert_shares, at_sequence, strategy};
use super::{Entry, REGISTRY, Skip, find};

fn weight_of(entry: &Entry, weight: u32) -> f64 {
    if entry.weighted {
        f64::from(weight)
    } else {
        1.0
    }
}

fn shares(entry: &Entry, weights: &[u32]) -> Vec<f64> {
    weights
        .iter()
        .map(|&weight| weight_of(entry, weight))
        .collect()
}

fn skipping(indices: &[usize]) -> Skip {
    let mut skip = Skip::none();
    for &index in indices {
        skip.insert(index);
    }
    skip
}

#[test]
fn the_five_are_registered_under_their_names() {
    let names: Vec<_> = REGISTRY.iter().map(|entry| entry.name).collect();
    assert_eq!(
        names,
        [
            "round-robin",
            "weighted",
            "least-connections",
            "source-hash",
            "random"
        ]
    );
    assert!(names.iter().all(|name| find(name).is_some()));
    assert!(find("wighted").is_none());
}

#[test]
fn an_idle_service_is_shared_by_weight() {
    let weights = [3, 1, 2, 5];
    for entry in REGISTRY {
        let counts = Pool::new(entry, &weights).count((0..110_000).map(at_sequence));
        assert_shares(&counts, &shares(entry, &weights), 0.04);
    }
}

#[test]
fn portions_count_under_every_strategy_those_that_ignore_weights_included() {
    let (weights, portions) = ([3, 1, 2, 5], [1000, 100, 550, 1000]);
    for entry in REGISTRY {
        let pool = Pool::over(entry, Backends::with_portions(&weights, &portions));
        let counts = pool.count((0..220_000).map(at_sequence));
        let mut shares = shares(entry, &weights);
        for (share, portion) in shares.iter_mut().zip(portions) {
            *share *= portion as f64;
        }
        assert_shares(&counts, &shares, 0.07);
    }
}

#[test]
fn equal_portions_change_nothing() {
    let weights = [3, 1, 2, 5];
    for entry in REGISTRY {
        let full = Pool::new(entry, &weights);
        let less = Pool::over(entry, Backends::with_portions(&weights, &[370; 4]));
        for flow in (0..5_000).map(at_sequence) {
            assert_eq!(full.pick(&flow), less.pick(&flow), "{}", entry.name);
        }
    }
}

#[test]
fn the_share_of_a_backend_that_went_down_spreads_by_weight_before_any_rebuild() {
    let weights = [3, 4, 1, 2, 5];
    for entry in REGISTRY {
        let pool = Pool::new(entry, &weights);
        pool.backends.set_down(1, true);
        let counts = pool.count((0..110_000).map(at_sequence));
        let mut shares = shares(entry, &weights);
        shares[1] = 0.0;
        assert_shares(&counts, &shares, 0.05);
    }
}

#[test]
fn second_choices_spread_by_weight() {
    let weights = [3, 4, 1, 2, 5];
    for entry in REGISTRY {
        let pool = Pool::new(entry, &weights);
        // Of the sessions that chose 1 first: where do they go next?
        let failed = (0..200_000)
            .map(at_sequence)
            .filter(|flow| pool.pick(flow) == Some(1));
        let counts = pool.count_but(failed, &skipping(&[1]));
        let mut shares = shares(entry, &weights);
        shares[1] = 0.0;
        assert_shares(&counts, &shares, 0.08);
    }
}

#[test]
fn the_share_of_a_backend_that_left_the_table_spreads_by_weight() {
    let weights = [3, 4, 1, 2, 5];
    for entry in REGISTRY {
        let mut left = Backends::new(&weights).all;
        left.remove(1);
        let strategy = strategy(entry, &left, weights.len());
        let mut counts = vec![0; 4];
        for flow in (0..110_000).map(at_sequence) {
            counts[strategy.pick(&flow, &left, &Skip::none()).unwrap()] += 1;
        }
        assert_shares(&counts, &shares(entry, &[3, 1, 2, 5]), 0.05);
    }
}

#[test]
fn nine_of_ten_down_leave_everything_to_the_tenth() {
    for entry in REGISTRY {
        for (count, up) in [(10, 3), (300, 299)] {
            let pool = Pool::new(entry, &vec![7; count]);
            for index in (0..count).filter(|&index| index != up) {
                pool.backends.set_down(index, true);
            }
            assert!((0..200).all(|at| pool.pick(&at_sequence(at)) == Some(up)));
        }
    }
}

#[test]
fn nobody_is_picked_from_nothing() {
    for entry in REGISTRY {
        assert_eq!(Pool::new(entry, &[]).pick(&at_sequence(3)), None);
    }
}

#[test]
fn the_only_backend_gets_everything_unless_it_cannot_serve() {
    for entry in REGISTRY {
        let pool = Pool::new(entry, &[5]);
        assert!((0..50).all(|at| pool.pick(&at_sequence(at)) == Some(0)));
        assert_eq!(pool.pick_but(&at_sequence(0), &skipping(&[0])), None);
        pool.backends.set_down(0, true);
        assert_eq!(pool.pick(&at_sequence(0)), None);
    }
}

#[test]
fn ten_thousand_backends_of_extreme_weights_all_stay_in_range() {
    let weights: Vec<u32> = (0..10_000)
        .map(|index| if index % 3 == 0 { 65_535 } else { 1 })
        .collect();
    for entry in REGISTRY {
        let pool = Pool::new(entry, &weights);
        pool.count((u64::MAX - 2_000..=u64::MAX).map(at_sequence));
        pool.count((0..2_000).map(at_sequence));
    }
}

proptest! {
    #[test]
    fn picks_are_usable_and_fail_only_when_nobody_is(
        members in prop::collection::vec((1_u32..=65_535, any::<bool>(), 0_u32..4), 1..100),
        tried in prop::collection::vec(0_usize..100, 0..=Skip::MOST),
        sequence in any::<u64>(),
    ) {
        let weights: Vec<u32> = members.iter().map(|member| member.0).collect();
        let skip = skipping(&tried);
        let usable = |index: usize| !members[index].1 && !tried.contains(&index);
        let flow = at_sequence(sequence);
        for entry in REGISTRY {
            let pool = Pool::new(entry, &weights);
            for (index, &(_, down, sessions)) in members.iter().enumerate() {
                pool.backends.set_down(index, down);
                pool.backends.enter(index, sessions);
            }
            match pool.pick_but(&flow, &skip) {
                Some(picked) => prop_assert!(usable(picked), "{} took {picked}", entry.name),
                None => prop_assert!(!(0..members.len()).any(usable), "{}", entry.name),
            }
            prop_assert_eq!(pool.pick_but(&flow, &skip), pool.pick_but(&flow, &skip));
        }
    }
}
