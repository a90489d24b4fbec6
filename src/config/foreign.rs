//! Words of HAProxy, nginx and LVS, and what they are called here: who comes from there writes them first.

/// What a word of another balancer is here.
#[derive(Debug)]
pub(super) struct Foreign {
    word: &'static str,
    /// The key that is meant, wherever that belongs.
    pub(super) key: &'static str,
    /// What to write instead.
    pub(super) help: &'static str,
}

/// What `word` is here, if it is the key of another balancer.
pub(super) fn key(word: &str) -> Option<&'static Foreign> {
    found(KEYS, word)
}

/// What `word` is here, if it is a way to balance of another balancer.
pub(super) fn strategy(word: &str) -> Option<&'static str> {
    found(STRATEGIES, word).map(|foreign| foreign.help)
}

fn found(table: &'static [Foreign], word: &str) -> Option<&'static Foreign> {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_', ' '], "");
    let wanted = plain(word);
    table.iter().find(|foreign| plain(foreign.word) == wanted)
}

const fn is(word: &'static str, key: &'static str, help: &'static str) -> Foreign {
    Foreign { word, key, help }
}

const INTERVAL: &str = "how often a backend is probed is `interval` in [service.health]";
const SERVERS: &str = "each server is a [[service.backend]] with an `address`";
const CHECKS: &str = "every backend is checked; how, says [service.health]";
const FAILURES: &str =
    "failures of real sessions that count are `failures` within a `window` in [service.passive]";
const STRATEGY: &str = "how a backend is picked is `strategy` in [[service]]";
const ENABLED: &str = "a backend that gets no new sessions has `enabled = false`";
const SILENCE: &str = "the longest silence of a session is `idle` in [service.timeouts]";
const SERVICE: &str = "listeners and the backends behind them are one [[service]]";

/// Keys, with the key that is meant.
static KEYS: &[Foreign] = &[
    is(
        "backup",
        "priority",
        "a standby has `priority = 1`: it serves while none of priority 0 is up",
    ),
    is(
        "bind",
        "listen",
        "where clients connect is `listen` in [[service]]",
    ),
    is("balance", "strategy", STRATEGY),
    is("lb_algo", "strategy", STRATEGY),
    is(
        "least_conn",
        "strategy",
        "write strategy = \"least-connections\" in [[service]]",
    ),
    is(
        "ip_hash",
        "strategy",
        "write strategy = \"source-hash\" in [[service]]",
    ),
    is(
        "stick",
        "strategy",
        "write strategy = \"source-hash\" in [[service]]",
    ),
    is("server", "backend", SERVERS),
    is("servers", "backend", SERVERS),
    is("real_server", "backend", SERVERS),
    is("backends", "backend", SERVERS),
    is("proxy_pass", "backend", SERVERS),
    is("upstream", "service", SERVICE),
    is("frontend", "service", SERVICE),
    is("virtual_server", "service", SERVICE),
    is(
        "global",
        "runtime",
        "the process as a whole is [runtime], its log is [log]",
    ),
    is(
        "defaults",
        "service",
        "there are no common defaults: what is not written has its own, see config/ballast.toml",
    ),
    is(
        "mode",
        "kind",
        "everything is TCP here; a check that speaks HTTP is kind = \"http\" in [service.health]",
    ),
    is("check", "kind", CHECKS),
    is("option", "kind", CHECKS),
    is(
        "httpchk",
        "kind",
        "write kind = \"http\" in [service.health]",
    ),
    is("inter", "interval", INTERVAL),
    is(
        "fastinter",
        "fast_interval",
        "that is `fast_interval` in [service.health]",
    ),
    is(
        "downinter",
        "down_interval",
        "that is `down_interval` in [service.health]",
    ),
    is(
        "maxconn",
        "max_connections",
        "that is `max_connections`: in [runtime] for all sessions, in [service.limits] for one service, in [[service.backend]] for one server",
    ),
    is(
        "max_conns",
        "max_connections",
        "that is `max_connections` in [[service.backend]]",
    ),
    is(
        "worker_connections",
        "max_connections",
        "that is `max_connections` in [runtime]",
    ),
    is(
        "maxqueue",
        "size",
        "how many clients wait for a place is `size` in [service.queue]",
    ),
    is("max_fails", "failures", FAILURES),
    is("fail_timeout", "window", FAILURES),
    is(
        "accept_proxy",
        "accept_from",
        "the proxies whose header tells the client are `accept_from` in [service.proxy_protocol]",
    ),
    is(
        "send_proxy",
        "send",
        "the header that backends are sent is `send` in [service.proxy_protocol]",
    ),
    is("observe", "failures", FAILURES),
    is("disabled", "enabled", ENABLED),
    is("down", "enabled", ENABLED),
    is(
        "nbthread",
        "workers",
        "how many threads relay is `workers` in [runtime]",
    ),
    is(
        "nbproc",
        "workers",
        "how many threads relay is `workers` in [runtime]",
    ),
    is(
        "worker_processes",
        "workers",
        "how many threads relay is `workers` in [runtime]",
    ),
    is(
        "proxy_connect_timeout",
        "connect",
        "that is `connect` in [service.timeouts]",
    ),
    is("proxy_timeout", "idle", SILENCE),
    is("timeout_client", "idle", SILENCE),
    is("timeout_server", "idle", SILENCE),
    is(
        "on_marked_down",
        "on_down",
        "that is `on_down` in [[service]]",
    ),
];

/// Ways to balance; where the name is nearly ours, the slip is recognised without this.
static STRATEGIES: &[Foreign] = &[
    is("rr", "strategy", "write \"round-robin\""),
    is("wrr", "strategy", "write \"weighted\""),
    is(
        "static-rr",
        "strategy",
        "write \"weighted\": turns by weight",
    ),
    is("lc", "strategy", "write \"least-connections\""),
    is(
        "wlc",
        "strategy",
        "write \"least-connections\", which goes by weight",
    ),
    is("least_request", "strategy", "write \"least-connections\""),
    is("ip_hash", "strategy", "write \"source-hash\""),
    is("hash", "strategy", "write \"source-hash\""),
    is("sh", "strategy", "write \"source-hash\""),
    is(
        "maglev",
        "strategy",
        "write \"source-hash\", which is Maglev",
    ),
    is("ring_hash", "strategy", "write \"source-hash\""),
    is(
        "first",
        "strategy",
        "write `priority` in each [[service.backend]]: the first that is up serves",
    ),
    is(
        "failover",
        "strategy",
        "write `priority` in each [[service.backend]]: the first that is up serves",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;
    use crate::config::keys::SECTIONS;

    #[test]
    fn what_is_meant_is_a_key_and_no_word_is_one_where_it_is_meant() {
        for foreign in KEYS {
            let has = |key: &str| SECTIONS.iter().any(|section| section.has(key));
            assert!(has(foreign.key), "{}", foreign.key);
            // They are words about services; `mode` of a Unix socket is another thing.
            let of_services = SECTIONS.iter().filter(|it| it.path.starts_with("service"));
            let mut of_services = of_services.filter(|it| it.path != "service.socket");
            let is_ours = of_services.any(|section| section.has(foreign.word));
            assert!(!is_ours, "{} is a key of ours", foreign.word);
        }
        for foreign in STRATEGIES {
            assert!(crate::strategy::find(foreign.word).is_none());
        }
    }

    #[test]
    fn who_writes_another_balancers_words_is_told_ours_and_nothing_else() {
        let text = "[[service]]\nname = \"web\"\nbind = \"127.0.0.1:1\"\nbalance = \"roundrobin\"\nmode = \"tcp\"\n\
             [[service.server]]\naddress = \"10.0.0.1:80\"\n";
        let problems = compile(text, "f").unwrap_err().to_string();
        for help in [
            "where clients connect is `listen` in [[service]]",
            "how a backend is picked is `strategy`",
            "everything is TCP here",
            "each server is a [[service.backend]]",
        ] {
            assert!(problems.contains(help), "{help}\n{problems}");
        }
        assert!(!problems.contains("has no"), "{problems}");
        let text = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\nstrategy = \"ip_hash\"\n\
             [[service.backend]]\naddress = \"10.0.0.1:80\"\nbackup = true\ncheck = true\ninter = \"2s\"\n";
        let problems = compile(text, "f").unwrap_err().to_string();
        for help in [
            "write \"source-hash\"",
            "`priority = 1`",
            "every backend is checked",
            "`interval` in [service.health]",
        ] {
            assert!(problems.contains(help), "{help}\n{problems}");
        }
    }
}
