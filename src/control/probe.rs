//! Heartbeats: one task for each probe, which waits until it is due, asks, and says what it found.
//! Deciding what that means, and when to ask again, is not its business.

use std::borrow::Borrow;
use std::future::poll_fn;
use std::hash::{BuildHasher, Hash, Hasher};
use std::ops::Deref;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use foldhash::fast::FixedState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until};

use crate::check::{Asked, Doorman, Unsent, ask};
use crate::health::{Check, Finding, Policy};
use crate::model::{Address, BackendId};
use crate::runner::Runner;

/// Probes start at beats so far apart, many at a time where there are many: every wake-up costs as much as a
/// good part of a probe.
const BEAT: Duration = Duration::from_millis(5);
/// Between two probes of a target there are at least so many, so that jitter stays jitter.
const BEATS: u32 = 20;

/// While descriptors are short, probes leave to others but so many of those that are kept for control.
const FEW: usize = 16;

/// What is checked, kept once: a reload looks ten times for that of each backend, and two that are kept in one place are
/// equal without being looked into.
#[derive(Clone, Debug)]
pub(super) struct TargetId {
    aim: Arc<Aim>,
    /// Of the aim.
    digest: u64,
}

/// An address, how it is checked, and when.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Aim {
    /// Where sessions go.
    pub(super) address: Address,
    /// Where probes go.
    pub(super) probed_at: Address,
    pub(super) check: Arc<Check>,
    pub(super) policy: Policy,
}

impl TargetId {
    pub(super) fn of(aim: Aim) -> Self {
        Self {
            digest: aim.digest(),
            aim: Arc::new(aim),
        }
    }
}

impl Deref for TargetId {
    type Target = Aim;

    fn deref(&self) -> &Aim {
        &self.aim
    }
}

impl PartialEq for TargetId {
    fn eq(&self, other: &Self) -> bool {
        self.aim == other.aim
    }
}

impl Eq for TargetId {}

impl Borrow<Aim> for TargetId {
    fn borrow(&self) -> &Aim {
        self
    }
}

impl Hash for TargetId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest);
    }
}

impl Hash for Aim {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.digest());
    }
}

impl Aim {
    /// Of the addresses alone: there are hardly two checks of the same two.
    fn digest(&self) -> u64 {
        FixedState::default().hash_one((self.address, self.probed_at))
    }
}

/// What a probe came to.
#[derive(Debug)]
pub(super) struct Probed {
    pub(super) target: TargetId,
    /// Which probe of the target it was.
    pub(super) number: u64,
    pub(super) started: Instant,
    /// By how much it was too late.
    pub(super) late: Duration,
    pub(super) finding: Result<Finding, Unsent>,
}

/// What probes share.
#[derive(Clone, Debug)]
pub(super) struct Prober {
    /// Bounds the descriptors that probes hold at a time.
    in_flight: Arc<Semaphore>,
    results: mpsc::Sender<Probed>,
    answers: mpsc::Sender<Answer>,
    punctuality: Arc<Punctuality>,
    runner: Option<Runner>,
    doorman: Doorman,
    /// When the first beat was.
    began: Instant,
}

/// What a confirming probe came to.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whom it asked.
    pub(super) target: TargetId,
    /// Whose sessions had failed.
    pub(super) accused: BackendId,
    pub(super) finding: Result<Finding, Unsent>,
}

impl Prober {
    /// Probes that hold at most so many descriptors at a time and send what they find to `results`,
    /// or to `answers` if they were to confirm something. Programs are started by `runner`.
    pub(super) fn new(
        in_flight: usize,
        results: mpsc::Sender<Probed>,
        answers: mpsc::Sender<Answer>,
        runner: Option<Runner>,
    ) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(in_flight)),
            results,
            answers,
            punctuality: Arc::default(),
            runner,
            doorman: Doorman::new(in_flight),
            began: Instant::now(),
        }
    }

    /// Probes `target` at the first beat once it is `due`, unless aborted.
    pub(super) fn start(&self, target: TargetId, number: u64, due: Instant) -> AbortHandle {
        let prober = self.clone();
        let beat = BEAT.min(target.policy.fast_interval / BEATS);
        let due = due + until_beat(due.saturating_duration_since(self.began), beat);
        tokio::spawn(async move { prober.run(target, number, due).await }).abort_handle()
    }

    /// How many probes were sent, and the latest of them, since the last call.
    pub(super) fn punctuality(&self) -> (u64, Duration) {
        self.punctuality.take()
    }

    /// How many were sent since the start, and how much later than they were due, together.
    pub(super) fn sent(&self) -> (u64, Duration) {
        let all = self.punctuality.all.load(Ordering::Relaxed);
        let late = self.punctuality.late_micros.load(Ordering::Relaxed);
        (all, Duration::from_micros(late))
    }

    async fn run(self, target: TargetId, number: u64, due: Instant) {
        sleep_until(due).await;
        // Closed only when control ends.
        let Ok(permit) = Arc::clone(&self.in_flight).acquire_owned().await else {
            return;
        };
        let started = Instant::now();
        let late = started - due;
        self.punctuality.note(late);
        let Asked { finding, parting } = self.ask(&target).await;
        let probed = Probed {
            target,
            number,
            started,
            late,
            finding,
        };
        if self.results.send(probed).await.is_ok() {
            parting.say_goodbye(&self.doorman, permit).await;
        }
    }

    async fn ask(&self, target: &TargetId) -> Asked {
        let limit = target.policy.timeout;
        let runner = self.runner.as_ref();
        answered(pin!(ask(target.probed_at, &target.check, limit, runner))).await
    }

    /// Keeps from probes what they do not hold just now, but for a few; adds that to what is `kept` already.
    pub(super) fn hold_back(&self, kept: &mut Option<OwnedSemaphorePermit>) {
        let free = self.in_flight.available_permits().saturating_sub(FEW);
        let many = u32::try_from(free).unwrap_or(u32::MAX);
        // Nobody else takes any meanwhile; should there be fewer than that, there will be again.
        let Ok(more) = Arc::clone(&self.in_flight).try_acquire_many_owned(many) else {
            return;
        };
        match kept {
            Some(kept) => kept.merge(more),
            None => *kept = Some(more),
        }
    }

    /// What one probe of `target` finds, now, which nobody else hears of.
    pub(super) async fn look(&self, target: &TargetId) -> Result<Finding, Unsent> {
        let permit = Arc::clone(&self.in_flight).acquire_owned().await;
        let Asked { finding, parting } = self.ask(target).await;
        // Closed only when control ends.
        if let Ok(permit) = permit {
            let doorman = self.doorman.clone();
            tokio::spawn(async move { parting.say_goodbye(&doorman, permit).await });
        }
        finding
    }

    /// Probes `target` once, now, because sessions of `accused` have failed. There is always an
    /// answer.
    pub(super) fn confirm(&self, target: TargetId, accused: BackendId) {
        let prober = self.clone();
        tokio::spawn(async move {
            // Closed only when control ends, as the queue below.
            let Ok(permit) = Arc::clone(&prober.in_flight).acquire_owned().await else {
                return;
            };
            let Asked { finding, parting } = prober.ask(&target).await;
            let answer = Answer {
                target,
                accused,
                finding,
            };
            if prober.answers.send(answer).await.is_ok() {
                parting.say_goodbye(&prober.doorman, permit).await;
            }
        });
    }
}

/// From `since` the first beat to the next one, with so much between one and the next.
fn until_beat(since: Duration, beat: Duration) -> Duration {
    let over = since.as_nanos() % beat.as_nanos().max(1);
    match u64::try_from(over).unwrap_or(0) {
        0 => Duration::ZERO,
        over => beat.saturating_sub(Duration::from_nanos(over)),
    }
}

/// What `asking` comes to, a panic included: a target of which no probe comes back is never probed
/// again, and a server's words go through parsers that are not ours.
fn answered(mut asking: Pin<&mut impl Future<Output = Asked>>) -> impl Future<Output = Asked> {
    poll_fn(move |context| {
        // What has panicked is not polled again, so that nobody sees what it left behind.
        catch_unwind(AssertUnwindSafe(|| asking.as_mut().poll(context)))
            .unwrap_or_else(|_| Poll::Ready(Unsent::Defect.into()))
    })
}

/// How well probes keep their time. One thread writes and reads it; atomic only to be shared.
#[derive(Debug, Default)]
struct Punctuality {
    sent: AtomicU64,
    latest_micros: AtomicU64,
    /// Since the start.
    all: AtomicU64,
    late_micros: AtomicU64,
}

impl Punctuality {
    fn note(&self, late: Duration) {
        let late = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.latest_micros.fetch_max(late, Ordering::Relaxed);
        self.all.fetch_add(1, Ordering::Relaxed);
        self.late_micros.fetch_add(late, Ordering::Relaxed);
    }

    fn take(&self) -> (u64, Duration) {
        let sent = self.sent.swap(0, Ordering::Relaxed);
        let latest = self.latest_micros.swap(0, Ordering::Relaxed);
        (sent, Duration::from_micros(latest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_waits_for_the_next_beat_at_most() {
        let ms = Duration::from_millis;
        for (since, wait) in [(0, 0), (1, 4), (4, 1), (5, 0), (5_000_000_003, 2)] {
            assert_eq!(until_beat(ms(since), ms(5)), ms(wait), "{since}");
        }
        assert_eq!(until_beat(ms(7), Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn a_probe_that_panics_still_comes_back() {
        async fn asking() -> Asked {
            tokio::task::yield_now().await;
            panic!("a parser's defect")
        }
        let asked = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(answered(pin!(asking())));
        assert_eq!(asked.finding, Err(Unsent::Defect));
    }
}
