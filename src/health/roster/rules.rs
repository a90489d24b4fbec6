//! What the file says of who serves when.

use std::fmt;
use std::time::Duration;

/// Who serves when, for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// A tier joins while fewer of those before it are up.
    pub min_up: MinUp,
    /// When it leaves again.
    pub fail_back: FailBack,
    /// How long a backend that came back takes to get its full share; zero is at once.
    pub slow_start: Duration,
    /// What is done for clients when no backend is up.
    pub when_all_down: WhenAllDown,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min_up: MinUp::Count(1),
            fail_back: FailBack::Immediate,
            slow_start: Duration::ZERO,
            when_all_down: WhenAllDown::Refuse,
        }
    }
}

/// How many of some backends are enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MinUp {
    /// So many.
    Count(u32),
    /// So many of a hundred in the file, rounded up; 1 to 100.
    Percent(u8),
}

impl MinUp {
    /// How many of `configured` are enough, never none.
    pub fn of(self, configured: usize) -> usize {
        match self {
            Self::Count(count) => count as usize,
            Self::Percent(percent) => (configured * usize::from(percent)).div_ceil(100),
        }
        .max(1)
    }
}

impl fmt::Display for MinUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// When a tier that stands in stands down, once enough of those before it are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailBack {
    /// At once.
    Immediate,
    /// When they have been up for so long without a break.
    After(Duration),
    /// When an operator asks for it, or the tier itself fails.
    Manual,
}

/// What is done for clients when no backend is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenAllDown {
    /// They are reset.
    Refuse,
    /// Every backend is used as though it were up: the checks may be wrong.
    UseAll,
}
