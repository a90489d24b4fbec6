//! nginx's stream module, a listening socket per worker. The second set-up gives it buffers of 256 KiB,
//! which is its best for bulk and costs memory per session.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::{Peer, Plan};
use crate::process::Signal;

pub(super) const NAME: &str = "nginx";

/// Where distributions keep the module when it is not built in.
const MODULE_FOLDERS: [&str; 4] = [
    "/usr/lib/nginx/modules",
    "/usr/lib64/nginx/modules",
    "/usr/share/nginx/modules",
    "/usr/local/nginx/modules",
];

const MODULE: &str = "ngx_stream_module.so";

pub(super) fn find() -> Result<Vec<Peer>, String> {
    let program = super::on_path(NAME)
        .ok_or("not on PATH (Debian: apt install nginx libnginx-mod-stream)")?;
    let build = super::output(&program, &["-V"]);
    let version = build
        .lines()
        .find_map(|line| line.strip_prefix("nginx version: nginx/"))
        .unwrap_or("unknown");
    if !build.contains("--with-stream") {
        return Err("built without the stream module".to_owned());
    }
    if is_dynamic(&build) && module().is_none() {
        return Err(format!(
            "{MODULE} is not installed (Debian: apt install libnginx-mod-stream)"
        ));
    }
    let peer = |name, render| Peer {
        name,
        version: version.to_owned(),
        program: program.clone(),
        file: "nginx.conf",
        render,
        arguments,
        reload: Some(Signal::HUP),
    };
    Ok(vec![
        peer(NAME, |plan| render(plan, "")),
        peer("nginx-256k", |plan| {
            render(plan, "  proxy_buffer_size 256k;\n")
        }),
    ])
}

fn is_dynamic(build: &str) -> bool {
    build.contains("--with-stream=dynamic")
}

fn module() -> Option<PathBuf> {
    MODULE_FOLDERS
        .iter()
        .map(|folder| Path::new(folder).join(MODULE))
        .find(|file| file.is_file())
}

fn arguments(directory: &Path, config: &Path, _workers: usize) -> Vec<OsString> {
    vec![
        "-p".into(),
        directory.into(),
        "-e".into(),
        "stderr".into(),
        "-c".into(),
        config.into(),
    ]
}

fn render(plan: &Plan, extra: &str) -> String {
    // A module folder may hold the module of a build that has it compiled in; loading it then fails, so
    // `find` has made sure that this is only asked when the build says "dynamic".
    let load = super::on_path(NAME)
        .filter(|program| is_dynamic(&super::output(program, &["-V"])))
        .and_then(|_| module())
        .map(|file| format!("load_module {};\n", file.display()))
        .unwrap_or_default();
    // Every worker may get all sessions, and a session takes two of its connections.
    let mut text = format!(
        "{load}daemon off;\nworker_processes {};\nworker_rlimit_nofile {};\npid {};\nerror_log stderr crit;\n\
         events {{\n  worker_connections {};\n}}\n\
         stream {{\n  access_log off;\n  tcp_nodelay on;\n  proxy_half_close on;\n  \
         proxy_connect_timeout 4s;\n  proxy_timeout 1h;\n{extra}",
        plan.workers,
        plan.descriptors,
        plan.directory.join("nginx.pid").display(),
        plan.descriptors_for_sessions(),
    );
    for (index, service) in plan.services.iter().enumerate() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  upstream s{index} {{");
        for backend in &service.backends {
            let _ = writeln!(text, "    server {backend};");
        }
        let listen = service.listen;
        let _ = writeln!(
            text,
            "  }}\n  server {{\n    listen {listen} reuseport backlog=4096;\n    proxy_pass s{index};\n  }}"
        );
    }
    text.push_str("}\n");
    text
}
