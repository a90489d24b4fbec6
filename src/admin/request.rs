//! What control is asked, and how it answers.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::api::{Explained, Plan, Proposal, Refused, View};

/// A question or an order to control. Whoever has asked may be gone when it is answered.
#[derive(Debug)]
pub enum Request {
    /// How everything stands.
    View(oneshot::Sender<Arc<View>>),
    /// Who gets a client of these services, as they stand.
    Explain(
        IpAddr,
        Vec<crate::api::Service>,
        oneshot::Sender<Vec<Explained>>,
    ),
    /// What a reload would do.
    Plan(Proposal, oneshot::Sender<Result<Plan, Refused>>),
}
