//! What the tests of the commands share: a backend that is well, and the time.

use crate::api::{Backend, State};

pub(super) const NOW: &str = "2026-11-21T12:00:10.000Z";
/// Ten seconds ago.
pub(super) const BEFORE: &str = "2026-11-21T12:00:00.000Z";

/// A backend that serves.
pub(super) fn up(name: &str) -> Backend {
    Backend {
        name: name.into(),
        address: Some("10.0.0.1:80".into()),
        state: State::Up,
        since: Some(BEFORE.into()),
        serving: true,
        enabled: true,
        ..Backend::default()
    }
}
