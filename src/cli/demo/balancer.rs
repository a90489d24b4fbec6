//! The balancer of the demo: the daemon itself, on threads of its own, run exactly as `ballast run`
//! runs it but for where its configuration comes from. Knows nothing of what is shown.

use std::net::SocketAddr;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::runtime;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::mpsc;

use super::servers::Server;
use crate::config::{Loaded, compile};
use crate::control::{self, Event, Options, Order, StartError};

/// A balancer that serves.
pub(super) struct Balancer {
    address: SocketAddr,
    orders: mpsc::Sender<Order>,
    events: broadcast::Receiver<Event>,
    control: JoinHandle<anyhow::Result<()>>,
}

impl Balancer {
    /// Starts it on `listen` in front of `servers`, with a heartbeat every `heartbeat`.
    ///
    /// # Errors
    /// When it cannot start, most often because `listen` is taken.
    pub(super) async fn start(
        listen: SocketAddr,
        servers: &[Server],
        heartbeat: Duration,
    ) -> anyhow::Result<Self> {
        let text = configuration(listen, servers, heartbeat);
        let loaded = compile(&text, "the demo's configuration")?;
        let mut options = Options {
            heartbeats: true,
            ..Options::default()
        };
        let mut events = options.watch();
        let (orders, inbox) = mpsc::channel(ORDERS);
        let control = thread::Builder::new()
            .name("control".to_owned())
            .spawn(move || serve(loaded, options, inbox))
            .context("cannot start the control thread")?;
        let mut address = listen;
        loop {
            let event = match events.recv().await {
                Ok(event) => event,
                Err(RecvError::Lagged(_)) => continue,
                Err(RecvError::Closed) => return Err(outcome(control)),
            };
            if let Event::Listening { address: bound, .. } = &event {
                address = bound.inet().unwrap_or(address);
            }
            if matches!(event, Event::Ready(_)) {
                break;
            }
        }
        Ok(Self {
            address,
            orders,
            events,
            control,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it does next; `None` when it has ended, which it does not do on its own. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            match self.events.recv().await {
                Ok(event) => return Some(event),
                // A demo that fell that far behind has shown worse than a missing line.
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Ends it without waiting for sessions.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        // The second order ends the draining that the first one begins. A balancer that has ended
        // on its own takes neither, and tells below.
        for _ in 0..2 {
            if self.orders.send(Order::Stop).await.is_err() {
                break;
            }
        }
        joined(self.control)
    }
}

/// The control thread.
fn serve(loaded: Loaded, options: Options, orders: mpsc::Receiver<Order>) -> anyhow::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the control thread")?;
    match runtime.block_on(control::run(loaded, options, orders)) {
        Ok(_) => Ok(()),
        Err(error @ StartError::Bind(_)) => Err(anyhow!(
            "{error}\nAnother address may be free: ballast demo --listen 127.0.0.1:0 takes any free port."
        )),
        Err(error @ (StartError::Admin(_) | StartError::State(_) | StartError::Workers(_))) => {
            Err(error.into())
        }
    }
}

fn joined(control: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    control
        .join()
        .unwrap_or_else(|_| Err(anyhow!("the control thread panicked")))
}

/// Why a balancer ended that nobody told to.
fn outcome(control: JoinHandle<anyhow::Result<()>>) -> anyhow::Error {
    match joined(control) {
        Ok(()) => anyhow!("the balancer ended on its own"),
        Err(error) => error,
    }
}

/// What an operator would write into a file.
fn configuration(listen: SocketAddr, servers: &[Server], heartbeat: Duration) -> String {
    let mut text = format!(
        r#"
        [[service]]
        name = "demo"
        listen = "{listen}"

        [service.health]
        interval = "{}ms"
        timeout = "{}ms"
        rise = 2
        fall = {FALL}

        # The demo shows what heartbeats see; its clients would be faster.
        [service.passive]
        enabled = false
        "#,
        heartbeat.as_millis(),
        heartbeat.as_millis() / 2,
    );
    for server in servers {
        text.push_str(&format!(
            r#"
            [[service.backend]]
            name = "{}"
            address = "{}"
            "#,
            server.name(),
            server.address(),
        ));
    }
    text
}

/// Missed heartbeats in a row that take a server out.
pub(super) const FALL: u32 = 3;

/// No more orders than these are ever given.
const ORDERS: usize = 2;
