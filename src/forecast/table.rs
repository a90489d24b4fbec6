//! A strategy over backends that only the forecast knows.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use super::clients::entropy;
use crate::config::ServiceConfig;
use crate::model::{Address, Backend, BackendId, ClientAddr, DownFlag, Load};
use crate::strategy::{Candidate, Flow, Skip, Strategy};

/// The table that would serve a service, with backends that nobody has a session at.
#[derive(Debug)]
pub struct Table {
    backends: Vec<Arc<Backend>>,
    strategy: Box<dyn Strategy>,
}

/// A backend that a table may hold.
#[derive(Clone, Debug)]
pub struct Tried {
    /// Where it is.
    pub address: Address,
    /// The most sessions at a time.
    pub max_connections: Option<NonZeroU32>,
}

/// How clients fare when one table takes the place of another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// All of them.
    pub clients: u64,
    /// Those that are served somewhere else, or not any more.
    pub moved: u64,
    /// Those of them whose backend is still there.
    pub needlessly: u64,
}

impl Table {
    /// What `config` makes of the `candidates` that the roster has serve; `known` says where they are.
    pub fn new(
        config: &ServiceConfig,
        candidates: &[Candidate],
        known: impl Fn(&BackendId) -> Option<Tried>,
    ) -> Self {
        let line_up = |candidate: &Candidate| {
            let tried = known(&candidate.id)?;
            let load = Arc::new(Load::new(1));
            load.set_cap(tried.max_connections.map(NonZeroU32::get));
            let backend = Backend::new(
                candidate.id.clone(),
                tried.address,
                candidate.weight,
                load,
                Arc::<DownFlag>::default(),
            )
            .with_portion(candidate.portion)
            .capped(tried.max_connections.is_some());
            Some((candidate.clone(), Arc::new(backend)))
        };
        let (candidates, backends): (Vec<_>, Vec<_>) =
            candidates.iter().filter_map(line_up).unzip();
        Self {
            strategy: config.strategy.build(&candidates, &config.parameters),
            backends,
        }
    }

    /// Those that serve.
    pub fn backends(&self) -> &[Arc<Backend>] {
        &self.backends
    }

    /// Gives every one of `clients` a session, one after the other: each lasts until `at_once` others have
    /// begun after it. Tells the backend of each by its index, `None` where all were full or nobody
    /// serves.
    pub fn play(&self, clients: &[IpAddr], at_once: usize) -> Vec<Option<usize>> {
        let mut running = VecDeque::with_capacity(at_once);
        let picked = clients.iter().zip(0..).map(|(&client, at)| {
            let ended = match running.len() >= at_once {
                true => running.pop_front().flatten(),
                false => None,
            };
            if let Some(ended) = ended {
                self.load(ended).leave();
            }
            let flow = Flow {
                source: ClientAddr::new(SocketAddr::new(client, 0)),
                sequence: at,
                entropy: entropy(at),
            };
            let chosen = self.strategy.pick(&flow, &self.backends, &Skip::none());
            let seated = chosen.filter(|&index| self.load(index).enter());
            running.push_back(seated);
            seated
        });
        let picked = picked.collect();
        // Whoever plays next finds nobody here.
        for ended in running.into_iter().flatten() {
            self.load(ended).leave();
        }
        picked
    }

    fn load(&self, index: usize) -> &Load {
        self.backends[index].load()
    }

    /// How clients fare that had `before` here and get `after` in the table `next`. Another address is another
    /// server, whatever its name.
    pub fn moved(&self, before: &[Option<usize>], next: &Self, after: &[Option<usize>]) -> Moved {
        let places: HashMap<_, usize> = next.places().zip(0..).collect();
        // Where each backend of this table is in the next one.
        let same: Vec<Option<usize>> = self.places().map(|it| places.get(&it).copied()).collect();
        let mut moved = Moved {
            clients: before.len() as u64,
            ..Moved::default()
        };
        for (was, is) in before.iter().zip(after) {
            // Who was not served before has nowhere to move from.
            let Some(was) = *was else { continue };
            if same[was] != *is || is.is_none() {
                moved.moved += 1;
                moved.needlessly += u64::from(same[was].is_some());
            }
        }
        moved
    }

    fn places(&self) -> impl Iterator<Item = (&BackendId, Address)> {
        self.backends.iter().map(|it| (it.id(), it.address()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;
    use crate::forecast::clients;
    use crate::model::Portion;

    fn table(keys: &str, backends: &[(&str, u32)]) -> Table {
        let text = format!(
            "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:1\"\n{keys}\n\
             [[service.backend]]\naddress = \"10.0.0.1:80\"\n"
        );
        let mut config = compile(&text, "f").unwrap().config.services.remove(0);
        config.parameters.configured = 3;
        let candidates: Vec<_> = backends
            .iter()
            .map(|&(name, weight)| Candidate {
                id: BackendId::new("web", name),
                weight,
                portion: Portion::FULL,
            })
            .collect();
        Table::new(&config, &candidates, |_| {
            Some(Tried {
                address: SocketAddr::from(([10, 0, 0, 1], 80)).into(),
                max_connections: NonZeroU32::new(if keys.contains("retries") {
                    2
                } else {
                    100_000
                }),
            })
        })
    }

    fn counts(table: &Table, clients: &[IpAddr], at_once: usize) -> Vec<usize> {
        let played = table.play(clients, at_once);
        let of = |index| played.iter().filter(|it| **it == Some(index)).count();
        (0..table.backends().len()).map(of).collect()
    }

    #[test]
    fn every_strategy_gives_shares_by_weight() {
        let clients: Vec<_> = clients(10_000).collect();
        for strategy in ["weighted", "least-connections", "random", "source-hash"] {
            let strategy = format!("strategy = \"{strategy}\"");
            let table = table(&strategy, &[("a", 3), ("b", 1)]);
            let counts = counts(&table, &clients, 1000);
            assert!(
                (7_300..7_700).contains(&counts[0]),
                "{strategy}: {counts:?}"
            );
            assert_eq!(counts[0] + counts[1], 10_000);
        }
    }

    #[test]
    fn a_play_leaves_nothing_behind() {
        let clients: Vec<_> = clients(500).collect();
        let table = table("strategy = \"least-connections\"", &[("a", 2), ("b", 1)]);
        let first = table.play(&clients, 100);
        assert!(table.backends().iter().all(|it| it.in_flight() == 0));
        assert_eq!(first, table.play(&clients, 100));
    }

    #[test]
    fn who_finds_everybody_full_gets_nothing() {
        let clients: Vec<_> = clients(100).collect();
        let table = table("retries = 0", &[("a", 1), ("b", 1)]);
        assert_eq!(counts(&table, &clients, 4), [50, 50]);
        assert!(counts(&table, &clients, 50).iter().sum::<usize>() < 100);
    }

    #[test]
    fn only_those_of_the_missing_and_few_others_move() {
        let keys = "strategy = \"source-hash\"";
        let all = table(keys, &[("a", 1), ("b", 1), ("c", 1)]);
        let without = table(keys, &[("a", 1), ("c", 1)]);
        let clients: Vec<_> = clients(10_000).collect();
        let (before, after) = (all.play(&clients, 1), without.play(&clients, 1));
        let moved = all.moved(&before, &without, &after);
        let of_b = before.iter().filter(|it| **it == Some(1)).count() as u64;
        assert_eq!(moved.moved - moved.needlessly, of_b);
        assert!(moved.needlessly < 500, "{moved:?}");
        let none = all.moved(&before, &all, &before);
        assert_eq!((none.clients, none.moved), (10_000, 0));
    }
}
