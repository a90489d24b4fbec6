//! What the demo shows, line by line: readable in a terminal of 80 columns and in a file. Knows how
//! a line looks and nothing of where its numbers come from.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use crate::cli::figures::speaks_unicode;
use crate::cli::printing::Stdout;
use crate::telemetry::lines::LineQueue;

/// Lines to stdout, each at its time since the start. A terminal that is stopped with Ctrl-S stops
/// the lines and not the demo.
pub(super) struct Screen {
    out: LineQueue,
    stdout: Stdout,
    started: Instant,
    look: Look,
}

/// What a server did since the last row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) name: &'static str,
    pub(super) sessions: u64,
    pub(super) alive: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        let stdout = Stdout::default();
        Self {
            out: LineQueue::start(stdout.clone()),
            stdout,
            started: Instant::now(),
            look: Look::of_stdout(),
        }
    }

    /// Lines as they are.
    pub(super) fn say(&self, text: &str) {
        for line in text.lines() {
            self.line(line);
        }
    }

    /// Something that happened.
    pub(super) fn event(&self, text: &str) {
        self.line(&format!("{}  {text}", clock(self.elapsed())));
    }

    /// Something that happened and that is not good.
    pub(super) fn alarm(&self, text: &str) {
        let (loud, plain) = self.look.colour(LOUD);
        self.line(&format!("{}  {loud}{text}{plain}", clock(self.elapsed())));
    }

    /// Who has served how many.
    pub(super) fn row(&self, shares: &[Share], failed: u64) {
        let row = self.look.row(shares, failed);
        self.line(&format!("{}  {row}", clock(self.elapsed())));
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether stdout is gone (`ballast demo | head`), so that there is nobody to show anything to.
    pub(super) fn is_gone(&self) -> bool {
        self.out.lost() > 0
    }

    /// Waits for the last lines, but not for ever, and tells what became of all.
    pub(super) fn close(self) -> io::Result<()> {
        self.out.flush(LAST_LINES);
        self.stdout.outcome()
    }

    fn line(&self, line: &str) {
        // The queue takes or counts every line; it never fails.
        let _ = self.out.clone().write_all(format!("{line}\n").as_bytes());
    }
}

/// Colours and characters that the terminal understands.
#[derive(Clone, Copy, Debug)]
struct Look {
    colours: bool,
    block: char,
}

impl Look {
    fn of_stdout() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: io::stdout().is_terminal() && !no_color,
            block: if speaks_unicode() { '▇' } else { '#' },
        }
    }

    /// How to begin and to end a colour.
    fn colour(self, code: &'static str) -> (&'static str, &'static str) {
        if self.colours {
            (code, "\x1b[0m")
        } else {
            ("", "")
        }
    }

    fn row(self, shares: &[Share], failed: u64) -> String {
        let most = shares.iter().map(|share| share.sessions).max().unwrap_or(0);
        let mut row = String::new();
        for share in shares {
            let (begin, end) = self.colour(colour_of(share.name));
            let graph = if share.alive {
                let blocks = (share.sessions * BAR as u64).div_ceil(most.max(1));
                self.block
                    .to_string()
                    .repeat(usize::try_from(blocks).unwrap_or(BAR))
            } else {
                "dead".to_owned()
            };
            row.push_str(&format!(
                "{:<5} {:>4} {begin}{graph:<BAR$}{end}  ",
                share.name, share.sessions
            ));
        }
        let (begin, end) = self.colour(if failed > 0 { LOUD } else { "" });
        row.push_str(&format!("{begin}{failed} failed{end}"));
        row
    }
}

/// Minutes and seconds, as wide as an hour-long demo needs.
pub(super) fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{:>3}:{:02}", seconds / 60, seconds % 60)
}

/// `1.2 s`
pub(super) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

fn colour_of(name: &str) -> &'static str {
    match name {
        "red" => "\x1b[31m",
        "green" => "\x1b[32m",
        "blue" => "\x1b[34m",
        _ => "",
    }
}

const LOUD: &str = "\x1b[1;31m";

/// The longest bar.
const BAR: usize = 8;

/// How long the end waits for a terminal that does not take the last lines.
const LAST_LINES: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look {
        colours: false,
        block: '#',
    };

    fn shares(sessions: [u64; 3]) -> Vec<Share> {
        ["red", "green", "blue"]
            .into_iter()
            .zip(sessions)
            .map(|(name, sessions)| Share {
                name,
                sessions,
                alive: sessions > 0,
            })
            .collect()
    }

    #[test]
    fn a_row_shows_shares_as_numbers_and_bars() {
        assert_eq!(
            PLAIN.row(&shares([0, 50, 25]), 0),
            "red      0 dead      green   50 ########  blue    25 ####      0 failed"
        );
    }

    #[test]
    fn a_row_fits_80_columns_even_under_load() {
        let row = PLAIN.row(&shares([9999, 9999, 9999]), 99);
        assert!(
            clock(Duration::from_secs(3599)).len() + 2 + row.len() <= 80,
            "{row}"
        );
    }

    #[test]
    fn nothing_served_is_no_bar() {
        let mut idle = shares([0, 0, 0]);
        idle.iter_mut().for_each(|share| share.alive = true);
        assert!(!PLAIN.row(&idle, 0).contains('#'));
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let colourful = Look {
            colours: true,
            ..PLAIN
        };
        let mut row = colourful.row(&shares([1, 2, 3]), 1);
        for code in ["\x1b[31m", "\x1b[32m", "\x1b[34m", LOUD, "\x1b[0m"] {
            row = row.replace(code, "");
        }
        assert_eq!(row, PLAIN.row(&shares([1, 2, 3]), 1));
    }

    #[test]
    fn the_clock_counts_minutes() {
        assert_eq!(clock(Duration::from_secs(75)), "  1:15");
        assert_eq!(seconds(Duration::from_millis(1240)), "1.2 s");
    }
}
