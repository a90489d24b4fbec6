//! Running sessions as operators see them: workers are asked beside control, which could not wait for
//! them, and what they say is put in order.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::api;
use crate::model::{BackendId, Cause, Map};
use crate::pool::moment;
use crate::worker::{Command, Described, Found, Reach, Wanted};

/// One page of them, oldest first; `names` tells whose each mark is.
pub(super) async fn page(
    workers: Reach,
    names: Map<u32, BackendId>,
    wanted: Wanted,
    (offset, limit): (usize, usize),
) -> api::Sessions {
    let mut all = find(&workers, wanted).await;
    all.sort_unstable();
    let total = all.len();
    let from = offset.min(total);
    let to = from.saturating_add(limit).min(total);
    let sessions = describe(&workers, &all[from..to], &names).await;
    api::Sessions {
        sessions,
        total: total as u64,
        next: (to < total).then_some(to as u64),
    }
}

/// How many they are.
pub(super) async fn count(workers: &Reach, wanted: Wanted) -> u64 {
    find(workers, wanted).await.len() as u64
}

/// All of them, each with its worker.
async fn find(workers: &Reach, wanted: Wanted) -> Vec<(Found, usize)> {
    let wanted = Arc::new(wanted);
    let lists = (0..workers.count()).map(|worker| {
        let (reply, list) = oneshot::channel();
        let wanted = Arc::clone(&wanted);
        workers.tell(worker, Command::List { wanted, reply });
        list
    });
    let mut all = Vec::new();
    for (worker, list) in lists.collect::<Vec<_>>().into_iter().enumerate() {
        // One that does not answer is being stopped.
        let list: Vec<Found> = list.await.unwrap_or_default();
        all.extend(list.into_iter().map(|found| (found, worker)));
    }
    all
}

async fn describe(
    workers: &Reach,
    page: &[(Found, usize)],
    names: &Map<u32, BackendId>,
) -> Vec<api::Session> {
    let mut asked = Vec::new();
    for worker in 0..workers.count() {
        let its = page.iter().filter(|(_, of)| *of == worker);
        let which: Vec<_> = its.map(|(found, _)| *found).collect();
        if !which.is_empty() {
            let (reply, described) = oneshot::channel();
            workers.tell(worker, Command::Describe { which, reply });
            asked.push((worker, described));
        }
    }
    let mut all = Vec::new();
    for (worker, described) in asked {
        let described: Vec<Described> = described.await.unwrap_or_default();
        all.extend(described.into_iter().map(|it| (worker, it)));
    }
    all.sort_unstable_by_key(|(worker, it)| (it.found, *worker));
    let now = Instant::now();
    let since = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
    let session = |(worker, it): (usize, Described)| api::Session {
        id: Id {
            worker,
            place: it.found.place,
            began: moment(it.found.started),
        }
        .to_string(),
        client: it.client.to_string(),
        listener: it.listener.to_string(),
        service: it.service.to_string(),
        backend: names.get(&it.mark).map(|id| id.name().to_string()),
        phase: it.phase.to_string(),
        age_seconds: since(it.found.started),
        idle_seconds: since(it.active),
        to_backend_bytes: it.moved.0,
        to_client_bytes: it.moved.1,
        worker: u32::try_from(worker).unwrap_or(u32::MAX),
    };
    all.into_iter().map(session).collect()
}

/// Closes the session of that name; `false` when there is none, any more or ever.
pub(super) async fn close(workers: Reach, id: &str) -> bool {
    let Some(id) = Id::parse(id).filter(|id| id.worker < workers.count()) else {
        return false;
    };
    let (reply, closed) = oneshot::channel();
    let command = Command::EndOne {
        place: id.place,
        began: id.began,
        cause: Cause::Closed,
        reply,
    };
    workers.tell(id.worker, command);
    closed.await.unwrap_or(false)
}

/// The address that a `client` of a query is.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

/// What a session is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Id {
    worker: usize,
    place: u32,
    /// By which it is told from others that had its place.
    began: u64,
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{:x}", self.worker, self.place, self.began)
    }
}

impl Id {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let id = Self {
            worker: parts.next()?.parse().ok()?,
            place: parts.next()?.parse().ok()?,
            began: u64::from_str_radix(parts.next()?, 16).ok()?,
        };
        parts.next().is_none().then_some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_called_by_a_name_that_leads_back_to_it() {
        let id = Id {
            worker: 3,
            place: 70_000,
            began: u64::MAX,
        };
        assert_eq!(Id::parse(&id.to_string()), Some(id));
        for wrong in ["", "1", "1-2", "1-2-x", "1-2-3-4", "-1-2-3"] {
            assert_eq!(Id::parse(wrong), None, "{wrong}");
        }
    }
}
