//! Findings of made-up machines.

use std::time::SystemTime;

use super::*;
use crate::cli::doctor::Severity;
use crate::cli::doctor::access::{NET_BIND_SERVICE, Node, Want, Who};
use crate::cli::doctor::facts::{Daemon, Item, Kernel, Lockable, Meters, Refusal, Why};
use crate::config::compile;

const SERVICE: &str = "[[service]]\nname = \"web\"\nlisten = \"0.0.0.0:80\"\n\
                       [[service.backend]]\naddress = \"10.0.0.1:80\"\n";

/// With somewhere else to go.
fn pair() -> String {
    format!("{SERVICE}[[service.backend]]\naddress = \"10.0.0.2:80\"\n")
}

fn healthy(file: &str) -> Facts {
    let settings = [
        ("fs.nr_open", "1048576"),
        ("fs.pipe-max-size", "1048576"),
        ("fs.pipe-user-pages-hard", "0"),
        ("fs.pipe-user-pages-soft", "0"),
        ("net.core.somaxconn", "4096"),
        ("net.ipv4.ip_local_port_range", "10240\t65535"),
        ("net.ipv4.ip_local_reserved_ports", ""),
        ("net.ipv4.ip_unprivileged_port_start", "1024"),
        ("net.ipv4.tcp_congestion_control", "cubic"),
        ("net.ipv4.tcp_max_syn_backlog", "4096"),
        ("net.ipv4.tcp_migrate_req", "0"),
        ("net.ipv4.tcp_tw_reuse", "1"),
    ];
    let settings = settings.map(|(name, value)| (name, value.to_owned()));
    Facts {
        refusal: None,
        path: "/etc/ballast/ballast.toml".into(),
        config: Ok(compile(file, "f").unwrap().config),
        daemon: None,
        refusals: Some(Vec::new()),
        answered: None,
        rates: Default::default(),
        who: Who {
            name: "ballast".to_owned(),
            uid: 991,
            groups: vec![991],
            capabilities: 1 << NET_BIND_SERVICE,
        },
        descriptors: 1 << 18,
        cores: 2,
        kernel: Kernel(settings.into()),
        meters: Meters {
            available_bytes: Some(8 << 30),
            time_wait: Some(7),
            listen_overflows: Some(0),
        },
        clock: Clock {
            synchronised: Some(true),
            now: SystemTime::now(),
            not_before: None,
        },
        files: vec![item(Want::Read, false, 0o100_640, 991)],
        lockable: Lockable {
            seccomp: true,
            landlock: true,
        },
    }
}

fn item(want: Want, secret: bool, mode: u32, uid: u32) -> Item {
    let node = |path: &str, mode| Node {
        path: path.into(),
        mode,
        uid,
        gid: 0,
    };
    Item {
        what: "the configuration".to_owned(),
        path: "/f".into(),
        want,
        secret,
        optional: false,
        chain: Ok(vec![node("/", 0o040_755), node("/f", mode)]),
    }
}

/// The healthy machine with one difference.
fn but(file: &str, change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = healthy(file);
    change(&mut facts);
    facts
}

fn set(name: &'static str, value: &str) -> impl FnOnce(&mut Facts) {
    move |facts| {
        facts.kernel.0.insert(name, value.to_owned());
    }
}

/// What is not fine: severity, topic, and everything that is said.
fn told(facts: &Facts) -> Vec<(Severity, &'static str, String)> {
    let findings = all(facts).into_iter();
    let findings = findings.filter(|it| it.severity != Severity::Fine);
    let said = findings.map(|it| {
        let text = format!(
            "{} | {} | {} | {}",
            it.now,
            it.wanted.unwrap_or_default(),
            it.why.unwrap_or_default(),
            it.fix.join("\n")
        );
        (it.severity, it.topic, text)
    });
    said.collect()
}

#[track_caller]
fn finds(facts: &Facts, severity: Severity, topic: &str, parts: &[&str]) {
    let told = told(facts);
    let [(found, about, text)] = told.as_slice() else {
        panic!("one finding expected: {told:#?}");
    };
    assert_eq!((*found, *about), (severity, topic), "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} not in {text}");
    }
}

#[test]
fn a_machine_that_is_ready_has_nothing_to_be_told() {
    assert_eq!(told(&healthy(SERVICE)), []);
}

#[test]
fn a_file_that_cannot_be_used_is_a_problem_and_the_rest_is_looked_at_all_the_same() {
    let facts = but(SERVICE, |facts| {
        facts.config = Err("f:1:1: no".to_owned());
        facts.clock.synchronised = Some(false);
    });
    let told = told(&facts);
    assert_eq!(told[0].1, "file");
    assert!(
        told[0]
            .2
            .contains("ballast check -c /etc/ballast/ballast.toml")
    );
    assert_eq!((told[1].0, told[1].1), (Severity::Advice, "clock"));
}

#[test]
fn descriptors_must_do_for_max_connections_and_the_fix_is_exactly_enough() {
    let file = format!("runtime.max_connections = 50000\n{SERVICE}");
    let facts = but(&file, |facts| facts.descriptors = 20_000);
    finds(
        &facts,
        Severity::Problem,
        "descriptors",
        &[
            "20,000 (of this shell",
            "LimitNOFILE=",
            "max_connections = 50000",
        ],
    );
    let text = &told(&facts)[0].2;
    let needed = text.split("LimitNOFILE=").nth(1).unwrap();
    let needed: u64 = needed.lines().next().unwrap().parse().unwrap();
    let with = |descriptors| but(&file, |facts| facts.descriptors = descriptors);
    assert_eq!(told(&with(needed)), []);
    assert_eq!(told(&with(needed - 1)).len(), 1);
}

#[test]
fn more_than_the_kernel_gives_one_process_takes_a_setting_too() {
    let file = format!("runtime.max_connections = 600000\n{}", pair());
    let parts = ["sysctl -w fs.nr_open='1"];
    finds(&healthy(&file), Severity::Problem, "descriptors", &parts);
}

#[test]
fn few_descriptors_are_advice_where_nobody_asked_for_a_number() {
    let facts = but(SERVICE, |facts| facts.descriptors = 1024);
    finds(&facts, Severity::Advice, "descriptors", &["LimitNOFILE="]);
}

#[test]
fn a_backlog_beyond_the_kernels_is_a_problem() {
    let facts = but(SERVICE, set("net.core.somaxconn", "128"));
    let parts = [
        "128 of the 4,096 that service web asks for",
        "sysctl -w net.core.somaxconn='4096'",
    ];
    finds(&facts, Severity::Problem, "backlog", &parts);
}

#[test]
fn a_backlog_that_was_full_is_told() {
    let facts = but(SERVICE, |facts| facts.meters.listen_overflows = Some(12));
    finds(
        &facts,
        Severity::Advice,
        "backlog",
        &["12 handshakes", "ss -ltn"],
    );
}

#[test]
fn default_port_settings_are_advice_only_where_backends_are_elsewhere() {
    let default = |file: &str| {
        but(file, |facts| {
            set("net.ipv4.ip_local_port_range", "32768\t60999")(facts);
            set("net.ipv4.tcp_tw_reuse", "2")(facts);
        })
    };
    let parts = [
        "28,232 to each",
        "470 new sessions a second",
        "tcp_tw_reuse='1'",
        "='10240 65535'",
    ];
    finds(&default(SERVICE), Severity::Advice, "ports", &parts);
    assert_eq!(
        told(&default(&SERVICE.replace("10.0.0.1:80", "127.0.0.1:81"))),
        []
    );
}

#[test]
fn ports_must_do_for_the_rate_that_the_daemon_tells() {
    let with = |to: &str, rate: f64| {
        but(SERVICE, |facts| {
            set("net.ipv4.tcp_tw_reuse", "2")(facts);
            facts
                .rates
                .insert(("web".to_owned(), to.parse().unwrap()), rate);
        })
    };
    // 55,296 ports, each held for a minute.
    assert_eq!(told(&with("10.0.0.1:80", 400.0)), []);
    let parts = [
        "room for 500 new sessions a second to 10.0.0.1:80",
        "tcp_tw_reuse='1'",
    ];
    finds(
        &with("10.0.0.1:80", 500.0),
        Severity::Advice,
        "ports",
        &parts,
    );
    finds(
        &with("10.0.0.1:80", 1000.0),
        Severity::Problem,
        "ports",
        &[],
    );
    assert_eq!(told(&with("127.0.0.1:80", 1000.0)), []);
    let reusing = but(SERVICE, |facts| {
        facts
            .rates
            .insert(("web".to_owned(), "10.0.0.1:80".parse().unwrap()), 1000.0);
    });
    assert_eq!(told(&reusing), []);
}

#[test]
fn more_sessions_than_ports_to_an_address_are_a_problem() {
    let file = format!("{SERVICE}max_connections = 60000\n");
    finds(
        &healthy(&file),
        Severity::Problem,
        "ports",
        &["60,000 for the sessions that 10.0.0.1:80"],
    );
    // Reserved ports are not there for connections.
    let file = format!("{SERVICE}max_connections = 55000\n");
    assert_eq!(told(&healthy(&file)), []);
    let facts = but(
        &file,
        set("net.ipv4.ip_local_reserved_ports", "11000,20000-20999"),
    );
    finds(
        &facts,
        Severity::Problem,
        "ports",
        &["54,295 to each backend address"],
    );
}

#[test]
fn each_source_has_its_own_ports() {
    let sources = "[service.socket]\nsource = [\"10.0.0.2\", \"10.0.0.3\"]\n";
    let with = |most: u32| format!("{SERVICE}max_connections = {most}\n{sources}");
    assert_eq!(told(&healthy(&with(110_000))), []);
    let parts = [
        "each backend address from each source",
        "60,000 for the sessions that 10.0.0.1:80",
    ];
    finds(&healthy(&with(120_000)), Severity::Problem, "ports", &parts);

    let at = |sources: &str, rate: f64| {
        but(&format!("{SERVICE}{sources}"), |facts| {
            set("net.ipv4.tcp_tw_reuse", "2")(facts);
            let place = ("web".to_owned(), "10.0.0.1:80".parse().unwrap());
            facts.rates.insert(place, rate);
        })
    };
    assert_eq!(told(&at(sources, 900.0)), []);
    let parts = ["room for 500 new sessions a second to 10.0.0.1:80"];
    finds(&at(sources, 1000.0), Severity::Advice, "ports", &parts);
    let clients = "[service.socket]\nsource = \"client\"\n";
    assert_eq!(told(&at(clients, 10_000.0)), []);
}

#[test]
fn ports_are_said_to_be_taken_over_on_this_machine_only_where_that_is_known() {
    let list = SERVICE.replace(
        "[[service.backend]]\naddress = \"10.0.0.1:80\"\n",
        "backends_file = \"list.toml\"\n",
    );
    let here = SERVICE.replace("10.0.0.1:80", "127.0.0.1:81");
    for (file, reuse, is_known) in [
        (&*here, "2", true),
        (&*here, "0", false),
        (&*list, "2", false),
    ] {
        let facts = but(file, set("net.ipv4.tcp_tw_reuse", reuse));
        let config = facts.config.as_ref().unwrap();
        let ports = network::ports(&facts, config);
        let told = format!("{ports:?}");
        assert_eq!(
            told.contains("taken over at once on this machine"),
            is_known,
            "{told}"
        );
        assert_eq!(told.contains("held for 60 s"), !is_known, "{told}");
    }
}

#[test]
fn a_listener_among_the_local_ports_is_to_be_reserved() {
    let file = SERVICE.replace(":80\"\n[[", ":12000\"\n[[");
    let facts = but(&file, set("net.ipv4.ip_local_reserved_ports", "11000"));
    let parts = [
        "listener port 12000",
        "ip_local_reserved_ports='11000,12000'",
    ];
    finds(&facts, Severity::Advice, "ports", &parts);
    assert_eq!(
        told(&but(
            &file,
            set("net.ipv4.ip_local_reserved_ports", "12000")
        )),
        []
    );
}

#[test]
fn a_table_of_connections_must_hold_two_for_each_session() {
    let tracking = |file: &str, used: &str| {
        but(file, |facts| {
            set("net.netfilter.nf_conntrack_max", "65536")(facts);
            set("net.netfilter.nf_conntrack_count", used)(facts);
        })
    };
    finds(
        &tracking(SERVICE, "60000"),
        Severity::Problem,
        "conntrack",
        &["60,000 of 65,536", "_max='"],
    );
    finds(
        &tracking(SERVICE, "10"),
        Severity::Advice,
        "conntrack",
        &["two for each of"],
    );
    let asked = format!("runtime.max_connections = 40000\n{}", pair());
    finds(
        &tracking(&asked, "10"),
        Severity::Problem,
        "conntrack",
        &["_max='131072'"],
    );
    // Loaded, and no rule that uses it.
    assert_eq!(told(&tracking(&asked, "0")), []);
}

#[test]
fn bbr_is_advised_against() {
    let facts = but(SERVICE, set("net.ipv4.tcp_congestion_control", "bbr"));
    finds(&facts, Severity::Advice, "congestion", &["='cubic'"]);
}

#[test]
fn pages_of_pipes_matter_where_bulk_is_spliced() {
    let few = set("fs.pipe-user-pages-soft", "16384");
    let parts = [
        "64 pipes of 1024 KiB",
        "32,768 pages, for 128 pipes",
        "pages-soft='32768'",
    ];
    let facts = but(SERVICE, few);
    let parts = parts.map(|part| part.replace("1024 KiB", "1 MiB"));
    finds(
        &facts,
        Severity::Advice,
        "pipes",
        &parts.each_ref().map(String::as_str),
    );
    let copying = SERVICE.replace("listen", "relay = \"copy\"\nlisten");
    assert_eq!(
        told(&but(&copying, set("fs.pipe-user-pages-soft", "16384"))),
        []
    );
    let facts = but(SERVICE, set("fs.pipe-max-size", "65536"));
    finds(
        &facts,
        Severity::Advice,
        "pipes",
        &["64 KiB at most", "pipe-max-size='1048576'"],
    );
}

#[test]
fn memory_must_do_for_the_sessions_that_are_allowed() {
    let file = format!("runtime.max_connections = 100000\n{}", pair());
    let facts = but(&file, |facts| {
        facts.meters.available_bytes = Some(512 << 20)
    });
    finds(
        &facts,
        Severity::Problem,
        "memory",
        &["512 MiB available", "max_connections = 26214"],
    );
    let facts = but(SERVICE, |facts| {
        facts.meters.available_bytes = Some(512 << 20)
    });
    finds(&facts, Severity::Advice, "memory", &[]);
}

#[test]
fn a_clock_before_the_program_was_made_is_wrong() {
    let facts = but(SERVICE, |facts| {
        facts.clock.not_before = Some(facts.clock.now + Duration::from_secs(7200));
    });
    finds(&facts, Severity::Problem, "clock", &["2h or more behind"]);
}

#[test]
fn ports_below_1024_take_a_capability() {
    let facts = but(SERVICE, |facts| facts.who.capabilities = 0);
    finds(
        &facts,
        Severity::Problem,
        "privileges",
        &["ballast may not bind port 80"],
    );
    let file = SERVICE.replace(":80\"\n[[", ":8080\"\n[[");
    assert_eq!(told(&but(&file, |facts| facts.who.capabilities = 0)), []);
}

#[test]
fn files_are_judged_for_the_user_of_the_daemon() {
    let with = |item: Item| but(SERVICE, |facts| facts.files = vec![item]);
    let found = |item: Item, parts: &[&str]| finds(&with(item), Severity::Problem, "files", parts);
    found(
        item(Want::Read, false, 0o100_600, 0),
        &["ballast may not read /f (rw-------)", "chgrp ballast /f"],
    );
    found(
        item(Want::Read, false, 0o100_646, 0),
        &["everybody may write /f", "chmod o-w /f"],
    );
    found(
        item(Want::Read, true, 0o100_644, 0),
        &["everybody may read /f", "chmod 640 /f"],
    );
    found(
        item(Want::Run, false, 0o100_644, 0),
        &["may not run /f", "chmod a+x /f"],
    );
    found(
        item(Want::Write, false, 0o040_755, 0),
        &["may not write /f", "chown ballast /f"],
    );
    found(
        item(Want::Write, false, 0o100_777, 991),
        &["is not a directory"],
    );
    let missing = Item {
        chain: Err("No such file or directory".to_owned()),
        ..item(Want::Run, false, 0, 0)
    };
    found(missing, &["/f: No such file"]);
    let awaited = Item {
        chain: Err("No such file or directory".to_owned()),
        optional: true,
        ..item(Want::Read, false, 0, 0)
    };
    assert_eq!(told(&with(awaited)), []);
}

#[test]
fn a_daemon_whose_program_was_replaced_is_told() {
    let daemon = |outdated, swapped| {
        but(SERVICE, |facts| {
            facts.daemon = Some(Daemon {
                pid: 7,
                who: facts.who.clone(),
                descriptors: None,
                outdated,
                swapped_bytes: swapped,
                state_directory: None,
                filtered: true,
            });
        })
    };
    assert_eq!(told(&daemon(false, Some(0))), []);
    finds(
        &daemon(true, None),
        Severity::Advice,
        "daemon",
        &["pid 7", "replaced"],
    );
    finds(
        &daemon(false, Some(64 << 20)),
        Severity::Advice,
        "daemon",
        &["64 MiB swapped out"],
    );
}

#[test]
fn sizes_are_written_for_people() {
    assert_eq!(bytes(1 << 20), "1 MiB");
    assert_eq!(bytes(100), "100 bytes");
    assert_eq!(bytes(20 << 30), "20 GiB");
}

#[test]
fn root_and_a_sandbox_that_is_not_there_are_advice() {
    let root = |file: &str| {
        but(file, |facts| {
            facts.who.uid = 0;
            facts.files = vec![item(Want::Read, false, 0o100_600, 0)];
        })
    };
    finds(
        &root(&pair()),
        Severity::Advice,
        "user",
        &["stay root", "user = "],
    );
    let programs = format!(
        "{}[[alert]]\nname = \"a\"\non = \"all-down\"\nexec = \"/bin/tell\"\n",
        pair()
    );
    let told_of = all(&root(&programs));
    let user = told_of.iter().find(|it| it.topic == "user").unwrap();
    assert!(format!("{user:?}").contains("run by root"), "{user:?}");
    let named = format!("runtime.user = \"ballast\"\n{}", pair());
    let others = told(&root(&named));
    assert!(others.iter().all(|it| it.1 != "user"), "{others:?}");

    let off = format!("runtime.sandbox = \"off\"\n{}", pair());
    finds(
        &healthy(&off),
        Severity::Advice,
        "sandbox",
        &["switched off", "sandbox = \"on\""],
    );
    let log = format!("runtime.sandbox = \"log\"\n{}", pair());
    finds(
        &healthy(&log),
        Severity::Advice,
        "sandbox",
        &["only told of"],
    );
    let without = but(&pair(), |facts| facts.lockable.landlock = false);
    finds(&without, Severity::Advice, "sandbox", &["no Landlock"]);
    let bare = but(&pair(), |facts| facts.lockable.seccomp = false);
    finds(&bare, Severity::Advice, "sandbox", &["does not filter"]);
}

#[test]
fn who_is_in_the_way_of_a_listener_is_a_problem() {
    let with = |why: Why| {
        but(&pair(), |facts| {
            facts.refusals = Some(vec![Refusal {
                of: "service web".to_owned(),
                address: "0.0.0.0:80".parse().unwrap(),
                why: why.clone(),
            }]);
        })
    };
    let taken = Why::Taken(Some("nginx (pid 12)".to_owned()));
    for (why, said) in [
        (
            taken,
            "0.0.0.0:80 of service web is taken by nginx (pid 12)",
        ),
        (Why::Taken(None), "root may see by whom"),
        (Why::Elsewhere, "no address of this machine"),
        (Why::Other("odd".to_owned()), "cannot be bound: odd"),
    ] {
        finds(&with(why), Severity::Problem, "listen", &[said]);
    }
    let running = but(&pair(), |facts| facts.refusals = None);
    assert!(all(&running).iter().all(|it| it.topic != "listen"));
}

#[test]
fn what_the_user_of_the_file_is_barred_from_is_a_problem() {
    let facts = but(SERVICE, |it| {
        it.refusal = Some("user `nobody` cannot write the directory \"/run\"\n".to_owned());
    });
    let found = all(&facts);
    let told = found.iter().find(|it| it.topic == "user").unwrap();
    assert_eq!(told.severity, Severity::Problem);
    assert!(told.now.contains("cannot write"), "{told:?}");
}
