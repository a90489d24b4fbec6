//! How answers look.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Frame, SizeHint};
use serde::Serialize;

use super::stream::Feed;
use crate::api::Refused;

/// An answer, or why there is none.
pub(super) type Answer = Result<Response<Body>, Refusal>;

/// What an answer consists of.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it is there.
    Whole(Full<Bytes>),
    /// It comes.
    Feed(Feed),
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body).poll_frame(cx),
            Self::Feed(feed) => feed
                .poll(cx)
                .map(|frame| frame.map(|it| Ok(Frame::data(it)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Feed(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Feed(_) => SizeHint::default(),
        }
    }
}

/// An answer of that media type.
pub(super) fn reply(
    status: StatusCode,
    media_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Body> {
    let mut response = Response::new(Body::Whole(Full::new(body.into())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed = |headers: &mut http::HeaderMap, name: HeaderName, value| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    fixed(headers, CONTENT_TYPE, media_type);
    fixed(headers, CACHE_CONTROL, "no-store");
    fixed(headers, X_CONTENT_TYPE_OPTIONS, "nosniff");
    response
}

/// A document.
pub(super) fn json(status: StatusCode, document: &impl Serialize) -> Response<Body> {
    match serde_json::to_vec(document) {
        Ok(text) => reply(status, JSON, text),
        Err(error) => {
            tracing::error!(%error, "document not written: a defect");
            reply(StatusCode::INTERNAL_SERVER_ERROR, JSON, "{}")
        }
    }
}

/// Lines for people and for probes.
pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    reply(status, "text/plain; charset=utf-8", text)
}

/// Why a request was not carried out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) body: Refused,
    /// The methods that there are instead.
    allow: Option<String>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self::with(status, Refused::new(error))
    }

    pub(super) fn with(status: StatusCode, body: Refused) -> Self {
        Self {
            status,
            body,
            allow: None,
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.body.help = Some(help.into());
        self
    }

    pub(super) fn allow(mut self, methods: String) -> Self {
        self.allow = Some(methods);
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = json(self.status, &self.body);
        let headers = response.headers_mut();
        if let Some(allow) = self.allow.and_then(|it| HeaderValue::try_from(it).ok()) {
            headers.insert(ALLOW, allow);
        }
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"ballast\"");
            headers.insert(http::header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}

/// The media type of every document.
pub(super) const JSON: &str = "application/json";
