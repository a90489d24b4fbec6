//! Which lines the list of `ballast top` has, and in which order.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashSet};

use crate::api::{Backend, Service, Standing, View};
use crate::cli::condition::{Condition, Gravity};
use crate::cli::findings::Finding;
use crate::cli::rates::{Rate, Rates};

/// Names a line, whatever moves around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) service: String,
    pub(super) backend: Option<String>,
}

impl Key {
    /// That of a service.
    pub(super) fn service(name: &str) -> Self {
        Self {
            service: name.into(),
            backend: None,
        }
    }

    /// That of a backend.
    pub(super) fn backend(service: &str, name: &str) -> Self {
        Self {
            service: service.into(),
            backend: Some(name.into()),
        }
    }
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub(super) service: &'a Service,
    /// None for the service itself.
    pub(super) backend: Option<&'a Backend>,
    pub(super) rate: Option<Rate>,
}

impl Row<'_> {
    /// Its name.
    pub(super) fn key(&self) -> Key {
        Key {
            service: self.service.name.clone(),
            backend: self.backend.map(|it| it.name.clone()),
        }
    }

    /// As findings call it.
    pub(super) fn subject(&self) -> String {
        match self.backend {
            Some(backend) => format!("{}/{}", self.service.name, backend.name),
            None => self.service.name.clone(),
        }
    }

    /// How bad it is.
    pub(super) fn gravity(&self) -> Gravity {
        match self.backend {
            Some(backend) => Condition::of(backend).gravity(),
            None => match self.service.standing {
                Standing::Ok => Gravity::Well,
                Standing::Degraded => Gravity::Noted,
                Standing::Down => Gravity::Wrong,
            },
        }
    }

    /// Its running sessions.
    pub(super) fn sessions(&self) -> u64 {
        let traffic = self.backend.map_or(&self.service.traffic, |it| &it.traffic);
        traffic.sessions
    }
}

/// In which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Services, and their backends below them.
    #[default]
    File,
    /// Backends alone from here on: the worst first, …
    State,
    /// … those with the most sessions, …
    Sessions,
    /// … those that get the most new ones, …
    New,
    /// … those that move the most bytes.
    Bytes,
}

impl Sort {
    /// All there is, around and around.
    pub(super) fn next(self) -> Self {
        match self {
            Self::File => Self::State,
            Self::State => Self::Sessions,
            Self::Sessions => Self::New,
            Self::New => Self::Bytes,
            Self::Bytes => Self::File,
        }
    }

    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::File => "service",
            Self::State => "state",
            Self::Sessions => "sessions",
            Self::New => "new/s",
            Self::Bytes => "bytes",
        }
    }
}

/// What is left out.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    /// Lines without this text in their name or state.
    pub(super) text: String,
    /// Lines of which there is nothing to be known.
    pub(super) only_wrong: bool,
    /// Backends of these services.
    pub(super) folded: BTreeSet<String>,
}

impl Filter {
    /// Whether a line is shown, where `known` are those of which there is something to be known.
    fn takes(&self, row: &Row<'_>, known: &HashSet<&str>) -> bool {
        if self.only_wrong && !known.contains(&*row.subject()) {
            return false;
        }
        if self.text.is_empty() {
            return true;
        }
        let name = match row.backend {
            Some(backend) => format!("{} {}", row.subject(), Condition::of(backend).word()),
            None => return false,
        };
        name.to_lowercase().contains(&self.text.to_lowercase())
    }
}

/// The lines of a view, and of what is to be known of it.
pub(super) fn rows<'a>(
    (view, findings): (&'a View, &[Finding]),
    rates: &Rates,
    sort: Sort,
    filter: &Filter,
) -> Vec<Row<'a>> {
    let known = match filter.only_wrong {
        true => findings.iter().map(|it| &*it.subject).collect(),
        false => HashSet::new(),
    };
    let mut all = Vec::new();
    for service in &view.services {
        let line = |backend: Option<&'a Backend>| Row {
            service,
            backend,
            rate: rates.of(&service.name, backend.map(|it| &*it.name)),
        };
        let backends = service.backends.iter().map(|backend| line(Some(backend)));
        let taken: Vec<_> = backends.filter(|row| filter.takes(row, &known)).collect();
        if sort != Sort::File {
            all.extend(taken);
            continue;
        }
        let own = line(None);
        // A service is there for its backends.
        if !taken.is_empty() || filter.takes(&own, &known) {
            all.push(own);
        }
        if !filter.folded.contains(&service.name) {
            all.extend(taken);
        }
    }
    let number = |row: &Row<'_>, of: fn(Rate) -> f64| row.rate.map_or(0.0, of);
    // Stable, so that equals stay in the order of the file and nothing flickers.
    match sort {
        Sort::File => {}
        Sort::State => all.sort_by_key(|row| (row.gravity(), Reverse(row.sessions()))),
        Sort::Sessions => all.sort_by_key(|row| Reverse(row.sessions())),
        Sort::New => {
            all.sort_by(|a, b| number(b, |it| it.sessions).total_cmp(&number(a, |it| it.sessions)))
        }
        Sort::Bytes => {
            let bytes = |it: Rate| it.to_backend + it.to_client;
            all.sort_by(|a, b| number(b, bytes).total_cmp(&number(a, bytes)));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{State, Traffic};
    use crate::cli::findings::findings;

    fn view() -> View {
        let backend = |name: &str, state, sessions| Backend {
            name: name.into(),
            address: Some("10.0.0.1:80".into()),
            state,
            enabled: true,
            serving: state == State::Up,
            traffic: Traffic {
                sessions,
                ..Traffic::default()
            },
            ..Backend::default()
        };
        let service = |name: &str, backends| Service {
            name: name.into(),
            backends,
            ..Service::default()
        };
        View {
            services: vec![
                service(
                    "web",
                    vec![backend("a", State::Up, 1), backend("b", State::Down, 0)],
                ),
                service("api", vec![backend("a", State::Up, 9)]),
            ],
            ..View::default()
        }
    }

    fn shown(sort: Sort, filter: &Filter) -> Vec<String> {
        let view = view();
        rows((&view, &findings(&view)), &Rates::default(), sort, filter)
            .iter()
            .map(|row| match row.backend {
                Some(backend) => format!("{}/{}", row.service.name, backend.name),
                None => row.service.name.clone(),
            })
            .collect()
    }

    #[test]
    fn lines_are_in_the_order_of_the_file_or_of_what_matters() {
        let all = Filter::default();
        assert_eq!(
            shown(Sort::File, &all),
            ["web", "web/a", "web/b", "api", "api/a"]
        );
        assert_eq!(shown(Sort::State, &all), ["web/b", "api/a", "web/a"]);
        assert_eq!(shown(Sort::Sessions, &all), ["api/a", "web/a", "web/b"]);
        let mut sort = Sort::File;
        (0..5).for_each(|_| sort = sort.next());
        assert_eq!(sort, Sort::File);
    }

    #[test]
    fn a_filter_is_a_part_of_a_name_or_of_a_state() {
        let with = |text: &str| Filter {
            text: text.into(),
            ..Filter::default()
        };
        assert_eq!(shown(Sort::File, &with("API/")), ["api", "api/a"]);
        assert_eq!(shown(Sort::File, &with("down")), ["web", "web/b"]);
        assert_eq!(shown(Sort::State, &with("nobody")), [""; 0]);
        let wrong = Filter {
            only_wrong: true,
            ..Filter::default()
        };
        assert_eq!(shown(Sort::File, &wrong), ["web", "web/b"]);
        let folded = Filter {
            folded: ["web".to_owned()].into(),
            ..Filter::default()
        };
        assert_eq!(shown(Sort::File, &folded), ["web", "api", "api/a"]);
    }
}
