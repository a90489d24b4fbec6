//! The status page: one document that brings everything it needs, and asks the API for the rest. Its
//! policy lets nothing run but the two blocks that are compiled in, named by their hashes, so that a
//! name of a backend can never become code.

use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{CONTENT_SECURITY_POLICY, REFERRER_POLICY, X_FRAME_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use hyper::body::Bytes;
use sha2::{Digest as _, Sha256};

use super::reply::{Body, reply};
use super::routes::{Call, Later, ROUTES};

const FRAME: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
const SCRIPT: &str = include_str!("page/script.js");

struct Page {
    html: Bytes,
    policy: HeaderValue,
}

static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
    html: html().into(),
    policy: HeaderValue::try_from(policy())
        .unwrap_or(HeaderValue::from_static("default-src 'none'")),
});

/// `GET /`
pub(super) fn index(_: Call) -> Later {
    Box::pin(async { Ok(page()) })
}

fn page() -> Response<Body> {
    let mut response = reply(
        StatusCode::OK,
        "text/html; charset=utf-8",
        PAGE.html.clone(),
    );
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, PAGE.policy.clone());
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

/// The blocks in their places, and the paths that the page may ask for.
fn html() -> String {
    let paths: Vec<&str> = ROUTES.iter().map(|route| route.path).collect();
    FRAME
        .replace("{{style}}", STYLE)
        .replace("{{script}}", SCRIPT)
        .replace("{{paths}}", &paths.join(" "))
}

/// Content Security Policy Level 3: `connect-src` is the API, `img-src` the icon in the document.
fn policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_brings_everything_and_runs_nothing_else() {
        let html = html();
        for place in ["{{style}}", "{{script}}", "{{paths}}"] {
            assert!(!html.contains(place), "{place} is left open");
        }
        for foreign in [
            "http://",
            "https://",
            "//cdn",
            "innerHTML",
            "eval(",
            "@import",
            " style=",
            " onclick=",
        ] {
            // The name of SVG's namespace is no address that anybody asks.
            let found = html
                .replace("http://www.w3.org/2000/svg", "")
                .contains(foreign);
            assert!(!found, "{foreign} is in the page");
        }
        // A block would end there.
        assert!(!SCRIPT.contains("</script") && !STYLE.contains("</style"));
    }

    #[test]
    fn the_policy_names_exactly_the_blocks_of_the_page() {
        assert_eq!(hash(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
        let page = page();
        let policy = page.headers()[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"));
        let block = |from: &str, to: &str| {
            let html = html();
            let rest = html.split_once(from).unwrap().1;
            hash(rest.split_once(to).unwrap().0)
        };
        assert!(policy.contains(&block("<script>", "</script>")));
        assert!(policy.contains(&block("<style>", "</style>")));
    }
}
