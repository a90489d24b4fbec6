//! One alert on its way: attempts, each under a deadline, with pauses that grow between them.

use std::time::{Duration, Instant};

use hyper::body::Bytes;
use tokio::time::{sleep, timeout};

use super::exec::execute;
use super::message::Message;
use super::webhook::post;
use crate::config::{AlertConfig, AlertTarget, Effort, written};
use crate::runner::Runner;

/// How it went.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) attempts: u32,
    pub(super) took: Duration,
    /// Why the last attempt failed.
    pub(super) result: Result<(), String>,
}

/// Why one attempt failed, and whether another one may do better.
struct Failure {
    why: String,
    may_pass: bool,
}

/// Tries to deliver `message` until it is delivered, cannot be, or was tried often enough.
pub(super) async fn deliver(
    config: &AlertConfig,
    message: &Message,
    runner: Option<&Runner>,
) -> Delivered {
    let started = Instant::now();
    let Effort {
        retries, backoff, ..
    } = config.effort;
    let json = Bytes::from(message.json());
    let mut attempts = 0;
    let result = loop {
        attempts += 1;
        let Err(failure) = attempt(config, message, json.clone(), runner).await else {
            break Ok(());
        };
        if !failure.may_pass || attempts > retries {
            break Err(failure.why);
        }
        tracing::debug!(alert = %config.name, attempts, error = failure.why, "alert not delivered yet");
        sleep(pause(backoff, attempts, fastrand::f64())).await;
    };
    Delivered {
        attempts,
        took: started.elapsed(),
        result,
    }
}

async fn attempt(
    config: &AlertConfig,
    message: &Message,
    json: Bytes,
    runner: Option<&Runner>,
) -> Result<(), Failure> {
    let limit = config.effort.timeout;
    let late = || Failure {
        why: format!("no answer within {}", written(limit)),
        may_pass: true,
    };
    match &config.target {
        AlertTarget::Webhook(webhook) => {
            let posted = timeout(limit, post(webhook, json)).await;
            posted.map_err(|_| late())?.map_err(|error| Failure {
                may_pass: error.may_pass(),
                why: error.to_string(),
            })
        }
        AlertTarget::Exec(program) => {
            let executing = execute(program, message, json, limit, runner);
            let done = timeout(limit + GRACE, executing).await;
            done.map_err(|_| late())?.map_err(|error| Failure {
                may_pass: true,
                why: error.to_string(),
            })
        }
    }
}

/// The pause after so many attempts: doubled each time, up to [`LONGEST_PAUSE`], and up to a fifth
/// shorter by chance, so that many balancers do not come back to a receiver in step.
fn pause(backoff: Duration, attempts: u32, chance: f64) -> Duration {
    let doubled = backoff.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    let longest = LONGEST_PAUSE.max(backoff);
    doubled.min(longest).mul_f64(1.0 - chance / 5.0)
}

/// The runner kills a program whose time is over, and tells; it should not take longer than this.
const GRACE: Duration = Duration::from_secs(2);
/// Between two attempts, unless `backoff` itself is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let second = Duration::from_secs(1);
        let pauses = [1, 2, 3, 7, 1000].map(|attempts| pause(second, attempts, 0.0).as_secs());
        assert_eq!(pauses, [1, 2, 4, 60, 60]);
        assert_eq!(pause(second, 1, 1.0), Duration::from_millis(800));
        assert_eq!(pause(5 * LONGEST_PAUSE, 3, 0.0), 5 * LONGEST_PAUSE);
    }
}
