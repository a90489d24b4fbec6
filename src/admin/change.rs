//! What changes the daemon.

use std::time::Duration;

use http::StatusCode;
use serde::de::DeserializeOwned;

use super::Request;
use super::reply::{Answer, Refusal, json};
use super::request::Denied;
use super::routes::{Call, Later};
use crate::api::{Change, Changed, Target};

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        let (status, body) = match denied {
            Denied::Unknown(body) => (StatusCode::NOT_FOUND, body),
            Denied::Unfit(body) => (StatusCode::UNPROCESSABLE_ENTITY, body),
            Denied::Busy(body) => (StatusCode::SERVICE_UNAVAILABLE, body),
        };
        Self::with(status, body)
    }
}

/// `POST /v1/services/{service}/backends`, and the same with `/{backend}`
pub(super) fn backends(call: Call) -> Later {
    Box::pin(async move {
        let change: Change = document(&call)?;
        let mut parameters = call.parameters.into_iter();
        let target = Target {
            service: parameters.next().unwrap_or_default(),
            backend: parameters.next(),
        };
        let changed = call
            .hub
            .ask(|reply| Request::Change(target, change, call.by, reply))
            .await??;
        call.hub.forget_view().await;
        Ok(json(StatusCode::OK, &changed))
    })
}

/// `POST /v1/services/{service}/fail-back`
pub(super) fn fail_back(call: Call) -> Later {
    Box::pin(async move {
        let service = call.parameters.into_iter().next().unwrap_or_default();
        let changed = call
            .hub
            .ask(|reply| Request::FailBack(service, call.by, reply))
            .await??;
        call.hub.forget_view().await;
        Ok(json(StatusCode::OK, &changed))
    })
}

/// `POST /v1/sessions/{session}/close`
pub(super) fn close_session(call: Call) -> Later {
    Box::pin(async move {
        let id = call.parameters.into_iter().next().unwrap_or_default();
        let text = format!("session {id} is closed");
        let closed = call
            .hub
            .ask(|reply| Request::CloseSession(id, call.by, reply))
            .await?;
        match closed {
            true => Ok(json(
                StatusCode::OK,
                &Changed {
                    text,
                    sessions: 1,
                    ..Changed::default()
                },
            )),
            false => Err(Refusal::new(
                StatusCode::NOT_FOUND,
                "there is no such session, any more or ever",
            )),
        }
    })
}

/// `POST /v1/reload`
pub(super) fn reload(call: Call) -> Later {
    Box::pin(async move {
        let asked = |reply| Request::Reload(call.by, reply);
        let outcome = call.hub.ask_within(PATIENCE, asked).await;
        let outcome = outcome.map_err(|_| {
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the reload takes its time")
                .help("it goes on: GET /v1/view and the log tell what becomes of it")
        })?;
        call.hub.forget_view().await;
        let answer: Answer = match outcome {
            Ok(reloaded) => Ok(json(StatusCode::OK, &reloaded)),
            Err(denied) => Err(denied.into()),
        };
        answer
    })
}

/// The document of a request.
pub(super) fn document<T: DeserializeOwned>(call: &Call) -> Result<T, Refusal> {
    serde_json::from_slice(&call.body).map_err(|error| {
        // What is JSON and not the document is another mistake than what is not even that.
        let status = match error.classify() {
            serde_json::error::Category::Data => StatusCode::UNPROCESSABLE_ENTITY,
            serde_json::error::Category::Io
            | serde_json::error::Category::Syntax
            | serde_json::error::Category::Eof => StatusCode::BAD_REQUEST,
        };
        Refusal::new(
            status,
            format!("the body is not what is asked for: {error}"),
        )
        .help("GET /v1/openapi.json describes it")
    })
}

/// How long a reload may take to be answered: names are looked up, and backends asked.
const PATIENCE: Duration = Duration::from_secs(14);
