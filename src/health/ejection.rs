//! What may be done about evidence against a backend: [`Ejection`] keeps it out for a time when the operator
//! wants no confirming probe, and [`may_remove`] is the bound on that and on what such a probe takes out.

use std::fmt;
use std::time::{Duration, Instant};

use super::Passive;

/// How a backend is kept out without a probe, and for how long.
#[derive(Clone, Debug, Default)]
pub struct Ejection {
    until: Option<Instant>,
    returned: Option<Instant>,
    repeats: u32,
}

impl Ejection {
    /// Whether it is out.
    pub fn is_out(&self) -> bool {
        self.until.is_some()
    }

    /// When it returns, while it is out.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Takes it out, for `eject_time` as often as it has been out lately. Each such time that it
    /// was in again without a relapse is one repeat forgiven.
    pub fn eject(&mut self, policy: &Passive, now: Instant) -> Duration {
        if let Some(returned) = self.returned {
            let good = now.saturating_duration_since(returned).as_nanos();
            let forgiven = good / policy.eject_time.as_nanos().max(1);
            let forgiven = u32::try_from(forgiven).unwrap_or(u32::MAX);
            self.repeats = self.repeats.saturating_sub(forgiven);
        }
        self.repeats = (self.repeats + 1).min(MOST_REPEATS);
        let time = policy.eject_time * self.repeats;
        self.until = Some(now + time);
        time
    }

    /// Lets it in again if its time has come; whether it did.
    pub fn end(&mut self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now) && self.lift(now)
    }

    /// Lets it in again whatever its time; whether it was out.
    pub fn lift(&mut self, now: Instant) -> bool {
        let was_out = self.until.take().is_some();
        if was_out {
            self.returned = Some(now);
        }
        was_out
    }
}

/// Why a backend stays in although there is evidence against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spared {
    /// Nobody else may serve.
    Last,
    /// Evidence keeps as many out as it may.
    Capped {
        /// So many.
        most: usize,
    },
}

impl fmt::Display for Spared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Last => f.write_str("no other backend may serve"),
            Self::Capped { most } => write!(f, "max_ejected: evidence keeps {most} out already"),
        }
    }
}

/// Whether evidence may take one more backend out, of a service with `configured` backends of which
/// `eligible` may serve and `removed` are out because of evidence. At least one always may be.
///
/// # Errors
/// Why not.
pub fn may_remove(
    policy: &Passive,
    configured: usize,
    eligible: usize,
    removed: usize,
) -> Result<(), Spared> {
    if eligible <= 1 {
        return Err(Spared::Last);
    }
    let most = (configured * usize::from(policy.max_ejected) / 100).max(1);
    if removed >= most {
        return Err(Spared::Capped { most });
    }
    Ok(())
}

/// The longest ejection is so many times the first.
const MOST_REPEATS: u32 = 10;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy() -> Passive {
        Passive::default()
    }

    #[test]
    fn ejections_grow_with_repeats_and_shrink_with_good_conduct() {
        let mut now = Instant::now();
        let mut ejection = Ejection::default();
        let mut times = Vec::new();
        for _ in 0..12 {
            let time = ejection.eject(&policy(), now);
            assert!(ejection.is_out());
            assert!(!ejection.end(now + time - Duration::from_millis(1)));
            now += time;
            assert!(ejection.end(now));
            times.push(time.as_secs());
        }
        assert_eq!(times, [10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 100, 100]);
        now += Duration::from_secs(35);
        assert_eq!(ejection.eject(&policy(), now).as_secs(), 80);
        assert!(ejection.end(now + Duration::from_secs(80)));
        now += Duration::from_secs(10_000);
        assert_eq!(ejection.eject(&policy(), now).as_secs(), 10);
    }

    #[test]
    fn the_last_backend_stays_whatever_the_cap() {
        let generous = Passive {
            max_ejected: 100,
            ..policy()
        };
        assert_eq!(may_remove(&generous, 4, 1, 3), Err(Spared::Last));
        assert_eq!(may_remove(&generous, 1, 1, 0), Err(Spared::Last));
        assert_eq!(may_remove(&generous, 4, 2, 2), Ok(()));
    }

    #[test]
    fn the_cap_is_a_share_of_the_backends_but_never_less_than_one() {
        let capped = |most| Err(Spared::Capped { most });
        assert_eq!(may_remove(&policy(), 4, 3, 1), Ok(()));
        assert_eq!(may_remove(&policy(), 4, 2, 2), capped(2));
        assert_eq!(may_remove(&policy(), 3, 3, 0), Ok(()));
        assert_eq!(may_remove(&policy(), 3, 2, 1), capped(1));
        let strict = Passive {
            max_ejected: 1,
            ..policy()
        };
        assert_eq!(may_remove(&strict, 2, 2, 0), Ok(()));
        assert_eq!(may_remove(&strict, 50, 49, 1), capped(1));
    }

    proptest! {
        #[test]
        fn however_many_fail_some_backend_is_left(
            configured in 1_usize..60,
            max_ejected in 1_u8..=100,
        ) {
            let policy = Passive { max_ejected, ..policy() };
            let mut removed = 0;
            while may_remove(&policy, configured, configured - removed, removed).is_ok() {
                removed += 1;
            }
            prop_assert!(removed < configured);
            prop_assert!(removed <= (configured * usize::from(max_ejected) / 100).max(1));
        }
    }
}
