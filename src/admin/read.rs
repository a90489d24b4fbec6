//! What is answered from how everything stands.

use http::StatusCode;

use super::hub::Shown;
use super::reply::{JSON, reply, text};
use super::routes::{Call, Later};
use crate::api::View;

/// The daemon is alive: the thread that answers is the one that controls.
pub(super) fn healthz(_: Call) -> Later {
    Box::pin(async { Ok(text(StatusCode::OK, "ok\n")) })
}

/// Clients may be sent here.
pub(super) fn readyz(shown: Shown, _: Call) -> Later {
    let missing = missing(&shown.view);
    Box::pin(async move {
        Ok(match missing.is_empty() {
            true => text(StatusCode::OK, "ready\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n"),
        })
    })
}

/// Everything that keeps the daemon from being ready.
fn missing(view: &View) -> Vec<String> {
    let mut missing = Vec::new();
    if view.process.stopping {
        missing.push("stopping".to_owned());
    }
    for service in &view.services {
        let name = &service.name;
        if service.listeners.is_empty() {
            missing.push(format!("service {name}: it does not listen"));
        }
        if service.eligible < service.min_up {
            let (eligible, min_up) = (service.eligible, service.min_up);
            missing.push(format!(
                "service {name}: {eligible} backends up, {min_up} needed"
            ));
        }
    }
    missing
}

/// `GET /v1/view`
pub(super) fn view(shown: Shown, _: Call) -> Later {
    Box::pin(async move { Ok(reply(StatusCode::OK, JSON, shown.json().await)) })
}
