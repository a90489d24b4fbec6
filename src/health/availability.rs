//! How available a backend has been: the record of its times up and down.

use std::time::{Duration, Instant};

/// The record of one backend of one service. Time in which nothing is known, such as while no daemon
/// runs, counts for nothing.
#[derive(Clone, Debug, Default)]
pub struct Availability {
    totals: Totals,
    /// How it stands, and since when that is not in the totals.
    now: Option<(Course, Instant)>,
    returned: Option<Instant>,
}

/// How it stands, as far as that goes into a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// Up.
    Up,
    /// Down.
    Down,
    /// Out of service because an operator wants it so: no failure, and no time up or down.
    SetAside,
}

impl From<bool> for Course {
    fn from(up: bool) -> Self {
        match up {
            true => Self::Up,
            false => Self::Down,
        }
    }
}

/// What a record has come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time up.
    pub up: Duration,
    /// Time down, or kept out because its sessions failed.
    pub down: Duration,
    /// The part of it that came before it was last back: an outage that goes on has not been repaired.
    pub repaired: Duration,
    /// Time out of service because an operator wanted it so.
    pub set_aside: Duration,
    /// Times that it went from up to down.
    pub failures: u64,
    /// Times that it came back.
    pub recoveries: u64,
    /// Failures that followed a return within a minute.
    pub flaps: u64,
}

impl Totals {
    /// Mean time between failures: time up for each of them.
    pub fn mtbf(&self) -> Option<Duration> {
        mean(self.up, self.failures)
    }

    /// Mean time to repair: time down for each return. What is down still has not been repaired, and
    /// counts as soon as it is.
    pub fn mttr(&self) -> Option<Duration> {
        mean(self.repaired, self.recoveries)
    }

    /// The share of the known time that it was up, 0 to 1.
    pub fn availability(&self) -> Option<f64> {
        let (up, down) = (self.up.as_secs_f64(), self.down.as_secs_f64());
        (up + down > 0.0).then(|| up / (up + down))
    }
}

fn mean(time: Duration, times: u64) -> Option<Duration> {
    (times > 0).then(|| Duration::from_secs_f64(time.as_secs_f64() / times as f64))
}

impl Availability {
    /// A record that goes on where another daemon has left it.
    pub fn restored(totals: Totals) -> Self {
        Self {
            totals,
            ..Self::default()
        }
    }

    /// How it stands, as far as that is known.
    pub fn course(&self) -> Option<Course> {
        self.now.map(|(course, _)| course)
    }

    /// It stands like this from `now` on.
    pub fn enter(&mut self, course: Course, now: Instant) {
        let before = self.course();
        self.totals = self.at(now);
        self.now = Some((course, now));
        let mut returns = false;
        if course == Course::Up {
            // Its outage may have ended while it was set aside, or while nobody looked.
            returns = before == Some(Course::Down) || self.totals.down > self.totals.repaired;
            self.totals.repaired = self.totals.down;
        }
        if returns {
            self.totals.recoveries += 1;
            self.returned = Some(now);
        }
        if (before, course) == (Some(Course::Up), Course::Down) {
            self.totals.failures += 1;
            let flaps = |at| now.saturating_duration_since(at) < FLAP;
            self.totals.flaps += u64::from(self.returned.is_some_and(flaps));
        }
    }

    /// From `now` on nothing counts, until it is entered again.
    pub fn rest(&mut self, now: Instant) {
        self.totals = self.at(now);
        self.now = None;
    }

    /// The totals as of `now`.
    pub fn at(&self, now: Instant) -> Totals {
        let mut totals = self.totals;
        if let Some((course, since)) = self.now {
            let time = now.saturating_duration_since(since);
            let sum = match course {
                Course::Up => &mut totals.up,
                Course::Down => &mut totals.down,
                Course::SetAside => &mut totals.set_aside,
            };
            *sum = sum.saturating_add(time);
        }
        totals
    }
}

/// A failure so soon after a return is a flap.
const FLAP: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_known_is_no_figure() {
        let totals = Availability::default().at(Instant::now());
        assert_eq!(totals, Totals::default());
        assert_eq!(totals.mtbf(), None);
        assert_eq!(totals.mttr(), None);
        assert_eq!(totals.availability(), None);
    }

    #[test]
    fn the_figures_are_what_an_operator_would_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Availability::default();
        record.enter(Course::Up, at(0));
        record.enter(Course::Down, at(900));
        record.enter(Course::Up, at(1000));
        record.enter(Course::Up, at(1010));
        // Down again within a minute.
        record.enter(Course::Down, at(1030));
        record.enter(Course::Up, at(1100));
        let totals = record.at(at(2000));
        assert_eq!(
            (totals.failures, totals.recoveries, totals.flaps),
            (2, 2, 1)
        );
        assert_eq!(totals.up, Duration::from_secs(1830));
        assert_eq!(totals.down, Duration::from_secs(170));
        assert_eq!(totals.mtbf(), Some(Duration::from_secs(915)));
        assert_eq!(totals.mttr(), Some(Duration::from_secs(85)));
        assert_eq!(totals.availability(), Some(0.915));
    }

    #[test]
    fn an_outage_that_goes_on_is_not_repaired() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Availability::default();
        record.enter(Course::Up, at(0));
        record.enter(Course::Down, at(100));
        assert_eq!(record.at(at(105)).mttr(), None);
        record.enter(Course::Up, at(110));
        record.enter(Course::Down, at(200));
        let totals = record.at(at(4000));
        assert_eq!(totals.mttr(), Some(Duration::from_secs(10)));
        // It is the same outage after a restart.
        let mut record = Availability::restored(totals);
        record.enter(Course::Down, at(5000));
        assert_eq!(record.at(at(5100)).mttr(), Some(Duration::from_secs(10)));
        record.enter(Course::Up, at(5100));
        let repaired = Duration::from_secs(10 + 3800 + 100);
        assert_eq!(record.at(at(6000)).mttr(), Some(repaired / 2));
    }

    #[test]
    fn what_an_operator_takes_out_is_counted_apart_and_is_no_failure() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Availability::default();
        record.enter(Course::Up, at(0));
        record.enter(Course::SetAside, at(10));
        record.enter(Course::Up, at(70));
        let totals = record.at(at(80));
        assert_eq!(totals.set_aside, Duration::from_secs(60));
        assert_eq!((totals.failures, totals.recoveries), (0, 0));
        assert_eq!(totals.availability(), Some(1.0));
    }

    #[test]
    fn an_outage_that_ends_while_an_operator_has_it_out_is_repaired_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Availability::default();
        record.enter(Course::Up, at(0));
        record.enter(Course::Down, at(100));
        record.enter(Course::Up, at(110));
        record.enter(Course::Down, at(200));
        record.enter(Course::SetAside, at(230));
        assert_eq!(record.at(at(300)).mttr(), Some(Duration::from_secs(10)));
        record.enter(Course::Up, at(300));
        let totals = record.at(at(400));
        assert_eq!((totals.failures, totals.recoveries), (2, 2));
        assert_eq!(totals.mttr(), Some(Duration::from_secs(20)));
        // The next time that it is taken out and put back is no repair.
        record.enter(Course::SetAside, at(400));
        record.enter(Course::Up, at(410));
        assert_eq!(record.at(at(500)).recoveries, 2);
    }

    #[test]
    fn an_outage_that_ends_while_no_daemon_runs_is_repaired_once() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Availability::default();
        record.enter(Course::Up, at(0));
        record.enter(Course::Down, at(100));
        let mut record = Availability::restored(record.at(at(120)));
        record.enter(Course::Up, at(500));
        let totals = record.at(at(600));
        assert_eq!((totals.failures, totals.recoveries), (1, 1));
        assert_eq!(totals.mttr(), Some(Duration::from_secs(20)));
    }

    #[test]
    fn rest_is_neither_a_failure_nor_time_of_any_kind() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut record = Availability::default();
        record.enter(Course::Up, at(0));
        record.rest(at(10));
        assert_eq!(record.course(), None);
        record.enter(Course::Up, at(100));
        let totals = record.at(at(110));
        assert_eq!(
            (totals.up, totals.down),
            (Duration::from_secs(20), Duration::ZERO)
        );
        assert_eq!((totals.failures, totals.recoveries), (0, 0));
    }

    #[test]
    fn a_record_goes_on_after_a_restart_and_the_gap_counts_for_nothing() {
        let start = Instant::now();
        let mut record = Availability::default();
        record.enter(Course::Up, start);
        let before = record.at(start + Duration::from_secs(10));
        let mut record = Availability::restored(before);
        // A first verdict that is bad is no failure that anybody saw.
        record.enter(Course::Down, start + Duration::from_secs(500));
        let after = record.at(start + Duration::from_secs(530));
        assert_eq!(after.up, Duration::from_secs(10));
        assert_eq!(after.down, Duration::from_secs(30));
        assert_eq!(after.failures, 0);
    }

    #[test]
    fn absurd_totals_do_no_harm() {
        let start = Instant::now();
        let mut record = Availability::restored(Totals {
            up: Duration::MAX,
            failures: 1,
            ..Totals::default()
        });
        record.enter(Course::Up, start);
        let totals = record.at(start + Duration::from_secs(1));
        assert_eq!(totals.up, Duration::MAX);
        assert!(totals.availability().is_some());
    }

    proptest! {
        #[test]
        fn every_moment_counts_once(
            states in prop::collection::vec((any::<bool>(), 0_u64..100_000), 1..50),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut record = Availability::default();
            record.enter(Course::Up, start);
            let mut before = true;
            let (mut failures, mut recoveries) = (0, 0);
            for (up, millis) in states {
                now += Duration::from_millis(millis);
                record.enter(up.into(), now);
                failures += u64::from(before && !up);
                recoveries += u64::from(!before && up);
                before = up;
            }
            let totals = record.at(now);
            prop_assert_eq!(totals.up + totals.down, now - start);
            prop_assert_eq!((totals.failures, totals.recoveries), (failures, recoveries));
            prop_assert!(totals.flaps <= totals.failures);
            prop_assert!(totals.availability().is_none_or(|it| (0.0..=1.0).contains(&it)));
        }
    }
}
