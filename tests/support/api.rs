//! The admin API as its clients see it: HTTP/1.1 over a real socket, without a library that would be
//! kinder than what operators use.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::patience::DEADLINE;

/// Where the API is, and as whom it is asked.
#[derive(Clone, Debug)]
pub struct Api {
    door: Door,
    headers: Vec<(String, String)>,
}

#[derive(Clone, Debug)]
enum Door {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The header of that name, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    /// The document, which must be that.
    pub fn document<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    /// The same, of an answer that must be a success.
    pub fn good<T: DeserializeOwned>(&self) -> T {
        assert_eq!(self.status, 200, "{}", self.text());
        self.document()
    }
}

/// A connection to it.
pub trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Api {
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            door: Door::Tcp(address),
            headers: Vec::new(),
        }
    }

    pub fn unix(path: &Path) -> Self {
        Self {
            door: Door::Unix(path.to_owned()),
            headers: Vec::new(),
        }
    }

    /// Where it is, over TCP.
    pub fn address(&self) -> SocketAddr {
        match &self.door {
            Door::Tcp(address) => *address,
            Door::Unix(path) => panic!("{} is no address", path.display()),
        }
    }

    /// The same, with one more header; a `Host` replaces the one that is right.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With that token.
    pub fn bearing(self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    pub fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Ok(match &self.door {
            Door::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, DEADLINE)?;
                stream.set_read_timeout(Some(DEADLINE))?;
                Box::new(stream)
            }
            Door::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(DEADLINE))?;
                Box::new(stream)
            }
        })
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None).expect("an answer")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        self.ask("POST", path, Some(("application/json", body.as_bytes())))
            .expect("an answer")
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> io::Result<Answer> {
        let mut stream = self.connect()?;
        stream.write_all(&self.request(method, path, body))?;
        read_answer(&mut BufReader::new(stream), method)
    }

    /// What is sent for that.
    pub fn request(&self, method: &str, path: &str, body: Option<(&str, &[u8])>) -> Vec<u8> {
        let host = match &self.door {
            Door::Tcp(address) => address.to_string(),
            Door::Unix(_) => "localhost".to_owned(),
        };
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        if !self.headers.iter().any(|(name, _)| name == "Host") {
            text += &format!("Host: {host}\r\n");
        }
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        let mut bytes = Vec::new();
        if let Some((media_type, body)) = body {
            text += &format!("Content-Type: {media_type}\r\n");
            text += &format!("Content-Length: {}\r\n", body.len());
            bytes = body.to_vec();
        } else if method == "POST" {
            text += "Content-Length: 0\r\n";
        }
        let mut request = format!("{text}\r\n").into_bytes();
        request.append(&mut bytes);
        request
    }
}

/// Reads one answer to `method`, and leaves the connection as it is.
pub fn read_answer(reader: &mut impl BufRead, method: &str) -> io::Result<Answer> {
    let (status, headers) = read_head(reader)?;
    let mut answer = Answer {
        status,
        headers,
        body: Vec::new(),
    };
    let length = answer
        .header("content-length")
        .map(|it| it.parse::<usize>());
    if method != "HEAD" {
        let length = length.expect("a length").expect("a number");
        answer.body.resize(length, 0);
        reader.read_exact(&mut answer.body)?;
    }
    Ok(answer)
}

/// Reads the status and the headers of an answer.
pub fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let status = line.split(' ').nth(1).and_then(|it| it.parse().ok());
    let status = status.unwrap_or_else(|| panic!("no status line: {line}"));
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return Ok((status, headers));
        };
        headers.push((name.to_ascii_lowercase(), value.to_owned()));
    }
}
