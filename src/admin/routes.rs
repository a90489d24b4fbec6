//! The one table of what can be asked for, and the way to it: method and path in, route and parameters
//! out. Dispatch, the answers to wrong methods and the OpenAPI document are all made from it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use http::{Method, StatusCode};
use hyper::body::Bytes;

use super::hub::{Hub, Shown};
use super::reply::{Answer, Refusal};
use super::server::Busy;
use super::{change, explain, metrics, openapi, page, plan, read, stream};
use crate::api::NOWHERE;

/// What can be asked for.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) method: Method,
    /// `{name}` stands for one segment.
    pub(super) path: &'static str,
    pub(super) needs: Needs,
    pub(super) handler: Handler,
    /// Bytes of a body.
    pub(super) most: usize,
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Anybody who can connect: probes of load balancers have no token.
    Nothing,
    /// Whoever may read.
    Reading,
    /// Whoever may make changes.
    Changing,
}

/// Who answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Handler {
    /// All that the answer takes is how everything stands.
    View(fn(Shown, Call) -> Later),
    /// It takes more than that, or less.
    Call(fn(Call) -> Later),
}

/// An answer that is under way.
pub(super) type Later = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// One request that is let through.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) hub: Arc<Hub>,
    /// Who asks: `uid 0` through a Unix socket, an address over TCP.
    pub(super) by: Arc<str>,
    /// As long as it is held, the connection is not idle.
    pub(super) busy: Arc<Busy>,
    /// What stands for the `{…}` of the path, in their order.
    pub(super) parameters: Vec<String>,
    pub(super) query: String,
    pub(super) headers: http::HeaderMap,
    pub(super) body: Bytes,
}

const fn get(path: &'static str, needs: Needs, handler: Handler) -> Route {
    Route {
        method: Method::GET,
        path,
        needs,
        handler,
        most: 0,
    }
}

/// A POST with a body of at most so many bytes.
const fn up_to(most: usize, path: &'static str, needs: Needs, handler: Handler) -> Route {
    Route {
        method: Method::POST,
        path,
        needs,
        handler,
        most,
    }
}

const fn post(path: &'static str, handler: fn(Call) -> Later) -> Route {
    up_to(MOST_OF_A_BODY, path, Changing, Handler::Call(handler))
}

/// Bytes of most bodies.
const MOST_OF_A_BODY: usize = 64 * 1024;

use Needs::{Changing, Nothing, Reading};

/// All of it.
pub(super) static ROUTES: &[Route] = &[
    get("/", Reading, Handler::Call(page::index)),
    get("/healthz", Nothing, Handler::Call(read::healthz)),
    get("/readyz", Nothing, Handler::View(read::readyz)),
    get("/metrics", Reading, Handler::Call(metrics::scrape)),
    get("/v1/view", Reading, Handler::View(read::view)),
    get("/v1/explain", Reading, Handler::View(explain::explain)),
    get("/v1/services", Reading, Handler::View(read::services)),
    get(
        "/v1/services/{service}",
        Reading,
        Handler::View(read::service),
    ),
    get(
        "/v1/services/{service}/backends",
        Reading,
        Handler::View(read::backends),
    ),
    get(
        "/v1/services/{service}/backends/{backend}",
        Reading,
        Handler::View(read::backend),
    ),
    get("/v1/events", Reading, Handler::Call(read::events)),
    get("/v1/events/stream", Reading, Handler::Call(stream::follow)),
    get("/v1/failovers", Reading, Handler::Call(read::failovers)),
    get("/v1/sessions", Reading, Handler::Call(read::sessions)),
    get("/v1/config", Reading, Handler::Call(read::configuration)),
    get("/v1/build", Reading, Handler::Call(read::build)),
    get("/v1/openapi.json", Reading, Handler::Call(openapi::openapi)),
    post("/v1/services/{service}/backends", change::backends),
    post(
        "/v1/services/{service}/backends/{backend}",
        change::backends,
    ),
    post("/v1/services/{service}/fail-back", change::fail_back),
    post("/v1/sessions/{session}/close", change::close_session),
    post("/v1/reload", change::reload),
    up_to(
        plan::MOST_OF_A_PROPOSAL,
        "/v1/plan",
        Changing,
        Handler::Call(plan::plan),
    ),
];

impl Call {
    /// A parameter of the query, decoded; the first of several.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        let mut all = self.query.split('&').filter_map(|it| it.split_once('='));
        let (_, value) = all.find(|(known, _)| *known == name)?;
        unescaped(value)
    }

    /// The same of a number of things.
    pub(super) fn count(&self, name: &str) -> Result<Option<usize>, Refusal> {
        let number = self.number(name)?;
        Ok(number.map(|it| usize::try_from(it).unwrap_or(usize::MAX)))
    }

    /// The same of a number.
    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let number = self.parameter(name).map(|text| text.parse());
        number.transpose().map_err(|_| {
            let error = format!("`{name}` is no number");
            Refusal::new(StatusCode::BAD_REQUEST, error)
        })
    }
}

/// The route of a request, and what its path says.
pub(super) fn find(method: &Method, path: &str) -> Result<(&'static Route, Vec<String>), Refusal> {
    let of_path = || {
        let matching = |route| captured(route, path).map(|parameters| (route, parameters));
        ROUTES.iter().filter_map(matching)
    };
    // Whoever may have all of an answer may have its head.
    let wanted = if method == Method::HEAD {
        &Method::GET
    } else {
        method
    };
    if let Some(found) = of_path().find(|(route, _)| route.method == *wanted) {
        return Ok(found);
    }
    let methods: Vec<_> = of_path().map(|(route, _)| route.method.as_str()).collect();
    if methods.is_empty() {
        let refusal = Refusal::new(StatusCode::NOT_FOUND, NOWHERE);
        return Err(refusal.help("GET /v1/openapi.json lists what there is"));
    }
    let methods = methods.join(", ");
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not what can be done here"),
    );
    Err(refusal.help(format!("allowed: {methods}")).allow(methods))
}

/// The parameters in `path`, if it is one of `route`.
fn captured(route: &Route, path: &str) -> Option<Vec<String>> {
    let mut parameters = Vec::new();
    let mut segments = path.split('/');
    for wanted in route.path.split('/') {
        let segment = segments.next()?;
        if wanted.starts_with('{') {
            parameters.push(unescaped(segment)?);
        } else if wanted != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(parameters)
}

/// Text without its percent-encoding (RFC 3986 § 2.1); `None` when it is none, or empty.
pub(super) fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digits = [rest.next()?, rest.next()?];
                let digits = std::str::from_utf8(&digits).ok()?;
                u8::from_str_radix(digits, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes)
        .ok()
        .filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_found_by_its_method_and_a_wrong_method_is_told_the_right_one() {
        let (route, parameters) = find(&Method::GET, "/v1/view").unwrap();
        assert_eq!((route.path, parameters.len()), ("/v1/view", 0));
        assert!(find(&Method::HEAD, "/v1/view").is_ok());
        let refusal = find(&Method::DELETE, "/v1/view").unwrap_err();
        assert_eq!(refusal.status, StatusCode::METHOD_NOT_ALLOWED);
        for nowhere in ["", "//", "/v1/view/", "/v1/view/x", "/v2/view", "*"] {
            let refusal = find(&Method::GET, nowhere).unwrap_err();
            assert_eq!(refusal.status, StatusCode::NOT_FOUND, "{nowhere}");
        }
    }

    #[test]
    fn names_in_a_path_may_be_escaped() {
        assert_eq!(unescaped("10.0.0.1:80").as_deref(), Some("10.0.0.1:80"));
        assert_eq!(unescaped("%5B::1%5D:80").as_deref(), Some("[::1]:80"));
        assert_eq!(unescaped("gr%C3%B6%C3%9fe").as_deref(), Some("größe"));
        for wrong in ["", "%", "%4", "%zz", "%ff"] {
            assert_eq!(unescaped(wrong), None, "{wrong}");
        }
    }
}
