//! Whole files: what is accepted, and what each kind of mistake is answered with.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::super::keys::{CHECK_KEYS, HEALTH, Preset, SECTIONS, Section};
use super::*;
use crate::config::{LogConfig, RuntimeConfig, Severity, health};

const GOOD: &str = r#"
[[service]]
name = "web"
listen = ["0.0.0.0:80", "[::]:80"]
strategy = "least-connections"

[service.timeouts]
idle = "10m"

[[service.backend]]
name = "app-1"
address = "10.0.0.11:8080"
weight = 3

[[service.backend]]
address = "db.internal:5432"
"#;

fn good(text: &str) -> Loaded {
    compile(text, "f").unwrap_or_else(|rejected| panic!("{rejected}"))
}

/// The one-line form of everything that is wrong with `text`.
fn faults(text: &str) -> String {
    match compile(text, "f") {
        Ok(loaded) => loaded.warnings.lines().join("\n"),
        Err(rejected) => rejected.lines().join("\n"),
    }
}

#[track_caller]
fn says(text: &str, fault: &str) {
    let faults = faults(text);
    assert!(faults.contains(fault), "{fault}\nnot in:\n{faults}");
}

/// A good service whose lines are changed by replacing `from` with `to`.
fn with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    GOOD.replacen(from, to, 1)
}

#[test]
fn a_good_file_becomes_a_configuration_with_every_default() {
    let Loaded {
        config, warnings, ..
    } = good(GOOD);
    assert!(warnings.is_empty());
    assert_eq!(config.runtime, RuntimeConfig::default());
    assert_eq!(config.log, LogConfig::default());
    let service = &config.services[0];
    assert_eq!(&*service.name, "web");
    assert_eq!(service.listen.len(), 2);
    assert_eq!(service.strategy.name, "least-connections");
    assert_eq!((service.backlog, service.retries), (4096, 2));
    assert_eq!(service.timeouts.idle, Duration::from_secs(600));
    assert_eq!(service.timeouts.connect, Duration::from_secs(4));
    assert_eq!(service.health, health::default_policy());
    assert_eq!(service.passive, crate::health::Passive::default());
    assert_eq!(
        (
            service.parameters.configured,
            service.parameters.ipv6_prefix
        ),
        (2, 64)
    );
    assert_eq!(&*service.backends[0].name, "app-1");
    assert_eq!(service.backends[0].weight, 3);
    assert_eq!(&*service.backends[1].name, "db.internal:5432");
    assert!(service.backends[1].enabled);
}

#[test]
fn inline_tables_and_windows_line_ends_and_a_byte_order_mark_are_fine() {
    let inline =
        "service = [{ name = \"a\", listen = \"127.0.0.1:1\", backend = [{ address = \"b:1\" }] }]";
    assert_eq!(good(inline).config.services.len(), 1);
    assert_eq!(
        good(&GOOD.replace('\n', "\r\n")).config,
        good(&format!("\u{feff}{GOOD}")).config
    );
}

#[test]
fn every_key_of_the_table_is_accepted_and_its_preset_is_what_holds_without_it() {
    let base = "[[service]]\nname = \"a\"\nlisten = \"[::]:80\"\n";
    let backend = "[[service.backend]]\naddress = \"b:1\"\n";
    for section in SECTIONS {
        for key in section.keys {
            let Preset::Is(preset) = key.preset else {
                continue;
            };
            let line = format!("{} = {preset}\n", key.name);
            let kind = kind_for(section, key.name);
            let without = match kind.as_str() {
                "" => good(&format!("{base}{backend}")).config,
                kind => good(&format!("{base}{backend}{}\n{kind}", section.header)).config,
            };
            let line = format!("{kind}{line}");
            let text = match section.path {
                "service" => format!("{base}{line}{backend}"),
                "service.backend" => format!("{base}{backend}{line}"),
                "alert" => {
                    let alert = "[[alert]]\nname = \"a\"\non = [\"degraded\", \"flapping\"]\nexec = \"/a\"\n";
                    let without = good(&format!("{base}{backend}{alert}")).config;
                    let with = good(&format!("{base}{backend}{alert}{line}")).config;
                    assert_eq!(with, without, "{line}");
                    continue;
                }
                _ => format!("{base}{backend}{}\n{line}", section.header),
            };
            assert_eq!(good(&text).config, without, "{line}");
        }
    }
}

/// The line without which the key would belong to another kind of check.
fn kind_for(section: &Section, key: &str) -> String {
    let found = CHECK_KEYS.iter().find(|(known, _)| *known == key);
    match found.filter(|_| section.path == HEALTH.path) {
        Some((_, kinds)) => format!("kind = \"{}\"\n", kinds[0]),
        None => String::new(),
    }
}

#[test]
fn the_table_of_keys_has_no_key_that_the_decoder_does_not_read() {
    let wrong = |section: &Section, key: &str| {
        let header = section.header;
        let parents = match section.path.starts_with("service.") {
            true => "[[service]]\n",
            false => "",
        };
        let kind = kind_for(section, key);
        format!("{parents}{header}\n{kind}{key} = 1979-05-27\n")
    };
    for section in SECTIONS {
        for key in section.keys {
            let faults = faults(&wrong(section, key.name));
            assert!(
                faults.contains(&format!("`{}` is the date", key.name)),
                "{faults}"
            );
        }
    }
}

#[test]
fn an_empty_file_and_one_without_a_service_are_problems() {
    says("", "f: the file is empty");
    says(" \n\n", "the file is empty");
    says(
        "# nothing\n[log]\nlevel = \"info\"",
        "f: no service is configured",
    );
    says("service = []", "no service");
    says("[service]\nname = \"a\"", "`service` is a single section");
}

#[test]
fn a_section_before_the_list_that_it_belongs_to_is_one_problem() {
    let first = |text: &str| {
        format!(
            "{text}\n{GOOD}\n[[service]]\nname = \"other\"\nlisten = \"[::1]:1\"\n[[service.backend]]\naddress = \"10.0.0.1:1\"\n"
        )
    };
    let expected = "f:2:1: this section stands before the first [[service]]";
    for text in [
        "# first\n[service.timeouts]\nidle = \"1h\"",
        "# first\n[[service.backend]] # of all\naddress = \"10.0.0.1:1\"",
        "# first\n[service.no_such]\nkey = 1",
    ] {
        let faults = faults(&first(text));
        assert_eq!(faults.matches("f:").count(), 1, "{faults}");
        assert!(faults.contains(expected), "{faults}");
    }
    let single = faults(&first(
        "[service]\nname = \"x\"\n[service.health]\nfall = 3",
    ));
    assert_eq!(single.matches("f:").count(), 1, "{single}");
    assert!(
        single.contains("f:1:1: `service` is a single section"),
        "{single}"
    );
    // Each has to be moved, and what is wrong elsewhere is told beside it.
    let two = "[service.health]\nfall = 0\n[service.timeouts]\nidle = \"1h\"";
    let faults = faults(&first(two).replacen("address", "adress", 1));
    assert_eq!(faults.matches("stands before").count(), 2, "{faults}");
    assert!(
        faults.contains("unknown key `adress`") && !faults.contains("twice"),
        "{faults}"
    );
}

#[test]
fn sections_of_a_list_with_one_pair_of_brackets_are_one_problem() {
    let one = |name: &str| {
        format!("[service]\nname = \"{name}\"\n[service.backend]\naddress = \"10.0.0.1:1\"\n")
    };
    let faults_of = |text: &str| {
        let faults = faults(text);
        assert_eq!(faults.matches("f:").count(), 1, "{faults}");
        faults
    };
    let two = faults_of(&(one("a") + &one("b")));
    assert!(
        two.contains("f:1:1: `service` is a single section"),
        "{two}"
    );
    assert!(
        two.contains("write [[service]] here and in line 5,"),
        "{two}"
    );
    let three = faults_of(&(one("a") + &one("b") + &one("c")));
    assert!(three.contains("here and in lines 5, 9, since"), "{three}");
    // Below one that is right, and what is wrong elsewhere is told beside it.
    let mixed = faults(&format!("{GOOD}{}[log]\nlevel = \"x\"\n", one("b")));
    assert!(mixed.contains("write [[service]], since"), "{mixed}");
    assert!(
        mixed.contains("unknown level") && !mixed.contains("twice"),
        "{mixed}"
    );
    let backends = format!(
        "{GOOD}[[service]]\nname = \"b\"\nlisten = \"[::1]:1\"\n{}{}",
        "[service.backend]\naddress = \"10.0.0.1:1\"\n",
        "[service.backend]\naddress = \"10.0.0.2:1\"\n",
    );
    let backends = faults_of(&backends);
    assert!(
        backends.contains("write [[service.backend]] here and in line"),
        "{backends}"
    );
    let named = faults_of("[service.web]\nlisten = \"127.0.0.1:1\"\n");
    assert!(
        named.contains("write [[service]], and below it name = \"web\""),
        "{named}"
    );
}

#[test]
fn below_a_mistyped_header_nothing_else_is_wrong() {
    let faults = faults(&with("[[service]]", "[[services]]"));
    assert_eq!(faults.matches("f:").count(), 1, "{faults}");
    assert!(faults.contains("did you mean `service`?"), "{faults}");
    says(
        "[[service.backend]]\naddress = \"10.0.0.1:1\"",
        "f:1:3: this section stands in no [[service]]",
    );
}

#[test]
fn mistyped_keys_are_told_what_they_may_have_been() {
    says(&with("strategy", "stratgy"), "did you mean `strategy`?");
    says(&with("address", "adress"), "f:12:1: unknown key `adress`");
    says(
        &with("[service.timeouts]", "[service.timeout]"),
        "did you mean `timeouts`?",
    );
    says("[[services]]", "did you mean `service`?");
    assert!(!faults("[[services]]").contains("no service is configured"));
    assert!(!faults(&with("address", "adress")).contains("has no address"));
    says(
        &with("strategy", "fall = 2\nstrategy"),
        "`fall` belongs in [service.health] (failures in a row that take an up backend down)",
    );
    // In the service before anywhere else, and everywhere with what it is there.
    says(
        &with("strategy", "max_connections = 9\nstrategy"),
        "`max_connections` belongs in [service.limits] (sessions at a time; more wait to be accepted) or \
         [[service.backend]] (sessions at a time; more wait in the service's queue)",
    );
    says(
        "[log]\nmax_connections = 9",
        "belongs in [runtime] (sessions at a time over all services) or [service.limits] (",
    );
}

#[test]
fn values_out_of_range_say_what_is_allowed() {
    for (key, value, allowed) in [
        ("backlog", "0", "1 to 65535"),
        ("backlog", "65536", "1 to 65535"),
        ("retries", "16", "0 to 15"),
        ("retries", "-1", "0 to 15"),
        ("hash_ipv6_prefix", "0", "1 to 128"),
        ("hash_ipv6_prefix", "0x81", "1 to 128"),
        (
            "backlog",
            "99999999999999999999999999999999999999999999",
            "1 to 65535",
        ),
    ] {
        let text = with("strategy", &format!("{key} = {value}\nstrategy"));
        says(
            &text,
            &format!("`{key}` is {value}, which is out of range; allowed: {allowed}"),
        );
    }
    says(
        &with("weight = 3", "weight = 70_000"),
        "allowed: 1 to 65535",
    );
    says(&with("idle = \"10m\"", "idle = \"0s\""), "more than \"0s\"");
    assert!(compile(&format!("runtime.drain_timeout = \"0s\"\n{GOOD}"), "f").is_ok());
    says("[runtime]\nworkers = 0", "allowed: 1 to 1024");
    says(
        "[[service]]\n[service.health]\nrise = 1001",
        "allowed: 1 to 1000",
    );
    says(
        "[[service]]\n[service.health]\ninterval = \"9ms\"",
        "allowed: \"10ms\" to \"366d\"",
    );
}

#[test]
fn wrong_types_say_what_is_expected() {
    says(
        &with("weight = 3", "weight = \"3\""),
        "write 3 without quotes",
    );
    says(&with("weight = 3", "weight = 1.5"), "not an integer");
    says(
        &with("weight = 3", "enabled = \"false\""),
        "write false without quotes",
    );
    says(
        &with("idle = \"10m\"", "idle = 600"),
        "write \"600s\" for seconds",
    );
    says(&with("name = \"web\"", "name = 3"), "not a string");
    says(
        "[[service]]\n[service.proxy_protocol]\nsend = 2",
        "allowed: \"v1\", \"v2\"",
    );
    says("runtime = 3", "write [runtime]");
    says("service = 3", "write [[service]]");
    says(
        "[[service]]\nbackend = [\"10.0.0.1:80\"]",
        "write [[service.backend]] for each",
    );
    says(
        "[[service]]\nlisten = 80",
        "write \"0.0.0.0:80\" for every IPv4 address",
    );
}

#[test]
fn a_service_needs_a_name_a_listener_and_a_backend() {
    let faults = faults("[[service]]\n[[service]]\nname = \"b\"\nlisten = []\nbackend = []");
    for fault in [
        "f:1:1: this service has no name",
        "f:1:1: this service has no listener",
        "f:1:1: this service has no backend",
        "f:4:10: service `b` has no listener",
        "f:2:1: service `b` has no backend",
    ] {
        assert!(faults.contains(fault), "{fault}\nnot in:\n{faults}");
    }
    says(
        "[[service]]\n[[service.backend]]",
        "f:2:1: this backend has no address",
    );
}

#[test]
fn a_backend_is_at_an_address_or_behind_a_name_and_never_both() {
    let backend = |keys: &str| with("address = \"db.internal:5432\"", keys);
    good(&backend("srv = \"_pg._tcp.example.org\""));
    good(&backend(
        "address = \"db.internal:5432\"\nfamily = \"ipv6\"",
    ));
    says(
        &backend("srv = \"_pg._tcp.example.org\"\naddress = \"db.internal:5432\""),
        "this backend has an `address` and a `srv`",
    );
    says(
        &backend("srv = \"_pg._tcp.example.org\"\nweight = 2"),
        "this backend has a `weight` and a `srv`",
    );
    says(
        &backend("srv = \"_pg._tcp.example.org\"\npriority = 1"),
        "this backend has a `priority` and a `srv`",
    );
    says(
        &backend("srv = \"_pg._tcp.example.org:5432\""),
        "has a port, which the records say",
    );
    says(
        &backend("address = \"10.0.0.9:5432\"\nfamily = \"ipv6\""),
        "`family` has no effect here",
    );
    says(&backend("family = \"ipv6\""), "this backend has no address");
    says(
        &backend("address = \"db.internal:1\"\nfamily = \"v6\""),
        "unknown family \"v6\"",
    );
}

#[test]
fn a_list_of_backends_stands_in_for_those_of_the_file() {
    let text = "[[service]]\nname = \"a\"\nlisten = \"[::]:80\"\n";
    let Loaded {
        config, warnings, ..
    } = good(&format!("{text}backends_file = \"list.toml\""));
    assert!(warnings.is_empty());
    assert!(config.services[0].backends.is_empty());
    says(
        &format!("{text}backends_file = \"\""),
        "does not name a file",
    );
    says(text, "service `a` has no backend");
}

#[test]
fn names_are_asked_of_addresses_for_a_time_that_can_be() {
    let discovery = |keys: &str| format!("[discovery]\n{keys}\n{GOOD}");
    let config = good(&discovery("resolvers = [\"::1\", \"127.0.0.1:5353\"]")).config;
    let resolvers = config.discovery.resolvers.iter();
    let resolvers: Vec<_> = resolvers.map(ToString::to_string).collect();
    assert_eq!(resolvers, ["[::1]:53", "127.0.0.1:5353"]);
    says(&discovery("resolvers = []"), "`resolvers` is empty");
    says(&discovery("resolvers = \"::1\""), "not a list of addresses");
    says(&discovery("resolvers = [\"dns.internal\"]"), "has no port");
    says(&discovery("min_ttl = \"10ms\""), "out of range");
    says(
        &discovery("min_ttl = \"1m\"\nmax_ttl = \"1s\""),
        "`max_ttl` (1s) is shorter than `min_ttl` (1m)",
    );
}

#[test]
fn names_used_twice_point_at_the_first_use() {
    says(&format!("{GOOD}{GOOD}"), "two services are named `web`");
    let twin = with(
        "address = \"db.internal:5432\"",
        "name = \"app-1\"\naddress = \"b:1\"",
    );
    says(&twin, "two backends of this service are named `app-1`");
    says(&twin, "first used on line 11");
    let twin = with(
        "address = \"db.internal:5432\"",
        "address = \"10.0.0.11:8080\"",
    );
    says(
        &twin,
        "warning: two backends of this service are at 10.0.0.11:8080",
    );
    assert!(compile(&twin, "f").is_ok());
    let spare = twin.replace("10.0.0.11:8080\"", "10.0.0.11:8080\"\nenabled = false");
    assert!(!faults(&spare).contains("two backends"), "{spare}");
    let spare = twin.replacen("10.0.0.11:8080\"", "10.0.0.11:8080\"\nenabled = false", 1);
    assert!(!faults(&spare).contains("two backends"), "{spare}");
}

#[test]
fn listeners_conflict_as_the_kernel_would_have_it() {
    let file = |first: &str, second: &str, dual: bool| {
        let service = |name: &str, listen: &str| {
            format!(
                "[[service]]\nname = \"{name}\"\nlisten = \"{listen}\"\nDUAL[[service.backend]]\naddress = \"b:1\"\n"
            )
        };
        let dual = if dual { "dual_stack = true\n" } else { "" };
        format!(
            "{}{}",
            service("a", first).replace("DUAL", ""),
            service("b", second).replace("DUAL", dual)
        )
    };
    for (first, second, dual, conflict) in [
        ("0.0.0.0:80", "0.0.0.0:80", false, true),
        ("0.0.0.0:80", "127.0.0.1:80", false, true),
        ("127.0.0.1:80", "0.0.0.0:80", false, true),
        ("127.0.0.1:80", "127.0.0.2:80", false, false),
        ("0.0.0.0:80", "127.0.0.1:81", false, false),
        ("[::1]:80", "[::]:80", false, true),
        ("0.0.0.0:80", "[::]:80", false, false),
        ("0.0.0.0:80", "[::]:80", true, true),
        ("127.0.0.1:80", "[::]:80", true, true),
        ("127.0.0.1:80", "[::1]:80", false, false),
        ("0.0.0.0:0", "0.0.0.0:0", false, false),
        ("[::]:0", "[::]:0", true, false),
    ] {
        let result = compile(&file(first, second, dual), "f");
        assert_eq!(
            result.is_err(),
            conflict,
            "{first} {second} {dual}: {result:?}"
        );
    }
    says(
        &file("0.0.0.0:80", "127.0.0.1:80", false),
        "belongs to service `a`, line 3",
    );
    says(
        &with("\"[::]:80\"", "\"0.0.0.0:80\""),
        "0.0.0.0:80 is listened on twice",
    );
}

#[test]
fn one_path_has_one_listener_whatever_it_is_called_and_whosever_it_is() {
    let file = |admin: &str, listen: &str| {
        let service = "[[service.backend]]\naddress = \"b:1\"\n";
        format!(
            "[admin]\nlisten = \"{admin}\"\n\
             [[service]]\nname = \"a\"\nlisten = {listen}\n{service}"
        )
    };
    let taken = file("unix:/nowhere/s", "\"unix:/nowhere/s\"");
    says(&taken, "unix:/nowhere/s is listened on twice");
    says(&taken, "belongs to service `a`, line 5");
    let free = file("unix:/nowhere/t", "\"unix:/nowhere/s\"");
    assert!(compile(&free, "f").is_ok());
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    std::os::unix::fs::symlink(place, directory.path().join("link")).unwrap();
    let two = format!("[\"unix:{place}/s\", \"unix:{place}/link/s\"]");
    says(
        &file("127.0.0.1:1", &two),
        &format!("unix:{place}/link/s conflicts with unix:{place}/s"),
    );
}

#[test]
fn a_service_that_is_its_own_backend_is_refused() {
    says(
        &with("10.0.0.11:8080", "127.0.0.1:80"),
        "is a listener of its own service",
    );
    says(
        &with("10.0.0.11:8080", "[::1]:80"),
        "is a listener of its own service",
    );
    assert!(compile(&with("10.0.0.11:8080", "127.0.0.1:81"), "f").is_ok());
}

#[test]
fn what_is_hardly_meant_is_a_warning_and_no_error() {
    for (text, warning) in [
        (
            with("least-connections", "round-robin"),
            "weights have no effect",
        ),
        (
            with("strategy", "hash_ipv6_prefix = 48\nstrategy"),
            "`hash_ipv6_prefix` has no effect",
        ),
        (
            with(
                "[\"0.0.0.0:80\", \"[::]:80\"]",
                "\"1.1.1.1:80\"\ndual_stack = true",
            ),
            "`dual_stack` has no effect",
        ),
        (
            with("idle", "connect_total = \"1s\"\nidle"),
            "cuts every `connect`",
        ),
        (
            with("idle", "connect = \"20s\"\nidle"),
            "cuts every `connect`",
        ),
        (
            format!("{GOOD}[service.health]\ntimeout = \"3s\""),
            "longer than the `interval`",
        ),
        (
            GOOD.replace("address", "enabled = false\naddress"),
            "no backend of service `web` is enabled",
        ),
    ] {
        let loaded = good(&text);
        let lines = loaded.warnings.lines().join("\n");
        assert!(lines.contains(warning), "{warning}\nnot in:\n{lines}");
        assert_eq!(loaded.warnings.warnings, 1, "{lines}");
        assert!(
            loaded
                .warnings
                .problems
                .iter()
                .all(|it| it.severity == Severity::Warning)
        );
    }
    says(
        &format!("admin.listen = \"9900\"\n{GOOD}"),
        "a port without an address",
    );
}

#[test]
fn an_unknown_strategy_is_answered_with_the_list() {
    says(
        &with("least-connections", "least-conn"),
        "did you mean \"least-connections\"?",
    );
    says(
        &with("least-connections", "x"),
        "allowed: \"round-robin\", \"weighted\"",
    );
}

#[test]
fn syntax_errors_are_all_reported_and_hide_no_other_mistake() {
    let text = "[log]\nlevel \"info\"\nformat = jason\nsesions = \"all\"\n[[service]]\nname = \"a\nlisten = 0.0.0.0:80\n";
    let faults = faults(text);
    for fault in [
        "f:2:7: not valid TOML: key with no value",
        "f:3:10: not valid TOML: string values must be quoted",
        "f:4:1: unknown key `sesions`",
        "f:6:10: not valid TOML",
        "write \"0.0.0.0:80\" with quotes",
    ] {
        assert!(faults.contains(fault), "{fault}\nnot in:\n{faults}");
    }
    assert_eq!(faults.lines().count(), 5, "{faults}");
}

#[test]
fn a_broken_header_makes_no_imaginary_problems() {
    for header in ["[[service]", "[service]]", "[[ser vice]]", "[["] {
        let faults = faults(&with("[[service]]", header));
        assert_eq!(faults.lines().count(), 1, "{header}:\n{faults}");
    }
    let faults = faults(&with("[service.timeouts]", "[service.timeouts"));
    assert_eq!(faults.lines().count(), 1, "{faults}");
}

#[test]
fn an_array_that_is_not_closed_is_one_problem() {
    for open in [
        with("\"[::]:80\"]", "\n  \"[::]:80\"\n"),
        with("\"[::]:80\"]", "\"[::]:80\""),
        with("\"[::]:80\"]", "\n  \"[::]:80\",\n"),
        with("address = \"db", "x = [{ a = 1\naddress = \"db"),
    ] {
        let faults = faults(&open);
        assert_eq!(
            faults.matches("this bracket is not closed").count(),
            1,
            "{faults}"
        );
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}

#[test]
fn garbage_and_absurd_nesting_are_answered_promptly() {
    let start = Instant::now();
    for text in [
        "a\0b".to_owned(),
        "[".repeat(100_000),
        format!("a = {}", "[".repeat(100_000)),
        format!("a = {}", "{a=".repeat(50_000)),
        format!("a{} = 1", ".a".repeat(50_000)),
        format!("[a{}]", ".a".repeat(50_000)),
        "]".repeat(100_000),
        "a\n".repeat(50_000),
        "a=\n".repeat(50_000),
        "[[a]\n".repeat(20_000),
        "\"".repeat(100_000),
        "\u{1}\u{7f}é".repeat(10_000),
    ] {
        let rejected = compile(&text, "f").unwrap_err();
        let report = rejected.render(false);
        assert!(report.len() < 64 * 1024, "{} bytes", report.len());
        assert!(rejected.lines().iter().all(|line| line.len() < 1000));
    }
    assert!(
        start.elapsed() < Duration::from_secs(60),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn limits_of_the_process_may_be_dry() {
    let runtime = |dry: &str| {
        let service = "[[service]]\nname = \"a\"\nlisten = \"1.1.1.1:1\"\n\
                       [[service.backend]]\naddress = \"2.2.2.2:2\"\n";
        let limits = "max_connections = 5\naccept_rate = \"5/s\"";
        let file = format!("[runtime]\n{limits}\n{dry}\n{service}");
        compile(&file, "f").map(|loaded| {
            let dry = loaded.config.runtime.dry_run;
            (dry.max_connections, dry.accept_rate)
        })
    };
    assert_eq!(runtime("").unwrap(), (false, false));
    assert_eq!(runtime("dry_run = true").unwrap(), (true, true));
    assert_eq!(
        runtime("dry_run = [\"accept_rate\"]").unwrap(),
        (false, true)
    );
    let wrong = runtime("dry_run = [\"workers\"]").unwrap_err().to_string();
    assert!(
        wrong.contains("`dry_run` has \"workers\", which is no limit") && wrong.contains("f:4:12"),
        "{wrong}"
    );
}

#[test]
fn ten_thousand_backends_and_as_many_mistakes_are_read_whole() {
    let mut text = GOOD.to_owned();
    for index in 0..10_000 {
        text += &format!(
            "[[service.backend]]\nname = \"server-{index}\"\naddress = \"11.{}.{}.{}:8080\"\nweight = 7\n# a comment of some length\n",
            index >> 16,
            index >> 8 & 255,
            index & 255
        );
    }
    assert_eq!(good(&text).config.services[0].backends.len(), 10_002);
    let bad = text.replace("weight = 7", "wait = 7");
    let rejected = compile(&bad, "f").unwrap_err();
    assert_eq!(rejected.report().errors(), 10_000);
    assert_eq!(rejected.lines().last().unwrap(), "f: … and 9950 more");
}

#[test]
fn the_rendering_shows_the_line_with_a_caret() {
    let rejected = compile(&with("strategy", "stratgy"), "ballast.toml").unwrap_err();
    let text = rejected.to_string();
    for part in [
        "error: unknown key `stratgy` in [[service]]\n",
        "--> ballast.toml:5:1\n",
        "5 | stratgy = \"least-connections\"\n",
        "  | ^^^^^^^ did you mean `strategy`? allowed: name, listen,",
        "ballast.toml: 1 error\n",
    ] {
        assert!(text.contains(part), "{part:?}\nnot in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'));
    assert!(rejected.render(true).contains('\u{1b}'));
}

fn holds(text: &str) -> Result<(), TestCaseError> {
    let report = match compile(text, "f") {
        Ok(loaded) => loaded.warnings,
        Err(rejected) => {
            prop_assert!(rejected.report().errors() > 0);
            rejected.report().clone()
        }
    };
    prop_assert!(!report.render(true).contains('\0'));
    for problem in &report.problems {
        if let Some(span) = &problem.span {
            prop_assert!(text.get(span.clone()).is_some(), "{problem:?}");
        }
    }
    prop_assert_eq!(
        report.lines().len(),
        report.problems.len() + usize::from(report.unshown() > 0)
    );
    Ok(())
}

#[test]
fn hunted() {
    let reference = include_str!("../../../config/ballast.toml");
    // What is commented out in the reference is good, too.
    let live = reference.lines().map(|line| match line.strip_prefix("# ") {
        Some(key) if key.contains(" = ") || key.starts_with('[') => format!("{key}\n"),
        _ => format!("{line}\n"),
    });
    let live: String = live.collect();
    let hunt = crate::fuzzing::Hunt {
        target: "config",
        cases: 200,
        seeds: [GOOD, reference, &live]
            .map(|it| it.as_bytes().to_vec())
            .into(),
        words: &[
            b"[[service]]\n",
            b"[[service.backend]]\n",
            b"[service.health]\n",
            b"[service.limits]\n",
            b"[service.access]\n",
            b"[service.queue]\n",
            b"[service.session]\n",
            b"[service.passive]\n",
            b"[service.timeouts]\n",
            b"[service.proxy_protocol]\n",
            b"[runtime]\n",
            b"[admin]\n",
            b"[discovery]\n",
            b"[log]\n",
            b"[[alert]]\n",
            b"[[",
            b"]]",
            b" = ",
            b"\"",
            b"'''",
            b"\"\"\"",
            b"[\"10.0.0.0/8\", \"::/0\"]",
            b"{ hex = \"00\" }",
            b"{ regex = \"(a|b)*$\" }",
            b"\"1h\"",
            b"\"9999999999999999s\"",
            b"\"50%\"",
            b"\"[::]:0\"",
            b"\"unix:/a\"",
            b"\"10/s\"",
            b"true",
            b"1979-05-27T07:32:00Z",
            b"inf",
            b"0x7fffffffffffffff",
            "\u{202e}".as_bytes(),
            "\u{e4}".as_bytes(),
            b"name = \"web\"\n",
            b"listen = \"0.0.0.0:80\"\n",
            b"kind = \"http\"\n",
            b"kind = \"exec\"\n",
            b"kind = \"agent\"\n",
            b"srv = \"_a._tcp.b\"\n",
            b"address = \"a.example:1\"\n",
            b"on = [\"backend-down\"]\n",
            b"webhook = \"http://[::1/\"\n",
        ],
    };
    hunt.run(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        holds(&text).unwrap();
        match compile(&text, "f") {
            Ok(loaded) => {
                let first = loaded.warnings.problems.first();
                format!("good, {}", first.map_or("", |it| &it.message))
            }
            Err(rejected) => {
                // Without what it quotes.
                let first = rejected.report().problems.first();
                let first = first.map_or("", |it| &it.message);
                first.split(['`', '"']).step_by(2).collect()
            }
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text_is_answered_with_problems_inside_of_it(text in "\\PC{0,200}|[\\s\\S]{0,80}") {
        holds(&text)?;
    }

    #[test]
    fn a_damaged_file_is_answered_with_problems_inside_of_it(
        cuts in prop::collection::vec((0_usize..GOOD.len(), 0_usize..6, "[\\[\\]={}\"'.,#\na1é-]{0,3}"), 1..8),
    ) {
        let mut text = GOOD.to_owned();
        for (at, len, insert) in cuts {
            let at = (0..=at.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
            let end = (at + len..).find(|&end| end >= text.len() || text.is_char_boundary(end));
            text.replace_range(at..end.unwrap_or(at).min(text.len()), &insert);
        }
        holds(&text)?;
    }
}

#[test]
fn passive_settings_are_read_and_the_useless_one_is_told() {
    let text = with(
        "[service.timeouts]",
        "[service.passive]\nfailures = 5\nwindow = \"3s\"\nmax_ejected = \"25%\"\n[service.timeouts]",
    );
    let passive = &good(&text).config.services[0].passive;
    assert_eq!((passive.failures, passive.max_ejected), (5, 25));
    assert_eq!(passive.window, Duration::from_secs(3));
    assert!(passive.enabled && passive.confirm);
    let eject = text.replace("failures = 5", "eject_time = \"1m\"");
    says(&eject, "`eject_time` has no effect here");
    let unasked = eject.replace("eject_time", "confirm = false\neject_time");
    assert!(good(&unasked).warnings.is_empty());
    says(
        &text.replace("\"25%\"", "\"0%\""),
        "`max_ejected` is \"0%\", which is out of range",
    );
    says(
        &text.replace("failures = 5", "failures = 0"),
        "`failures` is 0, which is out of range",
    );
}

#[test]
fn one_mistake_brings_no_falsehood_about_what_depends_on_it() {
    for (text, mistake, falsehood) in [
        (
            "[admin]\nlisten = \"nowhere\"\nlame_duck = \"5s\"",
            "nowhere",
            "without `listen`",
        ),
        (
            "[[service]]\n[service.queue]\nsize = 3\n[[service.backend]]\nmax_connections = \"9\"",
            "write 9 without quotes",
            "has no effect",
        ),
        (
            "[[alert]]\nname = \"a\"\non = \"backend-dwon\"",
            "backend-dwon",
            "names nothing",
        ),
    ] {
        let faults = faults(text);
        assert!(faults.contains(mistake), "{faults}");
        assert!(!faults.contains(falsehood), "{faults}");
    }
}

#[test]
fn a_pool_of_sources_without_a_backends_family_is_told_and_one_that_may_have_it_is_not() {
    let pool = |sources: &str, backend: &str| {
        let file = with(
            "[service.timeouts]",
            &format!("socket.source = {sources}\n\n[service.timeouts]"),
        );
        faults(&file.replacen("\"db.internal:5432\"", backend, 1))
    };
    let told = pool("\"10.0.0.2\"", "\"[2001:db8::1]:80\"");
    assert!(told.contains("no address of `source` is of IPv6"), "{told}");
    let told = pool("[\"2001:db8::2\"]", "\"db:80\"\nfamily = \"ipv4\"");
    assert_eq!(told.matches("is of IPv4").count(), 2, "{told}");
    for (sources, backend) in [
        ("[\"10.0.0.2\", \"2001:db8::2\"]", "\"[2001:db8::1]:80\""),
        ("\"10.0.0.2\"", "\"db:80\""),
        ("\"client\"", "\"[2001:db8::1]:80\""),
    ] {
        let told = pool(sources, backend);
        assert!(!told.contains("`source`"), "{told}");
    }
}
