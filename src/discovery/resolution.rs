//! What is known of one question over time: the last good answer, for how long it holds, and what is
//! worth telling.

use std::time::{Duration, Instant};

use super::answer::Known;
use super::{Endpoint, Reply};
use crate::config::DiscoveryConfig;

/// What is known of one question.
#[derive(Clone, Debug, Default)]
pub struct Resolution {
    known: Known,
    endpoints: Vec<Endpoint>,
    /// How many more there are than are used.
    left_out: usize,
    /// When the answer was found to be empty, while it is.
    empty_since: Option<Instant>,
    /// Failures in a row.
    failures: u32,
}

/// What a reply comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether the endpoints are others than before.
    pub changed: bool,
    /// What an operator wants to know.
    pub news: Vec<News>,
    /// When to ask again.
    pub ask_again: Duration,
}

/// Something that an operator wants to know. Told when it begins, not while it lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// No reliable answer, for this reason; the last one holds.
    Failing(String),
    /// Answers are reliable again.
    Answered,
    /// The name has no address.
    Empty,
    /// It has had none for so long that its backends have to leave.
    Over,
    /// It has so many addresses that this many are not used.
    LeftOut(usize),
}

impl Resolution {
    /// Where to connect, as far as is known.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Takes in what was said at `now`.
    pub fn take(&mut self, reply: Reply, now: Instant, config: &DiscoveryConfig) -> Step {
        let (ttl, error, unasked) = (reply.ttl, reply.error.clone(), reply.unasked);
        let proven = reply.has_addresses();
        let (known, failed) = self.known.after(reply);
        let (endpoints, left_out) = known.endpoints(MOST_ENDPOINTS);
        let left_out = left_out + unasked;
        let mut news = Vec::new();
        let mut changed = false;
        let before = self.failures;
        if failed {
            self.failures = before.saturating_add(1);
            if before == 0 {
                let error = error.unwrap_or_else(|| "no answer".to_owned());
                news.push(News::Failing(error));
            }
        } else {
            self.failures = 0;
            if before > 0 {
                news.push(News::Answered);
            }
        }
        if !endpoints.is_empty() {
            changed = endpoints != self.endpoints;
            self.endpoints = endpoints;
            self.known = known;
            if std::mem::replace(&mut self.left_out, left_out) == 0 && left_out > 0 {
                news.push(News::LeftOut(left_out));
            }
            if proven {
                self.empty_since = None;
            }
        } else if !failed {
            let since = *self.empty_since.get_or_insert_with(|| {
                news.push(News::Empty);
                now
            });
            // Only an answer can end the hold: a resolver that fails meanwhile proves nothing.
            let held = now.saturating_duration_since(since);
            if !self.endpoints.is_empty() && held >= config.hold {
                self.endpoints.clear();
                self.known = known;
                news.push(News::Over);
                changed = true;
            }
        }
        let ask_again = self.wait(failed, ttl, now, config);
        Step {
            changed,
            news,
            ask_again,
        }
    }

    /// How long an answer is used that was taken in at `now`, or how long to wait for a better one.
    fn wait(
        &self,
        failed: bool,
        ttl: Option<Duration>,
        now: Instant,
        config: &DiscoveryConfig,
    ) -> Duration {
        let within = |wait: Duration| wait.clamp(config.min_ttl, config.max_ttl);
        let ttl = ttl.unwrap_or_default();
        if failed {
            let doubled = config.min_ttl * 2_u32.saturating_pow((self.failures - 1).min(DOUBLINGS));
            return within(doubled.min(LONGEST_UNANSWERED));
        }
        let Some(since) = self.empty_since else {
            return within(ttl);
        };
        let wait = within(ttl.min(LONGEST_UNANSWERED));
        let left = (since + config.hold).saturating_duration_since(now);
        match self.endpoints.is_empty() {
            true => wait,
            false => wait.min(left).max(config.min_ttl),
        }
    }
}

/// Backends that one name brings at most: more than any answer names that is meant.
const MOST_ENDPOINTS: usize = 1024;
/// After a failure or an empty answer the next question comes at the latest after this, unless
/// `min_ttl` is longer: the name may be back.
const LONGEST_UNANSWERED: Duration = Duration::from_secs(30);
/// Keeps a doubled wait in range; the limit above is reached long before.
const DOUBLINGS: u32 = 16;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::IpAddr;
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::discovery::{HostReply, Outcome, Record, Srv};

    const NAME: &str = "db.internal";

    fn config() -> DiscoveryConfig {
        DiscoveryConfig {
            min_ttl: Duration::from_secs(1),
            max_ttl: Duration::from_secs(60),
            hold: Duration::from_secs(10),
            ..DiscoveryConfig::default()
        }
    }

    fn found(ips: &[&str]) -> Outcome<IpAddr> {
        Outcome::Found(ips.iter().map(|ip| ip.parse().unwrap()).collect())
    }

    fn host(v4: Outcome<IpAddr>, v6: Outcome<IpAddr>) -> Reply {
        let failed = v4 == Outcome::Failed || v6 == Outcome::Failed;
        Reply {
            unasked: 0,
            records: None,
            hosts: BTreeMap::from([(NAME.into(), HostReply { v4, v6 })]),
            ttl: Some(Duration::from_secs(5)),
            error: failed.then(|| "refused".to_owned()),
        }
    }

    fn ips(resolution: &Resolution) -> Vec<String> {
        let all = resolution.endpoints().iter();
        all.map(|endpoint| endpoint.ip.to_string()).collect()
    }

    struct Clock {
        resolution: Resolution,
        now: Instant,
    }

    impl Clock {
        fn start() -> Self {
            Self {
                resolution: Resolution::default(),
                now: Instant::now(),
            }
        }

        fn take(&mut self, after: u64, reply: Reply) -> Step {
            self.now += Duration::from_secs(after);
            self.resolution.take(reply, self.now, &config())
        }
    }

    #[test]
    fn both_families_count_and_the_order_of_the_answer_does_not() {
        let mut clock = Clock::start();
        let step = clock.take(0, host(found(&["10.0.0.2", "10.0.0.1"]), found(&["::2"])));
        assert!(step.changed);
        assert_eq!(ips(&clock.resolution), ["10.0.0.1", "10.0.0.2", "::2"]);
        let step = clock.take(5, host(found(&["10.0.0.1", "10.0.0.2"]), found(&["::2"])));
        assert!(!step.changed);
        assert_eq!(step.news, []);
        assert_eq!(step.ask_again, Duration::from_secs(5));
    }

    #[test]
    fn a_family_that_fails_keeps_its_addresses_while_the_other_changes() {
        let mut clock = Clock::start();
        clock.take(0, host(found(&["10.0.0.1"]), found(&["::2"])));
        let step = clock.take(5, host(found(&["10.0.0.3"]), Outcome::Failed));
        assert_eq!(ips(&clock.resolution), ["10.0.0.3", "::2"]);
        assert!(step.changed);
        assert_eq!(step.news, [News::Failing("refused".into())]);
        let step = clock.take(5, host(found(&["10.0.0.3"]), Outcome::Nothing));
        assert_eq!(ips(&clock.resolution), ["10.0.0.3"]);
        assert_eq!(step.news, [News::Answered]);
    }

    #[test]
    fn failures_keep_the_last_answer_and_are_told_once_with_longer_and_longer_waits() {
        let mut clock = Clock::start();
        clock.take(0, host(found(&["10.0.0.1"]), Outcome::Nothing));
        let mut waits = Vec::new();
        for round in 0..8 {
            let step = clock.take(100, host(Outcome::Failed, Outcome::Failed));
            assert_eq!(step.news.len(), usize::from(round == 0));
            assert!(!step.changed);
            waits.push(step.ask_again.as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(ips(&clock.resolution), ["10.0.0.1"]);
    }

    #[test]
    fn an_empty_answer_is_told_at_once_and_takes_backends_out_after_the_hold() {
        let mut clock = Clock::start();
        let empty = || host(Outcome::Nothing, Outcome::Nothing);
        clock.take(0, host(found(&["10.0.0.1"]), Outcome::Nothing));
        let step = clock.take(5, empty());
        assert_eq!(step.news, [News::Empty]);
        assert!(!step.changed);
        assert_eq!(step.ask_again, Duration::from_secs(5));
        let step = clock.take(6, empty());
        assert_eq!((step.news, step.changed), (vec![], false));
        assert_eq!(step.ask_again, Duration::from_secs(4));
        let step = clock.take(4, empty());
        assert_eq!((step.news, step.changed), (vec![News::Over], true));
        assert_eq!(ips(&clock.resolution), [""; 0]);
        assert_eq!(clock.take(5, empty()).news, []);
    }

    #[test]
    fn an_answer_within_the_hold_ends_it() {
        let mut clock = Clock::start();
        let empty = || host(Outcome::Nothing, Outcome::Nothing);
        let full = || host(found(&["10.0.0.1"]), Outcome::Nothing);
        clock.take(0, full());
        clock.take(1, empty());
        clock.take(8, full());
        assert_eq!(clock.take(8, empty()).news, [News::Empty]);
        assert_eq!(ips(&clock.resolution), ["10.0.0.1"]);
    }

    #[test]
    fn a_failure_does_not_end_the_hold_by_taking_backends_out() {
        let mut clock = Clock::start();
        clock.take(0, host(found(&["10.0.0.1"]), Outcome::Nothing));
        clock.take(1, host(Outcome::Nothing, Outcome::Nothing));
        let step = clock.take(60, host(Outcome::Failed, Outcome::Nothing));
        assert!(!step.changed);
        let step = clock.take(1, host(Outcome::Nothing, Outcome::Nothing));
        assert_eq!(step.news, [News::Answered, News::Over]);
    }

    #[test]
    fn the_ttl_has_a_floor_and_a_ceiling() {
        let mut clock = Clock::start();
        for (ttl, wait) in [(0, 1), (7, 7), (86_400, 60)] {
            let reply = Reply {
                ttl: Some(Duration::from_secs(ttl)),
                ..host(found(&["10.0.0.1"]), Outcome::Nothing)
            };
            assert_eq!(clock.take(1, reply).ask_again, Duration::from_secs(wait));
        }
    }

    #[test]
    fn addresses_that_no_connection_can_mean_are_none() {
        let mut clock = Clock::start();
        let step = clock.take(
            0,
            host(
                found(&["0.0.0.0", "224.0.0.1", "255.255.255.255"]),
                found(&["::", "::ffff:10.0.0.1"]),
            ),
        );
        assert_eq!(step.news, [News::Empty]);
    }

    #[test]
    fn addresses_beyond_the_most_are_left_out_and_told_once() {
        let mut clock = Clock::start();
        let many = |count: usize| {
            let count = u32::try_from(count).unwrap();
            let ips = (1..=count).map(|it| IpAddr::from(((10 << 24) | it).to_be_bytes()));
            host(Outcome::Found(ips.collect()), Outcome::Nothing)
        };
        assert_eq!(clock.take(0, many(MOST_ENDPOINTS)).news, []);
        let step = clock.take(5, many(MOST_ENDPOINTS + 2));
        assert_eq!(step.news, [News::LeftOut(2)]);
        assert!(!step.changed);
        assert_eq!(clock.resolution.endpoints().len(), MOST_ENDPOINTS);
        assert_eq!(clock.take(5, many(MOST_ENDPOINTS + 3)).news, []);
        assert_eq!(clock.take(5, many(1)).news, []);
        assert_eq!(
            clock.take(5, many(MOST_ENDPOINTS + 1)).news,
            [News::LeftOut(1)]
        );
    }

    fn records(all: &[(u16, u16, u16, &str)]) -> Outcome<Record> {
        let record = |&(priority, weight, port, target): &(u16, u16, u16, &str)| Record {
            srv: Srv {
                priority,
                weight,
                port,
            },
            target: target.into(),
        };
        Outcome::Found(all.iter().map(record).collect())
    }

    fn srv(records: Outcome<Record>, hosts: &[(&str, Outcome<IpAddr>)]) -> Reply {
        let failed =
            records == Outcome::Failed || hosts.iter().any(|(_, it)| *it == Outcome::Failed);
        let host = |(name, v4): &(&str, Outcome<IpAddr>)| {
            let v6 = Outcome::Nothing;
            (Arc::from(*name), HostReply { v4: v4.clone(), v6 })
        };
        Reply {
            unasked: 0,
            records: Some(records),
            hosts: hosts.iter().map(host).collect(),
            ttl: Some(Duration::from_secs(5)),
            error: failed.then(|| "timed out".to_owned()),
        }
    }

    fn places(resolution: &Resolution) -> Vec<String> {
        let place = |it: &Endpoint| {
            let srv = it.srv.unwrap();
            format!("{}:{} p{} w{}", it.ip, srv.port, srv.priority, srv.weight)
        };
        resolution.endpoints().iter().map(place).collect()
    }

    #[test]
    fn records_come_by_priority_and_a_place_that_is_named_twice_counts_once() {
        let mut clock = Clock::start();
        clock.take(
            0,
            srv(
                records(&[
                    (20, 1, 80, "b"),
                    (10, 5, 80, "a"),
                    (10, 9, 80, "a"),
                    (1, 1, 0, "a"),
                ]),
                &[
                    ("a", found(&["10.0.0.9"])),
                    ("b", found(&["10.0.0.1", "10.0.0.9"])),
                ],
            ),
        );
        assert_eq!(
            places(&clock.resolution),
            ["10.0.0.9:80 p10 w9", "10.0.0.1:80 p20 w1"]
        );
    }

    #[test]
    fn a_target_that_fails_keeps_its_addresses() {
        let mut clock = Clock::start();
        let both = || records(&[(1, 1, 80, "a"), (1, 1, 80, "b")]);
        clock.take(
            0,
            srv(
                both(),
                &[("a", found(&["10.0.0.1"])), ("b", found(&["10.0.0.2"]))],
            ),
        );
        let step = clock.take(
            5,
            srv(
                both(),
                &[("a", found(&["10.0.0.3"])), ("b", Outcome::Failed)],
            ),
        );
        assert!(step.changed);
        assert_eq!(places(&clock.resolution).len(), 2);
        let step = clock.take(5, srv(Outcome::Failed, &[]));
        assert!(!step.changed);
        assert_eq!(places(&clock.resolution).len(), 2);
        // A target that left the records is forgotten.
        clock.take(
            5,
            srv(records(&[(1, 1, 80, "a")]), &[("a", Outcome::Failed)]),
        );
        assert_eq!(places(&clock.resolution), ["10.0.0.3:80 p1 w1"]);
    }

    fn any_outcome() -> impl Strategy<Value = Outcome<IpAddr>> {
        prop_oneof![
            Just(Outcome::Nothing),
            Just(Outcome::Failed),
            prop::collection::vec(1_u8..9, 1..5).prop_map(|last| {
                Outcome::Found(
                    last.into_iter()
                        .map(|it| IpAddr::from([10, 0, 0, it]))
                        .collect(),
                )
            }),
        ]
    }

    proptest! {
        #[test]
        fn backends_are_lost_only_to_an_answer_and_the_wait_is_always_in_range(
            replies in prop::collection::vec((any_outcome(), any_outcome(), 0_u64..20), 1..40),
        ) {
            let mut clock = Clock::start();
            let mut empty_for = Duration::ZERO;
            for (v4, v6, after) in replies {
                let before = clock.resolution.endpoints().len();
                let silent = v4 == Outcome::Failed || v6 == Outcome::Failed;
                let empty = v4 == Outcome::Nothing && v6 == Outcome::Nothing;
                let was_empty = clock.resolution.empty_since.is_some();
                empty_for = if was_empty { empty_for + Duration::from_secs(after) } else { Duration::ZERO };
                let step = clock.take(after, host(v4, v6));
                if before > 0 && clock.resolution.endpoints().is_empty() {
                    prop_assert!(empty && !silent && empty_for >= config().hold);
                }
                prop_assert!(step.ask_again >= config().min_ttl && step.ask_again <= config().max_ttl);
                prop_assert!(clock.resolution.endpoints().is_sorted_by(|a, b| a.ip < b.ip));
            }
        }
    }
}
