//! What availability to expect of something from that of its parts, which fail independently of each
//! other. Pure.
//!
//! A service works while at least *k* of its *n* backends do; *k* = 1 is "in parallel", *k* = *n* "in
//! series". The parts differ, so the probability is summed up part by part: R. E. Barlow, K. D. Heidtmann,
//! "Computing k-out-of-n System Reliability", IEEE Transactions on Reliability R-33(4), 1984, in the O(n·k)
//! form that W. Kuo and M. J. Zuo, "Optimal Reliability Modeling" (2003), § 7.1.1, give.

/// The probability that at least `needed` of the parts work at a time, each with its own probability.
pub(super) fn at_least(needed: usize, parts: &[f64]) -> f64 {
    if needed > parts.len() {
        return 0.0;
    }
    // Of those so far: exactly 0, 1 … needed - 1 work; what is missing to 1 is "enough".
    let mut exactly = vec![0.0; needed];
    if let Some(none) = exactly.first_mut() {
        *none = 1.0;
    }
    let mut enough = if needed == 0 { 1.0 } else { 0.0 };
    for &works in parts {
        let works = works.clamp(0.0, 1.0);
        if let Some(almost) = exactly.last() {
            enough += almost * works;
        }
        for count in (0..exactly.len()).rev() {
            let joins = match count.checked_sub(1) {
                Some(fewer) => exactly[fewer] * works,
                None => 0.0,
            };
            exactly[count] = exactly[count] * (1.0 - works) + joins;
        }
    }
    enough.clamp(0.0, 1.0)
}

/// The probability that all of them work at a time.
pub(super) fn in_series(parts: impl IntoIterator<Item = f64>) -> f64 {
    parts.into_iter().product()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9
    }

    #[test]
    fn one_of_several_is_parallel_and_all_of_them_series() {
        let parts = [0.9, 0.8, 0.5];
        assert!(close(at_least(1, &parts), 1.0 - 0.1 * 0.2 * 0.5));
        assert!(close(at_least(3, &parts), 0.9 * 0.8 * 0.5));
        assert!(close(in_series(parts), 0.9 * 0.8 * 0.5));
        assert_eq!(at_least(0, &parts), 1.0);
        assert_eq!(at_least(4, &parts), 0.0);
        assert_eq!(at_least(1, &[]), 0.0);
    }

    #[test]
    fn two_of_three_equal_parts_are_what_the_textbook_says() {
        // 3 p² − 2 p³
        let p: f64 = 0.99;
        let expected = 3.0 * p.powi(2) - 2.0 * p.powi(3);
        assert!(close(at_least(2, &[p, p, p]), expected));
    }

    proptest! {
        #[test]
        fn it_is_the_sum_over_everything_that_can_be(
            parts in prop::collection::vec(0.0_f64..=1.0, 0..9),
            needed in 0_usize..10,
        ) {
            let mut sum = 0.0;
            for state in 0_u32..1 << parts.len() {
                if state.count_ones() as usize >= needed {
                    let each = parts.iter().enumerate();
                    sum += each
                        .map(|(at, p)| if state >> at & 1 == 1 { *p } else { 1.0 - p })
                        .product::<f64>();
                }
            }
            prop_assert!(close(at_least(needed, &parts), sum));
        }

        #[test]
        fn needing_more_is_never_likelier(
            parts in prop::collection::vec(0.0_f64..=1.0, 0..200),
            needed in 0_usize..200,
        ) {
            let more = at_least(needed + 1, &parts);
            prop_assert!(more <= at_least(needed, &parts) + 1e-9);
        }
    }
}
