//! What is answered from how everything stands.

use std::sync::Arc;

use http::StatusCode;
use http::header::ACCEPT;

use super::hub::{Shown, unwritten};
use super::reply::{Answer, JSON, Refusal, json, reply, text};
use super::routes::{Call, Later};
use super::{Query, Request};
use crate::api::{self, Service, View};
use crate::config::without_secrets;

/// The daemon is alive: the thread that answers is the one that controls.
pub(super) fn healthz(_: Call) -> Later {
    Box::pin(async { Ok(text(StatusCode::OK, "ok\n")) })
}

/// Clients may be sent here.
pub(super) fn readyz(shown: Shown, _: Call) -> Later {
    let missing = missing(&shown.view);
    // Who is already here is served, and whoever comes waits for a while: no reason to send all of them elsewhere.
    let short_of = shown.view.process.short_of;
    let note = short_of.map(|it| format!("short of {}: new clients wait\n", it.words()));
    Box::pin(async move {
        Ok(match missing.is_empty() {
            true => text(
                StatusCode::OK,
                "ready\n".to_owned() + &note.unwrap_or_default(),
            ),
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
        let short = Service::shortfall(service.eligible, service.min_up);
        missing.extend(short.map(|short| format!("service {name}: {short}")));
    }
    missing
}

/// `GET /v1/view`
pub(super) fn view(shown: Shown, call: Call) -> Later {
    Box::pin(async move {
        let text = call.hub.json(&shown).await?;
        Ok(reply(StatusCode::OK, JSON, text))
    })
}

/// `GET /v1/services`
pub(super) fn services(shown: Shown, call: Call) -> Later {
    Box::pin(async move {
        let part = move || serde_json::to_vec(&shown.view.services);
        call.hub.written(part).await
    })
}

/// `GET /v1/services/{service}`
pub(super) fn service(shown: Shown, call: Call) -> Later {
    Box::pin(async move {
        let at = find_service(&shown.view, &call)?;
        let part = move || serde_json::to_vec(&shown.view.services[at]);
        call.hub.written(part).await
    })
}

/// `GET /v1/services/{service}/backends`
pub(super) fn backends(shown: Shown, call: Call) -> Later {
    Box::pin(async move {
        let at = find_service(&shown.view, &call)?;
        let part = move || serde_json::to_vec(&shown.view.services[at].backends);
        call.hub.written(part).await
    })
}

/// `GET /v1/services/{service}/backends/{backend}`
pub(super) fn backend(shown: Shown, call: Call) -> Later {
    let found = find_service(&shown.view, &call).and_then(|at| {
        let service = &shown.view.services[at];
        let wanted = call.parameters.get(1);
        let found = service.backends.iter().find(|it| Some(&it.name) == wanted);
        found.ok_or_else(|| {
            let name = wanted.map_or("", |it| it);
            Refusal::new(
                StatusCode::NOT_FOUND,
                format!("service `{}` has no backend `{name}`", service.name),
            )
        })
    });
    answer(found.map(|it| json(StatusCode::OK, it)))
}

/// Where in the view the service of a path is.
fn find_service(view: &View, call: &Call) -> Result<usize, Refusal> {
    let wanted = call.parameters.first();
    let mut names = view.services.iter().map(|it| &it.name);
    let found = names.position(|name| Some(name) == wanted);
    found.ok_or_else(|| {
        let name = wanted.map_or("", |it| it);
        Refusal::new(
            StatusCode::NOT_FOUND,
            format!("there is no service `{name}`"),
        )
    })
}

fn answer(answer: Answer) -> Later {
    Box::pin(std::future::ready(answer))
}

/// `GET /v1/events?since=ID&limit=&service=&backend=`; as it happens for whoever accepts that only.
pub(super) fn events(call: Call) -> Later {
    let accepts = call.headers.get(ACCEPT).map(|it| it.as_bytes());
    if accepts.is_some_and(|it| it.starts_with(b"text/event-stream")) {
        return super::stream::follow(call);
    }
    Box::pin(async move {
        let since = call.number("since")?.unwrap_or(0);
        let limit = call.count("limit")?.unwrap_or(usize::MAX);
        let (service, backend) = (call.parameter("service"), call.parameter("backend"));
        let all = call.hub.journal.since(since);
        let make = move || {
            let is_wanted = |event: &&Arc<api::Event>| {
                (service.is_none() || event.service == service)
                    && (backend.is_none() || event.backend == backend)
            };
            let wanted: Vec<_> = all.iter().filter(is_wanted).collect();
            let from = wanted.len().saturating_sub(limit);
            let events = wanted[from..].iter().map(|it| api::Event::clone(it));
            let events = events.collect();
            serde_json::to_vec(&api::Events { events })
        };
        call.hub.written(make).await
    })
}

/// `GET /v1/failovers?service=&limit=`
pub(super) fn failovers(call: Call) -> Later {
    Box::pin(async move {
        let mut all = call.hub.ask(Request::Failovers).await?;
        if let Some(service) = call.parameter("service") {
            all.failovers.retain(|it| it.service == service);
            all.under_way.retain(|it| it.service == service);
        }
        if let Some(limit) = call.count("limit")? {
            let from = all.failovers.len().saturating_sub(limit);
            all.failovers.drain(..from);
        }
        call.hub.document(all).await
    })
}

/// `GET /v1/sessions?service=&backend=&client=&limit=&offset=`
pub(super) fn sessions(call: Call) -> Later {
    Box::pin(async move {
        let query = Query {
            service: call.parameter("service"),
            backend: call.parameter("backend"),
            client: call.parameter("client"),
            offset: call.count("offset")?.unwrap_or(0),
            limit: call
                .count("limit")?
                .unwrap_or(FEW_SESSIONS)
                .min(MOST_SESSIONS),
        };
        let asked = |reply| Request::Sessions(query, reply);
        let sessions = call.hub.ask(asked).await??;
        call.hub.document(sessions).await
    })
}

/// `GET /v1/config`: the text of the file as it took effect, without what is secret in it.
pub(super) fn configuration(call: Call) -> Later {
    Box::pin(async move {
        let text = call.hub.ask(Request::Configuration).await?;
        let written = call.hub.scribe.write(move || without_secrets(&text)).await;
        let text = written.ok_or_else(unwritten)?;
        Ok(reply(StatusCode::OK, "application/toml", text))
    })
}

/// `GET /v1/build`
pub(super) fn build(_: Call) -> Later {
    let build = api::Build {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        profile: match cfg!(debug_assertions) {
            true => "debug".to_owned(),
            false => "release".to_owned(),
        },
    };
    answer(Ok(json(StatusCode::OK, &build)))
}

/// Sessions of a page, where nobody says how many, …
const FEW_SESSIONS: usize = 100;
/// … and where somebody does.
const MOST_SESSIONS: usize = 1000;
