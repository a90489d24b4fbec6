//! One HTTP/1.1 request, and the answer's status and body (RFC 9112).

use super::dialogue::{Dialogue, MOST_RECEIVED, Received, Step};
use super::exchange::quoted;
use crate::health::{Http, contains};
use crate::model::Address;

/// Header lines of an answer.
const MOST_HEADERS: usize = 100;

pub(super) struct Requesting<'a> {
    http: &'a Http,
    address: Address,
    said: bool,
}

impl<'a> Requesting<'a> {
    pub(super) fn new(http: &'a Http, address: Address) -> Self {
        Self {
            http,
            address,
            said: false,
        }
    }

    fn request(&self) -> Vec<u8> {
        let Http {
            method, path, host, ..
        } = self.http;
        let host = host.clone().unwrap_or_else(|| match self.address {
            Address::Inet(address) => address.to_string(),
            Address::Unix(_) => "localhost".to_owned(),
        });
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ballast-check\r\n\
             Accept: */*\r\nConnection: close\r\n\r\n"
        )
        .into_bytes()
    }

    /// Looks at the answer so far.
    fn judge(&self, received: &Received) -> Step {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let head = match response.parse(&received.bytes) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) if received.ended && !received.bytes.is_empty() => {
                let got = quoted(&received.bytes);
                return Step::dead(&format!("closed in the middle of its answer: {got}"));
            }
            Ok(httparse::Status::Partial) => return Step::Listen,
            Err(_) => {
                return Step::dead(&format!("no answer of HTTP: {}", quoted(&received.bytes)));
            }
        };
        let status = response.code.unwrap_or_default();
        if !self.http.status.contains(status) {
            let reason = response.reason.unwrap_or_default();
            return Step::dead(format!("status {status} {reason}").trim_end());
        }
        let Some(wanted) = &self.http.body else {
            return Step::alive();
        };
        let header = |name: &str| {
            let found = response
                .headers
                .iter()
                .find(|it| it.name.eq_ignore_ascii_case(name));
            found.and_then(|it| std::str::from_utf8(it.value).ok())
        };
        let coding = header("transfer-encoding").map(str::to_ascii_lowercase);
        let chunked = coding.is_some_and(|it| it.contains("chunked"));
        let length = header("content-length").and_then(|it| it.trim().parse::<usize>().ok());
        let raw = &received.bytes[head..];
        let (body, complete) = match (chunked, length) {
            (true, _) => unchunked(raw),
            (false, Some(length)) => (raw[..raw.len().min(length)].to_vec(), raw.len() >= length),
            (false, None) => (raw.to_vec(), false),
        };
        if contains(&body, wanted) {
            Step::alive()
        } else if complete || received.ended || received.bytes.len() >= MOST_RECEIVED {
            Step::dead(&format!("no {} in the body", quoted(wanted)))
        } else {
            Step::Listen
        }
    }
}

impl Dialogue for Requesting<'_> {
    fn next(&mut self, received: &mut Received) -> Step {
        if !std::mem::replace(&mut self.said, true) {
            return Step::Say(self.request());
        }
        // What comes before the answer proper, such as early hints, is not it.
        while let Some(length) = interim(&received.bytes) {
            received.bytes.drain(..length);
        }
        self.judge(received)
    }

    fn lacks(&self, received: &Received) -> Option<String> {
        let got = quoted(&received.bytes);
        (!received.bytes.is_empty()).then(|| match &self.http.body {
            Some(body) => format!("no {} in the body so far, got {got}", quoted(body)),
            None => format!("no whole answer of HTTP, got {got}"),
        })
    }
}

/// The length of a complete head with a status from 102 to 199, or 100, at the front.
fn interim(bytes: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => {
            let code = response.code.unwrap_or_default();
            ((100..200).contains(&code) && code != 101).then_some(length)
        }
        _ => None,
    }
}

/// What is there of a body that comes in chunks, and whether that is all.
fn unchunked(mut raw: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((begin, length))) = httparse::parse_chunk_size(raw) {
        if length == 0 {
            return (body, true);
        }
        let rest = &raw[begin..];
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        body.extend_from_slice(&rest[..rest.len().min(length)]);
        match rest.get(length.saturating_add(2)..) {
            Some(next) => raw = next,
            None => return (body, false),
        }
    }
    (body, false)
}

#[cfg(test)]
mod tests {
    use super::super::dialogue::testing::{rehearse, why};
    use super::*;
    use crate::health::{StatusSet, Verdict};
    use proptest::prelude::*;

    fn http(body: Option<&str>) -> Http {
        Http {
            method: "GET".to_owned(),
            path: "/ready".to_owned(),
            host: None,
            status: StatusSet::parse("200-399").unwrap(),
            body: body.map(Into::into),
        }
    }

    fn answer(http: &Http, reply: &str) -> Option<String> {
        let address = "192.0.2.1:8080".parse().unwrap();
        why(&mut Requesting::new(http, address), reply.as_bytes())
    }

    #[test]
    fn the_request_is_one_that_every_server_takes() {
        let address = "192.0.2.1:8080".parse().unwrap();
        let http = http(None);
        let (said, answer) = rehearse(
            &mut Requesting::new(&http, address),
            b"HTTP/1.1 204 No Content\r\n\r\n",
        );
        assert_eq!(answer.verdict, Verdict::Alive);
        let said = String::from_utf8(said).unwrap();
        assert!(said.starts_with("GET /ready HTTP/1.1\r\nHost: 192.0.2.1:8080\r\n"));
        assert!(said.ends_with("\r\nConnection: close\r\n\r\n"));
    }

    #[test]
    fn the_status_decides() {
        let http = http(None);
        assert_eq!(answer(&http, "HTTP/1.1 302 Found\r\n\r\n"), None);
        let wrong = answer(&http, "HTTP/1.1 503 Service Unavailable\r\n\r\n");
        assert_eq!(wrong.unwrap(), "status 503 Service Unavailable");
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
        assert_eq!(answer(&http, hints), None);
        let no_http = answer(&http, "SSH-2.0-OpenSSH_9.2\r\n").unwrap();
        assert_eq!(no_http, "no answer of HTTP: \"S\"");
        let nothing = answer(&http, "").unwrap();
        assert_eq!(nothing, "closed before it had answered");
    }

    #[test]
    fn the_body_is_found_whichever_way_it_comes() {
        let http = http(Some("all good"));
        for reply in [
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n all good ",
            "HTTP/1.1 200 OK\r\n\r\nis all good here",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n5\r\ngood.\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n4\r\nall \r\n5\r\ngood.\r\n0\r\n\r\n",
        ] {
            assert_eq!(answer(&http, reply), None, "{reply:?}");
        }
        for reply in [
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad",
            "HTTP/1.1 200 OK\r\n\r\nall bad",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nall \r\n0\r\n\r\n",
        ] {
            let why = answer(&http, reply).unwrap();
            assert_eq!(why, "no \"all good\" in the body", "{reply:?}");
        }
    }

    proptest! {
        #[test]
        fn any_reply_is_judged(reply: Vec<u8>, chunked: bool) {
            let http = http(Some("x"));
            let head = match chunked {
                true => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                false => "",
            };
            let mut all = head.as_bytes().to_vec();
            all.extend(reply);
            let address = "192.0.2.1:8080".parse().unwrap();
            why(&mut Requesting::new(&http, address), &all);
        }
    }
}
