//! Who may do what: decided before a request is looked at any further.
//!
//! Whoever may open a Unix socket may do everything. On a loopback address everybody may read, and
//! changes take the token; elsewhere reading takes it, too. Browsers are kept from being used against
//! the daemon: what another site's page sends is refused, and so is a name that was made to lead here
//! (DNS rebinding).

use std::net::{IpAddr, SocketAddr};

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use subtle::ConstantTimeEq;

use super::hub::Hub;
use super::reply::Refusal;
use super::routes::Needs;
use crate::config;

/// How somebody got in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entrance {
    /// Through a Unix socket, by its permissions.
    Socket,
    /// From this machine.
    Loopback,
    /// From anywhere.
    Network,
}

impl Entrance {
    /// Of a TCP listener.
    pub(super) fn of(listener: SocketAddr) -> Self {
        match listener.ip().is_loopback() {
            true => Self::Loopback,
            false => Self::Network,
        }
    }
}

/// Whether a request may go on.
pub(super) async fn admit(
    hub: &Hub,
    (entrance, by): (Entrance, &str),
    needs: Needs,
    headers: &HeaderMap,
) -> Result<(), Refusal> {
    if needs == Needs::Nothing || entrance == Entrance::Socket {
        return Ok(());
    }
    refuse_other_sites(headers)?;
    if entrance == Entrance::Loopback {
        refuse_other_names(headers)?;
    }
    match (needs, entrance) {
        (Needs::Nothing, _) | (_, Entrance::Socket) | (Needs::Reading, Entrance::Loopback) => {
            Ok(())
        }
        (Needs::Reading, Entrance::Network) | (Needs::Changing, _) => {
            by_token(hub, headers, by).await
        }
    }
}

/// A page of another site must not have a browser do anything here.
fn refuse_other_sites(headers: &HeaderMap) -> Result<(), Refusal> {
    let foreign = || {
        Refusal::new(
            StatusCode::FORBIDDEN,
            "this comes from the page of another site",
        )
    };
    if let Some(site) = headers.get("sec-fetch-site")
        && !["same-origin", "none"].iter().any(|own| site == own)
    {
        return Err(foreign());
    }
    let Some(origin) = headers.get(ORIGIN) else {
        return Ok(());
    };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok());
    let own = own.map(|host| format!("http://{host}"));
    match own.is_some_and(|own| origin == own.as_str()) {
        true => Ok(()),
        false => Err(foreign()),
    }
}

/// A browser sends the name that it was given, which an attacker may have made to lead to loopback.
fn refuse_other_names(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.and_then(|host| host.parse::<Authority>().ok());
    let is_own = host.is_some_and(|host| {
        let name = host.host().trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<IpAddr>().is_ok()
    });
    match is_own {
        true => Ok(()),
        false => Err(Refusal::new(
            StatusCode::MISDIRECTED_REQUEST,
            "the Host header names another host",
        )
        .help("use the address itself, or localhost")),
    }
}

async fn by_token(hub: &Hub, headers: &HeaderMap, by: &str) -> Result<(), Refusal> {
    let Some(file) = hub.token_file() else {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "over TCP this takes a token, and the daemon has none to compare with",
        )
        .help("use its Unix socket, or set `token_file` in its [admin] and reload"));
    };
    let given = headers.get(AUTHORIZATION).map(|value| value.as_bytes());
    let Some(given) = given.and_then(bearer).map(<[u8]>::to_vec) else {
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, "this takes a token")
            .help("send \"Authorization: Bearer TOKEN\", or use the Unix socket"));
    };
    let token = tokio::task::spawn_blocking(move || config::token(&file)).await;
    match token {
        Ok(Ok(token)) if bool::from(token.as_bytes().ct_eq(&given)) => Ok(()),
        Ok(Ok(_)) => {
            hub.tell_wrong_token(by);
            Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "this is not the token",
            ))
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "token of the admin endpoint not read");
            Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "the token cannot be read: the daemon's log says why",
            ))
        }
        Err(_) => Err(Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error",
        )),
    }
}

/// What follows `Bearer`, whose case does not matter (RFC 9110 § 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(BEARER.len())?;
    scheme
        .eq_ignore_ascii_case(BEARER)
        .then(|| token.trim_ascii())
}

const BEARER: &[u8] = b"bearer ";

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            let name = http::HeaderName::from_static(name);
            (name, http::HeaderValue::from_static(value))
        };
        all.iter().map(pair).collect()
    }

    #[test]
    fn only_pages_of_its_own_may_ask() {
        let host = ("host", "127.0.0.1:9900");
        let admitted = |more: &[(&'static str, &'static str)]| {
            let all: Vec<_> = [host].iter().chain(more).copied().collect();
            refuse_other_sites(&headers(&all)).is_ok()
        };
        assert!(admitted(&[]));
        assert!(admitted(&[("origin", "http://127.0.0.1:9900")]));
        assert!(admitted(&[("sec-fetch-site", "none")]));
        assert!(!admitted(&[("origin", "null")]));
        assert!(!admitted(&[("origin", "http://127.0.0.1:9901")]));
        assert!(!admitted(&[("origin", "https://evil.example")]));
        assert!(!admitted(&[("sec-fetch-site", "cross-site")]));
        assert!(!admitted(&[("sec-fetch-site", "same-site")]));
    }

    #[test]
    fn a_name_that_was_made_to_lead_here_is_refused() {
        for own in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "localhost:9900",
            "[::1]:9900",
        ] {
            assert!(
                refuse_other_names(&headers(&[("host", own)])).is_ok(),
                "{own}"
            );
        }
        for other in ["evil.example", "localhost.evil.example:9900", "", "a b"] {
            assert!(
                refuse_other_names(&headers(&[("host", other)])).is_err(),
                "{other}"
            );
        }
        assert!(refuse_other_names(&headers(&[])).is_err());
    }

    #[test]
    fn a_token_is_what_follows_bearer() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bearer"), None);
    }
}
