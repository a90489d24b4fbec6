//! Asks the daemon once a second, and carries changes to it, on a thread of its own.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::News;
use super::state::Input;
use crate::api::{Change, Changed, Events, View};
use crate::cli::backend::path;
use crate::cli::client::Client;
use crate::cli::status::VIEW;

/// A change that was agreed to.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Order {
    pub(super) service: String,
    pub(super) backend: String,
    pub(super) change: Change,
}

/// Asks until nobody listens any more.
pub(super) fn start(client: Client, orders: Receiver<Order>, tell: Sender<News>) {
    thread::spawn(move || {
        loop {
            let next = Instant::now() + EVERY;
            let looked = client
                .get::<View>(VIEW)
                .map_err(|failure| failure.to_string());
            // Without them there is still all the rest.
            if looked.is_ok()
                && let Ok(lately) = client.get::<Events>(LATELY)
                && tell
                    .send(News::Daemon(Input::Events(lately.events)))
                    .is_err()
            {
                return;
            }
            if tell
                .send(News::Daemon(Input::View(looked.map(Box::new))))
                .is_err()
            {
                return;
            }
            match orders.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(order) => {
                    let path = path(&order.service, Some(&order.backend));
                    let done = client.post::<Changed>(&path, &order.change);
                    let done = done
                        .map(|it| it.text)
                        .map_err(|failure| failure.to_string());
                    if tell.send(News::Daemon(Input::Done(done))).is_err() {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    });
}

/// As many events as a large terminal shows.
const LATELY: &str = "/v1/events?limit=100";
/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
