//! `backends_file`: a list of backends that another program writes, checked like the configuration
//! and in the light of the service that it is for.

use std::collections::HashSet;
use std::path::Path;

use super::compile::{Rejected, read};
use super::decode::Table;
use super::problem::{Problem, Problems, Report, shown};
use super::source::Source;
use super::{BackendConfig, ServiceConfig, backend, conflicts, keys, load};

/// A list without an error in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In the order of the file; none when it says `backend = []`.
    pub backends: Vec<BackendConfig>,
    /// What is hardly meant the way it is written.
    pub warnings: Report,
}

/// Reads and checks the list at `path`, of further backends of `service`.
///
/// # Errors
///
/// That the file cannot be read, or every problem of its text.
pub fn load_listed(path: &Path, service: &ServiceConfig) -> Result<Listed, Rejected> {
    load::text(
        path,
        Some("it is read as soon as it is written"),
        |text, origin| compile_listed(text, origin, service),
    )
}

fn compile_listed(text: &str, origin: &str, service: &ServiceConfig) -> Result<Listed, Rejected> {
    let (backends, warnings) = read(text, origin, &keys::LIST, |root, source, problems| {
        list(root, source, service, problems)
    })?;
    Ok(Listed { backends, warnings })
}

fn list(
    root: &Table<'_>,
    source: &Source<'_>,
    service: &ServiceConfig,
    problems: &mut Problems,
) -> Option<Vec<BackendConfig>> {
    // A file that is being rewritten is empty for a moment; nobody is turned away for that.
    if root.lacks("backend") {
        let message = match source.text().trim() {
            "" => "the list is empty",
            _ => "the list has no backend",
        };
        problems.add(
            Problem::error(message)
                .help("write [[backend]] and an address for each, or backend = [] for none")
                .absent(),
        );
    }
    let none = root
        .get("backend")
        .is_some_and(|it| it.get_ref().as_array().is_some_and(|list| list.is_empty()));
    let tables = match none {
        true => Vec::new(),
        false => root.tables("backend", &keys::LISTED, problems),
    };
    backend::weights(&tables, Some(service.strategy), problems);
    let drafts: Vec<_> = tables
        .iter()
        .map(|table| backend::read(table, problems))
        .collect();
    conflicts::backends(&drafts, source, problems);
    conflicts::loops(service.listen.iter(), &drafts, problems);
    conflicts::sources(&service.socket, &drafts, problems);
    let taken: HashSet<&str> = service.backends.iter().map(|it| &*it.name).collect();
    for draft in &drafts {
        if let Some(name) = draft.name.as_deref().filter(|name| taken.contains(name)) {
            problems.add(
                Problem::error(format!(
                    "the configuration has a backend named `{}` in this service",
                    shown(name)
                ))
                .at(draft.name_span.clone())
                .label("a name is unique within its service"),
            );
        }
    }
    drafts
        .into_iter()
        .map(backend::BackendDraft::finish)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::compile;

    fn service() -> ServiceConfig {
        let text = "[[service]]\nname = \"web\"\nlisten = \"127.0.0.1:80\"\n\
             strategy = \"weighted\"\nbackends_file = \"list.toml\"\n\
             [[service.backend]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\n";
        compile(text, "f").unwrap().config.services.remove(0)
    }

    #[test]
    fn hunted() {
        let service = service();
        let good = "[[backend]]\nname = \"b\"\naddress = \"10.0.0.2:80\"\nweight = 3\npriority = 1\n\
             max_connections = 5\n\n[[backend]]\nsrv = \"_web._tcp.example.org\"\nfamily = \"ipv4\"\n\
             enabled = false\n";
        let hunt = crate::fuzzing::Hunt {
            target: "backends-file",
            cases: 500,
            seeds: vec![good.into(), b"backend = []\n".into()],
            words: &[
                b"[[backend]]\n",
                b"backend = [{ address = \"10.0.0.1:80\" }]\n",
                b"name = \"a\"\n",
                b"address = \"[::1]:80\"\n",
                b"address = \"db.example:80\"\n",
                b"check_address = \"10.0.0.1:1\"\n",
                b"weight = 0\n",
                b"= ",
                b"\"",
            ],
        };
        hunt.run(|bytes| {
            let text = String::from_utf8_lossy(bytes);
            let first = |report: &Report| report.lines().first().cloned().unwrap_or_default();
            match compile_listed(&text, "list.toml", &service) {
                Ok(listed) => {
                    let mut names: Vec<_> = listed.backends.iter().map(|it| &it.name).collect();
                    names.sort();
                    names.dedup();
                    assert_eq!(names.len(), listed.backends.len(), "a name twice");
                    format!("good: {}", first(&listed.warnings))
                }
                Err(rejected) => {
                    assert!(rejected.report().errors() > 0);
                    let said = first(rejected.report());
                    said.split(['`', '"']).step_by(2).collect()
                }
            }
        });
    }

    fn faults(text: &str) -> String {
        match compile_listed(text, "list.toml", &service()) {
            Ok(listed) => listed.warnings.lines().join("\n"),
            Err(rejected) => rejected.lines().join("\n"),
        }
    }

    #[test]
    fn a_list_has_the_keys_of_a_backend() {
        let text = "[[backend]]\nname = \"b\"\naddress = \"10.0.0.2:80\"\nweight = 3\n\
             [[backend]]\naddress = \"db.internal:80\"\nenabled = false\n";
        let listed = compile_listed(text, "f", &service()).unwrap();
        assert!(listed.warnings.is_empty(), "{}", listed.warnings);
        let names: Vec<_> = listed.backends.iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["b", "db.internal:80"]);
        assert_eq!(listed.backends[0].weight, 3);
        assert!(!listed.backends[1].enabled);
    }

    #[test]
    fn no_backend_at_all_has_to_be_meant() {
        assert!(faults("").contains("the list is empty"));
        assert!(faults("\n# nothing yet\n").contains("the list has no backend"));
        let none = compile_listed("backend = []\n", "f", &service()).unwrap();
        assert_eq!(none.backends, []);
    }

    #[test]
    fn problems_have_a_place_in_the_list() {
        let text = "[[backend]]\naddress = \"10.0.0.2\"\n[[backend]]\nadress = \"10.0.0.3:80\"\n";
        let faults = faults(text);
        assert!(faults.contains("list.toml:2:11: "), "{faults}");
        assert!(faults.contains("list.toml:4:1: unknown key"), "{faults}");
        assert!(faults.contains("did you mean `address`"), "{faults}");
    }

    #[test]
    fn a_name_of_the_configuration_is_taken_and_a_listener_is_no_backend() {
        let of = |name, address| {
            faults(&format!(
                "[[backend]]\nname = \"{name}\"\naddress = \"{address}\"\n"
            ))
        };
        assert!(of("a", "10.0.0.9:80").contains("list.toml:2:8: the configuration has"));
        assert!(of("b", "127.0.0.1:80").contains("a listener of its own service"));
        assert_eq!(of("b", "10.0.0.9:80"), "");
    }

    #[test]
    fn half_a_file_is_no_list() {
        assert!(faults("[[backend]]\naddress = \"10.0.0.2:8").contains("list.toml:2:"));
        assert!(faults("[[backe").contains("list.toml:1:"));
    }
}
