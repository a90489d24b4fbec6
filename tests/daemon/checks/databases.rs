//! Checks that speak to databases, which have roles, and passwords for those who ask.

use std::fs;

use super::{
    assert_comes_up, assert_goes_down, checked, frozen_and_back, let_probes_pass, start,
    there_and_back, verdicts,
};
use crate::support::{Server, eventually, installed, psql};

#[test]
fn a_ping_sees_a_frozen_redis() {
    if !installed(&["redis-server"]) {
        return;
    }
    let server = Server::redis();
    frozen_and_back(checked("redis", server.address()), &server);
}

#[test]
fn the_role_of_a_redis_is_followed_through_a_failover() {
    if !installed(&["redis-server", "redis-cli"]) {
        return;
    }
    let one = Server::redis();
    let other = Server::redis_replica_of(&one);
    let daemon = start(checked("redis", one.address()).health("role", "primary"));
    let why = there_and_back(
        &daemon,
        || {
            other.redis_command(&["replicaof", "no", "one"]);
            one.follow(&other);
        },
        || one.redis_command(&["replicaof", "no", "one"]),
    );
    assert_eq!(why, "its role is slave");
}

#[test]
fn a_replica_is_one_only_while_it_follows() {
    if !installed(&["redis-server", "redis-cli"]) {
        return;
    }
    let master = Server::redis();
    let replica = Server::redis_replica_of(&master);
    let daemon = start(checked("redis", replica.address()).health("role", "replica"));
    let why = there_and_back(
        &daemon,
        || replica.redis_command(&["replicaof", "no", "one"]),
        || replica.follow(&master),
    );
    assert_eq!(why, "its role is master");
}

#[test]
fn a_redis_that_wants_a_password_gets_it() {
    if !installed(&["redis-server", "redis-cli"]) {
        return;
    }
    let server = Server::redis_with(&["--requirepass", "word"]);
    let daemon = start(
        checked("redis", server.address())
            .health("password", "word")
            .health("role", "primary"),
    );
    let become_known_by = |old: &str, new: &str| {
        let own = ["-a", old, "--no-auth-warning"];
        server.redis_command(&[own.as_slice(), &["config", "set", "requirepass", new]].concat());
    };
    let why = there_and_back(
        &daemon,
        || become_known_by("word", "another"),
        || become_known_by("another", "word"),
    );
    assert_eq!(why, "the server refuses the password: WRONGPASS");
}

#[test]
fn a_user_of_redis_needs_no_more_rights_than_the_check_has_questions() {
    if !installed(&["redis-server", "redis-cli"]) {
        return;
    }
    let server = Server::redis();
    let user = |rules: &[&str]| {
        server.redis_command(&[&["acl", "setuser", "ballast"], rules].concat());
    };
    user(&["on", ">word", "+ping", "+role"]);
    let daemon = start(
        checked("redis", server.address())
            .health("user", "ballast")
            .health("password", "word")
            .health("role", "primary"),
    );
    let why = there_and_back(&daemon, || user(&["off"]), || user(&["on"]));
    assert_eq!(why, "the server refuses the password: WRONGPASS");
}

const POSTGRES: [&str; 3] = ["initdb", "postgres", "setpriv"];

#[test]
fn a_start_up_sees_a_frozen_postgres() {
    if !installed(&POSTGRES) {
        return;
    }
    let server = Server::postgres();
    frozen_and_back(checked("postgres", server.address()), &server);
}

#[test]
fn a_primary_of_postgres_is_followed_through_a_promotion() {
    if !installed(&POSTGRES) || !installed(&["pg_basebackup", "pg_ctl", "psql"]) {
        return;
    }
    let mut one = Server::postgres();
    let mut other = Server::postgres_standby_of(&one);
    let daemon = start(
        checked("postgres", one.address())
            .health("user", "postgres")
            .health("role", "primary")
            .health("timeout", "5s")
            .backend("other", other.address()),
    );
    daemon.wait_until_up(0, "only");
    let down = daemon.wait_until_down(0, "other");
    assert_eq!(down.text("why"), "its role is standby");
    let write = |server: &Server| {
        // Only the primary takes it, and it says where it is.
        let statement = "create table if not exists t (); select inet_server_addr()";
        let said = psql(daemon.address("checked"), statement);
        assert!(said.contains(&server.address().ip().to_string()), "{said}");
    };
    write(&one);
    assert_goes_down(&daemon, "only", || one.stop());
    assert_comes_up(&daemon, "other", || other.promote());
    write(&other);
    // It answers, but as a standby, and that will not do.
    one.return_behind(&other);
    assert_eq!(one.psql("select pg_is_in_recovery()").trim(), "t");
    write(&other);
    assert_goes_down(&daemon, "other", || other.stop());
    assert_comes_up(&daemon, "only", || one.promote());
    write(&one);
}

#[test]
fn a_log_in_that_is_not_permitted_is_told_in_the_words_of_postgres() {
    if !installed(&POSTGRES) || !installed(&["psql"]) {
        return;
    }
    let server = Server::postgres();
    server.psql("create role ballast login");
    let daemon = start(
        checked("postgres", server.address())
            .health("user", "ballast")
            .health("database", "postgres")
            .health("role", "primary"),
    );
    let why = there_and_back(
        &daemon,
        || drop(server.psql("alter role ballast nologin")),
        || drop(server.psql("alter role ballast login")),
    );
    assert!(why.contains("not permitted to log in"), "{why}");
}

#[test]
fn a_password_is_given_to_postgres_the_way_it_asks_for_it() {
    if !installed(&POSTGRES) || !installed(&["psql"]) {
        return;
    }
    for method in ["scram-sha-256", "md5"] {
        let server = Server::postgres_asking(method);
        server.psql("create role ballast login password 'word'");
        let daemon = start(
            checked("postgres", server.address())
                .health("user", "ballast")
                .health("password", "word")
                .health("database", "postgres")
                .health("role", "primary")
                .health("timeout", "20s"),
        );
        let why = there_and_back(
            &daemon,
            || drop(server.psql("alter role ballast password 'another'")),
            || drop(server.psql("alter role ballast password 'word'")),
        );
        assert_eq!(
            why,
            "the server says: password authentication failed for user \"ballast\""
        );
    }
}

#[test]
fn checks_of_postgres_leave_nothing_in_its_log() {
    if !installed(&POSTGRES) || !installed(&["psql"]) {
        return;
    }
    let server = Server::postgres_with(&["log_min_messages=info", "log_connections=off"]);
    for service in [
        checked("postgres", server.address()),
        checked("postgres", server.address()).health("user", "postgres"),
        checked("postgres", server.address())
            .health("user", "postgres")
            .health("role", "primary"),
    ] {
        // The death of the daemon before may have cut a probe short, of which this says nothing.
        let_clients_leave(&server);
        let before = server.output();
        // A new cluster on a busy disk may take its time.
        let daemon = start(service.health("interval", "500ms").health("timeout", "20s"));
        daemon.wait_until_up(0, "only");
        let_probes_pass(&daemon, 10);
        let verdicts = verdicts(&daemon, 0, "only");
        assert_eq!(verdicts.len(), 1, "up, and no more: {verdicts:?}");
        assert_eq!(&server.output()[before.len()..], "");
    }
}

/// Waits until PostgreSQL serves nobody, and has nothing more to say of those whom it served.
fn let_clients_leave(server: &Server) {
    // It takes them in turn, so whoever came before has a process of its own by now.
    server.psql("select");
    let pid = server.pid();
    eventually("clients leave", || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        let is_own = |child: &str| {
            // One that is gone meanwhile has no name any more.
            let name = fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
            name.is_empty() || OWN_PROCESSES.iter().any(|own| name.contains(own))
        };
        children.split_whitespace().all(is_own).then_some(())
    });
}

/// Processes of PostgreSQL that serve no client.
const OWN_PROCESSES: [&str; 5] = [
    "checkpointer",
    "background writer",
    "walwriter",
    "autovacuum",
    "logical replication launcher",
];

const MARIADB: [&str; 3] = ["mariadbd", "mariadb", "mariadb-install-db"];

#[test]
fn a_log_in_sees_a_frozen_mariadb() {
    if !installed(&MARIADB) {
        return;
    }
    let server = Server::mariadb("ballast");
    frozen_and_back(checked("mysql", server.address()), &server);
}

#[test]
fn checks_of_mariadb_count_as_no_error_of_this_host() {
    if !installed(&MARIADB) {
        return;
    }
    let server = Server::mariadb("checker");
    let daemon = start(checked("mysql", server.address()).health("user", "checker"));
    daemon.wait_until_up(0, "only");
    // Many more than max_connect_errors.
    let_probes_pass(&daemon, 50);
    let aborted = server.sql("show global status like 'Aborted_c%'");
    let count = |name: &str| {
        let line = aborted.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1))
            .map(str::to_owned)
    };
    // One comes from the test itself, which looked whether the server listens.
    let own = count("Aborted_connects\t").unwrap();
    assert!(["0", "1"].contains(&own.as_str()), "{aborted}");
    assert_eq!(count("Aborted_clients").as_deref(), Some("0"), "{aborted}");
    let said = server.output();
    let aborted = said.lines().filter(|line| line.contains("Aborted"));
    assert!(aborted.count() <= 1, "{said}");
}
