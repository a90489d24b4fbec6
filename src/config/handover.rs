//! Addresses that would pass between the admin endpoint and a service within one reload. They cannot: what is
//! new is bound before what is old is let go, so that a reload that fails has changed nothing. Between two
//! services an address passes, because a listener of theirs can be bound beside the old one.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{AdminAddress, Config};
use crate::model::{Address, UnixPath};

/// An address that is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    address: Address,
    dual_stack: bool,
    by: Holder,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Holder {
    Admin,
    Service(Arc<str>),
}

impl Held {
    /// All that `config` has listened on.
    pub fn by(config: &Config) -> Vec<Self> {
        let of_admin = config.admin.listen.iter().filter_map(|it| {
            let address = match it {
                AdminAddress::Tcp(address) => Address::Inet(*address),
                AdminAddress::Unix(path) => Address::Unix(UnixPath::new(path)?),
            };
            Some(Self {
                address,
                dual_stack: false,
                by: Holder::Admin,
            })
        });
        let of_services = config.services.iter().flat_map(|service| {
            service.listen.iter().map(|listen| Self {
                address: listen.address,
                dual_stack: listen.dual_stack,
                by: Holder::Service(Arc::clone(&service.name)),
            })
        });
        of_admin.chain(of_services).collect()
    }

    /// Whether one keeps the other from being bound.
    fn meets(&self, other: &Self) -> bool {
        let (Address::Inet(one), Address::Inet(two)) = (self.address, other.address) else {
            return self.address == other.address;
        };
        let takes_all = |it: SocketAddr, dual_stack: bool, family: SocketAddr| {
            it.ip().is_unspecified() && (it.is_ipv4() == family.is_ipv4() || dual_stack)
        };
        one.port() != 0
            && one.port() == two.port()
            && (one.ip() == two.ip()
                || takes_all(one, self.dual_stack, two)
                || takes_all(two, other.dual_stack, one))
    }
}

/// What is wrong with `new` in place of what holds these.
pub fn handovers(held: &[Held], new: &Config) -> Vec<String> {
    let wanted = Held::by(new);
    let mut problems = Vec::new();
    for it in wanted.iter().filter(|it| !held.contains(it)) {
        let crosses = |old: &&Held| match (&old.by, &it.by) {
            (Holder::Admin, Holder::Service(_)) | (Holder::Service(_), Holder::Admin) => {
                old.meets(it)
            }
            (Holder::Admin, Holder::Admin) | (Holder::Service(_), Holder::Service(_)) => false,
        };
        if let Some(old) = held.iter().find(crosses) {
            problems.push(format!(
                "{} cannot pass from {} to {} within one reload: take it from the one, reload, then \
                 give it to the other",
                it.address,
                name(&old.by),
                name(&it.by)
            ));
        }
    }
    problems
}

fn name(holder: &Holder) -> String {
    match holder {
        Holder::Admin => "the admin endpoint".to_owned(),
        Holder::Service(service) => format!("service `{service}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;

    fn config(admin: &str, listen: &str) -> Config {
        let text = format!(
            "[admin]\nlisten = [{admin}]\n[[service]]\nname = \"web\"\nlisten = [{listen}]\n\
             [[service.backend]]\naddress = \"10.0.0.1:80\"\n"
        );
        compile(&text, "f").unwrap().config
    }

    fn told(before: (&str, &str), after: (&str, &str)) -> Vec<String> {
        let before = config(before.0, before.1);
        handovers(&Held::by(&before), &config(after.0, after.1))
    }

    #[test]
    fn an_address_passes_in_two_reloads_and_in_one_that_is_said() {
        let (a, b) = ("\"127.0.0.1:9900\"", "\"127.0.0.1:80\"");
        let to_service = told((a, b), ("\"127.0.0.1:9901\"", a));
        assert_eq!(
            to_service,
            [
                "127.0.0.1:9900 cannot pass from the admin endpoint to service `web` within one reload: \
              take it from the one, reload, then give it to the other"
            ]
        );
        assert!(
            told((a, b), (b, "\"127.0.0.1:81\""))[0].contains("from service `web` to the admin")
        );
        assert_eq!(told((a, b), (b, a)).len(), 2);
        assert_eq!(told((a, b), ("", "\"0.0.0.0:9900\"")).len(), 1);
        assert_eq!(told((a, b), ("", "\"[::]:9900\"")).len(), 0);
        assert_eq!(
            told((a, "\"0.0.0.0:80\""), (b, "\"127.0.0.1:81\"")).len(),
            1
        );
        for fine in [
            (a, b),
            ("", b),
            (a, "\"127.0.0.1:81\""),
            ("\"127.0.0.1:81\"", b),
        ] {
            assert_eq!(told((a, b), fine), [""; 0]);
        }
        // The kernel chooses another one.
        let any = "\"127.0.0.1:0\"";
        assert_eq!(told((any, b), ("", any)), [""; 0]);
    }
}
