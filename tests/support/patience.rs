//! How long a test waits, and for what there is no event: the state of another process.

use std::thread;
use std::time::{Duration, Instant};

/// No wait of a test is longer; a correct daemon needs a small part of it even on a loaded machine.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Between two looks at something that cannot wake us.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Looks until `look` finds something.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "not in time: {what}");
        thread::sleep(LOOK_AGAIN);
    }
}

/// Looks until `look` has said the same for `quiet`, and tells what it said.
pub fn steadily<T: PartialEq>(quiet: Duration, what: &str, mut look: impl FnMut() -> T) -> T {
    let mut last = (look(), Instant::now());
    eventually(what, || {
        let now = look();
        if now != last.0 {
            last = (now, Instant::now());
        }
        (last.1.elapsed() >= quiet).then_some(())
    });
    last.0
}
