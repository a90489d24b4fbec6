//! A real browser without a screen: Chromium, driven over WebDriver (W3C), which is JSON over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::patience::{DEADLINE, eventually};
use super::proc::dies_with_its_test;

/// Each is a dozen processes: one at a time, whatever runs beside it.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Its first start reads hundreds of megabytes that were never read before.
const START: Duration = Duration::from_secs(120);

/// One window with one page.
pub struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    _profile: TempDir,
    _only: MutexGuard<'static, ()>,
}

impl Browser {
    /// Programs that must be installed for it.
    pub const PROGRAMS: &[&str] = &["chromium", "chromedriver"];

    /// Starts one that talks to nobody but the page.
    pub fn start() -> Self {
        let only = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let profile = tempfile::tempdir().expect("a temporary directory");
        let mut command = Command::new("chromedriver");
        let mut driver = dies_with_its_test(&mut command)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver starts");
        let mut said = BufReader::new(driver.stdout.take().expect("a pipe"));
        let address = port(&mut said);
        // Nobody reads on, and a full pipe would stop it.
        thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        let data = format!("--user-data-dir={}", profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &data,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let session = value(address, "POST", "/session", &wanted, START)["sessionId"].clone();
        let session = session.as_str().expect("a session").to_owned();
        Self {
            driver,
            address,
            session: format!("/session/{session}"),
            _profile: profile,
            _only: only,
        }
    }

    /// Goes there, and waits until the page has loaded.
    pub fn open(&self, address: SocketAddr) {
        self.ask("/url", &json!({"url": format!("http://{address}/")}));
    }

    /// What a function with this body returns in the page.
    pub fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until the expression is true in the page.
    pub fn wait(&self, what: &str, expression: &str) {
        eventually(what, || {
            let holds = self.run(&format!("return Boolean({expression})"));
            (holds == Value::Bool(true)).then_some(())
        });
    }

    /// A window of a phone's size, or of a desktop's.
    pub fn resize(&self, width: u32, height: u32) {
        let parameters = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600,
        });
        let command = "Emulation.setDeviceMetricsOverride";
        self.ask(
            "/goog/cdp/execute",
            &json!({"cmd": command, "params": parameters}),
        );
    }

    /// Warnings and errors in its console, network and policy violations included.
    pub fn complaints(&self) -> Vec<String> {
        let log = self.ask("/se/log", &json!({"type": "browser"}));
        let entries = log.as_array().expect("a list").iter();
        let grave = entries.filter(|it| it["level"] == "SEVERE" || it["level"] == "WARNING");
        grave.map(|it| it["message"].to_string()).collect()
    }

    fn ask(&self, command: &str, body: &Value) -> Value {
        value(
            self.address,
            "POST",
            &format!("{}{command}", self.session),
            body,
            DEADLINE,
        )
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if thread::panicking() {
            // A driver that does not answer must not hide why.
            self.driver.kill().ok();
            return;
        }
        // Chromium goes with its session, not with the driver.
        value(self.address, "DELETE", &self.session, &json!({}), DEADLINE);
        self.driver.kill().ok();
        self.driver.wait().ok();
    }
}

/// `ChromeDriver was started successfully on port 12345.`
fn port(said: &mut impl BufRead) -> SocketAddr {
    let mut lines = said.lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        let (_, rest) = line.split_once("successfully on port ")?;
        rest.trim_end_matches('.').parse::<u16>().ok()
    });
    SocketAddr::from(([127, 0, 0, 1], port.expect("chromedriver says its port")))
}

/// What the driver answers to a command, within `patience`.
fn value(driver: SocketAddr, method: &str, path: &str, body: &Value, patience: Duration) -> Value {
    let body = body.to_string();
    let mut stream = TcpStream::connect(driver).expect("chromedriver listens");
    stream.set_read_timeout(Some(patience)).expect("a socket");
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {driver}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream
        .write_all(request.as_bytes())
        .expect("chromedriver reads");
    let mut reader = BufReader::new(stream);
    let mut head = reader.by_ref().lines().map_while(Result::ok);
    let status = head.next().expect("a status");
    // It puts no space behind its colons.
    let fields = head.by_ref().take_while(|line| !line.is_empty());
    let length = fields
        .filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let is_it = name.eq_ignore_ascii_case("content-length");
            is_it.then(|| value.trim().parse::<usize>().ok())?
        })
        .last();
    let mut answer = vec![0; length.expect("a length")];
    reader.read_exact(&mut answer).expect("an answer");
    let answer: Value = serde_json::from_slice(&answer).expect("JSON");
    assert!(status.contains(" 200 "), "{path}: {answer}");
    answer["value"].clone()
}
