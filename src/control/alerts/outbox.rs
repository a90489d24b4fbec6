//! When an alert may be sent: events wait a moment for others to be told together, and then until
//! the limits of the alert let them. Pure: the time comes in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::notice::Notice;
use crate::config::Pace;

/// What waits to be told, and when something was told last.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Notice>,
    /// Notices that there was no room for, the oldest ones.
    omitted: u64,
    /// Since when the first of them waits.
    since: Option<Instant>,
    /// When alerts were sent within the last minute, the latest last.
    sent: VecDeque<Instant>,
}

/// What goes into one alert.
#[derive(Debug, PartialEq)]
pub(super) struct Parcel {
    pub(super) notices: Vec<Notice>,
    /// How many had to wait for the limits, rather than only for each other.
    pub(super) held_back: u64,
    /// How many there was no room for.
    pub(super) omitted: u64,
}

impl Outbox {
    /// Notices in one alert; the oldest give way.
    const MOST_NOTICES: usize = 100;

    /// Takes a notice in.
    pub(super) fn add(&mut self, notice: Notice, now: Instant) {
        self.since.get_or_insert(now);
        if self.waiting.len() == Self::MOST_NOTICES {
            self.waiting.pop_front();
            self.omitted += 1;
        }
        self.waiting.push_back(notice);
    }

    /// When the next alert may go, if anything waits.
    pub(super) fn due(&self, pace: &Pace) -> Option<Instant> {
        let gathered = self.since? + pace.group_wait;
        Some(self.allowed(pace).map_or(gathered, |at| at.max(gathered)))
    }

    /// What is to be sent `now`, if anything is due.
    pub(super) fn take(&mut self, pace: &Pace, now: Instant) -> Option<Parcel> {
        let due = self.due(pace)?;
        if due > now {
            return None;
        }
        let gathered = self.since? + pace.group_wait;
        let parcel = self.take_all(now)?;
        let all = parcel.notices.len() as u64 + parcel.omitted;
        Some(Parcel {
            held_back: if due > gathered { all } else { 0 },
            ..parcel
        })
    }

    /// All that waits, whether it may go or not: nothing more will come.
    pub(super) fn take_all(&mut self, now: Instant) -> Option<Parcel> {
        self.since.take()?;
        while self.sent.len() >= MOST_REMEMBERED
            || self
                .sent
                .front()
                .is_some_and(|&at| now.saturating_duration_since(at) >= MINUTE)
        {
            self.sent.pop_front();
        }
        self.sent.push_back(now);
        Some(Parcel {
            notices: self.waiting.drain(..).collect(),
            held_back: 0,
            omitted: std::mem::take(&mut self.omitted),
        })
    }

    /// When the limits let the next alert go; `None` when nothing was sent that could matter.
    fn allowed(&self, pace: &Pace) -> Option<Instant> {
        let after_last = self.sent.back().map(|&last| last + pace.min_interval);
        let full = self.sent.len().checked_sub(pace.max_per_minute as usize);
        let in_minute = full
            .and_then(|index| self.sent.get(index))
            .map(|&at| at + MINUTE);
        after_last.max(in_minute)
    }
}

const MINUTE: Duration = Duration::from_secs(60);
/// As many as `max_per_minute` may be.
const MOST_REMEMBERED: usize = 600;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::notice::{Details, Status};
    use super::*;
    use crate::config::Occasion;

    fn notice() -> Notice {
        Notice {
            event: Occasion::AllDown,
            status: Status::Firing,
            time: Duration::ZERO,
            service: None,
            backend: None,
            address: None,
            details: Details::AllDown { configured: 1 },
        }
    }

    fn pace(group_wait: u64, min_interval: u64, max_per_minute: u32) -> Pace {
        Pace {
            group_wait: Duration::from_millis(group_wait),
            min_interval: Duration::from_millis(min_interval),
            max_per_minute,
        }
    }

    #[test]
    fn what_comes_within_the_wait_of_the_first_goes_with_it() {
        let start = Instant::now();
        let pace = pace(3000, 0, 10);
        let mut outbox = Outbox::default();
        assert_eq!(outbox.due(&pace), None);
        outbox.add(notice(), start);
        outbox.add(notice(), start + Duration::from_millis(2999));
        let due = start + Duration::from_secs(3);
        assert_eq!(outbox.due(&pace), Some(due), "later ones do not put it off");
        assert_eq!(outbox.take(&pace, due - Duration::from_millis(1)), None);
        let parcel = outbox.take(&pace, due).unwrap();
        assert_eq!(
            (parcel.notices.len(), parcel.held_back, parcel.omitted),
            (2, 0, 0)
        );
        assert_eq!(outbox.due(&pace), None);
    }

    #[test]
    fn an_alert_keeps_its_distance_from_the_last_one() {
        let start = Instant::now();
        let pace = pace(0, 10_000, 10);
        let mut outbox = Outbox::default();
        outbox.add(notice(), start);
        assert_eq!(outbox.take(&pace, start).unwrap().held_back, 0);
        outbox.add(notice(), start + Duration::from_secs(1));
        outbox.add(notice(), start + Duration::from_secs(9));
        let due = start + Duration::from_secs(10);
        assert_eq!(outbox.due(&pace), Some(due));
        assert_eq!(outbox.take(&pace, due).unwrap().held_back, 2);
        let later = due + Duration::from_secs(10);
        outbox.add(notice(), later);
        assert_eq!(outbox.take(&pace, later).unwrap().held_back, 0);
    }

    #[test]
    fn a_flood_keeps_the_newest_and_counts_the_others() {
        let start = Instant::now();
        let mut outbox = Outbox::default();
        for _ in 0..Outbox::MOST_NOTICES + 7 {
            outbox.add(notice(), start);
        }
        let parcel = outbox.take(&pace(0, 0, 1), start).unwrap();
        assert_eq!(
            (parcel.notices.len(), parcel.omitted),
            (Outbox::MOST_NOTICES, 7)
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_limit_is_broken(
            arrivals in prop::collection::vec(0_u64..30_000, 1..200),
            group_wait in 0_u64..10_000,
            min_interval in 0_u64..20_000,
            max_per_minute in 1_u32..8,
        ) {
            let start = Instant::now();
            let pace = pace(group_wait, min_interval, max_per_minute);
            let mut outbox = Outbox::default();
            let mut now = start;
            let (mut told, mut sent) = (0, Vec::new());
            let mut send = |outbox: &mut Outbox, now: Instant| {
                if let Some(parcel) = outbox.take(&pace, now) {
                    told += parcel.notices.len() as u64 + parcel.omitted;
                    sent.push(now);
                }
            };
            for &gap in &arrivals {
                let next = now + Duration::from_millis(gap);
                while let Some(due) = outbox.due(&pace).filter(|&due| due <= next) {
                    now = now.max(due);
                    send(&mut outbox, now);
                }
                now = next;
                outbox.add(notice(), now);
            }
            while let Some(due) = outbox.due(&pace) {
                prop_assert!(due <= now + Duration::from_secs(120), "within sight");
                now = now.max(due);
                send(&mut outbox, now);
            }
            prop_assert_eq!(told, arrivals.len() as u64);
            for pair in sent.windows(2) {
                prop_assert!(pair[1] - pair[0] >= pace.min_interval);
            }
            for minute in sent.windows(max_per_minute as usize + 1) {
                prop_assert!(minute[max_per_minute as usize] - minute[0] >= MINUTE);
            }
        }
    }
}
