//! What control is asked, and how it answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::api::{Plan, Proposal, Refused, View};

/// A question or an order to control. Whoever has asked may be gone when it is answered.
#[derive(Debug)]
pub enum Request {
    /// How everything stands.
    View(oneshot::Sender<Arc<View>>),
    /// What a reload would do.
    Plan(Proposal, oneshot::Sender<Result<Plan, Refused>>),
}
