//! Counting sessions towards a limit that is newer than they are.

use std::rc::Rc;
use std::sync::Arc;

use crate::pool::{Permits, Service};
use crate::reactor::yield_now;
use crate::session::Context;

/// Has the sessions of `service` that run take `permits` too. Those that come meanwhile do so themselves.
pub(super) async fn count(context: Rc<Context>, service: Arc<Service>, permits: &'static Permits) {
    let mut from = Some(0);
    while let Some(at) = from {
        from = context.registry.look(at, |_, _, facts| {
            if Arc::ptr_eq(facts.route().service(), &service) {
                facts.count_within(permits);
            }
        });
        // Where there are many, bytes have their turn in between.
        yield_now().await;
    }
}
