//! Sessions that do nothing: open, one exchange, silence, and at the end one more exchange each, which
//! proves that the proxy still had them.

use std::io::{self, Read};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::{Job, Message, Reason, Report, Tally};
use crate::wire;

/// Bytes of the exchanges.
const SIZE: usize = 64;

pub(super) fn run(job: &Job) -> Result<Report> {
    let request = wire::request(SIZE);
    let sessions = super::open(&job.targets, job.sessions, 0, &request)?;
    super::say(&Message::Measuring)?;
    let begin = Instant::now();
    // Standard input may stay open for longer than the job may last.
    let (ended, wait) = mpsc::channel::<()>();
    thread::spawn(move || {
        let _end = ended;
        io::copy(&mut io::stdin().lock().by_ref(), &mut io::sink())
    });
    // Either outcome means that it is time.
    let _ = wait.recv_timeout(job.length);
    let seconds = begin.elapsed().as_secs_f64();
    let mut tally = Tally::new(Arc::default())?;
    for session in &sessions {
        let started = Instant::now();
        match super::exchange(session, &request) {
            Ok(()) => tally.done(2 * SIZE as u64, Some(started.elapsed())),
            Err(_) => tally.failed(Reason::Reset, started),
        }
    }
    Ok(tally.report(seconds, None))
}
