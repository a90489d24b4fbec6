//! How much of its time a worker spends on clients who come to nothing: those who have left before they were
//! accepted, and those whom a rule turns away.
//!
//! To take such a client and let it go costs about as much as an exchange of one that is served, so a flood of
//! them would take the worker from the sessions of everybody. What is not taken waits in the kernel's queue, and
//! what finds no room there is dropped by the kernel, which costs next to nothing.

use std::time::{Duration, Instant};

/// One part in so many of a worker's time, for each listener; the rest is for those who are served.
const PART: u32 = 10;
/// A rest that is shorter is put off: timers know no shorter one.
const SHORTEST: Duration = Duration::from_millis(1);
/// Whoever is to be served waits no longer for a listener that rests, whatever it has spent.
const LONGEST: Duration = Duration::from_millis(20);

/// Keeps one listener to its part.
#[derive(Debug)]
pub struct Thrift {
    /// What taking one client cost, when it was last measured.
    each: Duration,
    /// When all that was spent is made up for.
    even: Instant,
}

impl Thrift {
    /// Nothing was spent yet.
    pub fn new(now: Instant) -> Self {
        Self {
            each: Duration::ZERO,
            even: now,
        }
    }

    /// Some clients were taken within `took`, until `now`; and so many have come to nothing, of those or
    /// of those before them. How long the listener has to rest for it, if it is time to.
    pub fn spend(
        &mut self,
        clients: u32,
        took: Duration,
        in_vain: u32,
        now: Instant,
    ) -> Option<Duration> {
        if clients > 0 {
            self.each = took / clients;
        }
        if in_vain == 0 {
            return None;
        }
        let cost = self.each.saturating_mul(in_vain).min(LONGEST);
        let even = self.even.max(now) + cost * (PART - 1);
        // A measurement that something else has disturbed is no debt.
        self.even = even.min(now + LONGEST);
        let rest = self.even - now;
        (rest >= SHORTEST).then_some(rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MICRO: Duration = Duration::from_micros(1);

    #[test]
    fn a_listener_whose_clients_are_served_never_rests() {
        let mut now = Instant::now();
        let mut thrift = Thrift::new(now);
        for _ in 0..1000 {
            now += 200 * MICRO;
            assert_eq!(thrift.spend(16, 200 * MICRO, 0, now), None);
        }
    }

    #[test]
    fn a_client_in_vain_now_and_then_costs_nobody_a_rest() {
        let mut now = Instant::now();
        let mut thrift = Thrift::new(now);
        for _ in 0..1000 {
            now += Duration::from_millis(1);
            assert_eq!(thrift.spend(1, 20 * MICRO, 1, now), None);
        }
    }

    #[test]
    fn who_is_refused_later_costs_what_taking_it_did() {
        let now = Instant::now();
        let mut thrift = Thrift::new(now);
        assert_eq!(thrift.spend(4, 100 * MICRO, 0, now), None);
        assert_eq!(thrift.spend(0, MICRO, 8, now), Some(1800 * MICRO));
    }

    #[test]
    fn no_rest_is_long() {
        let now = Instant::now();
        let mut thrift = Thrift::new(now);
        for _ in 0..10 {
            assert_eq!(
                thrift.spend(1, Duration::from_secs(1), 9, now),
                Some(LONGEST)
            );
        }
    }

    proptest! {
        #[test]
        fn a_flood_of_nobodies_gets_its_part_and_no_more(
            batches in prop::collection::vec((1_u32..17, 5_u32..60), 200..400),
        ) {
            let began = Instant::now();
            let (mut now, mut spent) = (began, Duration::ZERO);
            let mut thrift = Thrift::new(now);
            for (clients, each) in batches {
                let took = clients * each * MICRO;
                spent += took;
                now += took;
                if let Some(rest) = thrift.spend(clients, took, clients, now) {
                    now += rest;
                }
            }
            let part = spent.as_secs_f64() / (now - began).as_secs_f64();
            prop_assert!((0.09..0.13).contains(&part), "{part}");
        }
    }
}
