//! The file as text → a checked [`Config`], or everything that keeps it from being one.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use toml::de::DeTable;

use super::access;
use super::conflicts;
use super::decode::Table;
use super::discovery;
use super::keys::Section;
use super::problem::{Lack, Need, Problem, Problems, Report};
use super::service;
use super::socket::{Demand, Denial};
use super::source::{Source, Span};
use super::syntax;
use super::{Config, admin, alert, keys, runtime};

/// A configuration that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is hardly meant the way it is written; empty for most files.
    pub warnings: Report,
    /// What it was compiled from.
    pub text: Arc<str>,
    /// What it counts on besides: a relative path begins beside the file.
    pub needs: Vec<Need>,
    /// What only the kernel can say whether we get it, with where that is written.
    demands: Vec<(Demand, Span)>,
}

impl Loaded {
    /// The same, if everything that it wants of the kernel is granted; `ask` asks for one thing.
    ///
    /// # Errors
    ///
    /// Everything that is denied, with the reason.
    pub fn granted(self, ask: impl Fn(&Demand) -> Result<(), Denial>) -> Result<Self, Rejected> {
        let mut problems = Problems::default();
        for (demand, span) in &self.demands {
            let Err(Denial { why, help }) = ask(demand) else {
                continue;
            };
            let problem = Problem::error(format!("{demand}: {why}")).at(span.clone());
            problems.add(match help {
                Some(help) => problem.help(help),
                None => problem,
            });
        }
        match problems.errors() {
            0 => Ok(self),
            _ => {
                let source = Source::new(&self.text);
                Err(Rejected(problems.report(self.warnings.origin(), &source)))
            }
        }
    }
}

/// Why a file cannot be used: all of it at once. Displays as the full report without colour.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Rejected(Report);

impl Rejected {
    /// Every problem with its source line and a caret; `color` is for terminals.
    pub fn render(&self, color: bool) -> String {
        self.0.render(color)
    }

    /// `file:line:column: message` for each problem, for a log.
    pub fn lines(&self) -> Vec<String> {
        self.0.lines()
    }

    /// The problems themselves.
    pub fn report(&self) -> &Report {
        &self.0
    }

    /// The same as warnings, for who can do without the file.
    pub fn into_warnings(self) -> Report {
        self.0.into_warnings()
    }

    pub(super) fn because(origin: &str, problem: Problem) -> Self {
        Self(Report::of(origin, problem))
    }

    pub(super) fn with(report: Report) -> Self {
        Self(report)
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Checks the text of a configuration; `origin` is what its problems name as the file.
///
/// # Errors
///
/// Every problem of the text, once at least one of them is an error.
pub fn compile(source: &str, origin: &str) -> Result<Loaded, Rejected> {
    compile_beside(source, origin, |_| None)
}

/// The same, with a problem for everything outside the text that it counts on and that `lacks`
/// something.
pub(super) fn compile_beside(
    source: &str,
    origin: &str,
    lacks: impl Fn(&Need) -> Option<Lack>,
) -> Result<Loaded, Rejected> {
    let (read, warnings) = read(source, origin, &keys::ROOT, |root, source, problems| {
        let config = document(root, source, problems);
        let needs = problems.tell_needs(lacks);
        Some((config?, needs, problems.take_demands()))
    })?;
    let (config, needs, demands) = read;
    Ok(Loaded {
        config,
        warnings,
        text: source.into(),
        needs,
        demands,
    })
}

/// Checks a text whose root is `section`, by `walk`: what it makes of it, and the warnings.
pub(super) fn read<T>(
    source: &str,
    origin: &str,
    section: &'static Section,
    walk: impl FnOnce(&Table<'_>, &Source<'_>, &mut Problems) -> Option<T>,
) -> Result<(T, Report), Rejected> {
    let source = Source::new(source);
    let mut problems = Problems::default();
    if let Some(at) = source.text().find('\0') {
        problems.add(
            Problem::error("not a text file: it contains a NUL byte")
                .at(at..at + 1)
                .help("is this the right file?"),
        );
        return Err(Rejected(problems.report(origin, &source)));
    }
    let (tree, errors) = DeTable::parse_recoverable(source.text());
    let (mended, doubt);
    let tree = if errors.is_empty() {
        doubt = syntax::Doubt::default();
        tree
    } else {
        (mended, doubt) = syntax::mend(&source, errors, &mut problems);
        DeTable::parse_recoverable(&mended).0
    };
    let mut meaning = Problems::default();
    let root = Table::open(section, tree.get_ref(), None, &mut meaning);
    let walked = walk(&root, &source, &mut meaning);
    meaning.discard(|problem| doubt.covers(problem, &source));
    problems.append(meaning);

    let rejected = problems.errors() > 0;
    let report = problems.report(origin, &source);
    match walked {
        Some(walked) if !rejected => Ok((walked, report)),
        _ => Err(Rejected(report)),
    }
}

fn document(root: &Table<'_>, source: &Source<'_>, problems: &mut Problems) -> Option<Config> {
    let runtime = runtime::runtime(&root.table("runtime", &keys::RUNTIME, problems), problems);
    let log = runtime::log(&root.table("log", &keys::LOG, problems), problems);
    let discovery = discovery::discovery(
        &root.table("discovery", &keys::DISCOVERY, problems),
        problems,
    );
    let (admin, endpoints) = admin::read(&root.table("admin", &keys::ADMIN, problems), problems);

    let tables = root.tables("service", &keys::SERVICE, problems);
    let empty = root
        .get("service")
        .is_some_and(|it| it.get_ref().as_array().is_some_and(|list| list.is_empty()));
    if empty || root.lacks("service") {
        let message = match source.text().trim() {
            "" => "the file is empty",
            _ => "no service is configured",
        };
        problems.add(
            Problem::error(message)
                .help(
                    "a service begins with [[service]] and needs a name, a listener and a backend",
                )
                .absent(),
        );
    }
    let drafts: Vec<service::Draft> = tables
        .iter()
        .map(|table| service::draft(table, problems))
        .collect();
    conflicts::check(&drafts, &endpoints, source, problems);
    let names: Option<HashSet<&str>> = drafts
        .iter()
        .map(|draft| draft.name.as_ref().map(|(name, _)| name.as_ref()))
        .collect();
    let alerts = root.tables("alert", &keys::ALERT, problems);
    let alerts = alert::read(&alerts, names.as_ref(), source, problems);
    let services: Option<Vec<_>> = drafts.into_iter().map(service::Draft::finish).collect();
    for (table, service) in tables.iter().zip(services.iter().flatten()) {
        let whole = service
            .admission
            .access
            .as_ref()
            .is_some_and(|it| it.is_whole());
        if let Some(span) = table
            .span_of("access")
            .filter(|_| whole && service.shuts_everybody_out())
        {
            problems.add(access::shut(&service.name).at(span));
        }
    }
    Some(Config {
        runtime,
        log,
        discovery,
        admin,
        services: services.filter(|services| !services.is_empty())?,
        alerts: alerts?,
    })
}

#[cfg(test)]
mod tests;
