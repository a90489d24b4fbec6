//! Which backend a client gets.

use std::net::IpAddr;
use std::sync::Arc;

use http::StatusCode;

use super::Request;
use super::hub::{FRESH, Shown, fresh_for};
use super::reply::Refusal;
use super::routes::{Call, Later, unescaped};
use crate::api::Explanation;

/// `GET /v1/explain?client=IP&service=NAME`
pub(super) fn explain(shown: Shown, call: Call) -> Later {
    Box::pin(async move {
        let (client, service) = asked(&call.query)?;
        let turn = Arc::clone(&call.hub.slowly).lock_owned().await;
        let services = shown.view.services.iter().enumerate();
        let is_wanted = |name: &str| service.as_ref().is_none_or(|wanted| wanted == name);
        let services = services.filter(|(_, it)| is_wanted(&it.name));
        let services: Vec<usize> = services.map(|(at, _)| at).collect();
        if let (Some(service), true) = (service, services.is_empty()) {
            let error = format!("there is no service `{service}`");
            return Err(Refusal::new(StatusCode::NOT_FOUND, error));
        }
        let view = Arc::clone(&shown.view);
        let asked = |reply| Request::Explain(client, view, services, reply);
        let explained = call.hub.ask(asked).await?;
        // What it takes of control grows with the view, so the next one comes as late as the next view.
        let rest = fresh_for(shown.took).saturating_sub(FRESH);
        tokio::spawn(async move {
            tokio::time::sleep(rest).await;
            drop(turn);
        });
        let explanation = Explanation {
            at: shown.view.at.clone(),
            client: client.to_canonical().to_string(),
            services: explained,
        };
        call.hub.document(explanation).await
    })
}

/// The client and the service, if it is about one.
fn asked(query: &str) -> Result<(IpAddr, Option<String>), Refusal> {
    let wrong = |error: String| {
        Refusal::new(StatusCode::BAD_REQUEST, error)
            .help("write ?client=192.0.2.7, and &service=NAME for one service only")
    };
    let (mut client, mut service) = (None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = unescaped(value).ok_or_else(|| wrong("a parameter has no value".to_owned()))?;
        match key {
            "client" => {
                let ip = value.parse::<IpAddr>();
                client = Some(ip.map_err(|_| wrong("the client is no IP address".to_owned()))?);
            }
            "service" => service = Some(value),
            _ => return Err(wrong("there is no such parameter".to_owned())),
        }
    }
    let client = client.ok_or_else(|| wrong("it is not said which client".to_owned()))?;
    Ok((client, service))
}
