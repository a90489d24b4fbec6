//! An alert as one HTTP POST: connect, perhaps TLS, one request, the status of the reply.
//!
//! Each goes over a connection of its own, since alerts are rare. Certificates and the token are
//! read each time, so that neither a rotated token nor a new authority needs a reload.

use std::io;
use std::path::Path;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use super::reading::beside;
use crate::config::{NoToken, Webhook, token};
use crate::model::one_line;

/// Why a POST failed.
#[derive(Debug, Error)]
pub(super) enum PostError {
    #[error("cannot use the token file: {0}")]
    Token(#[from] NoToken),
    #[error("cannot read the trusted certificates: {0}")]
    Certificates(String),
    #[error("the host's name cannot be that of a certificate: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("cannot be written as a request: {0}")]
    Request(#[from] http::Error),
    #[error("answered {status}{words}")]
    Status { status: StatusCode, words: String },
}

impl PostError {
    /// Whether the same POST may succeed a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Status { status, .. } => {
                status.is_server_error()
                    || [
                        StatusCode::REQUEST_TIMEOUT,
                        StatusCode::TOO_EARLY,
                        StatusCode::TOO_MANY_REQUESTS,
                    ]
                    .contains(status)
            }
            Self::Name(_) | Self::Request(_) => false,
            Self::Token(_)
            | Self::Certificates(_)
            | Self::Connect(_)
            | Self::Tls(_)
            | Self::Http(_) => true,
        }
    }
}

/// Sends `json`, and waits for the reply to begin. Cancel safe: a POST that is dropped is over.
///
/// # Errors
/// Whatever kept the receiver from saying 2xx. The URL, which may be a secret, is in none of them.
pub(super) async fn post(webhook: &Webhook, json: Bytes) -> Result<(), PostError> {
    let request = request(webhook, json).await?;
    let stream = TcpStream::connect((webhook.host(), webhook.port()))
        .await
        .map_err(PostError::Connect)?;
    if !webhook.tls {
        return exchange(stream, request).await;
    }
    let connector = TlsConnector::from(Arc::new(client_config().await?));
    let name = ServerName::try_from(webhook.host().to_owned())?;
    let stream = connector
        .connect(name, stream)
        .await
        .map_err(PostError::Tls)?;
    exchange(stream, request).await
}

async fn request(webhook: &Webhook, json: Bytes) -> Result<Request<Full<Bytes>>, PostError> {
    let mut request = Request::post(&*webhook.path)
        .header(HOST, webhook.authority.as_str())
        .header(USER_AGENT, concat!("ballast/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(json))?;
    let headers = request.headers_mut();
    if let Some(path) = webhook.token_file.clone() {
        headers.insert(
            AUTHORIZATION,
            beside(&path.clone(), move || bearer(&path)).await?,
        );
    }
    for (name, value) in &webhook.headers {
        headers.insert(name, value.clone());
    }
    Ok(request)
}

fn bearer(path: &Path) -> Result<HeaderValue, PostError> {
    let bearer = format!("Bearer {}", token(path)?);
    let mut value = HeaderValue::try_from(bearer).map_err(http::Error::from)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Trusts what the machine trusts; `SSL_CERT_FILE` names another bundle.
async fn client_config() -> Result<ClientConfig, PostError> {
    // Wherever they are: whoever hangs in one of the places hangs in all.
    beside(Path::new("certificates"), || {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.first().map(ToString::to_string);
            return Err(PostError::Certificates(
                why.unwrap_or("there are none".into()),
            ));
        }
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map(|config| config.with_root_certificates(roots).with_no_client_auth())
            .map_err(|error| PostError::Certificates(error.to_string()))
    })
    .await
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(), PostError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let reply = sender.send_request(request).await?;
        let status = reply.status();
        if status.is_success() {
            return Ok(());
        }
        let words = words(reply.into_body()).await;
        Err(PostError::Status { status, words })
    };
    tokio::pin!(exchange);
    tokio::select! {
        biased;
        outcome = &mut exchange => outcome,
        // The connection is over when the reply may have been read already.
        _ = connection => exchange.await,
    }
}

/// What the receiver says about its refusal, as far as it fits a line of the log.
async fn words(body: Incoming) -> String {
    let Ok(body) = Limited::new(body, MOST_OF_A_REPLY).collect().await else {
        return String::new();
    };
    let text = body.to_bytes();
    let line = one_line(&String::from_utf8_lossy(&text), MOST_WORDS);
    match line.is_empty() {
        true => line,
        false => format!(": {line}"),
    }
}

/// Bytes of a reply that are read, when it is no success.
const MOST_OF_A_REPLY: usize = 64 * 1024;
/// Characters of it that are told.
const MOST_WORDS: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_into_the_header() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        assert_eq!(bearer(file.path()).unwrap(), "Bearer secret");
    }
}
