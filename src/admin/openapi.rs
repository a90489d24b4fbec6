//! The description of the API for programs (OpenAPI 3.1): paths, methods and who may ask are those of the
//! [table](super::routes) itself, shapes are those of the documents. Only what they mean is written here.

use std::sync::LazyLock;

use http::StatusCode;
use hyper::body::Bytes;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::reply::{JSON, reply};
use super::routes::{Call, Later, Needs, ROUTES, Route};
use crate::api;

/// `GET /v1/openapi.json`
pub(super) fn openapi(_: Call) -> Later {
    static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| document().to_string().into());
    Box::pin(async { Ok(reply(StatusCode::OK, JSON, DOCUMENT.clone())) })
}

/// What one route means.
struct Meaning {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    query: &'static [(&'static str, &'static str)],
    body: Option<Shape>,
    answer: Content,
}

/// Adds a document to the schemas, and refers to it.
type Shape = fn(&mut SchemaGenerator) -> Schema;

enum Content {
    Document(Shape),
    /// Anything else, by its media type.
    Other(&'static str),
}

fn shape<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const fn get(path: &'static str, summary: &'static str, answer: Content) -> Meaning {
    Meaning {
        method: "GET",
        path,
        summary,
        query: &[],
        body: None,
        answer,
    }
}

const fn post(
    path: &'static str,
    summary: &'static str,
    body: Option<Shape>,
    answer: Shape,
) -> Meaning {
    Meaning {
        method: "POST",
        path,
        summary,
        query: &[],
        body,
        answer: Content::Document(answer),
    }
}

impl Meaning {
    const fn with(self, query: &'static [(&'static str, &'static str)]) -> Self {
        Self { query, ..self }
    }
}

use Content::{Document, Other};

/// All of them, in the order of the table.
static MEANINGS: &[Meaning] = &[
    get("/", "The status page.", Other("text/html")),
    get(
        "/healthz",
        "200 while the daemon is alive.",
        Other("text/plain"),
    ),
    get(
        "/readyz",
        "200 while every service listens and has min_up backends up, and the daemon is not about to \
         stop; else 503, and why.",
        Other("text/plain"),
    ),
    get(
        "/metrics",
        "All that is counted, for Prometheus.",
        Other("text/plain"),
    ),
    get(
        "/v1/view",
        "How everything stands.",
        Document(shape::<api::View>),
    ),
    get(
        "/v1/explain",
        "Which backend a client gets, and why.",
        Document(shape::<api::Explanation>),
    )
    .with(&[
        ("client", "The IP address of the client."),
        ("service", "One service only."),
    ]),
    get(
        "/v1/services",
        "Every service.",
        Document(shape::<Vec<api::Service>>),
    ),
    get(
        "/v1/services/{service}",
        "One service.",
        Document(shape::<api::Service>),
    ),
    get(
        "/v1/services/{service}/backends",
        "Every backend of a service.",
        Document(shape::<Vec<api::Backend>>),
    ),
    get(
        "/v1/services/{service}/backends/{backend}",
        "One backend.",
        Document(shape::<api::Backend>),
    ),
    get(
        "/v1/events",
        "What has happened lately.",
        Document(shape::<api::Events>),
    )
    .with(&[
        ("since", "Only events after this number."),
        ("limit", "Only so many of the latest."),
        ("service", "Only events of this service."),
        ("backend", "Only events of backends of this name."),
    ]),
    get(
        "/v1/events/stream",
        "Events as they happen, and a view about once a second, as server-sent events named \
         `event`, `view` and, for whoever does not keep up, `lagged`.",
        Other("text/event-stream"),
    )
    .with(&[(
        "since",
        "Begins after this number; by default with what comes.",
    )]),
    get(
        "/v1/failovers",
        "The last failovers.",
        Document(shape::<api::Failovers>),
    )
    .with(&[
        ("service", "Only those of this service."),
        ("limit", "Only so many of the latest."),
    ]),
    get(
        "/v1/sessions",
        "Running sessions, oldest first.",
        Document(shape::<api::Sessions>),
    )
    .with(&[
        ("service", "Only those of this service."),
        ("backend", "Only those of backends of this name."),
        ("client", "Only those of the client at this IP address."),
        ("limit", "So many, 100 by default and 1000 at most."),
        ("offset", "After so many."),
    ]),
    get(
        "/v1/config",
        "The file that is in force, without secrets.",
        Other("application/toml"),
    ),
    get("/v1/build", "What runs.", Document(shape::<api::Build>)),
    get("/v1/openapi.json", "This document.", Other(JSON)),
    post(
        "/v1/services/{service}/backends",
        "Changes every backend of a service.",
        Some(shape::<api::Change>),
        shape::<api::Changed>,
    ),
    post(
        "/v1/services/{service}/backends/{backend}",
        "Changes one backend.",
        Some(shape::<api::Change>),
        shape::<api::Changed>,
    ),
    post(
        "/v1/services/{service}/fail-back",
        "Has standby tiers that are not needed stand down.",
        None,
        shape::<api::Changed>,
    ),
    post(
        "/v1/sessions/{session}/close",
        "Closes a session.",
        None,
        shape::<api::Changed>,
    ),
    post(
        "/v1/reload",
        "Reads the file again, and answers when it has taken effect or was rejected.",
        None,
        shape::<api::Reloaded>,
    ),
    post(
        "/v1/plan",
        "What a reload would do.",
        Some(shape::<api::Proposal>),
        shape::<api::Plan>,
    ),
];

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let operations = paths.entry(route.path).or_insert_with(|| json!({}));
        operations[route.method.as_str().to_ascii_lowercase()] = operation(route, &mut generator);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ballast",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Whoever may open the Unix socket may do everything. Over TCP changes take \
                the bearer token, and so does reading from an address that is not loopback.",
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let is_it = |it: &&Meaning| it.path == route.path && it.method == route.method.as_str();
    let Some(meaning) = MEANINGS.iter().find(is_it) else {
        // A test holds that there is none.
        return json!({});
    };
    let content = match meaning.answer {
        Document(shape) => json!({ JSON: { "schema": shape(generator) } }),
        Other(media_type) => json!({ media_type: {} }),
    };
    let refused = shape::<api::Refused>(generator);
    let mut operation = json!({
        "summary": meaning.summary,
        "parameters": parameters(route.path, meaning.query),
        "responses": {
            "200": { "description": "It is so.", "content": content },
            "default": {
                "description": "Why not.",
                "content": { JSON: { "schema": refused } },
            },
        },
        "security": match route.needs {
            Needs::Nothing => json!([]),
            Needs::Reading => json!([{}, { "token": [] }]),
            Needs::Changing => json!([{ "token": [] }, {}]),
        },
    });
    if let Some(body) = meaning.body {
        let schema = body(generator);
        operation["requestBody"] =
            json!({ "required": true, "content": { JSON: { "schema": schema } } });
    }
    operation
}

fn parameters(path: &str, query: &[(&str, &str)]) -> Vec<Value> {
    let segments = path
        .split('/')
        .filter_map(|it| it.strip_prefix('{')?.strip_suffix('}'));
    let of_path = segments.map(|name| {
        json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } })
    });
    let of_query = query.iter().map(|(name, what)| {
        json!({ "name": name, "in": "query", "description": what, "schema": { "type": "string" } })
    });
    of_path.chain(of_query).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_route_has_a_meaning_and_nothing_else_has() {
        let routes = ROUTES.iter().map(|it| (it.path, it.method.as_str()));
        let meanings = MEANINGS.iter().map(|it| (it.path, it.method));
        let (routes, meant): (BTreeSet<_>, BTreeSet<_>) = (routes.collect(), meanings.collect());
        assert_eq!(routes, meant);
        assert_eq!(MEANINGS.len(), ROUTES.len(), "each is there once");
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let references = text.split("\"$ref\":\"#").skip(1);
        let references: BTreeSet<_> = references.filter_map(|it| it.split('"').next()).collect();
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
