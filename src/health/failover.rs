//! One failover as it was: what happened when, measured and never estimated.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Failure, Why};
use crate::model::{Address, BackendId};

/// A backend that was serving was taken out. The moments are in the order of the fields; the backend
/// was last known to be well at `last_success`, so it failed between that and `began`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// Who was taken out.
    pub backend: BackendId,
    /// Where it is.
    pub address: Address,
    /// Why.
    pub why: Why,
    /// What sessions told, if it was they who told.
    pub evidence: Option<Arc<str>>,
    /// The last connect of a session, or probe, that succeeded before it began.
    pub last_success: Option<Instant>,
    /// The first session or probe that failed had begun: from here on, whoever came to this backend
    /// came in vain.
    pub began: Instant,
    /// It had failed.
    pub first_evidence: Instant,
    /// t1: the backend counted as failed, and was picked no more.
    pub detected: Instant,
    /// t2: the table without it was in force.
    pub moved: Instant,
    /// t3: the last of the sessions that it had failed was lost, or was with another backend.
    pub recovered: Instant,
    /// Sessions that were lost: broken while they ran, or failed by it and taken by nobody else.
    pub sessions_hurt: u64,
    /// Sessions that it failed and that another backend took; their clients had to wait, no more.
    pub sessions_moved: u64,
    /// Backends that may serve without it.
    pub eligible: usize,
    /// All backends of the service.
    pub configured: usize,
}

impl Failover {
    /// From the beginning to the recovery: the time that an operator quotes.
    pub fn total(&self) -> Duration {
        self.recovered.saturating_duration_since(self.began)
    }

    /// How long after the beginning `moment` was.
    pub fn after(&self, moment: Instant) -> Duration {
        moment.saturating_duration_since(self.began)
    }
}

/// How a failover started, as far as sessions and probes can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// See [`Failover::last_success`].
    pub last_success: Option<Instant>,
    /// See [`Failover::began`].
    pub began: Instant,
    /// See [`Failover::first_evidence`].
    pub first_evidence: Instant,
}

impl Started {
    /// The first of the failures of sessions and of the probe that failed first (when it was sent, and
    /// when it had failed), leaving out what success of a session has proved to be no part of it.
    /// Without any, it started when it was `detected`.
    pub fn find<'a>(
        sessions: impl Iterator<Item = &'a Failure>,
        probe: Option<(Instant, Instant)>,
        successes: &[Option<Instant>],
        detected: Instant,
    ) -> Self {
        let last = successes.iter().copied().flatten().max();
        let told: Vec<_> = sessions.map(|it| (it.since, it.at)).chain(probe).collect();
        let after = |at: Instant| last.is_none_or(|last| last < at);
        // A server that is stopped goes on to be connected to: then success proves nothing.
        let prove_nothing = !told.iter().any(|&(_, at)| after(at));
        let real = || told.iter().filter(|&&(_, at)| prove_nothing || after(at));
        // What fails first need not have begun first: a probe may wait less long than a session does.
        let began = real().map(|(since, _)| *since).min();
        let first_evidence = real().map(|(_, at)| *at).min();
        let began = began.unwrap_or(detected);
        let first_evidence = first_evidence.unwrap_or(detected);
        let before = |&at: &Instant| at <= first_evidence;
        Self {
            last_success: successes.iter().copied().flatten().filter(before).max(),
            began,
            first_evidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Symptom;

    fn at(start: Instant, millis: u64) -> Instant {
        start + Duration::from_millis(millis)
    }

    fn failures(start: Instant, spans: &[(u64, u64)]) -> Vec<Failure> {
        let failure = |&(since, failed): &(u64, u64)| Failure {
            symptom: Symptom::TimedOut,
            since: at(start, since),
            at: at(start, failed),
        };
        spans.iter().map(failure).collect()
    }

    #[test]
    fn it_starts_with_the_first_attempt_that_failed_for_good() {
        let start = Instant::now();
        // The first failed before a success, and was another matter.
        let told = failures(start, &[(0, 10), (100, 600), (120, 620)]);
        let successes = [Some(at(start, 95)), Some(at(start, 50)), None];
        let started = Started::find(told.iter(), None, &successes, at(start, 700));
        assert_eq!(started.began, at(start, 100));
        assert_eq!(started.first_evidence, at(start, 600));
        assert_eq!(started.last_success, Some(at(start, 95)));
    }

    #[test]
    fn a_probe_may_have_seen_it_first() {
        let start = Instant::now();
        let told = failures(start, &[(20, 520)]);
        let probe = Some((at(start, 10), at(start, 310)));
        let started = Started::find(told.iter(), probe, &[None], at(start, 600));
        assert_eq!(
            (started.began, started.first_evidence),
            (at(start, 10), at(start, 310))
        );
    }

    #[test]
    fn a_session_may_have_begun_before_the_probe_that_failed_before_it() {
        let start = Instant::now();
        let told = failures(start, &[(20, 520), (10, 510)]);
        let probe = Some((at(start, 200), at(start, 500)));
        let started = Started::find(told.iter(), probe, &[None], at(start, 600));
        assert_eq!(
            (started.began, started.first_evidence),
            (at(start, 10), at(start, 500))
        );
    }

    #[test]
    fn connects_that_a_stopped_server_still_takes_prove_nothing() {
        let start = Instant::now();
        let probe = Some((at(start, 100), at(start, 300)));
        let successes = [Some(at(start, 900)), Some(at(start, 50))];
        let started = Started::find([].iter(), probe, &successes, at(start, 901));
        assert_eq!(started.began, at(start, 100));
        assert_eq!(started.last_success, Some(at(start, 50)));
    }

    #[test]
    fn without_a_trace_it_starts_when_it_is_detected() {
        let now = Instant::now();
        let started = Started::find([].iter(), None, &[], now);
        assert_eq!((started.began, started.last_success), (now, None));
    }
}
