//! A backend that serves and one that stands by.

use super::{Backend, Config, Daemon, Service, words};

/// An active backend and one that stands by, and a service over them.
pub fn active_and_standby() -> (Backend, Backend, Service) {
    let (active, standby) = (Backend::named("active"), Backend::named("standby"));
    let service = Service::new("web")
        .quick_health()
        .prioritised("active", active.address(), 0)
        .prioritised("standby", standby.address(), 1);
    (active, standby, service)
}

/// A daemon whose active backend was down and is back, and is held back by `fail_back`.
pub fn held_back(config: &Config, active: &mut Backend) -> Daemon {
    let daemon = Daemon::start(config);
    daemon.wait_until_up(0, "active");
    active.refuse();
    daemon.wait_for(0, words::TAKES_OVER, "priority", "1");
    active.answer();
    daemon.wait_for(0, words::STAYS, "priority", "1");
    daemon
}
