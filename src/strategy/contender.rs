//! Comparing how loaded two backends are, for the strategies that look at load.

use crate::model::Backend;

/// A backend with the load it showed when it was looked at; looked at once, so that a comparison
/// cannot contradict itself while workers count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Contender {
    pub(super) index: usize,
    pressure: u64,
    pub(super) weight: u64,
}

impl Contender {
    pub(super) fn new(index: usize, backend: &Backend) -> Self {
        Self {
            index,
            pressure: backend.pressure(),
            weight: backend.effective_weight(),
        }
    }

    /// Whether it carries less for its weight than `other`, by cross-multiplication: no division
    /// and no rounding.
    pub(super) fn is_lighter_than(&self, other: &Self) -> bool {
        self.load_against(other) < other.load_against(self)
    }

    /// Whether both carry the same for their weight.
    pub(super) fn ties_with(&self, other: &Self) -> bool {
        self.load_against(other) == other.load_against(self)
    }

    fn load_against(&self, other: &Self) -> u128 {
        u128::from(self.pressure) * u128::from(other.weight)
    }
}
