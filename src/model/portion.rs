//! How much of its configured weight a backend gets for now.

use std::fmt;

/// A part of a backend's configured weight, in thousandths; never nothing and never more than all. A
/// backend that is warming up, or that says that it is busy, gets less than its full portion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Portion(u16);

impl Portion {
    /// All of it.
    pub const FULL: Self = Self(1000);

    /// `part` of `whole`, cut off at the bounds.
    pub fn of(part: u64, whole: u64) -> Self {
        let full = u64::from(Self::FULL.0);
        let thousandths = part.saturating_mul(full) / whole.max(1);
        Self(thousandths.clamp(1, full) as u16)
    }

    /// This portion of `weight`, in thousandths.
    pub fn of_weight(self, weight: u32) -> u64 {
        u64::from(weight) * u64::from(self.0)
    }

    /// How many thousandths.
    pub fn thousandths(self) -> u16 {
        self.0
    }
}

impl Default for Portion {
    fn default() -> Self {
        Self::FULL
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", f64::from(self.0) / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_portion_is_never_nothing_and_never_more_than_all() {
        assert_eq!(Portion::of(1, 4).thousandths(), 250);
        assert_eq!(Portion::of(0, 4).thousandths(), 1);
        assert_eq!(Portion::of(9, 4), Portion::FULL);
        assert_eq!(Portion::of(u64::MAX, 0), Portion::FULL);
    }
}
