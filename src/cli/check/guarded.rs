//! Who may come in, how many, and what goes with them: lines of `ballast check` for what is set.

use crate::admission::Cap;
use crate::config::{LimitsConfig, OnDown, ProxyConfig, QueueConfig, ServiceConfig, written};
use crate::model::Sources;
use crate::proxy_protocol::Version;

/// A name and a text for each of them.
pub(super) fn lines(service: &ServiceConfig) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    let mut put = |what, how: Option<String>| lines.extend(how.map(|how| (what, how)));
    let access = service.admission.access.as_ref();
    put("access", access.map(ToString::to_string));
    put("limits", limits(&service.admission.limits));
    put("PROXY", proxy(&service.proxy));
    put("queue", queue(service.queue));
    put("sources", sources(service));
    put("on_down", on_down(service.on_down));
    lines
}

fn limits(limits: &LimitsConfig) -> Option<String> {
    let mut all = Vec::new();
    let mut put = |limit: Option<String>, is_dry: bool| {
        let dry = if is_dry { " (dry run)" } else { "" };
        all.extend(limit.map(|limit| limit + dry));
    };
    if let Some(most) = limits.max_connections {
        put(Some(format!("max_connections {}", most.most)), most.dry);
    }
    if let Some(rate) = limits.accept_rate {
        put(Some(format!("accept_rate {}", rate.most)), rate.dry);
    }
    let source = &limits.source;
    let most = source.most.map(|most| format!("max_per_source {most}"));
    put(most, source.most_is_dry);
    let rate = source.rate.map(|rate| format!("rate_per_source {rate}"));
    put(rate, source.rate_is_dry);
    for (cap, limit) in Cap::ALL.into_iter().zip(&limits.caps) {
        if let Some(limit) = limit {
            put(Some(format!("{cap} {}", limit.most)), limit.dry);
        }
    }
    (!all.is_empty()).then(|| all.join(", "))
}

fn proxy(proxy: &ProxyConfig) -> Option<String> {
    let accept = proxy.accept.as_ref().map(|accept| {
        let paths = if accept.from_paths { " and unix:" } else { "" };
        let within = written(accept.timeout);
        format!("accepted from {:?}{paths} within {within}", accept.from)
    });
    let send = proxy.send.map(|send| {
        let version = match send.version {
            Version::V1 => "v1",
            Version::V2 => "v2",
        };
        let id = if send.unique_id {
            " with unique_id"
        } else {
            ""
        };
        format!("sent as {version}{id}")
    });
    let both: Vec<_> = accept.into_iter().chain(send).collect();
    (!both.is_empty()).then(|| both.join(", "))
}

fn queue(queue: QueueConfig) -> Option<String> {
    (queue != QueueConfig::default()).then(|| match queue.size {
        0 => "nobody waits while all backends are full".to_owned(),
        1 => format!("1 client waits, for {} at most", written(queue.timeout)),
        size => format!(
            "{size} clients wait, for {} at most",
            written(queue.timeout)
        ),
    })
}

fn sources(service: &ServiceConfig) -> Option<String> {
    let egress = service.socket.outgoing.as_ref()?.egress.as_ref()?;
    let mut parts = Vec::new();
    match &egress.sources {
        Sources::Routed => {}
        Sources::Client => parts.push("the client's own address".to_owned()),
        Sources::Pool(pool) => {
            let all = pool.iter().map(ToString::to_string);
            parts.push(super::few(all, pool.len()));
        }
    }
    parts.extend(
        egress
            .interface
            .as_ref()
            .map(|it| format!("interface {it}")),
    );
    parts.extend(egress.mark.map(|mark| format!("mark {mark}")));
    Some(parts.join(", "))
}

fn on_down(on_down: OnDown) -> Option<String> {
    match on_down {
        OnDown::Keep => None,
        OnDown::Close { rate } => Some(format!("its sessions are closed, {rate} a second")),
    }
}
