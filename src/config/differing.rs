//! Which keys of a service differ between two configurations, by the names that they have in the file.

use super::{AdmissionConfig, ListenConfig, OnDown, ServiceConfig};
use crate::health::{Check, Rules};
use crate::strategy::Parameters;

/// The keys and sections of `[[service]]` that say something else in `new`, in the order of the reference.
pub(super) fn keys(old: &ServiceConfig, new: &ServiceConfig) -> Vec<&'static str> {
    // Whole, so that a field that is added is thought of here.
    let ServiceConfig {
        name: _,
        listen,
        strategy,
        parameters,
        backlog,
        relay,
        retries,
        timeouts,
        queue,
        on_down,
        max_lifetime,
        socket,
        admission: AdmissionConfig { access, limits },
        proxy,
        check,
        health,
        serving,
        passive,
        backends_file,
        backends,
    } = old;
    // How many backends there are is told of these.
    let Parameters {
        configured: _,
        ipv6_prefix,
        max_load,
    } = parameters;
    let Rules {
        min_up,
        fail_back,
        slow_start,
        when_all_down,
    } = serving;
    let addresses = |all: &[ListenConfig]| all.iter().map(|it| it.address).collect::<Vec<_>>();
    let dual = |all: &[ListenConfig]| all.iter().map(|it| it.dual_stack).collect::<Vec<_>>();
    let (was_down, was_rate) = down(*on_down);
    let (is_down, is_rate) = down(new.on_down);
    let moved = addresses(listen) != addresses(&new.listen);
    // Who has listeners removed says nothing of `dual_stack` by it.
    let dual_differs = !moved && dual(listen) != dual(&new.listen);
    [
        ("listen", moved),
        ("dual_stack", dual_differs),
        ("strategy", strategy.name != new.strategy.name),
        (
            "hash_ipv6_prefix",
            *ipv6_prefix != new.parameters.ipv6_prefix,
        ),
        ("max_load", *max_load != new.parameters.max_load),
        ("backlog", *backlog != new.backlog),
        ("relay", *relay != new.relay),
        ("retries", *retries != new.retries),
        ("min_up", *min_up != new.serving.min_up),
        ("fail_back", *fail_back != new.serving.fail_back),
        ("slow_start", *slow_start != new.serving.slow_start),
        ("when_all_down", *when_all_down != new.serving.when_all_down),
        ("on_down", was_down != is_down),
        (
            "close_rate",
            was_rate.zip(is_rate).is_some_and(|(was, is)| was != is),
        ),
        ("timeouts", *timeouts != new.timeouts),
        ("queue", *queue != new.queue),
        ("session", *max_lifetime != new.max_lifetime),
        ("socket", *socket != new.socket),
        ("access", *access != new.admission.access),
        ("limits", *limits != new.admission.limits),
        ("proxy_protocol", *proxy != new.proxy),
        (
            "health",
            *health != new.health || own(check) != own(&new.check),
        ),
        ("passive", *passive != new.passive),
        ("backends_file", *backends_file != new.backends_file),
        ("backend", *backends != new.backends),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

/// A check as far as `[service.health]` says it: the rest is of other sections.
fn own(check: &Check) -> Check {
    Check {
        proxy: None,
        egress: None,
        ..check.clone()
    }
}

fn down(what: OnDown) -> (bool, Option<u32>) {
    match what {
        OnDown::Keep => (false, None),
        OnDown::Close { rate } => (true, Some(rate)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;

    fn service(keys: &str, backend: &str) -> ServiceConfig {
        let text = format!(
            "[[service]]\nname = \"a\"\nlisten = \"[::]:1\"\n{keys}\n\
             [[service.backend]]\naddress = \"2.2.2.2:2\"\n{backend}"
        );
        compile(&text, "f").unwrap().config.services.remove(0)
    }

    #[test]
    fn each_key_is_told_by_its_name_in_the_file() {
        let old = service("", "");
        for (keys_of, told) in [
            ("", &[][..]),
            ("dual_stack = true", &["dual_stack"]),
            (
                "strategy = \"source-hash\"\nmax_load = 1.5",
                &["strategy", "max_load"],
            ),
            (
                "backlog = 9\nretries = 0\nrelay = \"copy\"",
                &["backlog", "relay", "retries"],
            ),
            (
                "slow_start = \"9s\"\nwhen_all_down = \"use-all\"",
                &["slow_start", "when_all_down"],
            ),
            ("on_down = \"close\"", &["on_down"]),
            (
                "timeouts.idle = \"9s\"\nqueue.size = 3",
                &["timeouts", "queue"],
            ),
            ("session.max_lifetime = \"9h\"", &["session"]),
            ("socket.keepalive_idle = \"9s\"", &["socket"]),
            ("socket.source = \"10.0.0.9\"", &["socket"]),
            (
                "access.deny = \"9.0.0.0/8\"\nlimits.max_per_source = 9",
                &["access", "limits"],
            ),
            ("proxy_protocol.send = \"v2\"", &["proxy_protocol"]),
            ("health.kind = \"tls\"", &["health"]),
            (
                "health.interval = \"9s\"\npassive.failures = 9",
                &["health", "passive"],
            ),
            ("backends_file = \"x\"", &["backends_file"]),
        ] {
            let new = service(keys_of, "");
            assert_eq!(keys(&old, &new), told, "{keys_of}");
            assert_eq!(old == new, told.is_empty(), "{keys_of}");
        }
        let more = "enabled = false\n[[service.backend]]\naddress = \"2.2.2.2:3\"\n";
        assert_eq!(keys(&old, &service("", more)), ["backend"]);
        let close = |rate| service(&format!("on_down = \"close\"\nclose_rate = {rate}"), "");
        assert_eq!(keys(&close(5), &close(6)), ["close_rate"]);
    }
}
