//! An alert as a program that is run: the message on its standard input, what matters most in its
//! environment. The runner starts it, and kills it with all it has started when its time is over.

use std::time::Duration;

use hyper::body::Bytes;
use thiserror::Error;

use super::message::Message;
use crate::config::written;
use crate::health::Program;
use crate::model::one_line;
use crate::runner::{Ended, Gone, Job, Outcome, Runner};

/// Why a program has not delivered an alert.
#[derive(Debug, Error)]
pub(super) enum ExecError {
    #[error("there is no runner to start programs")]
    NoRunner,
    #[error(transparent)]
    Gone(#[from] Gone),
    #[error("cannot be started: {0}")]
    NotStarted(String),
    #[error("killed after {}", written(*.0))]
    TimedOut(Duration),
    #[error("exit code {code}{words}")]
    Exited { code: i32, words: String },
    #[error("killed by signal {signal}{words}")]
    Signalled { signal: i32, words: String },
}

/// Runs `program` with `message`, whose JSON is `json`, for at most `limit`.
///
/// # Errors
/// Whatever is not exit code 0.
pub(super) async fn execute(
    program: &Program,
    message: &Message,
    json: Bytes,
    limit: Duration,
    runner: Option<&Runner>,
) -> Result<(), ExecError> {
    let runner = runner.ok_or(ExecError::NoRunner)?;
    let job = Job {
        program: program.path.clone(),
        args: program.args.clone(),
        env: environment(message, &json),
        stdin: json.into(),
        timeout: limit,
    };
    let Outcome { ended, output } = runner.run(job).await?;
    match ended {
        Ended::Exited(0) => Ok(()),
        Ended::Exited(code) => Err(ExecError::Exited {
            code,
            words: words(&output),
        }),
        Ended::Signalled(signal) => Err(ExecError::Signalled {
            signal,
            words: words(&output),
        }),
        Ended::TimedOut => Err(ExecError::TimedOut(limit)),
        Ended::NotStarted(why) => Err(ExecError::NotStarted(why)),
    }
}

/// So that a short script needs no JSON.
fn environment(message: &Message, json: &[u8]) -> Vec<(String, String)> {
    let mut environment = vec![
        ("BALLAST_ALERT", message.alert.to_string()),
        ("BALLAST_HOST", message.host.to_string()),
        ("BALLAST_TEXT", message.text.clone()),
        ("BALLAST_STATUS", message.status.name().to_owned()),
        ("BALLAST_SEVERITY", message.severity.name().to_owned()),
        ("BALLAST_EVENTS", message.occasions().join(" ")),
        ("BALLAST_SERVICES", message.services().join(" ")),
    ];
    if json.len() <= MOST_OF_A_VARIABLE {
        let json = String::from_utf8_lossy(json).into_owned();
        environment.push(("BALLAST_JSON", json));
    }
    let owned = environment.into_iter();
    owned
        .map(|(name, value)| (name.to_owned(), value.replace('\0', "")))
        .collect()
}

/// The end of what the program wrote, in one line.
fn words(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let from = text.trim_end().char_indices().rev().nth(MOST_WORDS - 1);
    let line = one_line(&text[from.map_or(0, |(at, _)| at)..], MOST_WORDS);
    match line.is_empty() {
        true => line,
        false => format!(": {line}"),
    }
}

/// Bytes of the JSON, above which it is on the standard input only: the kernel takes no longer
/// variable than 128 KiB (`MAX_ARG_STRLEN`).
const MOST_OF_A_VARIABLE: usize = 100 * 1024;
/// Characters of a program's output that are told.
const MOST_WORDS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_output_is_told_in_one_line() {
        assert_eq!(words(b"\n"), "");
        assert_eq!(words(b"no\nroute\x07\n"), ": no route");
        let long = format!("{}the end", "ä".repeat(1000));
        let told = words(long.as_bytes());
        assert_eq!(told.chars().count(), 2 + MOST_WORDS);
        assert!(told.ends_with("the end"));
    }
}
