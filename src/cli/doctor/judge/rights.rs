//! What the daemon may do, and what others must not.

use super::number;
use crate::cli::doctor::Finding;
use crate::cli::doctor::access::{
    NET_BIND_SERVICE, Node, Want, Who, open_to_all, quoted, readable_by_all,
};
use crate::cli::doctor::facts::{Facts, Item};
use crate::config::Config;

/// Every file that the daemon needs.
pub(super) fn files(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    for item in &facts.files {
        findings.extend(of(item, &facts.who));
    }
    if findings.is_empty() {
        let files = facts.files.len() as u64;
        let now = match files {
            1 => "the configuration is as it should be".to_owned(),
            _ => format!(
                "{} files and directories are as they should be",
                number(files)
            ),
        };
        findings.push(Finding::fine("files", now));
    }
    findings
}

fn of(item: &Item, who: &Who) -> Vec<Finding> {
    let Item { what, path, .. } = item;
    let shown = quoted(path);
    let chain = match &item.chain {
        Ok(chain) => chain,
        Err(_) if item.optional => return Vec::new(),
        Err(error) => {
            let make = match item.want {
                Want::Write => vec![format!("sudo install -d -m 700 -o {} {shown}", who.name)],
                Want::Read | Want::Run => Vec::new(),
            };
            let finding = Finding::problem("files", format!("{what}, {shown}: {error}"))
                .wanted("it there")
                .fix(make);
            return vec![finding];
        }
    };
    let Some(last) = chain.last() else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    let is_of_the_kind = match item.want {
        Want::Read | Want::Run => last.is_regular(),
        Want::Write => last.is_directory(),
    };
    if !is_of_the_kind {
        let kind = match item.want {
            Want::Read | Want::Run => "a regular file",
            Want::Write => "a directory",
        };
        let now = format!("{what}, {shown}, is not {kind}");
        return vec![Finding::problem("files", now).wanted(kind)];
    }
    if let Some(node) = who.refused(chain, item.want) {
        findings.push(refused(item, node, node == last, who));
    }
    if let Some(node) = open_to_all(chain) {
        findings.push(
            Finding::problem(
                "files",
                format!(
                    "{what}: everybody may write {} ({})",
                    quoted(&node.path),
                    node.permissions()
                ),
            )
            .wanted("its owner alone to write there")
            .why("who writes it decides where clients go, and what runs as the daemon")
            .fix([format!("sudo chmod o-w {}", quoted(&node.path))]),
        );
    }
    if item.secret && readable_by_all(chain) {
        findings.push(
            Finding::problem(
                "files",
                format!(
                    "{what}: everybody may read {shown} ({})",
                    last.permissions()
                ),
            )
            .wanted("the daemon's user to read it, and nobody else")
            .why("there is a password or a token in it")
            .fix([
                format!("sudo chgrp {} {shown}", who.name),
                format!("sudo chmod 640 {shown}"),
            ]),
        );
    }
    findings
}

fn refused(item: &Item, node: &Node, is_last: bool, who: &Who) -> Finding {
    let shown = quoted(&node.path);
    let (verb, letter) = match item.want {
        _ if !is_last => ("enter", "x"),
        Want::Read => ("read", "r"),
        Want::Write => ("write", "w"),
        Want::Run => ("run", "x"),
    };
    let fix = match item.want {
        Want::Write => format!("sudo chown {} {shown}", who.name),
        Want::Run => format!("sudo chmod a+{letter} {shown}"),
        Want::Read => format!(
            "sudo chgrp {} {shown} && sudo chmod g+{letter} {shown}",
            who.name
        ),
    };
    let why = match item.want {
        Want::Read => "a start or a reload that needs it fails",
        Want::Write => "what is known of backends, and what operators said, is lost with a restart",
        Want::Run => "it cannot be started: the check says nothing, or the alert is not sent",
    };
    Finding::problem(
        "files",
        format!(
            "{}: {} may not {verb} {shown} ({})",
            item.what,
            who.name,
            node.permissions()
        ),
    )
    .wanted(format!("{} able to", who.name))
    .why(why)
    .fix([fix])
}

/// Listeners on ports that need a privilege.
pub(super) fn privileged_ports(facts: &Facts, config: &Config) -> Finding {
    let free_from = facts
        .kernel
        .number("net.ipv4.ip_unprivileged_port_start")
        .unwrap_or(1024);
    let listeners = config.services.iter().flat_map(|it| &it.listen);
    let ports = listeners.filter_map(|it| Some(u64::from(it.address.inet()?.port())));
    let Some(port) = ports.filter(|port| (1..free_from).contains(port)).min() else {
        return Finding::fine("privileges", "none needed");
    };
    let who = &facts.who;
    if who.can(NET_BIND_SERVICE) {
        let now = format!("{} may bind port {port} (CAP_NET_BIND_SERVICE)", who.name);
        return Finding::fine("privileges", now);
    }
    Finding::problem(
        "privileges",
        format!("{} may not bind port {port}", who.name),
    )
    .wanted("CAP_NET_BIND_SERVICE, as the unit gives it")
    .why("the start fails")
    .fix([
        "sudo systemctl edit ballast",
        "[Service]",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
    ])
}
