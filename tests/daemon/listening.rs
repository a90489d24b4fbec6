//! Starting: what is refused, and how it is said.

use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

use crate::support::{Backend, Config, Daemon, Launch, Service, ask_name, fresh_ip};

/// Holds that a daemon does not start that is to listen there, and says so.
#[track_caller]
fn cannot_listen_at(address: SocketAddr) {
    let backend = Backend::named("only");
    let service = Service::new("web").listen(address);
    let config = Config::of(service.backend("only", backend.address()));
    let (status, said) = Launch::new().refuse(&config.text());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn an_occupied_port_is_refused() {
    let occupied = TcpListener::bind((fresh_ip(), 0)).unwrap();
    let address = occupied.local_addr().unwrap();
    cannot_listen_at(address);
}

#[test]
fn a_port_whose_owner_shares_it_is_refused_all_the_same() {
    let owner = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    owner.set_reuse_port(true).unwrap();
    owner
        .bind(&SocketAddr::new(fresh_ip().into(), 0).into())
        .unwrap();
    owner.listen(16).unwrap();
    let address = owner.local_addr().unwrap().as_socket().unwrap();
    cannot_listen_at(address);
}

#[test]
fn a_second_ballast_on_the_same_port_is_refused_and_steals_nothing() {
    let first = Backend::named("first");
    let daemon = Daemon::start(&Config::of(
        Service::new("web").backend("first", first.address()),
    ));
    let address = daemon.address("web");
    cannot_listen_at(address);
    for _ in 0..20 {
        assert_eq!(ask_name(address).unwrap(), "first");
    }
}

#[test]
fn a_restart_gets_its_port_back_at_once() {
    let backend = Backend::named("only");
    let service = Service::new("web").backend("only", backend.address());
    let address = {
        let daemon = Daemon::start(&Config::of(service.clone()));
        let address = daemon.address("web");
        for _ in 0..20 {
            ask_name(address).unwrap();
        }
        address
    };
    let daemon = Daemon::start(&Config::of(service.listen(address)));
    assert_eq!(ask_name(daemon.address("web")).unwrap(), "only");
}

#[test]
fn a_bad_file_is_refused_with_every_problem() {
    let config = Config::of(
        Service::new("web")
            .strategy("round-robbin")
            .timeout("idel", "1h")
            .backend("only", "127.0.0.1:1".parse().unwrap()),
    );
    let (status, said) = Launch::new().refuse(&config.text());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("round-robbin"), "{said}");
    assert!(said.contains("round-robin"), "{said}");
    assert!(said.contains("idel"), "{said}");
}

#[test]
fn a_backend_name_that_does_not_resolve_is_no_reason_not_to_start() {
    let backend = Backend::named("only");
    let text = Config::of(Service::new("web").backend("only", backend.address())).text()
        + "[[service.backend]]\naddress = \"no-such-host.invalid:80\"\n";
    let daemon = Launch::new().start_text(&text);
    for _ in 0..4 {
        assert_eq!(ask_name(daemon.address("web")).unwrap(), "only");
    }
}
