//! Signals as orders.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::Order;

/// More orders than anybody gives between two looks; further reloads are one with those queued.
const QUEUE: usize = 16;

/// Orders as signals bring them: SIGHUP reloads, SIGUSR1 reports, SIGTERM and SIGINT stop. From here on these
/// signals do nothing else.
///
/// # Errors
/// When a handler cannot be installed. Must be called inside a runtime.
pub fn orders() -> io::Result<mpsc::Receiver<Order>> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut report = signal(SignalKind::user_defined1())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (sender, orders) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let order = tokio::select! {
                Some(()) = hangup.recv() => Order::Reload,
                Some(()) = report.recv() => Order::Report,
                Some(()) = terminate.recv() => Order::Stop,
                Some(()) = interrupt.recv() => Order::Stop,
                else => return,
            };
            if sender.send(order).await.is_err() {
                return;
            }
        }
    });
    Ok(orders)
}
