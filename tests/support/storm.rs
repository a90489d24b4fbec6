//! Many short sessions at once, and an account of each that failed.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::patience::DEADLINE;

/// Threads that open one session after the other until the storm is over.
pub struct Storm {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    over: AtomicBool,
    tally: Mutex<Tally>,
    more: Condvar,
}

/// What happened so far.
#[derive(Clone, Default)]
pub struct Tally {
    /// Sessions that went well, by what they reported (a backend's name).
    pub served: BTreeMap<String, u64>,
    /// The others.
    pub failed: Vec<Failure>,
}

/// A session that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Before it connected.
    pub started: Instant,
    /// When it failed.
    pub ended: Instant,
    /// What it met.
    #[expect(dead_code, reason = "read by Debug, for the message of a failed test")]
    pub error: String,
}

impl Storm {
    /// `threads` threads that run `session` again and again; its argument is a number of its own.
    pub fn start(
        threads: u64,
        session: impl Fn(u64) -> io::Result<String> + Send + Sync + 'static,
    ) -> Self {
        let session = Arc::new(session);
        let shared = Arc::new(Shared {
            over: AtomicBool::new(false),
            tally: Mutex::default(),
            more: Condvar::new(),
        });
        let threads = (0..threads)
            .map(|thread| {
                let (session, shared) = (Arc::clone(&session), Arc::clone(&shared));
                thread::spawn(move || {
                    let mut number = thread << 32;
                    while !shared.over.load(Ordering::Relaxed) {
                        let started = Instant::now();
                        let outcome = session(number);
                        shared.count(started, outcome);
                        number += 1;
                    }
                })
            })
            .collect();
        Self { shared, threads }
    }

    /// Waits until `sessions` more have gone well.
    pub fn pass(&self, sessions: u64) {
        let tally = self.shared.tally();
        let goal = tally.successes() + sessions;
        let (tally, _) = self
            .shared
            .more
            .wait_timeout_while(tally, DEADLINE, |tally| tally.successes() < goal)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(
            tally.successes() >= goal,
            "the storm stands still\n{:?}",
            *tally
        );
    }

    /// Ends it, once every running session is over.
    pub fn finish(mut self) -> Tally {
        self.stop();
        self.shared.tally().clone()
    }

    /// So far.
    pub fn so_far(&self) -> Tally {
        self.shared.tally().clone()
    }

    fn stop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a session returns its error");
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // A failed test ends without waiting for its storm; the threads see the flag.
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    fn count(&self, started: Instant, outcome: io::Result<String>) {
        let mut tally = self.tally();
        match outcome {
            Ok(name) => *tally.served.entry(name).or_default() += 1,
            Err(error) => tally.failed.push(Failure {
                started,
                ended: Instant::now(),
                error: error.to_string(),
            }),
        }
        drop(tally);
        self.more.notify_all();
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tally {
    /// Sessions that went well.
    pub fn successes(&self) -> u64 {
        self.served.values().sum()
    }

    /// Sessions that `name` served.
    pub fn by(&self, name: &str) -> u64 {
        self.served.get(name).copied().unwrap_or(0)
    }

    /// Holds that nothing failed.
    pub fn assert_flawless(&self) {
        assert!(self.failed.is_empty(), "{self:?}");
    }

    /// Holds that only sessions failed which ran at one of `moments`, and tells how many those are.
    pub fn assert_only_in_flight(&self, moments: &[(Instant, Instant)]) -> usize {
        let others: Vec<_> = self
            .failed
            .iter()
            .filter(|failure| {
                !moments
                    .iter()
                    .any(|(from, to)| failure.started <= *to && failure.ended >= *from)
            })
            .collect();
        assert!(
            others.is_empty(),
            "{} sessions failed that were not in flight: {:?}",
            others.len(),
            &others[..others.len().min(5)]
        );
        self.failed.len()
    }
}

impl fmt::Debug for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = &self.failed[..self.failed.len().min(5)];
        write!(
            f,
            "served {:?}, failed {}, the first of them {first:?}",
            self.served,
            self.failed.len()
        )
    }
}
