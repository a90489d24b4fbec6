//! Starting: what is refused, and how it is said.

use std::net::TcpListener;

use socket2::{Domain, Socket, Type};

use crate::support::{Backend, Config, Daemon, Launch, Service, ask_name, fresh_ip};

#[test]
fn an_occupied_port_is_refused() {
    let backend = Backend::named("only");
    let occupied = TcpListener::bind((fresh_ip(), 0)).unwrap();
    let address = occupied.local_addr().unwrap();
    let config = Config::of(
        Service::new("web")
            .listen(address)
            .backend("only", backend.address()),
    );
    let (status, said) = Launch::new().refuse(&config.text());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn a_port_whose_owner_shares_it_is_refused_all_the_same() {
    let backend = Backend::named("only");
    let owner = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    owner.set_reuse_port(true).unwrap();
    owner
        .bind(&std::net::SocketAddr::new(fresh_ip().into(), 0).into())
        .unwrap();
    owner.listen(16).unwrap();
    let address = owner.local_addr().unwrap().as_socket().unwrap();
    let config = Config::of(
        Service::new("web")
            .listen(address)
            .backend("only", backend.address()),
    );
    let (status, said) = Launch::new().refuse(&config.text());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn a_second_ballast_on_the_same_port_is_refused_and_steals_nothing() {
    let (first, second) = (Backend::named("first"), Backend::named("second"));
    let daemon = Daemon::start(&Config::of(
        Service::new("web").backend("first", first.address()),
    ));
    let address = daemon.address("web");
    let config = Config::of(
        Service::new("web")
            .listen(address)
            .backend("second", second.address()),
    );
    let (status, said) = Launch::new().refuse(&config.text());
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
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
