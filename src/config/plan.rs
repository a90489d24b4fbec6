//! What changes from one configuration to the next: the plan of a reload, and its one log line. Decides
//! nothing; `control` carries it out.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use super::differing;
use super::{BackendConfig, Config, ListenConfig, ServiceConfig};
use crate::model::{Address, BackendId, InOrder, Map};

/// What changes between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// By name. Changed is any difference, in a backend too.
    pub services: Changes<Arc<str>>,
    /// Of each that is changed, in their order: the keys that differ, as the file calls them.
    pub differing: Vec<Vec<&'static str>>,
    /// By address, whichever service it belongs to; never `changed`.
    pub listeners: Changes<ListenerId>,
    /// By service and name. Changed is any difference.
    pub backends: Changes<BackendId>,
    /// By name. Changed is any difference.
    pub alerts: Changes<Arc<str>>,
    /// Keys outside of services whose new value takes effect at once.
    pub settings: Vec<&'static str>,
    /// What takes effect only after a restart, in words.
    pub needs_restart: Vec<String>,
}

/// What became of things with an identity. Added, changed and kept are in the new order, removed in
/// the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes<T> {
    /// Only in the new configuration.
    pub added: Vec<T>,
    /// Only in the old one.
    pub removed: Vec<T>,
    /// In both, and different.
    pub changed: Vec<T>,
    /// In both, and the same.
    pub kept: Vec<T>,
}

/// A listener of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    /// As it is written.
    pub address: Address,
    /// Tells listeners with the same address apart, which only port 0 allows; counted from 0 over
    /// the whole configuration.
    pub ordinal: usize,
}

impl Plan {
    /// What it takes to get from `old` to `new`.
    pub fn between(old: &Config, new: &Config) -> Self {
        let services = Changes::between(
            old.services.iter().map(|it| (it.name.clone(), it)),
            new.services.iter().map(|it| (it.name.clone(), it)),
        );
        Self {
            differing: differing(&services.changed, old, new),
            services,
            listeners: Changes::between(
                listeners(old).iter().map(|&(id, ..)| (id, ())),
                listeners(new).iter().map(|&(id, ..)| (id, ())),
            ),
            backends: Changes::between(backends(old), backends(new)),
            alerts: Changes::between(
                old.alerts.iter().map(|it| (it.name.clone(), it)),
                new.alerts.iter().map(|it| (it.name.clone(), it)),
            ),
            settings: settings(old, new),
            needs_restart: needs_restart(old, new),
        }
    }

    /// What is added, removed and changed, by name: `+service web`, `~backend web/app-1`; of a service that is
    /// changed also what of it: `~service web (access, limits)`.
    pub fn names(&self) -> Vec<String> {
        let changed = self.services.changed.len();
        let mut services: Vec<_> = self.services.names("service").collect();
        let first = services.len() - changed;
        for (name, keys) in services[first..].iter_mut().zip(&self.differing) {
            *name += &format!(" ({})", keys.join(", "));
        }
        let services = services.into_iter();
        let listeners = self.listeners.names("listener");
        let all = services.chain(listeners);
        all.chain(self.backends.names("backend"))
            .chain(self.alerts.names("alert"))
            .collect()
    }

    /// Whether nothing is to take effect: what waits for a restart does not.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.listeners.is_empty()
            && self.backends.is_empty()
            && self.alerts.is_empty()
            && self.settings.is_empty()
    }
}

/// `services +1 -0 ~1 =2, listeners +1 -0 =3, backends +2 -1 ~0 =9`
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Changes {
            added,
            removed,
            kept,
            ..
        } = &self.listeners;
        write!(
            f,
            "services {}, listeners +{} -{} ={}, backends {}",
            self.services,
            added.len(),
            removed.len(),
            kept.len(),
            self.backends
        )?;
        if !self.alerts.is_empty() {
            write!(f, ", alerts {}", self.alerts)?;
        }
        if !self.settings.is_empty() {
            write!(f, ", settings {}", self.settings.join(" "))?;
        }
        Ok(())
    }
}

impl<T: Clone + Eq + Hash> Changes<T> {
    /// What became of the things in `old`.
    pub fn between<V: PartialEq>(
        old: impl Iterator<Item = (T, V)>,
        new: impl Iterator<Item = (T, V)>,
    ) -> Self {
        let old: Vec<(T, V)> = old.collect();
        let mut before = InOrder::new(&old, |(id, _)| id);
        let mut stays = vec![false; old.len()];
        let mut changes = Self::default();
        for (id, value) in new {
            let Some(at) = before.place(&id) else {
                changes.added.push(id);
                continue;
            };
            stays[at] = true;
            match old[at].1 == value {
                true => changes.kept.push(id),
                false => changes.changed.push(id),
            }
        }
        let gone = old.iter().zip(stays).filter(|(_, stays)| !stays);
        changes.removed = gone.map(|((id, _), _)| id.clone()).collect();
        changes
    }
}

impl<T> Changes<T> {
    /// Whether everything is kept.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty()
    }
}

impl<T: fmt::Display> Changes<T> {
    /// What is added, removed and changed, each called a `kind` of thing.
    pub fn names(&self, kind: &'static str) -> impl Iterator<Item = String> {
        let all = [
            ('+', &self.added),
            ('-', &self.removed),
            ('~', &self.changed),
        ];
        all.into_iter()
            .flat_map(move |(sign, ids)| ids.iter().map(move |id| format!("{sign}{kind} {id}")))
    }
}

impl<T> Default for Changes<T> {
    fn default() -> Self {
        Self {
            added: Vec::new(),
            removed: Vec::new(),
            changed: Vec::new(),
            kept: Vec::new(),
        }
    }
}

impl<T> fmt::Display for Changes<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "+{} -{} ~{} ={}",
            self.added.len(),
            self.removed.len(),
            self.changed.len(),
            self.kept.len()
        )
    }
}

impl fmt::Display for ListenerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

/// Every listener with the service it belongs to, in the order of the file.
pub fn listeners(config: &Config) -> Vec<(ListenerId, &ListenConfig, &ServiceConfig)> {
    let mut seen: Map<Address, usize> = Map::default();
    let of = |service| move |listen| (service, listen);
    let all = config
        .services
        .iter()
        .flat_map(|it| it.listen.iter().map(of(it)));
    all.map(|(service, listen): (&ServiceConfig, &ListenConfig)| {
        let next = seen.entry(listen.address).or_default();
        let id = ListenerId {
            address: listen.address,
            ordinal: *next,
        };
        *next += 1;
        (id, listen, service)
    })
    .collect()
}

/// The keys that differ, of each of the services that `changed`.
fn differing(changed: &[Arc<str>], old: &Config, new: &Config) -> Vec<Vec<&'static str>> {
    let by_name = |config: &'_ Config| -> Map<Arc<str>, usize> {
        let all = config.services.iter().enumerate();
        all.map(|(at, it)| (it.name.clone(), at)).collect()
    };
    let (before, after) = (by_name(old), by_name(new));
    let keys = |name: &Arc<str>| {
        let was = old.services.get(*before.get(name)?)?;
        let is = new.services.get(*after.get(name)?)?;
        Some(differing::keys(was, is))
    };
    changed
        .iter()
        .map(|name| keys(name).unwrap_or_default())
        .collect()
}

fn backends(config: &Config) -> impl Iterator<Item = (BackendId, &BackendConfig)> {
    config.services.iter().flat_map(ServiceConfig::identified)
}

fn settings(old: &Config, new: &Config) -> Vec<&'static str> {
    let (was, is) = (&old.runtime, &new.runtime);
    let (door, new_door) = (&old.admin, &new.admin);
    let (access, new_access) = (&door.access, &new_door.access);
    [
        (
            "runtime.max_connections",
            was.max_connections != is.max_connections,
        ),
        ("runtime.accept_rate", was.accept_rate != is.accept_rate),
        ("runtime.dry_run", was.dry_run != is.dry_run),
        (
            "runtime.drain_timeout",
            was.drain_timeout != is.drain_timeout,
        ),
        (
            "runtime.resolve_timeout",
            was.resolve_timeout != is.resolve_timeout,
        ),
        ("runtime.reload_guard", was.reload_guard != is.reload_guard),
        ("discovery", old.discovery != new.discovery),
        ("admin.listen", door.listen != new_door.listen),
        ("admin.mode", access.mode != new_access.mode),
        ("admin.owner", access.owner != new_access.owner),
        ("admin.group", access.group != new_access.group),
        ("admin.token_file", door.token_file != new_door.token_file),
        ("admin.lame_duck", door.lame_duck != new_door.lame_duck),
        (
            "runtime.state_max_age",
            was.state_max_age != is.state_max_age,
        ),
        ("log.level", old.log.level != new.log.level),
        ("log.sessions", old.log.sessions != new.log.sessions),
    ]
    .into_iter()
    .filter_map(|(key, differs)| differs.then_some(key))
    .collect()
}

fn needs_restart(old: &Config, new: &Config) -> Vec<String> {
    let mut list = Vec::new();
    if old.runtime.workers != new.runtime.workers {
        list.push("runtime.workers".to_owned());
    }
    if old.runtime.state_file != new.runtime.state_file {
        list.push("runtime.state_file".to_owned());
    }
    let (was, is) = (&old.runtime, &new.runtime);
    for (key, differs) in [
        ("runtime.user", was.user != is.user),
        ("runtime.group", was.group != is.group),
        ("runtime.sandbox", was.sandbox != is.sandbox),
    ] {
        if differs {
            list.push(key.to_owned());
        }
    }
    if old.log.format != new.log.format {
        list.push("log.format".to_owned());
    }
    let all = listeners(old).into_iter();
    let before: Map<_, _> = all
        .map(|(id, listen, service)| (id, (listen, service)))
        .collect();
    for (id, is, service) in listeners(new) {
        let Some((was, former)) = before.get(&id) else {
            continue;
        };
        if was.dual_stack != is.dual_stack {
            list.push(format!("dual_stack of {id}"));
        }
        if was.mptcp != is.mptcp {
            list.push(format!("mptcp of {id}"));
        }
        // A socket that is bound to one is let go of it by privileges that the daemon has given up.
        if former.socket.incoming.interface != service.socket.incoming.interface {
            list.push(format!("listen_interface of {id}"));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;
    use proptest::prelude::*;

    fn config(text: &str) -> Config {
        compile(text, "f").unwrap().config
    }

    fn service(name: &str, listen: &str, backends: &[(&str, u32)]) -> String {
        let mut text =
            format!("[[service]]\nname = \"{name}\"\nlisten = {listen}\nstrategy = \"weighted\"\n");
        for (address, weight) in backends {
            text += &format!("[[service.backend]]\naddress = \"{address}\"\nweight = {weight}\n");
        }
        text
    }

    #[test]
    fn the_summary_counts_what_changes() {
        let old = config(
            &(service("a", "\"1.1.1.1:80\"", &[("b:1", 1), ("b:2", 1), ("b:3", 1)])
                + &service("gone", "\"1.1.1.1:81\"", &[("b:1", 1)])),
        );
        let new = config(
            &(service(
                "a",
                "[\"1.1.1.1:80\", \"1.1.1.1:82\"]",
                &[("b:1", 1), ("b:2", 7), ("b:4", 1)],
            ) + &service("new", "\"1.1.1.1:81\"", &[("b:1", 1)])),
        );
        let plan = Plan::between(&old, &new);
        assert_eq!(
            plan.to_string(),
            "services +1 -1 ~1 =0, listeners +1 -0 =2, backends +2 -2 ~1 =1"
        );
        assert!(!plan.is_empty());
    }

    #[test]
    fn of_a_changed_service_it_is_told_what_is_changed() {
        let backends = [("b:1", 1)];
        let text = service("a", "\"1.1.1.1:80\"", &backends);
        let old = config(&format!(
            "{text}{}",
            service("b", "\"1.1.1.1:81\"", &backends)
        ));
        let new = text.replace(
            "strategy",
            "access.deny = \"9.0.0.0/8\"\nretries = 0\nstrategy",
        );
        let new = config(&format!(
            "{new}{}",
            service("c", "\"1.1.1.1:81\"", &backends)
        ));
        assert_eq!(
            Plan::between(&old, &new).names(),
            [
                "+service c",
                "-service b",
                "~service a (retries, access)",
                "+backend c/b:1",
                "-backend b/b:1"
            ]
        );
    }

    #[test]
    fn a_listener_that_moves_to_another_service_is_kept() {
        let old = config(&service("a", "\"1.1.1.1:80\"", &[("b:1", 1)]));
        let new = config(&service("z", "\"1.1.1.1:80\"", &[("b:1", 1)]));
        let plan = Plan::between(&old, &new);
        assert_eq!(plan.listeners.kept.len(), 1);
        assert!(plan.listeners.is_empty());
    }

    #[test]
    fn ephemeral_listeners_are_told_apart_by_their_order() {
        let old = config(&service(
            "a",
            "[\"1.1.1.1:0\", \"1.1.1.1:0\"]",
            &[("b:1", 1)],
        ));
        let new = config(&service("a", "\"1.1.1.1:0\"", &[("b:1", 1)]));
        let plan = Plan::between(&old, &new);
        assert_eq!(
            (plan.listeners.kept.len(), plan.listeners.removed.len()),
            (1, 1)
        );
        assert_eq!(plan.listeners.removed[0].ordinal, 1);
    }

    #[test]
    fn what_cannot_change_live_is_named() {
        let base = service("a", "\"[::]:80\"", &[("b:1", 1)]);
        let old = config(&base);
        let new = config(&format!(
            "runtime.workers = 3\nruntime.state_file = \"/s\"\nlog.format = \"json\"\nlog.level = \"warn\"\n{}",
            base.replace(
                "strategy",
                "dual_stack = true\nsocket.mptcp = true\nsocket.listen_interface = \"lo\"\nstrategy"
            )
        ));
        let plan = Plan::between(&old, &new);
        assert_eq!(
            plan.needs_restart,
            [
                "runtime.workers",
                "runtime.state_file",
                "log.format",
                "dual_stack of [::]:80",
                "mptcp of [::]:80",
                "listen_interface of [::]:80"
            ]
        );
        assert_eq!(plan.settings, ["log.level"]);
    }

    proptest! {
        #[test]
        fn between_a_configuration_and_itself_nothing_changes(
            services in prop::collection::vec(prop::collection::btree_map(1_u16..50, 1_u32..9, 1..6), 1..6),
        ) {
            let mut text = String::new();
            for (index, backends) in services.iter().enumerate() {
                let backends: Vec<(String, u32)> =
                    backends.iter().map(|(port, weight)| (format!("b:{port}"), *weight)).collect();
                let backends: Vec<(&str, u32)> =
                    backends.iter().map(|(address, weight)| (address.as_str(), *weight)).collect();
                text += &service(&format!("s{index}"), "[\"1.1.1.1:0\", \"[::1]:0\"]", &backends);
            }
            let config = config(&text);
            let plan = Plan::between(&config, &config);
            prop_assert!(plan.is_empty() && plan.needs_restart.is_empty(), "{plan}");
            prop_assert_eq!(plan.services.kept.len(), services.len());
        }
    }
}
