//! The webhook of an alert: its URL, and the credentials that go along with it. None of them is ever
//! quoted in a problem.

use std::path::PathBuf;
use std::sync::Arc;

use http::header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::uri::Authority;
use http::{HeaderName, HeaderValue, Uri};
use toml::Spanned;
use toml::de::DeValue;

use crate::config::decode::{Table, mistype};
use crate::config::problem::{Need, Problem, Problems, shown};
use crate::config::program::absolute;
use crate::config::source::Span;
use crate::config::value::Fault;

/// An HTTP POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// The host and the port, as they go into the Host header.
    pub authority: Authority,
    /// What is asked for there.
    pub path: Arc<str>,
    /// Sent along. Their values are marked as sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Holds the bearer token.
    pub token_file: Option<PathBuf>,
}

impl Webhook {
    /// The name or address to connect to, without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        let host = self.authority.host();
        let inside = host.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
        inside.unwrap_or(host)
    }

    /// The port to connect to.
    pub fn port(&self) -> u16 {
        let preset = if self.tls { 443 } else { 80 };
        self.authority.port_u16().unwrap_or(preset)
    }
}

/// The webhook of that alert, if it has one and it can be used.
pub(super) fn read(table: &Table<'_>, problems: &mut Problems) -> Option<Webhook> {
    let url = table.parsed("webhook", problems, url);
    let headers = headers(table, problems);
    let token_file = table.parsed("token_file", problems, |text| absolute("token_file", text));
    let place = table.span_of("webhook")?;
    let (tls, authority, path) = url?;
    let webhook = Webhook {
        tls,
        authority,
        path,
        headers: headers?,
        token_file,
    };
    secrets(table, &webhook, place, problems);
    if let (Some(file), Some(span)) = (&webhook.token_file, table.span_of("token_file")) {
        problems.need(Need::Secret(file.clone()), span);
    }
    Some(webhook)
}

/// What a webhook's credentials have against them.
fn secrets(table: &Table<'_>, webhook: &Webhook, url: Span, problems: &mut Problems) {
    let authorized = webhook
        .headers
        .iter()
        .any(|(name, _)| name == AUTHORIZATION);
    let token = table.span_of("token_file");
    if let Some(span) = token.clone().filter(|_| authorized) {
        problems.add(
            Problem::error("`token_file` and an Authorization header are one too many")
                .at(span)
                .label("it is sent as \"Authorization: Bearer …\""),
        );
    }
    let local = match webhook.host().parse::<std::net::IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => webhook.host() == "localhost",
    };
    if !webhook.tls && !local && (authorized || token.is_some()) {
        problems.add(
            Problem::warning("a secret goes over the network in clear text")
                .at(url)
                .label("this is http, not https"),
        );
    }
}

/// Whether TLS is spoken, with whom, and what is asked for.
fn url(text: &str) -> Result<(bool, Authority, Arc<str>), Fault> {
    let wrong = |why: &str| {
        // The rest of a webhook's URL is often its secret.
        Fault::new(format!("`webhook` {why}")).allowed("allowed: http://host[:port]/path, or https")
    };
    if !text.is_empty() && !text.contains("://") {
        return Err(wrong("has no scheme").help("begin it with https:// or http://"));
    }
    let uri: Uri = text.parse().map_err(|_| wrong("is not a URL"))?;
    let tls = match uri.scheme_str() {
        Some("https") => true,
        Some("http") => false,
        Some(_) | None => return Err(wrong("is neither http nor https")),
    };
    let authority = uri.authority().filter(|it| !it.host().is_empty());
    let authority = authority.ok_or_else(|| wrong("has no host"))?.clone();
    if authority.as_str().contains('@') {
        return Err(wrong("has a user or a password in it")
            .help("write headers = { Authorization = \"Basic …\" }"));
    }
    if authority.port_u16() == Some(0) || (authority.port().is_none() && has_port(&authority)) {
        return Err(wrong("has an impossible port"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((tls, authority, Arc::from(path)))
}

fn has_port(authority: &Authority) -> bool {
    authority.as_str().len() > authority.host().len()
}

/// `{ Name = "value", … }`
fn headers(table: &Table<'_>, problems: &mut Problems) -> Option<Vec<(HeaderName, HeaderValue)>> {
    let Some(value) = table.get("headers") else {
        return Some(Vec::new());
    };
    let Some(entries) = value.get_ref().as_table() else {
        problems.add(
            mistype("headers", value, "a table").help("write headers = { X-Name = \"value\" }"),
        );
        return None;
    };
    if entries.len() > MOST_HEADERS {
        problems.add(
            Problem::error(format!("there are {} headers", entries.len()))
                .at(value.span())
                .label(format!("allowed: at most {MOST_HEADERS}")),
        );
    }
    let read: Vec<_> = entries
        .iter()
        .map(|(name, value)| header(name.get_ref(), &name.span(), value, problems))
        .collect();
    read.into_iter().collect()
}

fn header(
    name: &str,
    span: &Span,
    value: &Spanned<DeValue<'_>>,
    problems: &mut Problems,
) -> Option<(HeaderName, HeaderValue)> {
    let header = HeaderName::from_bytes(name.as_bytes()).ok();
    if header.is_none() {
        problems.add(
            Problem::error(format!("`{}` is not the name of a header", shown(name)))
                .at(span.clone())
                .label("letters, digits and \"-\""),
        );
    }
    let header = header.filter(|header| {
        let own = [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION].contains(header);
        if own {
            problems.add(
                Problem::error(format!("the header `{header}` is not yours to set"))
                    .at(span.clone())
                    .label("it follows from the URL and the message"),
            );
        }
        !own
    });
    let Some(text) = value.get_ref().as_str() else {
        problems.add(mistype(&shown(name), value, "a string"));
        return None;
    };
    let Ok(mut text) = HeaderValue::from_str(text) else {
        // Not shown: it is probably a secret.
        problems.add(
            Problem::error(format!("the value of `{}` cannot be sent", shown(name)))
                .at(value.span())
                .label("printable ASCII characters only"),
        );
        return None;
    };
    text.set_sensitive(true);
    Some((header?, text))
}

const MOST_HEADERS: usize = 32;
