//! The programs of `config/alerts/`, run by the daemon against what they are made for; and webhooks
//! over TLS, against a server that another program makes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Alert, Backend, Config, Daemon, Launch, Receiver, Server, Service, eventually, installed, run,
    words,
};

/// A program of `config/alerts/`.
fn shipped(name: &str) -> String {
    format!("{}/config/alerts/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn config(backend: &Backend, alert: Alert) -> Config {
    let service = Service::new("web").quick_health();
    Config::of(service.backend("a", backend.address())).alert(alert)
}

const OCCASIONS: [&str; 4] = ["backend-down", "backend-up", "all-down", "reload-failed"];

/// A daemon whose only backend has just gone down, and what was told of it is delivered.
fn after_a_death(launch: Launch, backend: &mut Backend, alert: Alert) -> Daemon {
    // Both that it is down and that nobody is left go into one alert.
    let alert = alert.key("group_wait", "1s").key("timeout", "20s");
    let daemon = launch.start(&config(backend, alert));
    daemon.wait_until_up(0, "a");
    backend.refuse();
    daemon.wait_for(0, words::ALERT_SENT, "alert", "ops");
    daemon
}

#[test]
fn a_mail_is_sent_by_the_shipped_program() {
    if !installed(&["python3", "msmtp", "jq"]) {
        return;
    }
    let server = Server::smtp();
    let directory = tempfile::tempdir().unwrap();
    let sendmail = directory.path().join("sendmail");
    let (host, port) = (server.address().ip(), server.address().port());
    let text = format!(
        "#!/bin/sh\nexec msmtp --host={host} --port={port} --from=ballast@example.org \"$@\"\n"
    );
    fs::write(&sendmail, text).unwrap();
    fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o755)).unwrap();
    let mut backend = Backend::named("a");
    let command = [
        &*shipped("mail"),
        "ops@example.org",
        sendmail.to_str().unwrap(),
    ];
    let alert = Alert::exec("ops", &OCCASIONS, &command);
    let _daemon = after_a_death(Launch::new(), &mut backend, alert);
    let mail = eventually("the mail arrives", || {
        Some(server.output()).filter(|said| said.contains("END MESSAGE"))
    });
    for expected in [
        "To: ops@example.org",
        "Subject: [critical] ",
        "web has no backend left; web/a is down: refused (0 of 1 eligible)",
        "X-Ballast-Alert: ops",
        &format!(
            "backend-down  firing  web  a  {}  refused",
            backend.address()
        ),
        "all-down  firing  web",
    ] {
        assert!(mail.contains(expected), "{expected}\nnot in\n{mail}");
    }
}

#[test]
fn a_chat_gets_a_message_by_the_shipped_program() {
    if !installed(&["curl", "jq"]) {
        return;
    }
    let receiver = Receiver::new();
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().join("url");
    fs::write(&url, format!("{}\n", receiver.url())).unwrap();
    let mut backend = Backend::named("a");
    let command = [&*shipped("slack"), url.to_str().unwrap()];
    let alert = Alert::exec("ops", &OCCASIONS, &command);
    let _daemon = after_a_death(Launch::new(), &mut backend, alert);
    let posted = &receiver.received()[0];
    assert_eq!(posted.line, "POST /hook?key=1 HTTP/1.1");
    let attachment = &posted.json()["attachments"][0];
    assert_eq!(attachment["color"], "danger");
    let text = attachment["text"].as_str().unwrap();
    assert!(text.contains("web has no backend left"), "{text}");
}

#[test]
fn a_chat_that_refuses_is_a_failure_of_the_shipped_program() {
    if !installed(&["curl", "jq"]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().join("url");
    fs::write(&url, "http://127.0.0.1:9/\n").unwrap();
    let mut backend = Backend::named("a");
    let alert = Alert::exec(
        "ops",
        &["backend-down"],
        &[&shipped("slack"), url.to_str().unwrap()],
    );
    let daemon = Daemon::start(&config(
        &backend,
        alert.key("retries", 0).key("timeout", "20s"),
    ));
    daemon.wait_until_up(0, "a");
    backend.refuse();
    let failed = daemon.wait_for(0, words::ALERT_NOT_SENT, "alert", "ops");
    assert!(
        failed.text("error").contains("curl: (7)"),
        "{}",
        failed.raw()
    );
}

#[test]
fn alertmanager_fires_and_resolves_by_the_shipped_program() {
    if !installed(&["prometheus-alertmanager", "curl", "jq"]) {
        return;
    }
    let server = Server::alertmanager();
    let url = format!("http://{}", server.address());
    let firing = || -> Vec<Value> {
        let said = run(Command::new("curl").args(["-sS", &format!("{url}/api/v2/alerts")]));
        serde_json::from_str(&said).unwrap()
    };
    let mut backend = Backend::named("a");
    let alert = Alert::exec("ops", &OCCASIONS, &[&shipped("alertmanager"), &url]);
    let daemon = after_a_death(Launch::new(), &mut backend, alert);
    daemon.reload_rejected("nonsense");
    let alerts = eventually("all three fire", || {
        Some(firing()).filter(|alerts| alerts.len() == 3)
    });
    let of = |name: &str| {
        let found = alerts
            .iter()
            .find(|alert| alert["labels"]["alertname"] == name);
        found.unwrap_or_else(|| panic!("no {name} in {alerts:?}"))
    };
    let down = of("BallastBackendDown");
    assert_eq!(down["labels"]["service"], "web");
    assert_eq!(down["labels"]["backend"], "a");
    assert_eq!(down["labels"]["severity"], "warning");
    assert_eq!(down["annotations"]["why"], words::REFUSED);
    assert_eq!(
        down["annotations"]["address"],
        backend.address().to_string()
    );
    assert_eq!(of("BallastAllDown")["labels"]["severity"], "critical");
    assert!(of("BallastReloadFailed")["annotations"]["why"].is_string());
    backend.answer();
    eventually("what is over is resolved", || {
        let left = firing();
        let [only] = left.as_slice() else { return None };
        (only["labels"]["alertname"] == "BallastReloadFailed").then_some(())
    });
}

/// An HTTPS server that keeps what it is sent in a file, and the certificate by which to trust it.
const HTTPS: &str = r#"
import http.server, ssl, sys
class Keep(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        open("posted", "wb").write(body)
        self.send_response(200); self.send_header("Content-Length", "0"); self.end_headers()
server = http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Keep)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
"#;

#[test]
fn a_webhook_speaks_tls_with_whom_the_machine_trusts_and_with_nobody_else() {
    if !installed(&["python3", "openssl"]) {
        return;
    }
    let server = Server::python(HTTPS, |directory, ip| {
        certificate(directory, &ip.to_string())
    });
    let url = format!("https://{}/hook", server.address());
    let mut backend = Backend::named("a");
    let alert = || Alert::webhook("ops", &["backend-down"], &url);
    let trusting = Launch::new().env("SSL_CERT_FILE", server.directory().join("cert.pem"));
    drop(after_a_death(trusting, &mut backend, alert()));
    let posted = fs::read(server.directory().join("posted")).unwrap();
    let json: Value = serde_json::from_slice(&posted).unwrap();
    assert_eq!(json["events"][0]["event"], "backend-down");

    backend.answer();
    let other = tempfile::tempdir().unwrap();
    certificate(other.path(), "192.0.2.1");
    let daemon = Launch::new()
        .env("SSL_CERT_FILE", other.path().join("cert.pem"))
        .start(&config(&backend, alert().key("retries", 0)));
    daemon.wait_until_up(0, "a");
    backend.refuse();
    let failed = daemon.wait_for(0, words::ALERT_NOT_SENT, "alert", "ops");
    assert!(
        failed.text("error").starts_with("TLS: "),
        "{}",
        failed.raw()
    );
}

/// A self-signed certificate for that address, and its key.
fn certificate(directory: &Path, ip: &str) {
    let settings = directory.join("openssl.cnf");
    let text = format!(
        "[req]\ndistinguished_name=name\nprompt=no\nx509_extensions=extensions\n[name]\nCN=test\n\
         [extensions]\nsubjectAltName=IP:{ip}\nbasicConstraints=critical,CA:FALSE\n"
    );
    fs::write(&settings, text).unwrap();
    run(Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
        ])
        .args([
            "-nodes", "-days", "2", "-keyout", "key.pem", "-out", "cert.pem", "-config",
        ])
        .arg(&settings)
        .current_dir(directory));
}
