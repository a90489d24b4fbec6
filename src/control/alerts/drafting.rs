//! Notices as they are drafted: one alert's words on one event. Whether there is anything to tell is for
//! [`watch`](super::watch).

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::notice::{Details, Notice, Status};
use crate::config::{AlertConfig, Occasion};
use crate::model::{Address, BackendId};

/// What one alert tells of one event.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) config: &'a AlertConfig,
    pub(super) now: Moment,
    notices: Vec<Notice>,
}

/// One moment on both clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) at: Instant,
    /// Since 1970.
    pub(super) wall: Duration,
}

/// Whom a notice is about.
#[derive(Clone, Copy, Debug)]
pub(super) enum About<'a> {
    Configuration,
    Service(&'a Arc<str>),
    /// And where it is, while it is known.
    Backend(&'a BackendId, Option<Address>),
}

impl<'a> Draft<'a> {
    pub(super) fn new(config: &'a AlertConfig, now: Moment) -> Self {
        Self {
            config,
            now,
            notices: Vec::new(),
        }
    }

    /// Adds a notice, if the alert tells of such an event.
    pub(super) fn tell(
        &mut self,
        event: Occasion,
        status: Status,
        about: About<'_>,
        details: Details,
    ) {
        if !self.config.tells_of(event) {
            return;
        }
        let (service, backend, address) = match about {
            About::Configuration => (None, None, None),
            About::Service(service) => (Some(service), None, None),
            About::Backend(id, address) => (Some(id.service()), Some(id.name()), address),
        };
        self.notices.push(Notice {
            event,
            status,
            time: self.now.wall,
            service: service.cloned(),
            backend: backend.cloned(),
            address,
            details,
        });
    }

    /// Adds that what was told of someone is so no more: there is no such service or backend.
    pub(super) fn tell_gone(&mut self, event: Occasion, about: About<'_>) {
        self.tell(event, Status::Resolved, about, Details::Gone { why: GONE });
    }

    /// All there is to tell, in the order in which it was added.
    pub(super) fn into_notices(self) -> Vec<Notice> {
        self.notices
    }
}

/// Why a backend that has left is not down any more.
pub(super) const GONE: &str = "no longer configured";
