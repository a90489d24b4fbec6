//! What the tests of services share: a snapshot.

use std::sync::Arc;

use super::Snapshot;
use crate::config::{QueueConfig, RelayMode, SessionLog, Timeouts};
use crate::model::Backend;
use crate::strategy::testing::candidates;
use crate::strategy::{Parameters, find};

/// One over `backends`, each of which may have a cap, and with no limit of its own.
pub(super) fn snapshot(
    strategy: &str,
    parameters: &Parameters,
    backends: Vec<Arc<Backend>>,
    queue: QueueConfig,
) -> Snapshot {
    Snapshot {
        strategy: find(strategy)
            .unwrap()
            .build(&candidates(&backends), parameters),
        backends,
        reserve: None,
        nobody: None,
        capped: true,
        queue,
        admission: None,
        throttle: None,
        send_header: None,
        outgoing: None,
        timeouts: Timeouts::default(),
        max_lifetime: None,
        retries: 2,
        relay: RelayMode::Auto,
        session_log: SessionLog::Off,
    }
}
