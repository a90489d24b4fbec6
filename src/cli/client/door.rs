//! Where a daemon answers, and what opens the door.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use http::header::AUTHORIZATION;
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use super::Failure;
use super::exchange::{self, Reply};
use crate::config::{NoToken, token};

/// An address of a daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Address {
    /// `127.0.0.1:9900`, `[::1]:9900`, `lb1.internal:9900`
    Tcp(String),
    /// `unix:/run/ballast/admin.sock`, or any path.
    Unix(PathBuf),
}

impl Address {
    /// Where a listener of this machine is reached: an unspecified address is every one of it.
    pub(super) fn local(listener: &str) -> Self {
        let text = match listener.parse::<SocketAddr>() {
            Ok(mut address) if address.ip().is_unspecified() => {
                address.set_ip(match address.ip() {
                    IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                    IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
                });
                address.to_string()
            }
            Ok(_) | Err(_) => listener.to_owned(),
        };
        Self::Tcp(text)
    }

    /// Whether who answers there is surely on this machine.
    pub(in crate::cli) fn is_here(&self) -> bool {
        let Self::Tcp(text) = self else {
            return true;
        };
        match text.parse::<SocketAddr>() {
            Ok(address) => address.ip().to_canonical().is_loopback(),
            Err(_) => text.starts_with("localhost:"),
        }
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "expected an address and a port, such as 127.0.0.1:9900, or unix:/run/ballast/admin.sock";
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err(ALLOWED),
                false => Ok(Self::Unix(path.into())),
            };
        }
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        if text == bare && text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
        match bare.rsplit_once(':') {
            Some((host, port))
                if !host.is_empty() && is_port(port) && !host.contains(['/', ' ', '@']) =>
            {
                match host.contains(':') && bare.parse::<SocketAddr>().is_err() {
                    true => Err(ALLOWED),
                    false => Ok(Self::Tcp(bare.to_owned())),
                }
            }
            Some(_) | None => Err(ALLOWED),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What is missing where a change comes over TCP.
pub(super) const WITHOUT_TOKEN: &str =
    "over TCP this needs --token-file PATH; over the Unix socket it needs none";

/// One way to a daemon.
#[derive(Clone, Debug)]
pub(super) struct Door {
    pub(super) address: Address,
    /// What is in it says that we may.
    pub(super) token_file: Option<PathBuf>,
}

impl Door {
    /// One request. A change over TCP carries the token; who only reads shows it when asked.
    pub(super) async fn ask(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Bytes>,
    ) -> Result<Reply, Failure> {
        let token = match method == Method::GET {
            true => None,
            false => self.token()?,
        };
        let is_shown = token.is_some();
        let reply = exchange::run(&self.address, self.request(method, path, body, token)?).await?;
        if reply.status == StatusCode::UNAUTHORIZED
            && !is_shown
            && let Some(token) = self.token()?
        {
            let request = self.request(method, path, body, Some(token))?;
            return exchange::run(&self.address, request).await;
        }
        Ok(reply)
    }

    /// Whether the daemon will refuse every change that comes this way.
    pub(super) fn lacks_a_token(&self) -> bool {
        matches!(self.address, Address::Tcp(_)) && self.token_file.is_none()
    }

    /// What may be missing when the daemon answers `status`.
    pub(super) fn hint(&self, status: StatusCode) -> Option<&'static str> {
        // Any other refusal is not about who asks, or the daemon says what to do.
        let is_locked = status == StatusCode::UNAUTHORIZED;
        match (&self.address, &self.token_file) {
            (Address::Tcp(_), None) if is_locked => Some(WITHOUT_TOKEN),
            (Address::Tcp(_), Some(_)) if is_locked => {
                Some("the token of the token file is not the daemon's")
            }
            (Address::Tcp(_) | Address::Unix(_), _) => None,
        }
    }

    fn request(
        &self,
        method: &Method,
        path: &str,
        body: Option<&Bytes>,
        token: Option<HeaderValue>,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let host = match &self.address {
            Address::Tcp(address) => address,
            Address::Unix(_) => "localhost",
        };
        exchange::request(method, host, path, body, token).map_err(|error| {
            Failure::Unknown(format!("{path} cannot be asked for at {host}: {error}"))
        })
    }

    /// The socket's permissions are enough there.
    pub(super) fn token(&self) -> Result<Option<HeaderValue>, Failure> {
        let (Address::Tcp(_), Some(path)) = (&self.address, &self.token_file) else {
            return Ok(None);
        };
        bearer(path).map(Some).map_err(|why| {
            let first = match &why {
                NoToken::Empty => "write the daemon's token into it",
                why if why.is_forbidden() => "run this as a user who may",
                NoToken::Unreadable(_) | NoToken::Unusable => "put the daemon's token there",
            };
            // Nobody is let in without one.
            Failure::Refused {
                status: StatusCode::UNAUTHORIZED,
                said: format!(
                    "cannot use the token file {}: {why}\n  \
                     {first}, or name another one with --token-file PATH",
                    path.display()
                ),
            }
        })
    }
}

fn bearer(path: &Path) -> Result<HeaderValue, NoToken> {
    let bearer = format!("Bearer {}", token(path)?);
    let mut value = HeaderValue::try_from(bearer).map_err(|_| NoToken::Unusable)?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error of the operating system without its number.
pub(in crate::cli) fn told(error: &io::Error) -> String {
    let text = error.to_string();
    let bare = text.split(" (os error").next().unwrap_or_default();
    let mut letters = bare.chars();
    match letters.next() {
        Some(first) => first.to_lowercase().chain(letters).collect(),
        None => text,
    }
}

/// The header that a token goes into.
pub(super) const TOKEN: http::HeaderName = AUTHORIZATION;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port_or_a_path() {
        let tcp = |text: &str| Address::Tcp(text.into());
        let unix = |text: &str| Address::Unix(text.into());
        for (text, address) in [
            ("127.0.0.1:9900", tcp("127.0.0.1:9900")),
            ("[::1]:9900", tcp("[::1]:9900")),
            ("lb1.internal:9900", tcp("lb1.internal:9900")),
            ("http://127.0.0.1:9900/", tcp("127.0.0.1:9900")),
            (
                "unix:/run/ballast/admin.sock",
                unix("/run/ballast/admin.sock"),
            ),
            ("unix:admin.sock", unix("admin.sock")),
            ("./admin.sock", unix("./admin.sock")),
            ("/run/ballast/admin.sock", unix("/run/ballast/admin.sock")),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for wrong in [
            "",
            "unix:",
            "localhost",
            ":9900",
            "::1:9900",
            "a:b",
            "127.0.0.1:0",
            "a:70000",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_listener_on_every_address_is_reached_on_this_machine() {
        assert_eq!(Address::local("0.0.0.0:1").to_string(), "127.0.0.1:1");
        assert_eq!(Address::local("[::]:1").to_string(), "[::1]:1");
        assert_eq!(Address::local("192.0.2.1:1").to_string(), "192.0.2.1:1");
    }
}
