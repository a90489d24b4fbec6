//! What a worker tells of its sessions, when it is asked: a part of them at a time, so that bytes have
//! their turn in between.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use crate::admission::Access;
use crate::model::{Address, ClientAddr, Phase};
use crate::net::Registry;
use crate::reactor::yield_now;
use crate::session::Context;
use crate::telemetry::Facts;

/// Which sessions are meant; all that is given has to fit.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// By the name of the service.
    pub service: Option<Box<str>>,
    /// By the backend that they are connected to: its marks, sorted.
    pub marks: Option<Arc<[u32]>>,
    /// By where the client is.
    pub client: Option<IpAddr>,
    /// By that these would not let the client in.
    pub kept_out: Option<Arc<Access>>,
}

impl Wanted {
    fn covers(&self, mark: u32, facts: &Facts) -> bool {
        let of_backend = |marks: &Arc<[u32]>| mark != 0 && marks.binary_search(&mark).is_ok();
        let of_service = |name: &str| **facts.route().service().name() == *name;
        self.marks.as_ref().is_none_or(of_backend)
            && self.client.is_none_or(|ip| facts.client().ip() == ip)
            && self.service.as_deref().is_none_or(of_service)
            && self.kept_out.as_ref().is_none_or(|rules| {
                // Who may come by a path is said by its permissions.
                let client = facts.client();
                !client.is_unnamed() && !rules.admits(client.ip())
            })
    }
}

/// One session: places are given anew, so when it began belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    /// When it began.
    pub started: Instant,
    /// Its place on its worker.
    pub place: u32,
}

/// A session as it is now.
#[derive(Clone, Debug)]
pub struct Described {
    /// Which one it is.
    pub found: Found,
    /// Whom it is connected to, 0 for nobody.
    pub mark: u32,
    /// Who connected.
    pub client: ClientAddr,
    /// Where the client came in.
    pub listener: Address,
    /// Where it leads.
    pub service: Arc<str>,
    /// How far it has come.
    pub phase: Phase,
    /// Bytes written to the backend, and to the client.
    pub moved: (u64, u64),
    /// When something last moved.
    pub active: Instant,
}

/// Finds the sessions that are `wanted`.
pub(super) async fn list(
    context: Rc<Context>,
    wanted: Arc<Wanted>,
    reply: oneshot::Sender<Vec<Found>>,
) {
    let mut all = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        from = context.registry.look(at, |place, mark, facts| {
            if wanted.covers(mark, facts) {
                let started = facts.started();
                all.push(Found { started, place });
            }
        });
        yield_now().await;
    }
    // Whoever has asked may be gone.
    let _ = reply.send(all);
}

/// Tells of those of the sessions that are still there.
pub(super) fn describe(registry: &Registry, which: &[Found]) -> Vec<Described> {
    let described = which.iter().filter_map(|found| {
        let (mark, facts) = registry.find(found.place, found.started)?;
        Some(Described {
            found: *found,
            mark,
            client: facts.client(),
            listener: facts.route().listener(),
            service: Arc::clone(facts.route().service().name()),
            phase: facts.phase(),
            moved: facts.meter().moved(),
            active: facts.meter().active(),
        })
    });
    described.collect()
}
