//! What is done at every tick, because nothing says when: workers are asked to beat, the watchdog and the
//! status are told, retired listeners and the sessions of backends that are down are closed.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Supervisor;
use super::reloading::Reload;
use crate::api;
use crate::control::journal;
use crate::worker::{Command, die};

/// How often the status is told, workers are asked to beat and retired listeners are closed.
const TICK: Duration = Duration::from_secs(1);
/// A worker that has missed this many beats is stuck.
const MISSED_BEATS: u64 = 10;

impl Supervisor {
    /// All of it, once.
    pub(super) fn tick(&mut self) {
        // A reload that is being built counts on the listeners that were open when it was laid out.
        if !matches!(self.reload, Reload::Building(..)) {
            let limit = self.running.config.runtime.drain_timeout;
            let listeners = &mut self.running.listeners;
            listeners.close_retired(&self.workers, limit, false, &self.closed);
        }
        let behind = self.beat.saturating_sub(self.workers.slowest_beat());
        if behind > MISSED_BEATS {
            tracing::error!(beats_missed = behind, "a worker is stuck");
            die();
        }
        self.note_harm();
        self.close_sessions();
        self.running.memory.refresh(Instant::now());
        self.beat += 1;
        let beat = self.beat;
        self.workers.tell(|_| Command::Beat(beat));
        if behind <= MISSED_BEATS / 2 {
            self.notify.pet();
        }
        if let Some(logging) = &self.options.logging {
            logging.report_dropped();
        }
        let full = !self.permits.has_room();
        if full != std::mem::replace(&mut self.full, full) {
            let max_connections = self.permits.limit();
            self.journal
                .write(journal::pause(None, full, max_connections));
            if full {
                tracing::warn!(
                    max_connections,
                    "accepting pauses: as many sessions as may be"
                );
            } else {
                tracing::info!(max_connections, "accepting goes on");
            }
        }
        self.tell_shortage();
        self.tell_refusals();
        self.tell_status();
    }

    /// Tells when clients begin to wait for want of something, and when that is over.
    fn tell_shortage(&mut self) {
        self.shortage.look();
        match (self.short_of, self.shortage.lately()) {
            (None, Some(error)) => {
                let short_of = lacking(&error);
                self.short_of = Some(short_of);
                self.journal.write(journal::shortage(self.short_of));
                tracing::warn!(short_of = short_of.words(), %error, "accepting rests");
            }
            (Some(short_of), None) => {
                self.short_of = None;
                self.journal.write(journal::shortage(None));
                tracing::info!(short_of = short_of.words(), "accepting rests no more");
            }
            // It is told by what was lacking first.
            (None, None) | (Some(_), Some(_)) => {}
        }
        match self.short_of {
            Some(_) => self.prober.hold_back(&mut self.held_back),
            None => self.held_back = None,
        }
    }

    /// Has sessions of backends that are down closed, as many as are due by now.
    pub(super) fn close_sessions(&mut self) {
        let services = &self.running.services.0;
        self.closing
            .retain(|service| services.contains_key(service));
        let now = Instant::now();
        for serving in services.values() {
            self.closing
                .step(serving, &self.running.targets, &self.workers, now);
        }
    }

    /// The same for one service, which has just learnt something.
    pub(super) fn close_sessions_of(&mut self, service: &Arc<str>) {
        if let Some(serving) = self.running.services.0.get(service) {
            let (targets, now) = (&self.running.targets, Instant::now());
            self.closing.step(serving, targets, &self.workers, now);
        }
    }

    /// Often enough for the watchdog, if there is one.
    pub(super) fn tick_period(&self) -> Duration {
        self.notify
            .watchdog()
            .map_or(TICK, |limit| TICK.min(limit / 2))
    }
}

/// What the kernel lacks that says this.
pub(super) fn lacking(error: &io::Error) -> api::ShortOf {
    match error.raw_os_error() {
        Some(libc::EMFILE) => api::ShortOf::Descriptors,
        Some(libc::ENFILE) => api::ShortOf::DescriptorsOfTheMachine,
        Some(libc::ENOBUFS | libc::ENOMEM) => api::ShortOf::Memory,
        _ => api::ShortOf::Something,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_tells_of_memory_is_taken_for_want_of_it() {
        let of = |number| lacking(&io::Error::from_raw_os_error(number));
        assert_eq!(of(libc::EMFILE), api::ShortOf::Descriptors);
        assert_eq!(of(libc::ENFILE), api::ShortOf::DescriptorsOfTheMachine);
        for number in [libc::ENOBUFS, libc::ENOMEM] {
            assert_eq!(of(number), api::ShortOf::Memory);
        }
        for number in [libc::EPERM, libc::EIO] {
            assert_eq!(of(number), api::ShortOf::Something);
        }
        assert_eq!(
            lacking(&io::ErrorKind::Other.into()),
            api::ShortOf::Something
        );
    }
}
