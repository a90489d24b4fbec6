//! What a reload would do.

use std::time::Duration;

use http::StatusCode;

use super::Request;
use super::reply::Refusal;
use super::routes::{Call, Later};
use crate::api::Proposal;

/// A file of 4 MiB as JSON, most of whose characters need no escape.
pub(super) const MOST_OF_A_PROPOSAL: usize = 6 << 20;

/// Names are looked up and backends asked; control has bounds of its own for both.
const PATIENCE: Duration = Duration::from_secs(14);

/// `POST /v1/plan`
pub(super) fn plan(call: Call) -> Later {
    Box::pin(async move {
        let proposal: Proposal = serde_json::from_slice(&call.body).map_err(|error| {
            Refusal::new(
                StatusCode::BAD_REQUEST,
                format!("the body is no proposal: {error}"),
            )
            .help("send {} for the daemon's own file, or {\"text\": \"…\"}")
        })?;
        let asked = |reply| Request::Plan(proposal, reply);
        match call.hub.ask_within(PATIENCE, asked).await? {
            Ok(plan) => call.hub.document(plan).await,
            Err(refused) => {
                let refusal = Refusal::new(StatusCode::SERVICE_UNAVAILABLE, refused.error);
                Err(match refused.help {
                    Some(help) => refusal.help(help),
                    None => refusal,
                })
            }
        }
    })
}
