//! What has happened to each server and how long the balancer took to notice: the demo's memory,
//! for its lines and its summary. Pure: told what happens and when.

use std::collections::VecDeque;
use std::time::Duration;

use super::screen::{clock, seconds};

/// Deaths and returns, in their order; of a long demo, the last ones.
#[derive(Debug, Default)]
pub(super) struct Story {
    chapters: VecDeque<Chapter>,
    failovers: usize,
}

/// One death of one server.
#[derive(Clone, Copy, Debug)]
struct Chapter {
    name: &'static str,
    died: Duration,
    /// When the balancer took it out.
    out: Option<Duration>,
    returned: Option<Duration>,
    /// When the balancer took it back.
    back: Option<Duration>,
}

impl Story {
    /// `name` dies.
    pub(super) fn died(&mut self, name: &'static str, now: Duration) {
        if self.chapters.len() == MOST_CHAPTERS {
            self.chapters.pop_front();
        }
        self.chapters.push_back(Chapter {
            name,
            died: now,
            out: None,
            returned: None,
            back: None,
        });
    }

    /// `name` listens again.
    pub(super) fn returned(&mut self, name: &str, now: Duration) {
        if let Some(chapter) = self.last(name) {
            chapter.returned = Some(now);
        }
    }

    /// The balancer has taken `name` out; returns how long after the death.
    pub(super) fn down(&mut self, name: &str, now: Duration) -> Option<Duration> {
        let chapter = self.last(name)?;
        if chapter.out.is_some() || chapter.returned.is_some() {
            // Taken out although alive, as a machine under great load may have it.
            return None;
        }
        chapter.out = Some(now);
        let after = now.saturating_sub(chapter.died);
        self.failovers += 1;
        Some(after)
    }

    /// The balancer has taken `name` back; returns how long after the return.
    pub(super) fn up(&mut self, name: &str, now: Duration) -> Option<Duration> {
        let chapter = self.last(name)?;
        let returned = chapter.returned?;
        if chapter.out.is_none() || chapter.back.is_some() {
            return None;
        }
        chapter.back = Some(now);
        Some(now.saturating_sub(returned))
    }

    /// One line for each of the last deaths.
    pub(super) fn summary(&self) -> Vec<String> {
        self.chapters.iter().map(Chapter::tell).collect()
    }

    /// How many deaths the balancer has met by taking the server out.
    pub(super) fn failovers(&self) -> usize {
        self.failovers
    }

    fn last(&mut self, name: &str) -> Option<&mut Chapter> {
        self.chapters.iter_mut().rfind(|it| it.name == name)
    }
}

impl Chapter {
    fn tell(&self) -> String {
        let out = match self.out {
            Some(out) => format!("out after {}", seconds(out.saturating_sub(self.died))),
            None => "not out yet".to_owned(),
        };
        let back = match (self.returned, self.back) {
            (Some(returned), Some(back)) => {
                let took = seconds(back.saturating_sub(returned));
                format!(", back {took} after its return")
            }
            (Some(_), None) => ", returned and not back yet".to_owned(),
            (None, _) => String::new(),
        };
        format!("{} {:<5} died: {out}{back}", clock(self.died), self.name)
    }
}

/// What a screen holds beside the rest of the summary.
const MOST_CHAPTERS: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_whole_chapter_is_told_with_both_times() {
        let mut story = Story::default();
        story.died("red", at(10_000));
        assert_eq!(story.down("red", at(11_200)), Some(at(1_200)));
        story.returned("red", at(15_000));
        assert_eq!(story.up("red", at(15_700)), Some(at(700)));
        assert_eq!(
            story.summary(),
            ["  0:10 red   died: out after 1.2 s, back 0.7 s after its return"]
        );
        assert_eq!(story.failovers(), 1);
    }

    #[test]
    fn an_end_in_the_middle_is_told_as_such() {
        let mut story = Story::default();
        story.died("green", at(20_000));
        assert_eq!(story.summary(), ["  0:20 green died: not out yet"]);
        assert_eq!(story.failovers(), 0);
        story.down("green", at(21_000));
        story.returned("green", at(25_000));
        assert_eq!(
            story.summary(),
            ["  0:20 green died: out after 1.0 s, returned and not back yet"]
        );
    }

    #[test]
    fn a_second_death_is_a_second_chapter() {
        let mut story = Story::default();
        for start in [10_000, 40_000] {
            story.died("red", at(start));
            story.down("red", at(start + 500));
        }
        assert_eq!(story.summary().len(), 2);
        assert_eq!(story.failovers(), 2);
    }

    #[test]
    fn what_no_death_explains_changes_no_chapter() {
        let mut story = Story::default();
        story.died("red", at(10_000));
        story.down("red", at(11_000));
        story.returned("red", at(15_000));
        story.up("red", at(16_000));
        let told = story.summary();
        assert_eq!(story.down("red", at(17_000)), None);
        assert_eq!(story.up("red", at(18_000)), None);
        assert_eq!(story.summary(), told);
        assert_eq!(story.failovers(), 1);
    }

    #[test]
    fn a_long_story_ends_with_its_last_chapters() {
        let mut story = Story::default();
        for minute in 0..100 {
            story.died("red", at(minute * 60_000));
            story.down("red", at(minute * 60_000 + 1_000));
        }
        assert_eq!(story.failovers(), 100);
        let summary = story.summary();
        assert_eq!(summary.len(), MOST_CHAPTERS);
        assert!(summary[MOST_CHAPTERS - 1].starts_with(" 99:00 red"));
    }

    #[test]
    fn a_first_heartbeat_before_any_death_is_no_news() {
        let mut story = Story::default();
        assert_eq!(story.up("red", at(100)), None);
        assert_eq!(story.down("red", at(100)), None);
    }
}
